"""Curves and bars show the accuracies that are theirs."""

import importlib.util
import pathlib
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

import advfeat.plotting
from advfeat import StandardClassifier, robust_accuracy_score
from advfeat.datasets import load_digits
from advfeat.plotting import AccuracyBarDisplay, RobustnessCurveDisplay, SampleGridDisplay
from advfeat.plotting import _accuracy_bars as accuracy_bars

QUIET = {"verbose": 0}


def linear_problem(seed, n=200, d=5):
    """A binary linear classifier and its samples."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)).astype(np.float32)
    y = np.where(X @ rng.normal(size=d) + rng.normal(size=n) > 0, "yes", "no")
    return LogisticRegression().fit(X, y), X, y


def robust_share(clf, X, y, norm, eps, slack=0.0):
    """Closed form: a linear score can be lowered by eps times the dual norm of the weights."""
    margin = clf.decision_function(X.astype(np.float64)) * np.where(y == clf.classes_[1], 1, -1)
    reach = np.linalg.norm(clf.coef_[0], 2 if norm == 2 else 1)
    return np.mean(margin > eps * reach + slack)


# RobustnessCurveDisplay


@pytest.mark.long
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), norm=st.sampled_from([2, np.inf]))
def test_curve_of_a_linear_classifier_has_its_closed_form(seed, norm):
    clf, X, y = linear_problem(seed)
    eps_values = [0.6, 0.0, 0.1, 0.3]
    display = RobustnessCurveDisplay.from_estimator(
        clf, X, y, norm=norm, eps_values=eps_values, random_start=False, n_steps=10, **QUIET
    )
    plt.close(display.figure_)
    np.testing.assert_array_equal(display.eps, sorted(eps_values))
    for eps, accuracy in zip(display.eps, display.accuracy, strict=True):
        low = robust_share(clf, X, y, norm, eps, slack=1e-4)
        high = robust_share(clf, X, y, norm, eps, slack=-1e-4)
        assert low <= accuracy <= high


def test_curve_of_a_network_starts_at_its_accuracy_and_never_rises():
    X, y = load_digits(return_X_y=True)
    clf = StandardClassifier(max_epochs=3, random_state=0, verbose=0).fit(X[:600], y[:600])
    X, y = X[600:680], y[600:680]
    eps = [0, 0.3, 0.6, 1.2]
    display = RobustnessCurveDisplay.from_estimator(
        clf, X, y, norm=2, eps_values=eps, n_steps=3, step_size=0.9, **QUIET
    )
    assert display.accuracy[0] == clf.score(X, y)
    assert np.all(np.diff(display.accuracy) <= 0)
    assert display.accuracy[-1] < display.accuracy[0]


def test_curve_draws_what_it_was_given():
    display = RobustnessCurveDisplay.from_predictions(
        [0.5, 0.0, 0.25], [0.2, 0.9, 0.6], norm=np.inf, name="D_R", n_steps=1, n_samples=300
    )
    np.testing.assert_array_equal(display.line_.get_xdata(), [0, 0.25, 0.5])
    np.testing.assert_array_equal(display.line_.get_ydata(), [0.9, 0.6, 0.2])
    assert display.ax_.get_xlabel() == "ε (input units)\nL∞ attack, 1 step, n = 300"
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["D_R"]
    assert display.figure_ is display.ax_.figure


def test_curve_states_the_settings_of_the_attack_that_ran():
    clf, X, y = linear_problem(1)
    given_steps, default_steps = (
        RobustnessCurveDisplay.from_estimator(clf, X, y, norm=2, eps_values=0.1, **attack, **QUIET)
        for attack in ({"n_steps": 4}, {})
    )
    assert given_steps.ax_.get_xlabel().endswith("L2 attack, 4 steps, n = 200")
    assert default_steps.ax_.get_xlabel().endswith("L2 attack, 20 steps, n = 200")
    assert default_steps.line_.get_label() == "LogisticRegression"


def test_curves_share_an_axis():
    settings_of = {"norm": 2, "n_steps": 20, "n_samples": 300}
    first = RobustnessCurveDisplay.from_predictions([0, 1], [0.9, 0], name="D", **settings_of)
    second = RobustnessCurveDisplay.from_predictions(
        [0, 1], [0.8, 0.4], name="D_R", ax=first.ax_, **settings_of
    )
    other = RobustnessCurveDisplay.from_predictions(
        [0, 1], [0.8, 0.5], name="weak", ax=first.ax_, **{**settings_of, "n_steps": 2}
    )
    assert second.ax_ is other.ax_ is first.ax_
    assert len(plt.get_fignums()) == 1
    lines = [display.line_ for display in (first, second, other)]
    assert list(first.ax_.lines) == lines
    assert len({to_hex(line.get_color()) for line in lines}) == 3
    assert len({line.get_marker() for line in lines}) == 3
    # The axis' label holds for the first two; the third says how it differs.
    legend = [text.get_text() for text in first.ax_.get_legend().get_texts()]
    assert legend == ["D", "D_R", "weak (L2 attack, 2 steps, n = 300)"]


def test_curve_plots_again_with_other_looks():
    display = RobustnessCurveDisplay(eps=[0, 1], accuracy=[1, 0], norm=2)
    assert display.plot(c="black", ls="--") is display
    assert display.line_.get_color() == "black"
    assert display.ax_.get_legend() is None
    figure = display.figure_
    display.plot(name="again")
    assert display.figure_ is not figure
    assert display.line_.get_label() == "again"


@pytest.mark.parametrize(
    ("eps", "accuracy", "norm", "message"),
    [
        ([0, 1], [0.5], 2, r"one value for each eps: expected shape \(2,\), got \(1,\)"),
        ([0, 1], [90, 40], 2, "divide percentages by 100"),
        ([0, 1], [0.5, np.nan], 2, r"in \[0, 1\]"),
        ([0, -1], [0.5, 0.5], 2, "non-negative"),
        ([0, np.inf], [0.5, 0.5], 2, "finite"),
        ([1, 1], [0.5, 0.5], 2, "different"),
        ([], [], 2, "one or more"),
        ([0, 1], [0.5, 0.5], 1, "must be 2 or numpy.inf. Got 1 instead"),
    ],
)
def test_curve_refuses(eps, accuracy, norm, message):
    with pytest.raises(ValueError, match=message):
        RobustnessCurveDisplay.from_predictions(eps, accuracy, norm=norm)


def test_curve_passes_errors_of_the_attack_on():
    clf, X, y = linear_problem(2)
    with pytest.raises(ValueError, match="one label per sample"):
        RobustnessCurveDisplay.from_estimator(clf, X, y[:-1], norm=2, eps_values=[0.1])
    with pytest.raises(TypeError, match="n_stepz"):
        RobustnessCurveDisplay.from_estimator(clf, X, y, norm=2, eps_values=[0.1], n_stepz=3)


# AccuracyBarDisplay


def test_bars_and_error_bars_are_mean_and_spread_over_seeds():
    rng = np.random.default_rng(0)
    accuracy = {"D": rng.random((3, 2)), "D_R": rng.random((4, 2)), "D_NR": rng.random(2)}
    display = AccuracyBarDisplay.from_predictions(
        accuracy, eps=[0, 0.25], norm=2, n_steps=20, n_samples=1000
    )
    for j, bars in enumerate(display.bars_):
        (lines,) = bars.errorbar.lines[2]
        for i, (bar, line, values) in enumerate(
            zip(bars, lines.get_segments(), accuracy.values(), strict=True)
        ):
            column = np.atleast_2d(values)[:, j]
            mean, spread = column.mean(), column.std(ddof=1) if len(column) > 1 else 0
            np.testing.assert_allclose(bar.get_height(), mean)
            np.testing.assert_allclose(line[:, 1], [mean - spread, mean + spread])
            assert abs(bar.get_x() + bar.get_width() / 2 - i) < 0.5
    ax = display.ax_
    assert [text.get_text() for text in ax.get_xticklabels()] == list(accuracy)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "no attack",
        "L2, ε = 0.25",
    ]
    assert ax.get_xlabel() == "Training set\nL2 attack, 20 steps, n = 1000"
    assert ax.get_ylabel() == "Test accuracy\nmean and SD of 1 to 4 seeds"


def test_bars_of_one_run_have_no_error_bars_and_say_their_percentage():
    display = AccuracyBarDisplay.from_predictions(
        {"D": [0.95, 0.021], "D_R": [1, 0.5]}, eps=[0, 0.5], norm=np.inf
    )
    assert all(bars.errorbar is None for bars in display.bars_)
    assert [text.get_text() for text in display.ax_.texts] == ["95", "100", "2", "50"]
    assert display.ax_.get_ylabel() == "Test accuracy"


@pytest.mark.parametrize("n_eps", [1, 2, 3, 7])
def test_bars_do_not_overlap(n_eps):
    display = AccuracyBarDisplay.from_predictions(
        {"D": np.full(n_eps, 0.9), "D_R": np.full(n_eps, 1)}, eps=np.arange(n_eps), norm=2
    )
    edges = sorted(
        (bar.get_x(), bar.get_x() + bar.get_width()) for bars in display.bars_ for bar in bars
    )
    assert all(left[1] < right[0] for left, right in zip(edges, edges[1:], strict=False))
    # The legend lies above the tallest bar.
    display.figure_.canvas.draw()
    legend = display.ax_.get_legend().get_window_extent()
    assert legend.y0 > display.ax_.transData.transform((0, 1))[1]


def test_bars_of_many_radii_stand_upright():
    radii = np.linspace(0, 1, 25)
    display = AccuracyBarDisplay.from_predictions({"D": 1 - radii}, eps=radii, norm=2)
    low, high = display.ax_.get_ylim()
    assert low == 0 and 1 < high < 3


def test_bars_of_estimators_are_the_robust_accuracy_score():
    models = [linear_problem(seed)[0] for seed in range(3)]
    _, X, y = linear_problem(3)
    display = AccuracyBarDisplay.from_estimators(
        {"D": models[:2], "D_R": models[2]}, X, y, norm=2, eps=(0.1, 0.4), n_steps=5, **QUIET
    )
    np.testing.assert_array_equal(display.eps, [0, 0.1, 0.4])
    for name, group in {"D": models[:2], "D_R": models[2:]}.items():
        expected = [
            [
                robust_accuracy_score(clf, X, y, norm=2, eps=eps, n_steps=5, **QUIET)
                for eps in (0, 0.1, 0.4)
            ]
            for clf in group
        ]
        np.testing.assert_array_equal(display.accuracy[name], expected)
        np.testing.assert_array_equal(
            display.accuracy[name][:, 0], [clf.score(X, y) for clf in group]
        )
    assert display.ax_.get_xlabel().endswith("L2 attack, 5 steps, n = 200")


def test_bars_of_any_name_and_of_no_estimator(monkeypatch):
    clf, X, y = linear_problem(0)
    attack = {"norm": 2, "eps": 0.1, "n_steps": 2, **QUIET}
    display = AccuracyBarDisplay.from_estimators({0.5: clf, None: clf}, X, y, **attack)
    assert [t.get_text() for t in display.ax_.get_xticklabels()] == ["0.5", "None"]
    grid = SampleGridDisplay({0.5: np.zeros((2, 1, 4, 4)), None: np.ones((2, 1, 4, 4))})
    texts = {label.get_text() for label in grid.plot().ax_.get_yticklabels()}
    assert {"0.5", "None"} <= texts
    monkeypatch.setattr(accuracy_bars, "robust_accuracy_score", None)  # nothing is attacked
    with pytest.raises(ValueError, match="one fitted classifier or more for each name.*'D_R'"):
        AccuracyBarDisplay.from_estimators({"D": clf, "D_R": []}, X, y, **attack)
    numbers = clone(clf).fit(X, (y == "yes").astype(int))
    with pytest.raises(ValueError, match="labels of another type"):
        AccuracyBarDisplay.from_estimators({"D": clf, "D_R": numbers}, X, y, **attack)


def test_bars_draw_into_given_axes():
    figure, (left, right) = plt.subplots(1, 2)
    display = AccuracyBarDisplay.from_predictions({"D": [0.9]}, eps=0, norm=2, ax=right)
    assert display.ax_ is right
    assert display.figure_ is figure
    assert not left.patches
    assert len(plt.get_fignums()) == 1


@pytest.mark.parametrize(
    ("accuracy", "message"),
    [
        ({}, "must be a mapping.* Got an empty one"),
        ([0.9, 0.1], "must be a mapping.* Got list"),
        ({"D": [0.9]}, r"'D' must have shape .* n_eps = 2, .* Got shape \(1,\)"),
        ({"D": np.zeros((1, 1, 2))}, r"Got shape \(1, 1, 2\)"),
        ({"D": np.zeros((0, 2))}, r"Got shape \(0, 2\)"),
        ({"D": [90.0, 10.0]}, "The accuracy of 'D' .* divide percentages by 100"),
    ],
)
def test_bars_refuse(accuracy, message):
    with pytest.raises(ValueError, match=message):
        AccuracyBarDisplay(accuracy, eps=[0, 0.25], norm=2)


IMAGES = np.zeros((6, 3, 4, 4))


# matplotlib is optional


def test_without_matplotlib_displays_say_how_to_install_it(monkeypatch):
    clf, X, y = linear_problem(0)
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    folder = pathlib.Path(advfeat.plotting.__file__).parent
    for path in folder.glob("*.py"):  # importing them must not need matplotlib
        spec = importlib.util.spec_from_file_location("imported_again", path)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    curve, bars = RobustnessCurveDisplay, AccuracyBarDisplay
    grid = SampleGridDisplay({"D": IMAGES})
    # A broken X shows that the check comes first, before any long work.
    for call in (
        lambda: curve.from_estimator(clf, None, y, norm=2, eps_values=[0.1]),
        lambda: curve.from_predictions([0], [1], norm=2),
        lambda: bars.from_estimators({"D": clf}, None, y, norm=2, eps=0.1),
        lambda: bars.from_predictions({"D": [1]}, eps=0, norm=2),
        lambda: SampleGridDisplay.from_datasets(None),
        grid.plot,
    ):
        with pytest.raises(ImportError, match=r'Display\.\w+ needs.*"advfeat\[plots\]"'):
            call()


def test_curves_of_all_radii_stay_inside_their_axes():
    first = RobustnessCurveDisplay.from_predictions([0, 0.01, 0.03], [0.9, 0.5, 0.1], norm=np.inf)
    RobustnessCurveDisplay.from_predictions([0, 0.25, 0.5], [0.9, 0.5, 0.1], norm=2, ax=first.ax_)
    low, high = first.ax_.get_xlim()
    assert low == 0 and 0.5 <= high < 0.6


def test_an_unknown_norm_leaves_no_figure_behind():
    for call in (
        lambda: RobustnessCurveDisplay.from_predictions([0, 0.5], [0.9, 0.1], norm=1),
        lambda: AccuracyBarDisplay.from_predictions({"a": [0.9, 0.1]}, eps=[0, 0.5], norm=1),
    ):
        with pytest.raises(ValueError, match="norm"):
            call()
    assert plt.get_fignums() == []


def test_curves_stay_inside_zoomed_and_logarithmic_axes():
    display = RobustnessCurveDisplay.from_predictions(
        [0, 0.25, 0.5, 1], [0.95, 0.9, 0.5, 0.1], norm=2
    )
    ax, figure = display.ax_, display.figure_
    ax.set_xlim(0, 0.5)
    ax.set_ylim(0.6, 1)
    figure.canvas.draw()
    inner = ax.get_window_extent()
    drawn = display.line_.get_tightbbox()
    room = 0.04 * np.array([inner.width, inner.height])
    assert (drawn.min >= inner.min - room).all() and (drawn.max <= inner.max + room).all()
    ax.set_xscale("log")
    figure.canvas.draw()
    size = figure.get_tightbbox().size
    assert (size < 2 * figure.get_size_inches()).all()
    _, log = plt.subplots()
    log.set_xscale("log")
    RobustnessCurveDisplay.from_predictions([0.1, 1], [0.9, 0.5], norm=2, ax=log)


def test_more_curves_and_bars_than_colours_can_be_told_apart():
    _, ax = plt.subplots()
    for i in range(8):
        RobustnessCurveDisplay.from_predictions(
            [0, 1], [1 - i / 10, 0.1], norm=2, name=f"curve {i}", ax=ax
        )
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in ax.lines}
    assert len(looks) == 8
    radii = np.linspace(0, 1, 8)
    bars = AccuracyBarDisplay.from_predictions({"D": 1 - radii}, eps=radii, norm=2).bars_
    assert len({(bar[0].get_facecolor(), bar[0].get_hatch()) for bar in bars}) == 8


def test_a_wrong_keyword_of_a_curve_leaves_no_figure():
    before = plt.get_fignums()
    with pytest.raises(AttributeError, match="bogus"):
        RobustnessCurveDisplay.from_predictions([0, 1], [0.9, 0.5], norm=2, bogus=1)
    assert plt.get_fignums() == before
    display = RobustnessCurveDisplay.from_predictions(
        [0, 1], [0.9, 0.5], norm=2, c="r", scalex=True
    )
    assert display.line_.get_color() == "r"

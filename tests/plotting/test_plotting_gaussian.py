"""Figures 4 and 13: the geometry that is drawn is that of the models."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from advfeat.gaussian import GaussianRobustMLE
from advfeat.plotting import GaussianMetricDisplay, LinearBoundaryDisplay
from advfeat.utils._sklearn import _get_feature_names

pytestmark = pytest.mark.filterwarnings("ignore:The average adversary:UserWarning")
seeds = st.integers(0, 2**32 - 1)


def plane(seed, n=60):
    rng = np.random.default_rng(seed)
    y = np.resize([-1, 1], n)
    return rng.normal(size=(n, 2)) @ rng.normal(size=(2, 2)) + 2 * y[:, None], y


def two_points(line):
    """Two points of a line that matplotlib knows by one and its slope."""
    (x, y), slope = line.get_xy1(), line.get_slope()
    return np.array([(x, y), (x + 1, y + slope)])


def area(outline):
    x, y = outline.T
    return abs(np.sum(x[1:] * y[:-1] - x[:-1] * y[1:])) / 2


@settings(max_examples=10)
@given(seed=seeds)
def test_figure_4_shows_the_metric_and_the_boundary(seed):
    X, y = plane(seed)
    model = GaussianRobustMLE(1.5).fit(X, y)
    display = GaussianMetricDisplay.from_estimator(model, X, y)
    center = model.means_.mean(axis=0)
    V = display.metric_ball - center
    assert_allclose(np.einsum("ij,jk,ik->i", V, model.precision_, V), 1.0, rtol=1e-6)
    radius = np.linalg.norm(display.l2_ball - center, axis=1)
    assert_allclose(radius, radius[0])
    assert_allclose(area(display.l2_ball), area(display.metric_ball), rtol=1e-6)
    assert_allclose(
        model.decision_function(two_points(display.lines_["boundary"])), 0.0, atol=1e-6
    )
    arrow = display.lines_["means"]
    assert_allclose([arrow.U.item(), arrow.V.item()], np.diff(model.means_, axis=0)[0])
    assert_allclose(display.lines_["metric"].get_xydata(), display.metric_ball)
    assert_allclose(display.lines_["l2"].get_xydata(), display.l2_ball)
    assert display.ax_.get_title() == "ε = 1.5"
    plt.close(display.figure_)


def test_figure_4_for_a_large_budget_both_balls_are_one():
    X, y = plane(0)
    model = GaussianRobustMLE(1e4).fit(X, y)
    display = GaussianMetricDisplay.from_estimator(model, X, y)
    radius = np.linalg.norm(display.metric_ball - model.means_.mean(axis=0), axis=1)
    assert_allclose(radius, radius[0], rtol=1e-3)


def test_figure_4_draws_on_given_axes():
    X, y = plane(0)
    _, ax = plt.subplots()
    model = GaussianRobustMLE().fit(X, y)
    display = GaussianMetricDisplay.from_estimator(model, X, y, ax=ax)
    assert display.ax_ is ax and display.figure_ is ax.figure


def test_planes_can_be_drawn_on_shared_axes():
    X, y = plane(0)
    figure, axes = plt.subplots(1, 3, sharex=True, sharey=True)
    for ax, eps in zip(axes[:2], (0.1, 5), strict=True):
        GaussianMetricDisplay.from_estimator(GaussianRobustMLE(eps).fit(X, y), X, y, ax=ax)
    model = {"model": GaussianRobustMLE().fit(X, y)}
    LinearBoundaryDisplay.from_estimators(model, X, y, eps=1, ax=axes[2])
    figure.canvas.draw()
    scales = [np.diff(ax.transData.transform([(0, 0), (1, 1)]), axis=0)[0] for ax in axes]
    assert_allclose([x for x, _ in scales], [y for _, y in scales])


def test_scores_of_zero_and_constants_count_as_predict_has_them():
    X, y = [[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [2.0, 0.0]], [0, 0, 1, 1]
    given = {"coef": {"a": [1, 0], "b": [0, 0]}, "intercept": {"a": 0, "b": 0}}
    display = LinearBoundaryDisplay(X, y, **given, eps=0.5)
    assert display.accuracy == {"a": 1.0, "b": 0.5}
    assert display.robust_accuracy == {"a": 0.75, "b": 0.5}  # at 0 only the first class is safe
    display.plot().figure_.canvas.draw()


def test_figure_4_needs_two_classes_two_features_and_one_covariance():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 3)), np.repeat([0, 1, 2], 10)
    for model in (
        GaussianRobustMLE().fit(X[:20], y[:20]),
        GaussianRobustMLE().fit(X[:, :2], y),
        GaussianRobustMLE(per_class=True).fit(X[:20, :2], y[:20]),
    ):
        with pytest.raises(ValueError, match="needs a model of two classes, two features"):
            GaussianMetricDisplay.from_estimator(model, X, y)


@settings(max_examples=10)
@given(seed=seeds, norm=st.sampled_from([2, np.inf]))
def test_figure_13_shows_boundaries_and_exact_accuracies(seed, norm):
    X, y = plane(seed)
    scaled = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    plain = LinearSVC(random_state=0).fit(X, y)
    display = LinearBoundaryDisplay.from_estimators(
        {"scaled": scaled, "plain": plain}, X, y, eps=0.4, norm=norm
    )
    assert_allclose(display.coef["plain"], plain.coef_[0], rtol=1e-9, atol=1e-9)
    for name, model in (("scaled", scaled), ("plain", plain)):
        line = display.lines_[name]
        assert_allclose(model.decision_function(two_points(line)), 0, atol=1e-6)
        assert display.accuracy[name] == model.score(X, y)
        w = display.coef[name]
        step = w / np.linalg.norm(w) if norm == 2 else np.sign(w)
        attacked = X - 0.4 * y[:, None] * step
        assert display.robust_accuracy[name] == model.score(attacked, y)
    for ball in display.balls_:
        V = ball.get_xydata()
        assert_allclose(np.ptp(V, axis=0), 0.8, rtol=1e-3)
        assert np.any(np.all(np.isclose(X, V[:-1].mean(axis=0)), axis=1))
    plt.close(display.figure_)


def test_figure_13_standard_losses_are_brittle_and_robust_training_is_not():
    rng = np.random.default_rng(0)
    y = np.resize([-1, 1], 400)
    X = y[:, None] * np.column_stack([rng.uniform(1, 4, 400), rng.uniform(0.2, 0.4, 400)])
    estimators = {
        "likelihood": GaussianRobustMLE(0),
        "logistic": make_pipeline(StandardScaler(), LogisticRegression()),
        "hinge": make_pipeline(StandardScaler(), LinearSVC(random_state=0)),
        "robust": GaussianRobustMLE(3.0),
    }
    for estimator in estimators.values():
        estimator.fit(X, y)
    display = LinearBoundaryDisplay.from_estimators(estimators, X, y, eps=0.8)
    assert set(display.accuracy.values()) == {1.0}
    assert display.robust_accuracy.pop("robust") > 0.99
    assert max(display.robust_accuracy.values()) < 0.05


def test_figure_13_refuses_other_decisions():
    X, y = plane(0)
    with pytest.raises(ValueError, match="needs a linear decision function.*That of 'rbf'"):
        LinearBoundaryDisplay.from_estimators({"rbf": SVC().fit(X, y)}, X, y, eps=1)


def test_figure_13_refuses_radii_and_classifiers_that_it_cannot_draw():
    X, y = plane(0)
    two = LogisticRegression().fit(X, y)
    three = LogisticRegression().fit(X, np.arange(60) % 3)
    model = {"means": np.eye(2), "covariance": np.eye(2), "coef": [1, 0], "intercept": 0}
    for eps in (-1, np.nan, np.inf, [0.1, 0.5], [], None, "a"):
        with pytest.raises(ValueError, match="eps must be one finite, non-negative number"):
            LinearBoundaryDisplay.from_estimators({"a": two}, X, y, eps=eps)
        with pytest.raises(ValueError, match="eps must be one finite, non-negative number"):
            LinearBoundaryDisplay(X, y, coef={"a": [1, 0]}, intercept={"a": 0}, eps=eps)
        with pytest.raises(ValueError, match="eps must be one finite, non-negative number"):
            GaussianMetricDisplay(X, y, **model, eps=eps)
    with pytest.raises(ValueError, match="one score for two classes. That of 'three'"):
        LinearBoundaryDisplay.from_estimators({"three": three}, X, y, eps=1)


def test_displays_need_the_plane_and_two_classes():
    X, y = plane(0)
    for bad_X, bad_y in ((np.column_stack([X, X]), y), (X, np.zeros(60)), (X, np.arange(60) % 3)):
        with pytest.raises(ValueError, match="needs samples with two features and of two classes"):
            LinearBoundaryDisplay(bad_X, bad_y, coef={"a": [1, 0]}, intercept={"a": 0}, eps=1)


def test_labels_are_those_of_the_classifiers():
    """Text in another order than the classes would turn accuracies round."""
    X = np.array([[-2.0, 0.0], [-1.0, 1.0], [1.0, 0.0], [2.0, 1.0]])
    clf = LogisticRegression().fit(X, [0, 0, 1, 1])
    for y in (["b", "b", "a", "a"], [1, 1, 2, 2]):
        with pytest.raises(ValueError, match="y (must hold|contains) labels"):
            LinearBoundaryDisplay.from_estimators({"a": clf}, X, y, eps=0.1)


def test_pipelines_on_features_far_from_zero_are_linear():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 200)
    X = rng.normal(size=(400, 2)) + 0.3 * y[:, None] + 1000
    pipe = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    display = LinearBoundaryDisplay.from_estimators({"a": pipe}, X, y, eps=0.1)
    assert display.accuracy["a"] == pytest.approx(pipe.score(X, y), abs=0.01)


def test_what_has_no_balls_and_no_boundary_is_told():
    X = np.column_stack([np.arange(8.0), np.repeat([0.0, 1.0], 4)])
    y = np.repeat([0, 1], 4)
    flat = GaussianRobustMLE(0).fit(X, y)
    with pytest.raises(ValueError, match="positive definite covariance"):
        GaussianMetricDisplay.from_estimator(flat, X, y)
    clf = LogisticRegression().fit(X, y)
    same = [
        LinearBoundaryDisplay(X, y, coef={"a": w}, intercept={"a": 0.0}, eps=0.1).accuracy
        for w in (clf.coef_, clf.coef_[0])
    ]
    assert same[0] == same[1]
    for coef in ([1.0], [[1.0], [2.0]], [1.0, 2.0, 3.0]):
        with pytest.raises(ValueError, match="must have shape .2,."):
            LinearBoundaryDisplay(X, y, coef={"a": coef}, intercept={"a": 0.0}, eps=0.1)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_columns_of_frames_are_those_of_the_fit(library):
    X, y = plane(0)
    frame = pytest.importorskip(library).DataFrame({"a": X[:, 0], "b": X[:, 1]})
    if _get_feature_names(frame) is None:
        pytest.skip("scikit-learn before 1.9 reads no names from frames of polars 2")
    model = GaussianRobustMLE().fit(frame, y)
    scaled = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, y)
    display = LinearBoundaryDisplay.from_estimators(  # without a warning
        {"model": model, "scaled": scaled}, frame, y, eps=0.1
    )
    assert display.accuracy == {"model": model.score(frame, y), "scaled": scaled.score(frame, y)}
    ball = GaussianMetricDisplay.from_estimator(model, frame, y)
    assert_allclose(ball.X, X, rtol=1e-6, atol=1e-6)
    names = "feature names should match.* in their order: a, b. Got b, a"
    turned = frame[["b", "a"]]
    with pytest.raises(ValueError, match=names):
        GaussianMetricDisplay.from_estimator(model, turned, y)
    for estimator in (model, scaled):
        with pytest.raises(ValueError, match=names):
            LinearBoundaryDisplay.from_estimators({"a": estimator}, turned, y, eps=0.1)


def test_names_are_compared_with_each_estimator():
    X, y = plane(0)
    frame = pytest.importorskip("pandas").DataFrame(X, columns=["a", "b"])
    estimators = {
        "first": LogisticRegression().fit(frame, y),
        "second": LogisticRegression().fit(frame[["b", "a"]], y),
    }
    with pytest.raises(ValueError, match="in their order: b, a. Got a, b"):
        LinearBoundaryDisplay.from_estimators(estimators, frame, y, eps=0.1)


@pytest.mark.parametrize("make", [float, lambda c: [c], lambda c: np.array([[c]]), torch.tensor])
def test_an_intercept_is_one_number_of_any_shape(make):
    X, y = plane(0)
    clf = LogisticRegression().fit(X, y)
    c = clf.intercept_.item()
    display = LinearBoundaryDisplay(X, y, coef={"a": clf.coef_}, intercept={"a": make(c)}, eps=0.1)
    assert display.intercept["a"] == pytest.approx(c)
    assert display.accuracy["a"] == clf.score(X, y)
    model = {"means": np.eye(2), "covariance": np.eye(2), "coef": clf.coef_, "eps": 0.1}
    ball = GaussianMetricDisplay(X, y, **model, intercept=make(c))
    assert ball.intercept == pytest.approx(c)


@pytest.mark.parametrize("intercept", [[0.0, 1.0], [], None, "a", [[1.0], [1.0, 2.0]]])
def test_an_intercept_that_is_not_one_number_is_refused(intercept):
    X, y = plane(0)
    with pytest.raises(ValueError, match=r"intercept\['a'\] must be one finite number. Got"):
        LinearBoundaryDisplay(X, y, coef={"a": [1, 0]}, intercept={"a": intercept}, eps=0.1)
    model = {"means": np.eye(2), "covariance": np.eye(2), "coef": [1, 0], "eps": 0.1}
    with pytest.raises(ValueError, match="intercept must be one finite number. Got"):
        GaussianMetricDisplay(X, y, **model, intercept=intercept)


def test_intercepts_have_the_names_of_coef():
    X, y = plane(0)
    coef = {"a": [1, 0], "b": [0, 1]}
    with pytest.raises(ValueError, match=r"of coef, \['a', 'b'\]. Got numbers for \['a'\]"):
        LinearBoundaryDisplay(X, y, coef=coef, intercept={"a": 0.0}, eps=0.1)
    with pytest.raises(ValueError, match="intercept must be a mapping.* Got float"):
        LinearBoundaryDisplay(X, y, coef=coef, intercept=0.0, eps=0.1)


def test_figure_4_says_which_estimator_it_needs():
    X, y = plane(0)
    for other in (LogisticRegression(), make_pipeline(StandardScaler(), GaussianRobustMLE())):
        with pytest.raises(TypeError, match="needs a fitted GaussianRobustMLE.* Got (Log|Pipe)"):
            GaussianMetricDisplay.from_estimator(other.fit(X, y), X, y)


@pytest.mark.parametrize("unit", [1e-25, 1e-12, 1e12, 1e25])
def test_planes_in_any_unit(unit):
    X, y = plane(0)
    scaled = make_pipeline(StandardScaler(), LogisticRegression()).fit(X * unit, y)
    display = LinearBoundaryDisplay.from_estimators({"g": scaled}, X * unit, y, eps=0.1 * unit)
    assert_allclose(display.accuracy["g"], scaled.score(X * unit, y))
    display.figure_.canvas.draw()
    plt.close(display.figure_)
    model = GaussianRobustMLE(1.5 * unit).fit(X * unit, y)
    display = GaussianMetricDisplay.from_estimator(model, X * unit, y)
    display.figure_.canvas.draw()
    plt.close(display.figure_)


def test_a_prior_of_zero_has_no_boundary():
    X, y = plane(0)
    model = GaussianRobustMLE(1.5, priors=[1, 0]).fit(X, y)
    with pytest.raises(ValueError, match="needs finite scores. Those of 'g' are not"):
        LinearBoundaryDisplay.from_estimators({"g": model}, X, y, eps=0.1)
    with pytest.raises(ValueError, match=r"a boundary. Got priors of \[1.0, 0.0\]"):
        GaussianMetricDisplay.from_estimator(model, X, y)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"means": [[0, 0]]}, r"means must have shape \(2, 2\)"),
        ({"means": np.zeros((3, 2))}, r"means must have shape \(2, 2\)"),
        ({"means": [[0, np.nan], [1, 1]]}, r"means must have shape \(2, 2\), finite"),
        ({"means": "a"}, "means must hold numbers"),
        ({"covariance": np.eye(3)}, r"positive definite covariance of shape \(2, 2\)"),
        ({"covariance": [[2.0]]}, r"positive definite covariance of shape \(2, 2\)"),
        ({"covariance": [[1, 99], [0.1, 1]]}, r"positive definite covariance of shape \(2, 2\)"),
        ({"covariance": np.diag([1, np.nan])}, r"positive definite covariance of shape \(2, 2\)"),
        ({"coef": [1, np.inf]}, "coef must have shape .* finite"),
        ({"intercept": np.inf}, "intercept must be one finite number"),
    ],
)
def test_what_is_no_gaussian_model_is_refused_before_a_figure_is_made(changes, message):
    X, y = plane(0)
    model = {"means": np.eye(2), "covariance": np.eye(2), "coef": [1, 1], "intercept": 0, "eps": 1}
    with pytest.raises(ValueError, match=message):
        GaussianMetricDisplay(X, y, **{**model, **changes})
    assert not plt.get_fignums()


def test_boundaries_on_axes_that_are_not_linear():
    X, y = plane(0)
    X = np.exp(X / 10)
    _, ax = plt.subplots()
    ax.set_xscale("log")
    clf = LogisticRegression().fit(X, y)
    display = LinearBoundaryDisplay.from_estimators({"a": clf}, X, y, eps=0.1, norm=2, ax=ax)
    display.figure_.canvas.draw()
    line = display.lines_["a"]
    assert_allclose(clf.decision_function([line.get_xy1(), line.get_xy2()]), 0, atol=1e-6)

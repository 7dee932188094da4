"""What cannot be used is told before the work, and NumPy's numbers count as the plain ones."""

import datetime

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import (
    BatchScoring,
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    LRScheduler,
)

from advfeat import (
    AdversarialClassifier,
    GaussianRobustMLE,
    NonRobustRelabeler,
    StandardClassifier,
    from_torch,
    load,
    robust_accuracy_curve,
    robust_accuracy_score,
    save,
    transfer_rate,
)
from advfeat.attacks import adversarial_examples, attackable
from advfeat.datasets import make_planted_features, make_planted_images
from advfeat.optim import AttackedNetwork, FrozenNetwork, L2Ball, LinfBall, make_ball
from advfeat.plotting import AccuracyBarDisplay, LinearBoundaryDisplay, RobustnessCurveDisplay

X = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
Y = (X[:, 0] + 0.3 * X[:, 1] > 0).astype(int)
LINEAR = LogisticRegression().fit(X, Y)
QUICK = {"max_epochs": 2, "random_state": 0, "verbose": 0}


def several():
    return plt.subplots(1, 2)[1]


def polar():
    return plt.subplots(subplot_kw={"projection": "polar"})[1]


@pytest.fixture
def no_attack(monkeypatch):
    def attacked(*args, **kwargs):
        raise AssertionError("an attack began")

    for name in (
        "_robustness_curve.robust_accuracy_curve",
        "_accuracy_bars.robust_accuracy_score",
    ):
        monkeypatch.setattr(f"advfeat.plotting.{name}", attacked)


@pytest.mark.parametrize("make", [several, polar, plt.figure, lambda: plt.Axes, lambda: "ax"])
def test_what_is_no_axes_is_refused_before_the_attacks(make, no_attack):
    ax = make()
    calls = [
        lambda: RobustnessCurveDisplay.from_estimator(
            LINEAR, X, Y, norm=2, eps_values=[0, 0.1], ax=ax
        ),
        lambda: AccuracyBarDisplay.from_estimators({"D": LINEAR}, X, Y, norm=2, eps=0.1, ax=ax),
        lambda: LinearBoundaryDisplay.from_estimators({"D": LINEAR}, X, Y, eps=0.1, ax=ax),
        lambda: RobustnessCurveDisplay(eps=[0.1], accuracy=[0.5], norm=2).plot(ax=ax),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="ax must be one matplotlib Axes"):
            call()


def test_displays_take_any_name_and_tell_what_is_wrong():
    display = RobustnessCurveDisplay(eps=[0.1, 0.2], accuracy=[0.5, 0.4], norm=2, name=["a", "b"])
    assert display.plot().line_.get_label() == "['a', 'b']"
    with pytest.raises(ValueError, match=r"share of the samples, in \[0, 1\]. Got \[nan\]"):
        RobustnessCurveDisplay(eps=[0.1], accuracy=[np.nan], norm=2)
    with pytest.raises(ValueError, match="^eps_values must be one or more"):
        RobustnessCurveDisplay.from_estimator(LINEAR, X, Y, norm=2, eps_values=[-1])
    for other in (RandomForestClassifier(2).fit(X, Y), LinearRegression().fit(X, Y)):
        with pytest.raises(TypeError, match="needs linear classifiers with a decision_function"):
            LinearBoundaryDisplay.from_estimators({"D": other}, X, Y, eps=0.1)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int64])
def test_integers_of_numpy_train_as_plain_ones(kind):
    """The number of all steps, 300 / 16 * 20, is more than a byte holds."""
    plain, given = (
        StandardClassifier(batch_size=n(16), max_epochs=n(20), random_state=0, verbose=0).fit(X, Y)
        for n in (int, kind)
    )
    assert_array_equal(plain.decision_function(X), given.decision_function(X))


@pytest.mark.parametrize("make", [StandardClassifier, AdversarialClassifier])
@pytest.mark.parametrize("weight_decay", [True, 10**9, np.int64(1), np.float64(0.5)])
def test_numbers_of_any_type_are_numbers(make, weight_decay):
    clf, plain = (
        make(weight_decay=w, lr=1e-9, **QUICK).fit(X, Y)
        for w in (weight_decay, float(weight_decay))
    )
    for model in (clf, plain):
        model.partial_fit(X, Y)
    assert_array_equal(clf.decision_function(X), plain.decision_function(X))


@pytest.mark.parametrize("kind", [np.uint8, np.int16])
def test_integers_of_numpy_cut_batches_as_plain_ones(kind):
    wide = np.tile(X, (100, 1)) if kind is np.int16 else X
    size = kind(np.iinfo(kind).max)
    StandardClassifier(batch_size=size, **QUICK).fit(wide, np.resize(Y, len(wide)))
    plain = adversarial_examples(LINEAR, X, Y, norm=2, eps=0.1, batch_size=200, n_steps=2)
    given = adversarial_examples(LINEAR, X, Y, norm=2, eps=0.1, batch_size=kind(120), n_steps=2)
    assert_array_equal(given[1], plain[1])


def test_integers_of_numpy_plant_as_plain_ones():
    for make, sizes in (
        (make_planted_features, {"n_classes": 10, "n_nonrobust": 250}),
        (make_planted_images, {"n_classes": 3, "size": 16}),
    ):
        plain, given = (
            make(n_samples=50, random_state=0, **{name: kind(n) for name, n in sizes.items()})
            for kind in (int, np.uint8)
        )
        assert_array_equal(plain.data, given.data)


@pytest.mark.parametrize("make", [StandardClassifier, AdversarialClassifier])
@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (EarlyStopping(), "EarlyStopping monitors 'valid_loss'"),
        (Checkpoint(), "Checkpoint monitors 'valid_loss_best'.*monitor='train_loss_best'"),
        (("f1", EpochScoring("f1_macro")), "EpochScoring scores held-out samples"),
        (BatchScoring("accuracy"), "BatchScoring scores held-out samples"),
    ],
)
def test_callbacks_that_need_held_out_samples(make, callback, message):
    clf = make(callbacks=[callback], **QUICK)
    for method in (clf.fit, clf.partial_fit):
        with pytest.raises(ValueError, match=message) as caught:
            method(X, Y)
        assert "without early_stopping=True there are none" in str(caught.value)


class Measures(Callback):
    """Records a loss of samples that it has itself."""

    def on_epoch_end(self, net, **kwargs):
        net.history.record("valid_loss", 1.0)


def test_callbacks_that_find_what_they_need():
    stop = EarlyStopping(patience=2, sink=lambda text: None)
    step = LRScheduler("StepLR", step_size=1, monitor="valid_loss")
    settings = {**QUICK, "max_epochs": 9, "lr_schedule": "constant"}
    clf = StandardClassifier(callbacks=[Measures(), stop, ("step", step)], **settings).fit(X, Y)
    assert 1 < len(clf.history_) < 9


def test_divergence_names_what_may_be_too_large():
    with pytest.raises(ValueError, match=r"smaller lr \(got 0.1\) or weight_decay \(got 10000\)"):
        StandardClassifier(weight_decay=1e4, max_epochs=9, verbose=0).fit(X, Y)
    with pytest.raises(ValueError, match=r"smaller lr .*, weight_decay .* or eps \(got 0.5\)"):
        AdversarialClassifier(weight_decay=1e4, eps=0.5, max_epochs=9, verbose=0).fit(X, Y)


@pytest.mark.parametrize("norm", [1, "l2", "inf", None, "linf"])
def test_balls_of_other_norms(norm):
    with pytest.raises(ValueError, match="'norm' parameter must be 2 or numpy.inf"):
        make_ball(norm, 0.5)


@pytest.mark.parametrize("ball", [L2Ball, LinfBall])
@pytest.mark.parametrize("eps", [-1, np.nan])
def test_radii_that_are_none(ball, eps):
    with pytest.raises(ValueError, match="eps must be a number of at least 0"):
        ball(eps)


@pytest.mark.parametrize("precision", ["BF16", "fp16", None])
def test_other_precisions(precision):
    module = torch.nn.Linear(2, 2).eval()
    for network in (FrozenNetwork, AttackedNetwork):
        with pytest.raises(ValueError, match="'precision' parameter must be 'fp32' or 'bf16'"):
            network(module, device="cpu", precision=precision)


def test_scores_of_the_gaussian_model_check_as_others_do():
    with pytest.raises(NotFittedError):
        GaussianRobustMLE().score(X, Y)
    model = GaussianRobustMLE(eps=0.0).fit(X, Y.astype(object))
    assert model.score(X, Y.astype(object)) == model.score(X, Y) == np.mean(model.predict(X) == Y)
    assert model.score(X, Y + 7) == 0  # classes that the fit has not seen
    weight = torch.arange(300.0, requires_grad=True)
    expected = np.average(model.predict(X) == Y, weights=np.arange(300))
    assert model.score(X, Y, sample_weight=weight) == pytest.approx(expected)
    with pytest.raises(ValueError, match="[Nn]egative"):
        model.score(X, Y, sample_weight=-np.ones(300))
    with pytest.raises(ValueError, match="samples as a table in memory"):
        model.predict(torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)))


def test_weights_of_which_the_sum_is_infinite():
    clf = StandardClassifier(**QUICK).fit(X, Y)
    huge, plain = np.where(Y, 1e308, 5e307), np.where(Y, 2.0, 1.0)
    for model in (clf, GaussianRobustMLE(eps=0.0).fit(X, Y)):
        assert model.score(X, Y, huge) == pytest.approx(model.score(X, Y, plain))
    attack = {"norm": 2, "eps": 0.1, "n_steps": 2, "verbose": 0}
    scores = [robust_accuracy_score(clf, X, Y, sample_weight=w, **attack) for w in (huge, plain)]
    assert scores[0] == pytest.approx(scores[1])


@pytest.mark.parametrize(
    "labels",
    [
        Y.astype("datetime64[D]"),
        Y.astype("timedelta64[s]"),
        [datetime.date(2026, 1, 1)] * 300,
    ],
)
def test_dates_beside_classes_that_are_numbers(labels):
    clf = StandardClassifier(**QUICK).fit(X, Y)
    for call in (
        lambda: clf.score(X, labels),
        lambda: clf.partial_fit(X, labels),
        lambda: robust_accuracy_score(clf, X, labels, norm=2, eps=0.1),
    ):
        with pytest.raises(ValueError, match="labels like the classes|Unknown label type"):
            call()


@pytest.mark.parametrize("dtype", ["datetime64[D]", "timedelta64[s]", complex])
@pytest.mark.parametrize("table", [True, False])
def test_samples_are_real_numbers(dtype, table):
    data = X if table else np.clip(X, 0, 1)[:, :1, None, None].repeat(3, 1)
    clf, other = StandardClassifier(**QUICK).fit(data, Y), data.astype(dtype)
    calls = [clf.predict, lambda odd: clone(clf).fit(odd, Y), lambda odd: clf.score(odd, Y)]
    calls.append(lambda odd: adversarial_examples(clf, odd, Y, norm=2, eps=0.1))
    calls.append(lambda odd: NonRobustRelabeler(clf, verbose=0).fit_transform(odd, Y))
    if table:
        gaussian = GaussianRobustMLE(eps=0.0).fit(data, Y)
        calls += [gaussian.predict, lambda odd: clone(gaussian).fit(odd, Y)]
    for call in calls:
        with pytest.raises(ValueError, match="dates or times|Complex data not supported"):
            call(other)


def test_dates_are_classes_among_themselves():
    days = np.array(["2026-01-01", "2026-01-02"], dtype="datetime64[D]")
    clf = StandardClassifier(max_epochs=8, random_state=0, verbose=0).fit(X, days[Y])
    assert clf.score(X, days[Y]) > 0.8
    with pytest.raises(ValueError, match="labels like the classes"):
        clf.score(X, Y)


def test_a_curve_takes_its_radii_once():
    with pytest.raises(TypeError, match="takes its radii as eps_values. Got eps"):
        robust_accuracy_curve(LINEAR, X, Y, norm=2, eps_values=[0.1], eps=0.1)


def test_a_device_that_is_not_there_is_no_damage(tmp_path):
    save(StandardClassifier(**QUICK).fit(X, Y), tmp_path / "clf.safetensors")
    with pytest.raises(ValueError, match="^device=.*was asked for"):
        load(tmp_path / "clf.safetensors", device="cuda:99")


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (lambda y: None, ValueError, "'target' cannot be used.*Got NoneType"),
        (lambda: 1, TypeError, "'target' function must take the labels of all samples"),
        (int, TypeError, "'target' function must take the labels of all samples"),
    ],
)
def test_functions_that_give_no_targets(target, error, message):
    clf = StandardClassifier(**QUICK).fit(X, Y)
    with pytest.raises(error, match=message):
        NonRobustRelabeler(clf, target=target, verbose=0).fit_transform(X, Y)


@pytest.mark.parametrize("weight", ["a", [1, 2], 1j, None, np.nan, -1])
def test_class_weights_that_are_no_numbers(weight):
    with pytest.raises(ValueError, match="'class_weight' parameter.*must have finite values"):
        StandardClassifier(class_weight={0: weight, 1: 1}, **QUICK).fit(X, Y)


class Broken(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x) * torch.nan


def test_networks_that_give_no_number():
    with pytest.raises(ValueError, match="returns NaN for all"):
        from_torch(Broken(2, 2), classes=[0, 1], input_shape=(2,))
    with pytest.raises(ValueError, match="returns NaN for all"):
        StandardClassifier(Broken(2, 2), **QUICK).fit(X, Y)


def test_forms_of_what_from_torch_takes():
    module = torch.nn.Linear(2, 3)
    clf = from_torch(module, classes=np.array([4, 5, 6], dtype=object), input_shape=(2,))
    assert clf.classes_.tolist() == [4, 5, 6] and clf.classes_.dtype.kind == "i"
    with pytest.raises(ValueError, match="input_shape must be the shape of one sample"):
        from_torch(module, classes=range(3), input_shape=(2.5,))
    with pytest.raises(ValueError, match="OrderedDict; pass a module with it"):
        StandardClassifier(module.state_dict(), **QUICK).fit(X, Y)


@pytest.mark.parametrize(
    "bounds", [(-50, 1e39), (-1e308, 1e308), (1, 0), "none", {-50: 1, 50: 2}, (0, np.nan)]
)
def test_bounds_that_are_none(bounds):
    clf = StandardClassifier(**QUICK).fit(X, Y)
    message = "bounds.* parameter of .* must be"
    for call in (
        lambda: AdversarialClassifier(eps=0.1, bounds=bounds, **QUICK).fit(X, Y),
        lambda: clf.set_params(bounds=bounds).predict(X),
        lambda: adversarial_examples(LINEAR, X, Y, norm=2, eps=0.1, bounds=bounds, verbose=0),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_bounds_are_tensors_as_well():
    low, high = torch.full((2,), -9.0, requires_grad=True), torch.tensor([9.0, 8.0])
    given, plain = (
        adversarial_examples(LINEAR, X, Y, norm=2, eps=0.1, bounds=bounds, random_state=0)[0]
        for bounds in ((low, high), ([-9, -9], [9, 8]))
    )
    assert_array_equal(given, plain)


class Kind:
    """A kind of estimator that is registered wrongly."""

    classes_, found = np.arange(2), None


@attackable.register
def _(estimator: Kind, X, precision="fp32"):
    return estimator.found


@pytest.mark.parametrize("found", [None, 3, torch.nn.Linear(2, 2)])
def test_kinds_that_are_registered_wrongly(found):
    estimator = Kind()
    estimator.found = found
    with pytest.raises(TypeError, match="must return an Attackable with a FrozenNetwork"):
        robust_accuracy_score(estimator, X, Y, norm=2, eps=0.1)


def test_transfers_to_what_is_no_classifier():
    attack = {"norm": 2, "eps": 0.1, "n_steps": 2, "verbose": 0}
    for other in (StandardScaler().fit(X), LinearRegression().fit(X, Y)):
        with pytest.raises(TypeError, match="Examples are transferred to classifiers"):
            transfer_rate(LINEAR, other, X, Y, **attack)

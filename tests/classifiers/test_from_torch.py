"""from_torch: networks from elsewhere are fitted, frozen classifiers, and stay as they are."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from skorch import NeuralNetClassifier
from torch import nn

from advfeat import (
    AdversarialClassifier,
    StandardClassifier,
    adversarial_examples,
    feature_usefulness,
    from_torch,
    make_robust_scorer,
    robust_accuracy_score,
    robust_feature_usefulness,
    transfer_rate,
)
from advfeat.plotting import AccuracyBarDisplay, RobustnessCurveDisplay
from advfeat.utils._workers import _pack

IMAGES = {"classes": range(10), "input_shape": (1, 8, 8)}
NAMES = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])


def logits_of(net, X, mean, std):
    twin = copy.deepcopy(net).eval()
    with torch.no_grad():
        return twin((torch.from_numpy(X) - mean) / std).numpy()


def test_predictions_are_the_networks(trained, clf, unchanged, digits):
    _, _, X_test, y_test = digits
    logits = logits_of(*trained[:1], X_test, *trained[1:])
    assert unchanged.training  # as the loop left it
    np.testing.assert_allclose(clf.decision_function(X_test), logits, atol=1e-4)
    assert_array_equal(clf.predict(X_test), logits.argmax(1))
    proba = clf.predict_proba(X_test)
    np.testing.assert_allclose(proba, torch.from_numpy(logits).softmax(1).numpy(), atol=1e-5)
    assert clf.score(X_test, y_test) == accuracy_score(y_test, logits.argmax(1)) > 0.85
    assert clf.features(X_test[:5]).shape == (5, 32)


def test_networks_that_normalise_inside_need_no_mean_and_std(trained, clf, digits):
    class Inside(nn.Module):
        def __init__(self, net, mean, std):
            super().__init__()
            self.net, self.mean, self.std = net, mean, std

        def forward(self, x):
            return self.net((x - self.mean) / self.std)

    _, _, X_test, y_test = digits
    inside = from_torch(Inside(*trained), **IMAGES)
    attack = {"norm": 2, "eps": 0.5, "n_steps": 5, "verbose": 0}
    assert_array_equal(inside.predict(X_test), clf.predict(X_test))
    ours, theirs = (adversarial_examples(c, X_test, y_test, **attack)[0] for c in (clf, inside))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_eps_is_in_input_units(clf, digits):
    _, _, X_test, y_test = digits
    X_adv, fooled = adversarial_examples(clf, X_test, y_test, norm=np.inf, eps=0.1, verbose=0)
    assert np.abs(X_adv - X_test).max() == pytest.approx(0.1, abs=1e-6)
    assert X_adv.min() >= 0 and X_adv.max() <= 1
    assert_array_equal(clf.predict(X_adv) != y_test, fooled)


@pytest.mark.long
def test_scores_scorers_and_searches(clf, unchanged, digits):
    _, _, X_test, y_test = digits
    attack = {"norm": 2, "eps": 0.3, "n_steps": 3, "random_start": False}
    expected = robust_accuracy_score(clf, X_test, y_test, verbose=0, **attack)
    scorer = make_robust_scorer(**attack)
    assert expected < clf.score(X_test, y_test)
    assert scorer(clf, X_test, y_test) == expected
    folds = cross_val_score(clf, X_test, y_test, scoring=scorer, cv=4)
    assert np.mean(folds) == pytest.approx(expected)
    search = GridSearchCV(clf, {"bounds": [(0, 1), (0, 2)]}, scoring=scorer, cv=2)
    search.fit(X_test, y_test)
    assert search.cv_results_["mean_test_score"][0] == pytest.approx(expected)
    assert clf.bounds == "auto"  # the search set its clones only
    assert robust_accuracy_score(search, X_test, y_test, verbose=0, **attack) <= expected


def test_calibration_of_the_frozen_network(clf, unchanged, digits):
    X, y, X_test, y_test = digits
    for source in (FrozenEstimator(clf), clf):
        calibrated = CalibratedClassifierCV(source, cv=2).fit(X, y)
        assert calibrated.score(X_test, y_test) > 0.8


def test_usefulness_transfer_and_displays(clf, standard, digits):
    _, _, X_test, y_test = digits
    assert feature_usefulness(clf, X_test, y_test).shape == (10, 32)
    small = {"norm": 2, "eps": 0.1, "n_steps": 1, "verbose": 0}
    gamma = robust_feature_usefulness(clf, X_test[:12], y_test[:12], **small)
    assert gamma.shape == (10, 32)
    attack = {"norm": 2, "eps": 1.0, "n_steps": 5, "verbose": 0}
    for source, other in ((clf, standard), (standard, clf)):
        assert 0 < transfer_rate(source, other, X_test, y_test, **attack) <= 1
    assert transfer_rate(clf, clf, X_test, y_test, **attack) == 1
    curve = RobustnessCurveDisplay.from_estimator(
        clf, X_test, y_test, norm=2, eps_values=[0, 1], n_steps=2, verbose=0
    )
    assert curve.accuracy[0] == clf.score(X_test, y_test)
    bars = AccuracyBarDisplay.from_estimators(
        {"torch": clf}, X_test, y_test, norm=2, eps=1.0, n_steps=2, verbose=0
    )
    score = robust_accuracy_score(clf, X_test, y_test, norm=2, eps=1.0, n_steps=2, verbose=0)
    assert score in bars.mean


@pytest.mark.parametrize("labels", [NAMES, list(NAMES), NAMES.astype(object), 100 - np.arange(10)])
def test_classes_of_any_kind_in_the_order_of_the_logits(trained, clf, digits, labels):
    _, _, X_test, y_test = digits
    net, mean, std = trained
    named = from_torch(net, classes=labels, input_shape=(1, 8, 8), mean=mean, std=std)
    labels = np.asarray(labels)
    assert_array_equal(named.classes_, np.sort(labels))
    assert_array_equal(named.predict(X_test), labels[clf.predict(X_test)])
    assert named.score(X_test, labels[y_test]) == clf.score(X_test, y_test)
    attack = {"norm": 2, "eps": 0.5, "n_steps": 5, "verbose": 0, "random_start": False}
    ours = adversarial_examples(named, X_test, labels[y_test], **attack)
    theirs = adversarial_examples(clf, X_test, y_test, **attack)
    assert np.mean(ours[1] == theirs[1]) > 0.98
    assert_array_equal(named.features(X_test), clf.features(X_test))


def test_clones_and_pickles_keep_the_network(clf, digits):
    _, _, X_test, _ = digits
    expected = clf.decision_function(X_test)
    for twin in (clone(clf), pickle.loads(pickle.dumps(clf)), copy.deepcopy(clf)):
        assert_array_equal(twin.decision_function(X_test), expected)
        assert twin.get_params().keys() == clf.get_params().keys()
    other = clone(clf).set_params(bounds=(-1, 2))
    assert (other.input_bounds_, clf.input_bounds_) == ((-1, 2), (0, 1))
    with pytest.raises(ValueError, match=r"logits of shape \(n, 3\)"):
        other.set_params(classes=range(3))
    assert len(other.classes) == len(other.classes_) == 10


def test_a_clone_that_is_given_a_device_has_a_network_of_its_own(clf, digits):
    before = clf.decision_function(digits[2])
    twin = clone(clf).set_params(device="cpu")
    theirs = {weight.data_ptr() for weight in twin.module_.state_dict().values()}
    assert theirs.isdisjoint(weight.data_ptr() for weight in clf.module_.state_dict().values())
    with torch.no_grad():
        for weight in twin.module_.parameters():
            weight.zero_()
    assert_array_equal(clf.decision_function(digits[2]), before)


def test_fit_changes_nothing_but_checks(clf, unchanged, digits):
    X, y, X_test, _ = digits
    before = clf.decision_function(X_test)
    assert clf.fit(X, y) is clf
    assert_array_equal(clf.decision_function(X_test), before)
    with pytest.raises(ValueError, match=r"not among the classes .*: \[10 11\]"):
        clf.fit(X, np.resize([10, 11], len(X)))
    with pytest.raises(ValueError, match="samples of shape"):
        clf.fit(np.zeros((4, 1, 7, 8)), [0, 1, 2, 3])


def test_later_training_of_the_network_does_not_reach_the_classifier(digits):
    _, _, X_test, _ = digits
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    clf = from_torch(net, **IMAGES)
    before = clf.decision_function(X_test)
    with torch.no_grad():
        net[1].weight.zero_()
    assert_array_equal(clf.decision_function(X_test), before)


def test_tables_and_data_frames():
    rng = np.random.default_rng(0)
    X = rng.normal(5, 2, size=(50, 3)).astype(np.float32)
    net = nn.Linear(3, 2)
    clf = from_torch(
        net, classes=[False, True], input_shape=(3,), mean=X.mean(0), std=list(X.std(0))
    )
    with torch.no_grad():
        logits = net(torch.from_numpy((X - X.mean(0)) / X.std(0))).numpy()
    np.testing.assert_allclose(clf.decision_function(X), logits[:, 1] - logits[:, 0], atol=1e-5)
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    assert_array_equal(clf.predict(frame), clf.predict(X))
    assert clf.n_features_in_ == 3
    assert clf.input_bounds_ is None


def test_repr_names_the_network_only(clf):
    assert repr(clf) == "TorchClassifier(<Sequential>, 10 classes, input_shape=(1, 8, 8))"


# ---- wrappers and normalised weights ------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize(
    "change",
    [
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
        nn.DataParallel,
        pytest.param(torch.compile, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_networks_in_wrappers(change, inside):
    torch.manual_seed(0)
    plain = nn.Linear(6, 3)
    module = change(plain)
    module = nn.Sequential(nn.Flatten(), module) if inside else module
    x = torch.rand(5, 6)
    if change is not torch.compile:
        expected = module.eval()(x).detach().numpy()  # it now holds computed weights
    else:
        expected = plain(x).detach().numpy()
    clf = from_torch(module, classes=range(3), input_shape=(6,), device="cpu")
    np.testing.assert_allclose(clf.decision_function(x), expected, atol=1e-6)
    assert clone(clf).score(x, clf.predict(x)) == 1
    if change is nn.utils.parametrizations.weight_norm:
        attack = {"norm": 2, "eps": 0.1, "n_steps": 2, "batch_size": 3, "verbose": 0}
        frozen = clf.frozen().verify(x.numpy())
        there = pickle.loads(_pack(frozen)[1].tobytes())  # as it travels to workers
        assert_array_equal(there(x).numpy(), frozen(x).numpy())
        adversarial_examples(clf, x.numpy(), clf.predict(x), **attack)
        assert nn.utils.parametrize.is_parametrized(plain)
        np.testing.assert_allclose(module(x).detach().numpy(), expected, atol=1e-6)


def _skorch_net(module):
    net = NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, max_epochs=0, verbose=0)
    return net.initialize()


def test_torchs_defaults_and_modes_around_the_call_change_nothing(digits):
    module, X, y = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), digits[0][:20], digits[1][:20]
    make = {"classes": range(10), "input_shape": (1, 8, 8)}
    settings = {"norm": 2, "eps": 0.1, "n_steps": 2, "verbose": 0}
    expected = from_torch(module, **make).decision_function(X)
    net = _skorch_net(module)
    score = robust_accuracy_score(net, X, y, **settings)
    torch.set_default_dtype(torch.float64)
    try:
        assert_array_equal(from_torch(module, **make).decision_function(X), expected)
        assert robust_accuracy_score(net, X, y, **settings) == score
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.inference_mode():
        clf = from_torch(module, **make)
        assert_array_equal(clf.set_params(std=1.0).decision_function(X), expected)
        assert robust_accuracy_score(net, X, y, **settings) == score
    assert robust_accuracy_score(clf, X, y, **settings) == score


def test_mean_and_std_are_copied(digits):
    X = digits[2]
    for kind in (np.array, lambda v: torch.tensor(v), list):
        mean, std = kind([0.25]), kind([0.5])
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        mean = np.asarray(mean, dtype=np.float32) if kind is np.array else mean
        clf = from_torch(net, **IMAGES, mean=mean, std=std)
        before = clf.decision_function(X)
        mean[0] = 0.75
        assert_array_equal(clf.decision_function(X), before)
        assert_array_equal(clf.set_params(channels="first").decision_function(X), before)
    frozen = np.float32([0.25])
    frozen.flags.writeable = False
    from_torch(net, **IMAGES, mean=frozen)  # warnings are errors


class Halved(nn.Module):
    """Logits in bfloat16, or with a graph of their own."""

    def __init__(self, how="bf16", n_classes=10):
        super().__init__()
        self.how, self.body = how, nn.Sequential(nn.Flatten(), nn.Linear(64, n_classes))

    def forward(self, x):
        if self.how == "bf16":
            with torch.autocast(x.device.type, dtype=torch.bfloat16):
                return self.body(x)
        with torch.enable_grad():
            return self.body(x)


@pytest.mark.parametrize("how", ["bf16", "graph"])
def test_logits_of_any_kind_are_predicted(how, digits):
    X, y, X_test, y_test = digits
    for clf in (
        from_torch(Halved(how), **IMAGES),
        StandardClassifier(Halved(how), max_epochs=1, verbose=0).fit(X, y),
    ):
        logits = clf.decision_function(X_test)
        assert logits.dtype == np.float64 and logits.shape == (200, 10)
        assert_array_equal(clf.predict(X_test), logits.argmax(1))
        assert clf.features(X_test).shape == (200, 64)
        assert clf.score(X_test, y_test) >= robust_accuracy_score(
            clf, X_test, y_test, norm=2, eps=0.1, n_steps=1, verbose=0
        )


class _NoBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("cudnn RNN backward can only be called in training mode")


class OnlyTrains(nn.Module):
    """Like recurrent layers of cuDNN."""

    def __init__(self, n_classes=10):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, n_classes))

    def forward(self, x):
        return self.body(x if self.training else _NoBackward.apply(x))


def test_what_has_no_gradient_as_it_predicts_is_refused_before_the_training(digits):
    told = "cannot be differentiated: cudnn RNN backward.*device='cpu'"
    with pytest.raises(ValueError, match=told):
        from_torch(OnlyTrains(), **IMAGES)
    with pytest.raises(ValueError, match=told):
        AdversarialClassifier(OnlyTrains, max_epochs=1, verbose=0).fit(*digits[:2])
    StandardClassifier(OnlyTrains, max_epochs=1, verbose=0).fit(*digits[:2]).predict(digits[2])


class Viewing(nn.Linear):
    def __init__(self, n_classes=10):
        super().__init__(64, n_classes)

    def forward(self, x):
        return super().forward(x.view(len(x), -1))  # which wants rows in C order


def test_networks_that_rely_on_how_their_input_lies(digits):
    X, y = digits[0][:100], digits[1][:100]
    last = np.ascontiguousarray(X.transpose(0, 2, 3, 1))
    expected = StandardClassifier(Viewing, max_epochs=1, random_state=0, verbose=0).fit(X, y)
    for given, channels in (
        (last.transpose(0, 3, 1, 2), "auto"), (last, "last"), (np.asfortranarray(X), "auto"),
    ):  # fmt: skip
        clf = StandardClassifier(
            Viewing, max_epochs=1, random_state=0, verbose=0, channels=channels
        ).fit(given, y)
        assert_array_equal(clf.predict(given), expected.predict(X))
        robust_accuracy_score(clf, given, y, norm=2, eps=0.1, n_steps=1, verbose=0)


@pytest.mark.parametrize("masked", [0, 3, 9])
def test_networks_that_mask_a_class_have_features(masked):
    class Masking(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))
            self.register_buffer("mask", torch.arange(10) == masked)

        def forward(self, x):
            return self.body(x).masked_fill(self.mask, -torch.inf)

    clf = from_torch(Masking(), classes=range(10), input_shape=(64,), device="cpu")
    X = np.random.default_rng(0).random((5, 64), dtype=np.float32)
    hidden = clf.module_.body.body[:2](torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(clf.features(X), hidden, rtol=1e-5)

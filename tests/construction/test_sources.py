"""Sources of the constructors from elsewhere: torch modules and skorch nets."""

import copy
import pickle
import warnings
from types import FunctionType

import numpy as np
import pytest
import skorch
import torch
from numpy.testing import assert_array_equal
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier
from skorch.callbacks import EpochScoring, InputShapeSetter
from torch import nn

from advfeat import (
    NonRobustRelabeler,
    RobustFeatureInverter,
    StandardClassifier,
    from_torch,
    robust_accuracy_score,
    transfer_rate,
)
from advfeat.construction._store_plan import _described
from advfeat.plotting import GaussianMetricDisplay

QUICK = {"n_steps": 20, "random_state": 0, "verbose": 0}
NAMES = np.array(list("abcdefghij"))


class Net(nn.Sequential):
    def __init__(self, last=None):
        super().__init__(
            nn.Flatten(),
            nn.Linear(64, 32),
            nn.ReLU(),
            nn.Linear(32, 10),
            *([last] if last else []),
        )


def skorch_net(module=Net, **settings):
    settings = {"criterion": nn.CrossEntropyLoss, "lr": 0.3, "verbose": 0, **settings}
    return NeuralNetClassifier(module, max_epochs=15, **settings)


@pytest.fixture(scope="module")
def fitted(digits):
    X, y, _, _ = digits
    torch.manual_seed(0)
    return skorch_net().fit(X, y)


@pytest.fixture(scope="module")
def plain(fitted):
    """The same network through from_torch."""
    return from_torch(fitted.module_, classes=range(10), input_shape=(1, 8, 8))


@pytest.mark.parametrize("Constructor", [RobustFeatureInverter, NonRobustRelabeler])
def test_a_fitted_skorch_net_constructs_what_its_module_does(Constructor, fitted, plain, digits):
    X, y, _, _ = digits
    before = copy.deepcopy(fitted.module_.state_dict())
    sets = [
        Constructor(source, **QUICK).fit_transform(X[:100], y[:100])
        for source in (FrozenEstimator(fitted), plain, FrozenEstimator(plain))
    ]
    arrays = [getattr(data, "X", data) for data in sets]
    assert np.abs(arrays[0] - X[:100]).max() > 0.05
    for array in arrays[1:]:
        assert_array_equal(array, arrays[0])
    for name, value in fitted.module_.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("init", ["sample", "noise"])
def test_an_inverted_set_has_the_modules_features(init, plain, digits):
    X, y, _, _ = digits
    inverter = RobustFeatureInverter(plain, init=init, random_state=0, verbose=0)
    X_r = inverter.fit_transform(X[:64], y[:64])
    gap = np.linalg.norm(plain.features(X_r) - plain.features(X[:64]), axis=1)
    residual = gap / np.linalg.norm(plain.features(X[:64]), axis=1)
    np.testing.assert_allclose(inverter.residual_, residual, atol=1e-4)
    assert np.median(residual) < 0.2
    assert inverter.estimator_.module is plain.module  # not a copy


def test_relabelled_sets_fool_the_source(plain, digits):
    X, y, _, _ = digits
    named = from_torch(plain.module, classes=NAMES, input_shape=(1, 8, 8))
    relabeler = NonRobustRelabeler(named, target="deterministic", eps=2.0, **QUICK)
    data = relabeler.fit_transform(X[:100], NAMES[y[:100]])
    assert_array_equal(data.y, NAMES[(y[:100] + 1) % 10])
    assert np.mean(named.predict(data.X) == data.y) == relabeler.success_rate_ > 0.8


def test_a_constructor_with_a_source_from_torch_keeps_a_store(plain, digits, tmp_path):
    X, y, _, _ = digits
    sets = [
        RobustFeatureInverter(plain, store=tmp_path, **QUICK).fit_transform(X[:50], y[:50])
        for _ in range(2)
    ]
    assert_array_equal(*sets)
    other = from_torch(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), classes=range(10),
                       input_shape=(1, 8, 8))  # fmt: skip
    with warnings.catch_warnings(), pytest.raises(ValueError, match="weights"):
        warnings.simplefilter("ignore")
        RobustFeatureInverter(other, store=tmp_path, **QUICK).fit_transform(X[:50], y[:50])


@pytest.mark.parametrize("last", [None, nn.Softmax(1)], ids=["logits", "probabilities"])
@pytest.mark.parametrize("as_uint8", [False, True])
def test_an_unfitted_skorch_net_is_trained(last, as_uint8, digits):
    X, y, X_test, y_test = digits
    X = (X * 255).astype(np.uint8) if as_uint8 else X.astype(np.float64)
    criterion = nn.NLLLoss if last else nn.CrossEntropyLoss
    net = skorch_net(module__last=last, criterion=criterion)
    relabeler = NonRobustRelabeler(net, eps=1.0, **QUICK)
    state = torch.get_rng_state()
    first = relabeler.fit_transform(X, y)
    assert_array_equal(torch.get_rng_state(), state)
    assert not net.initialized_
    assert np.mean(relabeler.estimator_.predict(X_test) == y_test) > 0.8
    assert relabeler.success_rate_ > 0.3
    second = relabeler.fit_transform(X, y)  # one random_state determines the whole
    assert_array_equal(first.X, second.X)
    twin = pickle.loads(pickle.dumps(relabeler))
    assert_array_equal(twin.relabel(X[:9], y[:9]).X, relabeler.relabel(X[:9], y[:9]).X)


def test_a_pipeline_behind_a_skorch_source(digits):
    X, y, X_test, y_test = digits
    pipe = make_pipeline(
        NonRobustRelabeler(skorch_net(), eps=1.5, **QUICK),
        StandardClassifier(max_epochs=5, random_state=0, verbose=0),
    )
    assert pipe.fit(X, y).score(X_test, y_test) > 0.15


@pytest.mark.parametrize("labels", [NAMES, np.arange(10) - 1, np.arange(10) / 2 == 0])
def test_labels_that_a_skorch_net_would_not_learn_are_refused(labels, digits):
    X, y, _, _ = digits
    with pytest.raises(ValueError, match="labels must be the integers 0, 1"):
        NonRobustRelabeler(skorch_net(), **QUICK).fit(X, labels[y])


def test_labels_beyond_the_outputs_are_refused(digits):
    X, y, _, _ = digits
    with pytest.raises(ValueError, match="10 outputs, for the labels 0 to 9, but y contains 10"):
        NonRobustRelabeler(skorch_net(), **QUICK).fit(X, y + 1)


def test_a_skorch_net_is_attacked_at_the_output_of_the_label(digits):
    """It learns label j as output j, also where labels begin with 1."""
    X, y, X_test, y_test = digits

    class Eleven(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Flatten(), nn.Linear(64, 11))

    torch.manual_seed(0)
    net = skorch_net(Eleven).fit(X, y + 1)
    assert list(net.classes_) == list(range(1, 11))
    clean = robust_accuracy_score(net, X_test, y_test + 1, norm=2, eps=0, verbose=0)
    assert clean == np.mean(net.predict(X_test) == y_test + 1) > 0.8


def test_shapes_that_callbacks_set_are_left_to_them(digits):
    from skorch.callbacks import Callback

    class Flexible(nn.Sequential):
        def __init__(self, n_features=3):
            super().__init__(nn.Flatten(), nn.Linear(n_features, 10))

    class SetFeatures(Callback):
        def on_train_begin(self, net, X=None, y=None, **kwargs):
            net.set_params(module__n_features=64)

    X, y, _, _ = digits
    net = skorch_net(Flexible, callbacks=[("features", SetFeatures())])
    for make in (NonRobustRelabeler, RobustFeatureInverter):
        assert make(net, **QUICK).fit(X, y).estimator_.module_[1].in_features == 64


class Halved(skorch.dataset.Dataset):
    def transform(self, X, y):
        X, y = super().transform(X, y)
        return 0.5 * X, y


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_a_skorch_source_is_trained_as_it_trains_itself(digits, dtype, tmp_path):
    """With its own Dataset and callbacks, whatever X is held in."""
    X, y = digits[0][:200], digits[1][:200]
    X = np.round(255 * X).astype(np.uint8) if dtype == np.uint8 else X
    units = X / np.float32(255) if dtype == np.uint8 else X
    score = EpochScoring("accuracy", name="own", use_caching=False, on_train=True)
    net = skorch_net(dataset=Halved, callbacks=[("own", score)])
    np.save(tmp_path / "X.npy", X)
    made = [
        NonRobustRelabeler(net, **QUICK).fit(held, y).estimator_
        for held in (units, X, np.load(tmp_path / "X.npy", mmap_mode="r"))
    ]
    assert made[0].history[-1, "own"] > 0.5
    for other in made:
        assert_array_equal(other.predict_proba(units), made[0].predict_proba(units))
    weights = skorch_net().set_params(dataset=skorch.dataset.Dataset)
    plain = NonRobustRelabeler(weights, **QUICK).fit(X, y).estimator_
    assert np.abs(plain.predict_proba(units) - made[0].predict_proba(units)).max() > 1e-3


def test_skorchs_callbacks_find_the_number_of_features(digits):
    """In a source, and in a net behind a relabeler."""

    class Table(nn.Linear):
        def __init__(self, input_dim=3):
            super().__init__(input_dim, 10)

    X, y = digits[0][:200].reshape(200, -1), digits[1][:200]
    net = skorch_net(Table, callbacks=[("shape", InputShapeSetter(param_name="input_dim"))])
    assert NonRobustRelabeler(net, **QUICK).fit(X, y).estimator_.module_.in_features == 64
    source = StandardClassifier(max_epochs=1, random_state=0, verbose=0)
    pipe = make_pipeline(NonRobustRelabeler(source, **QUICK), net).fit(X, y)
    assert pipe[-1].module_.in_features == 64


def test_many_narrow_channels_of_a_skorch_source():
    class Narrow(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(16, 2))

    X, y = np.random.default_rng(0).random((40, 8, 4, 4), dtype="f"), np.arange(40) % 2
    made = NonRobustRelabeler(skorch_net(Narrow), **QUICK).fit_transform(X, y)
    assert made.X.shape == X.shape


class Own(nn.Module):
    def __init__(self, n_features, n_classes):
        super().__init__()
        self.hidden, self.last = nn.Linear(n_features, 8), nn.Linear(8, n_classes)

    def forward(self, x):
        return self.last(self.hidden(x).relu())


@pytest.mark.filterwarnings("ignore:The features were matched poorly")
def test_torchs_defaults_and_modes_around_a_construction_change_nothing():
    X, y = np.random.default_rng(0).normal(size=(40, 3)).astype("f"), np.arange(40) % 2

    def made():
        source = StandardClassifier(Own, max_epochs=2, random_state=0, verbose=0)
        return RobustFeatureInverter(source, **QUICK).fit_transform(X, y)

    expected = made()
    torch.set_default_dtype(torch.float64)
    try:
        assert_array_equal(made(), expected)
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.inference_mode():
        assert_array_equal(made(), expected)


def test_a_store_knows_functions_of_a_source_in_another_process():
    def described():
        # A function anew: what stands for it is at another address, as in another process.
        act = FunctionType(nn.functional.relu.__code__, nn.functional.relu.__globals__, "relu")
        return _described([act, torch.tanh])

    assert described() == described() != _described([torch.tanh])


# ---- what is refused ----------------------------------------------------------------------------


def test_a_module_alone_is_refused_in_one_line(digits, standard):
    X, y, _, _ = digits
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    attack = {"norm": 2, "eps": 0.1}
    calls = [
        lambda: robust_accuracy_score(net, X, y, **attack),
        lambda: robust_accuracy_score(FrozenEstimator(net), X, y, **attack),
        lambda: transfer_rate(net, standard, X, y, **attack),
        lambda: transfer_rate(standard, net, X, y, **attack),
        lambda: RobustFeatureInverter(net).fit(X, y),
        lambda: NonRobustRelabeler(net).fit_transform(X, y),
        lambda: NonRobustRelabeler(FrozenEstimator(net)).fit(X, y),
        lambda: GaussianMetricDisplay.from_estimator(net, X, y),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=r"torch module \(Sequential\).*from_torch") as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("net", "error", "reason"),
    [
        (NeuralNetBinaryClassifier(Net), TypeError, "one logit"),
        (NeuralNet(Net, nn.CrossEntropyLoss), TypeError, "must be a NeuralNetClassifier"),
        (skorch_net(module__last=nn.Softmax(1)), ValueError, "returns probabilities"),
        (skorch_net(criterion=nn.NLLLoss), ValueError, "must return probabilities"),
        (
            skorch_net(module__last=nn.LogSoftmax(1), criterion=nn.NLLLoss),
            ValueError,
            "must return",
        ),
        (LogisticRegression(), TypeError, "Got LogisticRegression"),
    ],
)
def test_nets_that_do_not_fit(net, error, reason, digits):
    X, y, _, _ = digits
    with pytest.raises(error, match=reason) as caught:
        NonRobustRelabeler(net, **QUICK).fit(X, y)
    assert "\n" not in str(caught.value)
    if isinstance(net, NeuralNet):
        fitted = net.initialize()
        with pytest.raises(error, match=reason):
            robust_accuracy_score(fitted, X, y, norm=2, eps=0.1)
        with pytest.raises(error, match=reason):
            RobustFeatureInverter(FrozenEstimator(fitted), **QUICK).fit_transform(X, y)


def test_a_module_for_other_data_is_told_whoever_finds_it(digits):
    X, y, _, _ = digits
    for source in (skorch_net(), FrozenEstimator(skorch_net().set_params(max_epochs=1).fit(X, y))):
        with pytest.raises(ValueError, match=r"of the skorch net failed on one sample of shape"):
            NonRobustRelabeler(source, **QUICK).fit_transform(X[:, :, :4], y)

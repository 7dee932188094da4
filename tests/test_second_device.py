"""Everything works on a device other than the CPU, and gives the same results there."""

import copy

import numpy as np
import pytest
import torch
from second_device import draw_on_the_cpu, on_device, second_device
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from torch import nn

from advfeat import (
    AdversarialClassifier,
    NonRobustRelabeler,
    RobustFeatureInverter,
    StandardClassifier,
    adversarial_examples,
    from_torch,
    robust_accuracy_curve,
    robust_feature_usefulness,
    transfer_rate,
)

QUICK = {"max_epochs": 2, "random_state": 0, "verbose": 0}


@pytest.fixture
def other(monkeypatch):
    """Name of the second device, active during the test."""
    draw_on_the_cpu(monkeypatch)
    with second_device() as device:
        yield device


def test_the_second_device_finds_what_was_left_behind(other):
    x = torch.arange(6.0).reshape(2, 3).to(other)
    assert x.device.type == other
    np.testing.assert_array_equal((x @ x.T + 1).cpu().numpy(), [[6, 15], [15, 51]])
    with pytest.raises(RuntimeError, match="same device"):
        x + torch.ones(3)
    with pytest.raises(Exception, match="numpy|meta"):
        x.numpy()


@pytest.mark.parametrize("classifier", [StandardClassifier, AdversarialClassifier])
def test_training(other, digits, classifier):
    X, y, X_test, _ = digits
    params = {"n_steps": 2, "random_start": True} if classifier is AdversarialClassifier else {}
    fitted = [
        classifier(device=device, augmentation="paper", **params, **QUICK).fit(X[:200], y[:200])
        for device in ("cpu", other)
    ]
    assert {p.device.type for p in fitted[1].net_.module_.parameters()} == {other}
    first, second = (clf.decision_function(X_test) for clf in fitted)
    np.testing.assert_array_equal(first, second)


@pytest.mark.long
def test_training_on_images_with_batch_norm(other):
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (12, 3, 16, 16), dtype=np.uint8), np.arange(12) % 2
    found = [
        AdversarialClassifier(
            "small_resnet", n_steps=1, batch_size=6, device=device, **QUICK
        ).fit(X, y).features(X)
        for device in ("cpu", other)
    ]  # fmt: skip
    np.testing.assert_array_equal(*found)


def test_partial_fit(other, digits):
    X, y, X_test, _ = digits
    found = [
        StandardClassifier(device=device, **QUICK)
        .fit(X[:200], y[:200])
        .partial_fit(X[:200], y[:200])
        .predict_proba(X_test)
        for device in ("cpu", other)
    ]
    np.testing.assert_array_equal(*found)


class Keeps(nn.Linear):
    """Keeps tensors that are neither parameters nor buffers, where it computes."""

    scale = None

    def __init__(self, n_features=3, n_classes=2):
        super().__init__(n_features, n_classes)

    def forward(self, x):
        if self.scale is None:
            self.scale = torch.full((3,), 2.0).to(x.device)
        return super().forward(x * self.scale)


@pytest.mark.long
def test_pickles_hold_no_tensor_of_the_device(other):
    """Of a net skorch sees to it."""
    X, y = np.random.default_rng(0).normal(size=(20, 3)).astype("f"), np.arange(20) % 2
    given = Keeps()
    trained = StandardClassifier(given, device="cpu", **QUICK).fit(X, y)
    given.to(other)(torch.ones(1, 3).to(other))
    clf = from_torch(Keeps(), classes=[0, 1], input_shape=(3,)).set_params(device=other)
    state = clf.__getstate__()
    for module in (trained.__getstate__()["network"], state["module_"], state["module"]):
        kept = [layer.scale for layer in module.modules() if isinstance(layer, Keeps)]
        tensors = [*module.parameters(), *module.buffers(), *kept]
        assert {tensor.device.type for tensor in tensors} == {"cpu"}
    assert given.scale.device.type == clf.module.scale.device.type == other
    on_cpu = copy.deepcopy(clf).set_params(device="cpu")
    np.testing.assert_array_equal(on_cpu.predict_proba(X), clf.predict_proba(X))
    np.testing.assert_array_equal(on_cpu.features(X), clf.features(X))
    # A network that was used on one device is attacked on another.
    attack = {"norm": 2, "eps": 0.5, "n_steps": 2, "verbose": 0}
    found = [adversarial_examples(one, X, y, **attack)[0] for one in (on_cpu, clf)]
    np.testing.assert_array_equal(*found)


def test_a_network_that_keeps_tensors_is_trained(other):
    """They were kept where the network was tried: on the CPU."""
    X, y = np.random.default_rng(0).normal(size=(20, 3)).astype("f"), np.arange(20) % 2
    there, here = (
        StandardClassifier(Keeps, device=device, **QUICK).fit(X, y).predict_proba(X)
        for device in (other, "cpu")
    )
    np.testing.assert_array_equal(there, here)


@pytest.mark.filterwarnings("ignore:The source takes only")  # few steps
@pytest.mark.filterwarnings("ignore:The features were matched poorly")
@pytest.mark.parametrize(
    "constructor",
    [
        RobustFeatureInverter(n_steps=3, step_size=0.1),
        RobustFeatureInverter(n_steps=3, init="noise", solver="momentum"),
        NonRobustRelabeler(n_steps=3, eps=0.5),
    ],
    ids=["sample", "noise", "relabeler"],
)
def test_constructors(other, digits, standard, constructor):
    X, y, _, _ = digits
    constructor.set_params(random_state=0, verbose=0)
    found = []
    for source in (standard, on_device(standard, other)):
        made = constructor.set_params(estimator=FrozenEstimator(source)).fit_transform(
            X[:50], y[:50]
        )
        found.append(getattr(made, "X", made))
    np.testing.assert_array_equal(*found)


@pytest.mark.long
def test_metrics(other, digits, standard, adversarial):
    _, _, X, y = (part[:15] for part in digits)
    on_other = on_device(standard, other), on_device(adversarial, other)
    attack = {"norm": 2, "n_steps": 2, "verbose": 0}
    for measure in (
        lambda first, _: robust_accuracy_curve(first, X, y, eps_values=(0.2, 0.5), **attack),
        lambda first, _: adversarial_examples(first, X, y, eps=0.3, **attack)[0],
        lambda first, _: robust_feature_usefulness(first, X[:4], y[:4], eps=0.3, **attack),
        lambda first, second: transfer_rate(first, second, X, y, eps=0.5, **attack),
    ):
        np.testing.assert_array_equal(measure(standard, adversarial), measure(*on_other))


def test_a_clone_moves_without_its_original(other):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        clf = from_torch(nn.Linear(3, 2), classes=[0, 1], input_shape=(3,), device="cpu")
    X = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    expected = clf.decision_function(X)
    twin = clone(clf).set_params(device=other)
    assert {weight.device.type for weight in twin.module_.parameters()} == {other}
    assert {weight.device.type for weight in clf.module_.parameters()} == {"cpu"}
    np.testing.assert_allclose(twin.decision_function(X), expected, atol=1e-6)

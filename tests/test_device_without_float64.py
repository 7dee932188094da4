"""On a device that does not know float64, as Apple's "mps", everything works as on the CPU."""

import numpy as np
import pytest
import torch
from second_device import draw_on_the_cpu, on_device, second_device
from sklearn.frozen import FrozenEstimator

from advfeat import (
    AdversarialClassifier,
    NonRobustRelabeler,
    RobustFeatureInverter,
    StandardClassifier,
    adversarial_examples,
    from_torch,
    robust_accuracy_curve,
)
from advfeat.optim import L2Ball, row_norms
from advfeat.utils import _device

QUICK = {"max_epochs": 2, "random_state": 0, "verbose": 0}


@pytest.fixture
def other(monkeypatch):
    """Name of the device, active during the test."""
    draw_on_the_cpu(monkeypatch)
    monkeypatch.setattr(_device, "_WITHOUT_FLOAT64", ("meta",))
    with second_device(float64=False) as device:
        yield device


def test_the_device_refuses_float64(other):
    x = torch.ones(2).to(other)
    with pytest.raises(TypeError, match="float64"):
        x.double()


@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-30, 1.0, 1e30, 1e38, np.inf, np.nan])
def test_norms_and_projections_of_any_size(other, size):
    x = torch.tensor([[3.0, 4.0, 0.0], [size, 0.0, 0.0], [size, size, -size]])
    with np.errstate(over="ignore"):
        norms = row_norms(x).float().numpy()
    np.testing.assert_allclose(row_norms(x.to(other)).cpu().numpy(), norms, rtol=1e-6)
    for eps in (0.0, 1e-20, 0.5, 1e10):
        found = L2Ball(eps).project(x.to(other)).cpu().numpy()
        np.testing.assert_allclose(found, L2Ball(eps).project(x).numpy(), rtol=1e-5, atol=1e-38)


@pytest.mark.parametrize("shape", [(1, 8, 8), (64,)], ids=["images", "tables"])
@pytest.mark.parametrize("classifier", [StandardClassifier, AdversarialClassifier])
def test_training_and_prediction(other, digits, classifier, shape):
    X, y, X_test, _ = digits
    X, X_test = X[:200].reshape(-1, *shape), X_test[:60].reshape(-1, *shape)
    params = {"n_steps": 2, "norm": 2, "eps": 0.3} if classifier is AdversarialClassifier else {}
    fitted = [
        classifier(device=device, **params, **QUICK).fit(X, y[:200]) for device in ("cpu", other)
    ]
    assert {p.device.type for p in fitted[1].net_.module_.parameters()} == {other}
    first, second = (clf.decision_function(X_test) for clf in fitted)
    np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-4)


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
            X[:20], y[:20]
        )
        found.append(getattr(made, "X", made))
    np.testing.assert_allclose(*found, atol=1e-5)


@pytest.mark.long
def test_attacks(other, digits, standard):
    _, _, X, y = (part[:15] for part in digits)
    attack = {"norm": 2, "n_steps": 3, "verbose": 0}
    for measure in (
        lambda clf: adversarial_examples(clf, X, y, eps=0.3, **attack)[0],
        lambda clf: adversarial_examples(clf, X, y, eps=0.3, n_restarts=2, **attack)[0],
        lambda clf: robust_accuracy_curve(clf, X, y, eps_values=(0.2, 0.5), **attack),
    ):
        np.testing.assert_allclose(
            measure(standard), measure(on_device(standard, other)), atol=1e-5
        )


def test_a_network_whose_rounding_shows_is_not_refused(other):
    """Whether it only rounds is found in float64, on the CPU."""

    class Blows(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 2)

        def forward(self, x):
            noise = 0 if x.dtype == torch.float64 else 1e-2 * len(x)  # as of other kernels
            return self.layer(x) + torch.arange(2, device=x.device) * noise

    found = from_torch(Blows(), classes=[0, 1], input_shape=(3,), device=other)
    assert found.predict(np.zeros((2, 3), dtype="f")).shape == (2,)

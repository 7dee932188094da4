"""Networks whose gradients mislead are told; ordinary ones raise no alarm."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from torch import nn

from advfeat import (
    NonRobustRelabeler,
    StandardClassifier,
    adversarial_examples,
    make_robust_scorer,
    robust_accuracy_curve,
    robust_accuracy_score,
)
from advfeat.attacks import Attackable, attackable
from advfeat.exceptions import EvaluationWarning
from advfeat.optim import FrozenNetwork

NORMS = [2, np.inf]


class Estimator:
    """A module as a classifier of digits."""

    def __init__(self, module, bounds=(0.0, 1.0)):
        self.module, self.bounds, self.classes_ = module, bounds, np.arange(10)

    def predict(self, X):
        with torch.no_grad():
            return self.module(torch.from_numpy(X)).argmax(1).numpy()


@attackable.register(Estimator)
def _(estimator, X, precision="fp32"):
    network = FrozenNetwork(estimator.module, device="cpu", precision=precision)
    return Attackable(network, estimator.classes_, estimator.bounds, X)


class Around(nn.Module):
    def __init__(self, module, before=lambda x: x, after=lambda logits: logits):
        super().__init__()
        self.module, self.before, self.after = module, before, after

    def forward(self, x):
        return self.after(self.module(self.before(x)))


class Jagged(torch.autograd.Function):
    """Identity with a gradient that points anywhere but up."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


MISLEADING = {
    "rounded": ({"before": lambda x: (x * 3).round() / 3}, "exactly zero"),
    "binary": ({"before": lambda x: (x > 0.5).float() + 0 * x}, "exactly zero"),
    "saturated": ({"after": lambda logits: (50 * logits).softmax(1)}, "exactly zero"),
    "reversed": ({"before": Jagged.apply}, "Random noise"),
    "random": ({"before": lambda x: x + 0.1 * torch.randn_like(x)}, "differ from call to call"),
}


@pytest.mark.parametrize("name", MISLEADING)
def test_misleading_networks_are_told(standard, digits, name):
    X, y = digits[2][:60], digits[3][:60]
    parts, message = MISLEADING[name]
    estimator = Estimator(Around(standard.module_, **parts))
    settings = {"norm": np.inf, "n_steps": 1, "verbose": 0}
    with pytest.warns(EvaluationWarning, match=message):
        adversarial_examples(estimator, X, y, eps=0.3, **settings)
    with pytest.warns(EvaluationWarning, match=message):
        robust_accuracy_score(estimator, X, y, eps=0.3, **settings)
    with pytest.warns(EvaluationWarning, match=message) as caught:
        robust_accuracy_curve(estimator, X, y, eps_values=[0.0, 0.1, 0.3], **settings)
    assert len(caught) == 1
    with pytest.warns(EvaluationWarning, match=message):
        make_robust_scorer(eps=0.3, **settings)(estimator, X, y)
    robust_accuracy_score(estimator, X, y, eps=0, **settings)  # there is nothing to be missed


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [1e-6, 0.3, 3, 1e30])
def test_ordinary_networks_raise_no_alarm(standard, adversarial, digits, norm, eps):
    for clf in (standard, adversarial):
        for n in (1, 2, 40):
            robust_accuracy_score(
                clf, digits[2][:n], digits[3][:n], norm=norm, eps=eps, n_steps=1, verbose=0
            )


@pytest.mark.parametrize("scale", [1e-3, 1, 1e3])
def test_confident_linear_models_raise_no_alarm(scale):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 3)) * scale
    y = (X[:, 0] > 0).astype(int)
    clf = LogisticRegression(C=1e8, max_iter=1000).fit(X, y)
    for eps in (1e-3 * scale, scale, 100 * scale):
        robust_accuracy_score(clf, X, y, norm=2, eps=eps, n_steps=2, verbose=0)


def test_a_constant_model_raises_no_alarm():
    X, y = np.random.default_rng(0).standard_normal((50, 3)), np.arange(50) % 2
    clf = LogisticRegression(fit_intercept=False).fit(X, y)
    clf.coef_[:] = 0  # as a strong penalty leaves it
    assert robust_accuracy_score(clf, X, y, norm=2, eps=1, verbose=0) == clf.score(X, y)


def test_labels_that_are_unknown_or_wrong_raise_no_alarm(standard, digits):
    X, y = digits[2][:20], digits[3][:20]
    assert robust_accuracy_score(standard, X, y + 100, norm=2, eps=1, verbose=0) == 0
    robust_accuracy_score(standard, X, (standard.predict(X) + 1) % 10, norm=2, eps=1, verbose=0)


def rounded(n_features, n_classes):
    return Around(nn.Linear(n_features, n_classes), before=lambda x: x.round())


def test_relabelling_in_vain_is_told(standard, digits):
    X, y = digits[0][:60], digits[1][:60]
    settings = {"random_state": 0, "verbose": 0, "n_steps": 10}
    for target in ("random", "other", "deterministic"):
        with pytest.warns(ConvergenceWarning, match="keep the features of their own class"):
            NonRobustRelabeler(
                FrozenEstimator(standard), eps=1e-4, target=target, **settings
            ).fit_transform(X, y)
        NonRobustRelabeler(
            FrozenEstimator(standard), eps=2.0, target=target, **settings
        ).fit_transform(X, y)
    rng = np.random.default_rng(0)
    table = rng.standard_normal((80, 5)).astype(np.float32) * 3
    clf = StandardClassifier(rounded, max_epochs=3, random_state=0, verbose=0)
    clf.fit(table, table[:, 0] > 0)
    with pytest.warns(ConvergenceWarning, match="100% of those looked at did not move"):
        relabeler = NonRobustRelabeler(FrozenEstimator(clf), eps=0.5, target="other", **settings)
        relabeler.fit_transform(table, table[:, 0] > 0)

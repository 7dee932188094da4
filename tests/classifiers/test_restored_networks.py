"""Networks that early stopping and the guard take back go on being trained."""

import types
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from advfeat import AdversarialClassifier, StandardClassifier
from advfeat.classifiers._overfitting import OverfittingGuard

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 8)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


class Apply:
    def __init__(self, layer):
        self.layer = layer

    def __call__(self, x):
        return self.layer(x)


def apply(layer, x):
    return layer(x)


class Seen:
    last = None


HELD = {
    "methods": lambda net: [("hidden", net.hidden), ("out", net.out)],
    "methods by number": lambda net: [(0, net.hidden), (1, net.out)],
    "objects": lambda net: [("a", Apply(net.a)), ("b", Apply(net.b))],
    "partials": lambda net: [("a", partial(apply, net.a)), ("b", partial(apply, net.b))],
    "layers": lambda net: [("a", net.a), ("b", net.b)],
}


class Steps(nn.Module):
    """Goes through a list of its own steps."""

    def __init__(self, held, n_classes=3):
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, n_classes)
        self.steps = HELD[held](self)
        self.notes = {"name": "steps", "seen": Seen(), "space": types.SimpleNamespace()}

    def hidden(self, x):
        return self.a(x).relu()

    def out(self, x):
        return self.b(x)

    def forward(self, x):
        for _, step in self.steps:
            x = step(x)
            self.notes["seen"].last = self.notes["space"].last = x
        return x


def weights(clf):
    return torch.cat([w.detach().flatten() for w in clf.module_.body.parameters()])


@pytest.mark.parametrize("held", HELD)
def test_early_stopping(held):
    clf = StandardClassifier(
        partial(Steps, held), early_stopping=True, max_epochs=4, random_state=0, verbose=0
    ).fit(X, Y)
    before = clf.predict_proba(X)
    clf.set_params(early_stopping=False).partial_fit(X, Y)
    assert np.abs(clf.predict_proba(X) - before).max() > 0.001


@pytest.mark.filterwarnings("ignore:Catastrophic overfitting")
@pytest.mark.parametrize("held", HELD)
def test_the_guard(held, monkeypatch):
    found = iter([(0.9, 0.0)])
    monkeypatch.setattr(OverfittingGuard, "_accuracies", lambda self, net, data: next(found))
    clf = AdversarialClassifier(
        partial(Steps, held), eps=0.1, n_steps=1, max_epochs=1, random_state=0, verbose=0
    )
    with pytest.warns(ConvergenceWarning, match="taken back"):
        clf.fit(X, Y)
    before, predicted = weights(clf), clf.predict_proba(X)
    clf.partial_fit(X, Y)
    assert (weights(clf) - before).abs().max() > 0.001
    assert np.abs(clf.predict_proba(X) - predicted).max() > 0.001

"""Networks that take gradients inside, or depend on whether there are any, are run as they are."""

import numpy as np
import pytest
import torch
from torch import nn

from advfeat import (
    AdversarialClassifier,
    StandardClassifier,
    from_torch,
    robust_accuracy_score,
)
from advfeat.optim import _comparing

X = np.random.default_rng(0).random((60, 4), dtype=np.float32)
Y = np.arange(60) % 3


class Purified(nn.Module):
    """Takes a step along a gradient of its own before it decides."""

    def __init__(self, n_classes=3):
        super().__init__()
        self.h = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, n_classes))

    def step(self, z):
        return torch.autograd.grad(self.h(z).logsumexp(1).sum(), z)[0]

    def forward(self, x):
        with torch.enable_grad():
            g = self.step(x.detach().clone().requires_grad_())
        return self.h(x + 0.1 * g)


class PurifiedBackward(Purified):
    def step(self, z):
        self.h(z).logsumexp(1).sum().backward()
        return z.grad


class Mode(nn.Module):
    def __init__(self, n_classes=3):
        super().__init__()
        self.h = nn.Linear(4, n_classes)

    def forward(self, x):
        return self.h(x * 2) if torch.is_grad_enabled() else self.h(x)


def classifier(kind):
    torch.manual_seed(0)
    return from_torch(kind(), classes=range(3), input_shape=(4,))


@pytest.mark.parametrize("kind", [Purified, PurifiedBackward, Mode])
def test_a_score_without_an_attack_is_that_of_the_predictions(kind):
    clf = classifier(kind)
    said = clf.predict(X)
    assert robust_accuracy_score(clf, X, said, norm=2, eps=0, verbose=0) == clf.score(X, said) == 1
    scores = [
        robust_accuracy_score(clf, X, said, norm=2, eps=eps, n_steps=3, verbose=0)
        for eps in (0.1, 5.0)
    ]
    assert 1 >= scores[0] >= scores[1] < 1


@pytest.mark.parametrize("kind", [Purified, PurifiedBackward])
def test_features_are_those_of_the_last_run(kind):
    clf = classifier(kind)
    seen = clf.features(X)
    with torch.no_grad():
        logits = clf.module_(torch.from_numpy(X))
        torch.testing.assert_close(clf.module_.body.h[2](torch.from_numpy(seen)), logits)


@pytest.mark.parametrize("kind", [Purified, PurifiedBackward, Mode])
@pytest.mark.parametrize("adversarial", [False, True])
def test_they_are_trained_and_scored(kind, adversarial):
    settings = {"max_epochs": 2, "random_state": 0, "verbose": 0}
    if adversarial:
        clf = AdversarialClassifier(kind, norm=2, eps=0.1, n_steps=2, **settings)
    else:
        clf = StandardClassifier(kind, **settings)
    clf.fit(X, Y)
    clean = robust_accuracy_score(clf, X, Y, norm=2, eps=0, verbose=0)
    assert clean == clf.score(X, Y)
    assert robust_accuracy_score(clf, X, Y, norm=2, eps=0.1, n_steps=2, verbose=0) <= clean


@pytest.mark.parametrize("compare", [_comparing.compare, _comparing.agree])
def test_a_graph_that_fails_is_another_network_but_for_want_of_memory(compare):
    module, x = nn.Linear(4, 3), torch.from_numpy(X)

    class Failing(nn.Module):
        was_asked = False

        def __init__(self, error):
            super().__init__()
            self.error = error

        def forward(self, x):
            raise self.error

    for error in (RuntimeError("no"), KeyError("no"), TypeError("no")):
        assert compare(module, Failing(error), x) in (False, (False, False))
    for error in (torch.OutOfMemoryError("no"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            compare(module, Failing(error), x)

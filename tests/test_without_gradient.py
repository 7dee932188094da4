"""Networks that pass no gradient to their input are told so in one line, before any long work."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from torch import nn

from advfeat import (
    NonRobustRelabeler,
    RobustFeatureInverter,
    StandardClassifier,
    adversarial_examples,
    robust_accuracy_curve,
    robust_accuracy_score,
    robust_feature_usefulness,
    transfer_rate,
)

QUICK = {"max_epochs": 1, "verbose": 0}
MESSAGE = "no gradient with respect to its input"
X = np.random.default_rng(0).random((30, 4), dtype=np.float32)
Y = np.arange(30) % 3


class Blind(nn.Module):
    """A network that loses the gradient of its input."""

    def __init__(self, n_classes=3):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, n_classes))

    def forward(self, x):
        return self.body(self.lost(x))


class Detached(Blind):
    def lost(self, x):
        return x.detach()


class WithoutGrad(Blind):
    @torch.no_grad()
    def lost(self, x):
        return 2 * x


class Integers(Blind):
    def lost(self, x):
        return (255 * x).to(torch.uint8).float() / 255


class ThroughNumPy(Blind):
    def lost(self, x):
        return torch.from_numpy(np.abs(x.detach().cpu().numpy()))


class NoTraining(Callback):
    def on_train_begin(self, net, **kwargs):
        raise AssertionError("the training began")


NETWORKS = [Detached, WithoutGrad, Integers, ThroughNumPy]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("constructor", [NonRobustRelabeler, RobustFeatureInverter])
def test_constructors_refuse_before_they_train_the_source(network, constructor):
    loss = {"criterion": nn.CrossEntropyLoss}
    sources = [
        StandardClassifier(network, callbacks=[NoTraining()], **QUICK),
        StandardClassifier(network(), callbacks=[NoTraining()], **QUICK),
        NeuralNetClassifier(network, callbacks=[NoTraining()], **loss, **QUICK),
        FrozenEstimator(StandardClassifier(network, random_state=0, **QUICK).fit(X, Y)),
        FrozenEstimator(NeuralNetClassifier(network, **loss, **QUICK).fit(X, Y)),
    ]
    for source in sources:
        with pytest.raises(ValueError, match=MESSAGE):
            constructor(source, random_state=0, verbose=0).fit_transform(X, Y)


@pytest.mark.parametrize("network", NETWORKS)
def test_attacks_and_scores_say_so(network):
    clf = StandardClassifier(network, random_state=0, **QUICK).fit(X, Y)
    attack = {"norm": 2, "n_steps": 2, "verbose": 0}
    for act in (
        lambda: robust_accuracy_score(clf, X, Y, eps=0.1, **attack),
        lambda: robust_accuracy_curve(clf, X, Y, eps_values=[0, 0.1], **attack),
        lambda: adversarial_examples(clf, X, Y, eps=0.1, **attack),
        lambda: transfer_rate(clf, clf, X, Y, eps=0.1, **attack),
        lambda: robust_feature_usefulness(clf, X, Y, eps=0.1, **attack),
    ):
        with pytest.raises(ValueError, match=MESSAGE):
            act()
    assert robust_accuracy_score(clf, X, Y, eps=0, **attack) == clf.score(X, Y)
    assert_array_equal(clf.predict(X), clf.predict_proba(X).argmax(1))


class SkipsBlank(Blind):
    """A network that leaves out samples without any content."""

    def forward(self, x):
        full = x.flatten(1).any(1)
        if not full.any():
            return self.body[2].bias.expand(len(x), -1)
        return torch.where(full[:, None], self.body(x), self.body[2].bias)


def test_a_blank_sample_says_nothing_of_the_network():
    blank_first = np.concatenate([np.zeros((2, 4), np.float32), X])
    clf = StandardClassifier(SkipsBlank, random_state=0, **QUICK).fit(blank_first, [0, 1, *Y])
    found = robust_accuracy_score(clf, blank_first, [0, 1, *Y], norm=2, eps=0.1, verbose=0)
    assert 0 <= found <= clf.score(blank_first, [0, 1, *Y])

"""Restarts of an attack: each begins elsewhere, and of all the worst, or the first, is kept."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch import nn

from advfeat import adversarial_examples, from_torch

ATTACK = {"norm": np.inf, "eps": 0.25, "verbose": 0}


@pytest.fixture
def clf():
    """Its logits are plus and minus the first of two inputs; the other is free."""
    net = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    return from_torch(net, classes=[0, 1], input_shape=(2,))


@pytest.fixture
def X():
    return np.random.default_rng(0).uniform(1, 2, (40, 2)).astype(np.float32)  # of class 0


@pytest.mark.filterwarnings("ignore::advfeat.exceptions.EvaluationWarning")
def test_every_further_restart_begins_elsewhere_and_the_worst_is_kept(clf, X):
    """With steps of hardly any length only the starts decide."""
    settings = {**ATTACK, "n_steps": 1, "step_size": 1e-9}
    found = [
        adversarial_examples(clf, X, np.zeros(40, int), n_restarts=n, **settings)[0][:, 0]
        for n in (1, 4, 16)
    ]
    moved = np.array(found) - X[:, 0]
    assert np.diff(moved, axis=0).max() <= 0
    # The furthest of 2n uniform draws: the mean of the minimum is known.
    expected = [0.25 * (2 / (2 * n + 1) - 1) for n in (1, 4, 16)]
    np.testing.assert_allclose(moved.mean(1), expected, atol=0.06)


def test_of_equal_examples_the_first_is_kept(clf, X):
    once, often = (
        adversarial_examples(clf, X, np.zeros(40, int), n_restarts=n, **ATTACK)[0] for n in (1, 5)
    )
    assert_array_equal(once[:, 0], X[:, 0] - np.float32(0.25))  # no further is to be had
    assert np.ptp(once[:, 1] - X[:, 1]) > 0.3  # begun at random
    assert_array_equal(often, once)


def test_without_random_starts_restarts_are_all_alike_and_left_out(clf, X):
    seen = []
    clf.module_.body.register_forward_hook(lambda *args: seen.append(1))
    counts = []
    for n in (1, 7):
        seen.clear()
        adversarial_examples(clf, X, np.zeros(40, int), n_restarts=n, random_start=False, **ATTACK)
        counts.append(len(seen))
    assert counts[0] == counts[1] > 0

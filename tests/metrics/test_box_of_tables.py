"""Attacks on tables in a box, whose features differ in scale: against the exact worst case."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression
from torch import nn

from advfeat import (
    feature_usefulness,
    from_torch,
    robust_accuracy_score,
    robust_feature_usefulness,
)


def moved(X, w, eps, low, high):
    """What lowers w'x most in the L2 ball and the box: along -w, stopped at the box, by bisection.

    At the optimum (Lagrange) all coordinates have gone t w_i, or stop at the box before.
    """
    t_low, t_high = np.zeros(len(X)), np.full(len(X), 1e12)
    for _ in range(200):
        t = np.where(t_low > 0, np.sqrt(t_low.clip(1e-12) * t_high), t_high / 1e12)
        far = np.linalg.norm((X - t[:, None] * w).clip(low, high) - X, axis=1) > eps
        t_low, t_high = np.where(far, t_low, t), np.where(far, t, t_high)
    return (X - t_low[:, None] * w).clip(low, high)


@pytest.mark.parametrize("seed", range(6))
def test_linear_models_in_boxes_of_any_shape(seed):
    rng = np.random.default_rng(seed)
    d = int(rng.integers(2, 6))
    high = 10.0 ** rng.uniform(-1, 2, d)
    X = rng.uniform(size=(200, d))
    X[:, 0] = X[:, 0] > 0.5  # a flag
    w = rng.uniform(0.5, 2, d) * rng.choice([-1, 1], d)
    y = (X @ w + 0.1 * rng.normal(size=200) > np.median(X @ w)).astype(int)
    X *= high
    clf = LogisticRegression(max_iter=10_000, C=100).fit(X / high, y)
    clf.coef_ = clf.coef_ / high
    w, b, sides = clf.coef_[0], clf.intercept_[0], (np.zeros(d), high)
    sign = 2 * y - 1
    for eps in np.quantile(high, [0.0, 0.5, 1.0]) * 0.3:
        worst = np.where(
            y == 1,
            moved(X, w, eps, *sides) @ w + b,
            -(moved(X, -w, eps, *sides) @ w + b),
        )
        exact = np.mean((worst > 0) & (sign * (X @ w + b) > 0))
        found = robust_accuracy_score(clf, X, y, norm=2, eps=eps, bounds=sides, verbose=0)
        assert exact - 0.006 <= found <= exact + 0.006  # one sample, by rounding


def test_robust_usefulness_of_a_linear_feature_in_the_box():
    rng = np.random.default_rng(0)
    X = rng.uniform(size=(100, 4)).astype("float32")
    w, y = np.array([3.0, 1.0, 0.5, 0.25]), rng.integers(2, size=100)
    net = nn.Sequential(nn.Linear(4, 1, bias=False), nn.Linear(1, 2))
    net[0].weight.data[:] = torch.from_numpy(w)
    clf = from_torch(net, classes=[0, 1], input_shape=(4,), bounds=(0, 1))
    f, sign = X @ w, 2 * y - 1
    lowest, highest = moved(X, w, 1.0, 0, 1) @ w, moved(X, -w, 1.0, 0, 1) @ w
    worst = np.where(sign * np.mean(sign * (f - f.mean())) > 0, lowest, -highest)
    mean = f.mean() * np.where(worst == lowest, 1, -1)
    gamma = robust_feature_usefulness(clf, X, y, norm=2, eps=1.0, verbose=0)[1, 0]
    assert_allclose(gamma, np.mean(worst - mean) / f.std(), atol=0.01)


def test_usefulness_for_classes_that_are_not_there():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))
    clf = from_torch(net, classes=["a", "m", "z"], input_shape=(6,), bounds=(0, 1))
    X = np.random.default_rng(0).uniform(size=(40, 6)).astype(np.float32)
    y = np.array(["a", "m"])[np.arange(40) % 2]
    settings = {"norm": 2, "eps": 0.05, "verbose": 0}
    rho = feature_usefulness(clf, X, y)
    assert not np.nan_to_num(rho[2]).any()
    gamma = robust_feature_usefulness(clf, X, y, **settings)
    for seed in range(4):
        rows = np.random.default_rng(seed).permutation(40)
        again = robust_feature_usefulness(clf, X[rows], y[rows], **settings)
        assert_allclose(again, gamma, atol=1e-4)

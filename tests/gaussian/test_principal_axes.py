"""Principal axes against data whose singular values are known exactly, and against 50 digits."""

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.linalg import hadamard

from advfeat.gaussian.principal_axes import principal_axes

N = 512


def axes_of(X):
    mean, none = np.zeros((1, X.shape[1])), np.zeros((0, X.shape[1]))
    return principal_axes(X, np.zeros(len(X), dtype=int), np.ones(len(X)), mean, none, "full")


def spectrum(kind, d):
    """Powers of two, so that sums of them are exact."""
    if kind == "even":
        return np.exp2(-np.linspace(0, 40, d).round())
    if kind == "gap":
        return np.repeat(np.exp2([0.0, -38.0]), [d // 2, d - d // 2])
    s = np.exp2(-np.linspace(0, 20, d).round())
    s[-d // 4 :] = 0.0
    return s


@pytest.mark.parametrize("kind", ["even", "gap", "singular"])
@pytest.mark.parametrize("d", [1, 8, 128, 256])
@pytest.mark.parametrize("rotated", [False, True])
def test_finds_known_singular_values_of_any_spread(kind, d, rotated):
    s = spectrum(kind, d)
    X = hadamard(N)[:, 1 : d + 1] * s  # orthogonal columns of norm sqrt(N) s
    if rotated:
        X = X @ hadamard(d).T  # exact too: sums of few powers of two
    found = axes_of(X)
    expected = s * np.sqrt(N * (d if rotated else 1))
    order = np.argsort(-expected)
    # As by a singular value decomposition: to some roundings of the largest one.
    assert_allclose(found.std, expected[order], rtol=1e-11, atol=1e-14 * expected.max())
    assert_allclose(found.axes @ found.axes.T, np.eye(len(found.axes)), atol=1e-13)


@pytest.mark.parametrize("seed", range(3))
def test_features_of_very_different_scales_lose_no_digits(seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(90, 12)) @ rng.normal(size=(12, 12))
    X *= rng.permutation(np.geomspace(1, 1e-8, 12))
    with mpmath.workdps(50):
        rows = mpmath.matrix(X.tolist())
        variances = mpmath.eigsy(rows.T * rows, eigvals_only=True)
        expected = np.sort([float(mpmath.sqrt(value)) for value in variances])[::-1]
    assert_allclose(axes_of(X).std, expected, rtol=1e-10)

import mpmath
import numpy as np
import pytest
from gaussian_reference import exact_root, minimax_covariance
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import linalg

from advfeat.gaussian.robust_covariance import bracket, relaxation, robust_std

seeds = st.integers(0, 2**32 - 1)


def random_spectrum(rng):
    """Standard deviations of any shape: spread up to 1e12, clusters, zeros, outliers."""
    d = int(rng.integers(1, 201))
    spread = 10 ** rng.uniform(0, rng.choice([1, 6, 12]))
    s = spread ** -rng.uniform(size=d)
    kind = rng.integers(5)
    if kind == 1:
        s = np.where(rng.random(d) < 0.5, 1.0, 1 / spread)
    elif kind == 2:
        s[rng.random(d) < 0.5] = 0.0
    elif kind == 3:
        s = np.full(d, 1 / spread)
        s[0] = 1.0
    elif kind == 4:
        s = np.ones(d)
        s[0] = 1 / spread
    eps = 10 ** rng.uniform(-12, 6) * (np.linalg.norm(s) or 1.0)
    return s * 10 ** rng.uniform(-100, 100) if rng.random() < 0.2 else s, eps


@given(seed=seeds)
def test_budget_is_spent_within_six_iterations(seed):
    rng = np.random.default_rng(seed)
    s, eps = random_spectrum(rng)
    weights = rng.random(len(s)) + 1e-3
    robust = robust_std(s, eps, weights=weights)
    assert robust.n_iter <= 6
    assert_allclose(linalg.norm(np.sqrt(weights) * robust.adversary_std), eps, rtol=1e-13)
    assert_allclose(robust.adversary_std * robust.std, 1 / robust.lambda_, rtol=1e-13)
    assert_allclose(robust.std - robust.adversary_std, s, rtol=0, atol=1e-15 * robust.std.max())


@given(seed=seeds)
def test_bracket_holds_the_root(seed):
    s, eps = random_spectrum(np.random.default_rng(seed))
    low, high = bracket(s[None], np.array([[eps]]), np.ones(len(s)))
    t = robust_std(s, eps).null_std
    assert low.item() * (1 - 1e-14) <= t <= high.item() * (1 + 1e-14)


@pytest.mark.parametrize("seed", range(12))
def test_agrees_with_50_digits(seed):
    rng = np.random.default_rng(seed)
    s = 10 ** rng.uniform(-8, 0, size=rng.integers(1, 20))
    if seed % 3 == 0:
        s[: len(s) // 2] = 0.0
    eps = 10 ** rng.uniform(-9, 6) * (linalg.norm(s) or 1.0)
    robust = robust_std(s, eps)
    t = exact_root(s, eps)
    assert abs(float(robust.lambda_ * t**2 - 1)) < 1e-13
    for value, std, delta in zip(s, robust.std, robust.adversary_std, strict=True):
        exact = t**2 / (mpmath.mpf(value) / 2 + mpmath.sqrt(mpmath.mpf(value) ** 2 / 4 + t**2))
        assert abs(float(delta / exact - 1)) < 1e-13
        assert abs(float(std / (exact + mpmath.mpf(value)) - 1)) < 1e-13


@given(seed=seeds)
def test_is_formula_26_of_the_paper(seed):
    rng = np.random.default_rng(seed)
    d = int(rng.integers(1, 6))
    root = rng.normal(size=(d, d + 3))
    S, eps = root @ root.T, rng.exponential()
    variances, Q = linalg.eigh(S)
    robust = robust_std(np.sqrt(variances), eps)
    by_eigenvectors = Q @ np.diag(robust.std**2) @ Q.T
    inverse = 1 / robust.lambda_
    square_root = linalg.sqrtm(inverse * S + S @ S / 4)
    assert_allclose(by_eigenvectors, S / 2 + inverse * np.eye(d) + square_root, rtol=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_is_the_saddle_point_over_all_covariances(seed):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(3, 3)) * [1.0, 0.5, 0.1]
    S, eps = root @ root.T, rng.exponential()
    variances, Q = linalg.eigh(S)
    robust = robust_std(np.sqrt(variances), eps)
    expected = Q @ np.diag(robust.std**2) @ Q.T
    assert_allclose(minimax_covariance(S, eps, rng), expected, atol=2e-6 * np.trace(expected))


@given(seed=seeds)
def test_has_the_largest_entropy_in_a_wasserstein_ball(seed):
    rng = np.random.default_rng(seed)
    s, eps = rng.exponential(size=5), rng.exponential()
    best = np.log(robust_std(s, eps).std).sum()
    others = rng.normal(size=(100, 5))
    others *= eps / linalg.norm(others, axis=1, keepdims=True)
    assert np.all(np.log(np.abs(s + others)).sum(axis=1) <= best + 1e-12)


def test_no_budget_changes_nothing():
    robust = robust_std([0.0, 1.0, 1e-5], 0.0)
    assert_array_equal(robust.std, [0.0, 1.0, 1e-5])
    assert_array_equal(robust.adversary_std, 0.0)
    assert robust.lambda_ == np.inf


@given(seed=seeds)
def test_limits_of_small_and_large_budgets(seed):
    s = np.random.default_rng(seed).uniform(0.5, 2, size=4)
    small = robust_std(s, 1e-7)
    assert_allclose(small.lambda_, np.sqrt((1 / s**2).sum()) / 1e-7, rtol=1e-6)
    # Ridge: the variance grows by 2 / lambda. The sum is formed without subtraction.
    growth = small.adversary_std * (2 * s + small.adversary_std)
    assert_allclose(growth, 2 / small.lambda_, rtol=1e-6)
    assert_allclose(robust_std(s, 1e7).lambda_, 4 / 1e14, rtol=1e-6)


@given(seed=seeds)
def test_weights_count_axes(seed):
    rng = np.random.default_rng(seed)
    s, times = rng.exponential(size=5), rng.integers(0, 4, size=5)
    times[0] = 1
    weighted = robust_std(s, 0.7, weights=times)
    repeated = robust_std(np.repeat(s, times), 0.7)
    assert_allclose(np.repeat(weighted.std, times), repeated.std, rtol=1e-14)


def test_many_budgets_at_once_are_the_single_ones():
    s, budgets = [3.0, 1.0, 0.0, 1e-6], np.append(0.0, np.logspace(-12, 9, 40))
    together = robust_std(s, budgets)
    for i, eps in enumerate(budgets):
        alone = robust_std(s, eps)
        assert_allclose(together.std[i], alone.std, rtol=1e-14)
        assert_allclose(together.adversary_std[i], alone.adversary_std, rtol=1e-14)
        assert_allclose(together.lambda_[i], alone.lambda_, rtol=1e-14)


@pytest.mark.parametrize("scale", [1e-150, 1.0, 1e150])
def test_scale_is_only_a_unit(scale):
    s = np.array([2.0, 0.5, 0.0])
    assert_allclose(robust_std(s * scale, scale).std / scale, robust_std(s, 1.0).std, rtol=1e-15)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (([1.0], -1.0), "eps"),
        (([1.0], np.nan), "eps"),
        (([1.0], np.inf), "eps"),
        (([-1.0], 1.0), "s"),
        (([np.nan], 1.0), "s"),
        (([], 1.0), "s"),
        (([[1.0]], 1.0), "s"),
    ],
)
def test_bad_arguments(arguments, name):
    with pytest.raises(ValueError, match=f"The '{name}' parameter of robust_std must be"):
        robust_std(*arguments)


@pytest.mark.parametrize("weights", [[1.0, 1.0], [0.0], [-1.0]])
def test_bad_weights(weights):
    with pytest.raises(ValueError, match="The 'weights' parameter of robust_std must"):
        robust_std([1.0], 1.0, weights=weights)


def test_the_directions_that_share_a_budget_are_counted_with_their_weights():
    s, weights = np.array([2.0, 2.0, 2.0]), np.array([1.0, 4.0, 0.0])
    robust = robust_std(s, [0.5, 0.0, 3.0], weights=weights)
    d_eff, error = relaxation(robust, s, weights)
    assert_allclose(d_eff, [5, np.inf, 5], rtol=1e-12)  # all alike
    moved = robust.adversary_std[:, 0] / robust.std[:, 0]
    assert_allclose(error, [moved[0] * (1 - moved[0]) / 10, 0, moved[2] * (1 - moved[2]) / 10])


def test_directions_that_move_most_count_most_for_the_error():
    s, weights = np.array([0.0, 1.0, 3.0]), np.array([1.0, 2.0, 1.0])
    robust = robust_std(s, 0.5, weights=weights)
    squares = robust.adversary_std**2
    d_eff, error = relaxation(robust, s, weights)
    assert_allclose(d_eff, (weights @ squares) ** 2 / (weights @ squares**2), rtol=1e-12)
    moved = robust.adversary_std * s / robust.std**2  # none where there is no variance
    assert_allclose(error, moved.max() / (2 * d_eff), rtol=1e-12)

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import linalg, optimize

from advfeat.gaussian.pointwise import pointwise_std, worst_perturbation

seeds = st.integers(0, 2**32 - 1)


@given(seed=seeds)
def test_perturbation_solves_lemma_1(seed):
    rng = np.random.default_rng(seed)
    d, eps = int(rng.integers(1, 30)), 10 ** rng.uniform(-6, 4)
    precision = 10 ** rng.uniform(-6, 6, size=d)
    V = rng.normal(size=(50, d)) * 10 ** rng.uniform(-3, 3, size=d)
    delta, multiplier = worst_perturbation(V, precision, eps)
    assert np.all(multiplier >= precision.max())
    assert_allclose(linalg.norm(delta, axis=1), eps, rtol=1e-9)
    # Stationary: T (v + delta) = multiplier delta.
    force, pull = precision * (V + delta), multiplier[:, None] * delta
    assert np.all(np.abs(force - pull) <= 1e-6 * np.abs(pull).max(axis=1, keepdims=True))


@pytest.mark.parametrize("seed", range(5))
def test_perturbation_is_the_global_maximum(seed):
    rng = np.random.default_rng(seed)
    precision, v = rng.exponential(size=2), rng.normal(size=2)
    angle = np.linspace(0, 2 * np.pi, 100_001)
    circle = 0.8 * np.column_stack([np.cos(angle), np.sin(angle)])
    best = (precision * (v + circle) ** 2).sum(axis=1).max()
    delta, _ = worst_perturbation(v[None], precision, 0.8)
    assert_allclose((precision * (v + delta) ** 2).sum(), best, rtol=1e-8)


def test_samples_without_component_along_the_top_axis():
    # The rest of the budget goes to the top axis; a sample at its mean moves there.
    delta, multiplier = worst_perturbation(np.array([[0.0, 0.1], [0.0, 0.0]]), np.array([4, 1]), 1)
    assert_allclose(multiplier, 4.0)
    assert_allclose(delta[0], [np.sqrt(1 - (0.1 / 3) ** 2), 0.1 / 3])
    assert_allclose(delta[1], [1.0, 0.0])
    # So far along another axis that nothing is left.
    delta, multiplier = worst_perturbation(np.array([[0.0, 9.0]]), np.array([4, 1]), 1)
    assert_allclose(delta, [[0.0, 1.0]])
    assert_allclose(multiplier, 10.0)


@pytest.mark.parametrize("seed", range(3))
def test_learner_against_a_general_solver(seed):
    rng = np.random.default_rng(seed)
    V, eps = rng.normal(size=(10, 2)) * [1.0, 0.2], 0.4
    weight = np.full(10, 1 / 10)

    def loss(log_std):
        precision = np.exp(-2 * log_std)
        values = []
        for v in V:  # the dual of the inner problem, in one variable

            def dual(x, v=v):
                multiplier = precision.max() * (1 + np.exp(x))
                ratio = multiplier / (multiplier - precision)
                return (precision * ratio * v**2).sum() + multiplier * eps**2

            values.append(optimize.minimize_scalar(dual, bounds=(-25, 15), method="bounded").fun)
        return np.mean(values) / 2 + log_std.sum()

    solution = pointwise_std(V, weight, eps, np.ones(2), np.ones(2))
    general = optimize.minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-6})
    assert_allclose(np.log(solution.std), general.x, atol=1e-3)
    assert loss(np.log(solution.std)) <= general.fun + 1e-7


@given(seed=seeds)
def test_units_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    V, weight = rng.normal(size=(30, 3)), rng.dirichlet(np.ones(30))
    one = pointwise_std(V, weight, 0.5, np.ones(3), np.ones(3))
    unit = 2.0 ** rng.integers(-400, 400)
    other = pointwise_std(V * unit, weight, 0.5 * unit, np.full(3, unit), np.ones(3))
    assert_allclose(other.std / unit, one.std, rtol=1e-12)
    assert one.n_iter <= 40

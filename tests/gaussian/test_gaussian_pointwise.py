"""GaussianRobustMLE against the per-sample adversary."""

import numpy as np
import pytest
from gaussian_reference import TYPES, random_data
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import linalg
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning

from advfeat.gaussian import GaussianRobustMLE

poor_relaxation = pytest.mark.filterwarnings("ignore:The average adversary:UserWarning")
pytestmark = poor_relaxation  # most data here have few dimensions


def test_pointwise_in_one_dimension_has_a_closed_form():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 1)) + 3, np.repeat([0, 1], 100)
    model = GaussianRobustMLE(0.7, adversary="pointwise").fit(X, y)
    distance = np.abs(X - model.means_[y])
    assert_allclose(model.robust_std_**2, np.mean((distance + 0.7) ** 2), rtol=1e-9)
    assert_allclose(model.adversary_std_, 0.7, rtol=1e-9)


@pytest.mark.parametrize(("kind", "d"), [("full", 1), ("diag", 1), ("spherical", 3)])
def test_pointwise_multiplier_is_the_mean_over_the_samples_of_all_classes(kind, d):
    """Where each sample moves straight away from its mean, as far as its multiplier says."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [20, 50, 130])
    X = rng.normal(size=(200, d)) * np.array([1, 3, 9])[y, None]
    model = GaussianRobustMLE(0.7, adversary="pointwise", covariance_type=kind, per_class=True)
    model.fit(X, y)
    length = linalg.norm(X - model.means_[y], axis=1)
    std = model.robust_std_[y, 0]
    assert_allclose(model.lambda_, np.mean((1 + length / 0.7) / std**2), rtol=1e-6)


@pytest.mark.parametrize(("kind", "per_class"), TYPES)
def test_pointwise_is_the_best_reply_to_its_own_attack(kind, per_class):
    X, y = load_iris(return_X_y=True)
    model = GaussianRobustMLE(
        0.5, adversary="pointwise", covariance_type=kind, per_class=per_class
    ).fit(X, y)
    X_adv = model.perturb(X, y)
    assert_allclose(linalg.norm(X_adv - X, axis=1), 0.5, rtol=1e-9)
    # The loss is stationary, by Danskin's theorem, if sigma^2 is the variance after the attack.
    for c in [[0], [1], [2]] if per_class else [[0, 1, 2]]:
        axes = model._scatter.axes[c[0] if per_class else 0]
        member = np.isin(y, c)
        Z, _ = axes.rotate(X_adv[member] - model.means_[y[member]])
        variance = np.mean(Z**2, axis=0)
        if kind == "spherical":
            variance = np.full(4, variance.mean())
        std = model.robust_std_[c[0]] if per_class else model.robust_std_
        assert_allclose(std**2, variance, rtol=1e-6)


def energies(model, X, y):
    """Mean square of each direction after the attack, in units of the robust variance."""
    V, found = model.perturb(X, y) - model.means_[y], []
    for g, axes in enumerate(model._scatter.axes):
        std = np.atleast_2d(model.robust_std_)[g]
        coordinates, outside = axes.rotate(V[np.isin(y, model._scatter.groups[g])])
        found.append(np.mean(coordinates**2, axis=0) / std[: axes.n_axes] ** 2)
        if outside is not None:
            rest = len(std) - axes.n_axes
            found.append([np.mean(np.sum(outside**2, axis=1)) / std[-1] ** 2 / rest])
    return np.concatenate(found)


@pytest.mark.parametrize("kind", ["full", "diag"])
@pytest.mark.parametrize("eps", [2.0, 3.0, 10.0])
def test_pointwise_where_the_best_reply_lies_on_a_kink(kind, eps):
    # A 2 x 2 design with three points at its centre, which move in any direction as well.
    design = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1], [0, 0], [0, 0], [0, 0]], dtype=float)
    X, y = np.vstack([design, design + [5, 0]]), np.repeat([0, 1], 7)
    model = GaussianRobustMLE(eps, adversary="pointwise", covariance_type=kind).fit(X, y)
    variance = (4 * (np.sqrt(2) + eps) ** 2 + 3 * eps**2) / 14  # straight away from the centre
    assert_allclose(model.robust_std_**2, variance, rtol=1e-7)
    assert_allclose(energies(model, X, y), 1.0, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:The number of unique classes")
@pytest.mark.parametrize(("kind", "per_class"), [("full", False), ("diag", False), ("diag", True)])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_pointwise_is_the_best_reply_for_samples_without_some_component(kind, per_class, seed):
    rng = np.random.default_rng(seed)
    n, d, eps = int(rng.integers(8, 60)), int(rng.integers(2, 12)), 10 ** rng.uniform(-1, 2)
    X = rng.normal(size=(n, d)) * rng.exponential(size=d)
    X[rng.random((n, d)) < 0.5] = 0  # as counts are
    y = rng.integers(0, 3, n)
    y[:3] = np.arange(3)
    if rng.random() < 0.5:
        y[:4] = [3, 4, 5, 6]  # of which each is the only one of its class
        y[4:7] = np.arange(3)
        y = np.unique(y, return_inverse=True)[1]
    if rng.random() < 0.3:
        X[:, 0] = X[:, 1]
    model = GaussianRobustMLE(
        eps, adversary="pointwise", covariance_type=kind, per_class=per_class
    ).fit(X, y)
    assert_allclose(energies(model, X, y), 1.0, rtol=1e-4)
    assert_allclose(linalg.norm(model.perturb(X, y) - X, axis=1), eps, rtol=1e-9)


@pytest.mark.parametrize("eps", [0.03, 0.1, 1.0])
@pytest.mark.parametrize(("d", "seed"), [(31, 57), (61, 21)])
def test_pointwise_in_many_directions_without_a_tie(d, seed, eps):
    rng = np.random.default_rng(seed)
    scale = np.exp(rng.normal(size=d))
    X, y = rng.normal(size=(150, d)) * scale, np.arange(150) % 2
    X[y == 1] += scale
    model = GaussianRobustMLE(eps * scale.mean(), adversary="pointwise", covariance_type="diag")
    assert_allclose(energies(model.fit(X, y), X, y), 1.0, rtol=1e-4)
    assert model.n_iter_ < 200


@pytest.mark.parametrize("noise", [1e-14, 1e-13, 1e-12, 1e-11, 1e-10, 1e-9])
def test_what_is_nothing_beside_the_budget_decides_nothing(noise):
    rng = np.random.default_rng(3)
    B = (rng.random((15, 4)) < 0.3).astype(float)
    X, y = np.vstack([B, -B, B + 3, 3 - B]), np.repeat([0, 1], 30)
    exact = GaussianRobustMLE(20.0, adversary="pointwise").fit(X, y)
    X += noise * rng.normal(size=X.shape)
    model = GaussianRobustMLE(20.0, adversary="pointwise").fit(X, y)
    assert_allclose(model.robust_std_, exact.robust_std_, rtol=1e-6)
    assert_allclose(energies(model, X, y), 1.0, rtol=1e-4)


def test_pointwise_moves_samples_of_a_class_without_weight():
    X, y = load_iris(return_X_y=True)
    model = GaussianRobustMLE(0.5, adversary="pointwise", covariance_type="diag", per_class=True)
    model.fit(X, y, sample_weight=(y < 2).astype(float))
    moved = model.perturb(np.zeros((3, 4)), [0, 1, 2])
    assert_allclose(linalg.norm(moved, axis=1), 0.5, rtol=1e-9)


def test_pointwise_says_if_the_reply_was_not_found(monkeypatch):
    X, y = load_iris(return_X_y=True)
    monkeypatch.setattr("advfeat.gaussian.pointwise._N_STEPS", 1)
    monkeypatch.setattr("advfeat.gaussian.pointwise._N_STARTS", 1)
    with pytest.warns(ConvergenceWarning, match="of its value from the model's") as told:
        GaussianRobustMLE(0.5, adversary="pointwise").fit(X, y)
    assert told[0].filename == __file__


def test_pointwise_tends_to_average_when_many_directions_share_the_budget():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(3000, 100)) * rng.uniform(0.5, 2, 100), np.repeat([0, 1], 1500)
    average = GaussianRobustMLE(5.0).fit(X, y)
    pointwise = GaussianRobustMLE(5.0, adversary="pointwise").fit(X, y)
    assert average.d_eff_ > 50
    assert_allclose(pointwise.robust_std_, average.robust_std_, rtol=0.02)
    assert_allclose(pointwise.lambda_, average.lambda_, rtol=0.02)


def test_pointwise_with_singular_covariance():
    X, y = random_data(2, n_features=9, n_samples=7)
    X[:, 0] = 0.1
    model = GaussianRobustMLE(0.5, adversary="pointwise").fit(X, y)
    assert_allclose(linalg.norm(model.adversary_std_), 0.5, rtol=1e-6)
    assert np.ptp(model.robust_std_[model.std_ == 0]) == 0
    assert_allclose(linalg.norm(model.perturb(X, y) - X, axis=1), 0.5, rtol=1e-6)


def test_pointwise_has_no_partial_fit():
    assert not hasattr(GaussianRobustMLE(adversary="pointwise"), "partial_fit")

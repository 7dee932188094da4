import numpy as np
import pandas as pd
import pytest
import torch
from gaussian_reference import inner_maximum
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import linalg
from sklearn.datasets import load_iris
from sklearn.exceptions import DataConversionWarning
from torch.utils.data import TensorDataset

from advfeat.gaussian import GaussianRobustMLE

pytestmark = pytest.mark.filterwarnings("ignore:The average adversary:UserWarning")
seeds = st.integers(0, 2**32 - 1)


def fitted(seed, eps, **parameters):
    """Model of two classes with anisotropic, correlated features."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(2, 6))
    Z = rng.normal(size=(40, d)) * 10 ** rng.uniform(-1.5, 0.5, d)
    X, y = Z @ linalg.qr(rng.normal(size=(d, d)))[0], np.repeat([0, 1], 20)
    X[y == 1] += rng.normal(size=d)
    return GaussianRobustMLE(eps, **parameters).fit(X, y), X, y


# The perturbations, Lemmas 1 and 2


@given(seed=seeds)
def test_average_perturbation_spends_the_budget_and_gives_the_robust_covariance(seed):
    model, X, y = fitted(seed, 0.4)
    X_adv = model.perturb(X, y)
    assert_allclose(np.mean(np.square(X_adv - X).sum(axis=1)), 0.16, rtol=1e-9)
    V = X_adv - model.means_[y]
    assert_allclose(V.T @ V / len(V), model.robust_covariance_, atol=1e-9)


@given(seed=seeds)
def test_pointwise_perturbation_is_the_worst(seed):
    rng = np.random.default_rng(seed)
    model, X, y = fitted(seed, 0.4)
    shift = model.perturb(X, y, adversary="pointwise") - X
    assert_allclose(linalg.norm(shift, axis=1), 0.4, rtol=1e-9)
    others = rng.normal(size=(200, *X.shape))
    others *= 0.4 / linalg.norm(others, axis=-1, keepdims=True)
    others[100:] = shift + 1e-3 * others[100:]  # small changes too
    others *= 0.4 / linalg.norm(others, axis=-1, keepdims=True)

    def distance(V):
        return np.einsum("...j,jk,...k->...", V, model.precision_, V)

    V = X - model.means_[y]
    assert np.all(distance(V + others) <= distance(V + shift) * (1 + 1e-9))


def test_perturbation_of_a_sample_outside_of_the_training_span():
    X = np.array([[0.0, 0, 5], [1, 0, 5], [0, 3, 5], [2, 3, 5]])
    model = GaussianRobustMLE(0.5).fit(X, [0, 0, 1, 1])
    sample = np.array([[0.5, 0.0, 6.0]])
    assert_allclose(model.perturb(sample, [0], adversary="pointwise"), [[0.5, 0.0, 6.5]])
    with pytest.raises(ValueError, match="Use adversary='pointwise' instead"):
        model.perturb(sample, [0])


def test_perturbation_away_from_the_predicted_class_by_default():
    model, X, y = fitted(0, 0.3)
    assert_array_equal(model.perturb(X), model.perturb(X, model.predict(X)))


def test_perturbation_takes_what_fit_takes():
    _, X, y = fitted(0, 0.3)
    frame = pd.DataFrame(X, columns=[f"feature {i}" for i in range(X.shape[1])])
    model = GaussianRobustMLE(0.3).fit(frame, y, sample_weight=torch.ones(len(y)))
    expected = model.perturb(frame, y)
    assert_array_equal(model.perturb(frame), model.perturb(frame, model.predict(frame)))
    assert_array_equal(model.perturb(frame, torch.from_numpy(y)), expected)
    with pytest.warns(DataConversionWarning, match="column-vector y"):
        assert_array_equal(model.perturb(frame, y[:, None]), expected)


def test_no_budget_no_perturbation():
    model, X, y = fitted(0, 0.0)
    assert_array_equal(model.perturb(X, y), X)


def test_bad_arguments_of_perturb():
    model, X, y = fitted(0, 0.3)
    with pytest.raises(ValueError, match="The 'adversary' parameter of perturb must be"):
        model.perturb(X, y, adversary="none")
    with pytest.raises(ValueError, match="not among the classes"):
        model.perturb(X, y + 1)
    with pytest.raises(ValueError, match="one label per sample"):
        model.perturb(X, y[:3])


@pytest.mark.parametrize("adversary", [np.array(["average", "pointwise"]), 1, ["average"]])
def test_adversaries_that_are_none(adversary):
    model, X, y = fitted(0, 0.3)
    with pytest.raises(ValueError, match="The 'adversary' parameter of perturb must be"):
        model.perturb(X, y, adversary=adversary)


# Theorem 1


def rise_under_best_attack(V, covariance, C):
    """Mean rise of ``v' T v`` when ``delta`` maximises it less ``C |delta|^2``."""
    precision = linalg.inv(covariance)
    shift = linalg.solve(C * np.eye(len(covariance)) - precision, precision @ V.T).T
    attacked, clean = (np.einsum("ij,jk,ik->i", U, precision, U) for U in (V + shift, V))
    return attacked - clean


@given(seed=seeds)
def test_theorem_1_on_samples(seed):
    model, X, y = fitted(seed, 0.3)
    V = X - model.means_[y]  # their second moments are the fitted ones
    for robust, covariance in ((False, model.covariance_), (True, model.robust_covariance_)):
        C = 1.5 / linalg.eigvalsh(covariance)[0]
        rise = rise_under_best_attack(V, covariance, C).mean()
        assert_allclose(model.vulnerability(C, robust=robust), rise, rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_theorem_1_by_monte_carlo(seed):
    model, _, _ = fitted(seed, 0.0)
    S, n = model.covariance_, 100_000
    V = np.random.default_rng(seed).multivariate_normal(np.zeros(len(S)), S, size=n)
    C = 3 / linalg.eigvalsh(S)[0]
    rise = rise_under_best_attack(V, S, C)
    M = linalg.inv(C * S - np.eye(len(S)))
    printed = np.trace(np.linalg.matrix_power(np.eye(len(S)) + M, 2)) - len(S)
    assert_allclose(model.vulnerability(C), printed, rtol=1e-8)
    assert abs(rise.mean() - printed) < 4 * rise.std() / np.sqrt(n)


@given(seed=seeds)
def test_theorem_1_is_infinite_up_to_its_threshold(seed):
    model, _, _ = fitted(seed, 0.3)
    for robust, std in ((False, model.std_), (True, model.robust_std_)):
        threshold = 1 / std[-1] ** 2
        prices = threshold * np.array([0.5, 1 - 1e-9, 1 + 1e-9, 2.0])
        finite = np.isfinite(model.vulnerability(prices, robust=robust))
        assert_array_equal(finite, [False, False, True, True])
    assert model.vulnerability(1 / model.robust_std_[-1] ** 2, robust=False) == np.inf


@given(seed=seeds)
def test_theorem_1_is_least_for_a_multiple_of_the_identity(seed):
    rng = np.random.default_rng(seed)
    corners = np.array([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])
    variances = rng.uniform(0.1, 1.9)
    variances = np.array([variances, 2 - variances])

    def rise(variances, C):
        X = np.vstack([corners, corners]) * np.sqrt(variances)
        return GaussianRobustMLE(0).fit(X, np.repeat([0, 1], 4)).vulnerability(C)

    C = 1 / variances.min() + rng.exponential()
    assert rise(np.ones(2), C) <= rise(variances, C)


def test_theorem_1_for_prices_beyond_all_bounds():
    model, _, _ = fitted(0, 0.3)
    assert_allclose(model.vulnerability([1e200, np.inf]), 0.0, atol=1e-150)


@pytest.mark.parametrize("C", [0.0, -1.0, np.nan, [[1.0]], "a"])
def test_bad_price(C):
    with pytest.raises(ValueError, match="The 'C' parameter of vulnerability must"):
        fitted(0, 0.3)[0].vulnerability(C)


# Theorem 2


@given(seed=seeds, log_eps=st.floats(-8, 6))
def test_theorem_2_bounds(seed, log_eps):
    for per_class in (False, True):
        model, _, _ = fitted(seed, 10**log_eps, per_class=per_class)
        low, high = model.lambda_bounds()
        tight_low, tight_high = model.lambda_bounds(tight=True)
        above, below = 1 + 1e-12, 1 - 1e-12
        assert low * below <= tight_low * above
        assert tight_low * below <= model.lambda_ <= tight_high * above
        assert tight_high * below <= high * above


def test_theorem_2_bounds_by_hand():
    model, _, _ = fitted(3, 0.3)
    S, robust, d = model.covariance_, model.robust_covariance_, len(model.std_)
    low = d / np.trace(robust) * (1 + np.sqrt(d * linalg.eigvalsh(S)[0]) / 0.3)
    high = (1 + np.sqrt(d * linalg.norm(S)) / 0.3) / linalg.eigvalsh(robust)[0]
    assert_allclose(model.lambda_bounds(), (low, high), rtol=1e-9)
    e, mean, power = 0.3 / np.sqrt(d), model.std_.mean(), np.mean(model.std_**-2.0) ** -0.5
    tight_low, tight_high = model.lambda_bounds(tight=True)
    assert tight_low >= 1 / (e * (e + mean)) * (1 - 1e-12)
    assert_allclose(tight_high, 1 / (e * (e + power)), rtol=1e-9)


def test_theorem_2_tight_bounds_meet_for_equal_variances():
    X = np.vstack([np.eye(3), -np.eye(3)] * 2)
    model = GaussianRobustMLE(0.5).fit(X, np.repeat([0, 1], 6))
    assert_allclose(model.lambda_bounds(tight=True), model.lambda_, rtol=1e-12)
    assert GaussianRobustMLE(0).fit(X, np.repeat([0, 1], 6)).lambda_bounds() == (np.inf, np.inf)


@pytest.mark.parametrize("exponent", [-150, -100, -82, 78, 100, 150])
@pytest.mark.parametrize("tight", [False, True])
def test_theorem_2_bounds_in_any_unit(exponent, tight):
    X, y = load_iris(return_X_y=True)
    unit = 10.0**exponent
    expected = GaussianRobustMLE(0.5).fit(X, y).lambda_bounds(tight=tight)
    found = GaussianRobustMLE(0.5 * unit).fit(X * unit, y).lambda_bounds(tight=tight)
    assert_allclose(np.array(found) * unit * unit, expected, rtol=1e-9)


# Theorem 3


def cosine(mu, precision):
    gradient = mu @ precision
    return np.sum(mu * gradient, -1) / linalg.norm(mu, axis=-1) / linalg.norm(gradient, axis=-1)


@given(seed=seeds)
def test_theorem_3_for_every_mean(seed):
    model, _, _ = fitted(seed, 0.3)
    directions = np.random.default_rng(seed).normal(size=(200, len(model.std_)))
    for robust, covariance in ((False, model.covariance_), (True, model.robust_covariance_)):
        worst, direction = model.min_alignment(robust=robust)
        precision, kappa = linalg.inv(covariance), np.linalg.cond(covariance)
        assert_allclose(worst, 2 * np.sqrt(kappa) / (1 + kappa), rtol=1e-6)
        assert_allclose(cosine(direction, precision), worst, rtol=1e-6)
        assert_allclose(linalg.norm(direction), 1.0)
        assert np.all(cosine(directions, precision) >= worst * (1 - 1e-9))
    assert model.min_alignment()[0] > model.min_alignment(robust=False)[0]


@given(seed=seeds)
def test_alignment_grows_with_the_budget_for_every_mean(seed):
    model, _, _ = fitted(seed, 0.0)
    directions = np.random.default_rng(seed).normal(size=(100, len(model.std_)))
    path = model.eps_path(np.append(0, np.logspace(-3, 3, 20)))
    cosines = [
        cosine(directions, (model.components_.T / std**2) @ model.components_)
        for std in path.robust_std
    ]
    assert np.all(np.diff(cosines, axis=0) >= -1e-9)


def test_alignment_of_equal_and_of_singular_variances():
    X = np.vstack([np.eye(2), -np.eye(2)] * 2)
    y = np.repeat([0, 1], 4)
    assert GaussianRobustMLE(0.5).fit(X, y).min_alignment()[0] == 1.0
    flat = np.column_stack([X, np.zeros(8)])
    worst, direction = GaussianRobustMLE(0.5).fit(flat, y).min_alignment(robust=False)
    assert worst == 0.0
    assert_allclose(linalg.norm(direction), 1.0)


def test_alignment_where_the_worst_direction_is_outside_of_the_components():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(6, 20)), np.repeat([0, 1], 3)
    model = GaussianRobustMLE(0.5).fit(X, y)
    worst, direction = model.min_alignment()
    assert_allclose(cosine(direction, model.precision_), worst, rtol=1e-9)


def test_alignment_per_class():
    model = GaussianRobustMLE(0.5, per_class=True).fit(*load_iris(return_X_y=True))
    worst, directions = model.min_alignment()
    assert directions.shape == (3, 4)
    for c in range(3):
        assert_allclose(cosine(directions[c], model.precision_[c]), worst[c], rtol=1e-9)


# Section 4: adversarial training finds the robust parameters


@pytest.mark.parametrize("seed", range(3))
def test_adversarial_training_by_gradient_descent_arrives_at_the_closed_form(seed):
    rng = np.random.default_rng(seed)
    d, eps = 3, 0.5
    Z = rng.normal(size=(30, d)) @ np.diag([1.5, 1.0, 0.3]) @ linalg.qr(rng.normal(size=(d, d)))[0]
    X = np.vstack([Z, Z + 5])  # one Gaussian, twice: the classes share everything but the mean
    model = GaussianRobustMLE(eps).fit(X, np.repeat([0, 1], 30))
    # Descent on the mean and on a root L of the precision L L', from a random start.
    mu, L = rng.normal(size=d), np.diag(rng.uniform(0.5, 1.5, d))
    for _ in range(1500):
        moved = inner_maximum(L @ L.T, (Z - mu).T / np.sqrt(len(Z)), eps)
        gradient_mu = -L @ L.T @ moved.sum(axis=1) / np.sqrt(len(Z))
        gradient_L = np.tril(moved @ (moved.T @ L)) - np.diag(1 / np.diag(L))
        mu, L = mu - 0.1 * gradient_mu, L - 0.1 * gradient_L
    assert_allclose(mu, model.means_[0], atol=1e-6)
    assert_allclose(linalg.inv(L @ L.T), model.robust_covariance_, atol=1e-6)


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("priors", [None, [0.25, 0.75]])
def test_what_the_budget_is_a_mean_of(per_class, priors):
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [300, 100])
    X = rng.normal(size=(400, 2)) * np.array([[1, 0.8], [1.5, 1.2]])[y] + y[:, None]
    model = GaussianRobustMLE(0.4, per_class=per_class, priors=priors).fit(X, y)
    size = np.square(model.perturb(X, y) - X).sum(axis=1)
    weights = priors if per_class and priors else [0.75, 0.25]
    mean = np.dot(weights, [size[y == c].mean() for c in (0, 1)])
    assert mean == pytest.approx(model.eps_**2)


@pytest.mark.parametrize("adversary", ["average", "pointwise"])
@pytest.mark.parametrize("eps", [0, 0.5])
def test_perturbed_samples_are_an_array_of_their_own(eps, adversary):
    X, y = load_iris(return_X_y=True)
    before = X.copy()
    model = GaussianRobustMLE(eps, adversary=adversary).fit(X, y)
    X_adv = model.perturb(X, y)
    assert not np.shares_memory(X_adv, X)
    X_adv[:] = 0
    assert_array_equal(X, before)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda X: X.astype("datetime64[s]"), "date"),
        (lambda X: X + 0j, "[Cc]omplex"),
        (lambda X: TensorDataset(torch.from_numpy(X)), "table in memory"),
        (lambda X: np.full_like(X, np.nan), "NaN"),
    ],
)
def test_samples_to_perturb_are_checked_as_those_to_predict(spoil, message):
    X = np.arange(12.0).reshape(6, 2)
    y = np.repeat([0, 1], 3)
    model = GaussianRobustMLE(0.5).fit(X, y)
    for method in (model.predict, lambda X: model.perturb(X, y, adversary="pointwise")):
        with pytest.raises(ValueError, match=message):
            method(spoil(X))


def test_classes_may_be_many():
    """Their samples are found in one sort, whatever the order."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(900, 2)), rng.permutation(np.repeat(np.arange(300), 3))
    model = GaussianRobustMLE(0.5, per_class=True, covariance_type="diag").fit(X, y)
    X_adv = model.perturb(X, y, adversary="pointwise")
    assert_allclose(np.linalg.norm(X_adv - X, axis=1), 0.5)
    for label in (0, 17, 299):
        assert_allclose(model.means_[label], X[y == label].mean(0))
        assert_allclose(model.covariance_[label], np.diag(X[y == label].var(0)))
    order = rng.permutation(len(X))
    assert_allclose(model.perturb(X[order], y[order], adversary="pointwise"), X_adv[order])

"""None"""

import numpy as np
import pytest
from gaussian_reference import TYPES, exact_model, exact_scatter, random_data, relative_error
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import linalg, stats
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import NearestCentroid
from sklearn.utils.estimator_checks import parametrize_with_checks

from advfeat.gaussian import GaussianRobustMLE

seeds = st.integers(0, 2**32 - 1)
poor_relaxation = pytest.mark.filterwarnings("ignore:The average adversary:UserWarning")
pytestmark = poor_relaxation  # most data here have few dimensions


@parametrize_with_checks(
    [
        GaussianRobustMLE(),
        GaussianRobustMLE(eps=0),
        GaussianRobustMLE(per_class=True),
        GaussianRobustMLE(covariance_type="diag", relative_eps=True),
        GaussianRobustMLE(covariance_type="spherical"),
        GaussianRobustMLE(adversary="pointwise"),
    ]
)
def test_sklearn_checks(estimator, check):
    check(estimator)


# The closed form


def hard_case(seed):
    """Ill-conditioned or singular data, with their rank and the relative budget."""
    rng = np.random.default_rng(seed)
    d, n_classes = int(rng.integers(1, 8)), int(rng.integers(2, 6))
    n = n_classes + int(rng.choice([max(d // 2, 1), d, 3 * d, 8 * d]))
    y = np.append(np.arange(n_classes), rng.integers(0, n_classes, n - n_classes))
    Q = linalg.qr(rng.normal(size=(d, d)))[0]
    X = rng.normal(size=(n, d)) * 10 ** rng.uniform(-6, 0, size=d) @ Q
    X = (X + rng.normal(size=(n_classes, d))[y]) * 10 ** rng.uniform(-3, 3)
    rank = min(d, n - n_classes)
    if d > 2 and rng.random() < 0.3:  # a constant and a repeated feature
        X[:, 0], X[:, 1] = 0.1, X[:, 2]
        rank = min(d - 2, n - n_classes)
    return X, y, rank, 10 ** rng.uniform(-9, 6)


@pytest.mark.parametrize("seed", range(25))
def test_agrees_with_50_digits(seed):
    X, y, rank, relative_eps = hard_case(seed)
    priors = np.random.default_rng(seed).dirichlet(np.ones(len(np.unique(y))))
    S = exact_scatter(X, y)
    eps = relative_eps * float(sum(S[i, i] for i in range(S.rows))) ** 0.5
    model = GaussianRobustMLE(eps, priors=priors).fit(X, y)
    multiplier, covariance = exact_model(S, eps, rank)
    assert abs(float(model.lambda_ / multiplier - 1)) < 1e-9
    assert relative_error(model.robust_covariance_, covariance) < 1e-12
    assert model.n_iter_ <= 6


def test_sample_weights_agree_with_50_digits():
    X, y = random_data(0)
    weight = np.random.default_rng(0).exponential(size=len(y))
    model = GaussianRobustMLE(0.3).fit(X, y, sample_weight=weight)
    multiplier, covariance = exact_model(exact_scatter(X, y, weight), 0.3, 4)
    assert abs(float(model.lambda_ / multiplier - 1)) < 1e-12
    assert relative_error(model.robust_covariance_, covariance) < 1e-12


@given(seed=seeds)
def test_fitted_matrices_fit_together(seed):
    X, y = random_data(seed)
    model = GaussianRobustMLE(1.0).fit(X, y)
    S, robust, identity = model.covariance_, model.robust_covariance_, np.eye(4)
    within = sum(np.cov(X[y == c].T, bias=True) * np.mean(y == c) for c in np.unique(y))
    assert_allclose(S, within, rtol=1e-8, atol=1e-10)
    assert_allclose(model.components_ @ model.components_.T, identity, atol=1e-12)
    assert_allclose(robust @ model.precision_, identity, atol=1e-7)
    M = model.adversary_map_
    assert_allclose(M @ (model.lambda_ * robust - identity), identity, atol=1e-6)  # (21)
    assert_allclose((identity + M) @ S @ (identity + M), robust, rtol=1e-6, atol=1e-8)  # (25)
    assert_allclose(np.trace(M @ S @ M), 1.0, rtol=1e-8)


@given(seed=seeds)
def test_decision_is_bayes_rule_of_the_robust_gaussians(seed):
    X, y = random_data(seed)
    priors = [0.2, 0.3, 0.5]
    model = GaussianRobustMLE(1.0, priors=priors).fit(X, y)
    distance = [
        np.einsum("ij,jk,ik->i", X - m, linalg.inv(model.robust_covariance_), X - m)
        for m in model.means_
    ]
    joint = np.log(priors) - np.transpose(distance) / 2
    expected = joint - np.logaddexp.reduce(joint, axis=1, keepdims=True)
    assert_allclose(model.predict_log_proba(X), expected, rtol=1e-6, atol=1e-6)
    assert_array_equal(model.predict(X), joint.argmax(axis=1))


@pytest.mark.parametrize("n_classes", [2, 4])
def test_linear_attributes_have_the_shapes_of_lda(n_classes):
    X, y = random_data(0, n_classes=n_classes)
    model = GaussianRobustMLE().fit(X, y)
    reference = LinearDiscriminantAnalysis().fit(X, y)
    for name in ("coef_", "intercept_", "means_", "priors_", "covariance_"):
        expected = (4, 4) if name == "covariance_" else getattr(reference, name).shape
        assert getattr(model, name).shape == expected, name
    assert model.decision_function(X).shape == reference.decision_function(X).shape


# Limits


def lda(X, y, priors=None):
    """Coefficients and intercepts of LDA with the covariance's divisor n.

    Older versions of scikit-learn divide by n less the number of classes.
    """
    reference = LinearDiscriminantAnalysis(priors=priors, tol=1e-12).fit(X, y)
    four = LinearDiscriminantAnalysis().fit([[-1.0], [1.0], [9.0], [11.0]], [0, 0, 1, 1])
    n, n_classes = len(y), len(reference.classes_)
    factor = 1 if np.isclose(four.coef_.item(), 10) else n / (n - n_classes)
    log_priors = np.log(reference.priors_)
    if n_classes == 2:
        log_priors = np.diff(log_priors)
    return factor * reference.coef_, log_priors + factor * (reference.intercept_ - log_priors)


@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer])
def test_without_budget_it_is_lda(load):
    X, y = load(return_X_y=True)
    priors = np.arange(1, y.max() + 2) / np.arange(1, y.max() + 2).sum()
    for given_priors in (None, priors):
        model = GaussianRobustMLE(0, priors=given_priors).fit(X, y)
        coef, intercept = lda(X, y, given_priors)
        assert_allclose(model.coef_, coef, rtol=1e-9)
        assert_allclose(model.intercept_, intercept, rtol=1e-9)


@given(seed=seeds)
def test_without_budget_it_is_lda_on_random_data(seed):
    X, y = random_data(seed)
    coef, intercept = lda(X, y)
    scores = X @ coef.T + intercept
    model = GaussianRobustMLE(0).fit(X, y)
    assert_allclose(model.decision_function(X), scores, atol=1e-6 * np.abs(scores).max())


def test_without_budget_and_per_class_it_is_qda():
    X, y = load_iris(return_X_y=True)
    model = GaussianRobustMLE(0, per_class=True, priors=[0.2, 0.3, 0.5]).fit(X, y)
    scores = [
        np.log(prior)
        + stats.multivariate_normal(X[y == c].mean(0), np.cov(X[y == c].T, bias=True)).logpdf(X)
        for c, prior in enumerate([0.2, 0.3, 0.5])
    ]
    assert_allclose(model.decision_function(X), np.transpose(scores) + 2 * np.log(2 * np.pi))


def test_without_budget_singular_directions_are_left_out_as_in_lda():
    X, y = load_iris(return_X_y=True)
    redundant = np.column_stack([X, X[:, 0], np.full(len(X), 0.1)])
    model, reference = GaussianRobustMLE(0).fit(redundant, y), GaussianRobustMLE(0).fit(X, y)
    assert_allclose(model.predict_proba(redundant), reference.predict_proba(X), atol=1e-9)


def test_small_budget_changes_little():
    X, y = load_iris(return_X_y=True)
    proba = GaussianRobustMLE(0).fit(X, y).predict_proba(X)
    assert_allclose(GaussianRobustMLE(1e-9).fit(X, y).predict_proba(X), proba, atol=1e-6)


def test_large_budget_gives_the_nearest_class_mean():
    X, y = load_wine(return_X_y=True)
    model = GaussianRobustMLE(1e6, relative_eps=True, priors=np.full(3, 1 / 3)).fit(X, y)
    assert_array_equal(model.predict(X), NearestCentroid().fit(X, y).predict(X))
    model.set_params(priors=None).fit(X, y)
    assert (model.predict(X) == np.bincount(y).argmax()).all()


# Covariance types


def test_diagonal_and_spherical_covariance():
    X, y = random_data(1)
    S, eps = GaussianRobustMLE().fit(X, y).covariance_, 0.7
    diagonal = GaussianRobustMLE(eps, covariance_type="diag").fit(X, y)
    assert_allclose(diagonal.covariance_, np.diag(np.diag(S)), rtol=1e-12)
    assert_allclose(linalg.norm(diagonal.robust_std_ - np.sqrt(np.diag(S))), eps)
    spherical = GaussianRobustMLE(eps, covariance_type="spherical").fit(X, y)
    assert_allclose(spherical.robust_std_, (np.sqrt(np.trace(S)) + eps) / 2, rtol=1e-12)
    assert diagonal.components_ is None and spherical.components_ is None


@given(seed=seeds)
def test_per_class_covariances_share_one_multiplier_and_budget(seed):
    X, y = random_data(seed)
    priors = np.array([0.6, 0.3, 0.1])
    model = GaussianRobustMLE(0.8, per_class=True, priors=priors).fit(X, y)
    assert_allclose(model.adversary_std_ * model.robust_std_, 1 / model.lambda_, rtol=1e-9)
    assert_allclose(priors @ np.square(model.adversary_std_).sum(axis=1), 0.64, rtol=1e-9)
    for c, S in enumerate(model.covariance_):
        assert_allclose(S, np.cov(X[y == c].T, bias=True), rtol=1e-6, atol=1e-9)


def test_one_class_covariance_repeated_is_the_pooled_model():
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(40, 3)) * [1, 2, 3]
    X, y = np.vstack([Z, Z + 5]), np.repeat([0, 1], 40)
    pooled, own = (
        GaussianRobustMLE(1.0).fit(X, y),
        GaussianRobustMLE(1.0, per_class=True).fit(X, y),
    )
    assert_allclose(own.lambda_, pooled.lambda_, rtol=1e-12)
    assert_allclose(own.robust_nll_, pooled.robust_nll_, rtol=1e-12)
    assert_allclose(own.d_eff_, pooled.d_eff_, rtol=1e-12)
    assert_allclose(own.decision_function(X), pooled.decision_function(X), atol=1e-9)


def test_relative_budget():
    X, y = load_iris(return_X_y=True)
    total = np.sqrt(np.trace(GaussianRobustMLE().fit(X, y).covariance_))
    relative = GaussianRobustMLE(0.3, relative_eps=True).fit(100 * X, y)
    assert_allclose(relative.eps_, 30 * total)
    assert_allclose(relative.coef_, GaussianRobustMLE(30 * total).fit(100 * X, y).coef_)


def test_robust_nll_is_the_loss_of_the_perturbed_samples():
    X, y = load_iris(return_X_y=True)
    for kind, per_class in TYPES:
        model = GaussianRobustMLE(0.5, covariance_type=kind, per_class=per_class).fit(X, y)
        X_adv = model.perturb(X, y)
        covariances = np.broadcast_to(model.robust_covariance_, (3, 4, 4))
        loss = np.mean(
            [
                np.mean(np.einsum("ij,jk,ik->i", V, linalg.inv(C), V)) / 2
                + np.linalg.slogdet(2 * np.pi * C)[1] / 2
                for V, C in ((X_adv[y == c] - model.means_[c], covariances[c]) for c in range(3))
            ]
        )
        assert_allclose(model.robust_nll_, loss, rtol=1e-9, err_msg=f"{kind}, {per_class}")


def test_refit_forgets_the_former_model():
    X, y = load_iris(return_X_y=True)
    model = GaussianRobustMLE().fit(X, y)
    model.set_params(per_class=True).fit(X, y)
    assert not hasattr(model, "coef_") and not hasattr(model, "intercept_")
    model.set_params(per_class=False).fit(X[:, :2], y == 1)
    assert model.coef_.shape == (1, 2)

import warnings

import numpy as np
import pytest
from gaussian_reference import exact_model, exact_scatter, relative_error
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import linalg, stats
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.neighbors import NearestCentroid
from sklearn.utils.estimator_checks import parametrize_with_checks

from advfeat import ConstructedDataset
from advfeat.gaussian import GaussianRobustMLE

seeds = st.integers(0, 2**32 - 1)
poor_relaxation = pytest.mark.filterwarnings("ignore:The average adversary:UserWarning")
pytestmark = poor_relaxation  # most data here have few dimensions

TYPES = [("full", False), ("full", True), ("diag", False), ("spherical", False), ("diag", True)]


def random_data(seed, *, n_classes=3, n_features=4, n_samples=60):
    """Classes of different sizes with correlated features, some far from the origin."""
    rng = np.random.default_rng(seed)
    y = np.append(np.arange(n_classes), rng.integers(0, n_classes, n_samples - n_classes))
    mixing = rng.normal(size=(n_features, n_features))
    means = 2 * rng.normal(size=(n_classes, n_features)) + 10 * rng.normal(size=n_features)
    return rng.normal(size=(n_samples, n_features)) @ mixing + means[y], y


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


# Batches and weights


@settings(max_examples=20)
@given(seed=seeds)
@pytest.mark.parametrize(("kind", "per_class"), TYPES)
def test_partial_fit_is_fit(kind, per_class, seed):
    X, y = random_data(seed)
    rng = np.random.default_rng(seed)
    weight = rng.exponential(size=len(y))
    order = np.argsort(y) if seed % 2 else rng.permutation(len(y))  # also one class at a time
    model = GaussianRobustMLE(0.5, covariance_type=kind, per_class=per_class)
    batches = np.split(order, np.sort(rng.choice(np.arange(1, len(y)), 5, replace=False)))
    for rows in batches:
        model.partial_fit(X[rows], y[rows], classes=[0, 1, 2], sample_weight=weight[rows])
    whole = GaussianRobustMLE(0.5, covariance_type=kind, per_class=per_class)
    whole.fit(X, y, sample_weight=weight)
    assert_allclose(model.means_, whole.means_, rtol=1e-10)
    assert_allclose(model.class_count_, whole.class_count_)
    assert_allclose(model.robust_std_, whole.robust_std_, rtol=1e-8)
    assert_allclose(model.robust_covariance_, whole.robust_covariance_, rtol=1e-6, atol=1e-9)
    scores = whole.decision_function(X)
    assert_allclose(model.decision_function(X), scores, atol=1e-6 * np.abs(scores).max())


@pytest.mark.parametrize("per_class", [False, True])
def test_a_class_not_seen_yet_is_not_predicted(per_class):
    X, y = load_iris(return_X_y=True)
    model = GaussianRobustMLE(per_class=per_class)
    model.partial_fit(X[y != 1], y[y != 1], classes=[0, 1, 2])
    assert_array_equal(model.predict_proba(X)[:, 1], 0.0)
    assert_allclose(model.predict_proba(X).sum(axis=1), 1.0)


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("only", [0, 1])
def test_of_two_classes_one_without_samples_has_probability_zero(per_class, only):
    X = np.random.default_rng(0).normal(size=(20, 3))
    y = np.full(20, only)
    model = GaussianRobustMLE(per_class=per_class).partial_fit(X, y, classes=[0, 1])
    expected = np.tile(np.eye(2)[only], (20, 1))
    assert_array_equal(model.predict_proba(X), expected)
    assert_array_equal(model.predict(X), y)
    priors = GaussianRobustMLE(priors=np.eye(2)[only], per_class=per_class)
    assert_array_equal(priors.fit(X, np.arange(20) % 2).predict_proba(X), expected)


def test_a_fitted_model_is_that_of_its_adversary():
    X, y = load_iris(return_X_y=True)
    model = GaussianRobustMLE(1.0, adversary="pointwise").fit(X, y)
    model.set_params(adversary="average")
    with pytest.raises(AttributeError, match="adversary_map_ needs adversary='average'"):
        _ = model.adversary_map_
    assert_allclose(np.linalg.norm(model.perturb(X, y) - X, axis=1), 1.0)


@pytest.mark.parametrize("changed", [{"covariance_type": "diag"}, {"per_class": True}])
def test_partial_fit_goes_on_with_the_kind_of_covariance_it_began_with(changed):
    X, y = load_iris(return_X_y=True)
    model = GaussianRobustMLE().partial_fit(X[::2], y[::2], classes=[0, 1, 2])
    before, scores = model.robust_covariance_, model.decision_function(X)
    with pytest.raises(ValueError, match="began with: covariance_type='full', per_class=False"):
        model.set_params(**changed).partial_fit(X[1::2], y[1::2])
    assert_array_equal(model.robust_covariance_, before)
    assert_array_equal(model.decision_function(X), scores)
    with pytest.raises(ValueError, match="'eps' parameter"):
        GaussianRobustMLE().fit(X, y).set_params(eps=-1).partial_fit(X, y)


@pytest.mark.parametrize("adversary", ["average", "pointwise"])
@pytest.mark.parametrize(("kind", "per_class"), TYPES)
def test_a_class_without_weight_keeps_its_place(kind, per_class, adversary):
    X, y = random_data(1)
    weight = np.where(y == 1, 0.0, 1.0)
    given = {"covariance_type": kind, "per_class": per_class, "adversary": adversary}
    model = GaussianRobustMLE(**given).fit(X, y, sample_weight=weight)
    without = GaussianRobustMLE(**given).fit(X[y != 1], y[y != 1])
    assert_array_equal(model.classes_, [0, 1, 2])
    probability = model.predict_proba(X)
    assert_array_equal(probability[:, 1], 0.0)
    assert_allclose(probability[:, [0, 2]], without.predict_proba(X), rtol=1e-7, atol=1e-12)
    assert_allclose(model.robust_nll_, without.robust_nll_)
    alone = GaussianRobustMLE(**given).fit(X[y < 2], y[y < 2], sample_weight=weight[y < 2])
    assert_array_equal(alone.classes_, [0, 1])
    assert_array_equal(alone.predict(X), np.zeros(len(X)))


def test_integer_weights_repeat_samples():
    X, y = load_iris(return_X_y=True)
    times = np.random.default_rng(0).integers(0, 3, size=len(y))
    weighted = GaussianRobustMLE().fit(X, y, sample_weight=times)
    repeated = GaussianRobustMLE().fit(np.repeat(X, times, axis=0), np.repeat(y, times))
    assert_allclose(weighted.robust_covariance_, repeated.robust_covariance_, rtol=1e-10)
    assert_allclose(weighted.decision_function(X), repeated.decision_function(X), atol=1e-9)


def test_many_rows_are_done_in_blocks():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(5000, 3)) + 7, rng.integers(0, 2, 5000)
    within = sum(np.cov(X[y == c].T, bias=True) * np.mean(y == c) for c in (0, 1))
    assert_allclose(GaussianRobustMLE().fit(X, y).covariance_, within, rtol=1e-10, atol=1e-13)


# Degenerate and extreme data


def test_fewer_samples_than_features():
    X, y = random_data(3, n_features=30, n_samples=12)
    model = GaussianRobustMLE(0.5).fit(X, y)
    assert model.components_.shape == (12, 30)
    assert_array_equal(np.flatnonzero(model.std_), np.arange(9))  # 12 samples, 3 classes
    assert_allclose(model.robust_std_[9:], model.lambda_**-0.5)
    assert_allclose(model.robust_covariance_ @ model.precision_, np.eye(30), atol=1e-9)
    assert_array_equal(model.predict(X), y)


def test_one_sample_per_class():
    X = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    for per_class in (False, True):
        model = GaussianRobustMLE(2.0, per_class=per_class).fit(X, ["a", "b", "c"])
        assert_allclose(model.robust_std_, np.sqrt(2))
        assert_array_equal(model.predict(X + 1), ["a", "b", "c"])


def test_constant_features_make_no_noise():
    X, y = load_iris(return_X_y=True)
    constant = np.column_stack([X, np.full(len(X), 1e9 + 0.1)])
    for kind, per_class in TYPES:
        model = GaussianRobustMLE(0.5, covariance_type=kind, per_class=per_class)
        model.fit(constant, y)
        if kind != "spherical":
            assert np.all(np.min(model.std_, axis=-1) == 0)
        assert model.score(constant, y) > 0.9


@pytest.mark.parametrize("scale", [1e-150, 1e-30, 1e30, 1e150])
@pytest.mark.parametrize("eps", [0.0, 1e-4, 1.0])
def test_huge_and_tiny_units(scale, eps):
    X, y = load_wine(return_X_y=True)
    model = GaussianRobustMLE(eps, relative_eps=True).fit(X * scale, y)
    reference = GaussianRobustMLE(eps, relative_eps=True).fit(X, y)
    assert_allclose(model.lambda_ * scale * scale, reference.lambda_, rtol=1e-12)
    assert_allclose(model.coef_ * scale, reference.coef_, rtol=1e-9)
    assert_allclose(model.predict_proba(X * scale), reference.predict_proba(X), atol=1e-9)


@pytest.mark.parametrize("scale", [1e-200, 1e155, 1e300, 2e307])
@pytest.mark.parametrize("eps", [0.0, 0.5])
def test_units_beyond_floating_point_are_refused(scale, eps):
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match="in floating point.*rescale 'X'"):
        GaussianRobustMLE(eps, relative_eps=True).fit(X * scale, y)


def test_a_large_offset_costs_no_digits():
    X, y = np.round(random_data(5)[0], 3), random_data(5)[1]
    near = GaussianRobustMLE().fit(X * 1000, y)
    far = GaussianRobustMLE().fit(X * 1000 + 2.0**33, y)
    assert_allclose(far.robust_std_, near.robust_std_, rtol=1e-9)


def test_log_probabilities_of_certain_samples_are_finite():
    X = np.array([[-1e6], [-1e6 - 1], [1e6], [1e6 + 1]])
    model = GaussianRobustMLE(0.1).fit(X, [0, 0, 1, 1])
    assert np.isfinite(model.predict_log_proba(X)).all()
    assert model.predict_log_proba(X).min() < -1e10


# The per-sample adversary


def test_pointwise_in_one_dimension_has_a_closed_form():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 1)) + 3, np.repeat([0, 1], 100)
    model = GaussianRobustMLE(0.7, adversary="pointwise").fit(X, y)
    distance = np.abs(X - model.means_[y])
    assert_allclose(model.robust_std_**2, np.mean((distance + 0.7) ** 2), rtol=1e-9)
    assert_allclose(model.adversary_std_, 0.7, rtol=1e-9)


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


def test_pointwise_says_if_the_reply_was_not_found(monkeypatch):
    X, y = load_iris(return_X_y=True)
    monkeypatch.setattr("advfeat.gaussian.pointwise._N_STEPS", 1)
    with pytest.warns(ConvergenceWarning, match="variances may be wrong by some") as told:
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


# Warnings and errors


@pytest.mark.filterwarnings("error")
def test_warns_if_few_directions_share_the_budget():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 100)
    with pytest.warns(UserWarning, match="only d_eff_ = 1 directions share") as record:
        GaussianRobustMLE(1.0).fit(rng.normal(size=(200, 1)), y)
    assert record[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GaussianRobustMLE(1.0).fit(rng.normal(size=(200, 5)), y)
        GaussianRobustMLE(1.0, adversary="pointwise").fit(rng.normal(size=(200, 1)), y)
        GaussianRobustMLE(0.0).fit(rng.normal(size=(200, 1)), y)


@pytest.mark.parametrize("eps", [-1.0, np.nan, np.inf, "1", None])
def test_bad_eps(eps):
    with pytest.raises(ValueError, match="The 'eps' parameter of GaussianRobustMLE must be"):
        GaussianRobustMLE(eps).fit([[0.0], [1.0]], [0, 1])


@pytest.mark.parametrize("priors", [[0.5, 0.6], [1.5, -0.5], [1.0], [np.nan, 1.0], [[0.5, 0.5]]])
def test_bad_priors(priors):
    with pytest.raises(ValueError, match="The 'priors' parameter of GaussianRobustMLE must"):
        GaussianRobustMLE(priors=priors).fit([[0.0], [1.0]], [0, 1])


def test_one_class_only():
    with pytest.raises(ValueError, match="needs samples of two classes at least.*Got 1 class"):
        GaussianRobustMLE().fit([[0.0], [1.0]], [3, 3])


def test_no_budget_and_no_variance():
    with pytest.raises(ValueError, match="eps=0 needs variance within the classes"):
        GaussianRobustMLE(0).fit([[0.0], [1.0]], [0, 1])
    X = [[0.0, 1], [1, 1], [0, 3], [1, 4], [2, 3]]
    with pytest.raises(ValueError, match="eps=0 needs variance within the classes"):
        GaussianRobustMLE(0, per_class=True).fit(X, [0, 0, 1, 1, 1])


def test_bad_classes_of_partial_fit():
    X, y = [[0.0], [1.0]], [0, 1]
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        GaussianRobustMLE().partial_fit(X, y)
    with pytest.raises(ValueError, match="Got 1 class"):
        GaussianRobustMLE().partial_fit(X, [0, 0], classes=[0])
    model = GaussianRobustMLE().partial_fit(X, y, classes=[0, 1])
    with pytest.raises(ValueError, match="not among the classes.*2"):
        model.partial_fit(X, [0, 2])
    with pytest.raises(ValueError, match="is not the same as on last call"):
        model.partial_fit(X, y, classes=[0, 1, 2])


@pytest.mark.parametrize("classes", [[0, 1, np.nan], [0, 1, None], [0, "1"], [[0, 1]], [], 2])
def test_classes_that_are_no_labels(classes):
    with pytest.raises(ValueError, match="classes must list all labels"):
        GaussianRobustMLE().partial_fit([[0.0], [1.0]], [0, 1], classes=classes)


def test_partial_fit_after_a_batch_that_was_refused():
    model = GaussianRobustMLE()
    with pytest.raises(ValueError, match="NaN"):
        model.partial_fit([[np.nan], [1.0]], [0, 1], classes=[0, 1])
    model.partial_fit([[0.0], [2.0]], [0, 1], classes=[0, 1])
    assert_array_equal(model.predict([[0.5], [1.5]]), [0, 1])


def test_nothing_is_there_before_fit():
    model = GaussianRobustMLE()
    with pytest.raises(NotFittedError):
        model.predict([[0.0]])
    for name in ("covariance_", "robust_covariance_", "precision_", "adversary_map_"):
        assert not hasattr(model, name)


def test_no_linear_map_if_the_covariance_is_singular():
    model = GaussianRobustMLE().fit([[0.0, 1], [1, 1], [2, 1], [4, 1]], [0, 0, 1, 1])
    with pytest.raises(AttributeError, match="adversary_map_ needs adversary='average'"):
        model.adversary_map_  # noqa: B018


def test_a_fit_that_fails_leaves_the_model_as_it_was():
    X, y = random_data(0, n_classes=2)
    model = GaussianRobustMLE(eps=0.1).partial_fit(X[:30], y[:30], classes=[0, 1])
    model.set_params(priors=[0.5, 0.6])
    with pytest.raises(ValueError, match="must sum to 1"):
        model.partial_fit(X[30:], y[30:])
    model.set_params(priors=None).partial_fit(X[30:], y[30:])
    assert model.class_count_.sum() == len(X)
    whole = GaussianRobustMLE(eps=0.1).fit(X, y)
    assert_allclose(model.coef_, whole.coef_, rtol=1e-9)

    model = GaussianRobustMLE(eps=0).fit(X, y)
    said, state = model.predict(X), set(vars(model))
    with pytest.raises(ValueError, match="eps=0 needs variance"):
        model.fit([[0.0] * 4, [1.0] * 4], [5, 6])
    assert_array_equal(model.predict(X), said)
    assert set(vars(model)) == state
    fresh = GaussianRobustMLE(eps=0)
    with pytest.raises(ValueError, match="eps=0 needs variance"):
        fresh.partial_fit(X[:1], y[:1], classes=[0, 1])
    assert not hasattr(fresh, "classes_") and not hasattr(fresh, "n_features_in_")


@pytest.mark.parametrize("n_classes", [3, 100])
def test_text_is_no_label_of_classes_that_are_numbers(n_classes):
    """NumPy would compare both as text, where 10 stands before 2."""
    y = np.arange(3 * n_classes) % n_classes
    X = np.random.default_rng(0).normal(size=(len(y), 2)) + y[:, None]
    model = GaussianRobustMLE(0.1).partial_fit(X, y, classes=np.arange(n_classes))
    words = y.astype(str)
    with pytest.raises(ValueError, match="labels of another type"):
        model.partial_fit(X, words)
    with pytest.raises(ValueError, match="labels of another type"):
        GaussianRobustMLE(0.1).partial_fit(X, words, classes=np.arange(n_classes))
    with pytest.raises(ValueError, match="labels of another type"):
        model.perturb(X, words)
    with pytest.raises(ValueError, match="labels of another type"):
        ConstructedDataset(X, words, words, np.arange(n_classes))

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import linalg, optimize
from sklearn.datasets import load_iris

from advfeat.gaussian import GaussianRobustMLE
from advfeat.gaussian.accuracy import dual_norm, gaussian_accuracy

pytestmark = pytest.mark.filterwarnings("ignore:The average adversary:UserWarning")
seeds = st.integers(0, 2**32 - 1)
norms = st.sampled_from([1, 2, 3.5, np.inf])


def fitted(seed, eps=0.3, **parameters):
    """Model of two overlapping classes of different size."""
    rng = np.random.default_rng(seed)
    y = np.repeat([0, 1], [30, 15])
    X = rng.normal(size=(45, 4)) @ (rng.normal(size=(4, 4)) * [1, 0.5, 0.2, 0.1])
    X[y == 1] += rng.normal(size=4)
    return GaussianRobustMLE(eps, **parameters).fit(X, y)


def sample(model, n, seed):
    """Samples of the fitted classes, with labels -1 and 1."""
    rng = np.random.default_rng(seed)
    number = (rng.random(n) < model.priors_[1]).astype(int)
    noise = rng.multivariate_normal(np.zeros(4), model.covariance_, size=n)
    return model.means_[number] + noise, 2 * number - 1


def worst_shift(w, eps, norm):
    """Perturbation of norm ``eps`` that lowers ``w'x`` most, by a general solver."""
    if norm == np.inf:
        return -eps * np.sign(w)
    if norm == 1:
        return -eps * np.sign(w) * (np.arange(len(w)) == np.argmax(np.abs(w)))
    power = np.abs(w) ** (1 / (norm - 1))
    return -eps * np.sign(w) * power / linalg.norm(power, ord=norm)


@given(seed=seeds, norm=norms)
def test_accuracy_under_attack_by_monte_carlo(seed, norm):
    model, n = fitted(seed), 4000
    X, sign = sample(model, n, seed)
    for eps_test in (0.0, 0.2):
        shift = worst_shift(model.coef_[0], eps_test, norm)
        scores = model.decision_function(X + sign[:, None] * shift)
        hits = np.mean(np.sign(scores) == sign)
        exact = model.accuracy_curve(eps_test, norm=norm)
        assert abs(hits - exact) < 5 * np.sqrt(exact * (1 - exact) / n) + 3 / n


@pytest.mark.parametrize("scale", [1e-200, 1e-3, 1.0, 1e3, 1e200])
def test_norms_near_one_and_weights_of_any_size(scale):
    w = np.array([[0.3, -2.0, 1.5], [0.0, 0.0, 0.0]])
    nearly = dual_norm(scale * w, 1.0005)
    assert_allclose(nearly, scale * np.array([2.0, 0.0]), rtol=1e-3)
    for norm in (1, 1.5, 2, np.inf):
        assert_allclose(dual_norm(scale * w, norm), scale * dual_norm(w, norm), rtol=1e-12)
    assert_allclose(dual_norm(w, 2), np.linalg.norm(w, axis=1))


def test_accuracy_curve_falls_from_the_clean_accuracy():
    curve = fitted(0).accuracy_curve(np.linspace(0, 5, 50))
    assert curve.shape == (50,)
    assert np.all(np.diff(curve) < 0)
    assert fitted(0).accuracy_curve(0.0) == curve[0]


def test_accuracy_without_variance_is_that_of_the_means():
    model = GaussianRobustMLE(1.0).fit([[0.0], [2.0]], [0, 1])
    assert_array_equal(model.accuracy_curve([0.0, 0.9, 1.1]), [1.0, 1.0, 0.0])


@given(seed=seeds, norm=norms)
def test_usefulness_by_monte_carlo(seed, norm):
    model, n = fitted(seed), 4000
    rng = np.random.default_rng(seed)
    X, sign = sample(model, n, seed)
    W = rng.normal(size=(3, 4))
    rho, gamma = model.feature_usefulness(W, 0.2, norm=norm)
    for w, useful, robust in zip(W, rho, gamma, strict=True):
        f = X @ w
        center, scale = f.mean(), f.std()
        f = (f - center) / scale
        assert abs(np.mean(sign * f) - useful) < 0.1
        low = np.mean(sign * f) + worst_shift(w, 0.2, norm) @ w / scale
        assert_allclose(low - np.mean(sign * f), robust - useful, rtol=0.1)
        alone = model.feature_usefulness(w, 0.2, norm=norm)
        assert_allclose(alone, (useful, robust), rtol=1e-12)


@given(seed=seeds)
def test_usefulness_is_largest_along_lda(seed):
    model = fitted(seed, 0.0)
    rho, gamma = model.feature_usefulness(model.coef_[0])
    assert rho == gamma
    others = np.random.default_rng(seed).normal(size=(100, 4))
    assert np.all(model.feature_usefulness(others)[0] <= rho + 1e-9)


def test_a_constant_feature_is_useless():
    model = GaussianRobustMLE().fit([[0.0, 1], [1, 1], [2, 1], [3, 1]], [0, 0, 1, 1])
    assert_array_equal(model.feature_usefulness([0.0, 1.0], 0.5), (0.0, 0.0))


@settings(max_examples=20)
@given(seed=seeds)
def test_path_is_the_single_fits(seed):
    budgets = np.append(0.0, np.logspace(-6, 4, 7))
    path = fitted(seed, 0.5).eps_path(budgets)
    for i, eps in enumerate(budgets):
        model = fitted(seed, eps)
        for name in ("lambda_", "robust_std", "adversary_std", "coef", "intercept"):
            expected = getattr(model, name if name.endswith("_") else name + "_")
            assert_allclose(path[name][i], expected, rtol=1e-9, atol=1e-12)
        assert_allclose(path.d_eff[i], model.d_eff_, rtol=1e-9)
    assert path.n_iter <= 6


@pytest.mark.parametrize(
    "parameters", [{"per_class": True}, {"covariance_type": "diag"}, {"relative_eps": True}]
)
def test_path_of_other_models(parameters):
    X, y = load_iris(return_X_y=True)
    path = GaussianRobustMLE(**parameters).fit(X, y).eps_path([0.1, 2.0])
    absolute = {**parameters, "relative_eps": False}
    for i, eps in enumerate(path.eps):
        model = GaussianRobustMLE(eps, **absolute).fit(X, y)
        assert_allclose(path.robust_std[i], model.robust_std_, rtol=1e-12)
    assert ("coef" in path) == (not parameters.get("per_class"))


def test_path_with_fewer_samples_than_features():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(8, 20)), np.repeat([0, 1], 4)
    path = GaussianRobustMLE(1.0).fit(X, y).eps_path([0.3, 3.0])
    for i, eps in enumerate(path.eps):
        model = GaussianRobustMLE(eps).fit(X, y)
        assert_allclose(path.coef[i], model.coef_, rtol=1e-9)
        assert_allclose(path.robust_std[i], model.robust_std_, rtol=1e-9)


@settings(max_examples=20)
@given(seed=seeds, norm=st.sampled_from([2, np.inf]))
def test_selected_budget_is_the_best(seed, norm):
    model = fitted(seed)
    chosen = fitted(seed, model.select_eps(0.2, norm=norm)).accuracy_curve(0.2, norm=norm)
    budgets = np.append(0, np.logspace(-2, 1, 13))
    others = [fitted(seed, eps).accuracy_curve(0.2, norm=norm) for eps in budgets]
    assert chosen >= max(others) - 1e-6


@settings(max_examples=20)
@given(seed=seeds)
def test_selected_budget_comes_close_to_ridge_lda(seed):
    # Ridge LDA with the best ridge and threshold is optimal for Gaussian classes.
    model, eps_test = fitted(seed), 0.1
    chosen = fitted(seed, model.select_eps(eps_test)).accuracy_curve(eps_test)
    difference = model.means_[1] - model.means_[0]

    def loss(log_ridge):
        w = linalg.solve(model.covariance_ + np.exp(log_ridge) * np.eye(4), difference)
        thresholds = np.linspace(*(model.means_ @ w), 41)
        accuracy = gaussian_accuracy(
            np.tile(w, (41, 1)),
            -thresholds,
            model._scatter.axes[0],
            model.means_,
            model.priors_,
            eps_test,
            2,
        )
        return -accuracy.max()

    best = -optimize.minimize_scalar(loss, bounds=(-12, 6), method="bounded").fun
    assert chosen >= best - 0.02


def test_without_attack_no_budget_is_best():
    assert fitted(0).select_eps(0.0) < 1e-3


def test_sums_of_columns_that_cancel_have_no_usefulness():
    rng = np.random.default_rng(0)
    A, y = rng.normal(size=(50, 2)), np.resize([0, 1], 50)
    model = GaussianRobustMLE(0.1).fit(np.c_[A, A.sum(axis=1), A[:, 0]], y)
    W = np.array([[1, 1, -1, 0], [0.1, 0.1, -0.1, 0], [1, 0, 0, -1]])
    assert_array_equal(model.feature_usefulness(W, 0.1), np.zeros((2, 3)))
    for w in W:
        assert_array_equal(model.feature_usefulness(w, 0.1), (0.0, 0.0))


@given(seed=seeds)
def test_a_constant_column_has_no_usefulness(seed):
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(5, 60)), int(rng.integers(2, 10))
    X = np.insert(rng.normal(size=(n, d)), 1, rng.normal(), axis=1)
    model = GaussianRobustMLE(0.1).fit(X, np.resize([0, 1], n))
    assert_array_equal(model.feature_usefulness(np.eye(d + 1)[1], 0.1), (0.0, 0.0))
    assert np.all(model.feature_usefulness(np.eye(d + 1)[[0, 2]])[0] != 0)


@given(seed=seeds, exponent=st.integers(-300, 300))
def test_the_scale_of_a_feature_does_not_matter(seed, exponent):
    model, w = fitted(seed), np.random.default_rng(seed).normal(size=4)
    expected = model.feature_usefulness(w, 0.2)
    assert_allclose(model.feature_usefulness(w * 10.0**exponent, 0.2), expected, rtol=1e-10)


def test_a_model_without_variance_is_given_no_budget_of_zero():
    X, y = [[0.0, 0.0], [1.0, 1.0]], [0, 1]
    eps = GaussianRobustMLE(1).fit(X, y).select_eps(2.0)
    assert eps > 0
    GaussianRobustMLE(eps).fit(X, y)


@pytest.mark.parametrize("norm", ["inf", None, [2], 0.5, np.nan])
@pytest.mark.parametrize("method", ["accuracy_curve", "select_eps", "feature_usefulness"])
def test_norms_that_are_none(method, norm):
    argument = np.ones(4) if method == "feature_usefulness" else 0.1
    with pytest.raises(ValueError, match="'norm' parameter must be a number from 1 to inf"):
        getattr(fitted(0), method)(argument, norm=norm)


@pytest.mark.parametrize(
    ("w", "eps", "message"),
    [
        ([1, np.nan, 1, 1], 0.1, "'w' parameter of feature_usefulness must be finite"),
        (["a"] * 4, 0.1, "'w' parameter of feature_usefulness must hold numbers"),
        ([[1, 2, 3, 4], [1, 2]], 0.1, "'w' parameter of feature_usefulness must hold numbers"),
        (np.eye(4), [1, 2, 3], "'eps' parameter of feature_usefulness must be one number"),
        (np.eye(4), "a", "'eps' parameter of feature_usefulness must hold numbers"),
    ],
)
def test_bad_features(w, eps, message):
    with pytest.raises(ValueError, match=message):
        fitted(0).feature_usefulness(w, eps)


def test_weights_may_be_tensors():
    w = torch.eye(4, requires_grad=True)
    expected = fitted(0).feature_usefulness(np.eye(4))
    assert_array_equal(fitted(0).feature_usefulness(w), expected)


@pytest.mark.parametrize("method", ["accuracy_curve", "select_eps", "feature_usefulness"])
def test_closed_forms_need_two_classes_with_one_covariance(method):
    X, y = load_iris(return_X_y=True)
    argument = np.ones(4) if method == "feature_usefulness" else 0.1
    for model in (
        GaussianRobustMLE().fit(X, y),
        GaussianRobustMLE(per_class=True).fit(X[:100], y[:100]),
    ):
        with pytest.raises(ValueError, match=f"{method} needs two classes and per_class=False"):
            getattr(model, method)(argument)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf, [[1.0]], []])
def test_bad_budgets(bad):
    model = fitted(0)
    for method in (model.accuracy_curve, model.select_eps, model.eps_path):
        with pytest.raises(ValueError, match="must be a non-negative finite number"):
            method(bad)


def test_other_bad_arguments():
    model = fitted(0)
    with pytest.raises(ValueError, match="The 'norm' parameter must be a number from 1 to inf"):
        model.accuracy_curve(0.1, norm=0.5)
    with pytest.raises(ValueError, match="The 'w' parameter of feature_usefulness must have"):
        model.feature_usefulness([1.0, 2.0])
    with pytest.raises(ValueError, match="The 'eps_test' parameter of select_eps must be one"):
        model.select_eps([0.1, 0.2])


def test_budgets_that_matter_to_the_weakest_direction_alone_are_searched():
    X = np.array([[1000, 1e-3], [1000, -1e-3], [-1000, 1e-3], [-1000, -1e-3]])
    shift = np.array([500, 0.004])
    X, y = np.vstack([X - shift, X + shift]), np.repeat([0, 1], 4)
    model = GaussianRobustMLE(1).fit(X, y)
    eps = model.select_eps(3.5e-3)
    grid = np.append(0.0, np.logspace(-8, 4, 400))
    found = [GaussianRobustMLE(e).fit(X, y).accuracy_curve(3.5e-3) for e in (eps, *grid)]
    assert found[0] >= max(found[1:]) - 1e-3 and found[0] > found[1] + 0.04


@pytest.mark.parametrize("per_class", [False, True])
def test_a_class_of_which_nothing_was_seen_is_never_predicted(per_class):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3)) + 100
    y = np.repeat([0, 2], 20)
    X[y == 2] += 5
    model = GaussianRobustMLE(0.1, priors=[0.2, 0.5, 0.3], per_class=per_class)
    model.partial_fit(X, y, classes=[0, 1, 2])
    assert_allclose(model.priors_, [0.4, 0.0, 0.6])
    assert set(model.predict(np.vstack([X, np.zeros((1, 3))]))) <= {0, 2}
    alone = GaussianRobustMLE(0.1, priors=[0.4, 0.6], per_class=per_class).fit(X, y)
    assert_allclose(model.predict_proba(X)[:, [0, 2]], alone.predict_proba(X))
    X_1 = rng.normal(size=(20, 3)) + 110
    model.partial_fit(X_1, np.ones(20))
    assert_allclose(model.priors_, [0.2, 0.5, 0.3])


@pytest.mark.parametrize("norm", [1, 2, np.inf])
@pytest.mark.parametrize(
    ("unit", "eps_test"), [(1, 1e4), (1, 1e6), (1, 1e9), (1, 1e300), (1e-6, 1.0), (1e-100, 1.0)]
)
def test_under_attacks_far_beyond_the_data_the_priors_are_left(norm, unit, eps_test):
    rng = np.random.default_rng(3)
    y = np.repeat([1, 0], [60, 140])
    X = unit * (rng.normal(size=(200, 4)) + y[:, None])
    eps = GaussianRobustMLE(0).fit(X, y).select_eps(eps_test, norm=norm)
    chosen = GaussianRobustMLE(eps).fit(X, y)
    assert chosen.accuracy_curve(eps_test, norm=norm) == pytest.approx(0.7)


def test_a_norm_is_no_truth_value():
    model = GaussianRobustMLE(1).fit([[0.0], [1], [2], [3]], [0, 0, 1, 1])
    with pytest.raises(ValueError, match="must be a number from 1 to inf. Got True"):
        model.accuracy_curve(0.1, norm=True)

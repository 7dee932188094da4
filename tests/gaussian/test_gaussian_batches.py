"""Batches and weights of GaussianRobustMLE."""

import numpy as np
import pytest
from gaussian_reference import TYPES, random_data
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_iris

from advfeat.gaussian import GaussianRobustMLE

seeds = st.integers(0, 2**32 - 1)
poor_relaxation = pytest.mark.filterwarnings("ignore:The average adversary:UserWarning")
pytestmark = poor_relaxation  # most data here have few dimensions


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


@pytest.mark.parametrize("wrong", [{"eps": -1}, {"relative_eps": "no"}, {"priors": 0.5}])
def test_partial_fit_checks_parameters_that_were_set_after_a_fit(wrong):
    X, y = load_iris(return_X_y=True)
    model = GaussianRobustMLE().fit(X, y)
    scores = model.decision_function(X)
    (name,) = wrong
    message = f"The '{name}' parameter of GaussianRobustMLE must be"
    for call in (model.partial_fit, clone(model).partial_fit):
        call.__self__.set_params(**wrong)
        with pytest.raises(ValueError, match=message):
            call(X, y, classes=[0, 1, 2])
    assert_array_equal(model.decision_function(X), scores)


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

"""GaussianRobustMLE on degenerate and extreme data, its warnings and errors."""

import warnings

import numpy as np
import pandas as pd
import pytest
from gaussian_reference import TYPES, random_data
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_iris, load_wine
from sklearn.exceptions import NotFittedError

from advfeat import ConstructedDataset
from advfeat.gaussian import GaussianRobustMLE

poor_relaxation = pytest.mark.filterwarnings("ignore:The average adversary:UserWarning")
pytestmark = poor_relaxation  # most data here have few dimensions


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
    with pytest.raises(ValueError, match="eps=0, .* needs variance within the classes"):
        GaussianRobustMLE(0).fit([[0.0], [1.0]], [0, 1])
    X = [[0.0, 1], [1, 1], [0, 3], [1, 4], [2, 3]]
    with pytest.raises(ValueError, match="eps=0, .* needs variance within the classes"):
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
    with pytest.raises(ValueError, match="eps=0, .* needs variance"):
        model.fit([[0.0] * 4, [1.0] * 4], [5, 6])
    assert_array_equal(model.predict(X), said)
    assert set(vars(model)) == state
    fresh = GaussianRobustMLE(eps=0)
    with pytest.raises(ValueError, match="eps=0, .* needs variance"):
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


# What comes in other types


@pytest.mark.parametrize("dtype", ["Int64", "int64[pyarrow]", "boolean", "object", "category"])
def test_labels_of_frames_are_those_of_arrays(dtype):
    if "pyarrow" in dtype:
        pytest.importorskip("pyarrow")
    X, y = random_data(0, n_samples=60)
    ids = np.array([2**60, 2**60 + 1, 2**61])[y % 3] if dtype != "boolean" else y > 0
    series = pd.Series(ids, dtype=dtype)
    model, plain = (GaussianRobustMLE(0.5).fit(X, labels) for labels in (series, ids))
    parts = GaussianRobustMLE(0.5).partial_fit(X, series, classes=series.unique())
    for other in (model, parts):
        assert_array_equal(other.classes_, np.unique(ids))
        assert other.predict(X).dtype == ids.dtype
        assert_array_equal(other.predict(X), plain.predict(X))
    assert model.score(X, ids) == plain.score(X, ids)


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_a_budget_of_low_precision_is_not_rounded_further(kind):
    X, y = random_data(0)
    for unit in (1e3, 1e40):
        a, b = (
            GaussianRobustMLE(eps, relative_eps=True).fit(unit * X, y)
            for eps in (kind(0.3), float(kind(0.3)))
        )
        assert a.eps_ == b.eps_
        assert_array_equal(a.robust_std_, b.robust_std_)


def test_weights_whose_sum_overflows_are_refused():
    X, y = random_data(0)
    with pytest.raises(ValueError, match="Expected weights of a finite sum"):
        GaussianRobustMLE(0.5).fit(X, y, sample_weight=np.full(len(X), 1e308))


@pytest.mark.parametrize(
    "kind", [{}, {"covariance_type": "diag"}, {"per_class": True}, {"adversary": "average"}]
)
def test_weights_whose_sum_over_batches_overflows_are_refused(kind):
    X, y = random_data(0)
    model = GaussianRobustMLE(0.5, **kind)
    weight = np.full(len(X), 0.4 * np.finfo(float).max / len(X))
    for _ in range(2):
        model.partial_fit(X, y, classes=np.unique(y), sample_weight=weight)
    before = model.robust_std_.copy()
    with pytest.raises(ValueError, match="Expected weights of a finite sum"):
        model.partial_fit(X, y, sample_weight=weight)
    assert_array_equal(model.robust_std_, before)
    model.fit(X, y, sample_weight=weight)  # begins anew

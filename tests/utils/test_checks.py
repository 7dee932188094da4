"""Input checks: what is accepted, what is refused, and what the message says."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator
from torch.utils.data import TensorDataset

from advfeat import StandardClassifier
from advfeat.utils._checks import (
    as_array,
    batch_tensor,
    check_inputs,
    take_batch,
)
from advfeat.utils._device import resolve_device


class Estimator(BaseEstimator):
    pass


def check(X, **options):
    return check_inputs(Estimator(), X, reset=True, **options)


def images(n=4, shape=(3, 6, 7), dtype=np.float32):
    X = np.random.default_rng(0).random((n, *shape))
    return (X * 255).astype(np.uint8) if dtype == np.uint8 else X.astype(dtype)


def refused(X, *parts, **options):
    """The message of the ValueError that X raises; it must contain the parts."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        check(X, **options)
    for part in parts:
        assert part in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_become_float32(dtype):
    for X in (images(dtype=dtype), images(shape=(5,), dtype=dtype)):
        result = check(X)
        assert result.dtype == np.float32
        np.testing.assert_array_equal(result, X.astype(np.float32))


def test_no_copy_where_none_is_needed():
    for X in (images(), images(dtype=np.uint8), images(shape=(5,))):
        assert np.shares_memory(check(X), X)


def test_uint8_images_stay_bytes_and_are_scaled_by_the_batch():
    X = images(dtype=np.uint8)
    result = check(X)
    assert result.dtype == np.uint8
    batch = take_batch(result, slice(1, 3), "cpu")
    assert batch.dtype == torch.float32
    np.testing.assert_array_equal(batch, X[1:3].astype(np.float32) / 255)


def test_uint8_tables_are_numbers_and_a_warning_says_so(tmp_path):
    X = np.array([[0, 255], [3, 4]], dtype=np.uint8)
    np.save(tmp_path / "X.npy", X)
    held = [X, torch.from_numpy(X), np.load(tmp_path / "X.npy", mmap_mode="r")]
    held.append(TensorDataset(torch.from_numpy(X), torch.zeros(2)))
    for table in held:
        with pytest.warns(UserWarning, match="only uint8 images of shape .* are scaled"):
            result = check(table)
        assert result.dtype == np.float32
        np.testing.assert_array_equal(take_batch(result, slice(0, 2), "cpu"), X)


def test_no_warning_where_bytes_are_surely_no_images():
    X = np.array([[0, 1], [1, 1]], dtype=np.uint8)
    np.testing.assert_array_equal(check(X), X)
    check_inputs(fitted((2,)), 200 * X)  # said in fit


def test_batches_are_copies(device):
    X = images()
    rows = np.array([3, 0])
    batch = take_batch(X, rows, device)
    assert batch.device.type == device
    np.testing.assert_array_equal(batch.cpu(), X[rows])
    before = X.copy()
    batch.zero_()
    take_batch(X, slice(0, 2), device).zero_()
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_read_only_memory_maps_are_not_loaded(tmp_path, dtype):
    X = images(dtype=dtype)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    result = check(mapped)
    assert np.shares_memory(result, mapped)
    batch = take_batch(result, slice(0, 2), "cpu")
    batch.add_(1)  # writable
    np.testing.assert_array_equal(mapped, X)


@pytest.mark.parametrize("shape", [(3, 6, 7), (5,)])
def test_tensors_and_lists(shape):
    X = images(shape=shape)
    tensor = torch.from_numpy(X).requires_grad_(True)
    for same in (tensor, X.tolist(), list(X), tuple(X), list(tensor.detach())):
        np.testing.assert_array_equal(check(same), X)
    np.testing.assert_array_equal(
        check(torch.from_numpy(images(dtype=np.uint8))), images(dtype=np.uint8)
    )
    np.testing.assert_array_equal(as_array(tensor), X)


def test_tensors_of_any_device(device):
    np.testing.assert_array_equal(check(torch.ones(2, 3, device=device)), np.ones((2, 3)))


def test_fitted_attributes():
    pd = pytest.importorskip("pandas")
    estimator = Estimator()
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    check_inputs(estimator, frame, reset=True)
    assert estimator.input_shape_ == (2,)
    assert estimator.n_features_in_ == 2
    assert estimator.feature_names_in_.tolist() == ["a", "b"]
    check_inputs(estimator, images(), reset=True)
    assert estimator.input_shape_ == (3, 6, 7)
    assert not hasattr(estimator, "n_features_in_")
    assert not hasattr(estimator, "feature_names_in_")


@pytest.mark.parametrize(
    ("shape", "parts"),
    [
        ((), ["array"]),
        ((5,), ["Reshape your data"]),
        ((5, 8, 8), ["got 3 dimensions with shape (5, 8, 8)", "X[:, None]", "X[None]"]),
        ((5, 1, 1, 8, 8), ["got 5 dimensions with shape (5, 1, 1, 8, 8)"]),
        ((5, 8, 8, 3), ["looks like NHWC", "X.transpose(0, 3, 1, 2)", "(5, 8, 8, 3)"]),
        ((5, 28, 28, 1), ["looks like NHWC"]),
        ((0, 4), ["0 sample(s)"]),
        ((0, 3, 8, 8), ["0 sample(s)", "Estimator"]),
        ((5, 3, 0, 8), ["empty"]),
        ((5, 0), ["0 feature(s)"]),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_shapes_that_are_refused(shape, parts, dtype):
    refused(np.zeros(shape, dtype=dtype), *parts)


def test_the_shape_hints_help():
    X = images(shape=(8, 8, 3))
    assert check(X.transpose(0, 3, 1, 2)).shape == (4, 3, 8, 8)
    assert check(X[:, :, :, 0][:, None]).shape == (4, 1, 8, 8)


@pytest.mark.parametrize("shape", [(3, 6, 7), (5,)])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(shape, wrong):
    X = images(shape=shape)
    X[1, 0] = wrong
    refused(X, "NaN" if np.isnan(wrong) else "infinity")
    refused(X, "NaN" if np.isnan(wrong) else "infinity", bounds=None)


@given(low=st.floats(-1e-6, 0), high=st.floats(1, 1 + 1e-6))
def test_rounding_beyond_the_bounds_is_accepted(low, high):
    X = images()
    X[0, 0, 0, :2] = low, high
    np.testing.assert_array_equal(check(X), X)


def test_a_known_case_of_rounding():
    X = images()
    X[0, 0, 0, 0] = -3e-8
    check(X)


@pytest.mark.parametrize("low, high", [(-0.01, 1), (0, 1.01), (0, 255), (-2.1, 2.6)])
def test_images_outside_zero_to_one(low, high):
    X = low + (high - low) * images()
    X[0, 0, 0, :2] = low, high
    message = refused(X, "Expected values in [0, 1]", "X / 255", "say bounds=(low, high)")
    assert f"minimum of {low:g} and a maximum of {high:g}" in message
    assert check(X, bounds=None).max() == np.float32(high)
    assert check(X, bounds=(low, high)).min() == np.float32(low)


def test_whole_numbers_up_to_255_that_are_not_uint8():
    refused(images(dtype=np.uint8).astype(int), "X / 255")


def test_tables_are_unbounded_unless_told_otherwise():
    X = 100 * images(shape=(5,))
    assert check(X).max() > 1
    assert "X / 255" not in refused(X, "Expected values in [0, 1]", bounds=(0, 1))
    assert check(X, bounds=[0, 100]) is not None


def test_one_sided_bounds():
    X = images(shape=(5,))
    assert check(100 * X, bounds=(0, np.inf)) is not None
    refused(X - 0.5, "Expected values in [0, inf]", bounds=(0, np.inf))
    refused(X + 0.5, "Expected values in [-inf, 1]", bounds=(-np.inf, 1))


def test_uint8_images_go_with_zero_to_one_alone():
    X = images(dtype=np.uint8)
    for bounds in ("auto", None, (0, 1), [0.0, 1.0]):
        assert check(X, bounds=bounds).dtype == np.uint8
    for bounds in ((0, 255), (-1, 1), (0, 0.5)):
        refused(X, "uint8 images are scaled to [0, 1]", "bounds='auto'", bounds=bounds)


def fitted(shape):
    estimator = Estimator()
    check_inputs(estimator, images(shape=shape), reset=True)
    return estimator


@pytest.mark.parametrize(
    ("fit", "predict", "parts"),
    [
        ((3, 6, 7), (1, 6, 7), ["shape (1, 6, 7)", "expecting samples of shape (3, 6, 7)"]),
        ((3, 6, 7), (3, 7, 6), ["as seen in fit"]),
        ((3, 6, 4), (6, 4, 3), ["NHWC"]),
        ((3, 2, 4), (2, 4, 3), ["NHWC", "transpose"]),
        ((3, 6, 7), (126,), ["X.reshape(-1, 3, 6, 7)"]),
        ((3, 6, 7), (5,), ["shape (5,)"]),
        ((5,), (3, 6, 7), ["shape (3, 6, 7)", "expecting samples of shape (5,)"]),
        ((5,), (4,), ["4 features", "expecting 5 features"]),
    ],
)
def test_shapes_other_than_at_fit(fit, predict, parts):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        check_inputs(fitted(fit), images(shape=predict))
    for part in parts:
        assert part in str(caught.value)


def test_the_same_shape_as_at_fit():
    for shape in ((3, 6, 7), (5,)):
        X = images(n=1, shape=shape)
        np.testing.assert_array_equal(check_inputs(fitted(shape), X), X)


def test_resolve_device(device):
    assert resolve_device(device).type == device
    assert resolve_device(torch.device(device)).type == device
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device("auto").type == expected


def test_devices_that_are_refused():
    for wrong in ("gpu", "cuda:x", None):
        with pytest.raises(ValueError, match="'device' parameter must be 'auto', 'cpu', 'cuda'"):
            resolve_device(wrong)
    with pytest.raises(ValueError, match="no usable CUDA device|only 1 CUDA device|CUDA devices"):
        resolve_device("cuda:99")


@pytest.mark.parametrize("name", ["mps", "xpu", "meta"])
def test_devices_that_are_not_there_are_refused_in_one_line(name):
    try:
        torch.zeros(1, device=name).cpu()
    except Exception:
        with pytest.raises(ValueError, match=f"device='{name}' was asked for, but cannot be used"):
            resolve_device(name)


def test_a_column_may_be_named_dtype():
    frame = pd.DataFrame({"dtype": np.arange(20.0), "ndim": np.ones(20) + np.arange(20)})
    clf = StandardClassifier(max_epochs=1, random_state=0, verbose=0).fit(frame, np.arange(20) % 2)
    assert clf.predict(frame).shape == (20,)


@pytest.mark.parametrize("layout", ["F", "transposed"])
def test_batches_lie_in_c_order(layout):
    """As another process gets them."""
    X = np.random.default_rng(0).random((6, 4, 5, 3), np.float32)
    X = np.asfortranarray(X) if layout == "F" else X.transpose(0, 3, 1, 2)
    for rows in (batch_tensor(X[1:4], "cpu"), take_batch(X, slice(1, 4), "cpu"),
                 take_batch(torch.from_numpy(X), slice(1, 4), "cpu")):  # fmt: skip
        assert rows.is_contiguous()
        assert_array_equal(rows.numpy(), X[1:4])

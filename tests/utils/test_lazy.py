"""Lazy arrays: they give what the array gives, and hold only the rows asked for."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator
from torch.utils.data import Dataset, Subset, TensorDataset

from advfeat.utils._arrays import positions
from advfeat.utils._checks import check_inputs, take_batch
from advfeat.utils._lazy import (
    CastArray,
    DatasetArray,
    SelectedRows,
    extent,
    extents_remembered,
    lazy,
    select_rows,
)

X = np.random.default_rng(0).random((11, 3, 4, 5)).astype(np.float32)


class Items(Dataset):
    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def lazies(array):
    half = array.astype(np.float64)
    return {
        "cast": CastArray(half),
        "dataset": DatasetArray(TensorDataset(torch.from_numpy(array), torch.zeros(len(array)))),
        "subset": DatasetArray(Subset(Items(*((x, 0) for x in array)), range(len(array)))),
        "selected": SelectedRows(np.concatenate([array, array]), np.arange(len(array))),
        "twice": CastArray(half).astype(np.float64).astype(np.float32),
    }


@pytest.mark.parametrize("kind", lazies(X))
def test_lazy_arrays_are_indexed_like_arrays(kind):
    rows = lazies(X)[kind]
    assert rows.shape == X.shape and rows.dtype == np.float32 and len(rows) == 11
    assert rows.ndim == 4 and rows.size == X.size and rows.nbytes == X.nbytes
    mask = np.arange(11) % 2 == 0
    for key in [
        slice(2, 5), slice(None, None, 3), slice(8, 99), slice(3, 3), np.array([5, 0, 5]), [1, -1],
        mask, 4, -2, np.int64(3), (slice(1, 3), Ellipsis), (slice(0, 2), 0), ([1, 2], Ellipsis),
        (3, 1), (-1, 2, slice(1, 3)), (np.int64(2), Ellipsis, 0), (mask, 1), (2, slice(None), 3),
    ]:  # fmt: skip
        assert_array_equal(rows[key], X[key])
        assert isinstance(rows[key], np.ndarray)
    assert_array_equal(np.asarray(rows), X)
    assert_array_equal(np.asarray(rows, dtype=np.float64), X.astype(np.float64))
    assert_array_equal(next(iter(rows)), X[0])
    assert_array_equal(take_batch(rows, slice(3, 6), "cpu").numpy(), X[3:6])
    assert_array_equal(rows.extent, (X.min((0, 2, 3)), X.max((0, 2, 3))))
    assert "shape=(11, 3, 4, 5)" in repr(rows)
    with pytest.raises(IndexError):
        rows[11]
    with pytest.raises(ValueError, match="always a copy"):
        rows.__array__(copy=False)


@pytest.mark.parametrize("kind", lazies(X))
def test_what_lazy_arrays_do_not_do_is_told(kind):
    rows = lazies(X)[kind]
    for name in ("reshape", "mean", "min", "max", "sum", "copy", "ravel", "flatten", "T"):
        assert not hasattr(rows, name)
        with pytest.raises(AttributeError, match=rf"has no '{name}'.* numpy.asarray\(X\).{name}"):
            getattr(rows, name)
    with pytest.raises(AttributeError, match="object has no attribute 'reshap'"):
        rows.reshap  # noqa: B018
    assert np.mean(rows) == X.mean() and np.max(rows) == X.max()
    assert np.reshape(rows, (11, -1)).shape == (11, 60)
    assert rows.astype(np.float64)[:2].dtype == np.float64
    assert_array_equal(pickle.loads(pickle.dumps(rows))[:], X)
    for empty in ([], np.array([], dtype=int), slice(0, 0), np.zeros(11, bool), ([], Ellipsis)):
        assert rows[empty].shape == (0, 3, 4, 5)


def test_errors_of_a_data_set_are_not_hidden():
    class Broken(Items):
        def __getitem__(self, i):
            return super().__getitem__(i) if i < 5 else self.images[i]

    with pytest.raises(AttributeError, match="has no attribute 'images'"):
        DatasetArray(Broken(*X)).extent  # noqa: B018


@given(st.lists(st.integers(0, 10)), st.lists(st.integers(0, 30), max_size=5))
def test_selections_of_selections(first, second):
    rows = SelectedRows(X, np.array(first, dtype=int))
    second = np.array([i for i in second if i < len(first)], dtype=int)
    assert_array_equal(select_rows(rows, second)[:], X[first][second])


def test_what_becomes_lazy(tmp_path):
    def memmap(array):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.npy"
        np.save(path, array)
        return np.load(path, mmap_mode="r")

    table = X[:, 0, 0]
    for kept in (X, table, X.astype(np.float64), [[1.0]], memmap(X), memmap(table)):
        assert lazy(kept) is kept
    images = memmap((255 * X).astype(np.uint8))
    assert lazy(images) is images
    for array in (memmap(X.astype(np.float64)), memmap((9 * X[:, 0, 0]).astype(np.uint8)),
                  X.astype(np.float16), memmap(X.astype(np.float16))):  # fmt: skip
        assert isinstance(lazy(array), CastArray)
        assert_array_equal(lazy(array)[:], np.asarray(array, dtype=np.float32))
    assert isinstance(select_rows(memmap(X), [0, 1]), SelectedRows)
    assert isinstance(select_rows(X, [0, 1]), np.ndarray)


def test_extent_reads_in_chunks(monkeypatch):
    from advfeat.utils import _lazy

    monkeypatch.setattr(_lazy, "_CHUNK", 3 * X[0].nbytes)
    assert_array_equal(extent(X), (X.min((0, 2, 3)), X.max((0, 2, 3))))
    table = X.reshape(11, 60)
    assert_array_equal(extent(table), (table.min(0), table.max(0)))
    for at in (0, 5, 10):
        spoilt = X.copy()
        spoilt[at, 1, 0, 0] = np.nan
        assert np.isnan(extent(spoilt)).tolist() == 2 * [[False, True, False]]


def test_a_map_is_read_once_inside_a_call_and_anew_in_the_next(tmp_path, monkeypatch):
    from advfeat.utils import _lazy

    n_read = []
    real = _lazy._extent
    monkeypatch.setattr(_lazy, "_extent", lambda X: n_read.append(1) or real(X))
    np.save(tmp_path / "x.npy", X)
    images = np.load(tmp_path / "x.npy", mmap_mode="r")
    with extents_remembered():
        for _ in range(3):
            assert_array_equal(extent(images), (X.min((0, 2, 3)), X.max((0, 2, 3))))
        assert len(n_read) == 1
        assert_array_equal(extent(images[1:]), (X[1:].min((0, 2, 3)), X[1:].max((0, 2, 3))))
        turned = X.transpose(0, 1, 3, 2)
        assert_array_equal(extent(images.transpose(0, 1, 3, 2)), extent(turned))
    changing = np.load(tmp_path / "x.npy", mmap_mode="r+")
    changing[3, 1] = np.nan  # neither size nor time of the file may say so
    with extents_remembered():
        assert np.isnan(extent(images)).tolist() == 2 * [[False, True, False]]
        for value in range(5):  # maps that come to lie where another was
            np.save(tmp_path / "y.npy", np.full_like(X, value))
            assert extent(np.load(tmp_path / "y.npy", mmap_mode="r"))[1].tolist() == [value] * 3
    assert np.isnan(extent(images)).tolist() == 2 * [[False, True, False]]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "0 samples"),
        ([("picture", 1)], "Got str at index 0.*ToTensor"),
        ([(np.ones(3), 0), ("picture", 1)], "Got str at index 1.*ToTensor"),
        ([(np.array(["a"]), 0)], "arrays of numbers as inputs. Got <U1 at index 0"),
        ([(np.ones(3), 0), (np.ones(4), 1)], r"Got float64 \(4,\) at index 1, but float64 \(3,\)"),
        ([(np.ones(3), 0), (np.ones(3, int), 1)], r"Got int64 \(3,\) at index 1, but float64"),
    ],
)
def test_torch_datasets_that_are_refused(items, message):
    with pytest.raises(ValueError, match=message):
        DatasetArray(Items(*items))[:]


def test_dtypes_of_dataset_items():
    for item, dtype in [
        (X[0], np.float32), ((255 * X[0]).astype(np.uint8), np.uint8),
        (np.arange(4, dtype=np.uint8), np.float32), (np.arange(4), np.float32),
        (np.ones(3, bool), np.float32),
    ]:  # fmt: skip
        for wrapped in ((item, 0), item, (torch.from_numpy(item),)):
            rows = DatasetArray(Items(wrapped, wrapped))
            assert rows.dtype == dtype
            assert_array_equal(rows[:], np.stack([item, item]))


@pytest.mark.parametrize("kind", lazies(X))
def test_checks_of_lazy_arrays(kind):
    estimator = BaseEstimator()
    assert_array_equal(check_inputs(estimator, lazies(X)[kind], reset=True)[:], X)
    assert estimator.input_shape_ == (3, 4, 5) and not hasattr(estimator, "n_features_in_")
    table = X.reshape(11, 60)
    assert_array_equal(check_inputs(estimator, lazies(table)[kind], reset=True)[:], table)
    assert estimator.input_shape_ == (60,) and estimator.n_features_in_ == 60
    for bad, message in [
        (np.where(X > 0.9, np.nan, X), "contains NaN"),
        (np.where(X > 0.9, np.inf, X), "contains infinity"),
        (X * 3, r"Expected values in \[0, 1\], got a minimum of"),
        (X[:, 0], "add the channel axis"),
        (X.transpose(0, 3, 2, 1), "channels last"),
    ]:
        with pytest.raises(ValueError, match=message):
            check_inputs(BaseEstimator(), lazies(bad.astype(np.float32))[kind], reset=True)
    with pytest.raises(ValueError, match="expecting 60 features"):
        check_inputs(estimator, lazies(table[:, :5].copy())[kind])


def test_values_too_large_for_float32(tmp_path):
    np.save(tmp_path / "x.npy", np.full((2, 3), 1e300))
    with pytest.raises(ValueError, match="too large for dtype"):
        check_inputs(BaseEstimator(), np.load(tmp_path / "x.npy", mmap_mode="r"), reset=True)


@given(
    rows=st.lists(st.integers(-14, 14), max_size=6),
    dtype=st.sampled_from(["i1", "i8", "u2", "bool"]),
    n=st.sampled_from([1, 11, 300]),
)
def test_positions_are_those_of_numpy(rows, dtype, n):
    rows = np.array(rows).astype(dtype) if dtype != "u2" else np.abs(rows).astype(dtype)
    try:
        expected = np.arange(n)[rows]
    except IndexError:
        with pytest.raises(IndexError):
            positions(rows, n)
    else:
        assert_array_equal(positions(rows, n), expected)


def test_a_few_rows_of_many_are_found_without_a_list_of_all(monkeypatch):
    many = lazy(np.lib.stride_tricks.as_strided(np.ones(1), (10**12, 2), (0, 0)))
    assert_array_equal(CastArray(many)[[3, -1]], np.ones((2, 2)))

"""Arrays whose rows are read when they are asked for, so that data may be larger than memory."""

import contextlib
from abc import ABC, abstractmethod
from contextvars import ContextVar
from functools import cached_property
from numbers import Integral

import numpy as np
from skorch.helper import SliceDataset
from torch.utils.data import Dataset

from advfeat.utils._arrays import as_array, positions, row_slices
from advfeat.utils._errors import first_line

_CHUNK = 2**23  # bytes that checks hold at a time
_known_extents: ContextVar[dict | None] = ContextVar("extents", default=None)


class LazyArray(ABC):
    """What batches are cut from in place of an ndarray: shape, dtype, length and indexing by rows.

    Indexing by a slice, an index array or a mask gives an ndarray of these rows, by an integer one
    row. ``numpy.asarray`` reads everything.

    Parameters
    ----------
    shape : tuple
    dtype : dtype
    """

    def __init__(self, shape, dtype):
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)

    @abstractmethod
    def _read(self, rows):
        """Return the rows of a slice or of an array of non-negative positions."""

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        if isinstance(rows, tuple):
            first, rest = rows[0], rows[1:]
            if rest in ((), (Ellipsis,)):
                return self[first]
            one = not isinstance(first, slice) and np.ndim(first) == 0  # its axis is gone
            return self[first][rest if one else (slice(None), *rest)]
        if isinstance(rows, slice):
            return self._read(rows)
        if isinstance(rows, Integral) and not isinstance(rows, bool):  # the most usual case
            if not -len(self) <= rows < len(self):
                raise IndexError(f"index {rows} is out of bounds for {len(self)} rows")
            return self._read(np.array([rows % len(self)]))[0]
        rows = np.asarray(rows)
        if rows.shape == (0,):  # that of an empty list is float64
            rows = rows.astype(np.intp)
        picked = positions(rows, len(self))
        return self._read(picked) if picked.ndim else self._read(picked[None])[0]

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype=None, copy=None):
        if copy is False:
            raise ValueError("The rows of a lazy array are read, so they are always a copy.")
        return np.asarray(self[:], dtype=dtype)

    def __repr__(self):
        return f"{type(self).__name__}(shape={self.shape}, dtype={self.dtype})"

    def __getattr__(self, name):
        if name.startswith("_") or not hasattr(np.ndarray, name):
            return super().__getattribute__(name)  # which raises, also a property's own error
        raise AttributeError(
            f"{type(self).__name__} has no '{name}': it reads its rows only when they are asked "
            f"for. Use numpy.asarray(X).{name}, which reads all of them, or the same of a part, "
            "such as X[:1000]."
        )

    def held(self, n):
        """Return the first n rows in the dtype in which they are held."""
        return self[:n]

    def astype(self, dtype, copy=True):
        """Return the same rows in another dtype, as lazily as these."""
        return self if dtype == self.dtype else CastArray(self, dtype)

    @property
    def ndim(self):
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self):
        """Number of values."""
        return int(np.prod(self.shape))

    @property
    def nbytes(self):
        """Bytes that all rows take in memory."""
        return self.size * self.dtype.itemsize

    @cached_property
    def extent(self):
        """Smallest and largest value of each channel or feature, found in one pass."""
        return _extent(self)


class CastArray(LazyArray):
    """Rows of an array, such as a memory map, in another dtype.

    Parameters
    ----------
    X : array-like that is cut by slices and index arrays
    dtype : dtype, default=float32
    """

    def __init__(self, X, dtype=np.float32):
        super().__init__(X.shape, dtype)
        self.X = X
        self.held_dtype = X.dtype

    def held(self, n):
        """Return the first n rows in the dtype in which they are held."""
        return self.X[:n]

    def _read(self, rows):
        with np.errstate(over="ignore"):  # infinity is found by the checks
            return np.asarray(self.X[rows], dtype=self.dtype)


class ChannelsFirst(LazyArray):
    """Images of shape (n, H, W, C) as images of shape (n, C, H, W).

    Parameters
    ----------
    X : LazyArray
    """

    def __init__(self, X):
        n, height, width, depth = X.shape
        super().__init__((n, depth, height, width), X.dtype)
        self.X = X

    def _read(self, rows):
        return self.X[rows].transpose(0, 3, 1, 2)


class SelectedRows(LazyArray):
    """Some rows of an array, looked up when they are read.

    Parameters
    ----------
    X : ndarray, memory map or LazyArray
    index : array of int or bool
    """

    def __init__(self, X, index):
        self.X = X
        self.index = np.arange(len(X))[index]
        super().__init__((len(self.index), *X.shape[1:]), X.dtype)

    def _read(self, rows):
        return np.asarray(self.X[self.index[rows]])


class DatasetArray(LazyArray):
    """Inputs of a map-style torch Dataset, read item by item when they are asked for.

    uint8 images stay uint8; everything else becomes float32.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        Of tensors or arrays, or of tuples that begin with one.

    Raises
    ------
    ValueError
        If there are no items or their inputs are no arrays; when rows are read, if an input has
        another shape or dtype than the first.
    """

    def __init__(self, dataset):
        if len(dataset) == 0:
            raise ValueError(
                "Found a torch Dataset with 0 samples while a minimum of 1 is required."
            )
        self.dataset = dataset
        first = _input(item_of(dataset, 0), 0)
        self.held_dtype = first.dtype
        image = first.ndim == 3 and first.dtype == np.uint8
        super().__init__((len(dataset), *first.shape), np.uint8 if image else np.float32)

    def held(self, n):
        """Return the first n inputs in the dtype in which they are held."""
        return self._cast(slice(0, n), self.held_dtype)

    def _read(self, rows):
        return self._cast(rows, self.dtype)

    def _cast(self, rows, dtype):
        rows = range(len(self))[rows] if isinstance(rows, slice) else rows.tolist()
        found = np.empty((len(rows), *self.shape[1:]), dtype)
        for k, (i, item) in enumerate(zip(rows, self._items(list(rows)), strict=True)):
            value = _input(item, i)
            if value.shape != self.shape[1:] or value.dtype != self.held_dtype:
                raise ValueError(
                    "All inputs of a torch Dataset must have one shape and dtype. Got "
                    f"{value.dtype} {value.shape} at index {i}, but {self.held_dtype} "
                    f"{self.shape[1:]} at index 0."
                )
            found[k] = value
        return found

    def _items(self, rows):
        if not rows:
            return ()
        if callable(getattr(self.dataset, "__getitems__", None)):
            items = list(self.dataset.__getitems__(rows))
            if len(items) == len(rows):
                return items
            raise ValueError(
                f"__getitems__ of {type(self.dataset).__name__} gave {len(items)} items for "
                f"{len(rows)} indices."
            )
        return (item_of(self.dataset, i) for i in rows)


class _Items(Dataset):
    """Inputs of a `skorch.helper.SliceDataset`, which is no Dataset itself."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def item_of(dataset, i):
    """Item of a Dataset, or a ValueError: it may have fewer than its length promises."""
    try:
        return dataset[i]
    except IndexError as error:
        name = type(dataset.items if isinstance(dataset, _Items) else dataset).__name__
        raise ValueError(
            f"Item {i} of the {name}, whose length is {len(dataset)}, cannot be had (IndexError: "
            f"{first_line(error)})."
        ) from error


def lazy(X):
    """Return data that should not be read whole as a lazy array, all other as they are.

    That is a torch Dataset, skorch's slice of one, a memory map that is neither float32 nor uint8
    images, and an array of float16.
    """
    if isinstance(X, SliceDataset):
        return DatasetArray(_Items(X))
    # A set that refuses to be an array, because it carries its own labels, must go on refusing.
    if isinstance(X, Dataset) and not hasattr(type(X), "__array__"):
        return DatasetArray(X)
    if not isinstance(X, np.ndarray) or X.ndim not in (2, 4) or X.dtype.kind not in "buif":
        return X
    kept = X.dtype == np.float32 or (X.dtype == np.uint8 and X.ndim == 4)
    if X.dtype == np.float16 or (isinstance(X, np.memmap) and not kept):
        return CastArray(X)
    return X


def select_rows(X, index):
    """Rows of X by an index array or a mask: read at once if X is in memory, else lazily."""
    if isinstance(X, (LazyArray, np.memmap)):
        return SelectedRows(X, index)
    return X[index]


def held_dtype(X):
    """Dtype before it was made float32; None for frames, of which one may be a column's name."""
    if isinstance(X, LazyArray):
        return getattr(X, "held_dtype", X.dtype)
    dtype = getattr(X, "dtype", None)
    return dtype if isinstance(dtype, np.dtype) else None


def extent(X):
    """Smallest and largest value of each channel or feature; NaN stays NaN.

    Rows are read in chunks; a lazy array remembers what was found. So do memory maps inside
    `extents_remembered`.

    Returns
    -------
    low, high : ndarray of shape (C,) or (d,)
    """
    if isinstance(X, LazyArray):
        return X.extent
    known = _known_extents.get()
    if known is None or not isinstance(X, np.memmap):
        return _extent(X)
    key = X.ctypes.data, X.shape, X.strides, X.dtype.str
    if key not in known:  # with the map itself: another could come to lie where it was
        known[key] = X, _extent(X)
    return known[key][1]


@contextlib.contextmanager
def extents_remembered():
    """Read a memory map once inside the block, which ends with the call that was given the map.

    Later its file may be another: neither its size nor its time says so.
    """
    token = _known_extents.set({})
    try:
        yield
    finally:
        _known_extents.reset(token)


def _extent(X):
    axes = (0, *range(2, X.ndim))

    def ends(part):  # a function, so that no chunk is held while the next is read
        return part.min(axes), part.max(axes)

    found = [ends(X[rows]) for rows in row_slices(X, _CHUNK)]
    low, high = zip(*found, strict=True)
    return np.min(low, axis=0), np.max(high, axis=0)


def _input(item, i):
    """Return the input of an item as an array."""
    value = item[0] if isinstance(item, (tuple, list)) and len(item) else item
    value = as_array(value)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "buif":
        kind = getattr(value, "dtype", None) or type(value).__name__
        raise ValueError(
            f"A torch Dataset given as X must yield tensors or arrays of numbers as inputs. Got "
            f"{kind} at index {i} instead; for images use torchvision.transforms.ToTensor() "
            "(float) or PILToTensor() (uint8)."
        )
    return value

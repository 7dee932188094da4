"""What holds samples, and what is refused as such."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from sklearn.utils import _safe_indexing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from advfeat import (
    ConstructedDataset,
)

polars = pytest.importorskip("polars")
N, CLASSES = 12, ["a", "b", "c"]
SHAPES = {"images": (2, 3, 4), "table": (5,)}


def sample(kind):
    """X, of values that float16 and bfloat16 hold exactly, and y."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 9, size=(N, *SHAPES[kind])) / np.float32(8)
    return X.astype(np.float32), np.array(CLASSES)[np.arange(N) % 3]


class Items(Dataset):
    """A map-style data set as users write them."""

    def __init__(self, X, y):
        self.X, self.y = X, y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i], self.y[i]


class Foreign:
    """Data on disk as h5py gives them: no array, and rows only in increasing order."""

    def __init__(self, X):
        self._X, self.shape, self.dtype = X, X.shape, X.dtype

    def __len__(self):
        return len(self._X)

    def __getitem__(self, rows):
        if isinstance(rows, np.ndarray) and np.any(np.diff(rows) <= 0):
            raise TypeError("Indexing elements must be in increasing order")
        return self._X[rows]

    def __array__(self, dtype=None, copy=None):
        return np.array(self._X, dtype=dtype)


def on_disk(X, folder):
    np.save(folder / "X.npy", X)
    return np.load(folder / "X.npy", mmap_mode="r")


HOLDERS = {
    "list": lambda X, y, folder: (X.tolist(), list(y)),
    "list of arrays": lambda X, y, folder: (list(X), tuple(y)),
    "float64": lambda X, y, folder: (X.astype(float), y.astype(object)),
    "float16": lambda X, y, folder: (X.astype(np.float16), pd.Series(y)),
    "strided": lambda X, y, folder: (np.repeat(X, 2, axis=0)[::2], y),
    "big-endian": lambda X, y, folder: (X.astype(">f4"), y),
    "tensor": lambda X, y, folder: (torch.from_numpy(X), pd.Series(y, dtype="category")),
    "list of tensors": lambda X, y, folder: (list(torch.from_numpy(X)), y),
    "bfloat16": lambda X, y, folder: (torch.from_numpy(X).bfloat16(), polars.Series(y)),
    "half": lambda X, y, folder: (torch.from_numpy(X).half(), y),
    "with gradient": lambda X, y, folder: (torch.from_numpy(X).requires_grad_(), y),
    "memory map": lambda X, y, folder: (on_disk(X, folder), y),
    "memory map of float64": lambda X, y, folder: (on_disk(X.astype(float), folder), y),
    "memory map of float16": lambda X, y, folder: (on_disk(X.astype(np.float16), folder), y),
    "of another library": lambda X, y, folder: (Foreign(X), Foreign(y)),
    "half, of another library": lambda X, y, folder: (Foreign(X.astype(np.float16)), y),
    "Dataset": lambda X, y, folder: (Items(X, y), None),
    "Dataset of tensors": lambda X, y, folder: (Items(torch.from_numpy(X).bfloat16(), y), None),
    "Subset": lambda X, y, folder: (Subset(Items(X[::-1], y[::-1]), range(N)[::-1]), None),
    "ConstructedDataset": lambda X, y, folder: (ConstructedDataset(X, y, y, CLASSES), y),
    "ConstructedDataset alone": lambda X, y, folder: (ConstructedDataset(X, y, y, CLASSES), None),
}
FRAMES = {
    "pandas": lambda X, y, folder: (pd.DataFrame(X), pd.DataFrame({"label": y}).label),
    "polars": lambda X, y, folder: (polars.DataFrame(X, orient="row"), polars.Series(y)),
}


class Stream(IterableDataset):
    def __iter__(self):
        yield torch.zeros(5), 0


def spoiled(X, value):
    X = X.astype(type(value) if isinstance(value, complex) else X.dtype)
    X[3].flat[0] = value
    return X


def ragged(X, y):
    return Items([*X[:-1], X[-1][..., :-1]], y)


REFUSED = {
    "DataLoader": (lambda X, y: DataLoader(TensorDataset(torch.from_numpy(X))), "loader.dataset"),
    "IterableDataset": (lambda X, y: Stream(), "map-style"),
    "no items": (lambda X, y: Items([], []), "0 samples"),
    "items of other shapes": (lambda X, y: ragged(X, y), "one shape"),
    "items that are pictures": (lambda X, y: Items(list("abc"), y[:3]), "tensors or arrays"),
    "sparse": (lambda X, y: scipy.sparse.csr_array(X.reshape(N, -1)), "[Ss]parse.*dense"),
    "sparse tensor": (lambda X, y: torch.from_numpy(X).to_sparse(), "[Ss]parse.*to_dense"),
    "jagged tensor": (
        lambda X, y: torch.nested.nested_tensor(
            [*torch.from_numpy(X).reshape(N, -1)], layout=torch.jagged
        ),
        "nested.*padded",
    ),
    "tensor without data": (lambda X, y: torch.from_numpy(X).to("meta"), "a meta tensor"),
    "fake tensor": (lambda X, y: FakeTensorMode().from_tensor(torch.from_numpy(X)), "FakeTensor"),
    "3 axes": (lambda X, y: X.reshape(N, 1, -1), r"\(n, d\) or \(n, C, H, W\)"),
    "5 axes": (lambda X, y: X.reshape(N, 1, 1, 1, -1), r"\(n, d\) or \(n, C, H, W\)"),
    "1 axis": (lambda X, y: X.reshape(-1), r"\(n, d\) or \(n, C, H, W\)|2D array"),
    "objects": (lambda X, y: np.full(X.shape, {}, object), "numbers|float"),
    "text": (lambda X, y: np.full(X.shape, "x"), "numbers|float"),
    "complex": (lambda X, y: spoiled(X, 1j), "[Cc]omplex"),
    "complex tensor": (lambda X, y: torch.from_numpy(X) * 1j, "[Cc]omplex"),
    "NaN": (lambda X, y: spoiled(X, np.nan), "NaN"),
    "NaN in a list": (lambda X, y: spoiled(X, np.nan).tolist(), "NaN"),
    "NaN in a tensor": (lambda X, y: torch.from_numpy(spoiled(X, np.nan)), "NaN"),
    "NaN in a Dataset": (lambda X, y: Items(spoiled(X, np.nan), y), "NaN"),
    "infinity": (lambda X, y: spoiled(X, np.inf), "infinity"),
    "too large": (lambda X, y: spoiled(X.astype(float), 1e39), "infinity|too large"),
    "no samples": (lambda X, y: X[:0], r"0 sample\(s\)"),
    "None": (lambda X, y: None, "Got NoneType|Got None"),
    "a dict": (lambda X, y: {"X": X}, "Got dict"),
    "a string": (lambda X, y: "X.npy", "Got str"),
    "a generator": (lambda X, y: (x for x in X), "Got generator"),
    "items cut by scikit-learn": (
        lambda X, y: _safe_indexing(Items(X, y), np.arange(N)),
        "inputs and labels apart",
    ),
    "tensors cut by scikit-learn": (
        lambda X, y: [*TensorDataset(torch.from_numpy(X), torch.zeros(N))],
        "inputs and labels apart",
    ),
    "ragged lists": (lambda X, y: [*X[:-1].tolist(), X[-1].tolist()[:-1]], "one shape"),
    "another shape": (lambda X, y: X[..., :-1], "features|samples of shape"),
}


def labels_for(X, y):
    return None if isinstance(X, Dataset) else y

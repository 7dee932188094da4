"""ConstructedDataset: a training set whose labels were changed together with its inputs."""

import os
from mmap import mmap
from multiprocessing.context import get_spawning_popen
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch.utils.data import Dataset

from advfeat.datasets._npz import load_arrays, save_arrays
from advfeat.utils._arrays import as_array, as_floats, positions
from advfeat.utils._frames import as_frame
from advfeat.utils._labels import check_kind, ravel_column
from advfeat.utils._lazy import LazyArray, select_rows
from advfeat.utils._typing import PathOrStr
from advfeat.utils._units import images_in_units

_REFUSAL = (
    "A ConstructedDataset carries its own labels; end the pipeline with an advfeat or skorch "
    "classifier. For any other estimator use the arrays data.X and data.y."
)


class ConstructedDataset(Dataset):
    """Inputs and the labels that belong to them, as a map-style torch Dataset.

    scikit-learn's Pipeline hands the original y to its last step. A set whose labels were changed
    must therefore carry them itself. advfeat's classifiers and skorch nets train on the labels it
    carries; every other estimator is refused, because it would silently learn the wrong ones.
    advfeat's classifiers do not predict it either (``predict(data.inputs)`` does), because whoever
    asks, such as a scorer behind a relabeler, would compare with the wrong ones.

    ``data[i]`` is a pair (input, label): a float32 tensor in input units, and the new label, never
    its position in ``classes``. A skorch net, or a loop of one's own over a DataLoader, takes
    label j for output j; batches of labels that are no numbers are refused. Slices, index arrays
    and masks (``data[:5]``), and with them ``train_test_split``, give ConstructedDatasets; memory
    maps are not read for that. Also torch's ``Subset``, ``random_split`` and ``ConcatDataset`` of
    constructed sets are trained on with the labels that they carry.

    Parameters
    ----------
    X : ndarray of shape (n, d) or (n, C, H, W), float32 or float16
        Or a memory map. What other libraries hold (h5py) is read whole.
    y : ndarray of shape (n,)
        The labels to train on.
    y_source : ndarray of shape (n,)
        The labels of the samples that X was made from.
    classes : ndarray of shape (n_classes,)
        All labels, sorted.
    feature_names : ndarray of shape (d,), default=None
        Names of the columns, if the set was made from a data frame.

    Attributes
    ----------
    X, y, y_source, classes, feature_names
        As in the parameters; labels and classes as arrays.
    inputs : ndarray or data frame
        X, as a data frame if there are feature names.

    Raises
    ------
    ValueError
        If lengths differ or a label is not among the classes.

    References
    ----------
    Ilyas et al. 2019, Section 3.2 (D_rand and D_det).

    Examples
    --------
    >>> import numpy as np
    >>> from advfeat import ConstructedDataset
    >>> X = np.zeros((3, 2), dtype=np.float32)
    >>> data = ConstructedDataset(X, ["b", "a", "b"], y_source=["a", "a", "b"], classes=["a", "b"])
    >>> len(data), data[0]
    (3, (tensor([0., 0.]), 'b'))
    >>> data[1:].y.tolist()
    ['a', 'b']
    """

    def __init__(
        self,
        X: Any,
        y: ArrayLike,
        y_source: ArrayLike,
        classes: ArrayLike,
        feature_names: ArrayLike | None = None,
    ) -> None:
        # Other libraries' arrays (h5py) do not give any rows in any order.
        self.X = X if isinstance(X, (np.ndarray, LazyArray)) else np.asarray(as_array(X))
        if self.X.dtype == object:  # of a frame of several types
            self.X = as_floats(self.X, "X")
        self.feature_names = feature_names
        self.y = ravel_column(np.asarray(as_array(y)))
        self.y_source = ravel_column(np.asarray(as_array(y_source)))
        self.classes = np.asarray(classes)
        if self.X.ndim == 0 or self.X.dtype.kind not in "biuf":
            raise ValueError(
                "X must be an array of numbers, with one row for each label. Got "
                f"{type(X).__name__} of {self.X.dtype}."
            )
        n = len(self.X)
        if not (n,) == self.y.shape == self.y_source.shape:
            raise ValueError(
                "X, y and y_source must have one length, and y and y_source one label per "
                f"sample: shape ({n},). Got y of shape {self.y.shape} and y_source of shape "
                f"{self.y_source.shape}."
            )
        if not np.array_equal(self.classes, np.unique(self.classes)):
            raise ValueError(f"classes must be sorted and without repeats. Got {self.classes}.")
        if feature_names is not None and self.X.shape[1:] != np.shape(feature_names):
            raise ValueError(
                f"feature_names must name each feature of X, of shape {self.X.shape}. Got names "
                f"of shape {np.shape(feature_names)}."
            )
        check_kind(self.y, self.classes)
        unknown = np.setdiff1d(self.y, self.classes)
        if len(unknown):
            raise ValueError(f"y contains labels that are not in classes: {unknown}.")

    def save(self, path: PathOrStr) -> None:
        """Keep the set in one ``.npz`` file, without pickles.

        Parameters
        ----------
        path : str or path-like
            The file. It appears whole or not at all; memory maps are copied piece by piece.

        Raises
        ------
        ValueError
            If the labels are neither numbers nor text.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np
        >>> from advfeat import ConstructedDataset
        >>> data = ConstructedDataset(np.zeros((2, 3), np.float32), [0, 1], [1, 0], [0, 1])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data.save(f"{folder}/d_det.npz")
        ...     again = ConstructedDataset.load(f"{folder}/d_det.npz")
        >>> again.y.tolist()
        [0, 1]
        """
        labels: dict = {"y": self.y, "y_source": self.y_source, "classes": self.classes}
        if self.feature_names is not None:
            labels["feature_names"] = self.feature_names
        save_arrays(path, X=self.X, **{k: storable_labels(v) for k, v in labels.items()})

    @classmethod
    def load(cls, path: PathOrStr) -> "ConstructedDataset":
        """Read a set that `save` kept, or the ``store`` of a finished `NonRobustRelabeler`.

        Parameters
        ----------
        path : str or path-like
            The file, or the folder of the store, whose X then is a read-only memory map.

        Returns
        -------
        ConstructedDataset

        Raises
        ------
        FileNotFoundError
            If there is nothing of this name.
        ValueError
            If it is something else, damaged, or an unfinished store.
        """
        names = ("X", "y", "y_source", "classes")
        arrays = load_arrays(path, names, optional=("feature_names",))
        try:
            return cls(**arrays)
        except (ValueError, TypeError) as error:
            raise ValueError(f"'{path}' holds no constructed set: {error}") from error

    @property
    def inputs(self):  # noqa: D102, see the Attributes of the class
        return self.X if self.feature_names is None else as_frame(self.X, self.feature_names)

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        if isinstance(i, tuple) and len(i) == 2 and i[1] is Ellipsis:
            i = i[0]  # scikit-learn takes rows of arrays like that
        if isinstance(i, torch.Tensor):
            i = i.cpu().numpy()
        if isinstance(i, Integral) or (isinstance(i, np.ndarray) and i.ndim == 0):
            return self._items([i])[0]
        if not isinstance(i, slice):
            rows = np.asarray(None if isinstance(i, tuple) else i)
            if rows.size == 0:
                rows = rows.astype(np.intp)
            if rows.ndim != 1 or rows.dtype.kind not in "biu":
                raise IndexError(
                    "A ConstructedDataset is indexed by an integer, a slice, a list of integers "
                    f"or a mask. Got {i!r}."
                )
            i = positions(rows, len(self))
        cut = isinstance(i, slice) and not isinstance(self.X, LazyArray)
        X = self.X[i] if cut else select_rows(self.X, i)
        return type(self)(X, self.y[i], self.y_source[i], self.classes, self.feature_names)

    def __getitems__(self, rows):
        """Items of a batch, as torch's DataLoader asks for them."""
        if np.asarray(self.classes[:1].tolist()).dtype.kind not in "biuf":
            raise ValueError(
                "A batch of torch holds numbers, but the labels of this ConstructedDataset are "
                f"{', '.join(map(repr, self.classes[:2].tolist()))}, ... Train an advfeat "
                "classifier, which encodes them, or encode them before the relabeler (sklearn's "
                "LabelEncoder)."
            )
        return self._items(rows)

    def _items(self, rows):
        rows = positions(rows, len(self))
        inputs = images_in_units(np.asarray(self.X[rows]))
        inputs = torch.from_numpy(np.array(inputs, dtype=np.float32))
        names = np.asarray(self.classes.tolist())
        # Also 0.0, 1.0, ...: torch's losses take classes as integers.
        whole = names.dtype.kind == "f" and bool((names == np.floor(names)).all())
        labels = [carry(self.y[row], self.y_source[row], whole) for row in rows]
        return list(zip(inputs, labels, strict=True))

    def __getstate__(self):
        state = dict(vars(self))
        if get_spawning_popen() is not None and _maps_a_file(self.X):
            state["X"] = _AtPath(self.X)  # workers of a DataLoader need not get what they can read
        return state

    def __repr__(self):
        moved = np.mean(self.y != self.y_source) if len(self) else 0.0
        return (
            f"ConstructedDataset(n={len(self)}, sample shape={tuple(self.X.shape[1:])}, "
            f"n_classes={len(self.classes)}, relabelled={moved:.1%})"
        )

    @property
    def shape(self):
        """For splitting, and for skorch's callbacks; the rest is refused, see the class."""
        return _Shape(self.X.shape)

    def __array__(self, dtype=None, copy=None):
        raise ValueError(_REFUSAL)


def _maps_a_file(X):
    """Whether an array is what `numpy.memmap` gave for a file that is there, to be read only."""
    whole = type(X) is np.memmap and X.mode == "r" and isinstance(X.base, mmap)
    return whole and X.filename is not None and os.path.exists(X.filename)


class _AtPath:
    """A memory map that is opened again where it is unpickled."""

    def __init__(self, X):
        self.X = X

    def __reduce__(self):
        order = "C" if self.X.flags.c_contiguous else "F"
        place = self.X.filename, self.X.dtype, "r", self.X.offset, self.X.shape, order
        return np.memmap, place


class CarriedLabel:
    """A label that knows what its input was made from, so that wrapped sets keep both.

    Attributes
    ----------
    label, source : label
        As they were, whatever their type; the label of the sample which the input was made from.
    """

    def __new__(cls, label, source):
        self = super().__new__(cls, label)
        self.label, self.source = label, source
        return self

    def __getnewargs__(self):
        return self.label, self.source


class _CarriedInteger(CarriedLabel, int):
    pass


class _CarriedFloat(CarriedLabel, float):
    pass


class _CarriedText(CarriedLabel, str):
    pass


_CARRIED = {"b": _CarriedInteger, "i": _CarriedInteger, "u": _CarriedInteger, "f": _CarriedFloat}


def carry(label, source, whole=False):
    """Make the label of an item: a number, an integer if it is ``whole``, or text."""
    kind = "i" if whole else np.asarray(label).dtype.kind
    return _CARRIED.get(kind, _CarriedText)(label, source)


class _Shape:
    """A shape of which the number of features may be asked as the last entry alone.

    scikit-learn asks for the second, to train on X with other labels.
    """

    def __init__(self, shape):
        self._shape = shape

    def __len__(self):
        return len(self._shape)

    def __getitem__(self, i):
        if isinstance(i, Integral) and i in (0, -1):
            return self._shape[i]
        # Not a TypeError or an AttributeError: scikit-learn takes those for a hint to go on.
        raise ValueError(_REFUSAL)

    def __iter__(self):
        raise ValueError(_REFUSAL)


def storable_labels(labels):
    """Labels as an array that can be kept without pickles.

    Raises
    ------
    ValueError
        If they are neither numbers nor text.
    """
    labels = np.asarray(labels)
    if labels.dtype.kind == "O":
        labels = np.array(labels.tolist())
    if labels.dtype.kind not in "biufSUM":
        raise ValueError(
            f"Labels must be numbers or text to be kept in a file. Got {labels.dtype} labels."
        )
    return labels

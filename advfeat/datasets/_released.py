"""The form in which the authors released their constructed sets: a folder of two torch files."""

import contextlib
import os
import zipfile
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch.utils.data import Dataset

from advfeat.datasets._bunch import as_bunch
from advfeat.datasets._torch_data import classes_of, split_dataset
from advfeat.utils._arrays import as_array
from advfeat.utils._errors import first_line
from advfeat.utils._files import Lock, resolve_folder, resolve_path, writing
from advfeat.utils._lazy import lazy
from advfeat.utils._sklearn import validate_params
from advfeat.utils._typing import Inputs, PathOrStr

_IMAGES, _LABELS = "CIFAR_ims", "CIFAR_lab"
_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_MOST = 10**6  # classes
_SLACK = 1e-3  # of rounding outside [0, 1]
_BLOCK = 1000  # images in each tensor of a written file


@validate_params(
    {"folder": [str, os.PathLike], "return_X_y": ["boolean"]}, prefer_skip_nested_validation=True
)
def load_released_set(folder: PathOrStr, *, return_X_y: bool = False) -> Any:
    """Read one of the sets that Ilyas et al. released, or one that `dump_released_set` wrote.

    The release (github.com/MadryLab/constructed-datasets) has the folders ``robust_CIFAR``
    (D_R), ``non_robust_CIFAR`` (D_NR), ``drand_CIFAR`` (D_rand) and ``ddet_CIFAR`` (D_det).
    Nothing in the files is executed.

    Parameters
    ----------
    folder : str or path-like
        One of these folders: it holds ``CIFAR_ims`` and ``CIFAR_lab``, torch files of a tensor or
        of a list of tensors.
    return_X_y : bool, default=False
        If true, return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        - data : ndarray of shape (n, C, H, W), float32, or uint8 if kept so
        - target : ndarray of shape (n,), int64
        - target_names : ndarray of shape (n_classes,), "airplane" to "truck" for ten classes
    (data, target) : tuple if ``return_X_y`` is true

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is damaged or holds something else. Files in torch's oldest format have no
        checksum, so that wrong numbers in them are not found.

    Examples
    --------
    >>> import tempfile
    >>> from advfeat.datasets import dump_released_set, load_digits, load_released_set
    >>> X, y = load_digits(split="test", return_X_y=True)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     dump_released_set(X, y, f"{folder}/robust_digits")
    ...     data = load_released_set(f"{folder}/robust_digits")
    >>> data.data.shape, data.target.dtype.name
    ((450, 1, 8, 8), 'int64')
    """
    folder = resolve_path(folder, "folder")
    X = _read(folder / _IMAGES)
    y = _read(folder / _LABELS)
    whole = X.ndim == 4 and X.size and y.shape == X.shape[:1] and y.dtype.kind in "iu"
    if not whole or not 0 <= y.min() <= y.max() < _MOST:
        raise ValueError(
            f"Expected images of shape (n, C, H, W) and n labels that are whole numbers in "
            f"0..{_MOST - 1} in '{folder}', got {X.dtype} {X.shape} and {y.dtype} {y.shape}"
            + (f" from {y.min()} to {y.max()}." if y.size else ".")
        )
    if X.dtype != np.uint8:
        if X.dtype.kind != "f":
            raise ValueError(f"Expected images of floats or uint8 in '{folder}', got {X.dtype}.")
        X = X.astype(np.float32, copy=False)
        _check_range(X.dtype, X.min(), X.max())
    n_classes = int(y.max()) + 1
    names = _CLASSES if n_classes == len(_CLASSES) else np.arange(n_classes)
    return as_bunch(X, y, names, return_X_y=return_X_y)


def dump_released_set(X: Inputs, y: ArrayLike, folder: PathOrStr) -> None:
    """Write a set in the form of the authors' release, for their code and that of others.

    ``torch.cat(torch.load(f"{folder}/CIFAR_ims"))`` reads it, as in their example.

    Parameters
    ----------
    X : array-like of shape (n, C, H, W), ConstructedDataset or torch Dataset
        Images in [0, 1] (written as float32), or uint8 in 0..255. All are in memory while they
        are written.
    y : array-like of shape (n,) or None
        Whole numbers from 0 on; None for a Dataset. Of the labels of a `ConstructedDataset` the
        positions in ``classes`` are written.
    folder : str or path-like
        Made if missing.

    Raises
    ------
    ValueError
        For other shapes, values or labels. Nothing is written then.
    FileExistsError
        If the folder holds such a set already, or another process is writing one there.

    Examples
    --------
    >>> import os
    >>> import tempfile
    >>> from advfeat.datasets import dump_released_set, load_digits
    >>> X, y = load_digits(split="test", return_X_y=True)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     dump_released_set(X, y, f"{folder}/robust_digits")
    ...     sorted(os.listdir(f"{folder}/robust_digits"))
    ['CIFAR_ims', 'CIFAR_lab']
    """
    if isinstance(X, Dataset):
        if y is not None:
            raise ValueError(f"A {type(X).__name__} carries its own labels, so y must be None.")
        data, (X, y, source) = X, split_dataset(X)
        y = y if source is None else np.searchsorted(classes_of(data, y), y)
    X = lazy(as_array(X if hasattr(X, "shape") else np.asarray(X)))
    y = np.asarray(as_array(y))
    whole = (
        len(X.shape) == 4 and 0 not in X.shape and y.shape == (len(X),) and y.dtype.kind in "iu"
    )
    if not whole or y.min() < 0:
        raise ValueError(
            "Expected images of shape (n, C, H, W) and n labels that are whole numbers from 0 on. "
            f"Got images of shape {tuple(X.shape)} and {y.dtype} labels of shape {y.shape}; for "
            "labels of other kinds write their positions, numpy.unique(y, return_inverse=True)[1]."
        )
    if X.shape[1] > 4 >= X.shape[3]:
        raise ValueError(
            f"Expected images of shape (n, C, H, W), got {tuple(X.shape)}, which looks like NHWC "
            "(channels last). Use X.transpose(0, 3, 1, 2)."
        )
    folder = resolve_folder(folder, "folder")
    cuts = [slice(i, i + _BLOCK) for i in range(0, len(X), _BLOCK)]
    dtype = np.uint8 if X.dtype == np.uint8 else np.float32
    images = [torch.from_numpy(np.array(X[cut], dtype=dtype)) for cut in cuts]
    if dtype != np.uint8:
        low, high = (min(float(x.min()) for x in images), max(float(x.max()) for x in images))
        _check_range(X.dtype, low, high)
    labels = [torch.from_numpy(y[cut].astype(np.int64)) for cut in cuts]
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder), writing(folder / _IMAGES) as last, writing(folder / _LABELS) as first:
        _save(images, last)  # they appear after the labels, and say that the set is whole
        _save(labels, first)


@contextlib.contextmanager
def _alone(folder):
    """Let one process write into the folder, if there are no images yet."""
    lock = Lock(folder / ".lock")
    mine = lock.acquire()
    try:
        if not mine:
            raise FileExistsError(f"Another process is writing a set into '{folder}'.")
        if (folder / _IMAGES).exists():
            raise FileExistsError(f"'{folder / _IMAGES}' exists. Choose another folder.")
        yield
    finally:
        if mine:
            with contextlib.suppress(OSError):  # Windows keeps what is open
                lock.path.unlink()
            lock.release()


def _save(tensors, file):
    try:
        torch.save(tensors, file)
    except RuntimeError as error:  # what torch makes of a full disk
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise


def _check_range(dtype, low, high):
    if not -_SLACK <= low <= high <= 1 + _SLACK:
        raise ValueError(
            f"Expected images in [0, 1], or uint8 in 0..255. Got {dtype} from {low:g} to {high:g}."
        )


def _read(path):
    """Read a torch file of a tensor or of a list of tensors as an array."""
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected the torch file '{path}', found nothing of that name. Pass a folder such as "
            "robust_CIFAR of the authors' release."
        )
    try:
        # torch does not compare the checksums; the oldest of its formats has none.
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                bad = archive.testzip()
            if bad:
                raise ValueError(f"{bad} does not have its checksum")
        found = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # what damaged bytes make of torch's reader is of any kind
        # torch's advice on what to trust spans lines and is coloured.
        reason = type(error).__name__ if "\x1b" in str(error) else first_line(error)
        raise ValueError(
            f"'{path}' is damaged, or holds more than tensors, which is not loaded ({reason})."
        ) from error
    parts = [found] if isinstance(found, torch.Tensor) else found
    if not (isinstance(parts, (list, tuple)) and parts) or not all(
        isinstance(part, torch.Tensor) for part in parts
    ):
        raise ValueError(
            f"Expected a tensor or a list of tensors in '{path}', got {type(found).__name__}."
        )
    try:
        whole = parts[0] if len(parts) == 1 else torch.cat(list(parts))
    except RuntimeError as error:
        raise ValueError(f"The tensors in '{path}' do not fit together: {error}") from error
    return as_array(whole)

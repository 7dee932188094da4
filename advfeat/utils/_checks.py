"""Input checks shared by every public class and function.

Data stay NumPy arrays (or memory maps) until a batch is cut from them: float32, or uint8 for
images in 0..255, which are scaled to [0, 1] batch by batch.
"""

import datetime
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data
from torch.utils.data import DataLoader, Dataset, IterableDataset

from advfeat.utils._arrays import as_array, from_list
from advfeat.utils._bounds import is_unit_box, resolve_bounds
from advfeat.utils._frames import library_of
from advfeat.utils._lazy import ChannelsFirst, LazyArray, extent, held_dtype, lazy
from advfeat.utils._rounding import warn_of_offset
from advfeat.utils._warnings import warn_caller

_TOLERANCE = 1e-5  # rounding in upstream pipelines leaves values such as -3e-8
_CHANNELS = (1, 2, 3, 4)
_TIMES = (np.datetime64, np.timedelta64, datetime.date, datetime.time, datetime.timedelta)
_NESTED = (
    "Expected an X of numbers, got entries that are arrays or lists themselves, such as a column "
    "of images. Use numpy.stack on that column."
)
CHANNELS = ("auto", "first", "last")


def check_inputs(estimator, X, *, reset=False, bounds="auto", channels="auto"):
    """Check X and return it as a float32 or uint8 array of shape (n, d) or (n, C, H, W).

    Parameters
    ----------
    estimator : object
        Gets ``input_shape_`` (shape of one sample), and for (n, d) also ``n_features_in_``, when
        ``reset`` is true; otherwise X is compared with them.
    X : array-like, tensor, data frame, memory map or torch Dataset
        A Dataset and a memory map that needs another dtype come back as a lazy array; they are
        checked in chunks.
    reset : bool
    bounds : "auto", None or (low, high)
        "auto": images must lie in [0, 1], (n, d) is unbounded.
    channels : {"auto", "first", "last"}
        Which axis of images holds the channels. "auto": the first; what looks like channels last
        is refused.

    Raises
    ------
    ValueError
        For what is no array of numbers, NaN or infinity, a wrong rank, channels last, values
        outside the bounds, uint8 images with bounds other than (0, 1), no samples, or a shape
        other than at fit.
    """
    owner = type(estimator).__name__
    X = _with_sample_axis(X)
    ndim, held = getattr(X, "ndim", 2), held_dtype(X)
    if ndim == 4:
        X = _as_images(X, owner, channels)
    elif isinstance(X, LazyArray):
        if 0 in X.shape:
            _refuse_empty(X, owner)
        validate_data(estimator, X, reset=reset, skip_check_array=True)  # not to be read whole
        if reset:
            warn_of_offset(X)
    else:
        given, X = X, _as_table(X, partial(validate_data, estimator, reset=reset))
        if reset:
            warn_of_offset(given)
    ends = _finite_ends(X, owner)
    if reset and ndim == 2 and held == np.uint8:
        _warn_of_bytes(ends)
    shape = X.shape[1:]
    if reset:
        estimator.input_shape_ = shape
        if ndim == 4:
            for name in ("n_features_in_", "feature_names_in_"):
                estimator.__dict__.pop(name, None)
    elif shape != estimator.input_shape_:
        raise ValueError(_shape_message(estimator, shape, channels))
    normalises = getattr(estimator, "_normalises", False)
    _check_bounds(X, ends, resolve_bounds(bounds, shape, owner), normalises)
    return X


def check_data(X, owner, *, bounds="auto", channels="first"):
    """Check X alone, without comparing it with what was seen before nor remembering it.

    Parameters
    ----------
    X : array-like, tensor, data frame, memory map or torch Dataset
    owner : str
        Name of the estimator, for messages.
    bounds : "auto", None or (low, high)
    channels : {"auto", "first", "last"}
        See `check_inputs`.

    Returns
    -------
    array of shape (n, d) or (n, C, H, W)
        float32, or uint8 for images; lazy as in `check_inputs`.

    Raises
    ------
    ValueError
        As `check_inputs`, apart from comparisons with the fit.
    """
    X = _with_sample_axis(X)
    if getattr(X, "ndim", 2) == 4:
        X = _as_images(X, owner, channels)
    elif isinstance(X, LazyArray):
        if 0 in X.shape:
            _refuse_empty(X, owner)
        warn_of_offset(X)
    else:
        given, X = X, _as_table(X, partial(check_array, estimator=owner, input_name="X"))
        warn_of_offset(given)
    ends = _finite_ends(X, owner)
    _check_bounds(X, ends, resolve_bounds(bounds, X.shape[1:], owner))
    return X


def take_batch(X, rows, device):
    """Cut rows (a slice or an index array) from X as a float32 tensor in input units.

    X is an array, or a tensor on the device.
    """
    if isinstance(X, torch.Tensor):
        rows = rows if isinstance(rows, slice) else torch.from_numpy(rows).to(device)
        return _in_units(X[rows].clone(memory_format=torch.contiguous_format))
    return batch_tensor(X[rows], device)


def batch_tensor(X, device):
    """Copy the rows of a batch to the device, as a float32 tensor in input units."""
    # In C order, as other processes get it: some layers round by how their input lies.
    return _in_units(torch.from_numpy(np.array(X)).to(device).contiguous())


def _in_units(batch):
    if batch.dtype == torch.uint8:
        return batch.float().div_(255)
    return batch.float() if batch.dtype == torch.float16 else batch  # parts of kept sets


def refuse_loaders(X):
    """Raise a ValueError for data that can only be read in their own order."""
    if isinstance(X, DataLoader):
        raise ValueError(
            "A DataLoader was given as X; batches are cut inside. Pass its dataset instead "
            "(loader.dataset)."
        )
    unsized = isinstance(X, Dataset) and not hasattr(X, "__len__")
    if unsized or isinstance(X, IterableDataset):
        kind = "an IterableDataset" if isinstance(X, IterableDataset) else "one without __len__"
        raise ValueError(
            "A torch Dataset given as X must be map-style (with __getitem__ and __len__), since "
            f"samples are drawn in random order. Got {kind}."
        )


def _with_sample_axis(X):
    """X with its shape, if that can be one of (n, d) or (n, C, H, W); frames as they are."""
    refuse_loaders(X)
    no_array = (str, bytes, Mapping, set, Iterator)
    if X is None or np.isscalar(X) or (isinstance(X, no_array) and not issparse(X)):
        raise ValueError(
            "Expected X as an array, a list, a tensor, a data frame or a torch Dataset, of shape "
            f"(n, d) or (n, C, H, W). Got {type(X).__name__} instead."
        )
    if isinstance(X, Sequence) and not hasattr(X, "shape"):
        X = from_list(X if isinstance(X, tuple) else list(X))
    else:
        X = lazy(as_array(X))
    if len(getattr(X, "shape", ())) == 4 and not isinstance(X, (np.ndarray, LazyArray)):
        # Images of other libraries (h5py, dask) are not indexed or computed with like arrays.
        X = lazy(np.asarray(X))
    ndim = getattr(X, "ndim", None)
    if ndim is None or ndim in (2, 4):
        return X
    expected = "Expected X of shape (n, d) or (n, C, H, W), got "
    if ndim == 0:
        raise ValueError(f"{expected}one value, no array. Reshape your data.")
    if ndim == 1 and X.dtype == "O" and np.ndim(next(iter(X), 0)):
        raise ValueError(
            f"{expected}a 1D array of objects, of arrays themselves. Use numpy.stack(X)."
        )
    if ndim == 1:
        raise ValueError(
            f"{expected}a 1D array of shape {tuple(X.shape)}. Reshape your data: X.reshape(-1, 1) "
            "if it has one feature, X.reshape(1, -1) if it is one sample."
        )
    if ndim == 3:
        raise ValueError(
            f"{expected}3 dimensions with shape {tuple(X.shape)}. For grey images add the channel "
            "axis: X[:, None]; for one image add the sample axis: X[None]."
        )
    raise ValueError(f"{expected}{ndim} dimensions with shape {tuple(X.shape)}.")


def _as_table(X, check):
    """X as float32 of shape (n, d) by one of scikit-learn's checks, which knows of frames."""
    refuse_unreal_values(X)
    try:
        with np.errstate(over="ignore"):  # what is too large becomes infinity, and is refused then
            return check(X, dtype=np.float32, ensure_all_finite=False)
    except TypeError as error:
        if issparse(X) or isinstance(X, np.ndarray):
            raise
        raise ValueError(f"Expected an X of numbers, got {type(X).__name__}: {error}") from error


def _as_images(X, owner, channels):
    """X as float32 or uint8 of shape (n, C, H, W)."""
    if channels not in CHANNELS:
        raise ValueError(
            f"The 'channels' parameter of {owner} must be one of {CHANNELS}. Got {channels!r} "
            "instead."
        )
    if channels == "last":
        X = X.transpose(0, 3, 1, 2) if isinstance(X, np.ndarray) else ChannelsFirst(X)
    elif channels == "auto" and X.shape[1] not in _CHANNELS and X.shape[3] in _CHANNELS:
        raise ValueError(
            f"Expected images of shape (n, C, H, W), got {tuple(X.shape)}, which looks like NHWC "
            "(channels last). Use X.transpose(0, 3, 1, 2) or channels='last'; if the second axis "
            "does hold channels, channels='first' says so."
        )
    if 0 in X.shape:
        _refuse_empty(X, owner)
    if isinstance(X, LazyArray) or X.dtype in (np.uint8, np.float32):
        return X
    refuse_unreal(X.dtype)
    try:
        with np.errstate(over="ignore"):
            return X.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Expected an X of numbers: {error}") from error


def refuse_unreal_values(X):
    """Raise a ValueError if a table, or a column of a frame, holds no real numbers."""
    refuse_unreal(held_dtype(X))
    if library_of(X) is not None:
        for name in X.columns:
            dtype = getattr(X[name], "dtype", None)
            temporal = getattr(dtype, "is_temporal", bool)()  # of polars
            if temporal or getattr(dtype, "kind", "f") in "mM":
                raise ValueError(
                    f"Expected an X of numbers, got dates or times ({dtype}) in column {name!r}."
                )
            if getattr(dtype, "is_nested", bool)():  # lists of polars
                raise ValueError(_NESTED)
            if dtype == "object":
                _refuse_unreal_objects(X[name].to_numpy())
    elif isinstance(X, np.ndarray) and X.dtype.kind == "O":
        _refuse_unreal_objects(X)


def _refuse_unreal_objects(values):
    entries = values.ravel().tolist()
    if any(isinstance(entry, (list, tuple)) or getattr(entry, "ndim", 0) for entry in entries):
        raise ValueError(_NESTED)
    for kind in set(map(type, entries)):
        if issubclass(kind, _TIMES):
            raise ValueError(f"Expected an X of numbers, got dates or times ({kind.__name__}).")
        if issubclass(kind, (complex, np.complexfloating)):
            raise ValueError("Complex data not supported: X must hold real numbers.")


def refuse_unreal(dtype):
    """Raise a ValueError if an X of this type, if it has one, holds no real numbers."""
    kind = getattr(dtype, "kind", "f")
    if kind == "c":
        raise ValueError("Complex data not supported: X must hold real numbers.")
    if kind in "mM":  # which NumPy casts to float without a word
        raise ValueError(f"Expected an X of numbers, got dates or times ({dtype}).")


def _refuse_empty(X, owner):
    if len(X) == 0:
        raise ValueError(
            f"Found array with 0 sample(s) (shape={tuple(X.shape)}) while a minimum of 1 is "
            f"required by {owner}."
        )
    if X.ndim == 4:
        raise ValueError(f"Expected images of shape (n, C, H, W), got empty ones: {X.shape}.")
    raise ValueError(
        f"Found array with 0 feature(s) (shape={tuple(X.shape)}) while a minimum of 1 is "
        f"required by {owner}."
    )


def _warn_of_bytes(ends):
    if ends[1].max() > 1:
        warn_caller(
            "X is a table of uint8. Its values are taken as they are; only uint8 images of shape "
            "(n, C, H, W) are scaled to [0, 1]. Pass X.reshape(-1, C, H, W) if these are images, "
            "or X.astype('float32') to say that the values are meant.",
        )


def _finite_ends(X, owner):
    """Smallest and largest value by channel or feature, all finite; None for bytes."""
    if X.dtype == np.uint8:
        return None
    ends = extent(X)
    if np.isnan(ends).any():
        raise ValueError(f"Input X contains NaN. {owner} does not accept missing values.")
    if np.isinf(ends).any():
        raise ValueError("Input X contains infinity or a value too large for dtype('float32').")
    return ends


def _check_bounds(X, ends, bounds, normalises=False):
    if bounds is None:
        return
    if ends is None:  # bytes
        if not is_unit_box(bounds):
            raise ValueError(
                "uint8 images are scaled to [0, 1], so they need bounds='auto', None or (0, 1). "
                f"Got {bounds} instead; for other units pass X as floats."
            )
        return
    low, high = bounds
    smallest, largest = ends
    if np.ndim(low) == 0:
        smallest, largest = smallest.min(keepdims=True), largest.max(keepdims=True)
    else:
        low, high = np.ravel(low), np.ravel(high)
    width = np.subtract(high, low)
    slack = _TOLERANCE * np.where(np.isfinite(width), width, 1)
    outside = (smallest < low - slack) | (largest > high + slack)
    if not outside.any():
        return
    hint = ""
    if X.ndim == 4 and is_unit_box(bounds):
        hint = (
            " Images must be floats in [0, 1] or uint8 in 0..255: divide by the largest value "
            "that there can be (X / 255 for floats in 0..255)"
        )
        if normalises:
            hint += ", and do not normalise: the network does so itself."
        else:
            hint += "; for other units say bounds=(low, high), or bounds=None (constructors take "
            hint += "them from their source: a classifier, or from_torch(..., bounds=...))."
    i = int(np.argmax(outside))
    where = f" in {'channel' if X.ndim == 4 else 'feature'} {i}" if outside.size > 1 else ""
    low, high, smallest, largest = (np.ravel(v)[i] for v in (low, high, smallest, largest))
    raise ValueError(
        f"Expected values in [{low:g}, {high:g}]{where}, got a minimum of {smallest:g} and a "
        f"maximum of {largest:g}.{hint}"
    )


def _shape_message(estimator, shape, channels):
    expected, name = estimator.input_shape_, type(estimator).__name__
    if channels == "last" and len(shape) == len(expected) == 3:  # as they were given
        seen, fitted = (tuple(sides[i] for i in (1, 2, 0)) for sides in (shape, expected))
        return (
            f"X has images of shape {seen}, but {name} with channels='last' is expecting those of "
            f"shape {fitted}, as seen in fit."
        )
    if len(shape) == len(expected) == 3 and (shape[2], shape[0], shape[1]) == expected:
        hint = " This looks like NHWC (channels last): use X.transpose(0, 3, 1, 2)."
    elif len(expected) == 3 and len(shape) == 1 and shape[0] == int(np.prod(expected)):
        hint = f" Use X.reshape(-1, {', '.join(map(str, expected))})."
    else:
        hint = ""
    return (
        f"X has samples of shape {tuple(shape)}, but {name} is expecting samples of shape "
        f"{tuple(expected)}, as seen in fit.{hint}"
    )

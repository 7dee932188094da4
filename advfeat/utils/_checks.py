"""Input checks shared by every public class and function.

Data stay NumPy arrays (or memory maps) until a batch is cut from them: float32, or uint8 for
images in 0..255, which are scaled to [0, 1] batch by batch.
"""

import numpy as np
import torch
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from advfeat.utils._bounds import is_unit_box, resolve_bounds, validate_bounds  # noqa: F401
from advfeat.utils._labels import encode_labels  # noqa: F401
from advfeat.utils._lazy import LazyArray, extent, lazy

_TOLERANCE = 1e-5  # rounding in upstream pipelines leaves values such as -3e-8
_CHANNELS = (1, 2, 3, 4)


def as_array(X):
    """Turn a tensor into an array; leave everything else as it is."""
    if isinstance(X, torch.Tensor):
        X = X.detach().cpu()
        return (X.float() if X.dtype == torch.bfloat16 else X).numpy()  # NumPy has no bfloat16
    return X


def check_inputs(estimator, X, *, reset=False, bounds="auto"):
    """Check X and return it as a float32 or uint8 array of shape (n, d) or (n, C, H, W).

    Parameters
    ----------
    estimator : object
        Gets ``input_shape_`` (shape of one sample), and for (n, d) also ``n_features_in_``, when
        ``reset`` is true; otherwise X is compared with them.
    X : array-like, tensor, memory map or torch Dataset
        A Dataset and a memory map that needs another dtype come back as a lazy array; they are
        checked in chunks.
    reset : bool
    bounds : "auto", None or (low, high)
        "auto": images must lie in [0, 1], (n, d) is unbounded.

    Raises
    ------
    ValueError
        For NaN or infinity, a wrong rank, channels last, values outside the bounds, uint8 images
        with bounds other than (0, 1), no samples, or a shape other than at fit.
    """
    X = _with_sample_axis(X)
    ndim = getattr(X, "ndim", None)
    if ndim == 4:
        X = _check_images(X, type(estimator).__name__)
    elif isinstance(X, LazyArray):
        _check_lazy(X, type(estimator).__name__)
        if reset:
            estimator.n_features_in_ = X.shape[1]
            estimator.__dict__.pop("feature_names_in_", None)
    else:
        X = validate_data(estimator, X, reset=reset, dtype=np.float32, accept_sparse=False)
    shape = X.shape[1:]
    if reset:
        estimator.input_shape_ = shape
        if ndim == 4:
            for name in ("n_features_in_", "feature_names_in_"):
                estimator.__dict__.pop(name, None)
    elif shape != estimator.input_shape_:
        raise ValueError(_shape_message(estimator, shape))
    _check_bounds(X, resolve_bounds(bounds, shape), getattr(estimator, "_normalises", False))
    return X


def check_data(X, owner, *, bounds="auto"):
    """Check X alone, without comparing it with what was seen before nor remembering it.

    Parameters
    ----------
    X : array-like, tensor or memory map
    owner : str
        Name of the estimator, for messages.
    bounds : "auto", None or (low, high)

    Returns
    -------
    ndarray of shape (n, d) or (n, C, H, W)
        float32, or uint8 for images.

    Raises
    ------
    ValueError
        As `check_inputs`, apart from comparisons with the fit.
    """
    X = _with_sample_axis(X)
    if getattr(X, "ndim", None) == 4:
        X = _check_images(X, owner)
    elif isinstance(X, LazyArray):
        _check_lazy(X, owner)
    else:
        X = check_array(X, dtype=np.float32, estimator=owner, input_name="X")
    _check_bounds(X, resolve_bounds(bounds, X.shape[1:]))
    return X


def take_batch(X, rows, device):
    """Cut rows (a slice or an index array) from X as a float32 tensor in input units.

    X is an array, or a tensor on the device.
    """
    if isinstance(X, torch.Tensor):
        rows = rows if isinstance(rows, slice) else torch.from_numpy(rows).to(device)
        return _in_units(X[rows].clone())
    return batch_tensor(X[rows], device)


def batch_tensor(X, device):
    """Copy the rows of a batch to the device, as a float32 tensor in input units."""
    return _in_units(torch.from_numpy(np.array(X)).to(device))


def _in_units(batch):
    return batch.float().div_(255) if batch.dtype == torch.uint8 else batch


def _with_sample_axis(X):
    """X with its shape, if that can be one of (n, d) or (n, C, H, W)."""
    X = np.asarray(X) if isinstance(X, (list, tuple)) else lazy(as_array(X))
    ndim = getattr(X, "ndim", None)
    if ndim == 3:
        raise ValueError(
            "Expected X of shape (n, d) or (n, C, H, W), got 3 dimensions with shape "
            f"{tuple(X.shape)}. For grey images add the channel axis: X[:, None]; for one image "
            "add the sample axis: X[None]."
        )
    if ndim is not None and ndim > 4:
        raise ValueError(
            "Expected X of shape (n, d) or (n, C, H, W), got "
            f"{ndim} dimensions with shape {tuple(X.shape)}."
        )
    return X


def _check_images(X, owner):
    if X.shape[1] not in _CHANNELS and X.shape[3] in _CHANNELS:
        raise ValueError(
            f"Expected images of shape (n, C, H, W), got {tuple(X.shape)}, which looks like NHWC "
            "(channels last). Use X.transpose(0, 3, 1, 2)."
        )
    if 0 in X.shape[1:]:
        raise ValueError(f"Expected images of shape (n, C, H, W), got empty ones: {X.shape}.")
    if getattr(X, "dtype", None) == np.uint8:
        if len(X) == 0:
            raise ValueError(
                f"Found array with 0 sample(s) (shape={X.shape}) while a minimum of 1 is "
                f"required by {owner}."
            )
        return X
    if isinstance(X, (LazyArray, np.memmap)) and len(X):
        _check_lazy(X, owner)
        return X
    return check_array(X, allow_nd=True, dtype=np.float32, estimator=owner, input_name="X")


def _check_lazy(X, owner):
    """Check a table or images that are not to be read whole, chunk by chunk."""
    if X.ndim not in (2, 4) or X.size == 0:
        raise ValueError(
            f"Expected X of shape (n, d) or (n, C, H, W) by {owner}, got an array of shape "
            f"{tuple(X.shape)}."
        )
    if X.dtype == np.uint8:
        return
    ends = np.concatenate(X.extent if isinstance(X, LazyArray) else extent(X))
    if np.isnan(ends).any():
        raise ValueError(f"Input X contains NaN. {owner} does not accept missing values.")
    if np.isinf(ends).any():
        raise ValueError("Input X contains infinity or a value too large for dtype('float32').")


def _check_bounds(X, bounds, normalises=False):
    if bounds is None:
        return
    if X.dtype == np.uint8:
        if not is_unit_box(bounds):
            raise ValueError(
                "uint8 images are scaled to [0, 1], so they need bounds='auto', None or (0, 1). "
                f"Got {bounds} instead; for other units pass X as floats."
            )
        return
    low, high = bounds
    smallest, largest = X.extent if isinstance(X, LazyArray) else extent(X)
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
            hint += "; for other units say bounds=(low, high), or bounds=None."
    i = int(np.argmax(outside))
    where = f" in {'channel' if X.ndim == 4 else 'feature'} {i}" if outside.size > 1 else ""
    low, high, smallest, largest = (np.ravel(v)[i] for v in (low, high, smallest, largest))
    raise ValueError(
        f"Expected values in [{low:g}, {high:g}]{where}, got a minimum of {smallest:g} and a "
        f"maximum of {largest:g}.{hint}"
    )


def _shape_message(estimator, shape):
    expected = estimator.input_shape_
    name = type(estimator).__name__
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

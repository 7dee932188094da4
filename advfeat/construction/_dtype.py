"""The dtype of constructed inputs, which half precision must be able to hold."""

import numpy as np
import torch

from advfeat.optim import into_box
from advfeat.utils._lazy import extent


def as_stored(found, dtype, bounds):
    """Round inputs to the dtype in which they are stored, and to the inside of the bounds in it.

    Parameters
    ----------
    found : Tensor of shape (n, ...), float32
    dtype : {"float32", "float16"}
    bounds : (low, high) or None

    Returns
    -------
    Tensor of shape (n, ...), float32

    Raises
    ------
    ValueError
        If the dtype cannot hold a value.
    """
    if dtype == "float32":
        return found
    kept = found.half().float()
    if torch.isinf(kept).any() and torch.isfinite(found).all():
        raise ValueError(_too_large(float(found.abs().max())))
    inside = bounds and (_half_inside(bounds[0], np.inf), _half_inside(bounds[1], -np.inf))
    return into_box(kept, inside)


def _half_inside(side, towards):
    """Bounds rounded to float16 in one direction, as float32."""
    side = np.asarray(side, dtype=np.float64)
    with np.errstate(over="ignore"):
        half = side.astype(np.float16)
    outside = half < side if towards > 0 else half > side
    half = np.where(outside, np.nextafter(half, np.float16(towards)), half)
    return half.astype(np.float32)


def check_dtype(X, dtype):
    """Raise a ValueError if the inputs to construct from do not fit into the dtype."""
    if dtype == "float16" and X.dtype != np.uint8:
        largest = np.abs(extent(X)).max()
        if largest > np.finfo(np.float16).max:
            raise ValueError(_too_large(largest))


def _too_large(largest):
    return (
        f"dtype='float16' holds values up to 65504, and X has {largest:g}. Scale X, or use "
        "dtype='float32'."
    )

"""The valid range of inputs: one for all values, or one for each channel or feature."""

import textwrap
from collections.abc import Mapping

import numpy as np

from advfeat.utils._arrays import as_array

_LARGEST = float(np.finfo(np.float32).max)


def validate_bounds(bounds, owner):
    """Raise a ValueError unless bounds is "auto", None or a pair of numbers or arrays.

    Whether there are as many numbers as channels is known in `resolve_bounds`.
    """
    if bounds is None or (isinstance(bounds, str) and bounds == "auto"):
        return
    try:
        low, high = sides = _sides(bounds)
        usable = all(side.size and side.ndim < 2 for side in sides)
        held = all(np.all(np.isinf(side) | (np.abs(side) <= _LARGEST)) for side in (low, high))
        ordered = np.all(low.reshape(-1) < high.reshape(-1))
        if usable and held and ordered and not isinstance(bounds, (str, Mapping)):
            return
    except (TypeError, ValueError):
        pass
    got = " ".join(repr(bounds).split())
    raise ValueError(
        f"The 'bounds' parameter of {owner} must be 'auto', None or a pair (low, high) with "
        "low < high, of float32 numbers, or of arrays with one number for each channel (or "
        f"feature). Got {textwrap.shorten(got, 200, placeholder=' ...')} instead."
    )


def _sides(bounds):
    """Low and high as arrays; of shape (C, 1, 1), as for broadcasting, they are of shape (C,)."""
    sides = [np.asarray(as_array(side), dtype=np.float64) for side in bounds]
    return [side.reshape(-1) if side.shape[1:] == (1, 1) else side for side in sides]


def resolve_bounds(bounds, input_shape, owner="the estimator"):
    """Return the range of inputs of one shape, in input units.

    Parameters
    ----------
    bounds : "auto", None or (low, high)
        "auto": images live in [0, 1], tables are unbounded.
    input_shape : tuple
        Of one sample.
    owner : str
        Who has them, for the message.

    Returns
    -------
    (low, high) or None
        Two floats, or two float32 arrays that are broadcastable to one sample. None for unbounded
        inputs.

    Raises
    ------
    ValueError
        If they are unusable, or neither one number nor as many as channels (or features).
    """
    validate_bounds(bounds, owner)
    if isinstance(bounds, str):
        bounds = (0, 1) if len(input_shape) == 3 else None
    if bounds is None:
        return None
    sides = _sides(bounds)
    if len(input_shape) != 3 and any(np.ndim(as_array(side)) == 3 for side in bounds):
        raise ValueError("bounds of shape (C, 1, 1) are for images. Got samples of one axis.")
    n, ones = input_shape[0], [1] * (len(input_shape) - 1)
    for side in sides:
        if side.size not in (1, n):
            raise ValueError(
                f"bounds must hold one number, or one for each of the {n} "
                f"{'channels' if len(input_shape) == 3 else 'features'} of X. Got {side.size}."
            )
    low, high = (np.broadcast_to(side.reshape(-1, *ones), (n, *ones)) for side in sides)
    if np.all(low == low[0]) and np.all(high == high[0]):
        return float(low.flat[0]), float(high.flat[0])
    return low.astype(np.float32), high.astype(np.float32)


def is_unit_box(bounds):
    """Whether resolved bounds are [0, 1] for all values."""
    return bounds is not None and np.all(bounds[0] == 0) and np.all(bounds[1] == 1)

"""What rounding to float32 loses of data that lie far from zero."""

import numpy as np

from advfeat.utils._lazy import LazyArray, extent, held_dtype
from advfeat.utils._warnings import warn_caller

_LOST = 0.01  # of a feature's standard deviation, by rounding to float32
_CONSTANT = 1e-13  # relative; below it a deviation is rounding of float64
_N_LOOKED_AT = 1000  # rows
_FAR = 10  # times the range of a feature


def warn_of_offset(given):
    """Warn of features that lie so far from zero that float32 hardly tells their values apart."""
    if held_dtype(given) == np.float32:
        return
    if isinstance(given, LazyArray):
        some = given.held(_N_LOOKED_AT)
    else:
        framed = hasattr(given, "head")
        some = given.head(_N_LOOKED_AT) if framed else np.asarray(given)[:_N_LOOKED_AT]
    try:
        exact = np.asarray(some, dtype=np.float64)
    except (TypeError, ValueError):  # missing values, which are refused by their name
        return
    with np.errstate(all="ignore"):
        lost = np.abs(exact - exact.astype(np.float32)).max(axis=0)
        spread, size = exact.std(axis=0), np.abs(exact).max(axis=0)
        bad = (lost > _LOST * spread) & (spread > _CONSTANT * size) & np.isfinite(lost)
    if bad.any():
        i = int(bad.argmax())
        warn_caller(
            f"Networks and attacks compute in float32, which rounds feature {i} by up to "
            f"{lost[i]:.2g} where its values, near {size[i]:.6g}, have a standard deviation of "
            f"{spread[i]:.2g}. Take away the offset first, as a StandardScaler does.",
        )


def warn_of_eps(X, norm, eps, dtype="float32"):
    """Warn of an eps that does not fit the samples.

    Either rounding to the dtype moves them by a tenth of eps or more, or they are uint8 images,
    which are read in [0, 1], and eps is larger than all of that: it was meant for 0..255.

    Parameters
    ----------
    X : array of shape (n, ...), checked
    norm : {2, numpy.inf}
    eps : float
    dtype : {"float32", "float16"}, default="float32"
        float32 is warned of where values lie far from zero, beside their range.
    """
    if X.dtype == np.uint8:
        if eps > (1.0 if norm == np.inf else np.sqrt(np.prod(X.shape[1:]))):
            warn_caller(
                f"eps={eps:g} leads from any of these images to any other: uint8 images are read "
                "in [0, 1], and eps is in this scale, such as 8 / 255.",
            )
        return
    kind = np.dtype(dtype).type
    low, high = np.float64(extent(X))
    largest = np.maximum(np.abs(low), np.abs(high))
    below = np.nextafter(largest.astype(kind), kind(0))  # 1 itself is held exactly
    step = np.spacing(below).astype(np.float64) / 2
    if dtype == "float32":
        step[largest <= _FAR * (high - low)] = 0
    n_values = int(np.prod(X.shape[1:])) // len(step)  # of each channel
    moved = step.max() if norm == np.inf else np.sqrt(n_values * np.sum(step**2) / 3)
    if not moved > eps / 10 > 0:
        return
    if dtype == "float16":
        how, advice = "dtype='float16' rounds", "Scale X first, or keep dtype='float32'."
    else:
        how = "Networks and attacks compute in float32, which rounds"
        advice = "Take away the offset first, as a StandardScaler does."
    warn_caller(
        f"{how} these samples, of values up to {largest.max():.3g}, by some {moved:.2g} beside "
        f"eps={eps:g}. {advice}",
    )

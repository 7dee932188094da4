"""The one check of sample weights, of a training as of a score."""

import numpy as np

from advfeat.utils._arrays import as_array
from advfeat.utils._sklearn import _check_sample_weight


def check_weight(sample_weight, n):
    """Return the weights as float64 of shape (n,); 1 for each sample if there are none.

    Raises
    ------
    ValueError
        If they are not numbers, not finite, negative, all zero or of another shape.
    """
    if sample_weight is None:
        return np.ones(n)
    try:
        given = as_array(sample_weight)
        if getattr(getattr(given, "dtype", None), "kind", None) == "c":
            raise TypeError("complex numbers")
        given = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"sample_weight must hold one number per sample: {error}.") from error
    given = np.full(n, given) if given.ndim == 0 else given
    weight = _check_sample_weight(given, np.empty(n), dtype=np.float64, ensure_non_negative=True)
    if not weight.any():
        raise ValueError("sample_weight must hold at least one positive weight. All are zero.")
    return weight


def weighted_share(holds, weight):
    """Share of the samples for which something holds, as a float in [0, 1]."""
    if weight.max() > np.finfo(float).max / len(weight):  # their sum would be infinite
        weight = weight / weight.max()
    return float(np.average(holds, weights=weight))

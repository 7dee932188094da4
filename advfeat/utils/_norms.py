"""The two norms that bound a perturbation: which there are, and what they are called."""

from numbers import Real

import numpy as np

from advfeat.utils._sklearn import Options

_NAMES = {2: "L2", np.inf: "L∞"}
NORM_CONSTRAINT = [Options(Real, set(_NAMES))]  # of every parameter called ``norm``


def norm_name(norm):
    """Return "L2" or "L∞".

    Raises
    ------
    ValueError
        For any other norm.
    """
    try:
        return _NAMES[norm]
    except (KeyError, TypeError):
        raise ValueError(
            f"The 'norm' parameter must be 2 or numpy.inf. Got {norm!r} instead."
        ) from None

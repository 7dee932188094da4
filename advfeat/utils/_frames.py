"""Data frames of pandas and polars, neither of which must be installed."""

import importlib
import sys

import numpy as np

from advfeat.utils._errors import shortened
from advfeat.utils._sklearn import _get_feature_names

_LIBRARIES = ("pandas", "polars")


def library_of(X):
    """Return "pandas" or "polars" for a data frame, None for everything else."""
    for name in _LIBRARIES:
        library = sys.modules.get(name)
        if library is not None and isinstance(X, library.DataFrame):
            return name
    return None


def as_frame(values, names, library=None, index=None):
    """Make a data frame of an array of shape (n, d).

    Parameters
    ----------
    values : array of shape (n, d)
    names : array of shape (d,)
        Of the columns.
    library : {"pandas", "polars"}, default=None
        By default the one that is installed.
    index : pandas.Index, optional

    Raises
    ------
    ImportError
        If the library is not installed.
    """
    values, names = np.asarray(values), list(names)
    library = library or next(filter(importlib.util.find_spec, _LIBRARIES), "pandas")
    frames = importlib.import_module(library)
    if library == "pandas":
        return frames.DataFrame(values, index=index, columns=names, copy=False)
    return frames.DataFrame(values, schema=names, orient="row")


def check_names(estimator, X):
    """Refuse a frame whose columns are in another order, as `predict` does."""
    known, names = getattr(estimator, "feature_names_in_", None), _get_feature_names(X)
    if known is not None and names is not None and not np.array_equal(known, names):
        raise ValueError(
            f"The feature names should match those that {type(estimator).__name__} was fitted "
            f"with, in their order: {shortened(known)}. Got {shortened(names)}."
        )

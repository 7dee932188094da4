"""The one form in which every data set is returned."""

import numpy as np
from sklearn.utils import Bunch


def as_bunch(X, y, target_names, *, return_X_y, **truth):
    """Return (X, y), or a Bunch that also holds the class names and any ground truth."""
    y = np.asarray(y, dtype=np.int64)
    if return_X_y:
        return X, y
    return Bunch(data=X, target=y, target_names=np.asarray(target_names), **truth)

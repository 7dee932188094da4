"""Handwritten digits of scikit-learn as images, with one fixed test set."""

from typing import Any

import numpy as np
import sklearn.datasets

from advfeat.datasets._bunch import as_bunch
from advfeat.utils._sklearn import StrOptions, validate_params


@validate_params(
    {"split": [StrOptions({"train", "test"}), None], "return_X_y": ["boolean"]},
    prefer_skip_nested_validation=True,
)
def load_digits(*, split: str | None = None, return_X_y: bool = False) -> Any:
    """Load scikit-learn's 8 x 8 handwritten digits as images in [0, 1].

    Parameters
    ----------
    split : {"train", "test"} or None, default=None
        "train" (1347 images) and "test" (450 images) are disjoint, stratified by class and the
        same in every call, so that all experiments share one untouched test set. None returns
        all 1797 images.
    return_X_y : bool, default=False
        If true, return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        - data : ndarray of shape (n, 1, 8, 8), float32, in [0, 1]
        - target : ndarray of shape (n,), int64, the digit
        - target_names : ndarray of shape (10,)
    (data, target) : tuple if ``return_X_y`` is true

    See Also
    --------
    sklearn.datasets.load_digits : The same images, flat and in 0..16.

    Examples
    --------
    >>> from advfeat.datasets import load_digits
    >>> X, y = load_digits(split="test", return_X_y=True)
    >>> X.shape, X.dtype.name, float(X.max())
    ((450, 1, 8, 8), 'float32', 1.0)
    """
    digits = sklearn.datasets.load_digits()
    rows = _split_rows(digits.target, split)
    X = (digits.images[rows, None] / 16).astype(np.float32)
    return as_bunch(X, digits.target[rows], digits.target_names, return_X_y=return_X_y)


def _split_rows(y, split):
    """Every fourth sample of each class is a test sample: stratified, and no seed to fix."""
    by_class = np.argsort(y, kind="stable")
    is_test = np.zeros(len(y), dtype=bool)
    is_test[by_class[::4]] = True
    if split is None:
        return slice(None)
    return is_test if split == "test" else ~is_test

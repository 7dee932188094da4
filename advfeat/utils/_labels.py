"""The one check of y, and the positions of labels among classes."""

from numbers import Real

import numpy as np
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from advfeat.utils._arrays import as_array
from advfeat.utils._errors import shortened

_NUMBERS = "biuf"
_TEXT = "OSU"  # kinds of dtypes; `check_labels` leaves only text in arrays of objects


def check_labels(y, n):
    """Check labels and return them as an array.

    Parameters
    ----------
    y : array-like of shape (n,)
        List, array, tensor, Series or a frame of one column; of numbers, booleans or text. A
        column of shape (n, 1) is taken too, with scikit-learn's DataConversionWarning.
    n : int or None
        Number of samples; None for any.

    Returns
    -------
    ndarray of shape (n,)

    Raises
    ------
    ValueError
        For another shape or length, one-hot labels, continuous values, missing labels, or labels
        of several types.
    """
    y = ravel_column(_as_array(y))
    if y.ndim != 1:
        raise ValueError(_shape_message(y, n))
    if n is not None and len(y) != n:
        raise ValueError(
            f"X and y have inconsistent numbers of samples: y must have shape ({n},), one label "
            f"per sample. Got {y.shape}."
        )
    if y.dtype.kind == "O":
        y = _of_one_type(y)
    check_array(y, ensure_2d=False, dtype=None, ensure_min_samples=0, input_name="y")
    if len(y):
        check_classification_targets(y)
    return y


def ravel_column(y):
    """Flatten an array of shape (n, 1), with scikit-learn's warning; all else as it is."""
    return column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y


def check_classes(classes):
    """Check the labels that will ever occur and return them sorted, each once; None stays None.

    Raises
    ------
    ValueError
        If they are not labels, or there are none.
    """
    if classes is None:
        return None
    try:
        labels = _as_array(classes)
        if labels.ndim != 1:
            raise ValueError(f"Their shape is {labels.shape}, not (n_classes,).")
        # Each twice: scikit-learn warns where most labels of a y occur once.
        found = np.unique(check_labels(np.repeat(labels, 2, axis=0), None))
        if len(found):
            return found
        cause = "There are none."
    except ValueError as error:
        cause = error
    raise ValueError(
        "classes must list all labels that will ever occur, numbers or text, and none of them "
        f"missing (NaN, None). Got {classes!r}. {cause}"
    )


def check_kind(y, classes):
    """Refuse text beside classes that are numbers and the other way round: NumPy makes both text.

    Raises
    ------
    ValueError
    """
    if _family(y) != _family(classes) and "O" not in (y.dtype.kind, classes.dtype.kind):
        raise _of_another_type(y, classes)


def _family(labels):
    """Text, numbers, or a kind that compares with itself alone, such as dates."""
    kind = labels.dtype.kind
    return _TEXT if kind in _TEXT else _NUMBERS if kind in _NUMBERS else kind


def _of_another_type(y, classes):
    return ValueError(
        f"y must hold labels like the classes {classes}. Got labels of another type: "
        f"{shortened(list(map(repr, np.unique(y).tolist())))}."
    )


def positions_of(labels, classes):
    """Position of each of some labels in classes, -1 for what is none of them.

    Labels of a mapping need not be found there by their hash: a day may be given as a date.

    Returns
    -------
    list of int
    """
    found = [np.flatnonzero(classes == label) if np.ndim(label) == 0 else () for label in labels]
    return [int(places[0]) if len(places) else -1 for places in found]


def encode_labels(y, classes, n, *, unknown="refuse", name="y"):
    """Positions of labels in classes.

    Parameters
    ----------
    y : array-like of shape (n,)
        See `check_labels`.
    classes : ndarray of shape (n_classes,)
        Sorted.
    n : int
    unknown : {"refuse", "mark"}, default="refuse"
        What to do with labels that are not among the classes: raise an error, or give them the
        position -1.
    name : str, default="y"
        What has the labels, for the message about those that are unknown.

    Returns
    -------
    ndarray of shape (n,), int64

    Raises
    ------
    ValueError
        If y is no array of n labels, if it holds text and the classes are numbers or the other way
        round, or for unknown labels.
    """
    y = check_labels(y, n)
    if _family(y) != _family(classes):
        raise _of_another_type(y, classes)
    index = np.searchsorted(classes, y).clip(0, len(classes) - 1)
    missing = classes[index] != y
    if unknown == "refuse" and np.any(missing):
        raise ValueError(
            f"{name} contains labels that are not among the classes {classes}: "
            f"{np.unique(y[missing])}."
        )
    return np.where(missing, -1, index).astype(np.int64)


def _as_array(y):
    try:
        labels = np.asarray(as_array(y))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"y must be an array or a list of labels, one per sample, of shape (n,): {error}"
        ) from error
    if labels.ndim == 0:
        got = "one value" if hasattr(y, "ndim") else type(y).__name__
        raise ValueError(
            f"y must be an array or a list of labels, one per sample. Got {got} instead."
        )
    if labels.dtype.kind == "S":
        raise ValueError("Labels that are bytes are not supported. Use text: y.astype(str).")
    if labels.dtype.kind == "c":
        raise ValueError(
            "Complex data not supported: labels that are complex numbers have no order."
        )
    if labels.dtype.kind == "U" and isinstance(y, (list, tuple)):
        _of_one_type(np.array(y, dtype=object).ravel())  # of numbers, NaN and None made text
    return labels


def _of_one_type(y):
    """Labels of objects: numbers as an array of numbers, text as it is."""
    types = {type(label) for label in y}
    if all(issubclass(kind, str) for kind in types):
        return y
    if all(issubclass(kind, (Real, np.bool_)) for kind in types):
        return np.array(list(y))
    names = ", ".join(sorted(kind.__name__ for kind in types))
    raise ValueError(
        f"Unknown label type: labels must be all text or all numbers, and none may be missing. "
        f"Got a y of {names}."
    )


def _shape_message(y, n):
    n = "n" if n is None else n
    message = f"y must have shape ({n},), one label per sample. Got {y.shape}."
    if y.ndim == 2 and y.dtype.kind in "biuf" and len(y):
        ones = (y == 1).sum(1) == 1
        if ones.all() and ((y == 0).sum(1) == y.shape[1] - 1).all():
            message += " This looks like one-hot labels: use y.argmax(axis=1)."
        elif np.isin(y, (0, 1)).all():
            message += " Several labels for one sample are not supported."
    return message

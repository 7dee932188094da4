"""Samples with two features, of two classes, and linear decisions on them: checked and drawn."""

from functools import partial

import numpy as np

from advfeat.datasets._torch_data import unpack_data
from advfeat.plotting._style import COLORS, one_number
from advfeat.utils._arrays import as_floats
from advfeat.utils._checks import check_data
from advfeat.utils._frames import as_frame, check_names, library_of
from advfeat.utils._labels import check_labels

_SAMPLES = {"s": 6, "alpha": 0.35, "linewidths": 0}


def check_plane(owner, X, y):
    """Check samples with two features and labels of two classes."""
    X, y = unpack_data(owner, X, y)
    X = np.asarray(check_data(X, type(owner).__name__)[:])
    X = X.astype(np.float64)  # squares of float32 soon leave its range
    y = check_labels(y, len(X))
    if X.ndim != 2:
        raise ValueError(
            f"The display needs a table of samples, of shape (n, 2). Got shape {X.shape}."
        )
    if X.shape[1] != 2 or len(np.unique(y)) != 2:
        raise ValueError(
            "The display needs samples with two features and of two classes. Got "
            f"{X.shape[1]} features and {len(np.unique(y))} classes instead."
        )
    return X, y


def check_plane_of(estimators, X, y):
    """Check samples and labels as `check_plane`, and the names of columns with each estimator.

    Parameters
    ----------
    estimators : list of fitted estimators
    X : array-like of shape (n, 2), data frame or torch Dataset
    y : array-like of shape (n,)

    Returns
    -------
    X : ndarray of shape (n, 2)
    y : ndarray of shape (n,)
    as_given : callable
        Makes a frame of an array where X is a frame: estimators may ask for columns by name.

    Raises
    ------
    ValueError
        As `check_plane`, or if columns have other names than in the fit, or another order.
    """
    given, y = unpack_data(estimators[0], X, y)
    for estimator in estimators:
        check_names(estimator, given)
    X, y = check_plane(estimators[0], given, y)
    library = library_of(given)
    if library is None:
        return X, y, np.asarray
    return X, y, partial(as_frame, names=given.columns, library=library)


def check_weights(coef, name):
    """Two weights, also as a row like scikit-learn's ``coef_``."""
    weights = as_floats(coef, name)
    if weights.shape not in ((2,), (1, 2)) or not np.isfinite(weights).all():
        raise ValueError(
            f"{name} must have shape (2,), one finite weight for each feature. Got {coef!r}."
        )
    return weights.reshape(2)


def check_constant(intercept, name):
    """Return one number, also of an array of one like scikit-learn's ``intercept_``."""
    constant = one_number(intercept)
    if not np.isfinite(constant):
        raise ValueError(f"{name} must be one finite number. Got {intercept!r} instead.")
    return constant


def draw_samples(ax, X, y):
    """Scatter the classes, on axes of equal scale."""
    for color, label in zip(COLORS, np.unique(y), strict=False):
        ax.scatter(*X[y == label].T, color=color, **_SAMPLES)
    axes = (ax.get_shared_x_axes(), ax.get_shared_y_axes())
    shared = all(len(group.get_siblings(ax)) > 1 for group in axes)
    # matplotlib does not move limits that axes share.
    ax.set_aspect("equal", adjustable="box" if shared else "datalim")
    ax.spines[["top", "right"]].set_visible(False)


def draw_boundary(ax, X, coef, intercept, color, style, label):
    """Draw the line where a score is zero, without moving the limits of the axes much.

    A constant score has none: nothing but its label appears.
    """
    if not coef.any():
        return ax.plot([], [], color=color, ls=style, label=label)[0]
    center = X.mean(axis=0)
    foot = center - (center @ coef + intercept) / (coef @ coef) * coef
    along = np.array([-coef[1], coef[0]]) / np.linalg.norm(coef) * (X.std() or 1.0)
    way = {"xy2": foot + along}
    if ax.get_xscale() == ax.get_yscale() == "linear":
        # Older matplotlibs take two points for one where the data are small.
        with np.errstate(divide="ignore", over="ignore"):
            way = {"slope": along[1] / along[0]}
    return ax.axline(foot, **way, color=color, ls=style, label=label)

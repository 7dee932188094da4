"""Synthetic data with planted robust and non-robust features, and their ground truth."""

from numbers import Integral, Real
from typing import Any

import numpy as np
from scipy.fft import dct
from sklearn.utils import check_random_state

from advfeat.datasets._bunch import as_bunch
from advfeat.datasets._feature_model import FeatureModel
from advfeat.utils._sklearn import Interval, validate_params
from advfeat.utils._typing import RandomState

_POSITIVE = [Interval(Real, 0, None, closed="neither")]
_COMMON_CONSTRAINTS = {
    "n_samples": [Interval(Integral, 1, None, closed="left")],
    "n_classes": [Interval(Integral, 2, None, closed="left")],
    "agreement": [Interval(Real, 0, 1, closed="neither")],
    "robust_margin": _POSITIVE,
    "nonrobust_margin": _POSITIVE,
    "noise": _POSITIVE,
    "random_state": ["random_state"],
    "return_X_y": ["boolean"],
}


@validate_params(
    {**_COMMON_CONSTRAINTS, "n_nonrobust": [Interval(Integral, 1, None, closed="left")]},
    prefer_skip_nested_validation=True,
)
def make_planted_features(
    n_samples: int = 1000,
    *,
    n_classes: int = 2,
    n_nonrobust: int = 20,
    agreement: float = 0.8,
    robust_margin: float = 1.0,
    nonrobust_margin: float = 0.1,
    noise: float = 0.04,
    random_state: RandomState = None,
    return_X_y: bool = False,
) -> Any:
    """Generate tabular data with a planted robust and a planted non-robust feature.

    The robust feature is large but right only with probability ``agreement``. The non-robust
    feature is spread thinly over ``n_nonrobust`` columns that together tell the label almost
    surely, until an attack of tiny norm flips it.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of samples.
    n_classes : int, default=2
        Number of classes K; classes are equally frequent.
    n_nonrobust : int, default=20
        Number of non-robust columns, at least K - 1.
    agreement : float, default=0.8
        Probability p that the robust feature shows the label's class; in [1 / K, 1).
    robust_margin : float, default=1.0
        L2 distance r from the robust value of a class to the boundary with any other class.
    nonrobust_margin : float, default=0.1
        The same distance s for the mean of the non-robust columns.
    noise : float, default=0.04
        Standard deviation sigma of the Gaussian noise in every non-robust column.
    random_state : int, RandomState or None, default=None
        Determines the sample.
    return_X_y : bool, default=False
        If true, return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        data : ndarray of shape (n_samples, K - 1 + n_nonrobust), float32
            The samples.
        target : ndarray of shape (n_samples,), int64
            The labels, 0 to K - 1.
        target_names : ndarray of shape (K,)
            Names of the classes.
        robust_mask : boolean ndarray of shape (K - 1 + n_nonrobust,)
            True for the K - 1 robust columns, which come first.
        robust_target : ndarray of shape (n_samples,)
            The class that the robust feature shows.
        robust_patterns, nonrobust_patterns : ndarray of shape (K, n_columns)
            What each class's feature adds to a sample.
        flip_eps : float
            2 s: the L2 norm that turns the non-robust pattern of one class into that of another.
        coef : dict of ndarray of shape (K, n_columns)
            Best linear rules ``argmax(X @ coef[features].T, axis=1)`` on "robust", "nonrobust"
            and "all" features. That on "all" is the Bayes classifier.
        accuracy : callable
            ``accuracy(features="all", *, eps=0.0)``: population accuracy of the rule ``features``
            under L2 attacks of norm ``eps``, see Notes.
    (data, target) : tuple if ``return_X_y`` is true

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    For two classes, with t = 2 y - 1, the robust column is r t with probability p and -r t
    otherwise, and each of the m non-robust columns is N(s t / sqrt(m), sigma^2). With
    L = log(p / (1 - p)), b = L sigma / (2 s), g = sqrt(1 + (b sigma / r)^2) and Phi the normal
    distribution function, accuracies under L2 attacks of norm eps are

    * robust: p if eps < r, else 0;
    * nonrobust: Phi((s - eps) / sigma);
    * all: p Phi(a + b) + (1 - p) Phi(a - b), with a = (s - g eps) / sigma.

    The usefulness of a feature f scaled to unit variance, E[t f(x)] as in Section 2 of Ilyas et
    al. 2019, is 2 p - 1 for the robust column and s / sqrt(s^2 + sigma^2) for the sum of the
    non-robust columns; their robust usefulness is 2 p - 1 - eps / r and
    (s - eps) / sqrt(s^2 + sigma^2).

    For K classes the values r t and s t become the corners of a regular simplex in K - 1
    dimensions, 2 r and 2 s apart, and Phi(a) becomes the probability that one normal variable
    that leads by sqrt(2) a is the largest of K, a one-dimensional integral. The attack on the
    columns is unbounded. The two-class model is that of Tsipras et al. 2019, "Robustness may be
    at odds with accuracy", with free scales.

    Examples
    --------
    >>> from advfeat.datasets import make_planted_features
    >>> data = make_planted_features(random_state=0)
    >>> data.data.shape
    (1000, 21)
    >>> for features in ("robust", "nonrobust", "all"):
    ...     clean, attacked = (data.accuracy(features, eps=eps) for eps in (0.0, 0.2))
    ...     print(f"{features}: {clean:.3f}, under attack {attacked:.3f}")
    robust: 0.800, under attack 0.800
    nonrobust: 0.994, under attack 0.006
    all: 0.995, under attack 0.011
    """
    n_classes, n_nonrobust = int(n_classes), int(n_nonrobust)  # small ones of NumPy overflow
    _check_agreement(agreement, n_classes)
    n_robust = n_classes - 1
    if n_nonrobust < n_robust:
        raise ValueError(
            f"The 'n_nonrobust' parameter must be at least n_classes - 1 = {n_robust}. "
            f"Got {n_nonrobust} instead."
        )
    robust_basis = np.eye(n_robust, n_robust + n_nonrobust)
    nonrobust_basis = np.zeros_like(robust_basis)
    # The first cosine is constant: with two classes all columns are equally informative.
    nonrobust_basis[:, n_robust:] = _cosines(n_nonrobust)[:n_robust]
    model = FeatureModel(
        n_classes, agreement, robust_margin, nonrobust_margin, noise, robust_basis, nonrobust_basis
    )
    X, y, c = model.sample(n_samples, check_random_state(random_state))
    return as_bunch(
        X.astype(np.float32),
        y,
        np.arange(n_classes),
        return_X_y=return_X_y,
        robust_mask=np.arange(X.shape[1]) < n_robust,
        **_truth(model, c, X.shape[1:]),
    )


@validate_params(
    {**_COMMON_CONSTRAINTS, "size": [Interval(Integral, 2, None, closed="left")]},
    prefer_skip_nested_validation=True,
)
def make_planted_images(
    n_samples: int = 1000,
    *,
    n_classes: int = 2,
    size: Any = 16,
    agreement: float = 0.8,
    robust_margin: float = 1.0,
    nonrobust_margin: float = 0.075,
    noise: float = 0.03,
    random_state: RandomState = None,
    return_X_y: bool = False,
) -> Any:
    """Generate grey images with a visible robust and a faint non-robust class pattern.

    An image is grey (0.5) plus a smooth pattern of the lowest spatial frequencies, which shows
    the label's class only with probability ``agreement``, plus a faint pattern of the highest
    frequencies, which always belongs to the label, plus noise that hides most of the latter.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of images.
    n_classes : int, default=2
        Number of classes K; classes are equally frequent.
    size : int, default=16
        Height and width in pixels, with size^2 > 2 (K - 1).
    agreement : float, default=0.8
        Probability p that the visible pattern is that of the label's class; in [1 / K, 1).
    robust_margin : float, default=1.0
        L2 distance r from a visible pattern to the boundary with any other class.
    nonrobust_margin : float, default=0.075
        The same distance s for the faint pattern.
    noise : float, default=0.03
        Standard deviation sigma of the Gaussian noise in every direction but those of the visible
        patterns.
    random_state : int, RandomState or None, default=None
        Determines the sample.
    return_X_y : bool, default=False
        If true, return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        data : ndarray of shape (n_samples, 1, size, size), float32, in [0, 1]
            The images.
        target : ndarray of shape (n_samples,), int64
            The labels, 0 to K - 1.
        target_names : ndarray of shape (K,)
            Names of the classes.
        robust_target : ndarray of shape (n_samples,)
            The class whose visible pattern the image shows.
        robust_patterns, nonrobust_patterns : ndarray of shape (K, 1, size, size)
            What each class's pattern adds to an image.
        flip_eps : float
            2 s: the L2 norm that turns the faint pattern of one class into that of another.
        coef : dict of ndarray of shape (K, size * size)
            Best linear rules ``argmax(X.reshape(n_samples, -1) @ coef[features].T, axis=1)`` on
            "robust", "nonrobust" and "all" features. That on "all" is the Bayes classifier.
        accuracy : callable
            ``accuracy(features="all", *, eps=0.0)``: population accuracy of the rule ``features``
            under L2 attacks of norm ``eps``.
    (data, target) : tuple if ``return_X_y`` is true

    Raises
    ------
    ValueError
        If a parameter is out of range, or the patterns and five standard deviations of noise do
        not fit into [0, 1].

    See Also
    --------
    make_planted_features : Tabular form; its Notes hold the formulas, which are the same here as
        long as neither noise nor attack reaches the limits 0 and 1. Noise that does (below one
        pixel in a million) is clipped.

    Examples
    --------
    >>> from advfeat.datasets import make_planted_images
    >>> images = make_planted_images(random_state=0)
    >>> images.data.shape, images.data.dtype.name
    ((1000, 1, 16, 16), 'float32')
    >>> print(f"{images.accuracy('nonrobust'):.3f}, {images.accuracy('nonrobust', eps=0.15):.3f}")
    0.994, 0.006
    """
    n_classes, size = int(n_classes), int(size)  # small ones of NumPy overflow
    _check_agreement(agreement, n_classes)
    n_directions = n_classes - 1
    if size**2 <= 2 * n_directions:
        raise ValueError(
            f"The 'size' parameter must satisfy size**2 > 2 * (n_classes - 1) = {2 * n_directions}"
            f". Got {size} instead."
        )
    waves = _plane_waves(size)
    model = FeatureModel(
        n_classes,
        agreement,
        robust_margin,
        nonrobust_margin,
        noise,
        waves[1 : 1 + n_directions],
        waves[-n_directions:],
    )
    contrast = np.abs(model.robust_patterns).max() + np.abs(model.nonrobust_patterns).max()
    if contrast + 5 * noise > 0.5:
        raise ValueError(
            "Expected patterns and five standard deviations of noise to stay within 0.5 of "
            f"grey, got {contrast:.3g} + 5 * {noise:.3g}. Lower robust_margin, nonrobust_margin "
            "or noise, or raise size."
        )
    X, y, c = model.sample(n_samples, check_random_state(random_state))
    shape = (1, size, size)
    X = np.clip(0.5 + X, 0, 1).astype(np.float32).reshape(n_samples, *shape)
    return as_bunch(X, y, np.arange(n_classes), return_X_y=return_X_y, **_truth(model, c, shape))


def _check_agreement(agreement, n_classes):
    if agreement < 1 / n_classes:
        raise ValueError(
            f"The 'agreement' parameter must be at least 1 / n_classes = {1 / n_classes:.3g}, "
            f"the rate of a blind guess. Got {agreement!r} instead."
        )


def _truth(model, c, shape):
    return {
        "robust_target": c,
        "robust_patterns": model.robust_patterns.reshape(-1, *shape),
        "nonrobust_patterns": model.nonrobust_patterns.reshape(-1, *shape),
        "flip_eps": 2 * model.nonrobust_margin,
        "coef": model.coef(),
        "accuracy": model.accuracy,
    }


def _cosines(n):
    """Orthonormal cosines on n points, one per row, from the constant to the fastest."""
    return dct(np.eye(n), norm="ortho", axis=0)


def _plane_waves(size):
    """Orthonormal two-dimensional cosines, flat, from the constant to the checkerboard."""
    u, v = np.indices((size, size)).reshape(2, -1)
    order = np.lexsort((u, np.maximum(u, v), u + v))
    cosines = _cosines(size)
    return np.einsum("ki,kj->kij", cosines[u[order]], cosines[v[order]]).reshape(size**2, -1)

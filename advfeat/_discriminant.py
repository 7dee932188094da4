"""Decision functions of Gaussian classes with given means, principal axes and priors."""

import numpy as np


def linear_discriminant(axes, means, priors, std):
    """Linear discriminant functions of classes with a common covariance.

    Parameters
    ----------
    axes : PrincipalAxes
        Axes of the common covariance.
    means : ndarray of shape (n_classes, n_features)
        Class means.
    priors : ndarray of shape (n_classes,)
        Class probabilities; a class of probability zero is never predicted.
    std : ndarray of shape (..., n_features)
        Standard deviations of one model, or of several, along the axes and on their
        complement. Directions of standard deviation zero are left out.

    Returns
    -------
    coef : ndarray of shape (..., n_rows, n_features)
        Weights, relative to the mean of all classes; ``n_rows`` is ``n_classes``, or one
        (the second class against the first) when there are two classes.
    intercept : ndarray of shape (..., n_rows)
        Constants, with the logarithm of the priors.
    """
    center = priors @ means
    coordinates, outside = axes.rotate(means - center)
    inverse = np.divide(1.0, std, out=np.zeros_like(std), where=std > 0)[..., None, :]
    scale = inverse[..., : axes.n_axes]
    # Divided twice, not by the variance, so that no square can overflow.
    whitened = coordinates * scale
    distance = np.square(whitened).sum(axis=-1)
    if outside is not None:
        rest = outside * inverse[..., -1:]
        distance += np.square(rest).sum(axis=-1)
        outside = rest * inverse[..., -1:]
    coef = axes.rotate_back(whitened * scale, outside)
    with np.errstate(divide="ignore"):
        intercept = np.log(priors) - distance / 2 - coef @ center
    if len(priors) == 2:
        coef, intercept = np.diff(coef, axis=-2), np.diff(intercept, axis=-1)
    return coef, intercept


def quadratic_scores(X, axes, means, priors, std):
    """Log joint density, up to a common constant, of classes with their own covariances.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Samples.
    axes : list of PrincipalAxes
        Axes of each class.
    means : ndarray of shape (n_classes, n_features)
        Class means.
    priors : ndarray of shape (n_classes,)
        Class probabilities.
    std : ndarray of shape (n_classes, n_features)
        Positive standard deviations of each class along its axes.

    Returns
    -------
    scores : ndarray of shape (n_samples, n_classes)
        Quadratic discriminant functions.
    """
    scores = np.empty((len(X), len(means)))
    for c, (class_axes, mean, s) in enumerate(zip(axes, means, std, strict=True)):
        coordinates, outside = class_axes.rotate(X - mean)
        distance = np.square(coordinates / s[: class_axes.n_axes]).sum(axis=1)
        if outside is not None:
            distance += np.square(outside / s[-1]).sum(axis=1)
        scores[:, c] = -distance / 2 - np.log(s).sum()
    with np.errstate(divide="ignore"):
        return scores + np.log(priors)

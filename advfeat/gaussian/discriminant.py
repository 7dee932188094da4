"""Decision functions of Gaussian classes with given means, principal axes and priors."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_expit, log_softmax
from sklearn.utils.validation import check_is_fitted, validate_data
from torch.utils.data import Dataset

from advfeat.gaussian.robust_covariance import ratio
from advfeat.utils._arrays import as_array, as_floats
from advfeat.utils._checks import refuse_unreal_values
from advfeat.utils._estimator import as_now
from advfeat.utils._labels import encode_labels
from advfeat.utils._weight import check_weight, weighted_share


def class_priors(priors, counts):
    """Class probabilities: those given, or those of the samples counted.

    Classes without samples, as partial_fit may have, get none.

    Raises
    ------
    ValueError
        If there is not one non-negative number for each class, or they do not sum to 1.
    """
    if priors is None:
        return counts / counts.sum()
    given, priors = priors, as_floats(priors, "The 'priors' parameter of GaussianRobustMLE")
    if priors.shape != counts.shape or not np.all(priors >= 0):
        raise ValueError(
            "The 'priors' parameter of GaussianRobustMLE must be one non-negative number "
            f"for each of the {len(counts)} classes. Got {given!r} instead."
        )
    if abs(priors.sum() - 1.0) > 1e-5:
        raise ValueError(
            "The 'priors' parameter of GaussianRobustMLE must sum to 1. Got a sum of "
            f"{priors.sum()} instead; divide by it."
        )
    seen = np.where(counts > 0, priors, 0.0)  # nothing is known of a class without samples
    priors = seen if seen.any() else priors
    return priors / priors.sum()


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
    inverse = ratio(1.0, std)[..., None, :]
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
    scores = np.full((len(X), len(means)), -np.inf)
    for c in np.flatnonzero(priors):
        s = std[c]
        coordinates, outside = axes[c].rotate(X - means[c])
        distance = np.square(coordinates / s[: axes[c].n_axes]).sum(axis=1)
        if outside is not None:
            distance += np.square(outside / s[-1]).sum(axis=1)
        scores[:, c] = np.log(priors[c]) - np.log(s).sum() - distance / 2
    return scores


def check_table(estimator, X, y="no_validation", *, reset):
    """Validate samples, and labels if there are any, as scikit-learn does.

    Raises
    ------
    ValueError
        As scikit-learn, and for a torch Dataset.
    """
    if isinstance(X, Dataset) and not hasattr(X, "__array__"):  # one of ours speaks for itself
        raise ValueError(
            f"{type(estimator).__name__} needs its samples as a table in memory. Got a torch "
            "Dataset: use numpy.stack([x for x, _ in dataset]), and its labels as y."
        )
    X = as_array(X)
    refuse_unreal_values(X)
    return validate_data(estimator, X, y, dtype=[np.float64, np.float32], reset=reset)


class GaussianPredictionMixin:
    """Prediction with class densities fitted by an estimator."""

    def decision_function(self, X: ArrayLike) -> NDArray:
        """Log posterior odds, or log posteriors up to a common term.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        scores : ndarray of shape (n_samples,) or (n_samples, n_classes)
            With two classes, the log odds of the second against the first; otherwise one
            column per class, up to a term common to all classes of a sample.
        """
        self = as_now(self)
        check_is_fitted(self)
        X = check_table(self, X, reset=False)
        if not self._scatter.per_class:
            scores = X @ self.coef_.T + self.intercept_
            return scores[:, 0] if len(self.classes_) == 2 else scores
        scores = quadratic_scores(
            X, self._scatter.axes, self.means_, self.priors_, self.robust_std_
        )
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: ArrayLike) -> NDArray:
        """Predict the most probable class of each sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Class labels.
        """
        self = as_now(self)
        best = self._most_probable(X)
        return self.classes_[best]

    def _most_probable(self, X):
        """Position of the most probable class of each sample."""
        scores = self.decision_function(X)
        return (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Accuracy.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Samples.
        y : array-like of shape (n_samples,)
            As in `fit`. A label that was not seen in `fit` counts as wrong.
        sample_weight : array-like of shape (n_samples,), optional
            Weights in the mean, not negative; equal by default.

        Returns
        -------
        float
            In [0, 1].
        """
        self = as_now(self)
        predicted = self._most_probable(X)
        index = encode_labels(y, self.classes_, len(predicted), unknown="mark")
        return weighted_share(predicted == index, check_weight(sample_weight, len(index)))

    def predict_proba(self, X: ArrayLike) -> NDArray:
        """Posterior probabilities of the classes under the robust model.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            Columns in the order of ``classes_``.
        """
        self = as_now(self)
        return np.exp(self.predict_log_proba(X))

    def predict_log_proba(self, X: ArrayLike) -> NDArray:
        """Logarithm of :meth:`predict_proba`, accurate for tiny probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        log_probabilities : ndarray of shape (n_samples, n_classes)
            Columns in the order of ``classes_``.
        """
        self = as_now(self)
        scores = self.decision_function(X)
        if scores.ndim == 1:  # infinite where a class has no weight
            return np.column_stack([log_expit(-scores), log_expit(scores)])
        return log_softmax(scores, axis=1)

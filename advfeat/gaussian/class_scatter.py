"""Class means and principal axes within the classes, updatable batch by batch."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from advfeat.gaussian.principal_axes import PrincipalAxes, principal_axes, row_blocks


@dataclass
class ClassScatter:
    """First two moments of labelled samples.

    Attributes
    ----------
    weight : ndarray of shape (n_classes,)
        Sum of the sample weights of each class.
    mean : ndarray of shape (n_classes, n_features)
        Class means; zero for a class without samples.
    axes : list of PrincipalAxes
        Of the pooled within-class covariance (divisor n), or of each class's own.
    covariance_type : {"full", "diag", "spherical"}
        Constraint on the covariance.
    """

    weight: np.ndarray
    mean: np.ndarray
    axes: list
    covariance_type: str

    @classmethod
    def empty(cls, n_classes, n_features, *, covariance_type, per_class):
        """Moments of no samples at all."""
        vectors = np.zeros((0, n_features)) if covariance_type == "full" else None
        axes = [PrincipalAxes(np.zeros(n_features), vectors)] * (n_classes if per_class else 1)
        return cls(np.zeros(n_classes), np.zeros((n_classes, n_features)), axes, covariance_type)

    @property
    def groups(self):
        """Numbers of the classes that share each element of ``axes``."""
        return np.split(np.arange(len(self.weight)), len(self.axes))

    def members(self, y):
        """Rows of the samples of each of ``groups``, found in one sort; ``y`` as in `update`."""
        if not self.per_class:
            return [slice(None)]
        order = np.argsort(y, kind="stable")
        return np.split(order, np.searchsorted(y[order], np.arange(1, len(self.weight))))

    @property
    def per_class(self):
        """Whether every class has a covariance of its own."""
        return len(self.axes) > 1

    def check_kind(self, covariance_type, per_class):
        """Raise a ValueError if the moments are of another kind of covariance."""
        if (self.covariance_type, self.per_class) != (covariance_type, bool(per_class)):
            raise ValueError(
                "partial_fit goes on with the kind of covariance that it began with: "
                f"covariance_type={self.covariance_type!r}, per_class={self.per_class}. Got "
                f"covariance_type={covariance_type!r}, per_class={per_class}; call fit instead."
            )

    def update(self, X, y, sample_weight):
        """Moments of the samples so far and a further batch.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
            Samples.
        y : ndarray of shape (n_samples,)
            Class numbers, 0 .. n_classes - 1.
        sample_weight : ndarray of shape (n_samples,)
            Positive weights.

        Returns
        -------
        ClassScatter
            The new moments; this object does not change.
        """
        batch_weight = np.bincount(y, sample_weight, len(self.weight))
        batch_mean = _class_means(X, y, sample_weight, batch_weight)
        weight = self.weight + batch_weight
        share = batch_weight / np.where(weight > 0, weight, 1)
        seen = (self.weight > 0)[:, None]
        shift = np.where(seen, batch_mean - self.mean, 0.0)
        mean = np.where(seen, self.mean + share[:, None] * shift, batch_mean)
        # What the two sets of means add to the scatter, in rows.
        shift *= np.sqrt(self.weight * share)[:, None]

        axes = []
        for group, member, old in zip(self.groups, self.members(y), self.axes, strict=True):
            if not batch_weight[group].any():
                axes.append(old)
                continue
            total = weight[group].sum()
            old_root = np.sqrt(self.weight[group].sum() / total) * old.root
            extra = np.vstack([old_root, shift[group] / np.sqrt(total)])
            axes.append(
                principal_axes(
                    X[member],
                    y[member],
                    sample_weight[member] / total,
                    batch_mean,
                    extra[extra.any(axis=1)],
                    self.covariance_type,
                )
            )
        return ClassScatter(weight, mean, axes, self.covariance_type)


def _class_means(X, y, sample_weight, class_weight):
    """Weighted mean of each class, zero for a class without samples."""
    # Relative to one sample of the class: a feature that is constant within a class has
    # deviations of exactly zero, and a large common offset costs no digits.
    present, first = np.unique(y, return_index=True)
    origin = np.zeros((len(class_weight), X.shape[1]))
    origin[present] = X[first]
    total = np.zeros_like(origin)
    for rows in row_blocks(X):
        deviation = X[rows] - origin[y[rows]]
        place = y[rows], np.arange(len(deviation))  # sparse: classes may be many
        weights = csr_array((sample_weight[rows], place), shape=(len(total), len(deviation)))
        total += weights @ deviation
    return origin + total / np.where(class_weight > 0, class_weight, 1)[:, None]

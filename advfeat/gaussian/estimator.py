"""GaussianRobustMLE: robust maximum likelihood classification of Gaussians in closed form."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.metaestimators import available_if

from advfeat.gaussian.accuracy import GaussianAccuracyMixin
from advfeat.gaussian.class_scatter import ClassScatter
from advfeat.gaussian.discriminant import (
    GaussianPredictionMixin,
    check_table,
    class_priors,
    linear_discriminant,
)
from advfeat.gaussian.matrices import GaussianMatricesMixin
from advfeat.gaussian.pointwise import robust_std_of_samples
from advfeat.gaussian.robust_covariance import relaxation, robust_std
from advfeat.gaussian.theory import GaussianTheoryMixin
from advfeat.utils._estimator import EstimatorMixin, draft_of
from advfeat.utils._labels import check_classes, check_labels, encode_labels
from advfeat.utils._sklearn import (
    Interval,
    StrOptions,
    _check_partial_fit_first_call,
    _fit_context,
)
from advfeat.utils._warnings import warn_caller
from advfeat.utils._weight import check_weight

if TYPE_CHECKING:
    from typing_extensions import Self

# Relative error of the robust variances above which the average adversary is a poor stand-in.
_POOR_RELAXATION = 0.05


def _has_partial_fit(estimator):
    """Only the average adversary can do without the samples."""
    if estimator.adversary != "average":
        raise AttributeError(
            "partial_fit needs adversary='average'; the per-sample problem needs all samples."
        )
    return True


class GaussianRobustMLE(
    EstimatorMixin,
    GaussianTheoryMixin,
    GaussianAccuracyMixin,
    GaussianPredictionMixin,
    GaussianMatricesMixin,
    ClassifierMixin,
    BaseEstimator,
):
    r"""Linear discriminant analysis trained against an L2 adversary, in closed form.

    Each class is a Gaussian with its own mean and a common covariance, fitted by maximum
    likelihood while an adversary moves every training sample ``x`` by ``delta(x)`` so as to
    make it as unlikely as possible, with a budget of :math:`E\|\delta\|_2^2 = \epsilon^2`.
    The robust means are the ordinary ones. The robust covariance mixes the ordinary within-
    class covariance S with the identity, the metric of the adversary:

    .. math:: \Sigma_r = S/2 + I/\lambda + \sqrt{S/\lambda + S^2/4},

    where the budget fixes :math:`\lambda`. With ``eps=0`` this is linear discriminant
    analysis; as ``eps`` grows the classifier tends to the nearest class mean if all
    ``priors`` are equal, and else to the class with the largest one.

    Read more in the :doc:`user guide </gaussian>`.

    Parameters
    ----------
    eps : float, default=0.5
        Budget of the adversary: root mean square length of the perturbation, in the units
        of ``X`` (see ``relative_eps``). Zero means no adversary.
    relative_eps : bool, default=False
        Whether ``eps`` is a multiple of the total standard deviation within the classes,
        the square root of the covariance's trace.
    covariance_type : {"full", "diag", "spherical"}, default="full"
        Constraint on the covariance: none; diagonal; a multiple of the identity.
    per_class : bool, default=False
        Whether each class has a covariance of its own, as in quadratic discriminant
        analysis. The adversary then spends one budget over all classes, with one common
        ``lambda_``.
    adversary : {"average", "pointwise"}, default="average"
        What the budget bounds. "average": the mean of the squared lengths, which has a
        closed form and depends on the data through means and covariance only.
        "pointwise": the length of every single perturbation; solved numerically, and without
        ``partial_fit``. It keeps the class means and the principal axes of the data, which is
        exact for classes that are symmetric along each of these axes, such as Gaussians.
    priors : array-like of shape (n_classes,), default=None
        Class probabilities. ``None`` takes the (weighted) class frequencies. With ``per_class``
        others change the average adversary, too: its budget is the mean of the classes' with
        these weights, not that of the samples.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    class_count_ : ndarray of shape (n_classes,)
        Sum of the sample weights of each class.
    priors_ : ndarray of shape (n_classes,)
        Class probabilities.
    means_ : ndarray of shape (n_classes, n_features)
        Class means.
    covariance_ : ndarray of shape (n_features, n_features)
        Maximum likelihood covariance S within the classes, divisor n, under the constraint of
        ``covariance_type``, in the squared units of ``X``. This and the next three are
        (n_classes, n_features, n_features) if ``per_class``. They are computed on access, not
        stored.
    robust_covariance_ : ndarray of shape (n_features, n_features)
        Covariance of the robust model, :math:`\Sigma_r`.
    precision_ : ndarray of shape (n_features, n_features)
        Inverse of ``robust_covariance_`` (pseudo-inverse if it is singular).
    adversary_map_ : ndarray of shape (n_features, n_features)
        Linear map :math:`M = \Sigma_r^{1/2} S^{-1/2} - I` of the average adversary,
        ``delta(x) = M (x - mean)``. Missing for the pointwise one, and if the covariance is
        singular, where such a map cannot spend the budget.
    components_ : ndarray of shape (n_axes, n_features) or None
        Principal axes of ``covariance_``, as rows, by decreasing standard deviation;
        ``None`` when the axes are the features, that is, unless ``covariance_type="full"``.
        A list of one array per class if ``per_class``.
    std_ : ndarray of shape (n_features,)
        Standard deviations of the data along the axes, in the units of ``X``, zeros for the
        directions beyond ``components_`` last. Of shape (n_classes, n_features) if
        ``per_class``, as the next two.
    robust_std_ : ndarray of shape (n_features,)
        Standard deviations of the robust model along the same axes.
    adversary_std_ : ndarray of shape (n_features,)
        Root mean square of the perturbation along the same axes; with the average
        adversary it is ``robust_std_ - std_``, but accurate.
    eps_ : float
        Budget in the units of ``X``.
    lambda_ : float
        Lagrange multiplier of the budget, infinite for ``eps=0``; with the pointwise
        adversary, the mean of the samples' multipliers.
    n_iter_ : int
        Iterations of the root finder, or of L-BFGS for the pointwise adversary.
    d_eff_ : float
        Effective number of directions that share the budget, ``eps**4 / sum(delta**4)``. The
        variances of the two adversaries differ by ``O(1 / d_eff_)``.
    robust_nll_ : float
        Value of the game: mean negative log-likelihood of a sample, given its class, under
        the robust model and attack. With the pointwise adversary, on classes that are not
        symmetric, an upper bound of it.
    coef_ : ndarray of shape (1, n_features) or (n_classes, n_features)
        Weights of the linear decision function. Missing if ``per_class``.
    intercept_ : ndarray of shape (1,) or (n_classes,)
        Constants of the decision function. Missing if ``per_class``.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, if ``X`` has string names.

    See Also
    --------
    sklearn.discriminant_analysis.LinearDiscriminantAnalysis : The same with ``eps=0``.

    Notes
    -----
    The classes need not be symmetric around zero nor equally likely, as they are in the
    paper, and the covariance may be singular: directions without variance get the standard
    deviation ``lambda_ ** (-1/2)``. The solution for the average adversary holds for any data
    with these means and covariances, Gaussian or not; that for the pointwise one depends on the
    samples.

    References
    ----------
    Ilyas et al. 2019, "Adversarial Examples Are Not Bugs, They Are Features", Section 4 and
    Appendix E.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from advfeat import GaussianRobustMLE
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> standard = GaussianRobustMLE(eps=0).fit(X, y)
    >>> robust = GaussianRobustMLE(eps=0.1, relative_eps=True).fit(X, y)
    >>> standard.score(X, y) > robust.score(X, y) > 0.85
    True
    >>> robust.coef_.shape
    (1, 30)
    """

    _parameter_constraints: dict = {
        "eps": [Interval(Real, 0, None, closed="left")],
        "relative_eps": ["boolean"],
        "covariance_type": [StrOptions({"full", "diag", "spherical"})],
        "per_class": ["boolean"],
        "adversary": [StrOptions({"average", "pointwise"})],
        "priors": ["array-like", None],
    }

    def __init__(
        self,
        eps: float = 0.5,
        *,
        relative_eps: bool = False,
        covariance_type: str = "full",
        per_class: bool = False,
        adversary: str = "average",
        priors: ArrayLike | None = None,
    ) -> None:
        self.eps = eps
        self.relative_eps = relative_eps
        self.covariance_type = covariance_type
        self.per_class = per_class
        self.adversary = adversary
        self.priors = priors

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit the robust Gaussian model.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training data.
        y : array-like of shape (n_samples,)
            Class labels, of two classes at least.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights. A sample of weight zero adds nothing but its label to
            ``classes_``.

        Returns
        -------
        self : GaussianRobustMLE
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is out of its range, if there are fewer than two classes, if
            ``eps`` is zero and the model degenerate, or if data or ``eps`` are so large or
            so small that the covariance leaves the range of floating point.
        """
        with draft_of(self) as draft:
            X, y, sample_weight = draft._check_batch(X, y, sample_weight, reset=True)
            classes, y = np.unique(y, return_inverse=True)
            draft._begin(classes, X.shape[1])
            draft._update(X, y, sample_weight)
        return self

    @available_if(_has_partial_fit)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Update the model with a batch of samples.

        The result is that of :meth:`fit` on all samples so far, up to rounding: means and
        scatter are updated exactly, and the memory needed does not grow. With ``eps=0`` or
        ``relative_eps=True`` the first batch must do for a fit by itself.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            A batch of training data.
        y : array-like of shape (n_samples,)
            Class labels of the batch; they may be all the same.
        classes : array-like of shape (n_classes,), default=None
            All class labels that will ever occur; required on the first call.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights.

        Returns
        -------
        self : GaussianRobustMLE
            The updated estimator.

        Raises
        ------
        ValueError
            As :meth:`fit`, or if ``classes`` is missing on the first call, changes later, or
            lacks a label of ``y``.
        """
        self._validate_params()  # which scikit-learn leaves out once there is a fit
        with draft_of(self) as draft:
            _check_partial_fit_first_call(draft, check_classes(classes))
            first = not hasattr(draft, "_scatter")
            if not first:
                draft._scatter.check_kind(self.covariance_type, self.per_class)
            X, y, sample_weight = draft._check_batch(X, y, sample_weight, reset=first)
            index = encode_labels(y, draft.classes_, len(X))
            if first:
                draft._begin(draft.classes_, X.shape[1])
            draft._update(X, index, sample_weight)
        return self

    def _check_batch(self, X, y, sample_weight, reset):
        """Validate training data."""
        y = None if y is None else check_labels(y, None)  # None has scikit-learn's message
        X, y = check_table(self, X, y, reset=reset)
        weight = check_weight(sample_weight, len(X))
        so_far = 0.0 if reset else self._scatter.weight.sum()
        if weight.max() > (np.finfo(float).max - so_far) / len(weight):
            raise ValueError("Expected weights of a finite sum, got infinity. Rescale them.")
        return X, y, weight

    def _begin(self, classes, n_features):
        """State before the first sample."""
        if len(classes) < 2:
            raise ValueError(
                "GaussianRobustMLE needs samples of two classes at least. Got "
                f"{len(classes)} class instead."
            )
        for stale in ("coef_", "intercept_"):
            vars(self).pop(stale, None)
        self.classes_ = classes
        self._scatter = ClassScatter.empty(
            len(classes),
            n_features,
            covariance_type=self.covariance_type,
            per_class=self.per_class,
        )

    def _update(self, X, y, sample_weight):
        """Add samples with class numbers ``y``, then solve for the robust parameters."""
        counted = sample_weight > 0
        if not counted.all():
            X, y, sample_weight = X[counted], y[counted], sample_weight[counted]
        with np.errstate(over="ignore", invalid="ignore"):
            self._scatter = self._scatter.update(X, y, sample_weight)
            self.class_count_, self.means_ = self._scatter.weight, self._scatter.mean
            self.priors_ = class_priors(self.priors, self.class_count_)
            self._solve(X, y, sample_weight)
            self._check_range()

    def _solve(self, X, y, sample_weight):
        """Robust standard deviations, and what follows from them."""
        self._adversary = self.adversary
        std = np.array([axes.std for axes in self._scatter.axes])
        weights = self._axis_weights
        total = linalg.norm(np.sqrt(weights) * std.ravel())
        self.eps_ = float(self.eps) * (float(total) if self.relative_eps else 1.0)
        regular = std.all(axis=1) | (self.priors_ == 0) if self._scatter.per_class else std.any()
        if self.eps_ == 0 and not np.all(regular):
            raise ValueError(
                "GaussianRobustMLE with eps=0, or with relative_eps=True of no variance, needs "
                "variance within the classes: in some feature, or in every direction and class if "
                "per_class=True. Got a singular covariance; use a positive eps, not relative."
            )
        robust = robust_std(std.ravel(), self.eps_, weights=weights)
        d_eff, error = relaxation(robust, std.ravel(), weights)
        self.d_eff_ = float(d_eff)
        if self.adversary == "pointwise" and self.eps_ > 0:
            robust = robust_std_of_samples(X, y, sample_weight, self._scatter, self.eps_, robust)
        elif error > _POOR_RELAXATION:
            warn_caller(
                "The average adversary is a poor stand-in for one with a budget per sample: "
                f"only d_eff_ = {self.d_eff_:.2g} directions share the budget, and robust "
                f"variances differ by some {error:.0%}. Use adversary='pointwise' if every "
                "single perturbation is to be bounded.",
            )
        self.std_, self.robust_std_, self.adversary_std_ = (
            values.reshape(std.shape if self._scatter.per_class else -1)
            for values in (std, robust.std, robust.adversary_std)
        )
        share = getattr(robust, "share", None)
        self._share = None if share is None else share.reshape(std.shape)
        self.lambda_, self.n_iter_ = float(robust.lambda_), robust.n_iter
        counted = weights > 0
        with np.errstate(divide="ignore"):
            log_det = weights[counted] @ np.log(robust.std[counted])
        self.robust_nll_ = float(log_det + std.shape[1] * (1 + np.log(2 * np.pi)) / 2)
        if not self._scatter.per_class:
            self.coef_, self.intercept_ = linear_discriminant(
                self._scatter.axes[0], self.means_, self.priors_, self.robust_std_
            )

    def _check_range(self):
        """Refuse results that left the range of floating point."""
        variance = np.square(self.robust_std_.max())
        usable = np.finfo(float).tiny <= variance < np.inf
        usable &= bool(np.isfinite(getattr(self, "coef_", 0.0)).all())
        usable &= self.eps_ == 0 or 0 < self.lambda_ < np.inf
        if not usable:
            raise ValueError(
                "GaussianRobustMLE must be able to represent the robust covariance, its inverse "
                "and lambda_ in floating point. Got standard deviations from "
                f"{self.std_.min():.3g} to {self.std_.max():.3g} and a budget of "
                f"{self.eps_:.3g} instead; rescale 'X' or change 'eps'."
            )

    @property
    def _axis_weights(self):
        """Weight of each axis in the budget, for all covariances in one row."""
        return np.repeat(self.priors_ if self._scatter.per_class else 1.0, self.n_features_in_)

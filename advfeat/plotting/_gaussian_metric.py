"""Display of the metric that a Gaussian model has learned, in the plane (Figure 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from advfeat.plotting._plane import (
    check_constant,
    check_plane,
    check_plane_of,
    check_weights,
    draw_boundary,
    draw_samples,
)
from advfeat.plotting._style import COLORS, check_radius, dark, get_axes
from advfeat.utils._arrays import as_floats
from advfeat.utils._modules import refuse_module

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from typing_extensions import Self


class GaussianMetricDisplay:
    """The metric that a Gaussian model has learned, and the boundary that follows from it.

    Draws the samples, the difference of the class means, the decision boundary, the unit ball of
    the metric (``v' covariance^-1 v <= 1``) and, for comparison, the L2 ball of the same area. As
    the training budget grows the two balls become one and the boundary turns until it is
    perpendicular to the difference of the means.

    Parameters
    ----------
    X : array-like of shape (n, 2)
        Samples.
    y : array-like of shape (n,)
        Their labels, of two classes.
    means : array-like of shape (2, 2)
        Class means.
    covariance : array-like of shape (2, 2)
        Positive definite covariance of the model.
    coef : array-like of shape (2,)
        Weights of the linear score.
    intercept : float
        Constant of the linear score.
    eps : float
        Training budget, in input units.

    Attributes
    ----------
    metric_ball, l2_ball : ndarray of shape (n_points, 2)
        Closed outlines of the two balls around the midpoint of the class means.
    lines_ : dict of str to matplotlib artist
        "metric", "l2", "boundary" and "means".
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Raises
    ------
    ValueError
        If X and y are no samples with two features and of two classes, coef does not hold two
        weights, the covariance is not positive definite, or intercept or eps is not one number.

    See Also
    --------
    advfeat.GaussianRobustMLE : The model.

    References
    ----------
    Ilyas et al. 2019, Figure 4.

    Examples
    --------
    >>> import numpy as np
    >>> from advfeat import GaussianRobustMLE
    >>> from advfeat.plotting import GaussianMetricDisplay
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat([0, 1], 100)
    >>> X = rng.normal(size=(200, 2)) * [3, 1] + 4 * y[:, None]
    >>> model = GaussianRobustMLE(eps=2, adversary="pointwise").fit(X, y)
    >>> display = GaussianMetricDisplay.from_estimator(model, X, y)
    >>> display.ax_.get_title()
    'ε = 2'
    """

    def __init__(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        means: ArrayLike,
        covariance: ArrayLike,
        coef: ArrayLike,
        intercept: float,
        eps: float,
    ) -> None:
        self.X, self.y = check_plane(self, X, y)
        self.means = as_floats(means, "means")
        if self.means.shape != (2, 2) or not np.isfinite(self.means).all():
            raise ValueError(
                "means must have shape (2, 2), finite means of two features for two classes. "
                f"Got {means!r}."
            )
        self.covariance = as_floats(covariance, "covariance")
        self.coef = check_weights(coef, "coef")
        self.intercept = check_constant(intercept, "intercept")
        self.eps = check_radius(eps)
        angle = np.linspace(0, 2 * np.pi, 181)
        circle = np.column_stack([np.cos(angle), np.sin(angle)])
        try:
            root = _cholesky(self.covariance)
        except np.linalg.LinAlgError as error:
            raise ValueError(
                "The display needs a positive definite covariance of shape (2, 2). Got "
                f"{self.covariance.tolist()}; a model with a positive eps has one."
            ) from error
        center = self.means.mean(axis=0)
        self.metric_ball = center + circle @ root.T
        self.l2_ball = center + circle * np.sqrt(np.prod(np.diag(root)))

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: ArrayLike, y: ArrayLike, *, ax: Axes | None = None
    ) -> Self:
        """Draw a fitted model.

        Parameters
        ----------
        estimator : GaussianRobustMLE
            Fitted on two classes and two features, with ``per_class=False``.
        X : array-like of shape (n, 2)
            Samples to be shown; a data frame with its columns as in the fit.
        y : array-like of shape (n,)
            Their labels.
        ax : matplotlib Axes, default=None
            New axes by default.

        Returns
        -------
        GaussianMetricDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        NotFittedError
            If the model is not fitted.
        TypeError
            If it is no `GaussianRobustMLE`.
        ValueError
            If it has other than two classes, two features and one covariance, or one that is not
            positive definite; if a class has a prior of zero; if X and y are no samples with two
            features and of two classes; if the columns of a frame are not those of the fit, in
            their order.
        """
        refuse_module(estimator)
        check_is_fitted(estimator)
        if not hasattr(estimator, "robust_covariance_"):
            raise TypeError(
                f"{cls.__name__} needs a fitted GaussianRobustMLE, as it draws the metric that "
                f"this has learned. Got {type(estimator).__name__} instead."
            )
        if np.shape(estimator.means_) != (2, 2) or np.ndim(estimator.covariance_) > 2:
            raise ValueError(
                f"{cls.__name__} needs a model of two classes, two features and one covariance. "
                f"Got class means of shape {np.shape(estimator.means_)} and covariances of shape "
                f"{np.shape(estimator.covariance_)} instead."
            )
        if not np.all(estimator.priors_):
            raise ValueError(
                f"{cls.__name__} needs a model with a boundary. Got priors of "
                f"{estimator.priors_.tolist()}: a class of probability zero is never predicted."
            )
        X, y, _ = check_plane_of([estimator], X, y)
        display = cls(
            X,
            y,
            means=estimator.means_,
            covariance=estimator.robust_covariance_,
            coef=estimator.coef_[0],
            intercept=estimator.intercept_[0],
            eps=estimator.eps_,
        )
        return display.plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> Self:
        """Draw samples, balls, means and boundary.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            New axes by default.

        Returns
        -------
        self
        """
        ax = get_axes(f"{type(self).__name__}.plot", ax, (4, 4))
        draw_samples(ax, self.X, self.y)
        (metric,) = ax.plot(*self.metric_ball.T, color=COLORS[2], label="unit ball of the metric")
        (l2,) = ax.plot(*self.l2_ball.T, color=COLORS[2], ls=":", label="L2 ball of the same area")
        boundary = draw_boundary(
            ax, self.X, self.coef, self.intercept, dark(ax), "-", "decision boundary"
        )
        means = ax.quiver(
            *self.means[0],
            *(self.means[1] - self.means[0]),
            angles="xy",
            scale_units="xy",
            scale=1,
            width=0.012,
            color=COLORS[3],
            label="difference of the means",
            zorder=3,
        )
        ax.set_title(f"ε = {self.eps:g}")
        self.lines_ = {"metric": metric, "l2": l2, "boundary": boundary, "means": means}
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _cholesky(covariance):
    """Root of a covariance of two features; LinAlgError if it is none."""
    if covariance.shape != (2, 2) or not np.allclose(covariance, covariance.T, atol=0):
        raise np.linalg.LinAlgError("not symmetric")  # of which NumPy reads one half only
    return np.linalg.cholesky(covariance)

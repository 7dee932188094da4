"""Displays of linear decisions in the plane (Figures 4 and 13)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from advfeat.datasets._torch_data import unpack_data
from advfeat.plotting._style import (
    COLORS,
    SMALL,
    check_eps,
    check_mapping,
    get_axes,
    import_pyplot,
)
from advfeat.utils._checks import check_data
from advfeat.utils._labels import check_labels, encode_labels
from advfeat.utils._modules import refuse_module
from advfeat.utils._norms import norm_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from typing_extensions import Self

_SAMPLES = {"s": 6, "alpha": 0.35, "linewidths": 0}
_LINES = ("-", "--", "-.", ":")


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
        self.X, self.y = _check_plane(self, X, y)
        self.means = np.asarray(means, dtype=float)
        self.covariance = np.asarray(covariance, dtype=float)
        self.coef = _check_weights(coef, "coef")
        self.intercept = float(intercept)
        (self.eps,) = check_eps(eps).tolist()
        angle = np.linspace(0, 2 * np.pi, 181)
        circle = np.column_stack([np.cos(angle), np.sin(angle)])
        try:
            root = np.linalg.cholesky(self.covariance)
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
            Samples to be shown.
        y : array-like of shape (n,)
            Their labels.
        ax : matplotlib Axes, default=None
            New axes by default.

        Returns
        -------
        GaussianMetricDisplay

        Raises
        ------
        ValueError
            If the model has other than two classes, two features and one covariance.
        """
        refuse_module(estimator)
        check_is_fitted(estimator)
        if np.shape(estimator.means_) != (2, 2) or np.ndim(estimator.covariance_) > 2:
            raise ValueError(
                f"{cls.__name__} needs a model of two classes, two features and one covariance. "
                f"Got class means of shape {np.shape(estimator.means_)} and covariances of shape "
                f"{np.shape(estimator.covariance_)} instead."
            )
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
        _draw_samples(ax, self.X, self.y)
        (metric,) = ax.plot(*self.metric_ball.T, color=COLORS[2], label="unit ball of the metric")
        (l2,) = ax.plot(*self.l2_ball.T, color=COLORS[2], ls=":", label="L2 ball of the same area")
        boundary = _draw_boundary(
            ax, self.X, self.coef, self.intercept, _dark(ax), "-", "decision boundary"
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


class LinearBoundaryDisplay:
    """Linear decision boundaries of several classifiers on the same samples in the plane.

    The legend gives the share of the samples that each classifies correctly, and that which no
    perturbation within the budget can change; both are exact for a linear decision.

    Parameters
    ----------
    X : array-like of shape (n, 2)
        Samples.
    y : array-like of shape (n,)
        Their labels, of two classes.
    coef : mapping of str to array-like of shape (2,)
        For each classifier the weights of its score; positive scores stand for the second class.
    intercept : mapping of str to float
        For each classifier the constant of its score.
    eps : float
        Radius of the attack, in input units.
    norm : {2, numpy.inf}, default=2
        Norm of the attack.

    Attributes
    ----------
    accuracy, robust_accuracy : dict of str to float
        Shares of the samples.
    lines_ : dict of str to matplotlib Line2D
        The boundaries.
    balls_ : list of matplotlib Line2D
        Reach of the attack, around a sample in the middle of each class.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    References
    ----------
    Ilyas et al. 2019, Figure 13.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from advfeat.plotting import LinearBoundaryDisplay
    >>> X, y = np.array([[-2.0, 0.0], [-1.0, 1.0], [1.0, 0.0], [2.0, 1.0]]), [0, 0, 1, 1]
    >>> display = LinearBoundaryDisplay.from_estimators(
    ...     {"logistic loss": LogisticRegression().fit(X, y)}, X, y, eps=0.5
    ... )
    >>> display.accuracy, display.robust_accuracy
    ({'logistic loss': 1.0}, {'logistic loss': 1.0})
    """

    def __init__(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        coef: Mapping[str, ArrayLike],
        intercept: Mapping[str, float],
        eps: float,
        norm: float = 2,
    ) -> None:
        self.X, self.y = _check_plane(self, X, y)
        self.coef = {
            name: _check_weights(w, f"coef[{name!r}]")
            for name, w in check_mapping(coef, "coef").items()
        }
        self.intercept = {name: float(intercept[name]) for name in self.coef}
        (self.eps,), self.norm = check_eps(eps).tolist(), norm
        norm_name(norm)
        sign = np.where(self.y == np.unique(self.y)[1], 1, -1)
        self.accuracy, self.robust_accuracy = {}, {}
        for name, w in self.coef.items():
            margin = sign * (self.X @ w + self.intercept[name])
            reach = self.eps * np.linalg.norm(w, 2 if norm == 2 else 1)
            self.accuracy[name] = float(np.mean(margin > 0))
            self.robust_accuracy[name] = float(np.mean(margin > reach))

    @classmethod
    def from_estimators(
        cls,
        estimators: Mapping[str, Any],
        X: ArrayLike,
        y: ArrayLike,
        *,
        eps: float,
        norm: float = 2,
        ax: Axes | None = None,
    ) -> Self:
        """Draw the boundaries of fitted classifiers.

        Parameters
        ----------
        estimators : mapping of str to fitted classifier
            Each with a ``decision_function`` that is linear in ``X``; pipelines that scale the
            features first are such.
        X : array-like of shape (n, 2)
            Samples.
        y : array-like of shape (n,)
            Their labels.
        eps : float
            Radius of the attack, in input units.
        norm : {2, numpy.inf}, default=2
            Norm of the attack.
        ax : matplotlib Axes, default=None
            New axes by default.

        Returns
        -------
        LinearBoundaryDisplay

        Raises
        ------
        ValueError
            If a decision function is not linear, or y has other labels than the classifiers.
        """
        import_pyplot(f"{cls.__name__}.from_estimators")
        check_eps(eps)
        check_mapping(estimators, "estimators")
        X, y = _check_plane(next(iter(estimators.values())), X, y)
        coef, intercept = {}, {}
        for name, estimator in estimators.items():
            scores = estimator.decision_function(X.astype(np.float64))
            at_origin, *at_units = estimator.decision_function(np.eye(3, 2, k=-1))
            w = np.array(at_units) - at_origin
            linear = np.ndim(scores) == 1  # one score, for two classes
            if not (linear and np.allclose(X @ w + at_origin, scores, atol=1e-6 * np.ptp(scores))):
                raise ValueError(
                    f"{cls.__name__} needs a linear decision function, one score for two classes. "
                    f"That of {name!r} is not."
                )
            if hasattr(estimator, "classes_"):  # the scores are of the second of them
                encode_labels(y, np.asarray(estimator.classes_), len(X))
            coef[name], intercept[name] = w, at_origin
        return cls(X, y, coef=coef, intercept=intercept, eps=eps, norm=norm).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> Self:
        """Draw the samples and the boundaries.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            New axes by default.

        Returns
        -------
        self
        """
        ax = get_axes(f"{type(self).__name__}.plot", ax, (6.4, 3.6))
        _draw_samples(ax, self.X, self.y)
        corners = 360 if self.norm == 2 else 4
        angle = np.pi / 4 + 2 * np.pi * np.arange(corners + 1) / corners
        radius = self.eps if self.norm == 2 else self.eps * np.sqrt(2)
        ball = radius * np.column_stack([np.cos(angle), np.sin(angle)])
        self.balls_ = []
        for color, label in zip(COLORS, np.unique(self.y), strict=False):
            members = self.X[self.y == label]
            center = members[np.linalg.norm(members - members.mean(axis=0), axis=1).argmin()]
            self.balls_ += ax.plot(*(center + ball).T, color=color, lw=1)
        self.lines_ = {}
        colors = (*COLORS[2:], _dark(ax))
        for i, (name, w) in enumerate(self.coef.items()):
            self.lines_[name] = _draw_boundary(
                ax,
                self.X,
                w,
                self.intercept[name],
                colors[i % len(colors)],
                _LINES[i % len(_LINES)],
                f"{name}: {self.accuracy[name]:.0%}, attacked {self.robust_accuracy[name]:.0%}",
            )
        ax.set_title(f"Accuracy, {norm_name(self.norm)} attack with ε = {self.eps:g}")
        ax.legend(fontsize=SMALL, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1))
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _check_plane(owner, X, y):
    """Check samples with two features and labels of two classes."""
    X, y = unpack_data(owner, X, y)
    X = np.asarray(check_data(X, type(owner).__name__)[:])
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


def _check_weights(coef, name):
    """Two weights, also as a row like scikit-learn's ``coef_``."""
    coef = np.asarray(coef, dtype=float)
    if coef.shape not in ((2,), (1, 2)):
        raise ValueError(
            f"{name} must have shape (2,), one weight for each feature. Got {coef.shape}."
        )
    return coef.reshape(2)


def _draw_samples(ax, X, y):
    """Scatter the classes, on axes of equal scale."""
    for color, label in zip(COLORS, np.unique(y), strict=False):
        ax.scatter(*X[y == label].T, color=color, **_SAMPLES)
    ax.set_aspect("equal", adjustable="datalim")
    ax.spines[["top", "right"]].set_visible(False)


def _draw_boundary(ax, X, coef, intercept, color, style, label):
    """Draw the line where a score is zero, without moving the limits of the axes much."""
    center = X.mean(axis=0)
    foot = center - (center @ coef + intercept) / (coef @ coef) * coef
    along = np.array([-coef[1], coef[0]]) / np.linalg.norm(coef) * X.std()
    return ax.axline(foot, foot + along, color=color, ls=style, label=label)


def _dark(ax):
    """Return the colour of the axes, which contrasts with the background of any style."""
    return ax.spines["left"].get_edgecolor()

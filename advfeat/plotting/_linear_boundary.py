"""Display of linear decisions of several classifiers in the plane (Figure 13)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from advfeat.plotting._plane import (
    check_constant,
    check_plane,
    check_plane_of,
    check_weights,
    draw_boundary,
    draw_samples,
)
from advfeat.plotting._style import (
    COLORS,
    SMALL,
    check_axes,
    check_mapping,
    check_radius,
    dark,
    get_axes,
)
from advfeat.utils._labels import encode_labels
from advfeat.utils._norms import norm_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from typing_extensions import Self

_LINES = ("-", "--", "-.", ":")


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

    Raises
    ------
    ValueError
        If X and y are no samples with two features and of two classes, coef does not hold two
        weights, intercept lacks one of its names, an intercept or eps is not one number, or norm
        is another one.

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
        self.X, self.y = check_plane(self, X, y)
        self.coef = {
            name: check_weights(w, f"coef[{name!r}]")
            for name, w in check_mapping(coef, "coef").items()
        }
        check_mapping(intercept, "intercept")
        if any(name not in intercept for name in self.coef):
            raise ValueError(
                f"intercept must hold one number for each name of coef, {list(self.coef)}. Got "
                f"numbers for {list(intercept)}."
            )
        self.intercept = {
            name: check_constant(intercept[name], f"intercept[{name!r}]") for name in self.coef
        }
        self.eps, self.norm = check_radius(eps), norm
        norm_name(norm)
        second = self.y == np.unique(self.y)[1]
        self.accuracy, self.robust_accuracy = {}, {}
        for name, w in self.coef.items():
            score = self.X @ w + self.intercept[name]
            reach = self.eps * np.linalg.norm(w, 2 if norm == 2 else 1)
            # A score of zero stands for the first class, as in `predict`.
            right = np.where(second, score > 0, score <= 0)
            withstands = np.where(second, score > reach, score <= -reach)
            self.accuracy[name] = float(np.mean(right))
            self.robust_accuracy[name] = float(np.mean(withstands))

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
            Samples. Classifiers that were fitted on a data frame get one, with columns as there.
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
        ImportError
            If matplotlib is not installed.
        NotFittedError
            If a classifier is not fitted.
        TypeError
            If one has no decision function.
        ValueError
            If X and y are no samples with two features and of two classes; if the columns of a
            frame are not those of a fit, in their order; if a decision function is not linear;
            if y has other labels than the classifiers; if eps or norm is out of range; if ax is no
            Axes.
        """
        check_axes(f"{cls.__name__}.from_estimators", ax)
        eps = check_radius(eps)
        check_mapping(estimators, "estimators")
        X, y, as_given = check_plane_of(list(estimators.values()), X, y)
        coef, intercept = {}, {}
        # Asked near the samples: from far away, differences of scores would be lost to rounding.
        center, spread = X.mean(axis=0), np.ptp(X, axis=0)
        spread = np.where(spread > 0, spread, np.where(center != 0, np.abs(center), 1.0))
        probes = center + np.vstack([np.zeros(2), np.diag(spread)])
        for name, estimator in estimators.items():
            if not hasattr(estimator, "decision_function"):
                raise TypeError(
                    f"{cls.__name__} needs linear classifiers with a decision_function. Got "
                    f"{type(estimator).__name__} for {name!r}."
                )
            named = as_given if hasattr(estimator, "feature_names_in_") else np.asarray
            scores = np.asarray(estimator.decision_function(named(X)))
            if not np.isfinite(scores).all():
                raise ValueError(
                    f"{cls.__name__} needs finite scores. Those of {name!r} are not: has a class "
                    "a prior of zero?"
                )
            at_center, *others = np.asarray(estimator.decision_function(named(probes)))
            w = (np.array(others) - at_center).T / spread
            linear = scores.ndim == 1  # one score, for two classes
            if linear:
                found = (X - center) @ w + at_center
                linear = np.allclose(found, scores, atol=1e-6 * np.ptp(scores))
            if not linear:
                raise ValueError(
                    f"{cls.__name__} needs a linear decision function, one score for two classes. "
                    f"That of {name!r} is not."
                )
            if hasattr(estimator, "classes_"):  # the scores are of the second of them
                encode_labels(y, np.asarray(estimator.classes_), len(X))
            coef[name], intercept[name] = w, at_center - center @ w
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
        draw_samples(ax, self.X, self.y)
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
        colors = (*COLORS[2:], dark(ax))
        for i, (name, w) in enumerate(self.coef.items()):
            self.lines_[name] = draw_boundary(
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

"""AccuracyBarDisplay: standard and robust accuracy by training set (Figure 2b)."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from advfeat.attacks._adversarial_examples import ATTACK_DEFAULTS
from advfeat.attacks._attack import AttackTarget
from advfeat.datasets._torch_data import unpack_data
from advfeat.metrics import robust_accuracy_score
from advfeat.plotting._style import (
    COLORS,
    SMALL,
    check_accuracy,
    check_axes,
    check_eps,
    check_mapping,
    dark,
    describe,
    get_axes,
    style_accuracy_axis,
)
from advfeat.utils._norms import norm_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from typing_extensions import Self

_GROUP_WIDTH = 0.84  # of the distance between two training sets
_HEADROOM = 0.12  # of the y axis, for one row of the legend
_LEAST = 0.4  # of the y axis, for the bars, whatever the legend needs
_LEGEND_COLUMNS = 3
_NAME_WIDTH = 12  # characters


class AccuracyBarDisplay:
    """Accuracy and robust accuracy of classifiers, grouped by what they were trained on.

    Use `from_estimators` to attack fitted classifiers, or `from_predictions` for accuracies
    that are known already. With several seeds a bar is their mean and its error bar their
    standard deviation.

    Parameters
    ----------
    accuracy : mapping of str to array-like of shape (n_eps,) or (n_seeds, n_eps)
        For each training set the accuracies, in [0, 1].
    eps : float or array-like of shape (n_eps,)
        The radius, in input units, that each column belongs to; 0 is plain accuracy.
    norm : {2, numpy.inf}
        Norm of the attack; no default, as an accuracy without its norm says nothing.
    n_steps : int, default=None
        Steps of the attack.
    n_samples : int, default=None
        Number of test samples.

    Attributes
    ----------
    accuracy : dict of str to ndarray of shape (n_seeds, n_eps), float64
    eps : ndarray of shape (n_eps,), float64
    mean, std : ndarray of shape (n_sets, n_eps), float64
        Over the seeds; the standard deviation (n - 1 in the denominator) is 0 for one seed.
    bars_ : list of matplotlib BarContainer
        One for each eps.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Raises
    ------
    ValueError
        If shapes do not fit, or a value is out of range.

    See Also
    --------
    advfeat.robust_accuracy_score : The measure.

    References
    ----------
    Ilyas et al. 2019, Figures 2b and 12.

    Examples
    --------
    >>> from advfeat.plotting import AccuracyBarDisplay
    >>> display = AccuracyBarDisplay.from_predictions(
    ...     {"D": [[0.95, 0.02], [0.93, 0.04]], "D_R": [[0.85, 0.50], [0.83, 0.46]]},
    ...     eps=[0, 0.25],
    ...     norm=2,
    ... )
    >>> display.mean.round(2)
    array([[0.94, 0.03],
           [0.84, 0.48]])
    """

    def __init__(
        self,
        accuracy: Mapping[str, ArrayLike],
        *,
        eps: ArrayLike,
        norm: float,
        n_steps: int | None = None,
        n_samples: int | None = None,
    ) -> None:
        self.eps = check_eps(eps)
        self.accuracy = {
            name: _check_seeds(values, name, len(self.eps))
            for name, values in check_mapping(accuracy, "accuracy").items()
        }
        norm_name(norm)
        self.norm = norm
        self.n_steps = n_steps
        self.n_samples = n_samples
        runs = self.accuracy.values()
        self.mean = np.stack([run.mean(0) for run in runs])
        self.std = np.stack([run.std(0, ddof=int(len(run) > 1)) for run in runs])

    @classmethod
    def from_estimators(
        cls,
        estimators: Mapping[str, Any],
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        norm: float,
        eps: ArrayLike,
        ax: Axes | None = None,
        **attack: Any,
    ) -> Self:
        """Score classifiers on one test set and draw the bars.

        Parameters
        ----------
        estimators : mapping of str to fitted classifier, or to a list of them
            For each training set the classifier trained on it, or one for each seed.
        X : array-like of shape (n, d) or (n, C, H, W)
            The original, unmodified test set.
        y : array-like of shape (n,), default=None
            Their true labels; None for a torch Dataset given as X, which has its own.
        norm : {2, numpy.inf}
            Norm of the attack; no default, as an accuracy without its norm says nothing.
        eps : float or array-like
            Radii, in input units. Plain accuracy is drawn beside them.
        ax : matplotlib Axes, default=None
            New axes by default.
        **attack
            As in `robust_accuracy_score`.

        Returns
        -------
        AccuracyBarDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        NotFittedError
            If a classifier is not fitted.
        TypeError
            If no gradients can be had from a classifier, or for unknown keywords.
        ValueError
            If estimators is no mapping, or holds an empty list; for unusable X, y or settings, as
            in `robust_accuracy_score`; for radii that are infinite or given twice.

        Warns
        -----
        EvaluationWarning
            As `robust_accuracy_score`.
        """
        check_axes(f"{cls.__name__}.from_estimators", ax)
        eps = check_eps(eps)
        eps = np.concatenate([[0.0], eps[eps > 0]])
        groups = {
            name: group if isinstance(group, (list, tuple)) else [group]
            for name, group in check_mapping(estimators, "estimators").items()
        }
        for name, group in groups.items():
            if not group:
                raise ValueError(
                    f"estimators must hold one fitted classifier or more for each name. Got an "
                    f"empty list for {name!r}."
                )
        fitted = [estimator for group in groups.values() for estimator in group]
        X, y = unpack_data(fitted[0], X, y)
        settings = {**ATTACK_DEFAULTS, **attack}
        for estimator in fitted:  # before the first of many attacks
            AttackTarget.of(estimator, X, y, settings["precision"], settings["bounds"])
        accuracy = {
            name: [
                [
                    robust_accuracy_score(estimator, X, y, norm=norm, eps=radius, **attack)
                    for radius in eps.tolist()
                ]
                for estimator in group
            ]
            for name, group in groups.items()
        }
        return cls.from_predictions(
            accuracy,
            eps=eps,
            norm=norm,
            n_steps=settings["n_steps"],
            n_samples=np.shape(y)[0],
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls,
        accuracy: Mapping[str, ArrayLike],
        *,
        eps: ArrayLike,
        norm: float,
        n_steps: int | None = None,
        n_samples: int | None = None,
        ax: Axes | None = None,
    ) -> Self:
        """Draw bars of accuracies that are known already.

        Parameters
        ----------
        accuracy, eps, norm, n_steps, n_samples
            As in the class.
        ax : matplotlib Axes, default=None
            New axes by default.

        Returns
        -------
        AccuracyBarDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If shapes do not fit, or a value is out of range.
        """
        display = cls(accuracy, eps=eps, norm=norm, n_steps=n_steps, n_samples=n_samples)
        return display.plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> Self:
        """Draw the bars, with the mean in percent on each.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            New axes by default.

        Returns
        -------
        self
        """
        n_sets, n_eps = self.mean.shape
        width = max(3.6, 0.9 + 0.36 * n_sets * (n_eps + 1))
        ax = get_axes(f"{type(self).__name__}.plot", ax, (width, 3.4))
        bar_width = _GROUP_WIDTH / n_eps
        self.bars_ = []
        for j, eps in enumerate(self.eps):
            bars = ax.bar(
                np.arange(n_sets) + (j - (n_eps - 1) / 2) * bar_width,
                self.mean[:, j],
                bar_width * 0.94,
                yerr=self.std[:, j] if self.std.any() else None,
                color=COLORS[j % len(COLORS)],
                hatch=("", "//", "..", "xx")[j // len(COLORS) % 4],
                ecolor=dark(ax),
                label=f"{norm_name(self.norm)}, ε = {eps:g}" if eps else "no attack",
            )
            percent = [f"{100 * value:.0f}" for value in self.mean[:, j]]
            ax.bar_label(bars, percent, padding=1, fontsize=SMALL)
            self.bars_.append(bars)
        names = [
            textwrap.fill(str(name), _NAME_WIDTH, break_long_words=False) for name in self.accuracy
        ]
        ax.set_xticks(np.arange(n_sets), names)
        ax.tick_params(axis="x", length=0)
        settings = describe(self.norm, self.n_steps, self.n_samples)
        ax.set_xlabel(f"Training set\n{settings}")
        ax.set_ylabel("Test accuracy" + self._spread())
        rows = -(-n_eps // _LEGEND_COLUMNS)
        ax.set_ylim(0, 1.04 / max(_LEAST, 1 - _HEADROOM * rows))
        style_accuracy_axis(ax)
        ax.spines["left"].set_bounds(0, 1)
        ax.legend(
            loc="upper center",
            ncols=min(n_eps, _LEGEND_COLUMNS),
            frameon=False,
            fontsize=SMALL,
            handlelength=1,
            columnspacing=1.2,
            borderaxespad=0,
        )
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _spread(self):
        """Say what the error bars are, if there are any."""
        counts = {len(run) for run in self.accuracy.values()}
        if max(counts) == 1:
            return ""
        seeds = str(max(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
        return f"\nmean and SD of {seeds} seeds"


def _check_seeds(values, name, n_eps):
    array = np.atleast_2d(check_accuracy(values, f"The accuracy of {name!r}"))
    if array.ndim != 2 or array.shape[1] != n_eps or not len(array):
        raise ValueError(
            f"The accuracy of {name!r} must have shape (n_eps,) or (n_seeds, n_eps) with "
            f"n_eps = {n_eps}, the number of eps. Got shape {np.shape(values)}."
        )
    return array

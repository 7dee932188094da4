"""RobustnessCurveDisplay: accuracy as the perturbation may grow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from advfeat.attacks._adversarial_examples import ATTACK_DEFAULTS
from advfeat.datasets._torch_data import unpack_data
from advfeat.metrics import robust_accuracy_curve
from advfeat.plotting._style import (
    COLORS,
    MARKERS,
    SMALL,
    check_accuracy,
    check_axes,
    check_eps,
    describe,
    get_axes,
    import_pyplot,
    style_accuracy_axis,
)
from advfeat.utils._norms import norm_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from typing_extensions import Self

_OF_PLOT = {"scalex", "scaley", "data"}  # what Axes.plot takes beside a line's keywords
_MARGIN = 0.03  # of the axes, by which a marker may reach out of them


class RobustnessCurveDisplay:
    """Accuracy under attack over the radius eps.

    Use `from_estimator` to attack a fitted classifier, or `from_predictions` for accuracies
    that are known already. Pass ``ax`` to draw several curves on one axis; a curve whose
    settings differ from those on the axis' label names its own in the legend.

    Parameters
    ----------
    eps : array-like of shape (n_eps,)
        Radii, in input units. They are drawn in ascending order.
    accuracy : array-like of shape (n_eps,)
        In [0, 1].
    norm : {2, numpy.inf}
        Norm of the attack; no default, as an accuracy without its norm says nothing.
    name : str, default=None
        Legend entry.
    n_steps : int, default=None
        Steps of the attack.
    n_samples : int, default=None
        Number of test samples.

    Attributes
    ----------
    eps, accuracy : ndarray of shape (n_eps,), float64
        In ascending order of eps.
    line_ : matplotlib Line2D
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Raises
    ------
    ValueError
        If lengths differ, or a value is out of range.

    See Also
    --------
    advfeat.robust_accuracy_curve : The accuracies without the picture.

    References
    ----------
    Ilyas et al. 2019, Appendix D.2 (evaluation under strong attacks).

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from advfeat.datasets import load_digits
    >>> from advfeat.plotting import RobustnessCurveDisplay
    >>> X, y = load_digits(split="test", return_X_y=True)
    >>> X = X.reshape(len(X), -1)
    >>> clf = LogisticRegression(max_iter=500).fit(X[:300], y[:300])
    >>> display = RobustnessCurveDisplay.from_estimator(
    ...     clf, X[300:], y[300:], norm=2, eps_values=[0, 0.25, 0.5], n_steps=5
    ... )
    >>> display.accuracy.shape
    (3,)
    """

    def __init__(
        self,
        *,
        eps: ArrayLike,
        accuracy: ArrayLike,
        norm: float,
        name: str | None = None,
        n_steps: int | None = None,
        n_samples: int | None = None,
    ) -> None:
        eps, accuracy = check_eps(eps), check_accuracy(accuracy, "accuracy")
        if accuracy.shape != eps.shape:
            raise ValueError(
                "accuracy must hold one value for each eps: expected shape "
                f"{eps.shape}, got {accuracy.shape}."
            )
        norm_name(norm)
        order = np.argsort(eps)
        self.eps = eps[order]
        self.accuracy = accuracy[order]
        self.norm = norm
        self.name = name
        self.n_steps = n_steps
        self.n_samples = n_samples

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        norm: float,
        eps_values: ArrayLike,
        name: str | None = None,
        ax: Axes | None = None,
        **attack: Any,
    ) -> Self:
        """Attack a classifier at each radius and draw its curve.

        The accuracies are those of `robust_accuracy_curve`.

        Parameters
        ----------
        estimator : fitted classifier
            See `adversarial_examples`.
        X : array-like of shape (n, d) or (n, C, H, W)
            Test samples, in input units (images in [0, 1], or uint8).
        y : array-like of shape (n,), default=None
            Their true labels; None for a torch Dataset given as X, which has its own.
        norm : {2, numpy.inf}
            Norm of the attack; no default, as an accuracy without its norm says nothing.
        eps_values : array-like of shape (n_eps,)
            Radii, in input units; 0 gives plain accuracy.
        name : str, default=None
            Legend entry; the estimator's class name by default.
        ax : matplotlib Axes, default=None
            New axes by default.
        **attack
            ``n_steps``, ``n_restarts``, ``random_state``, ``verbose`` and the other keywords of
            `adversarial_examples`.

        Returns
        -------
        RobustnessCurveDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        NotFittedError
            If the classifier is not fitted.
        TypeError
            If no gradients can be had from the classifier, or for unknown keywords.
        ValueError
            For unusable X, y or settings, as in `robust_accuracy_curve`; also for radii that are
            infinite or given twice, and for an ax that is no Axes. Nothing is attacked then.

        Warns
        -----
        EvaluationWarning
            As `robust_accuracy_curve`.
        """
        check_axes(f"{cls.__name__}.from_estimator", ax)
        eps = np.sort(check_eps(eps_values, "eps_values"))
        X, y = unpack_data(estimator, X, y)
        return cls.from_predictions(
            eps,
            robust_accuracy_curve(estimator, X, y, norm=norm, eps_values=eps, **attack),
            norm=norm,
            name=type(estimator).__name__ if name is None else name,
            n_steps={**ATTACK_DEFAULTS, **attack}["n_steps"],
            n_samples=np.shape(y)[0],
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls,
        eps: ArrayLike,
        accuracy: ArrayLike,
        *,
        norm: float,
        name: str | None = None,
        n_steps: int | None = None,
        n_samples: int | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw a curve of accuracies that are known already.

        Parameters
        ----------
        eps, accuracy, norm, name, n_steps, n_samples
            As in the class.
        ax : matplotlib Axes, default=None
            New axes by default.
        **kwargs
            Passed to matplotlib's ``Axes.plot``.

        Returns
        -------
        RobustnessCurveDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If lengths differ, or a value is out of range.
        """
        display = cls(
            eps=eps, accuracy=accuracy, norm=norm, name=name, n_steps=n_steps, n_samples=n_samples
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, *, ax: Axes | None = None, name: str | None = None, **kwargs: Any) -> Self:
        """Draw the curve.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            New axes by default. On axes that hold curves, the next colour and marker are taken.
        name : str, default=None
            Legend entry; the stored one by default.
        **kwargs
            Passed to matplotlib's ``Axes.plot``.

        Returns
        -------
        self
        """
        import_pyplot(f"{type(self).__name__}.plot")
        from matplotlib.cbook import normalize_kwargs
        from matplotlib.lines import Line2D
        from matplotlib.transforms import Bbox, TransformedBbox

        kwargs = normalize_kwargs(kwargs, Line2D)
        # Before there are axes: a wrong keyword leaves no empty figure.
        Line2D([], []).set(**{key: kwargs[key] for key in kwargs.keys() - _OF_PLOT})
        ax = get_axes(f"{type(self).__name__}.plot", ax, (4.8, 3.4))
        settings = describe(self.norm, self.n_steps, self.n_samples)
        axis_label = f"ε (input units)\n{settings}"
        label = self.name if name is None else name
        label = label if label is None else str(label)  # of a list matplotlib makes several
        if not ax.get_xlabel():
            ax.set_xlabel(axis_label)
        elif ax.get_xlabel() != axis_label:
            label = settings if label is None else f"{label} ({settings})"
        i = len(ax.lines)
        style = {
            "color": COLORS[i % len(COLORS)],
            "marker": MARKERS[i % len(MARKERS)],
            "markersize": 4,
            "linestyle": ("-", "--", ":", "-.")[i // len(COLORS) % 4],
            "label": label,
            "zorder": 3,
        }
        (self.line_,) = ax.plot(self.eps, self.accuracy, **{**style, **kwargs})
        # Markers at 0 % and at eps = 0 stay whole.
        around = Bbox.from_extents(-_MARGIN, -_MARGIN, 1 + _MARGIN, 1 + _MARGIN)
        self.line_.set_clip_path(None)
        self.line_.set_clip_box(TransformedBbox(around, ax.transAxes))
        ax.set_ylim(0, 1)
        if ax.get_xscale() == "linear":
            ax.set_xlim(left=min(0, self.eps[0]), auto=None)  # the right end follows all curves
        ax.set_ylabel("Accuracy under attack")
        style_accuracy_axis(ax)
        if ax.get_legend_handles_labels()[0]:
            ax.legend(edgecolor="none", framealpha=0.8, fontsize=SMALL)
        self.ax_, self.figure_ = ax, ax.figure
        return self

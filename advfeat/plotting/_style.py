"""What all displays share: matplotlib's import, colours, axes and the words for an attack."""

from collections.abc import Mapping

import numpy as np

from advfeat.utils._arrays import as_array, as_floats
from advfeat.utils._norms import norm_name

# Okabe and Ito's palette, which the common colour vision deficiencies leave distinct. Yellow is
# left out, too pale for thin lines on white, and black, unseen on dark styles.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
SMALL = 8  # points


_NOT_FLAT = {"polar", "3d", "aitoff", "hammer", "lambert", "mollweide"}  # kinds of axes


def import_pyplot(caller):
    """Return matplotlib.pyplot.

    Raises
    ------
    ImportError
        If matplotlib is not installed; names the caller and the command that installs it.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f'{caller} needs matplotlib. Install it with: pip install "advfeat[plots]"'
        ) from error
    return plt


def check_axes(caller, ax):
    """Raise an error unless there is matplotlib, and ax is None or axes to draw in.

    Raises
    ------
    ImportError
        As `import_pyplot`.
    ValueError
        For several axes, a figure, or axes that are polar or three-dimensional.
    """
    import_pyplot(caller)
    from matplotlib.axes import Axes

    if ax is None or (isinstance(ax, Axes) and ax.name not in _NOT_FLAT):
        return
    got = f"{ax.name} axes" if isinstance(ax, Axes) else type(ax).__name__
    if isinstance(ax, np.ndarray):
        got = f"an array of {ax.size}"
    raise ValueError(
        "ax must be one matplotlib Axes with x and y at right angles, such as plt.subplots()[1], "
        f"or None for new ones. Got {got}."
    )


def get_axes(caller, ax, figsize):
    """Return ax once it is checked, or new axes of the given size in inches."""
    check_axes(caller, ax)
    plt = import_pyplot(caller)
    if ax is None:
        _, ax = plt.subplots(figsize=figsize, layout="constrained")
    return ax


def style_accuracy_axis(ax):
    """Percent on y, a light horizontal grid behind the data, no box."""
    from matplotlib.ticker import PercentFormatter

    ax.set_yticks(np.linspace(0, 1, 6))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.grid(axis="y", alpha=0.4, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def dark(ax):
    """Return the colour of the axes, which contrasts with the background of any style."""
    return ax.spines["left"].get_edgecolor()


def describe(norm, n_steps, n_samples):
    """Return the settings as one phrase; those that are None are left out."""
    parts = [norm_name(norm) + " attack"]
    if n_steps is not None:
        parts.append(f"{n_steps} step{'' if n_steps == 1 else 's'}")
    if n_samples is not None:
        parts.append(f"n = {n_samples}")
    return ", ".join(parts)


def check_accuracy(accuracy, name):
    """Return accuracy as a float array.

    Raises
    ------
    ValueError
        If a value lies outside [0, 1] or is not a number.
    """
    accuracy = as_floats(accuracy, name)
    if not np.all((accuracy >= 0) & (accuracy <= 1)):
        raise ValueError(
            f"{name} must be a share of the samples, in [0, 1]. Got "
            + (
                f"values from {accuracy.min():g} to {accuracy.max():g}; divide percentages by 100."
                if np.isfinite(accuracy).all()
                else f"{accuracy}."
            )
        )
    return accuracy


def check_eps(eps, name="eps"):
    """Return eps as a float array of shape (n_eps,).

    Raises
    ------
    ValueError
        If there is none, or one is negative, infinite, not a number or given twice.
    """
    values = np.atleast_1d(as_floats(eps, name))
    valid = values.ndim == 1 and values.size and np.all(np.isfinite(values) & (values >= 0))
    if not valid or len(np.unique(values)) < len(values):
        raise ValueError(
            f"{name} must be one or more different, finite, non-negative numbers, in input units. "
            f"Got {eps!r} instead."
        )
    return values


def one_number(value):
    """Return the one number of a scalar or of an array of any shape; NaN for all else."""
    try:
        numbers = np.asarray(as_array(value), dtype=np.float64)
    except (TypeError, ValueError):
        return np.nan
    return numbers.item() if numbers.size == 1 else np.nan


def check_radius(eps):
    """Return eps, which must be one radius, as a float.

    Raises
    ------
    ValueError
        If it is several, or negative, infinite or no number.
    """
    radius = one_number(eps)
    if not 0 <= radius < np.inf:
        raise ValueError(
            f"eps must be one finite, non-negative number, in input units. Got {eps!r} instead."
        )
    return radius


def check_mapping(value, name):
    """Return value if it is a mapping that is not empty, and raise a ValueError otherwise."""
    if not isinstance(value, Mapping) or not value:
        got = "an empty one" if isinstance(value, Mapping) else type(value).__name__
        raise ValueError(
            f"{name} must be a mapping from the name of each set, such as "
            f"{{'D': ..., 'D_R': ...}}. Got {got} instead."
        )
    return value

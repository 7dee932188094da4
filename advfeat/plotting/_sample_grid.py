"""SampleGridDisplay: the same samples in several constructed sets (Figure 2a)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state
from torch.utils.data import Dataset

from advfeat.datasets._constructed import ConstructedDataset
from advfeat.datasets._torch_data import split_dataset
from advfeat.plotting._style import SMALL, check_mapping, get_axes, import_pyplot
from advfeat.utils._arrays import as_array
from advfeat.utils._checks import check_data, refuse_loaders
from advfeat.utils._labels import check_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from typing_extensions import Self

_CELL = 0.8  # inches from one image to the next
_GAP = 0.08  # between images, in widths of an image
_LINE = 0.2  # height of one line of a label, in widths of an image
_LONG = 12  # characters that fit under an image
_SLACK = 1e-3  # values this far outside of [0, 1] are rounding; no eye sees it


class SampleGridDisplay:
    """Images of several sets, one row for each set and one column for each sample.

    Use `from_datasets` to draw random samples of whole sets.

    Parameters
    ----------
    images : mapping of str to array-like of shape (n, C, H, W)
        For each set its images: floats in [0, 1] or uint8, grey (C = 1) or RGB (C = 3).
        Column i must show the same sample in each set.
    labels : mapping of str to sequence of n str or numbers, default=None
        Texts to write under the images, for those sets that have some; numbers become text.
    indices : array-like of shape (n,), default=None
        Where the samples lie in the sets that they were drawn from; kept for reference.

    Attributes
    ----------
    images : dict of str to ndarray of shape (n, C, H, W)
    labels : dict of str to list of str
    indices : ndarray of shape (n,), or None
    images_ : ndarray of shape (n_sets, n) of matplotlib AxesImage
    texts_ : list of matplotlib Text
        The labels, row by row.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Raises
    ------
    ValueError
        If a set is no batch of images, or if numbers of samples or of labels differ.

    References
    ----------
    Ilyas et al. 2019, Figures 2a, 7, 9 and 11.

    Examples
    --------
    >>> from advfeat.datasets import load_digits
    >>> from advfeat.plotting import SampleGridDisplay
    >>> X, y = load_digits(split="test", return_X_y=True)
    >>> display = SampleGridDisplay.from_datasets(
    ...     {"D": X, "negative": 1 - X}, y=y, n_samples=3, random_state=0
    ... )
    >>> display.images_.shape
    (2, 3)
    """

    def __init__(
        self,
        images: Mapping[str, ArrayLike],
        *,
        labels: Mapping[str, Sequence[Any]] | None = None,
        indices: ArrayLike | None = None,
    ) -> None:
        self.images = {
            name: _check_images(values, name)
            for name, values in check_mapping(images, "images").items()
        }
        labels = {} if labels is None else labels
        if not (isinstance(labels, Mapping) and all(np.ndim(t) == 1 for t in labels.values())):
            raise ValueError(
                "labels must be a mapping from names of sets to lists of texts, one for each "
                f"image. Got {labels!r} instead."
            )
        self.labels = {
            name: [str(text) for text in as_array(texts)] for name, texts in labels.items()
        }
        self.indices = None if indices is None else np.asarray(indices)
        _check_lengths(self.images)
        n = len(next(iter(self.images.values())))
        for name, texts in self.labels.items():
            if name not in self.images or len(texts) != n:
                raise ValueError(
                    f"labels must hold {n} texts, one for each image, for sets among "
                    f"{list(self.images)}. Got {len(texts)} for {name!r}."
                )

    @classmethod
    def from_datasets(
        cls,
        datasets: Mapping[str, Any],
        *,
        y: ArrayLike | None = None,
        class_names: Sequence[str] | Mapping[Any, str] | None = None,
        n_samples: int = 8,
        random_state: int | np.random.RandomState | None = None,
        ax: Axes | None = None,
    ) -> Self:
        """Draw random samples, the same in each set.

        Parameters
        ----------
        datasets : mapping of str to array-like of shape (n, C, H, W), or torch Dataset
            The original set first, then the sets made from it, in the same order of samples.
            Labels that a Dataset has of its own are written under its images, those of a
            `ConstructedDataset` as "true → label".
        y : array-like of shape (n,), default=None
            Labels of the original set. If given, they are written under the images of all sets
            without labels of their own, and compared with what constructed ones were made from.
        class_names : array-like of shape (n_classes,) or mapping, default=None
            Texts for the labels, in sorted order of the labels, or by label.
        n_samples : int, default=8
            Number of columns; more than ten or so get small on a page.
        random_state : int, RandomState or None, default=None
            Which samples are drawn.
        ax : matplotlib Axes, default=None
            New axes by default.

        Returns
        -------
        SampleGridDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If a set is no batch of images, lengths differ, y is not what a set was constructed
            from, ``n_samples`` is not from 1 to the number of samples, or class names are not one
            for each label, or given for labels that are text in some sets and numbers in others.
        """
        import_pyplot(f"{cls.__name__}.from_datasets")
        check_mapping(datasets, "datasets")
        sets = {name: _unpack(data, cls.__name__) for name, data in datasets.items()}
        inputs = {name: X for name, (X, _, _) in sets.items()}
        _check_lengths(inputs)
        n = len(next(iter(inputs.values())))
        if not isinstance(n_samples, Integral) or not 1 <= n_samples <= n:
            raise ValueError(
                f"n_samples must be an integer in 1..{n}, the number of samples. Got "
                f"{n_samples!r} instead."
            )
        y = None if y is None else check_labels(y, n)
        _check_labels(y, sets)
        rows = np.sort(check_random_state(random_state).choice(n, n_samples, replace=False))
        text = _label_texts(y, datasets, sets, class_names)
        labels = {}
        for name, (_, new, source) in sets.items():
            if source is not None:
                pairs = zip(source[rows].tolist(), new[rows].tolist(), strict=True)
                labels[name] = [f"{text[true]} → {text[label]}" for true, label in pairs]
            elif (own := y if new is None else new) is not None:
                labels[name] = [text[true] for true in own[rows].tolist()]
        images = {name: np.asarray(X[rows]) for name, X in inputs.items()}
        return cls(images, labels=labels, indices=rows).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> Self:
        """Draw the grid.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            New axes, of a size that suits the grid, by default.

        Returns
        -------
        self
        """
        sets = list(self.images.values())
        n = len(sets[0])
        labels = {name: _wrap(texts) for name, texts in self.labels.items()}
        aspect = [X.shape[2] / X.shape[3] for X in sets]
        n_lines = [
            max((text.count("\n") + 1 for text in labels.get(name, [])), default=0)
            for name in self.images
        ]
        heights = np.add(aspect, _LINE * np.array(n_lines)) + _GAP
        tops = np.concatenate([[0], np.cumsum(heights)])
        caller = f"{type(self).__name__}.plot"
        import_pyplot(caller)
        figsize = (
            0.2 + _widest(self.images) + _CELL * (1 + _GAP) * n,
            0.1 + _CELL * tops[-1],
        )
        ax = get_axes(caller, ax, figsize)
        self.images_ = np.empty((len(sets), n), dtype=object)
        self.texts_ = []
        for i, (name, X) in enumerate(self.images.items()):
            for j, image in enumerate(X):
                left, bottom = j * (1 + _GAP), tops[i] + aspect[i]
                self.images_[i, j] = ax.imshow(
                    _as_picture(image),
                    cmap="gray",
                    interpolation="nearest",
                    vmin=0,
                    vmax=255 if image.dtype == np.uint8 else 1,
                    extent=(left, left + 1, bottom, tops[i]),
                )
                if name in labels:
                    text = ax.text(
                        left + 0.5, bottom + 0.03, labels[name][j],
                        ha="center", va="top", fontsize=SMALL - 1, linespacing=1,
                    )  # fmt: skip
                    self.texts_.append(text)
        ax.set_anchor("W")  # otherwise constrained layout leaves too little room for the names
        ax.set_xlim(0, n * (1 + _GAP) - _GAP)
        ax.set_ylim(tops[-1], 0)
        ax.set_xticks([])
        ax.set_yticks(tops[:-1] + np.array(aspect) / 2, list(map(str, self.images)))
        ax.tick_params(axis="y", length=0)
        ax.grid(False)  # which some styles draw across the images
        ax.spines[:].set_visible(False)
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _as_picture(image):
    """Turn (C, H, W) into what imshow takes: (H, W) or (H, W, 3)."""
    if image.dtype != np.uint8:
        image = image.clip(0, 1).astype(np.float32)  # older matplotlibs take no float16
    return image[0] if len(image) == 1 else image.transpose(1, 2, 0)


def _widest(names):
    """Width of the longest name, in inches, in matplotlib's current font."""
    from matplotlib.textpath import TextPath

    shown = [str(name) for name in names if str(name).strip()]
    return max((TextPath((0, 0), name).get_extents().width / 72 for name in shown), default=0)


def _wrap(texts):
    """Break each "true → label" of a row into two lines if one of them needs it."""
    if max(map(len, texts)) <= _LONG:
        return texts
    return [text.replace(" → ", "\n→ ") for text in texts]


def _unpack(data, owner):
    """Images of a set, and the labels and the source labels that it has of its own, or None."""
    refuse_loaders(data)
    own = (None, None)
    if isinstance(data, Dataset):
        data, *own = split_dataset(data)
    return check_data(data, owner, bounds=None, channels="first"), *own


def _label_texts(y, datasets, sets, class_names):
    """Map each label that occurs to its text."""
    parts = [data.classes for data in datasets.values() if isinstance(data, ConstructedDataset)]
    parts += [labels for _, *own in sets.values() for labels in (*own, y) if labels is not None]
    found = {label for part in parts for label in part.tolist()}
    # Apart, as NumPy makes text of numbers beside text.
    numbers = sorted(label for label in found if not isinstance(label, str))
    words = sorted(label for label in found if isinstance(label, str))
    classes = numbers + words
    if class_names is None:
        return {label: str(label) for label in classes}
    if isinstance(class_names, Mapping) and set(classes) <= set(class_names):
        return {label: str(class_names[label]) for label in classes}
    if numbers and words:
        raise ValueError(
            "class_names must name labels of one type, all text or all numbers. Got both, "
            f"{classes}; leave class_names out, or give all sets labels of one type."
        )
    if isinstance(class_names, (Mapping, Set)) or len(class_names) != len(classes):
        named = list(class_names)
        got = f"{len(named)} names" if not isinstance(class_names, Mapping) else f"one of {named}"
        raise ValueError(
            f"class_names must hold one name for each label, {classes}, in this order, or be a "
            f"mapping from labels. Got {got}."
        )
    return dict(zip(classes, map(str, class_names), strict=True))


def _check_labels(y, sets):
    if y is None:
        return
    for name, (_, new, source) in sets.items():
        if source is not None and not np.array_equal(source, y):
            raise ValueError(
                f"The set {name!r} was constructed from other labels than y, which must be its "
                "y_source: pass the y that it was constructed from, in the same order."
            )
        if source is None and new is not None and not np.array_equal(new, y):
            raise ValueError(
                f"The torch Dataset {name!r} yields its own labels, so y must be None, or the "
                "same labels."
            )


def _check_lengths(sets):
    lengths = {name: len(X) for name, X in sets.items()}
    first = next(iter(lengths))
    for name, length in lengths.items():
        if length != lengths[first]:
            raise ValueError(
                f"All sets must show the same samples, but {first!r} has {lengths[first]} and "
                f"{name!r} has {length}. Pass the sets before rows are dropped or reordered."
            )


def _check_images(X, name):
    X = np.asarray(as_array(X))
    if X.ndim != 4 or X.shape[1] not in (1, 3) or 0 in X.shape:
        hint = ""
        if X.ndim == 4 and X.shape[3] in (1, 3):
            hint = " This looks like channels last: use X.transpose(0, 3, 1, 2)."
        raise ValueError(
            f"The set {name!r} must hold images of shape (n, C, H, W) with C = 1 or 3. Got shape "
            f"{X.shape}.{hint}"
        )
    if X.dtype != np.uint8 and not (X.min() >= -_SLACK and X.max() <= 1 + _SLACK):
        raise ValueError(
            f"The images of {name!r} must be floats in [0, 1] or uint8. Got {X.dtype} from "
            f"{X.min():g} to {X.max():g}."
        )
    # All that matplotlib draws; uint8 alone stands for 0..255.
    return X if X.dtype in (np.uint8, np.float16, np.float32, np.float64) else X.astype(np.float32)

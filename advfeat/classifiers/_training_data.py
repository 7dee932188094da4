"""From what a user hands to ``fit`` to the samples, class indices and weights of a training."""

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from skorch.dataset import Dataset

from advfeat.datasets._torch_data import unpack_data
from advfeat.utils._bounds import is_unit_box, resolve_bounds
from advfeat.utils._checks import check_inputs, take_batch
from advfeat.utils._device import on_accelerator
from advfeat.utils._errors import shortened
from advfeat.utils._labels import check_classes, check_labels, encode_labels, positions_of
from advfeat.utils._lazy import SelectedRows
from advfeat.utils._random import make_rng
from advfeat.utils._units import InUnits
from advfeat.utils._weight import check_weight

_STATISTICS_BYTES = 2**25  # of float64 values at a time


class ArrayDataset(Dataset):
    """Some rows of an array with their labels and weights; the array itself is never copied.

    One of skorch's, so that its callbacks find the rows as `X` and their class indices as `y`.

    Parameters
    ----------
    source : array-like of shape (n_all, ...), float32 or uint8
        An array, a memory map, or whatever else gives rows by index.
    y : ndarray of shape (n,), int64
        Class indices.
    sample_weight : ndarray of shape (n,), float32
        Scaled to a mean of 1.
    rows : ndarray of shape (n,), default=None
        Which rows of it, in increasing order; all by default.

    Attributes
    ----------
    validation : ArrayDataset or None
        What was set aside to judge the training with.
    """

    validation = None

    def __init__(self, source, y, sample_weight, rows=None):
        self.source, self.y, self.rows = source, y, rows
        self._uploaded = {}  # by device
        share = sample_weight / sample_weight.max()  # of which the mean cannot overflow
        self.sample_weight = (share / share.mean()).astype(np.float32)

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return self.source[i if self.rows is None else self.rows[i]], self.y[i]

    @property
    def X(self):
        """The rows, as float32 in the units of the network; read when they are asked for."""
        rows = self.source if self.rows is None else SelectedRows(self.source, self.rows)
        return InUnits(rows) if rows.dtype == np.uint8 else rows

    def inputs(self, positions, device, source=None):
        """Read the inputs at some positions (a slice or an increasing index array), as float32.

        ``source`` stands in for the data set's own, where a copy lies on the device.
        """
        source = self.source if source is None else source
        return take_batch(source, positions if self.rows is None else self.rows[positions], device)

    def subset(self, positions):
        """Take the samples at some positions, in increasing order."""
        rows = positions if self.rows is None else self.rows[positions]
        part = ArrayDataset(self.source, self.y[positions], self.sample_weight[positions], rows)
        part._uploaded = self._uploaded
        return part

    def source_on(self, device):
        """Put the samples on an accelerator if they fit, once for training and validation."""
        if device not in self._uploaded:
            self._uploaded[device] = on_accelerator(self.source, device)
        return self._uploaded[device]

    def with_validation(self, fraction, seed):
        """Set aside a share of the samples, the same of every class, as `validation`."""
        try:
            parts = train_test_split(
                np.arange(len(self)),
                test_size=fraction,
                stratify=self.y,
                random_state=int(make_rng(seed, 4).integers(2**31)),
            )
        except ValueError as error:
            raise ValueError(
                f"early_stopping=True sets aside validation_fraction={fraction} of the "
                f"{len(self)} samples, some of every class, which is not possible here: {error} "
                "Pass more samples, another validation_fraction, or early_stopping=False."
            ) from error
        training, validation = (self.subset(np.sort(part)) for part in parts)
        training.validation = validation
        return training


def check_training_data(estimator, X, y, sample_weight, *, reset, classes=None, whole=True):
    """Check the data of a fit and return them as an `ArrayDataset`.

    Parameters
    ----------
    estimator : StandardClassifier
        Gets ``classes_``, ``input_shape_`` and the like when ``reset`` is true; otherwise the data
        are compared with them.
    X, y, sample_weight
        As in `StandardClassifier.fit`.
    reset : bool
        Whether this is a fit from the beginning.
    classes : array-like, optional
        All labels that will ever occur.
    whole : bool, default=True
        Whether these are all the data. If not, a class weighs the same whatever comes with it.

    Raises
    ------
    ValueError
        If they cannot be used.
    """
    X, y = unpack_data(estimator, X, y)
    X = check_inputs(
        estimator, X, reset=reset, bounds=estimator.bounds, channels=estimator.channels
    )
    y = check_labels(y, len(X))
    _check_augmentation(estimator, X)
    weight = check_weight(sample_weight, len(X))
    _check_classes(estimator, y, classes, reset)
    index = encode_labels(y, estimator.classes_, len(y))
    of_class = _class_weights(estimator, index, weight)
    used = (weight > 0) & (of_class[index] > 0)
    if not used.any():
        raise ValueError(f"class_weight={estimator.class_weight} leaves no sample with a weight.")
    rows = None if used.all() else np.flatnonzero(used)
    weight, index = weight[used], index[used]
    if whole:
        return ArrayDataset(X, index, weight * of_class[index], rows)
    data = ArrayDataset(X, index, weight, rows)
    share = of_class / of_class.max()  # of which the mean cannot overflow
    data.sample_weight *= (share / share.mean()).astype(np.float32)[index]
    return data


def _check_augmentation(estimator, X):
    kind = estimator.augmentation
    if kind == "none":
        return
    if X.ndim != 4:
        raise ValueError(
            f"augmentation={kind!r} needs images of shape (n, C, H, W), got X of shape "
            f"{X.shape}. Use augmentation='none'."
        )
    if not is_unit_box(resolve_bounds(estimator.bounds, X.shape[1:])):
        raise ValueError(
            f"augmentation={kind!r} is made for images in [0, 1]. Got "
            f"bounds={estimator.bounds!r}; rescale X, or use augmentation='none'."
        )


def _check_classes(estimator, y, classes, reset):
    name, seen = type(estimator).__name__, np.unique(y)
    classes = check_classes(classes)
    # Each class belongs to a logit, of a trained network as of one that was fitted.
    known = getattr(estimator.network, "classes_", None) if reset else estimator.classes_
    if classes is not None and known is not None and not np.array_equal(classes, known):
        whose = "the trained network" if reset else "the first call"
        raise ValueError(f"classes must be those of {whose}, {known}. Got {classes}.")
    if reset:
        given = next(given for given in (known, classes, seen) if given is not None)
        estimator.classes_ = given.copy()  # not the trained network's own
        if len(estimator.classes_) < 2:
            raise ValueError(
                f"{name} needs samples of at least 2 classes, but "
                f"{'y' if classes is None else 'classes'} contains only one class: "
                f"{estimator.classes_.tolist()[0]!r}."
            )


def _class_weights(estimator, index, weight):
    """Weight of every class, in the order of ``classes_``."""
    given, classes = estimator.class_weight, estimator.classes_
    if given is None:
        return np.ones(len(classes))
    if isinstance(given, str):  # "balanced", as in scikit-learn, with weights for counts
        total = np.bincount(index, weight, minlength=len(classes))
        return weight.sum() / (np.count_nonzero(total) * np.where(total > 0, total, 1))
    places = positions_of(given, classes)
    unknown = [label for label, place in zip(given, places, strict=True) if place < 0]
    missing = [label for i, label in enumerate(classes.tolist()) if i not in places]
    if unknown and missing:  # a fold may lack a class that is named
        raise ValueError(
            f"The 'class_weight' parameter of {type(estimator).__name__} has no weight for "
            f"{_listed(missing)}, and names {_listed(unknown)}, which is none of the classes."
        )
    try:
        every = [float(weight) for weight in given.values()]
    except (TypeError, ValueError, OverflowError):
        every = [np.nan]
    if not all(0 <= weight < np.inf for weight in every):
        raise ValueError(
            f"The 'class_weight' parameter of {type(estimator).__name__} must have finite values "
            f"of at least 0. Got {given} instead."
        )
    weights = dict(zip(places, every, strict=True))
    return np.array([weights.get(i, 1.0) for i in range(len(classes))])


def _listed(labels):
    return shortened(list(map(repr, labels)))  # 1 and "1" are two labels


def input_statistics(data):
    """Weighted mean and standard deviation per feature, or per channel for images.

    Parameters
    ----------
    data : ArrayDataset
        Its rows are read in pieces.

    Returns
    -------
    mean, std : tensor, float32
        Broadcastable to one sample, in input units.
    """
    shape = data.source.shape[1:]
    groups = (shape[0], -1)  # features or channels, and the values of each in one sample
    size = max(1, min(4096, _STATISTICS_BYTES // (8 * int(np.prod(shape)))))
    scale = 255 if data.source.dtype == np.uint8 else 1
    centre = None
    total = square = 0.0
    for i in range(0, len(data), size):
        cut = slice(i, i + size)
        part = data.source[cut if data.rows is None else data.rows[cut]]
        part = np.asarray(part, dtype=np.float64)
        part = part.reshape(len(part), *groups)
        if centre is None:
            centre = part.mean((0, 2))  # near the mean, so that little is lost by cancellation
        part = part - centre[:, None]
        weight = data.sample_weight[cut].astype(np.float64)
        total = total + np.einsum("n,ncp->c", weight, part)
        square = square + np.einsum("n,ncp,ncp->c", weight, part, part)
    n = data.sample_weight.sum(dtype=np.float64) * part.shape[2]
    shift = total / n
    mean, std = centre + shift, np.sqrt(np.maximum(square / n - shift**2, 0))
    std[std <= 1e-7 * np.abs(mean)] = scale  # constant up to rounding: leave it as it is
    as_sample = (shape[0], *[1] * (len(shape) - 1))
    return tuple(
        torch.from_numpy((value / scale).astype(np.float32)).reshape(as_sample)
        for value in (mean, std)
    )

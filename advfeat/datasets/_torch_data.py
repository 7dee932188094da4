"""Training data as they come: arrays, constructed sets, torch Datasets."""

import numpy as np
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from advfeat.datasets._constructed import CarriedLabel, ConstructedDataset
from advfeat.utils._arrays import as_array, refuse_pairs
from advfeat.utils._checks import refuse_loaders
from advfeat.utils._labels import ravel_column
from advfeat.utils._lazy import DatasetArray, item_of
from advfeat.utils._progress import progress_bar
from advfeat.utils._units import ItemsInUnits


def unpack_data(estimator, X, y):
    """Return (X, y); see `unpack_labelled_data`."""
    return unpack_labelled_data(estimator, X, y)[:2]


def unpack_labelled_data(estimator, X, y):
    """Unpack arrays, a ConstructedDataset or a torch Dataset.

    Returns
    -------
    X : array-like of shape (n, ...)
        Inputs of a torch Dataset come as a lazy array, those of a ConstructedDataset with its
        feature names.
    y : array-like of shape (n,)
        The labels to train on.
    y_source : ndarray of shape (n,), or None
        For constructed sets the labels of the samples that X was made from.

    Raises
    ------
    ValueError
        If y is missing, or is not what a ConstructedDataset was made from.
    """
    refuse_loaders(X)
    refuse_pairs(X)
    if isinstance(X, Dataset):
        X, labels, source = split_dataset(X, verbose=getattr(estimator, "verbose", 0))
        if y is not None:
            _check_given(y, labels, source)
        return X, labels, source
    if y is None:
        if hasattr(estimator, "__array__") or isinstance(estimator, (list, tuple)):
            raise ValueError(
                f"The first argument must be a fitted classifier. Got {type(estimator).__name__}: "
                "an attack needs the classifier, not its predictions. For searches take "
                "make_robust_scorer, not sklearn's make_scorer."
            )
        # Of another library: neither an array nor a frame.
        foreign = hasattr(X, "__getitem__") and not isinstance(X, (str, list, tuple, dict))
        if foreign and not (hasattr(X, "__array__") or hasattr(X, "columns")):
            raise ValueError(
                f"Got a {type(X).__name__} without y, which is no torch Dataset. Wrap it in a "
                "torch.utils.data.Dataset whose items are (input, label) pairs."
            )
        raise ValueError(
            f"{type(estimator).__name__} requires y to be passed, but the target y is None."
        )
    return X, y, None


def classes_of(dataset, labels):
    """Classes of a Dataset with these labels: a constructed set knows some that do not occur."""
    if isinstance(dataset, ConstructedDataset):
        return dataset.classes
    if type(dataset) is Subset:
        return classes_of(dataset.dataset, labels)
    if type(dataset) is ConcatDataset:
        parts = [part for part in dataset.datasets if _holds_constructed(part)]
        return np.unique(np.concatenate([labels, *(classes_of(part, labels) for part in parts)]))
    return np.unique(labels)


def inputs_of(X):
    """Return the inputs of a ConstructedDataset, or a part, with feature names, all else as is."""
    X = part_of_constructed(X)
    return X.inputs if isinstance(X, ConstructedDataset) else X


def refuse_constructed(X, owner):
    """Raise a ValueError for a ConstructedDataset, or parts of one, given as data to predict."""
    if _holds_constructed(X):
        raise ValueError(
            f"{owner} got a ConstructedDataset to predict. It is training data that carries its "
            "own labels; its inputs alone are data.inputs. If this comes from a meta-estimator or "
            "a scorer inside a Pipeline, behind a relabeler (such as CalibratedClassifierCV or "
            "GridSearchCV), put it around the whole Pipeline instead: there it would compare "
            "predictions with the labels before the relabelling."
        )


def _holds_constructed(X):
    if type(X) is ConcatDataset:
        return any(map(_holds_constructed, X.datasets))
    if type(X) is Subset:
        return _holds_constructed(X.dataset)
    return isinstance(X, ConstructedDataset)


def part_of_constructed(dataset):
    """Turn torch's own Subset of a ConstructedDataset into one; all else as it is."""
    whole, rows = dataset, None
    while type(whole) is Subset:
        rows = whole.indices if rows is None else [whole.indices[i] for i in rows]
        whole = whole.dataset
    if rows is None or not isinstance(whole, ConstructedDataset):
        return dataset
    return whole[list(rows)]


def split_dataset(dataset, verbose=0):
    """Split a map-style torch Dataset into inputs, read when they are needed, and labels.

    Returns
    -------
    X : ndarray or lazy array of shape (n, ...)
    y : ndarray of shape (n,)
    y_source : ndarray of shape (n,), or None
        For constructed sets the labels of the samples that X was made from.
    """
    dataset = part_of_constructed(dataset)
    if isinstance(dataset, ConstructedDataset):
        return dataset.inputs, dataset.y, dataset.y_source
    X = DatasetArray(dataset)
    y, source = _labels(dataset, verbose)
    return X, y, source


def _check_given(y, labels, source):
    """Compare a y that was given beside a data set with the one that it has."""
    given = ravel_column(np.asarray(as_array(y)))
    if source is None:
        if not np.array_equal(given, labels):
            raise ValueError(
                "A torch Dataset yields its own labels, so y must be None, or the same labels. "
                f"Got y of type {type(y).__name__} that differs from them."
            )
        return
    if not np.array_equal(given, source):
        raise ValueError(
            "The y given with a ConstructedDataset must be its y_source (the labels it was "
            "constructed from), or None: it carries the labels to train on. Got "
            f"{given.size} labels that differ from its {len(source)} source labels. "
            "A Pipeline can hold one NonRobustRelabeler only, and behind it no meta-estimator "
            "that trains on other labels (as OneVsRestClassifier does): put that around it."
        )


def _labels(dataset, verbose):
    """Labels of all samples, and of what they were made from where a part was constructed."""
    if isinstance(dataset, ConstructedDataset):
        return dataset.y, dataset.y_source
    if type(dataset) is ItemsInUnits:
        return _labels(dataset.dataset, verbose)
    # Subclasses may change the labels, so only torch's own are looked into.
    if type(dataset) is Subset:
        y, source = _labels(dataset.dataset, verbose)
        rows = np.asarray(dataset.indices, dtype=np.intp)
        return y[rows], None if source is None else source[rows]
    if type(dataset) is ConcatDataset:
        parts = [_labels(part, verbose) for part in dataset.datasets]
        if all(source is None for _, source in parts):
            return _joined([y for y, _ in parts]), None
        sources = [y if source is None else source for y, source in parts]
        return _joined([y for y, _ in parts]), _joined(sources)
    targets = _known_targets(dataset)
    return (targets, None) if targets is not None else _read_labels(dataset, verbose)


def _known_targets(dataset):
    """Labels as torchvision's data sets list them, if these are the labels of the items."""
    targets = getattr(dataset, "targets", None)
    # A class of one's own may yield other labels than it lists.
    known = type(dataset).__module__.startswith(("torchvision.datasets.", "advfeat."))
    if targets is None or not known or getattr(dataset, "target_transform", None) is not None:
        return None
    for name in ("samples", "imgs"):  # which items are read from, where there is such a list
        if hasattr(dataset, name):
            targets = [label for _, label in getattr(dataset, name)]
            break
    targets = np.asarray(targets.cpu() if isinstance(targets, torch.Tensor) else targets)
    n = len(dataset)
    if targets.shape != (n,) or targets.dtype.kind == "O":
        return None
    for i in {0, n // 2, n - 1}:
        label = _label(item_of(dataset, i), i)
        if isinstance(label, CarriedLabel) or label != targets[i]:
            return None
    return targets


def _read_labels(dataset, verbose):
    """Read every item once, for its label."""
    n, labels = len(dataset), []
    with progress_bar(total=n, desc="reading labels", unit="sample", verbose=verbose) as bar:
        for i in range(n):
            labels.append(_label(item_of(dataset, i), i))
            bar.update()
    constructed = [isinstance(label, CarriedLabel) for label in labels]
    if not any(constructed):
        # NumPy would make text of numbers and NaN beside text.
        mixed = len({isinstance(label, str) for label in labels}) > 1
        return np.array(labels, dtype=object if mixed else None), None
    if not all(constructed):
        raise ValueError(
            "A torch Dataset yields labels of a constructed set and others. Join the two with "
            "torch.utils.data.ConcatDataset, so that it can be told which is which."
        )
    y = np.asarray([label.label for label in labels])
    return y, np.asarray([label.source for label in labels])


def _label(item, i):
    if not (isinstance(item, (tuple, list)) and len(item) == 2):
        raise ValueError(
            "A torch Dataset given as X must yield (input, label) pairs. "
            f"Got {type(item).__name__} at index {i} instead."
        )
    label = item[1]
    if isinstance(label, CarriedLabel):
        return label
    label = np.asarray(label.detach().cpu() if isinstance(label, torch.Tensor) else label)
    if label.size != 1:
        raise ValueError(
            "A torch Dataset given as X must yield one label with each input. "
            f"Got an array of shape {label.shape} at index {i}."
        )
    return label.item()


def _joined(parts):
    kinds = {"text" if part.dtype.kind in "SUO" else "numbers" for part in parts}
    if len(kinds) > 1:
        raise ValueError(
            "The parts of a ConcatDataset must have labels of one kind. Got text in some and "
            "numbers in others."
        )
    return np.concatenate(parts)

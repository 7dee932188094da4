"""ConstructedDataset: a training set whose labels were changed together with its inputs."""

import numpy as np
import torch
from torch.utils.data import Dataset

from advfeat.utils._checks import load_dataset


class ConstructedDataset(Dataset):
    """Inputs and the labels that belong to them, as a map-style torch Dataset.

    scikit-learn's Pipeline hands the original y to its last step. A set whose labels were changed
    must therefore carry them itself. advfeat's classifiers and skorch nets train on the labels it
    carries; every other estimator is refused, because it would silently learn the wrong ones.

    Items are (input, class index): a float32 tensor in input units, and the position of the new
    label in ``classes``.

    Parameters
    ----------
    X : ndarray of shape (n, d) or (n, C, H, W), float32
    y : ndarray of shape (n,)
        The labels to train on.
    y_source : ndarray of shape (n,)
        The labels of the samples that X was made from.
    classes : ndarray of shape (n_classes,)
        All labels, sorted.

    Attributes
    ----------
    X, y, y_source, classes

    Raises
    ------
    ValueError
        If lengths differ or a label is not among the classes.

    References
    ----------
    Ilyas et al. 2019, Section 3.2 (D_rand and D_det).

    Examples
    --------
    >>> import numpy as np
    >>> from advfeat import ConstructedDataset
    >>> X = np.zeros((3, 2), dtype=np.float32)
    >>> data = ConstructedDataset(X, ["b", "a", "b"], y_source=["a", "a", "b"], classes=["a", "b"])
    >>> len(data), data[0]
    (3, (tensor([0., 0.]), 1))
    """

    def __init__(self, X, y, y_source, classes):
        self.X = X
        self.y = np.asarray(y)
        self.y_source = np.asarray(y_source)
        self.classes = np.asarray(classes)
        if not len(self.X) == len(self.y) == len(self.y_source):
            raise ValueError(
                "X, y and y_source must have one length. Got "
                f"{len(self.X)}, {len(self.y)} and {len(self.y_source)}."
            )
        if not np.array_equal(self.classes, np.unique(self.classes)):
            raise ValueError(f"classes must be sorted and without repeats. Got {self.classes}.")
        unknown = np.setdiff1d(self.y, self.classes)
        if len(unknown):
            raise ValueError(f"y contains labels that are not in classes: {unknown}.")

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        index = int(np.searchsorted(self.classes, self.y[i]))
        return torch.from_numpy(np.array(self.X[i])), index

    def __repr__(self):
        moved = np.mean(self.y != self.y_source) if len(self) else 0.0
        return (
            f"ConstructedDataset(n={len(self)}, sample shape={tuple(self.X.shape[1:])}, "
            f"n_classes={len(self.classes)}, relabelled={moved:.1%})"
        )

    def _refuse(self):
        # Not a TypeError or an AttributeError: scikit-learn takes those for a hint to go on.
        raise ValueError(
            "A ConstructedDataset carries its own labels; end the pipeline with an advfeat or "
            "skorch classifier. For anything else than fitting one of these (another estimator, "
            "predict, score, splitting) use the arrays data.X and data.y."
        )

    @property
    def shape(self):
        """Refused, see the class."""
        self._refuse()

    def __array__(self, dtype=None, copy=None):
        self._refuse()


def unpack_training_data(estimator, X, y):
    """Return (X, y) to train on, from arrays, a ConstructedDataset or a torch Dataset.

    Raises
    ------
    ValueError
        If y is missing, or is not what a ConstructedDataset was made from.
    """
    if isinstance(X, ConstructedDataset):
        if y is not None and not np.array_equal(np.asarray(y), X.y_source):
            raise ValueError(
                "The y given with a ConstructedDataset must be its y_source (the labels it was "
                "constructed from), or None: it carries the labels to train on. Got "
                f"{len(np.atleast_1d(y))} labels that differ from its {len(X)} source labels. "
                "A Pipeline can hold one NonRobustRelabeler only."
            )
        return X.X, X.y
    if isinstance(X, Dataset):
        if y is not None:
            raise ValueError(
                "A torch Dataset yields its own labels, so y must be None. Got y of type "
                f"{type(y).__name__}."
            )
        return load_dataset(X)
    if y is None:
        raise ValueError(
            f"{type(estimator).__name__} requires y to be passed, but the target y is None."
        )
    return X, y

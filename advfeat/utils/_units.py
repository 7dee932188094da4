"""uint8 images in the units of all others, floats in [0, 1], scaled when they are read."""

import numpy as np
import torch
from torch.utils.data import Dataset

from advfeat.utils._arrays import as_array
from advfeat.utils._lazy import LazyArray, lazy


def images_in_units(X):
    """Return uint8 images as floats in [0, 1], those in files lazily; all else as it is."""
    if isinstance(X, torch.Tensor):
        return X.float() / 255 if X.dtype == torch.uint8 and X.ndim == 4 else X
    if getattr(X, "ndim", 0) != 4 or X.dtype != np.uint8:
        return X
    if isinstance(X, (LazyArray, np.memmap)):
        return InUnits(X)
    return X.astype(np.float32) / np.float32(255)


class InUnits(LazyArray):
    """Rows of uint8 images as floats in [0, 1].

    Parameters
    ----------
    X : memory map or LazyArray of uint8
    """

    def __init__(self, X):
        super().__init__(X.shape, np.float32)
        self.X = X

    def _read(self, rows):
        return images_in_units(np.asarray(self.X[rows]))


def items_in_units(dataset):
    """Return a Dataset whose uint8 images are floats in [0, 1]; all others as they are."""
    inputs = lazy(dataset)
    of_bytes = getattr(inputs, "ndim", 0) == 4 and inputs.dtype == np.uint8
    return ItemsInUnits(dataset) if of_bytes else dataset


class ItemsInUnits(Dataset):
    """Items of a Dataset of uint8 images, with the images as floats in [0, 1]."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, i):
        item = self.dataset[i]
        image, *rest = item if isinstance(item, (tuple, list)) else (item,)
        image = torch.from_numpy(np.asarray(as_array(image), dtype=np.float32) / np.float32(255))
        return (image, *rest) if isinstance(item, (tuple, list)) else image

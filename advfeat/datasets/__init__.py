"""Data sets: loaders, and generators whose robust and non-robust features are known.

One interface for all of them, the one of `sklearn.datasets`:

* A function returns a :class:`sklearn.utils.Bunch` with ``data`` (float32 in [0, 1] or uint8 in
  0..255 for images of shape (n, C, H, W)), ``target`` (int64, shape (n,)) and ``target_names``
  (array: ``target_names[target]`` gives names). ``return_X_y=True`` gives the pair
  ``(data, target)`` instead.
* ``split`` chooses the training or the test part.
* ``load_*`` reads what is already on this machine, ``fetch_*`` can download when asked to, and
  ``make_*`` draws synthetic data. Importing this package reads and downloads nothing.
"""

from advfeat.datasets._cifar import fetch_cifar10
from advfeat.datasets._constructed import ConstructedDataset
from advfeat.datasets._digits import load_digits
from advfeat.datasets._image_folder import load_image_folder
from advfeat.datasets._planted import make_planted_features, make_planted_images
from advfeat.datasets._released import dump_released_set, load_released_set
from advfeat.datasets._restricted_imagenet import (
    RESTRICTED_IMAGENET_RANGES,
    RestrictedImageNet,
    load_restricted_imagenet,
)

__all__ = [
    "RESTRICTED_IMAGENET_RANGES",
    "ConstructedDataset",
    "RestrictedImageNet",
    "dump_released_set",
    "fetch_cifar10",
    "load_digits",
    "load_image_folder",
    "load_released_set",
    "load_restricted_imagenet",
    "make_planted_features",
    "make_planted_images",
]

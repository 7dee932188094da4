"""Restricted ImageNet: nine super-classes of ILSVRC2012."""

import os
from numbers import Integral
from typing import Any

import numpy as np

from advfeat.datasets._bunch import as_bunch
from advfeat.datasets._class_folders import find_class_folders, find_split, list_image_files
from advfeat.datasets._decoding import MAX_PIXELS
from advfeat.datasets._image_files import ImageFiles, read_array
from advfeat.datasets._image_folder import READ_CONSTRAINTS
from advfeat.utils._sklearn import Interval, StrOptions, validate_params
from advfeat.utils._typing import PathOrStr, RandomState

#: First and last ImageNet class (both included) of every super-class, Ilyas et al. 2019, Table 2.
RESTRICTED_IMAGENET_RANGES = {
    "dog": (151, 268),
    "cat": (281, 285),
    "frog": (30, 32),
    "turtle": (33, 37),
    "bird": (80, 100),
    "primate": (365, 382),
    "fish": (389, 397),
    "crab": (118, 121),
    "insect": (300, 319),
}

# WordNet ids of the first and last class of each range in ILSVRC2012. Another choice of 1000
# classes (ILSVRC2010, say) or a renamed folder would otherwise shift the ranges silently.
_RANGE_ENDS = {
    "dog": ("n02085620", "n02113978"),
    "cat": ("n02123045", "n02124075"),
    "frog": ("n01641577", "n01644900"),
    "turtle": ("n01664065", "n01669191"),
    "bird": ("n01795545", "n01860187"),
    "primate": ("n02480495", "n02494079"),
    "fish": ("n02514041", "n02655020"),
    "crab": ("n01978287", "n01981276"),
    "insect": ("n02165105", "n02268443"),
}

_SPLIT = StrOptions({"train", "val"})


class RestrictedImageNet(ImageFiles):
    """Restricted ImageNet as a map-style torch Dataset that reads each image when asked.

    Items are pairs (uint8 tensor of shape (3, size, size), label in 0..8). Labels follow the
    order of Table 2 in Ilyas et al. 2019: dog, cat, frog, turtle, bird, primate, fish, crab,
    insect.

    Parameters
    ----------
    root : str or path-like
        ILSVRC2012 folder with ``<split>/<WordNet id>/<file>``, 1000 class folders in each split.
        Their alphabetical order gives the class numbers 0..999.
    split : {"train", "val"}, default="train"
        The split to read.
    size : int, default=224
        Side of the square images in pixels: the shorter side is resized to it and the centre
        cropped.
    max_pixels : int, default=50_000_000
        Images with more pixels are refused before they are decoded.

    Attributes
    ----------
    paths : list of str
        Files, in the order of the items.
    targets : ndarray of shape (n,), int64
        Label of every item, known without reading the images.
    classes : list of str
        Names of the nine super-classes.

    Raises
    ------
    FileNotFoundError
        If a folder is missing, or one of the folders used has no images.
    ValueError
        If the folder is not ILSVRC2012 with its 1000 class folders.

    Examples
    --------
    >>> from advfeat.datasets import RestrictedImageNet
    >>> images = RestrictedImageNet("ILSVRC2012", split="val")  # doctest: +SKIP
    >>> images[0][0].shape  # doctest: +SKIP
    torch.Size([3, 224, 224])
    """

    @validate_params(
        {
            "root": [str, os.PathLike],
            "split": [_SPLIT],
            "size": [Interval(Integral, 1, None, closed="left")],
            "max_pixels": [Interval(Integral, 1, None, closed="left")],
        },
        prefer_skip_nested_validation=True,
    )
    def __init__(
        self,
        root: PathOrStr,
        *,
        split: str = "train",
        size: Any = 224,
        max_pixels: Any = MAX_PIXELS,
    ) -> None:
        folder = find_split(root, split)
        wnids = find_class_folders(folder)
        _check_ilsvrc2012(folder, wnids)
        super_class = {
            wnid: label
            for label, (first, last) in enumerate(RESTRICTED_IMAGENET_RANGES.values())
            for wnid in wnids[first : last + 1]
        }
        paths, rows = list_image_files(folder, list(super_class))
        labels = np.array(list(super_class.values()))[rows]
        super().__init__(paths, labels, list(RESTRICTED_IMAGENET_RANGES), size, folder, max_pixels)


@validate_params(
    {
        **READ_CONSTRAINTS,
        "split": [_SPLIT],
        "size": [Interval(Integral, 1, None, closed="left")],
    },
    prefer_skip_nested_validation=True,
)
def load_restricted_imagenet(
    root: PathOrStr,
    *,
    split: str = "train",
    size: Any = 224,
    n_samples: int | None = None,
    random_state: RandomState = None,
    max_pixels: Any = MAX_PIXELS,
    as_memmap: Any = None,
    n_jobs: int | None = None,
    verbose: int = 1,
    return_X_y: bool = False,
) -> Any:
    """Load Restricted ImageNet, or a random part of it.

    The whole training split takes about 40 GB at the default size: ``as_memmap=FOLDER`` decodes
    it once and maps it; or choose ``n_samples`` or a smaller ``size``, or use
    `RestrictedImageNet`, which reads images one by one.

    Parameters
    ----------
    root : str or path-like
        ILSVRC2012 folder with ``<split>/<WordNet id>/<file>``, 1000 class folders in each split.
    split : {"train", "val"}, default="train"
        The split to read.
    size : int, default=224
        Side of the square images in pixels: the shorter side is resized to it and the centre
        cropped.
    n_samples : int or None, default=None
        Size of a random subset, stratified by super-class; only its files are read.
    random_state : int, RandomState or None, default=None
        Determines the subset. An integer is needed to keep it with ``as_memmap``.
    max_pixels : int, default=50_000_000
        Images with more pixels are refused before they are decoded: a small file can unfold to
        gigabytes. Pillow has a limit of its own, ``PIL.Image.MAX_IMAGE_PIXELS``.
    as_memmap : path or None, default=None
        Folder in which the decoded images are kept, and from which they come as a read-only
        memory map, so that they may be larger than memory. A later call with the same files
        (their names, sizes and times of change) neither decodes nor reads them again; one that
        was stopped goes on where it was. None reads into memory.
    n_jobs : int or None, default=None
        Number of threads that decode files, as in joblib.
    verbose : int, default=1
        0 hides the progress bar, which appears only when reading takes over two seconds.
    return_X_y : bool, default=False
        If true, return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        - data : ndarray or memory map of shape (n, 3, size, size), uint8
        - target : ndarray of shape (n,), int64, in 0..8
        - target_names : ndarray of shape (9,), in the order of `RESTRICTED_IMAGENET_RANGES`
    (data, target) : tuple if ``return_X_y`` is true

    Raises
    ------
    FileNotFoundError
        If a folder is missing, or one of the folders used has no images.
    ValueError
        If the folder is not ILSVRC2012 with its 1000 class folders, a file is not an image,
        ``n_samples`` is larger than the data or leaves a class out, or ``as_memmap`` goes with
        ``n_samples`` and no integer ``random_state``.

    Examples
    --------
    >>> from advfeat.datasets import load_restricted_imagenet
    >>> X, y = load_restricted_imagenet(
    ...     "ILSVRC2012", n_samples=900, random_state=0, return_X_y=True
    ... )  # doctest: +SKIP
    >>> X.shape  # doctest: +SKIP
    (900, 3, 224, 224)
    """
    files = RestrictedImageNet(root, split=split, size=size, max_pixels=max_pixels)
    X, y = read_array(
        files, n_samples=n_samples, random_state=random_state, as_memmap=as_memmap,
        n_jobs=n_jobs, verbose=verbose,
    )  # fmt: skip
    return as_bunch(X, y, files.classes, return_X_y=return_X_y)


def _check_ilsvrc2012(folder, wnids):
    if len(wnids) != 1000:
        raise ValueError(
            f"Expected the 1000 class folders of ILSVRC2012 in '{folder}', got {len(wnids)}. "
            "The super-classes are ranges of class numbers, so all 1000 must be there."
        )
    for name, (first, last) in RESTRICTED_IMAGENET_RANGES.items():
        if (wnids[first], wnids[last]) != _RANGE_ENDS[name]:
            raise ValueError(
                f"Expected ILSVRC2012 in '{folder}', where the classes {first} to {last} ({name}) "
                f"run from {_RANGE_ENDS[name][0]} to {_RANGE_ENDS[name][1]} in alphabetical "
                f"order, got {wnids[first]} to {wnids[last]}. Are folders renamed, or from "
                "another release?"
            )

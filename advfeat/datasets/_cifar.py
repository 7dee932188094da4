"""CIFAR-10 through torchvision."""

import os
from typing import Any

import numpy as np

from advfeat.datasets._bunch import as_bunch
from advfeat.utils._files import resolve_path
from advfeat.utils._sklearn import StrOptions, validate_params
from advfeat.utils._typing import PathOrStr


@validate_params(
    {
        "root": [str, os.PathLike],
        "split": [StrOptions({"train", "test"})],
        "download": ["boolean"],
        "return_X_y": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)
def fetch_cifar10(
    root: PathOrStr, *, split: str = "train", download: bool = False, return_X_y: bool = False
) -> Any:
    """Load CIFAR-10, and download it first only if asked to.

    Parameters
    ----------
    root : str or path-like
        Folder that holds (or will hold) torchvision's ``cifar-10-batches-py``.
    split : {"train", "test"}, default="train"
        The 50,000 training or the 10,000 test images.
    download : bool, default=False
        If true and the files are missing, download them (170 MB) into ``root``.
    return_X_y : bool, default=False
        If true, return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        - data : ndarray of shape (n, 3, 32, 32), uint8
        - target : ndarray of shape (n,), int64
        - target_names : ndarray of shape (10,), "airplane" to "truck"
    (data, target) : tuple if ``return_X_y`` is true

    Raises
    ------
    FileNotFoundError
        If ``root`` holds no complete CIFAR-10 and ``download`` is false. Checksums are compared
        before any file is opened.

    Examples
    --------
    >>> from advfeat.datasets import fetch_cifar10
    >>> X, y = fetch_cifar10("data", download=True, return_X_y=True)  # doctest: +SKIP
    >>> X.shape  # doctest: +SKIP
    (50000, 3, 32, 32)
    """
    from torchvision.datasets import CIFAR10

    root = resolve_path(root, "root")
    try:
        files = CIFAR10(root, train=split == "train", download=download)
    except RuntimeError as error:
        if download:
            raise
        raise FileNotFoundError(
            f"Expected a complete CIFAR-10 in '{root / CIFAR10.base_folder}', found missing or "
            f"damaged files ({error}). Pass download=True to fetch it (170 MB), or unpack "
            f"{CIFAR10.filename} from {CIFAR10.url} into '{root}'."
        ) from error
    X = np.ascontiguousarray(files.data.transpose(0, 3, 1, 2))
    return as_bunch(X, files.targets, files.classes, return_X_y=return_X_y)

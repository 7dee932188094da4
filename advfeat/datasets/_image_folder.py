"""Any data set kept as one folder of images per class."""

import os
from numbers import Integral
from pathlib import Path

from advfeat.datasets._bunch import as_bunch
from advfeat.datasets._image_files import (
    ImageFiles,
    find_class_folders,
    list_image_files,
    read_array,
)
from advfeat.utils._sklearn import Interval, StrOptions, validate_params

_SPLITS = ("train", "test", "val")

# Constraints of the parameters that all array loaders of image files share.
READ_CONSTRAINTS = {
    "root": [str, os.PathLike],
    "size": [Interval(Integral, 1, None, closed="left"), None],
    "n_samples": [Interval(Integral, 1, None, closed="left"), None],
    "random_state": ["random_state"],
    "n_jobs": [Integral, None],
    "verbose": ["verbose"],
    "return_X_y": ["boolean"],
}


@validate_params(
    {**READ_CONSTRAINTS, "split": [StrOptions(set(_SPLITS)), None]},
    prefer_skip_nested_validation=True,
)
def load_image_folder(
    root,
    *,
    split=None,
    size=None,
    n_samples=None,
    random_state=None,
    n_jobs=None,
    verbose=1,
    return_X_y=False,
):
    """Load images kept as ``root/<class>/<file>`` or ``root/<split>/<class>/<file>``.

    Classes are numbered in alphabetical order of their folders. Grey, palette and transparent
    images become RGB. Hidden files and files without an image's extension are left out.

    Parameters
    ----------
    root : str or path-like
        The top folder.
    split : {"train", "test", "val"} or None, default=None
        Sub-folder of ``root`` that holds the class folders; None if ``root`` itself does. The
        splits of one ``root`` must have the same classes.
    size : int or None, default=None
        Side of the returned square images in pixels: the shorter side is resized to it and the
        centre cropped. None keeps the images as they are; they must then be of one size.
    n_samples : int or None, default=None
        Size of a random subset, stratified by class. It is chosen first, so that only its files
        are read. None reads all.
    random_state : int, RandomState or None, default=None
        Determines the subset.
    n_jobs : int or None, default=None
        Number of threads that decode files, as in joblib.
    verbose : int, default=1
        0 hides the progress bar, which appears only when reading takes over two seconds.
    return_X_y : bool, default=False
        If true, return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        data : ndarray of shape (n, 3, H, W), uint8
        target : ndarray of shape (n,), int64
        target_names : ndarray of shape (n_classes,), names of the folders
    (data, target) : tuple if ``return_X_y`` is true

    Raises
    ------
    FileNotFoundError
        If the folder is missing, has no class folders, or a class folder has no images.
    ValueError
        If a file is not an image, images differ in size and ``size`` is None, ``n_samples`` is
        larger than the data or leaves a class out, the splits have different classes, or ``root``
        holds splits and ``split`` is None.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from advfeat.datasets import load_image_folder
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name, colour in [("sky", "blue"), ("grass", "green")]:
    ...         Path(root, name).mkdir()
    ...         Image.new("RGB", (10, 8), colour).save(Path(root, name, "0.png"))
    ...     images = load_image_folder(root, size=8)
    >>> images.data.shape, images.target.tolist(), images.target_names.tolist()
    ((2, 3, 8, 8), [0, 1], ['grass', 'sky'])
    """
    root = Path(root).expanduser()
    classes = _find_classes(root, split)
    folder = root if split is None else root / split
    files = ImageFiles(*list_image_files(folder, classes), classes, size)
    X, y = read_array(
        files, n_samples=n_samples, random_state=random_state, n_jobs=n_jobs, verbose=verbose
    )
    return as_bunch(X, y, classes, return_X_y=return_X_y)


def _find_classes(root, split):
    if split is None:
        classes = find_class_folders(root)
        if set(classes) <= set(_SPLITS):
            raise ValueError(
                f"Expected class folders in '{root}', got {', '.join(classes)}, which look like "
                f"splits. Pass split={classes[0]!r}."
            )
        return classes
    classes = find_class_folders(root / split)
    for other in _SPLITS:
        # A class missing on one side would silently shift the numbers of all later classes.
        if (root / other).is_dir():
            differing = set(find_class_folders(root / other)) ^ set(classes)
            if differing:
                raise ValueError(
                    f"Expected the same classes in '{root / split}' and '{root / other}', but "
                    f"only one of them has: {', '.join(sorted(differing))}."
                )
    return classes

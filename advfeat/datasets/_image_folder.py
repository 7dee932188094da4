"""Any data set kept as one folder of images per class."""

import contextlib
import os
from numbers import Integral
from typing import Any

from advfeat.datasets._bunch import as_bunch
from advfeat.datasets._class_folders import (
    composed,
    find_class_folders,
    find_split,
    list_image_files,
)
from advfeat.datasets._decoding import MAX_PIXELS
from advfeat.datasets._image_files import ImageFiles, read_array
from advfeat.utils._errors import shortened
from advfeat.utils._files import resolve_path
from advfeat.utils._sklearn import Interval, validate_params
from advfeat.utils._typing import PathOrStr, RandomState

_SPLITS = {  # in lower case
    "train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval",
}  # fmt: skip

# Constraints of the parameters that all array loaders of image files share.
READ_CONSTRAINTS = {
    "root": [str, os.PathLike],
    "size": [Interval(Integral, 1, None, closed="left"), None],
    "n_samples": [Interval(Integral, 1, None, closed="left"), None],
    "random_state": ["random_state"],
    "max_pixels": [Interval(Integral, 1, None, closed="left")],
    "as_memmap": [str, os.PathLike, None],
    "n_jobs": [Integral, None],
    "verbose": ["verbose"],
    "return_X_y": ["boolean"],
}


@validate_params(
    {**READ_CONSTRAINTS, "split": [str, None]},
    prefer_skip_nested_validation=True,
)
def load_image_folder(
    root: PathOrStr,
    *,
    split: str | None = None,
    size: Any = None,
    n_samples: int | None = None,
    random_state: RandomState = None,
    max_pixels: Any = MAX_PIXELS,
    as_memmap: Any = None,
    n_jobs: int | None = None,
    verbose: int = 1,
    return_X_y: bool = False,
) -> Any:
    """Load images kept as ``root/<class>/<file>`` or ``root/<split>/<class>/<file>``.

    Classes are numbered in alphabetical order of their folders. Hidden files, what operating
    systems and network drives leave behind (``Thumbs.db``, ``__MACOSX``, ...) and files without an
    image's extension are left out. Grey and palette images become RGB, transparent pixels are laid
    on white, and the rotation that cameras note is applied (torchvision's ImageFolder does not).
    Images with more than 8 bits per channel are refused. Only BMP, GIF (the first frame), JPEG,
    PNG, PPM, TIFF and WebP are opened, whatever the name of the file says.

    Parameters
    ----------
    root : str or path-like
        The top folder.
    split : str or None, default=None
        Sub-folder of ``root`` that holds the class folders, such as "train"; None if ``root``
        itself does. The splits of one ``root`` ("train", "test", "val", "valid" and the like)
        must have the same classes; one whose images lie in one folder, as Tiny ImageNet's
        ``val/images`` do, has none.
    size : int or None, default=None
        Side of the returned square images in pixels: the shorter side is resized to it and the
        centre cropped. None keeps the images as they are; they must then be of one size.
    n_samples : int or None, default=None
        Size of a random subset, stratified by class. It is chosen first, so that only its files
        are read. None reads all.
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
        - data : ndarray or memory map of shape (n, 3, H, W), uint8
        - target : ndarray of shape (n,), int64
        - target_names : ndarray of shape (n_classes,), names of the folders
    (data, target) : tuple if ``return_X_y`` is true

    Raises
    ------
    FileNotFoundError
        If the folder or the split is missing, has no class folders, or a class folder has no
        images.
    ValueError
        If a file is not an image, images differ in size and ``size`` is None, ``n_samples`` is
        larger than the data or leaves a class out, the splits have different classes, ``root``
        holds splits and ``split`` is None, a link leads nowhere or to another class, two classes
        share a file, or ``as_memmap`` holds something else, lies among the class folders, or goes
        with ``n_samples`` and no integer ``random_state``.

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
    root = resolve_path(root, "root")
    folder = root if split is None else find_split(root, split)
    kept = None if as_memmap is None else resolve_path(as_memmap, "as_memmap").resolve()
    if kept is not None:
        parent = kept.parent  # other splits must have the same class folders
        of_split = parent.parent == root.resolve() and parent.name.lower() in _SPLITS
        if parent == folder.resolve() or (split is not None and of_split):
            raise ValueError(
                f"as_memmap='{as_memmap}' would lie among the class folders of '{parent}', and "
                "count as one the next time. Choose a folder elsewhere."
            )
    classes = _find_classes(root, split)
    paths, targets = list_image_files(folder, classes)
    files = ImageFiles(paths, targets, classes, size, root, max_pixels)
    X, y = read_array(
        files, n_samples=n_samples, random_state=random_state, as_memmap=as_memmap,
        n_jobs=n_jobs, verbose=verbose,
    )  # fmt: skip
    return as_bunch(X, y, list(map(composed, classes)), return_X_y=return_X_y)


def _find_classes(root, split):
    if split is None:
        classes = find_class_folders(root)
        splits = [name for name in classes if name.lower() in _SPLITS]
        nested = all(any(p.is_dir() for p in (root / name).iterdir()) for name in splits)
        if len(splits) == len(classes) or (len(splits) > 1 and nested):
            raise ValueError(
                f"Expected class folders in '{root}', got {shortened(splits)}, which look like "
                f"splits. Pass split={splits[0]!r}."
            )
        return classes
    classes = find_class_folders(root / split)
    there = sorted(path.name for path in root.iterdir())
    for other in (name for name in there if name.lower() in _SPLITS):
        # A class missing on one side would silently shift the numbers of all later classes. A
        # split without class folders, such as an unlabelled test set, has no numbers.
        with contextlib.suppress(FileNotFoundError):
            others = set(map(composed, find_class_folders(root / other, whole=False)))
            ours = set(map(composed, classes))
            differing = others ^ ours
            if not differing or (len(others) == 1 and not others & ours):
                continue  # the one folder of images that no class was given for
            hint = " Sort the images of the former by class." if len(classes) == 1 else ""
            raise ValueError(
                f"Expected the same classes in '{root / split}' and '{root / other}', but only "
                f"one of them has: {shortened(sorted(differing))}.{hint}"
            )
    return classes

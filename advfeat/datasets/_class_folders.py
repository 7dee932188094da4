"""Folders of images, one for each class: what is found in them, and what is not taken for one."""

import contextlib
import os
import unicodedata
from functools import partial
from pathlib import Path

import numpy as np

from advfeat.utils._errors import shortened
from advfeat.utils._files import is_clutter, printable, resolve_path

# torchvision's, and GIF.
EXTENSIONS = (
    ".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif",
)  # fmt: skip


def find_split(root, split):
    """Path of the folder of a split.

    Raises
    ------
    FileNotFoundError
        If there is none in ``root``; the message names the folders that are there.
    """
    folder = resolve_path(root, "root") / split
    if folder.parent.is_dir() and not folder.is_dir():
        there = [path.name for path in folder.parent.iterdir() if path.is_dir()]
        there = sorted(printable(name) for name in there if not is_clutter(name))
        raise FileNotFoundError(
            f"Expected the split {split!r} in '{folder.parent}', found no folder '{folder}'. "
            f"These folders are there: {shortened(there) or 'none'}. Choose another split, or "
            "give its folder this name."
        )
    return folder


def find_class_folders(root, *, whole=True):
    """Names of the class folders of ``root`` in alphabetical order, that of `composed`.

    ``whole=False`` passes over links that lead nowhere: a split that is not read may be in part
    on another disk.

    Hidden folders, and those that operating systems and network drives make, do not count.

    Raises
    ------
    FileNotFoundError
        If there are none.
    ValueError
        If a name is not UTF-8, two look the same, or a link leads nowhere.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(
            f"Expected a folder with one folder of images per class, found no folder '{root}'."
        )
    paths = [path for path in root.iterdir() if not is_clutter(path.name)]
    for path in paths if whole else ():
        _refuse_broken_link(path)
    classes = sorted((path.name for path in paths if path.is_dir()), key=composed)
    if not classes:
        raise FileNotFoundError(
            f"Expected one folder per class in '{root}', found none. "
            "Sort the images into root/<class>/<file>."
        )
    for name in classes:
        if not name.isprintable() or printable(name) != name:
            raise ValueError(
                f"The name of the class folder {printable(name)!r} in '{root}' is not UTF-8 text "
                "that can be printed. Rename the folder."
            )
    for name, other in zip(classes, classes[1:], strict=False):
        if composed(name) == composed(other):
            raise ValueError(
                f"Two class folders of '{root}' have the name '{name}', written with accents that "
                "are part of their letters, and that are not. Make them one folder."
            )
    return classes


def composed(name):
    """Name with its accents as parts of their letters: systems differ in how they write them."""
    return unicodedata.normalize("NFC", name)


def list_image_files(root, classes):
    """Paths and class numbers of all images in the given class folders, at any depth.

    Files without an image's extension, hidden ones and clutter of operating systems are left
    out. Links are followed; a folder is not read twice.

    Returns
    -------
    paths : list of str
    targets : ndarray of shape (n,)

    Raises
    ------
    FileNotFoundError
        If a class folder has no images.
    ValueError
        If a link leads to another class or nowhere, two classes share a file, or something that
        is no file has an image's name.
    """
    root = Path(root)
    owners, links = {}, []
    for name in classes:
        other = owners.setdefault(_identity(root / name), name)
        if other != name:
            raise ValueError(
                f"The class folders '{other}' and '{name}' of '{root}' are one and the same."
            )
    in_order = partial(sorted, key=lambda path: composed(path.replace(os.sep, "/")))
    found = [in_order(_images_below(root / name, root, owners, name, links)) for name in classes]
    empty = [name for name, paths in zip(classes, found, strict=True) if not paths]
    if empty:
        raise FileNotFoundError(
            f"Expected images in every class folder of '{root}', found none in {len(empty)} of "
            f"{len(classes)}: {shortened(empty)}. Known extensions: {', '.join(EXTENSIONS)}."
        )
    targets = np.repeat(np.arange(len(classes)), [len(paths) for paths in found])
    paths = [path for paths in found for path in paths]
    if links:
        _refuse_shared(paths, targets)
    return paths, targets


def _refuse_shared(paths, targets):
    """Raise a ValueError for a file that two classes share."""
    first = {}
    for number, path in enumerate(paths):
        with contextlib.suppress(OSError):  # which reading it will tell
            other = first.setdefault(_identity(path), number)
            if targets[other] != targets[number]:
                raise ValueError(
                    f"'{printable(paths[other])}' and '{printable(path)}' are one and the same "
                    "file, so that one image would get two labels. Remove one of them."
                )


def _images_below(folder, root, owners, name, links, seen=None):
    """Yield the paths of all images below a class folder; note links, to files or folders."""
    seen = set() if seen is None else seen
    links += [folder] * os.path.islink(folder)
    identity = _identity(folder)
    if identity in seen:
        return
    seen.add(identity)
    holds_root = Path(os.path.realpath(root)).is_relative_to(os.path.realpath(folder))
    if holds_root or owners.get(identity, name) != name:
        raise ValueError(
            f"'{printable(folder)}' is a link to '{printable(os.path.realpath(folder))}', so that "
            f"images of other classes would count as '{name}'. Remove the link."
        )
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_clutter(entry.name):
                continue
            _refuse_broken_link(entry.path)
            if entry.is_dir():
                yield from _images_below(entry.path, root, owners, name, links, seen)
            elif entry.name.lower().endswith(EXTENSIONS):
                if not entry.is_file() and os.path.exists(entry.path):
                    raise ValueError(
                        f"'{printable(entry.path)}' has the name of an image, but is no file."
                    )
                # What Windows tells with an entry leaves the number of its names out.
                if entry.is_symlink() or os.name == "nt" or entry.stat().st_nlink > 1:
                    links.append(entry.path)
                yield entry.path


def _refuse_broken_link(path):
    """Raise a ValueError for a link to nothing: images would be missed."""
    if os.path.islink(path) and not os.path.exists(path):
        raise ValueError(
            f"'{printable(path)}' is a link to '{printable(os.readlink(path))}', which is not "
            "there. Mend or remove the link."
        )


def _identity(folder):
    status = os.stat(folder)
    # Some network drives number no files.
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(folder)

"""Image files as a torch Dataset, and read into one array or memory map."""

import os
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from joblib import delayed, effective_n_jobs
from sklearn.utils import resample
from torch.utils.data import Dataset

from advfeat.datasets._class_folders import composed
from advfeat.datasets._decoding import MAX_PIXELS, decode
from advfeat.utils._arrays import sendable
from advfeat.utils._errors import add_hint, shortened
from advfeat.utils._files import printable
from advfeat.utils._fingerprint import BLOCK, fingerprint
from advfeat.utils._progress import progress_bar
from advfeat.utils._store import Store
from advfeat.utils._workers import Bounded

_N_BROKEN = 100  # files; with more, something else is wrong
_DECODER = 1  # raised when decoding changes, so that maps of before are not taken for those of now


class ImageFiles(Dataset):
    """Map-style Dataset of image files, each read when it is asked for.

    Parameters
    ----------
    paths : list of str
    targets : ndarray of shape (n,)
    classes : list of str
    size : int or None
        Side in pixels, see `decode`.
    root : path
        Folder that the names of the files count from.
    max_pixels : int
        See `decode`.
    """

    def __init__(self, paths, targets, classes, size, root, max_pixels=MAX_PIXELS):
        self.paths = paths
        self.targets = np.asarray(targets, dtype=np.int64)
        self.classes = classes
        self.size = size
        self.root = root
        self.max_pixels = max_pixels

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        image = decode(self.paths[index], self.size, self.max_pixels)
        return torch.from_numpy(image), int(self.targets[index])


def read_array(files, *, n_samples, random_state, as_memmap, n_jobs, verbose):
    """Read a stratified random subset (or all) of an `ImageFiles` into one array.

    The subset is chosen first, so that only its files are opened. Threads do the decoding; rows
    keep the order of the files.

    Parameters
    ----------
    files : ImageFiles
    n_samples, random_state, n_jobs, verbose
        As in `load_image_folder`.
    as_memmap : path or None
        Folder that keeps the decoded images.

    Returns
    -------
    X : ndarray or ImageMap of shape (n, 3, H, W), uint8
    y : ndarray of shape (n,), int64

    Raises
    ------
    ValueError
        If ``n_samples`` is too large, or so small that a class is left out; if a file is not an
        image; if the images differ in size; if a subset is to be kept that no seed determines.
    """
    kept_subset = as_memmap is not None and n_samples is not None
    if kept_subset and not isinstance(random_state, Integral):
        raise ValueError(
            "as_memmap and n_samples need an integer random_state: another call would choose "
            f"other images than those that are kept. Got random_state={random_state!r}."
        )
    rows = _choose_rows(files.targets, files.classes, n_samples, random_state)
    paths, y = [files.paths[i] for i in rows], files.targets[rows]
    read = _Reader(files, paths)
    settings = {"n_jobs": n_jobs, "verbose": verbose}
    if as_memmap is None:
        X = np.empty((len(paths), *read.shape), dtype=np.uint8)
        for begin, images in _decoded(read, range(0, len(paths), BLOCK), **settings):
            X[begin : begin + len(images)] = images
        return X, y
    manifest = {
        "decoder": _DECODER,
        "size": files.size,
        "files": _file_fingerprint(paths, files.root),
    }
    store = Store(
        as_memmap, manifest, {"X": (np.uint8, read.shape)}, len(paths), BLOCK,
        name="as_memmap", quick=True, verbose=verbose,
    )  # fmt: skip
    with store:
        begins = [i for i in range(0, len(paths), BLOCK) if not store.holds(i)]
        try:
            for begin, images in _decoded(read, begins, **settings):
                store.put(begin, (images,))
        except ValueError as error:
            add_hint(
                error,
                f"The folder as_memmap='{as_memmap}' is kept for these files and this size: if "
                "they change, delete it.",
            )
            raise
        store.finish()
    X = store.read()[0].view(ImageMap)
    X.block_digests = store.digests
    return X, y


class ImageMap(np.memmap):
    """Memory map of images that knows the checksums of its blocks, so that it need not be read.

    A part of it knows none.
    """

    block_digests = None

    def __array_wrap__(self, array, context=None, return_scalar=False):
        # What is computed of it is no map, as with numpy.memmap.
        return array[()] if return_scalar or array.ndim == 0 else np.asarray(array)

    def __getitem__(self, index):
        part = super().__getitem__(index)
        copied = isinstance(part, ImageMap) and part._mmap is None
        return np.asarray(part) if copied else part

    def __reduce__(self):
        # joblib sends a map by its path, but not one of a class of its own.
        return np.asanyarray, (sendable(self),)


class _Reader:
    """Decodes a block of files; all must have the size of the first."""

    def __init__(self, files, paths):
        self.files = files
        self.paths = paths
        self.shape = self._decode(paths[0]).shape

    def __call__(self, begin):
        stop = min(begin + BLOCK, len(self.paths))
        images, broken = np.empty((stop - begin, *self.shape), dtype=np.uint8), []
        for image, path in zip(images, self.paths[begin:stop], strict=True):
            try:
                found = self._decode(path)
            except ValueError as error:
                broken.append((path, error))
                continue
            if found.shape != self.shape:
                raise ValueError(
                    f"Expected images of {_pixels(self.shape)} pixels, as in "
                    f"'{printable(self.paths[0])}', got {_pixels(found.shape)} in "
                    f"'{printable(path)}'. Pass size=... to resize all to one size."
                )
            image[:] = found
        return begin, images, broken

    def _decode(self, path):
        return decode(path, self.files.size, self.files.max_pixels)


def _decoded(read, begins, *, n_jobs, verbose):
    """Yield (begin, images) of each block, as they are done.

    Files that cannot be decoded are named together in the end: mended one by one, each would cost
    another pass over all.
    """
    broken = []
    parallel = Bounded(n_jobs=n_jobs, require="sharedmem", return_as="generator_unordered")
    parallel.window = 2 * effective_n_jobs(n_jobs)
    total = sum(min(BLOCK, len(read.paths) - begin) for begin in begins)
    with progress_bar(total=total, desc="images", unit="file", verbose=verbose) as bar:
        for begin, images, found in parallel.take(parallel(delayed(read)(b) for b in begins)):
            broken += found
            if len(broken) > _N_BROKEN:
                break
            if not found:
                yield begin, images
            bar.update(len(images))
    if broken:
        (_, first), *others = sorted(broken, key=lambda pair: pair[0])
        if not others:
            raise first
        names = ", ".join(printable(path) for path, _ in others)
        raise ValueError(f"{first} Others of these files cannot be read either: {names}.")


def _file_fingerprint(paths, root):
    """Hash of names, sizes and times of change: cheap, where a hash of the pixels is not."""
    status = [os.stat(path) for path in paths]
    names = [Path(os.path.relpath(path, root)).as_posix() for path in paths]  # on every system
    names = [os.fsencode(composed(name)).hex() for name in names]
    numbers = np.array([(s.st_size, s.st_mtime_ns) for s in status], dtype=np.int64)
    return fingerprint(np.array(names, dtype=object)) + fingerprint(numbers)


def _choose_rows(y, classes, n_samples, random_state):
    if n_samples is None:
        return np.arange(len(y))
    if n_samples > len(y):
        raise ValueError(f"Expected n_samples of at most {len(y)} (all images), got {n_samples}.")
    rows = resample(
        np.arange(len(y)),
        replace=False,
        n_samples=n_samples,
        stratify=y,
        random_state=random_state,
    )
    left_out = np.setdiff1d(y, y[rows])
    if len(left_out):
        names = shortened([classes[i] for i in left_out])
        raise ValueError(
            f"n_samples={n_samples}, shared in proportion to the class sizes, leaves no image for "
            f"{names}. Ask for more samples."
        )
    return np.sort(rows)


def _pixels(shape):
    return f"{shape[2]} x {shape[1]}"

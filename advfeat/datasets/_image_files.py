"""Image files in class folders: finding, decoding and reading them, lazily or into an array."""

from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from PIL import Image, ImageOps
from sklearn.utils import resample
from torch.utils.data import Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS, is_image_file, make_dataset

from advfeat.utils._progress import progress_bar

_CHUNK = 256  # files per task: small enough for a smooth progress bar
_BAD_IMAGE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # from Pillow


class ImageFiles(Dataset):
    """Map-style Dataset of image files, each read when it is asked for.

    Parameters
    ----------
    paths : list of str
    targets : ndarray of shape (n,)
    classes : list of str
    size : int or None
        Side in pixels, see `decode`.
    """

    def __init__(self, paths, targets, classes, size):
        self.paths = paths
        self.targets = np.asarray(targets, dtype=np.int64)
        self.classes = classes
        self.size = size

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        image = decode(self.paths[index], self.size)
        return torch.from_numpy(image), int(self.targets[index])


def find_class_folders(root):
    """Names of the class folders of ``root`` in alphabetical order; hidden ones do not count."""
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(
            f"Expected a folder with one folder of images per class, found no folder '{root}'."
        )
    classes = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not classes:
        raise FileNotFoundError(
            f"Expected one folder per class in '{root}', found none. "
            "Sort the images into root/<class>/<file>."
        )
    return classes


def list_image_files(root, classes):
    """Paths and class numbers of all images of the given class folders.

    Files without an image's extension and hidden files are left out.

    Returns
    -------
    paths : list of str
    targets : ndarray of shape (n,)
    """
    try:
        files = make_dataset(
            str(root), {name: i for i, name in enumerate(classes)}, is_valid_file=_is_image_name
        )
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"Expected images in every class folder of '{root}'. {error}"
            f"Known extensions: {', '.join(IMG_EXTENSIONS)}."
        ) from error
    paths, targets = zip(*files, strict=True)
    return list(paths), np.asarray(targets)


def decode(path, size=None):
    """Read one image file as an RGB array of shape (3, H, W), uint8.

    Parameters
    ----------
    path : str
    size : int or None
        If given, the shorter side is resized to ``size`` pixels (bilinear, antialiased) and the
        centre cropped, in one resampling step.

    Raises
    ------
    ValueError
        If the file is not an image, is damaged, or has more than 8 bits per channel.
    """
    with open(path, "rb") as file:
        try:
            with Image.open(file) as image:
                image.load()
                if image.mode.startswith(("I", "F")):
                    raise ValueError(
                        f"pixels of mode {image.mode!r}; convert the file to 8 bits per channel"
                    )
                if "transparency" in image.info:  # Pillow wants this detour for palettes
                    image = image.convert("RGBA")
                image = image.convert("RGB")
        except _BAD_IMAGE as error:
            raise ValueError(f"Expected a readable 8-bit image in '{path}': {error}.") from error
    if size is not None:
        image = ImageOps.fit(image, (size, size), method=Image.Resampling.BILINEAR)
    return np.array(image).transpose(2, 0, 1).copy()


def read_array(files, *, n_samples, random_state, n_jobs, verbose):
    """Read a stratified random subset (or all) of an `ImageFiles` into one array.

    The subset is chosen first, so that only its files are opened. Threads do the decoding
    straight into the array, whose rows keep the order of the files.

    Returns
    -------
    X : ndarray of shape (n, 3, H, W), uint8
    y : ndarray of shape (n,), int64

    Raises
    ------
    ValueError
        If ``n_samples`` is too large, or so small that a class is left out; if a file is not an
        image; if the images differ in size.
    """
    rows = _choose_rows(files.targets, files.classes, n_samples, random_state)
    paths = [files.paths[i] for i in rows]
    first = decode(paths[0], files.size)
    X = np.empty((len(paths), *first.shape), dtype=np.uint8)

    def read(start):
        stop = min(start + _CHUNK, len(paths))
        for i in range(start, stop):
            image = decode(paths[i], files.size)
            if image.shape != first.shape:
                raise ValueError(
                    f"Expected images of {_pixels(first)} pixels, as in '{paths[0]}', got "
                    f"{_pixels(image)} in '{paths[i]}'. Pass size=... to resize all to one size."
                )
            X[i] = image
        return stop - start

    parallel = Parallel(n_jobs=n_jobs, require="sharedmem", return_as="generator")
    tasks = (delayed(read)(start) for start in range(0, len(paths), _CHUNK))
    with progress_bar(total=len(paths), desc="images", unit="file", verbose=verbose) as bar:
        for done in parallel(tasks):
            bar.update(done)
    return X, files.targets[rows]


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
        names = ", ".join(classes[i] for i in left_out)
        raise ValueError(
            f"n_samples={n_samples}, shared in proportion to the class sizes, leaves no image for "
            f"{names}. Ask for more samples."
        )
    return np.sort(rows)


def _is_image_name(path):
    return is_image_file(path) and not Path(path).name.startswith(".")


def _pixels(image):
    return f"{image.shape[2]} x {image.shape[1]}"

"""Arrays kept in files without pickles: one ``.npz`` file, or the folder of a store."""

import zipfile
from pathlib import Path

import numpy as np

from advfeat.utils._files import writing
from advfeat.utils._store import open_finished

_CHUNK = 2**25  # bytes written at a time


def save_arrays(path, **arrays):
    """Write arrays into one ``.npz`` file; lazy ones and memory maps piece by piece."""
    path = Path(path).expanduser()
    with writing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                _write_array(entry, array)


def load_arrays(path, names, optional=()):
    """Read the named arrays from a file of `save_arrays`, or from the folder of a store.

    Those that are optional are left out where they are not there.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    FileNotFoundError
    ValueError
        If the file is damaged or something else.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        arrays = open_finished(path)
        if not set(names) <= set(arrays):
            raise ValueError(
                f"'{path}' holds no labels, only inputs: the labels of its samples are those of "
                f"the data that it was made from. Read it with "
                f"numpy.load({str(path / 'X.npy')!r}, mmap_mode='r')."
            )
        return {name: arrays[name] for name in (*names, *optional) if name in arrays}
    if not path.exists():
        raise FileNotFoundError(f"Expected a kept set in '{path}', found nothing of that name.")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            there = [name for name in optional if name in archive]
            return {name: archive[name] for name in (*names, *there)}
    except PermissionError:
        raise
    except Exception as error:  # what damaged bytes make of the reader is of any kind
        raise ValueError(
            f"'{path}' is damaged, or was not written by ConstructedDataset.save ({error})."
        ) from error


def _write_array(file, array):
    head = {"descr": np.lib.format.dtype_to_descr(array.dtype), "shape": tuple(array.shape)}
    np.lib.format.write_array_header_1_0(file, {**head, "fortran_order": False})
    step = max(1, _CHUNK // max(1, array.nbytes // max(1, len(array))))
    for i in range(0, len(array), step):
        file.write(np.ascontiguousarray(array[i : i + step]).tobytes())

"""Arrays kept in files without pickles: one ``.npz`` file, or the folder of a store."""

import hashlib
import zipfile

import numpy as np

from advfeat.utils._arrays import row_slices
from advfeat.utils._files import resolve_path, writing
from advfeat.utils._store import open_finished

_CHUNK = 2**25  # bytes written at a time


def save_arrays(path, **arrays):
    """Write arrays into one ``.npz`` file; lazy ones and memory maps piece by piece."""
    path = resolve_path(path, "path", "a file")
    with writing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                _write_array(entry, array)
        archive.comment = _directory(archive)


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
    path = resolve_path(path, "path", "a file")
    if path.is_dir():
        arrays = open_finished(path)
        if not set(names) <= set(arrays):
            raise ValueError(
                f"'{path}' holds no labels, only inputs: the labels of its samples are those of "
                f"the data that it was made from. Read it with "
                f"numpy.load({str(path / 'X.npy')!r}, mmap_mode='r')."
            )
        return {name: arrays[name] for name in (*names, *optional) if name in arrays}
    if not path.is_file():
        raise FileNotFoundError(f"Expected a kept set in '{path}', found nothing of that name.")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no .npz file")
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            # NumPy compares the checksum only of what it reads to the end, and zipfile none of
            # what there is; files of earlier versions have no comment.
            bad = archive.zip.testzip()
            if bad or archive.zip.comment not in (b"", _directory(archive.zip)):
                raise ValueError(f"{bad or 'its directory'} is not what was written")
            there = [name for name in optional if name in archive]
            return {name: archive[name] for name in (*names, *there)}
    except PermissionError:
        raise
    except Exception as error:  # what damaged bytes make of the reader is of any kind
        raise ValueError(
            f"'{path}' is damaged, or was not written by ConstructedDataset.save ({error})."
        ) from error


def _directory(archive):
    """Checksum of what there is in an archive."""
    there = [(entry.filename, entry.file_size, entry.CRC) for entry in archive.infolist()]
    return hashlib.blake2b(repr(there).encode(), digest_size=8).hexdigest().encode()


def _write_array(file, array):
    head = {"descr": np.lib.format.dtype_to_descr(array.dtype), "shape": tuple(array.shape)}
    np.lib.format.write_array_header_1_0(file, {**head, "fortran_order": False})
    for rows in row_slices(array, _CHUNK):
        file.write(np.ascontiguousarray(array[rows]).tobytes())

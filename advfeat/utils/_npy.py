"""A ``.npy`` file of its final size, whose rows are written in place and read without a map."""

import io
import math
import os

import numpy as np


class RowFile:
    """Rows of one dtype and shape in a ``.npy`` file.

    Parameters
    ----------
    path : Path
    dtype : dtype
    shape : tuple
        Of the whole array.
    """

    def __init__(self, path, dtype, shape):
        self.path = path
        self.dtype = np.dtype(dtype)
        self.shape = tuple(shape)
        file = io.BytesIO()
        descr = np.lib.format.dtype_to_descr(self.dtype)
        head = {"descr": descr, "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(file, head)
        self._head = file.getvalue()
        self._row_size = math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def size(self):
        """Bytes of the whole file."""
        return len(self._head) + self.shape[0] * self._row_size

    def make(self):
        """Make the file (of zeros), or mend the head and the size of the one that is there."""
        with open(self.path, "r+b" if self.path.exists() else "w+b") as file:
            if file.read(len(self._head)) != self._head:
                file.seek(0)
                file.write(self._head)
            if file.seek(0, os.SEEK_END) != self.size:
                file.truncate(self.size)

    def missing_space(self):
        """Bytes that the disk has not yet given to the file."""
        if not self.path.exists():
            return self.size
        status = self.path.stat()
        given = status.st_size  # all that Windows tells; it makes no holes
        if hasattr(status, "st_blocks"):
            given = min(512 * status.st_blocks, given)
        return max(0, self.size - given)

    def write(self, begin, array):
        """Write rows from the position ``begin`` on, down to the disk."""
        # Not through a memory map: on a full disk that kills the process instead of raising.
        with open(self.path, "r+b") as file:
            file.seek(len(self._head) + begin * self._row_size)
            file.write(memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8)))
            file.flush()
            os.fsync(file.fileno())

    def read(self, begin, n_rows):
        """Return the bytes of some rows, or None if the file is missing, foreign or too short."""
        size = n_rows * self._row_size
        try:
            with open(self.path, "rb") as file:
                if file.read(len(self._head)) != self._head:
                    return None
                file.seek(len(self._head) + begin * self._row_size)
                content = file.read(size)
        except (FileNotFoundError, IsADirectoryError):
            return None
        return np.frombuffer(content, np.uint8) if len(content) == size else None

    def map(self):
        """Return the array as a read-only memory map."""
        return np.load(self.path, mmap_mode="r")

"""Fingerprints of data: of their values, however they lie in memory, and never read whole."""

import hashlib

import numpy as np

BLOCK = 64  # rows hashed together; part of what a fingerprint means
_PIECE = 2**24  # bytes hashed at a time


def fingerprint(X):
    """Hash of the values of an array-like, its dtype and its shape.

    Memory order, strides and byte order do not count. Rows are read block by block, so memory maps
    and lazy arrays are never held whole.

    Parameters
    ----------
    X : ndarray, memory map or lazy array
        Values that are no numbers are hashed by their ``repr``. If X has an attribute
        ``block_digests`` (a map of images that were decoded once keeps them) no row is read.

    Returns
    -------
    str
    """
    total = hashlib.blake2b(digest_size=16)
    dtype = np.dtype(X.dtype).newbyteorder("=")
    if dtype.kind not in "biufc":
        total.update(repr(np.asarray(X).tolist()).encode())
        return total.hexdigest()
    total.update(f"{dtype.name} {tuple(X.shape)}".encode())
    if X.ndim == 0:
        total.update(np.asarray(X, dtype=dtype).tobytes())
        return total.hexdigest()
    digests = getattr(X, "block_digests", None)
    if digests is None:
        blocks = (X[i : i + BLOCK] for i in range(0, len(X), BLOCK))
        digests = (digest_arrays([np.asarray(block, dtype=dtype)]) for block in blocks)
    for digest in digests:
        total.update(digest)
    return total.hexdigest()


def digest_arrays(arrays):
    """Checksum of arrays as their bytes lie in a file: 16 bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        flat = memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        for i in range(0, len(flat), _PIECE):
            digest.update(flat[i : i + _PIECE])
    return digest.digest()

"""From what holds numbers to NumPy arrays."""

from mmap import mmap

import numpy as np
import torch

from advfeat.utils._errors import first_line


def positions(rows, n):
    """Integers of any sign, or a mask, as positions among n rows, whatever n is.

    Raises
    ------
    IndexError
        If one is out of bounds, or the mask has another length.
    """
    rows = np.asarray(rows)
    if rows.dtype.kind != "i" or rows.ndim != 1 or not rows.size:
        return np.arange(n)[rows]  # NumPy's rules for all else
    if rows.min() < -n or rows.max() >= n:
        wrong = rows.min() if rows.min() < -n else rows.max()
        raise IndexError(f"index {wrong} is out of bounds for {n} rows")
    rows = rows.astype(np.intp, copy=False)  # int8 could not count to n
    return np.where(rows < 0, rows + n, rows)


def row_slices(X, n_bytes):
    """Slices that cut X into rows of about so many bytes, and of one row at least."""
    step = max(1, n_bytes * len(X) // max(1, X.nbytes))
    return [slice(i, i + step) for i in range(0, len(X), step)]


def as_array(X):
    """Turn a tensor of any device and dtype, or a list of them, into an array.

    Everything else is left as it is.

    Raises
    ------
    ValueError
        For a masked array of which values are masked, that is, missing; for tensors that NumPy
        cannot hold: sparse, nested, quantised or without data; and for what polars has not
        computed yet.
    """
    if isinstance(X, (list, tuple)) and len(X) and isinstance(X[0], torch.Tensor):
        return np.stack([as_array(x) for x in X])
    if isinstance(X, np.ma.MaskedArray):
        if np.ma.is_masked(X):
            raise ValueError(
                "Masked values count as missing, and there are masked ones. Leave these samples "
                "out, or fill them (filled)."
            )
        return np.asarray(X)
    if not isinstance(X, torch.Tensor):
        if type(X).__name__ == "LazyFrame":
            raise ValueError("A LazyFrame of polars holds no data yet: call its collect().")
        return X
    X = X.detach()
    kind = _not_dense(X)
    if kind:
        method = {
            "quantised": "dequantize()",
            "sparse": "to_dense()",
            "nested": "to_padded_tensor()",
        }
        raise ValueError(
            f"Dense tensors of numbers are needed. Got a {kind} tensor; use "
            f"{f'its {method[kind]} or ' if kind in method else ''}an array."
        )
    X = X.cpu().resolve_conj().resolve_neg()
    try:
        return X.numpy()
    except TypeError:  # bfloat16 and the float8s: every value is a float32 too
        return X.float().numpy()
    except RuntimeError as error:  # subclasses: of torch.compile, of distributed tensors
        raise ValueError(
            f"Dense tensors of numbers are needed. Got a {type(X).__name__}, which gives no array "
            f"({first_line(error)}); use an array."
        ) from error


def _not_dense(X):
    """Say what a tensor is that holds no number for each of its entries."""
    if X.is_nested:
        return "nested"
    if X.is_quantized:
        return "quantised"
    if X.is_meta:
        return "meta"
    return "sparse" if X.layout is not torch.strided else None


def sendable(rows):
    """Rows as they can be sent to another process.

    joblib and clusters know plain arrays, not their subclasses. joblib sends of a memory map the
    place of the rows in its file: wrong where they run backwards or in another order than the
    file, and another content where changes are kept from the file.
    """
    if not isinstance(rows, np.ndarray):
        return rows
    rows = whole = np.asarray(rows)
    while whole is not None and not isinstance(getattr(whole, "base", None), mmap):
        whole = getattr(whole, "base", None)
    if not isinstance(whole, np.memmap):
        return rows
    backwards = min(rows.strides, default=0) < 0
    # joblib forgets the strides of rows without gaps, and takes the order of the whole file.
    order = "f_contiguous" if whole.flags.f_contiguous else "c_contiguous"
    turned = rows.flags.forc and not getattr(rows.flags, order)
    return np.array(rows) if whole.mode == "c" or backwards or turned else rows


def as_floats(value, what):
    """Give a float64 array, or raise a ValueError that says what should hold numbers."""
    try:
        return np.asarray(as_array(value), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} must hold numbers. Got {value!r} instead.") from error


def from_list(X):
    """Turn a list of numbers, lists, arrays or tensors into an array.

    Raises
    ------
    ValueError
        If the elements differ in shape, or are (input, label) pairs.
    """
    refuse_pairs(X)
    try:
        return np.asarray(as_array(X))
    except (ValueError, TypeError) as error:
        raise ValueError(
            "All samples of X must be arrays of numbers and have one shape. Got a list that is no "
            f"array: {first_line(error)}"
        ) from error


def refuse_pairs(X):
    """Raise a ValueError for a list of (input, label) pairs."""
    if not (isinstance(X, (list, tuple)) and len(X)):
        return
    if isinstance(X[0], (list, tuple)) and len(X[0]) == 2 and np.ndim(X[0][0]) > np.ndim(X[0][1]):
        raise ValueError(
            "A list of (input, label) pairs was given as X. scikit-learn's cross-validation and "
            "searches cut a torch Dataset into such lists, and know nothing of its labels: give "
            "them inputs and labels apart, as two arrays."
        )

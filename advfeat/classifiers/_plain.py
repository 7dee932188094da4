"""Parameters and labels as JSON can hold them, and back; no code is read or run."""

import math

import numpy as np
import torch

_WIDEST = 2**20  # bytes of a label; an array has as many for each


class NotPlain(TypeError):
    """A value that is code, or has no form as text."""


def to_plain(value):
    """Turn a parameter into what JSON can hold.

    Raises
    ------
    NotPlain
        For anything but None, booleans, numbers, text, devices, and lists, dicts and arrays of
        them.
    """
    # Of a time in nanoseconds `item` makes a number.
    if isinstance(value, np.generic) and not isinstance(value, (np.datetime64, np.timedelta64)):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, torch.device):
        return str(value)
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return to_plain(value.tolist())
    if isinstance(value, (list, tuple, range)):
        return [to_plain(item) for item in value]
    if isinstance(value, dict):
        return {"dict": [[to_plain(key), to_plain(item)] for key, item in value.items()]}
    raise NotPlain(type(value).__name__)


def from_plain(plain):
    """Reverse `to_plain`; lists become tuples."""
    if isinstance(plain, list):
        return tuple(from_plain(item) for item in plain)
    if isinstance(plain, dict) and set(plain) == {"float"}:
        return float(plain["float"])
    if isinstance(plain, dict):
        return {from_plain(key): from_plain(item) for key, item in plain["dict"]}
    return plain


def row_to_plain(row, dropped):
    """Turn an epoch of a history into what JSON can hold; name in ``dropped`` what is left out."""
    plain = {}
    for name, value in row.items():
        if name == "batches":
            continue
        try:
            plain[name] = to_plain(value)
        except NotPlain:
            said = f"{name!r} of the history"
            dropped += [said] * (said not in dropped)
    return plain


def labels_to_plain(labels):
    """Turn an array of labels into what JSON can hold, with its dtype.

    Raises
    ------
    NotPlain
        For labels that are neither numbers, text nor times.
    """
    kind = labels.dtype.kind
    if kind == "S":
        values = [label.decode("latin-1") for label in labels.tolist()]
    else:
        values = (labels.astype(np.int64) if kind in "mM" else labels).tolist()
    if kind not in "biufUSmM" and not all(isinstance(label, str) for label in values):
        raise NotPlain(f"labels of dtype {labels.dtype}")
    return {"dtype": "object" if kind == "O" else labels.dtype.str, "values": to_plain(values)}


def labels_from_plain(plain):
    """Reverse `labels_to_plain`."""
    dtype, values = np.dtype(plain["dtype"]), from_plain(plain["values"])
    if dtype.itemsize > _WIDEST:
        raise ValueError(f"labels of {dtype.itemsize} bytes each")
    if dtype.kind == "S":
        values = [value.encode("latin-1") for value in values]
    elif dtype.kind in "mM" and all(isinstance(value, int) for value in values):
        values = np.array(values, dtype=np.int64)
    elif dtype.kind not in "biufUO" or not all(isinstance(v, (int, float, str)) for v in values):
        raise ValueError(f"labels of dtype {dtype}")
    return np.array(values, dtype=dtype)

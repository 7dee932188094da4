"""Values of stages in files without pickles, whole or not there.

A classifier is one file of `advfeat.save`. Anything else is one uncompressed .npz file: its
arrays, and ``value.json``, which says how numbers, text, lists, dicts and arrays are put together.
"""

import json
import warnings
import zipfile

import numpy as np

from advfeat import ConstructedDataset, StandardClassifier, load, save
from advfeat.utils._files import writing

_FIELDS = ("X", "y", "y_source", "classes", "feature_names")


def find(path):
    """File in which the value of ``path`` is kept, or None."""
    return next((file for file in (path, _classifier_file(path)) if file.exists()), None)


def keep(path, value):
    """Write a value.

    Raises
    ------
    TypeError, ValueError
        If the value, or a part of it, is something else than this module knows.
    """
    if isinstance(value, StandardClassifier):
        save(value, _classifier_file(path))
        return
    arrays = {}
    text = json.dumps(_to_plain(value, arrays))
    with writing(path) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("value.json", text)
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def kept(path, network=None):
    """Read a value; ``network`` is that of a classifier, for the case that it is code."""
    file = find(path)
    if file != path:
        with warnings.catch_warnings():  # they have done their work
            warnings.filterwarnings("ignore", "Not kept in the file: callbacks")
            return load(file, network=network if callable(network) else None)
    with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as archive:
        if bad := archive.zip.testzip():  # NumPy compares that of what it reads to the end
            raise zipfile.BadZipFile(f"{bad} in {path} does not have its checksum.")
        return _from_plain(json.loads(archive["value.json"]), archive)


def plain_value(path):
    """Give ``{"value": value as JSON can hold it}``; an empty dict where it has arrays."""
    if find(path) != path:  # a network
        return {}
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.namelist() != ["value.json"]:
                return {}
            return {"value": json.loads(archive.read("value.json"))}
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        print(f"The stage file {path.name} is damaged ({error!r:.80}); no value is noted.")
        return {}


def of_plain(plain):
    """Value of what `plain_value` gave."""
    return _from_plain(plain, {})


def _classifier_file(path):
    return path.with_suffix(".safetensors")


def _to_plain(value, arrays):
    """Value as JSON can hold it, its arrays apart."""
    if value is None or type(value) in (bool, int, float, str):  # not their subclasses of NumPy
        return value
    if isinstance(value, np.ndarray | np.generic):
        name = str(len(arrays))
        arrays[name] = np.asarray(value)
        return {"array" if isinstance(value, np.ndarray) else "scalar": name}
    if type(value) is list:
        return [_to_plain(item, arrays) for item in value]
    if type(value) is tuple:
        return {"tuple": _to_plain(list(value), arrays)}
    if type(value) is dict:
        return {"dict": _to_plain([list(item) for item in value.items()], arrays)}
    if type(value) is ConstructedDataset:
        fields = [getattr(value, name) for name in _FIELDS]
        return {"constructed": _to_plain(fields, arrays)}
    raise TypeError(f"A stage cannot keep a {type(value).__name__} without a pickle.")


def _from_plain(plain, arrays):
    if isinstance(plain, list):
        return [_from_plain(item, arrays) for item in plain]
    if not isinstance(plain, dict):
        return plain
    ((kind, inner),) = plain.items()
    if kind in ("array", "scalar"):
        return arrays[inner][()] if kind == "scalar" else arrays[inner]
    items = _from_plain(inner, arrays)
    return {"tuple": tuple, "dict": dict, "constructed": _constructed}[kind](items)


def _constructed(fields):
    return ConstructedDataset(*fields)

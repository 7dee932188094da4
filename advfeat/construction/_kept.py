"""How a constructor keeps what it constructs: the dtype, and the store of a long construction."""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import torch

from advfeat._version import __version__
from advfeat.utils._arrays import as_array
from advfeat.utils._device import resolve_device
from advfeat.utils._files import resolve_folder
from advfeat.utils._fingerprint import fingerprint
from advfeat.utils._lazy import LazyArray, extent
from advfeat.utils._manifest import is_begun, refuse_other_files
from advfeat.utils._store import Store

# Parameters that do not change what is constructed.
_ELSEWHERE = ("estimator", "n_jobs", "verbose", "store")


@dataclass(frozen=True, eq=False)
class InDtype:
    """A job whose first result, the constructed inputs, is returned in another dtype.

    Parameters
    ----------
    job : callable
    dtype : str
    """

    job: Callable
    dtype: str

    def __call__(self, begin, *rows):
        """Do the job and cast, so that a worker sends no more than is kept."""
        found, *rest = self.job(begin, *rows)
        with np.errstate(over="ignore"):
            cast = found.astype(self.dtype, copy=False)
        if np.isinf(cast).any() and np.isfinite(found).all():
            raise ValueError(_too_large(np.abs(found).max()))
        return cast, *rest


def check_dtype(X, dtype):
    """Raise a ValueError if the inputs to construct from do not fit into the dtype."""
    if dtype == "float16" and X.dtype != np.uint8:
        largest = np.abs(X.extent if isinstance(X, LazyArray) else extent(X)).max()
        if largest > np.finfo(np.float16).max:
            raise ValueError(_too_large(largest))


def check_store(constructor):
    """Refuse a ``store`` that cannot be used, before the long work.

    Raises
    ------
    ValueError
        If the path is empty, the folder holds other files, or ``random_state`` is no integer.
    FileExistsError
        If there is a file of that name.
    """
    if constructor.store is None:
        return
    folder = resolve_folder(constructor.store, "store")
    if not isinstance(constructor.random_state, Integral):
        raise ValueError(
            f"{type(constructor).__name__} with a 'store' needs an integer 'random_state': "
            "another run could not go on from one that drew its own. Got "
            f"{constructor.random_state!r}."
        )
    name = f"store={str(constructor.store)!r}"
    refuse_other_files(folder, name, unless=lambda: is_begun(folder))


def make_store(constructor, source, X, columns, *, extras=None, **data):
    """Make the `Store` in which ``fit_transform`` keeps its batches.

    Parameters
    ----------
    constructor : RobustFeatureInverter or NonRobustRelabeler
    source : fitted classifier
    X : array-like of shape (n, ...)
        The inputs that are constructed from.
    columns : dict of str to dtype
        What the job returns for each sample beside the inputs.
    extras : dict of str to ndarray, optional
        See `Store`.
    **data : arrays
        What else decides the content.
    """
    params = constructor.get_params(deep=False)
    manifest = {"constructor": type(constructor).__name__, "advfeat": __version__}
    manifest.update((k, _plain(params[k])) for k in params if k not in _ELSEWHERE)
    # Addresses in a representation differ from process to process.
    manifest["network"] = re.sub("0x[0-9a-fA-F]+", "0x", repr(source.module_))
    manifest["bounds"] = repr(source.input_bounds_)
    manifest["weights"] = _hash_weights(source.module_)
    manifest.update((k, fingerprint(np.asarray(v))) for k, v in data.items())
    manifest["X"] = fingerprint(X)
    return Store(
        constructor.store,
        manifest,
        {"X": (constructor.dtype, X.shape[1:]), **{k: (d, ()) for k, d in columns.items()}},
        len(X),
        constructor.batch_size,
        extras=extras,
        made_with={
            "torch": torch.__version__,
            "number of threads": torch.get_num_threads(),
            "device": str(resolve_device(source.device)),
        },
        verbose=constructor.verbose,
    )


def _hash_weights(module):
    total = hashlib.blake2b(digest_size=16)
    for name, value in module.state_dict().items():
        total.update(f"{name} {fingerprint(value.cpu().numpy())}".encode())
    return total.hexdigest()


def _plain(value):
    """Return the value as JSON can hold it; arrays by their fingerprint."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, Real):
        return float(value)
    if callable(value) or isinstance(value, Mapping):
        return "custom"  # the targets that it gives are in the manifest themselves
    return fingerprint(np.asarray(as_array(value)))


def _too_large(largest):
    return (
        f"dtype='float16' holds values up to 65504, and X has {largest:g}. Scale X, or use "
        "dtype='float32'."
    )

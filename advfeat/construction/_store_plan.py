"""What decides the store of a long construction, as far as it is known before the work."""

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import BaseEstimator
from skorch import NeuralNet
from torch.utils.data import Dataset

from advfeat._version import __version__
from advfeat.classifiers import StandardClassifier
from advfeat.classifiers._distributed import Ranks
from advfeat.construction._network_fingerprint import network_fingerprint
from advfeat.datasets._torch_data import inputs_of
from advfeat.utils._arrays import as_array
from advfeat.utils._bounds import resolve_bounds
from advfeat.utils._device import resolve_device
from advfeat.utils._files import resolve_folder
from advfeat.utils._fingerprint import fingerprint
from advfeat.utils._lazy import lazy
from advfeat.utils._manifest import is_begun, refuse_other_files
from advfeat.utils._store import Store

# Parameters that do not change what is constructed.
_ELSEWHERE = ("estimator", "n_jobs", "verbose", "store")
# Parameters of a source that do not change its weights, or in a way that cannot be told from them.
_NOT_IN_WEIGHTS = {"bounds", "callbacks", "channels", "device", "n_jobs", "verbose", "warm_start"}


def check_folder(constructor, trained):
    """Refuse a ``store`` that cannot be used, before anything is read.

    Parameters
    ----------
    constructor : RobustFeatureInverter or NonRobustRelabeler
    trained : bool
        Whether its source is trained already.

    Raises
    ------
    ValueError
        If the path is empty, the folder holds other files, or ``random_state`` is no integer; if
        processes of torch.distributed would train the source together, and then all write.
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
    if not trained and Ranks().size > 1:
        raise ValueError(
            f"{name} would be written by every process of torch.distributed. Train the source "
            "first, then construct in one of them, with FrozenEstimator(source)."
        )
    refuse_other_files(folder, name, unless=lambda: is_begun(folder))


@dataclass(frozen=True, eq=False)
class StorePlan:
    """What is known, before the source is trained, of the store that ``fit_transform`` writes.

    Parameters
    ----------
    constructor : RobustFeatureInverter or NonRobustRelabeler
    known : dict
        The part of the manifest that is known.
    made_with : dict
        See `Manifest`.
    columns : dict
        See `Store`.
    n : int
    """

    constructor: BaseEstimator
    known: dict
    made_with: dict
    columns: dict
    n: int

    @classmethod
    def of(cls, constructor, source, X, columns, *, trained_on, decided):
        """Plan the store, and refuse a folder that is known to hold something else.

        Parameters
        ----------
        constructor : RobustFeatureInverter or NonRobustRelabeler
        source : classifier
            To be trained, or trained in a FrozenEstimator.
        X : array of shape (n, ...), checked
            The inputs that are constructed from.
        columns : dict of str to dtype
            What the job returns for each sample beside the inputs.
        trained_on : dict of str to ndarray
            What else decides the weights of a source that is to be trained.
        decided : dict of str to ndarray
            What else decides the content.
        """
        params = constructor.get_params(deep=False)
        known = {"constructor": type(constructor).__name__, "advfeat": __version__}
        known.update((k, _plain(params[k])) for k in params if k not in _ELSEWHERE)
        known.update((k, fingerprint(v)) for k, v in decided.items())
        known["X"] = fingerprint(X)
        if isinstance(source, StandardClassifier):
            known["bounds"] = _plain_bounds(resolve_bounds(source.bounds, X.shape[1:]))
        made_with = {}
        if isinstance(source, (StandardClassifier, NeuralNet)):  # one that will be trained
            params = source.get_params(deep=False)
            names = params.keys() - _NOT_IN_WEIGHTS
            made_with = {"source": type(source).__name__}
            made_with.update((f"source {k}", _described(params[k])) for k in sorted(names))
            made_with.update((f"source {k}", fingerprint(v)) for k, v in trained_on.items())
        columns = {
            "X": (constructor.dtype, X.shape[1:]), **{k: (d, ()) for k, d in columns.items()}
        }  # fmt: skip
        plan = cls(constructor, known, made_with, columns, len(X))
        plan._store(known, made_with).check_early()
        return plan

    def make(self, source, extras=None, decided=None):
        """Make the `Store`.

        Parameters
        ----------
        source : fitted classifier
        extras : dict of str to ndarray, optional
            See `Store`.
        decided : dict of str to ndarray, optional
            What else decides the content.
        """
        learned = {
            **{k: fingerprint(v) for k, v in (decided or {}).items()},
            # Addresses in a representation differ from process to process.
            "network": _without_addresses(source.module_),
            "bounds": _plain_bounds(source.input_bounds_),
            "weights": network_fingerprint(source.module_, source.input_shape_),
        }
        made_with = {
            "torch": torch.__version__,
            "number of threads": torch.get_num_threads(),
            "device": resolve_device(source.device).type,
        }
        return self._store({**self.known, **learned}, {**made_with, **self.made_with}, extras)

    def _store(self, manifest, made_with, extras=None):
        return Store(
            self.constructor.store,
            manifest,
            self.columns,
            self.n,
            self.constructor.batch_size,
            extras=extras,
            made_with=made_with,
            verbose=self.constructor.verbose,
        )


def _plain_bounds(bounds):
    return bounds and [side if np.ndim(side) == 0 else fingerprint(side) for side in bounds]


def _plain(value):
    """Return the value as JSON can hold it; arrays by their fingerprint."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, Real):
        return float(value)
    if callable(value) or isinstance(value, Mapping):
        return "custom"  # the targets that it gives are in the manifest themselves
    if isinstance(value, Dataset):
        return fingerprint(lazy(inputs_of(value)))
    return fingerprint(np.asarray(as_array(value)))


def _described(value):
    """Return a parameter of a source as JSON can hold it; equal for equal ones of any process."""
    if isinstance(value, (Integral, Real, str, type(None), list, tuple, np.ndarray)):
        with contextlib.suppress(TypeError, ValueError):  # of a list of something else
            objects = isinstance(value, (list, tuple)) and np.asarray(as_array(value)).dtype == "O"
            if not objects:
                return _plain(value)
    return _without_addresses(value)


def _without_addresses(value):
    return re.sub("0x[0-9a-fA-F]+", "0x", repr(value))

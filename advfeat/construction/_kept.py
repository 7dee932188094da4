"""How a constructor keeps what it constructs: the dtype, and the store of a long construction."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import partial
from numbers import Integral, Number, Real
from types import CodeType, FunctionType, SimpleNamespace

import numpy as np
import torch
from sklearn.base import BaseEstimator
from skorch import NeuralNet

from advfeat._version import __version__
from advfeat.classifiers import StandardClassifier
from advfeat.optim._copying import copy_network
from advfeat.utils._arrays import as_array
from advfeat.utils._bounds import resolve_bounds
from advfeat.utils._device import own_modes, resolve_device
from advfeat.utils._files import resolve_folder
from advfeat.utils._fingerprint import fingerprint
from advfeat.utils._lazy import LazyArray, extent
from advfeat.utils._manifest import is_begun, refuse_other_files
from advfeat.utils._random import isolated_torch_seed
from advfeat.utils._store import Store

# Parameters that do not change what is constructed.
_ELSEWHERE = ("estimator", "n_jobs", "verbose", "store")
# Parameters of a source that do not change its weights, or in a way that cannot be told from them.
_NOT_IN_WEIGHTS = {"bounds", "callbacks", "channels", "device", "n_jobs", "verbose", "warm_start"}
_FEW = 4096  # values of an attribute of a layer
_DEEP = 6  # levels of containers in one another
_PLAIN = (Number, str, bytes, np.generic, torch.dtype, torch.device, Enum, slice, range)
_OF_EVERY_LAYER = {*vars(torch.nn.Module()), "training"}


def as_kept(found, dtype, bounds):
    """Round inputs to the dtype in which they are kept, and to the inside of the bounds in it.

    Parameters
    ----------
    found : Tensor of shape (n, ...), float32
    dtype : {"float32", "float16"}
    bounds : (low, high) or None

    Returns
    -------
    Tensor of shape (n, ...), float32

    Raises
    ------
    ValueError
        If the dtype cannot hold a value.
    """
    if dtype == "float32":
        return found
    kept = found.half().float()
    if torch.isinf(kept).any() and torch.isfinite(found).all():
        raise ValueError(_too_large(float(found.abs().max())))
    if bounds is not None:
        low, high = (
            torch.from_numpy(_half_inside(side, towards)).to(kept.device)
            for side, towards in zip(bounds, (np.inf, -np.inf), strict=True)
        )
        kept = torch.minimum(torch.maximum(kept, low), high)
    return kept


def _half_inside(side, towards):
    """Bounds rounded to float16 in one direction, as float32."""
    side = np.asarray(side, dtype=np.float64)
    with np.errstate(over="ignore"):
        half = side.astype(np.float16)
    outside = half < side if towards > 0 else half > side
    half = np.where(outside, np.nextafter(half, np.float16(towards)), half)
    return half.astype(np.float32)


def check_dtype(X, dtype):
    """Raise a ValueError if the inputs to construct from do not fit into the dtype."""
    if dtype == "float16" and X.dtype != np.uint8:
        largest = np.abs(X.extent if isinstance(X, LazyArray) else extent(X)).max()
        if largest > np.finfo(np.float16).max:
            raise ValueError(_too_large(largest))


def check_folder(constructor):
    """Refuse a ``store`` that cannot be used, before anything is read.

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


@dataclass(frozen=True, eq=False)
class Keeping:
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
    def plan(cls, constructor, source, X, columns, *, trained_on, decided):
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
        known.update((k, fingerprint(np.asarray(v))) for k, v in decided.items())
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
            "weights": _hash_weights(source.module_, source.input_shape_),
        }
        made_with = {
            "torch": torch.__version__,
            "number of threads": torch.get_num_threads(),
            "device": str(resolve_device(source.device)),
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


def _hash_weights(module, input_shape):
    """Hash of all that decides what a network computes, beside its code."""
    total = hashlib.blake2b(digest_size=16)
    kept = module.state_dict()
    apart = ((k, v) for k, v in module.named_buffers() if k not in kept)  # not persistent
    constants = _constants(module, input_shape).items()
    for name, value in (*kept.items(), *apart, *constants):
        if isinstance(value, (torch.Tensor, np.ndarray)):
            value = fingerprint(as_array(value))
        total.update(f"{name} {value}".encode())
    return total.hexdigest()


def _constants(module, input_shape):
    """Constants of layers that are no buffers, such as a scale or a function, as text by name.

    What changes with use, such as a counter or the last batch, is none.
    """
    device = next((tensor.device for tensor in module.parameters()), "cpu")
    found = []
    for sizes in ((1,), (2, 3)):
        used = copy_network(module).eval()
        with own_modes(), torch.no_grad(), isolated_torch_seed(device, 0):
            for n in sizes:
                used(torch.zeros(n, *input_shape, device=device, dtype=torch.float32))
        found.append(dict(_attributes(used)))
    once, twice = found
    return {name: text for name, text in once.items() if twice.get(name) == text}


def _attributes(module):
    for prefix, layer in module.named_modules():
        ours = type(layer).__module__.split(".")[0] in ("torch", "torchvision", "advfeat")
        for name, value in sorted(vars(layer).items()):
            derived = isinstance(value, (torch.Tensor, np.ndarray)) or name.startswith("_")
            if name not in _OF_EVERY_LAYER and not (ours and derived):
                yield f"{prefix}.{name}", _constant(value)


def _constant(value, depth=0):
    """Text that differs for constants that differ; that of the type for all that is no constant.

    Large arrays are none: they may be activations that a layer keeps.
    """
    if isinstance(value, torch.Tensor):
        return fingerprint(as_array(value)) if value.numel() <= _FEW else "large"
    if isinstance(value, np.ndarray):
        return fingerprint(value) if value.size <= _FEW else "large"
    if value is None or isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, partial):
        value = {"func": value.func, "args": value.args, "keywords": value.keywords}
    elif isinstance(value, SimpleNamespace):
        value = vars(value)
    elif is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name, None) for field in fields(value)}
    if isinstance(value, Mapping):
        value = list(value.items())
    if isinstance(value, (set, frozenset)):
        value = sorted(value, key=repr)
    if isinstance(value, (list, tuple)):
        deep = depth > _DEEP
        return f"[{', '.join('...' if deep else _constant(v, depth + 1) for v in value)}]"
    value = value if hasattr(value, "__qualname__") else type(value)
    name = f"{getattr(value, '__module__', '')}.{value.__qualname__}"
    if "<" not in name or not isinstance(value, FunctionType):  # its name says which it is
        return name
    parts = [value.__defaults__, value.__kwdefaults__, *map(_content, value.__closure__ or ())]
    return f"{name} {_text_of(value.__code__)} {_constant(parts, depth + 1)}"


def _content(cell):
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return None


def _text_of(code):
    """Text of compiled code."""
    inner = [_text_of(c) if isinstance(c, CodeType) else _constant(c) for c in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {inner}"


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
    return fingerprint(np.asarray(as_array(value)))


def _described(value):
    """Return a parameter of a source as JSON can hold it; equal for equal ones of any process."""
    if isinstance(value, (Integral, Real, str, type(None), list, tuple, np.ndarray)):
        try:
            return _plain(value)
        except (TypeError, ValueError):  # a list of something else
            pass
    return _without_addresses(value)


def _without_addresses(value):
    return re.sub("0x[0-9a-fA-F]+", "0x", repr(value))


def _too_large(largest):
    return (
        f"dtype='float16' holds values up to 65504, and X has {largest:g}. Scale X, or use "
        "dtype='float32'."
    )

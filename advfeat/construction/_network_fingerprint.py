"""Fingerprint of a network: its weights, and the constants of its layers that are no buffers.

Layers and tensors count as well that a layer holds in lists, dicts and the like, where torch does
not register them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import partial
from numbers import Number
from types import CodeType, FunctionType, SimpleNamespace

import numpy as np
import torch

from advfeat.optim._copying import copy_network
from advfeat.optim._functions import content_of
from advfeat.optim._network_state import MODULE_INTERNALS
from advfeat.utils._arrays import as_array
from advfeat.utils._device import default_modes
from advfeat.utils._fingerprint import fingerprint
from advfeat.utils._random import isolated_torch_seed

_DEEP = 6  # levels of containers in one another
_PLAIN = (Number, str, bytes, np.generic, torch.dtype, torch.device, Enum, slice, range)


def network_fingerprint(module, input_shape):
    """Hash of all that decides what a network computes, beside its code.

    Parameters
    ----------
    module : nn.Module
        It stays as it is.
    input_shape : tuple
        Of one sample.

    Returns
    -------
    str
    """
    total = hashlib.blake2b(digest_size=16)
    kept = module.state_dict()
    apart = ((k, v) for k, v in module.named_buffers() if k not in kept)  # not persistent
    registered = set(module.modules())
    hidden = (
        (f"{place} {name}", tensor)
        for place, layer in _layers(module).items()
        if layer not in registered
        for name, tensor in (layer._parameters | layer._buffers).items()
    )
    constants = _constants(module, input_shape).items()
    for name, value in (*kept.items(), *apart, *hidden, *constants):
        if isinstance(value, (torch.Tensor, np.ndarray)):
            value = _digest(value)
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
        with default_modes(), torch.no_grad(), isolated_torch_seed(device, 0):
            for n in sizes:
                used(torch.zeros(n, *input_shape, device=device, dtype=torch.float32))
        found.append(dict(_attributes(used)))
    once, twice = found
    return {name: text for name, text in once.items() if twice.get(name) == text}


def _layers(module):
    """All layers, registered or in containers that layers hold, each once, by their place."""
    queue, seen, layers = [("", module)], set(), {}
    for place, value in queue:  # which grows
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.nn.Module):
            layers[place] = value
            own = {k: v for k, v in sorted(vars(value).items()) if k not in MODULE_INTERNALS}
            inside = (own | value._modules).items()
        else:
            inside = enumerate(_parts(value) or ())
        queue += [(f"{place}.{name}", part) for name, part in inside]
    return layers


def _attributes(module):
    for prefix, layer in _layers(module).items():
        ours = type(layer).__module__.split(".")[0] in ("torch", "torchvision", "advfeat")
        for name, value in sorted(vars(layer).items()):
            derived = isinstance(value, (torch.Tensor, np.ndarray)) or name.startswith("_")
            if name not in MODULE_INTERNALS and not (ours and derived):
                yield f"{prefix}.{name}", _constant(value)


def _parts(value):
    """Return what a container holds, in a fixed order; None for what is no container."""
    if isinstance(value, partial):
        value = {"func": value.func, "args": value.args, "keywords": value.keywords}
    elif isinstance(value, SimpleNamespace):
        value = vars(value)
    elif is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name, None) for field in fields(value)}
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=_order)
    return value if isinstance(value, (list, tuple)) else None


def _digest(values):
    """Fingerprint of an array or tensor; of sparse ones that of their entries."""
    if not isinstance(values, torch.Tensor) or values.layout is torch.strided:
        return fingerprint(as_array(values))
    values = values.detach().to_sparse_coo().coalesce()
    entries = [fingerprint(as_array(part)) for part in (values.indices(), values.values())]
    return f"{tuple(values.shape)} {entries}"


def _order(value):
    """Return what members of a set are sorted by: the same in every process."""
    tensors = [value] if isinstance(value, torch.Tensor) else []
    if isinstance(value, torch.nn.Module):
        tensors = value.parameters()
    return repr(value), [_digest(tensor) for tensor in tensors]


def _constant(value, depth=0):
    """Text that differs for constants that differ; that of the type for all that is no constant.

    It is that of the type also for layers, of which `_layers` gives the content.
    """
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return _digest(value)
    if value is None or isinstance(value, _PLAIN):
        return repr(value)
    parts = _parts(value)
    if parts is not None:
        deep = depth > _DEEP
        return f"[{', '.join('...' if deep else _constant(v, depth + 1) for v in parts)}]"
    value = value if hasattr(value, "__qualname__") else type(value)
    name = f"{getattr(value, '__module__', '')}.{value.__qualname__}"
    if "<" not in name or not isinstance(value, FunctionType):  # its name says which it is
        return name
    parts = [value.__defaults__, value.__kwdefaults__, *map(content_of, value.__closure__ or ())]
    return f"{name} {_text_of(value.__code__)} {_constant(parts, depth + 1)}"


def _text_of(code):
    """Text of compiled code."""
    inner = [_text_of(c) if isinstance(c, CodeType) else _constant(c) for c in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {inner}"

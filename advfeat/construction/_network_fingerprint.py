"""Fingerprint of a network: its weights, and the constants of its layers that are no buffers."""

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
from advfeat.utils._arrays import as_array
from advfeat.utils._device import own_modes
from advfeat.utils._fingerprint import fingerprint
from advfeat.utils._random import isolated_torch_seed

_FEW = 4096  # values of an attribute of a layer
_DEEP = 6  # levels of containers in one another
_PLAIN = (Number, str, bytes, np.generic, torch.dtype, torch.device, Enum, slice, range)
_OF_EVERY_LAYER = {*vars(torch.nn.Module()), "training"}


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

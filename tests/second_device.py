"""A second device that every machine has, to find tensors left behind on the first one.

Inside `second_device` the device "meta", on which torch keeps no values, keeps them: its tensors
are computed on the CPU, but as on a GPU an operation on tensors of both devices is an error; and
as on Apple's "mps" so is float64, where that is asked for.
"""

import contextlib

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from advfeat.classifiers import _nets, _training_batches
from advfeat.utils._random import make_generator

DEVICE = torch.device("meta")
_aten = torch.ops.aten
_COPIES = {_aten._to_copy.default, _aten.copy_.default}
_INDEXING = {_aten.index.Tensor, _aten.index_put_.default, _aten.index_put.default}


class _Tensor(torch.Tensor):
    """Tensor on the second device; its values are those of a CPU tensor."""

    @staticmethod
    def __new__(cls, values):
        return torch.Tensor._make_wrapper_subclass(
            cls, values.size(), strides=values.stride(), dtype=values.dtype, device=DEVICE,
            storage_offset=values.storage_offset(),
        )  # fmt: skip

    def __init__(self, values):
        self.values_ = values

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            other = _Tensor(self.values_.detach().clone())
            if isinstance(self, torch.nn.Parameter):
                other = torch.nn.Parameter(other, self.requires_grad)
            memo[id(self)] = other
        return memo[id(self)]

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    float64 = True

    def __init__(self, float64):
        super().__init__()
        _Mode.float64 = float64

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _run(func, args, kwargs):
    tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
    there = [t for t in tensors if isinstance(t, _Tensor)]
    allowed = _indices(func, args)
    here = [
        t
        for t in tensors
        if not isinstance(t, _Tensor) and t.dim() > 0 and not any(t is index for index in allowed)
    ]
    if there and here and func not in _COPIES:
        raise RuntimeError(f"{func}: expected all tensors to be on the same device")
    goes_there = bool(there)
    if func is _aten.copy_.default:
        goes_there = isinstance(args[0], _Tensor)
    if kwargs.get("device") is not None:
        goes_there = torch.device(kwargs["device"]) == DEVICE
        kwargs = {**kwargs, "device": "cpu"}
    known = {id(t.values_): t for t in there}
    unwrapped = tree_map(lambda t: t.values_ if isinstance(t, _Tensor) else t, (args, kwargs))
    found = func(*unwrapped[0], **unwrapped[1])
    if not goes_there:
        return found
    if not _Mode.float64 and any(map(_is_float64, tree_flatten(found)[0])):
        raise TypeError(f"{func}: the device has no float64")
    return tree_map(lambda t: _there(t, known) if isinstance(t, torch.Tensor) else t, found)


def _is_float64(value):
    return isinstance(value, torch.Tensor) and value.dtype == torch.float64


def _indices(func, args):
    """The tensors that may lie on the CPU, as on CUDA: indices into one that does not."""
    return args[1] if func in _INDEXING and isinstance(args[0], _Tensor) else ()


def _there(values, known):
    """The tensor that has these values: one that was changed in place, or a new one."""
    return known[id(values)] if id(values) in known else _Tensor(values)


class _Functions(TorchFunctionMode):
    """torch.tensor alone goes past the dispatcher."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.tensor and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return torch.tensor(*args, **kwargs).to(device)
        return func(*args, **kwargs)


@contextlib.contextmanager
def second_device(float64=True):
    """Make "meta" a device that computes, in float64 too or not; give its name."""
    with _Functions(), _Mode(float64):
        yield str(DEVICE)


def draw_on_the_cpu(monkeypatch):
    """Let training draw on the CPU: the device has no generator of its own."""
    for module in (_nets, _training_batches):
        monkeypatch.setattr(
            module, "make_generator", lambda device, *key: make_generator("cpu", *key)
        )


def on_device(fitted, device):
    """Copy of a fitted classifier that computes on the device."""
    other = type(fitted)()
    other.__setstate__(fitted.__getstate__() | {"device": device})
    return other

"""Copies of networks, taken out of torch's wrappers."""

import copy
from collections import OrderedDict
from types import FunctionType, MethodType
from weakref import WeakSet

import torch
from torch import nn
from torch.nn.utils import parametrize

from advfeat.optim._functions import ORIGINAL, Functions, members

_plain: WeakSet = WeakSet()  # classes of layers without compiled methods


def copy_network(module, *, share_weights=False):
    """Deep copy of a network without the wrappers of several GPUs and of torch.compile.

    Parameters
    ----------
    module : nn.Module
        Of any kind: wrappers may stand anywhere in it, and its layers may hold tensors that they
        have computed (weight norm does), which a plain deep copy refuses.
    share_weights : bool, default=False
        Whether the copy has the parameters and buffers of the network itself.

    Returns
    -------
    nn.Module
    """
    functions = Functions(module)
    memo = memo_of_copies(module) | functions.memo
    if share_weights:
        memo.update({id(t): t for t in (*module.parameters(), *module.buffers())})
    for layer in reversed(list(module.modules())):  # the inner ones first
        inner = _inner(layer)
        if inner is not None:
            memo[id(layer)] = copy.deepcopy(inner, memo)
    copied = copy.deepcopy(module, memo)
    functions.fill(memo)
    for layer in copied.modules():
        if parametrize.is_parametrized(layer):
            # torch made the class for one layer: taking its parametrization away changes it.
            kind = type(layer)
            own = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
            layer.__class__ = type(kind.__name__, kind.__bases__, own)
    make_picklable(copied)
    return compact(copied)


def compact(module):
    """Lay the weights of recurrent layers together, as a copy does not and cuDNN warns of."""
    for layer in module.modules():
        if isinstance(layer, nn.RNNBase):
            layer.flatten_parameters()
    return module


def memo_of_copies(module):
    """Memo for a deep copy: what `copy.deepcopy` refuses in layers, and what it is slow at.

    It refuses tensors that a layer has computed and keeps; it is slow at the ten empty tables of
    hooks that every layer has.
    """
    tables = {
        id(value): OrderedDict()
        for layer in module.modules()
        for value in vars(layer).values()
        if type(value) is OrderedDict and not value
    }
    return tables | {id(tensor): tensor.detach().clone() for tensor in computed_tensors(module)}


def copy_state(state):
    """Copy what a network's or an optimizer's `state_dict` gave; sooner than a deep copy."""
    memo = {id(t): t.clone() for t in tensors_in(state) if t.is_floating_point()}
    return copy.deepcopy(state, memo)


def computed_tensors(module):
    """Tensors that layers have computed and keep, as weight norm keeps such a weight."""
    return [
        tensor
        for layer in module.modules()
        for tensor in members(vars(layer), objects=True)
        if isinstance(tensor, torch.Tensor) and not tensor.is_leaf
    ]


def make_picklable(module):
    """Let the layers of a module be pickled with their parametrizations, which torch refuses.

    They are built again with all but the hook by which `weight_norm` reads files of old versions.
    """
    for layer in module.modules():
        if parametrize.is_parametrized(layer):
            type(layer).__reduce_ex__ = _reduce_parametrized  # torch made the class for this layer


def _reduce_parametrized(layer, protocol):
    state = {**vars(layer), "_load_state_dict_pre_hooks": OrderedDict()}
    kind = parametrize.type_before_parametrizations(layer)
    return _parametrized_layer, (kind, tuple(layer.parametrizations)), state


def _parametrized_layer(kind, names):
    """Layer of the class that torch makes of ``kind`` for such weights; its state follows."""
    layer = kind.__new__(kind)
    nn.Module.__init__(layer)
    for name in names:
        layer.register_parameter(name, nn.Parameter(torch.zeros(1)))
        parametrize.register_parametrization(layer, name, nn.Identity(), unsafe=True)
    make_picklable(layer)
    return layer


def with_plain_weights(network):
    """Put the weights that parametrizations give into the layers; the network can be pickled then.

    In eval mode they are the same to the bit. For copies that are never trained.
    """
    for layer in list(network.modules()):
        if parametrize.is_parametrized(layer):
            with torch.no_grad():
                weights = {name: getattr(layer, name).clone() for name in layer.parametrizations}
            # Not remove_parametrizations: it changes the class, which the original shares.
            layer.__class__ = type(layer).__bases__[0]
            del layer.parametrizations
            for name, weight in weights.items():
                layer.register_parameter(name, nn.Parameter(weight))
    return network


def without_compile(network):
    """Let the methods of layers run as they were written, without torch.compile; for copies.

    What was compiled before can neither be traced nor asked by hooks.
    """
    for layer in network.modules():
        own = {name: _method(value, layer) for name, value in vars(layer).items()}
        own = {name: MethodType(f, layer) for name, f in _compiled(type(layer)).items()} | own
        vars(layer).update((name, value) for name, value in own.items() if value is not None)
    return network


def _method(value, layer):
    """Original of a compiled function or method that a layer holds, or None."""
    if not isinstance(value, (FunctionType, MethodType)):
        return None  # some objects have every attribute that they are asked for
    original = getattr(value, ORIGINAL, None)
    bound = isinstance(value, MethodType) and isinstance(original, FunctionType)
    return MethodType(original, value.__self__) if bound else original


def _compiled(kind):
    """Originals of the compiled methods of a class of layers, by name."""
    if kind.__module__.startswith("torch.nn.") or kind in _plain:
        return {}
    methods = {k: v for base in reversed(kind.__mro__) for k, v in vars(base).items()}
    functions = {name: f for name, f in methods.items() if isinstance(f, FunctionType)}
    found = {name: vars(f)[ORIGINAL] for name, f in functions.items() if ORIGINAL in vars(f)}
    if not found:
        _plain.add(kind)
    return found


def tensors_in(container):
    """Tensors in a container and in those inside it."""
    return [value for value in members(container) if isinstance(value, torch.Tensor)]


def _inner(module):
    """Network inside a wrapper, or None."""
    if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return module.module
    return getattr(module, "_orig_mod", None)  # of torch.compile

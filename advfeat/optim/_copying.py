"""Copies of networks, taken out of torch's wrappers."""

import copy
from collections import Counter, OrderedDict
from types import BuiltinFunctionType, FunctionType

import torch
from torch import nn
from torch.nn.utils import parametrize

_SIMPLE = {bool, int, float, str, type(None)}
_TENSORS = {torch.Tensor, nn.Parameter}
_KNOWN = {*_TENSORS, FunctionType, BuiltinFunctionType, type, torch.dtype, torch.device}


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
    memo = memo_of_copies(module)
    if share_weights:
        memo.update({id(t): t for t in (*module.parameters(), *module.buffers())})
    for layer in reversed(list(module.modules())):  # the inner ones first
        inner = _inner(layer)
        if inner is not None:
            memo[id(layer)] = copy.deepcopy(inner, memo)
    return copy.deepcopy(module, memo)


def memo_of_copies(module):
    """Memo for a deep copy: what `copy.deepcopy` refuses in layers, and what it is slow at.

    It refuses tensors that a layer has computed and keeps; it is slow at buffers, and at the ten
    empty tables of hooks that every layer has.
    """
    tables = {
        id(value): OrderedDict()
        for layer in module.modules()
        for value in vars(layer).values()
        if type(value) is OrderedDict and not value
    }
    held = _held(module)
    computed = {id(tensor): tensor.detach().clone() for tensor in _computed(held)}
    return tables | computed | _plain_buffers(held)


def _plain_buffers(held):
    """Memo of those buffers of which a clone is a deep copy: they share no memory.

    Parameters
    ----------
    held : list
        All that the layers hold.
    """
    tensors = {id(value): value for value in held if type(value) in _TENSORS}.values()
    if any(type(value) not in _KNOWN and not isinstance(value, nn.Module) for value in held):
        return {}  # an object that may hold views
    if any(tensor.layout != torch.strided for tensor in tensors):
        return {}
    uses = Counter(tensor.untyped_storage().data_ptr() for tensor in tensors)
    memo = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        alone = uses[storage.data_ptr()] == 1 and storage.nbytes() == tensor.nbytes
        special = tensor.requires_grad or tensor.is_complex() or vars(tensor)
        if type(tensor) is torch.Tensor and alone and not special:
            copied = tensor.clone()
            if copied.stride() == tensor.stride():
                memo[id(tensor)] = copied
    return memo


def copy_state(state):
    """Copy what a network's or an optimizer's `state_dict` gave; sooner than a deep copy."""
    return copy.deepcopy(state, {id(t): t.clone() for t in _tensors(_contents(state))})


def computed_tensors(module):
    """Tensors that layers have computed and keep, as weight norm keeps such a weight."""
    return _computed(_held(module))


def _computed(held):
    return [tensor for tensor in _tensors(held) if not tensor.is_leaf]


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


def _held(module):
    """All that the layers of a module hold, but numbers, text and the like."""
    return [value for layer in module.modules() for value in _contents(vars(layer))]


def _contents(container):
    """List what stands in a container and in those inside it, but numbers, text and the like."""
    found, queue, seen = [], [container], set()
    for value in queue:
        if type(value) in _SIMPLE:
            continue
        if not isinstance(value, (dict, list, tuple, set)):
            found.append(value)
        elif id(value) not in seen:
            seen.add(id(value))
            queue += value.values() if isinstance(value, dict) else value
    return found


def _tensors(values):
    return [value for value in values if isinstance(value, torch.Tensor)]


def _inner(module):
    """Network inside a wrapper, or None."""
    if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return module.module
    return getattr(module, "_orig_mod", None)  # of torch.compile

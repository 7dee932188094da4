"""Copies of networks, taken out of torch's wrappers."""

import copy
import operator
from collections import OrderedDict, deque
from functools import partial
from types import CellType, FunctionType, MethodType

import torch
from torch import nn
from torch.nn.utils import parametrize


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
    copied = copy.deepcopy(module, memo)
    rebind_functions(module, memo)
    for layer in copied.modules():
        if parametrize.is_parametrized(layer):
            # torch made the class for one layer: taking its parametrization away changes it.
            kind = type(layer)
            own = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
            layer.__class__ = type(kind.__name__, kind.__bases__, own)
    make_picklable(copied)
    return copied


def _observers(module):
    """Memo by which objects whose methods are hooks stay as they are, unless layers hold them.

    They watch the network for somebody else, who finds in them what they have seen.
    """
    tables = [table for layer in module.modules() for table in _hook_tables(layer)]
    held = {id(value) for layer in module.modules() for value in _members(vars(layer), tables)}
    owners = [owner for table in tables for hook in table.values() for owner in _objects_of(hook)]
    held |= {id(layer) for layer in module.modules()}
    return {id(owner): owner for owner in owners if id(owner) not in held}


def _hook_tables(layer):
    return [table for name, table in vars(layer).items() if name.endswith("_hooks") and table]


def _objects_of(hook):
    """Objects that a hook works on: the one whose method it is, or what a partial was given."""
    if isinstance(hook, MethodType):
        return [hook.__self__]
    if isinstance(hook, partial):
        return [*_objects_of(hook.func), *hook.args, *hook.keywords.values()]
    return []


def rebind_functions(module, memo):
    """Let functions that the copied layers hold work on the copies of what theirs worked on.

    A deep copy leaves functions as they are, also those that were made inside the network and
    know its layers, such as ``self.head = lambda h: self.fc(h)``.

    Parameters
    ----------
    module : nn.Module
        The original.
    memo : dict
        Of the deep copy.
    """
    for layer in module.modules():
        copied = memo.get(id(layer))
        if copied is None or type(copied) is not type(layer):  # of a wrapper
            continue
        for name, value in vars(layer).items():
            if isinstance(value, FunctionType) and (bound := _rebound(value, memo)) is not value:
                vars(copied)[name] = bound


def _rebound(value, memo, within=()):
    """Give what a function knows or is, as it is for the copy."""
    if isinstance(value, nn.Module):
        return memo.get(id(value), value)
    if isinstance(value, MethodType):
        return copy.deepcopy(value, memo) if id(value.__self__) in memo else value
    if not isinstance(value, FunctionType) or value in within:
        return value
    compiled = getattr(value, "_torchdynamo_orig_callable", None)
    if compiled is not None:  # its wrapper is left out, as that of a compiled network
        return _rebound(compiled, memo, (*within, value))
    old = value.__closure__ or ()
    cells = tuple(_rebound_cell(cell, memo, (*within, value)) for cell in old)
    if all(map(operator.is_, cells, old)):
        return value
    code, name = value.__code__, value.__name__
    twin = FunctionType(code, value.__globals__, name, value.__defaults__, cells)
    twin.__kwdefaults__ = value.__kwdefaults__
    vars(twin).update(vars(value))
    return twin


def _rebound_cell(cell, memo, within):
    try:
        bound = _rebound(cell.cell_contents, memo, within)
    except ValueError:  # nothing was put into it yet
        return cell
    return cell if bound is cell.cell_contents else CellType(bound)


def memo_of_copies(module):
    """Memo for a deep copy: what it is to leave, what it refuses in layers, what it is slow at.

    It refuses tensors that a layer has computed and keeps; it is slow at the ten empty tables of
    hooks that every layer has.
    """
    tables = {
        id(value): OrderedDict()
        for layer in module.modules()
        for value in vars(layer).values()
        if type(value) is OrderedDict and not value
    }
    computed = {id(tensor): tensor.detach().clone() for tensor in computed_tensors(module)}
    return tables | computed | _observers(module)


def copy_state(state):
    """Copy what a network's or an optimizer's `state_dict` gave; sooner than a deep copy."""
    memo = {id(t): t.clone() for t in _tensors(state) if t.is_floating_point()}
    return copy.deepcopy(state, memo)


def computed_tensors(module):
    """Tensors that layers have computed and keep, as weight norm keeps such a weight."""
    return [
        tensor
        for layer in module.modules()
        for tensor in _tensors(vars(layer))
        if not tensor.is_leaf
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


def _tensors(container):
    """Tensors in a container and in those inside it."""
    return [value for value in _members(container) if isinstance(value, torch.Tensor)]


def _members(container, without=()):
    """Members of a container and of those inside it, but for some of these."""
    queue, seen = [container], {id(other) for other in without}
    for value in queue:
        if isinstance(value, (dict, list, tuple, set, deque)) and id(value) not in seen:
            seen.add(id(value))
            queue += value.values() if isinstance(value, dict) else value
    return queue[1:]


def _inner(module):
    """Network inside a wrapper, or None."""
    if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return module.module
    return getattr(module, "_orig_mod", None)  # of torch.compile

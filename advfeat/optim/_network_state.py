"""All that decides what a network computes: weights, buffers, and what layers hold beside.

A `state_dict` lacks buffers that are not persistent, and tensors and settings that are plain
attributes.
"""

import copy
from numbers import Number

import torch
from torch import nn

from advfeat.optim._copying import copy_state, tensors_in
from advfeat.optim._functions import members

SETTINGS = Number, str
# What every layer has: the tables of its weights, layers and hooks, and its mode.
MODULE_INTERNALS = frozenset(vars(nn.Module()))
BESIDE = _BUFFER, _ATTRIBUTE = "buffer.", "attribute."


def network_state(module, *, settings=True):
    """Copy all that changes in a network, for `set_network_state`.

    Parameters
    ----------
    module : nn.Module
    settings : bool, default=True
        Whether numbers and texts are copied as well: within a training, but not for a network that
        is built anew, which may have been given others.

    Returns
    -------
    tuple
    """
    tensors, copies = tensors_beside(module), {}
    for tensor in tensors.values():
        copies.setdefault(id(tensor), tensor.detach().clone())
    beside = {name: copies[id(tensor)] for name, tensor in tensors.items()}
    missing = {
        place: None
        for prefix, layer in _layers(module)
        for name, value in vars(layer).items()
        if value is None and (place := prefix + name) not in beside
    }
    known = {_memory(tensor) for tensor in (*module.state_dict().values(), *tensors.values())}
    held = {}
    for prefix, layer in _layers(module):
        for name, value in own_values(layer):
            inside = tensors_in([value])
            # What only lists the tensors of the network finds them there.
            if (inside or settings) and known.isdisjoint(map(_memory, inside)):
                held[prefix + name] = copies.setdefault(id(value), _copied(value, module))
    return copy_state(module.state_dict()), beside | missing | held


def own_values(layer):
    """Give settings, and containers of them and of tensors, that a layer of the user's holds.

    Settings are numbers and texts.
    """
    if type(layer).__module__.startswith("torch.nn."):
        return
    for name, value in vars(layer).items():
        inside = members([value]) if name not in MODULE_INTERNALS else ()
        if any(isinstance(v, (torch.Tensor, *SETTINGS)) for v in inside):
            of_layers = any(isinstance(v, nn.Module) for v in inside)
            if not of_layers and not isinstance(value, torch.Tensor):
                yield name, value


def _copied(value, module):
    """Copy a setting, or a container with its tensors, which may have been computed."""
    if isinstance(value, SETTINGS):
        return value
    return _with_tensors(value, module, lambda tensor: tensor.detach().clone())


def _with_tensors(value, module, change):
    """Copy a container, with its tensors changed.

    What leads to layers, such as their methods, goes on leading to those of the network.
    """
    own = {id(part): part for part in (*module.modules(), *module.parameters())}
    inside = members([value], objects=True)
    tensors = {id(t): change(t) for t in inside if isinstance(t, torch.Tensor)}
    return copy.deepcopy(value, tensors | own)


def to_device(module, device):
    """Move a module, and the tensors that its layers hold beside parameters and buffers.

    Tensors in lists, dicts and the like are moved, too, and stay the network's where they are.
    """
    device = torch.device(device)
    kinds = [(layer._parameters, layer._buffers, vars(layer)) for layer in module.modules()]
    held = [
        (t, table, name)
        for tables in kinds
        for table in tables
        for name, t in table.items()
        if isinstance(t, torch.Tensor)
    ]
    module.to(device)
    moved = {}
    for tensor, table, name in held:
        if table[name] is tensor:  # an attribute, or there already
            table[name] = moved.setdefault(id(tensor), tensor.to(device))
        else:
            moved[id(tensor)] = table[name]
    for layer in module.modules():
        for name, value in list(own_values(layer)):
            if not all(_is_on(device, tensor) for tensor in tensors_in([value])):
                vars(layer)[name] = _with_tensors(
                    value, module, lambda t: moved[id(t)] if id(t) in moved else t.to(device)
                )
    return module


def _is_on(device, tensor):
    """Whether a tensor is on a device, of which any will do where it has no number."""
    return tensor.device.type == device.type and device.index in (None, tensor.device.index)


def set_network_state(module, state):
    """Give a network, or another of its class, the tensors that `network_state` copied.

    Raises
    ------
    RuntimeError
        If the weights do not fit.
    LookupError
        If the network has no such layer or buffer.
    """
    weights, beside = state
    now = module.state_dict()
    for prefix, layer in module.named_modules():
        for name in layer._buffers:  # which were not there yet
            place = f"{prefix}.{name}" if prefix else name
            if place in now and place not in weights:
                layer._buffers[name] = None
    load_weights(module, weights)
    set_beside(module, beside)


def load_weights(module, weights):
    """Give a network the weights and buffers of a `state_dict`.

    A buffer of a layer of the user's may have got another shape by use, or may be a view whose
    values share memory, which cannot be written to: it becomes a new tensor.

    Raises
    ------
    RuntimeError
        If they do not fit.
    """
    new = {}
    device = next((tensor.device for tensor in module.parameters()), None)
    layers = dict(module.named_modules(remove_duplicate=False))
    for prefix, layer in layers.items():
        for name, old in layer._buffers.items():
            value = weights.get(f"{prefix}.{name}" if prefix else name)
            own = not type(layer).__module__.startswith("torch.nn.")
            if value is None or not own or name in layer._non_persistent_buffers_set:
                continue
            if old is None:
                layer._buffers[name] = value.clone().to(device)
            elif old.shape != value.shape or _overlaps(old):
                # Wherever layers share a buffer, they share the new one.
                made = new.setdefault(id(old), (old, value.clone().to(old.device, old.dtype)))[1]
                layer._buffers[name] = made
    module.load_state_dict(weights)


def _overlaps(tensor):
    """Whether values of a tensor lie at one place in memory, as those of an expanded one."""
    if tensor.layout is not torch.strided:
        return False
    return any(
        side > 1 and step == 0 for side, step in zip(tensor.shape, tensor.stride(), strict=True)
    )


def tensors_beside(module):
    """Tensors that the network's `state_dict` lacks, by their kind and place.

    Left out are those that share memory with one of it, such as tied weights, and those that a
    layer has computed with a graph, as weight norm does.
    """
    weights = module.state_dict(keep_vars=True)
    buffers = module.named_buffers(remove_duplicate=False)
    found = {_BUFFER + name: tensor for name, tensor in buffers if name not in weights}
    for prefix, layer in _layers(module):
        found |= {prefix + name: tensor for name, tensor in attributes(layer).items()}
    known = {_memory(tensor) for tensor in weights.values()}
    return {name: tensor for name, tensor in found.items() if _memory(tensor) not in known}


def set_beside(module, tensors):
    """Put tensors, named as `tensors_beside` does, into a network; others go on with the old ones.

    Wherever layers share a tensor, they share the new one.

    Raises
    ------
    LookupError
        If the network has no such layer or buffer.
    """
    layers, copies = dict(module.named_modules()), {}
    for name, value in tensors.items():
        kind, _, place = name.partition(".")
        path, _, leaf = place.rpartition(".")
        layer = layers.get(path)
        if layer is None or (f"{kind}." == _BUFFER and leaf not in layer._buffers):
            raise LookupError(f"the network has no {kind} {place}")
        code = leaf in MODULE_INTERNALS or callable(getattr(type(layer), leaf, None))
        if code and isinstance(value, torch.Tensor):
            raise LookupError(f"{place} of the network is no tensor")
        held = layer._buffers if leaf in layer._buffers else vars(layer)
        old = held.get(leaf)
        if isinstance(value, torch.Tensor):
            # A new tensor, not new values in the old one, which may be anyone's, such as a batch.
            like = old if isinstance(old, torch.Tensor) else next(module.parameters(), value)
            value = copies.setdefault(id(value), value.clone().to(like.device))
        elif value is not None:
            held[leaf] = copies.setdefault(id(value), _copied(value, module))
            continue
        elif not isinstance(old, torch.Tensor):
            continue
        held[leaf] = value
        if isinstance(old, torch.Tensor):
            for table in (t for m in layers.values() for t in (m._buffers, vars(m))):
                table.update({key: value for key, other in table.items() if other is old})


def attributes(layer):
    """Tensors that are plain attributes of a layer, by name."""
    return {
        name: value
        for name, value in vars(layer).items()
        if isinstance(value, torch.Tensor) and value.is_leaf
    }


def _layers(module):
    """Pairs of a layer and the prefix of its attributes' places."""
    for place, layer in module.named_modules():
        yield f"{_ATTRIBUTE}{place}." if place else _ATTRIBUTE, layer


def _memory(tensor):
    """Return what tensors that share memory have in common."""
    plain = isinstance(tensor, torch.Tensor) and tensor.layout is torch.strided
    if not plain or tensor.is_meta or not tensor.numel():
        return id(tensor)
    try:
        return tensor.device, tensor.untyped_storage().data_ptr()
    except RuntimeError:  # tensors of other libraries' classes need not have any of their own
        return id(tensor)

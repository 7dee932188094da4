"""All tensors that decide what a network computes: weights, buffers, and what layers hold beside.

A `state_dict` lacks buffers that are not persistent and tensors that are plain attributes.
"""

import torch

from advfeat.optim._copying import copy_state

BESIDE = _BUFFER, _ATTRIBUTE = "buffer.", "attribute."


def network_state(module):
    """Copy all tensors of a network, for `set_network_state`."""
    beside = {name: tensor.detach().clone() for name, tensor in tensors_beside(module).items()}
    return copy_state(module.state_dict()), beside


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
    module.load_state_dict(weights)
    set_beside(module, beside)


def tensors_beside(module):
    """Tensors that the network's `state_dict` lacks, by their kind and place.

    Those that a layer has computed with a graph, as weight norm does, are left out.
    """
    weights = module.state_dict()
    found = {_BUFFER + k: v for k, v in module.named_buffers() if k not in weights}
    for place, layer in module.named_modules():
        prefix = f"{_ATTRIBUTE}{place}." if place else _ATTRIBUTE
        found |= {prefix + name: tensor for name, tensor in attributes(layer).items()}
    return found


def set_beside(module, tensors):
    """Put tensors, named as `tensors_beside` does, into a network; others go on with the old ones.

    Raises
    ------
    LookupError
        If the network has no such layer or buffer.
    """
    layers = dict(module.named_modules())
    for name, value in tensors.items():
        kind, _, place = name.partition(".")
        path, _, leaf = place.rpartition(".")
        layer = layers.get(path)
        if layer is None or (f"{kind}." == _BUFFER and leaf not in layer._buffers):
            raise LookupError(f"the network has no {kind} {place}")
        held = layer._buffers if leaf in layer._buffers else vars(layer)
        old = held.get(leaf)
        # A new tensor, not new values in the old one, which may be anyone's, such as a batch.
        like = old if isinstance(old, torch.Tensor) else next(module.parameters(), value)
        held[leaf] = value.clone().to(like.device)


def attributes(layer):
    """Tensors that are plain attributes of a layer, by name."""
    return {
        name: value
        for name, value in vars(layer).items()
        if isinstance(value, torch.Tensor) and value.is_leaf
    }

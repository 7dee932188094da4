"""Copies of a fitted net: to be trained on, and on another device."""

import copy

import torch

from advfeat.optim._copying import compact, memo_of_copies, tensors_in
from advfeat.optim._functions import deep_copy
from advfeat.optim._network_state import to_device


def draft_of_net(net):
    """Copy a fitted net, so that training the copy leaves it as it is; they share callbacks."""
    draft = object.__new__(type(net))
    memo = memo_of_copies(net.module_)
    # Tensors are cloned far sooner than deep-copied: momentum, and buffers where no two share
    # memory, as in our own networks.
    tensors = [value for state in net.optimizer_.state.values() for value in state.values()]
    if isinstance(net.module__network, str):
        tensors += net.module_.buffers()
    memo.update({id(v): v.clone() for v in tensors if isinstance(v, torch.Tensor)})
    # Together, so that the copied optimizer holds the copied weights.
    module, optimizer = deep_copy((net.module_, net.optimizer_), net.module_, memo)
    vars(draft).update(
        vars(net), module_=compact(module), optimizer_=optimizer, history_=copy.copy(net.history_)
    )
    return draft


def on_device(net, device):
    """Return the fitted net, or a copy of it, with everything it holds on the device."""
    device = _with_index(device)
    momenta = tensors_in([*net.optimizer_.state.values()])
    held = (*net.module_.parameters(), *net.module_.buffers(), *momenta)
    used = {tensor.device for tensor in held}
    if used <= {device} and _with_index(net.device) == device:
        return net
    moved = deep_copy(net, net.module_, memo_of_copies(net.module_))
    moved.set_params(device=str(device))
    to_device(moved.module_, device)
    for state in moved.optimizer_.state.values():
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                state[key] = value.to(device)
    return moved


def _with_index(device):
    """Give the device as tensors name theirs: "cuda" is "cuda:0", or whichever is current."""
    return torch.empty(0, device=device).device

"""Copies of networks, taken out of torch's wrappers."""

import copy

import torch
from torch import nn


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
    memo = {}  # what a deep copy takes for the copy of an object
    for layer in module.modules():
        for tensor in _tensors(vars(layer)):
            if not tensor.is_leaf:
                memo[id(tensor)] = tensor.detach().clone()
    if share_weights:
        memo.update({id(t): t for t in (*module.parameters(), *module.buffers())})
    for layer in reversed(list(module.modules())):  # the inner ones first
        inner = _inner(layer)
        if inner is not None:
            memo[id(layer)] = copy.deepcopy(inner, memo)
    return copy.deepcopy(module, memo)


def _tensors(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (list, tuple, set)):
        for part in value:
            yield from _tensors(part)


def _inner(module):
    """Network inside a wrapper, or None."""
    if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return module.module
    return getattr(module, "_orig_mod", None)  # of torch.compile

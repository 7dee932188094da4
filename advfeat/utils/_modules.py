"""Copies of torch modules."""

import copy

import torch
from torch import nn

_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def copy_module(module):
    """Copy a module, without torch's wrappers for several GPUs and for compiled code.

    The copy shares nothing with the module; modes and hooks are kept.
    """
    twin = _unwrap(copy.deepcopy(_unwrap(module), copies_of_computed(module)))
    for layer in list(twin.modules()):
        for name, child in list(layer.named_children()):
            if _unwrap(child) is not child:
                setattr(layer, name, _unwrap(child))
    return twin


def copies_of_computed(module):
    """Give the memo for deepcopy that holds copies of what a module has computed.

    Old weight_norm and spectral_norm keep a computed weight, which deepcopy refuses.
    """
    return {
        id(value): value.detach().clone()
        for layer in module.modules()
        for value in vars(layer).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    }


def _unwrap(module):
    while True:
        if isinstance(module, _PARALLEL):
            module = module.module
        elif hasattr(module, "_orig_mod"):  # of torch.compile
            module = module._orig_mod
        else:
            return module


def refuse_module(estimator):
    """Raise a TypeError if a torch module stands where an estimator is needed."""
    if isinstance(estimator, nn.Module):
        raise TypeError(
            f"A torch module ({type(estimator).__name__}) is no estimator: it does not tell its "
            "labels and input shape. Pass from_torch(module, classes=..., input_shape=...)."
        )

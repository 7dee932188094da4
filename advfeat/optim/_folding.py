"""A network as a graph of operations, with batch-norm folded into the convolutions."""

from __future__ import annotations

import copy
from collections import Counter
from numbers import Number
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import fuse_conv_bn_weights

from advfeat.optim._comparing import agree
from advfeat.optim._functions import members
from advfeat.optim._graphs import REPEATS, Steps, capture
from advfeat.optim._network_state import own_values
from advfeat.optim._tracing import has_hooks, is_repeatable, trace
from advfeat.utils._device import autocast
from advfeat.utils._typing import Device

_N_TRIES = 20  # traces of a network without any gradient


class Fold:
    """A convolution and the batch-norm behind it, as one convolution.

    Parameters
    ----------
    conv, norm : nn.Module
        As they are in the network.
    precision : {"fp32", "bf16"}
        In which the folded weights are kept.
    """

    def __init__(self, conv, norm, precision):
        self.conv, self.norm, self.precision = conv, norm, precision
        # Without the convolution's own weights, which need not be copied.
        memo = {id(parameter): None for parameter in conv.parameters()}
        self.folded = copy.deepcopy(conv, memo).requires_grad_(False).eval()
        weight, bias = self._weights()
        self.folded.weight = nn.Parameter(weight, requires_grad=False)
        self.folded.bias = nn.Parameter(bias, requires_grad=False)

    def update(self):
        """Fold the present weights, in place: a captured graph reads them where they are."""
        weight, bias = self._weights()
        with torch.no_grad():
            self.folded.weight.copy_(weight)
            self.folded.bias.copy_(bias)

    def _weights(self):
        conv, norm = self.conv, self.norm
        with torch.no_grad():
            weight, bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps,
                norm.weight, norm.bias,
            )  # fmt: skip
        dtype = torch.bfloat16 if self.precision == "bf16" else weight.dtype
        return weight.to(dtype), bias.to(dtype)


class AttackedNetwork:
    """The logits of a network in training, as an attack on it needs them.

    It shares the network's layers and must be refreshed whenever their weights have changed.

    Parameters
    ----------
    module : nn.Module
        In eval mode when this is built or called.
    device : torch.device
        Where the network lives.
    precision : {"fp32", "bf16"}
        In which it computes; logits are float32 either way.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from advfeat.optim import AttackedNetwork
    >>> module = nn.Linear(2, 2).eval()
    >>> attacked = AttackedNetwork(module, device="cpu", precision="fp32")
    >>> x = torch.ones(1, 2)
    >>> bool((attacked(x) == module(x)).all())
    True
    >>> with torch.no_grad():
    ...     _ = module.weight.zero_()  # a step of the training
    >>> attacked.refresh()
    >>> bool((attacked(x) == module.bias).all())
    True
    """

    def __init__(self, module: nn.Module, *, device: Device, precision: str) -> None:
        self.device, self.precision = device, precision
        self._module = module
        self._traced: Any = None
        self._watched: Any = None  # attributes of layers
        self._held: Any = None  # buffers and these, as they were then
        self.steps = Steps()
        self._containers: list = []  # the same of what holds tensors and numbers
        self._n_refreshed = self._n_undecided = 0
        self._undecided = False
        self._refreshing: Any = None  # a captured graph, where it pays

    def __getstate__(self):
        # Only the network travels: unpickling a graph of torch.fx would trace it again.
        fresh = dict.fromkeys(("_traced", "_watched", "_held", "_refreshing"))
        fresh |= {"_containers": [], "_n_refreshed": 0, "_n_undecided": 0, "_undecided": False}
        return {**self.__dict__, **fresh}

    def refresh(self) -> None:
        """Fold the present weights."""
        if self._undecided:
            self._traced = None  # to be traced again, with other weights
        if self._traced is None:
            return
        now = self._held_now()
        if len(now) != len(self._held) or any(map(_differ, now, self._held)):
            # A layer puts new tensors in place of those it holds, which a graph does not see.
            self._traced, self._held, self._refreshing = (self._module, []), now, None
            self.steps.repeatable = False
        self._n_refreshed += 1
        if self.steps.repeatable and self._n_refreshed == REPEATS:
            self._refreshing = capture(self._fold_all, self.device)
        if self._refreshing is None:
            self._fold_all()
        else:
            self._refreshing.replay()

    def _held_now(self):
        """Tensors and numbers that the graph took from the network once for all."""
        attributes = (vars(layer).get(name) for layer, name in self._watched)
        kept = (v if isinstance(v, (Tensor, Number)) else None for v in attributes)
        held = [vars(layer).get(name) for layer, name in self._containers]
        inside = members(held)
        return [*self._module.buffers(), *kept, *(v for v in inside if _is_value(v))]

    def _fold_all(self):
        for fold in self._traced[1]:
            fold.update()

    def __call__(self, x: Tensor) -> Tensor:
        """Logits, float32 of shape (n, n_classes)."""
        if self._traced is None:
            graph = trace(self._module)
            same = agree(self._module, graph, x)
            self._n_undecided += same is None
            self._undecided = same is None and self._n_undecided < _N_TRIES
            same = bool(same)
            folds = fold_batch_norm(graph, self.precision) if same else []
            self._traced = graph if same else self._module, folds
            self._watched = _watched(self._module, graph) if same else []
            layers = self._module.modules() if same else ()
            self._containers = [
                (layer, name)
                for layer in layers
                for name, value in own_values(layer)
                if not isinstance(value, Number)
            ]
            self._held = self._held_now()
            self.steps.repeatable = same and is_repeatable(self._module, x.device)
        with autocast(self.device, self.precision):
            return self._traced[0](x.clone()).float()  # the network may begin in place


def _watched(module, graph):
    """Give (layer, name) of the plain attributes that a graph reads, or may have read.

    These are tensors, numbers and those that are None. Not of torch's own layers, which it calls.
    """
    found = [
        (layer, name, f"{place}.{name}", value)
        for place, layer in nn.Sequential(module).named_modules()  # as it is traced
        if not type(layer).__module__.startswith("torch.nn.")
        for name, value in vars(layer).items()
        if (value is None or isinstance(value, (Tensor, Number))) and name != "training"
    ]
    targets = {node.target for node in graph.graph.nodes if node.op == "get_attr"}
    read = {id(value) for *_, place, value in found if place in targets}
    return [
        (layer, name)
        for layer, name, _, value in found
        if not isinstance(value, Tensor) or id(value) in read
    ]


def _is_value(value):
    return isinstance(value, (Tensor, Number))


def _differ(now, then):
    """Whether an attribute is another: tensors may change in place, which a graph sees."""
    if isinstance(now, Tensor) or isinstance(then, Tensor):
        return now is not then
    return now is not then and now != then


def layer_of(node, modules):
    """Layer that a node of a graph calls, or None."""
    return modules[node.target] if node.op == "call_module" else None


def input_of(node):
    """First input of a node."""
    return node.args[0] if node.args else node.kwargs["input"]


def fold_batch_norm(graph, precision):
    """Fold each batch-norm of a graph into the convolution before it, in place.

    Parameters
    ----------
    graph : GraphModule
        In eval mode; it shares all other layers with the network.
    precision : {"fp32", "bf16"}
        With "bf16" folded weights are kept in bfloat16, as autocast would cast them at every call.

    Returns
    -------
    list of Fold
        To be updated whenever the network's weights change.
    """
    modules = dict(graph.named_modules())
    uses = Counter(_owner(node) for node in graph.graph.nodes)
    folds = []
    for node in graph.graph.nodes:
        norm = layer_of(node, modules)
        if not isinstance(norm, _BatchNorm) or norm.running_var is None or norm.training:
            continue
        before = input_of(node)
        conv = layer_of(before, modules)
        # A convolution that is used elsewhere too must stay as it is.
        alone = len(before.users) == 1 and uses[before.target] == 1
        plain = type(conv) in (nn.Conv1d, nn.Conv2d, nn.Conv3d)  # no parametrizations
        if plain and alone and not (_is_changed(conv) or _is_changed(norm)):
            folds.append(Fold(conv, norm, precision))
            graph.set_submodule(before.target, folds[-1].folded)
            node.replace_all_uses_with(before)
            graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()
    return folds


def _is_changed(layer):
    """Whether something is called with the layer, or in its place; weight norm may be a hook."""
    return "forward" in vars(layer) or has_hooks(layer)


def _owner(node):
    """Name of the layer that a node calls, or whose parameter it reads; else None."""
    if node.op == "get_attr":
        return node.target.rpartition(".")[0]
    return node.target if node.op == "call_module" else None

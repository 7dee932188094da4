"""Batch-norm of a traced network, folded into the convolutions before it."""

import copy
from collections import Counter

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import fuse_conv_bn_weights

from advfeat.optim._tracing import has_hooks


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

"""A frozen copy of a network, for predictions and for gradients with respect to the input.

The copy is in eval mode, asks for no parameter gradients and has its batch-norm folded into the
convolutions. It gives the logits and g(x), the penultimate layer: the input of the last linear
layer.
"""

import copy

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.fx.experimental.optimization import fuse

from advfeat.utils._device import autocast

_RELU_MODULES = (nn.ReLU, nn.ReLU6)
_RELU_FUNCTIONS = (F.relu, torch.relu, torch.relu_, F.relu_, "relu", "relu_")
_SHAPE_FUNCTIONS = (
    F.adaptive_avg_pool2d,
    F.avg_pool2d,
    F.dropout,
    F.max_pool2d,
    torch.cat,
    torch.flatten,
    torch.mean,
    "flatten",
    "mean",
    "reshape",
    "view",
)
_SHAPE_MODULES = (
    nn.Dropout,
    nn.Flatten,
    nn.Identity,
    nn.AdaptiveAvgPool2d,
    nn.AvgPool2d,
    nn.MaxPool2d,
)


class FrozenNetwork:
    """Inference copy of a trained network; the original is never touched.

    Parameters
    ----------
    module : nn.Module
        Returns logits for inputs in input units.
    device : torch.device
    precision : {"fp32", "bf16"}

    Attributes
    ----------
    has_features : bool
        Whether the network ends in a linear layer, whose input is g(x).
    passes_gradient : bool
        Whether dead units of the penultimate layer pass a gradient in `inversion_features`: false
        where there is no ReLU to pass, or where the network cannot be traced.
    """

    def __init__(self, module, *, device, precision="fp32"):
        self.device = torch.device(device)
        self.precision = precision
        module = copy.deepcopy(module).to(self.device).eval().requires_grad_(False)
        try:
            traced = fuse(module)
        except (fx.proxy.TraceError, TypeError, ValueError, NotImplementedError):
            # Control flow that depends on the data cannot be traced: run the module as it is.
            self._logits, self._features = module, _LastLinearInput(module)
            self._inversion_features = self._features
            self.has_features = self._features.layer is not None
            self.passes_gradient = False
            return
        self._logits = traced
        linear = _last_linear(traced)
        self.has_features = linear is not None
        if linear is None:
            self.passes_gradient = False
            return
        penultimate = linear.args[0]
        self._features = _cut_at(traced, penultimate)
        self._inversion_features, n_replaced = _pass_through_relus(self._features)
        self.passes_gradient = n_replaced > 0

    def __call__(self, x):
        """Logits, float32 of shape (n, n_classes)."""
        return self._run(self._logits, x)

    def features(self, x):
        """Penultimate features g(x), float32 of shape (n, n_features)."""
        return self._run(self._features, x).flatten(1)

    def inversion_features(self, x):
        """g(x), with the last ReLUs as identity in the backward pass.

        A dead unit still gives a gradient (the "fake ReLU" of the paper's construction).
        """
        return self._run(self._inversion_features, x).flatten(1)

    def _run(self, function, x):
        with autocast(self.device, self.precision):
            output = function(x)
        return output.float()


def _last_linear(traced):
    """Last linear layer on the way to the output, as a node of the graph."""
    modules = dict(traced.named_modules())
    found = None
    for node in traced.graph.nodes:
        is_module = node.op == "call_module" and isinstance(modules[node.target], nn.Linear)
        if is_module or (node.op == "call_function" and node.target is F.linear):
            found = node
    return found


def _cut_at(traced, node):
    """GraphModule that returns the value of one node; it shares the parameters."""
    graph, copies = fx.Graph(), {}
    graph.graph_copy(traced.graph, copies)
    graph.output(copies[node])
    cut = fx.GraphModule(traced, graph)
    graph.eliminate_dead_code()
    cut.recompile()
    return cut


def _pass_through_relus(traced):
    """Replace the last ReLU on every path to the output by one with an identity gradient.

    Returns
    -------
    GraphModule, int
        The changed copy and the number of ReLUs replaced.
    """
    graph, copies = fx.Graph(), {}
    graph.output(graph.graph_copy(traced.graph, copies))
    copy_ = fx.GraphModule(traced, graph)
    modules = dict(copy_.named_modules())
    open_nodes = list(next(iter(reversed(graph.nodes))).all_input_nodes)
    replaced = set()
    while open_nodes:
        node = open_nodes.pop()
        if node in replaced:
            continue
        if _is_relu(node, modules):
            replaced.add(node)
            with graph.inserting_after(node):
                fake = graph.call_function(_relu_with_identity_gradient, (node.args[0],))
            node.replace_all_uses_with(fake)
        elif _keeps_values(node, modules):
            open_nodes.extend(node.all_input_nodes)
    graph.eliminate_dead_code()
    graph.lint()
    copy_.recompile()
    return copy_, len(replaced)


def _is_relu(node, modules):
    if node.op == "call_module":
        return isinstance(modules[node.target], _RELU_MODULES)
    return node.op in ("call_function", "call_method") and node.target in _RELU_FUNCTIONS


def _keeps_values(node, modules):
    """Whether a node only pools, reshapes or joins."""
    if node.op == "call_module":
        return isinstance(modules[node.target], _SHAPE_MODULES)
    return node.op in ("call_function", "call_method") and node.target in _SHAPE_FUNCTIONS


def _relu_with_identity_gradient(x):
    return x + (F.relu(x) - x).detach()


class _LastLinearInput(nn.Module):
    """Features of a network that cannot be traced: the input of its last linear layer."""

    def __init__(self, module):
        super().__init__()
        self.module = module
        linears = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
        self.layer = linears[-1] if linears else None

    def forward(self, x):
        seen = []
        hook = self.layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        try:
            self.module(x)
        finally:
            hook.remove()
        return seen[-1]

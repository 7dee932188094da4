"""Penultimate features g(x) of a network, and the gradients that an inversion needs of them."""

import copy
import threading
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.modules.conv import _ConvNd

from advfeat.optim._copying import copy_network
from advfeat.optim._folding import input_of, layer_of
from advfeat.optim._operations import (
    Operations,
    other_inputs,
    same_but_for_scale,
    scores_each_class,
)
from advfeat.optim._tracing import Traced
from advfeat.utils._device import default_modes

_LINEAR = F.linear, torch.ops.aten.linear.default  # the latter in exported programs


def cut_at_features(graph, x):
    """Part of a graph up to g(x), the input of the last linear layer; it shares the parameters.

    Parameters
    ----------
    graph : GraphModule
        From inputs to logits.
    x : tensor of shape (n, ...)
        Inputs, on which the graph is looked at.

    Returns
    -------
    GraphModule or None
        None if the network does not end in a linear layer.
    """
    operations = Operations(graph, x)
    for linear in _linear_layers(graph):
        if operations.gives_a_score_of_each_class(linear):
            break
    else:
        return None
    last = input_of(linear)
    # Later nodes are left out; earlier ones all stay, as they may work in place.
    part, copies = fx.Graph(), {}
    for node in graph.graph.nodes:
        copies[node] = part.node_copy(node, copies.__getitem__)
        if node is last:
            break
    features = copies[last]
    layer = layer_of(linear, dict(graph.named_modules()))
    if layer is not None and layer._forward_pre_hooks:
        graph.add_submodule("hooks_before_last_layer", _hooks_before(layer))
        features = part.call_module("hooks_before_last_layer", (features,))
    part.output(features)
    return Traced(graph, part)


def _hooks_before(layer):
    """Layer that gives what another gets from its hooks, which may change its input."""
    hooks = copy.copy(layer)
    hooks.forward = nn.Identity().forward
    for later in ("_forward_hooks", "_backward_pre_hooks", "_backward_hooks"):
        setattr(hooks, later, OrderedDict())
    return hooks


def _linear_layers(graph):
    """Linear layers on the way to the output, as nodes, the last one first."""
    modules = dict(graph.named_modules())
    reaches_output = set()
    for node in reversed(graph.graph.nodes):
        if node.op == "output" or node in reaches_output:
            reaches_output.update(node.all_input_nodes)
            if node.target in _LINEAR or isinstance(layer_of(node, modules), nn.Linear):
                yield node


def pass_gradient_when_off(features, x):
    """Features of which those that are zero pass the gradient that they had without their ReLU.

    A feature that is on keeps its own gradient. That of the identity would be wrong there as soon
    as the feature pools over positions, since it counts positions that are off.
    """
    return _without_relus(features, x, _wake_features)


def pass_gradient_always(features, x):
    """Features of which all pass the gradient of the last ReLU's input, on or off.

    That is the "fake ReLU" of the authors' code: a ReLU forward, the identity backward.
    """
    return _without_relus(features, x, _ignore_relus)


def _without_relus(features, x, change):
    """Copy of a graph in which the last ReLU on every path to the output is treated otherwise.

    The ReLUs are found by what they do, see `Operations`, and so are the operations behind them
    that only pool, reshape, select or join. A network that has no unit with a dead zone there
    (GELU, SiLU, tanh, LayerNorm) is left as it is: all of its features have a gradient already.
    """
    operations = Operations(features, x)
    relus, behind = operations.last_relus()
    graph = copy.deepcopy(features.graph)
    nodes = {node.name: node for node in graph.nodes}
    without_relu = {}  # ReLU, or node behind one: what it would be without the ReLU
    for name, source in relus.items():
        relu, before = nodes[name], nodes[source]
        if name in operations.in_place:  # what goes into it is still needed
            with graph.inserting_before(relu):
                relu.replace_input_with(before, graph.call_method("clone", (before,)))
        without_relu[relu] = before
    change(graph, without_relu, [node for node in graph.nodes if node.name in behind])
    graph.lint()
    return Traced(features, graph)


def _wake_features(graph, without_relu, behind):
    # The nodes behind the ReLUs once more, without them: that is where the gradient of a feature
    # that is off comes from.
    output = graph.output_node()
    (last,) = output.all_input_nodes
    with graph.inserting_before(output):
        for node in behind:
            without_relu[node] = graph.node_copy(node, lambda arg: without_relu.get(arg, arg))
        if last in without_relu:
            output.replace_input_with(last, graph.call_function(_wake, (last, without_relu[last])))


def _wake(features, without_relu):
    return torch.where(features == 0, without_relu - without_relu.detach(), features)


def _ignore_relus(graph, without_relu, behind):
    for relu, before in without_relu.items():
        with graph.inserting_after(relu):
            passing = graph.call_function(_value_of_first_gradient_of_second, (relu, before))
        relu.replace_all_uses_with(passing, lambda user, passing=passing: user is not passing)


class _PassThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, source):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return None, gradient


def _value_of_first_gradient_of_second(value, source):
    return _PassThrough.apply(value, source)


def stuck_features(function, x):
    """Which features pass no gradient to the input.

    Parameters
    ----------
    function : callable
        From inputs of shape (n, ...) to features of shape (n, n_features).
    x : tensor of shape (n, ...)

    Returns
    -------
    tensor of shape (n, n_features), bool
        False throughout if the network cannot be differentiated twice.
    """
    generator = torch.Generator("cpu").manual_seed(0)  # the same direction on every device
    with torch.inference_mode(False), torch.enable_grad():
        x = x.detach().clone().requires_grad_(True)
        features = function(x)
        weights = torch.zeros_like(features, requires_grad=True)
        # The change of all features along one direction, J u, as the derivative of u'J'w by w.
        direction = torch.randn(x.shape, device="cpu", generator=generator).to(x.device)
        try:
            (gradient,) = torch.autograd.grad(features, x, weights, create_graph=True)
            (change,) = torch.autograd.grad(gradient, weights, direction)
        except RuntimeError:
            return torch.zeros_like(features, dtype=torch.bool)
    return change == 0


def no_features(x):
    """Refuse to give features."""
    raise ValueError(
        "The network has no penultimate features, as it does not end in a linear layer whose "
        "values are its logits, alone. Use a network that ends in nn.Linear."
    )


class LastLinearInput:
    """Features of a network that cannot be traced: the input of the last linear layer it runs."""

    def __init__(self, module):
        # A copy that shares the weights, as the hooks are no part of the network.
        self.module = copy_network(module, share_weights=True)
        self.last = last = threading.local()  # threads may share the network

        def remember(layer, args, kwargs):  # a method would lead from the network to itself
            last.call = layer, args[0] if args else kwargs["input"]

        for layer in self.module.modules():
            if isinstance(layer, (nn.Linear, _ConvNd)):
                layer.register_forward_pre_hook(remember, with_kwargs=True)

    @classmethod
    def of(cls, module, x):
        """Make one, or return None if the network does not end in a linear layer."""
        features = cls(module)
        with torch.no_grad():
            linear = features._run(x)[0]
        whole = linear is not None and features._gives_the_logits(linear, x)
        return features if whole else None

    def __call__(self, x):
        """Penultimate features of a batch."""
        linear, features = self._run(x)
        return no_features(x) if linear is None else features

    def _gives_the_logits(self, linear, x):
        """Whether the last call of a layer scores each class, and nothing but a scale its logits.

        Then they are the same for other inputs, if that call gives the same.
        """
        calls, leaves = [], []

        def cut(layer, args, output):
            calls.append(None)
            if len(calls) != n_calls:
                return None
            if not leaves:
                leaves.append(output.detach().requires_grad_(True))
            return leaves[0].clone()

        n_calls = 0
        hook = linear.register_forward_hook(cut)
        try:
            with torch.no_grad():
                self._run(x)
            n_calls = len(calls)
            calls.clear()
            with default_modes():  # in float32, whose rounding is no side path
                asking = x.detach().clone().requires_grad_(True)  # else backward hooks warn
                logits = self.module(asking.clone())
                if not leaves or not scores_each_class(logits, leaves[0]):
                    return False
            calls.clear()
            try:
                with default_modes(), torch.no_grad():
                    other = self.module(other_inputs(x))
            except Exception:  # a network need not take what was made up
                return True
        except RuntimeError:  # a network that cannot be differentiated here
            return False
        finally:
            hook.remove()
            self.last.call = None
        with default_modes():
            return same_but_for_scale(logits.detach(), other)

    def _run(self, x):
        self.last.call = None, None
        self.module(x.clone())
        (layer, features), self.last.call = self.last.call, None
        return (layer if isinstance(layer, nn.Linear) else None), features

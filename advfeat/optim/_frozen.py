"""A frozen copy of a network, for predictions and for gradients with respect to the input.

The copy is in eval mode, asks for no parameter gradients and has its batch-norm folded into the
convolutions. It gives the logits and g(x), the penultimate layer: the input of the last linear
layer.
"""

import copy
import operator
import threading

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.modules.conv import _ConvNd

from advfeat.optim._comparing import N_ROWS, compare
from advfeat.optim._copying import copy_network
from advfeat.optim._folding import fold_batch_norm, input_of, layer_of
from advfeat.optim._tracing import trace, tracing
from advfeat.utils._checks import batch_tensor
from advfeat.utils._device import autocast

# ReLUs, out of place. How a node of the graph names the operation: the type of a layer, a
# function, or a method.
_RELUS = {
    nn.ReLU: F.relu,
    nn.ReLU6: F.relu6,
    F.relu: F.relu,
    F.relu_: F.relu,
    F.relu6: F.relu6,
    torch.relu: F.relu,
    torch.relu_: F.relu,
    "relu": F.relu,
    "relu_": F.relu,
}
_KEEP_VALUES = {  # operations that only pool, reshape, select or join
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.AvgPool2d,
    nn.Dropout,
    nn.Dropout2d,
    nn.Flatten,
    nn.Identity,
    nn.MaxPool2d,
    F.adaptive_avg_pool2d,
    F.adaptive_max_pool2d,
    F.avg_pool2d,
    F.dropout,
    F.max_pool2d,
    operator.getitem,
    torch.amax,
    torch.cat,
    torch.flatten,
    torch.mean,
    torch.reshape,
    torch.squeeze,
    "amax",
    "flatten",
    "mean",
    "reshape",
    "squeeze",
    "view",
}


_PRODUCTS = {  # after these, the last nn.Linear is not the last layer
    operator.matmul,
    torch.addmm,
    torch.bmm,
    torch.einsum,
    torch.matmul,
    torch.mm,
    "addmm",
    "bmm",
    "matmul",
    "mm",
    F.bilinear,
    F.conv1d,
    F.conv2d,
    F.conv3d,
    torch.conv1d,
    torch.conv2d,
    torch.conv3d,
    nn.Bilinear,
}


class FrozenNetwork:
    """Inference copy of a trained network; the original is never touched.

    The network is traced (torch.fx) at the first use, to fold its batch-norm and to find its
    features. Where the traced network would not compute the same logits and input gradients,
    the network runs as it is.

    Parameters
    ----------
    module : nn.Module
        Returns logits for inputs in input units.
    device : torch.device
    precision : {"fp32", "bf16"}
    """

    def __init__(self, module, *, device, precision="fp32"):
        self.device = torch.device(device)
        self.precision = precision
        self._module = copy_network(module).to(self.device).eval().requires_grad_(False)
        self._verdict = None  # of `compare`
        self._built = None

    def __getstate__(self):
        # Only the network travels: unpickling a graph of torch.fx would trace it again.
        return {**self.__dict__, "_built": None}

    def verify(self, X):
        """Decide, on a few inputs, whether the network can be run traced; returns self.

        The first call does so by itself. Before the network travels to workers it is to be done
        once for all of them.

        Parameters
        ----------
        X : ndarray of shape (n, ...)
            As in the public functions: uint8 is scaled to [0, 1].
        """
        self._parts(batch_tensor(X[:N_ROWS], self.device))
        return self

    @property
    def random(self):
        """Whether the logits for one input differ from call to call; known once verified."""
        return self._verdict is not None and self._verdict[1]

    @property
    def has_features(self):
        """Whether the network ends in a linear layer, whose input is g(x)."""
        return self._parts().has_features

    @property
    def passes_gradient(self):
        """Whether units that are off pass a gradient in `inversion_features`.

        False where there is no ReLU to pass, or where the network cannot be traced.
        """
        return self._parts().passes_gradient

    def __call__(self, x):
        """Logits, float32 of shape (n, n_classes)."""
        return self._run(self._parts(x).logits, x)

    def features(self, x):
        """Penultimate features g(x), float32 of shape (n, n_features)."""
        return self._run(self._parts(x).features, x).flatten(1)

    def inversion_features(self, x):
        """g(x); a unit that is off gives the gradient of its input.

        This is the "fake ReLU" of the paper's construction, kept to the units that need it.
        """
        return self._run(self._parts(x).inversion_features, x).flatten(1)

    def _parts(self, x=None):
        """Build the functions at the first use, and verify them as soon as there are inputs."""
        if self._built is None or (self._verdict is None and x is not None):
            with tracing:  # threads that share the network wait for the first
                if self._verdict is None and x is not None:
                    graph = trace(self._module)
                    same, random = compare(self._module, graph, x)
                    self._built = _Parts(self._module, graph if same else None, self.precision)
                    self._verdict = same, random
                elif self._built is None:
                    traced = self._verdict is None or self._verdict[0]
                    graph = trace(self._module) if traced else None
                    self._built = _Parts(self._module, graph, self.precision)
        return self._built

    def _run(self, function, x):
        with autocast(self.device, self.precision):
            output = function(x.clone())  # the network may begin in place
        return output.float()


class _Parts:
    """Logits and features of a network, as functions."""

    def __init__(self, module, graph, precision):
        self.logits = module if graph is None else graph
        self.features = self.inversion_features = _no_features
        self.has_features = self.passes_gradient = False
        if graph is None:
            if any(isinstance(layer, nn.Linear) for layer in module.modules()):
                self.has_features = True
                self.features = self.inversion_features = _LastLinearInput(module)
            return
        fold_batch_norm(graph, precision)
        linear = _last_linear(graph)
        if linear is not None:
            self.has_features = True
            self.features = _cut_at(graph, input_of(linear))
            self.inversion_features, n_replaced = _with_gradient_when_off(self.features)
            self.passes_gradient = n_replaced > 0


def _wake(features, without_relu):
    """Features, with a gradient for the units that are off.

    A unit that is on keeps its own gradient. That of the identity would be wrong there as soon as
    the unit pools over positions, since it counts positions that are off.
    """
    return torch.where(features == 0, without_relu - without_relu.detach(), features)


def _last_linear(graph):
    """Last layer on the way to the output, as a node, if it is linear; else None."""
    modules = dict(graph.named_modules())
    reaches_output = set()
    for node in reversed(graph.graph.nodes):
        if node.op != "output" and node not in reaches_output:
            continue
        reaches_output.update(node.all_input_nodes)
        if node.target is F.linear or isinstance(layer_of(node, modules), nn.Linear):
            return node
        if isinstance(layer_of(node, modules), _ConvNd) or _kind(node, modules) in _PRODUCTS:
            return None
    return None


def _cut_at(graph, last):
    """GraphModule that returns the value of one node; it shares the parameters."""
    # Later nodes are left out; earlier ones all stay, as they may work in place.
    part, copies = fx.Graph(), {}
    for node in graph.graph.nodes:
        copies[node] = part.node_copy(node, copies.__getitem__)
        if node is last:
            break
    part.output(copies[last])
    return fx.GraphModule(graph, part)


def _with_gradient_when_off(features):
    """Let features that are off pass a gradient through the last ReLU on every path to them.

    Returns
    -------
    GraphModule, int
        The changed copy and the number of ReLUs concerned.
    """
    modules = dict(features.named_modules())
    graph = copy.deepcopy(features.graph)
    output = graph.output_node()
    relus, behind = _last_relus(graph, modules)
    without_relu = {}  # node: what it would be without those ReLUs
    for relu in relus:
        before = input_of(relu)
        with graph.inserting_after(relu):
            plain = graph.call_function(_RELUS[_kind(relu, modules)], (before,))
        relu.replace_all_uses_with(plain)
        graph.erase_node(relu)
        without_relu[plain] = before
    with graph.inserting_before(output):
        for node in behind:
            without_relu[node] = graph.node_copy(node, lambda arg: without_relu.get(arg, arg))
        (last,) = output.all_input_nodes
        if last in without_relu:
            woken = graph.call_function(_wake, (last, without_relu[last]))
            output.replace_input_with(last, woken)
    graph.lint()
    return fx.GraphModule(features, graph), len(relus)


def _last_relus(graph, modules):
    """Last ReLU on every path to the output, and in order the nodes behind them."""
    relus, behind = [], set()
    open_nodes = list(graph.output_node().all_input_nodes)
    while open_nodes:
        node = open_nodes.pop()
        kind = _kind(node, modules)
        if node in relus or node in behind:
            continue
        if kind in _RELUS:
            # An in-place one whose changed input others rely on must stay.
            if not (_is_in_place(node, modules) and len(input_of(node).users) > 1):
                relus.append(node)
        elif kind in _KEEP_VALUES:
            behind.add(node)
            open_nodes.extend(node.all_input_nodes)
    return relus, [node for node in graph.nodes if node in behind]


def _kind(node, modules):
    """Operation of a node: the type of its layer, a function or the name of a method."""
    if node.op == "call_module":
        return type(modules[node.target])
    return node.target if node.op in ("call_function", "call_method") else None


def _is_in_place(node, modules):
    if node.op == "call_module":
        return modules[node.target].inplace
    name = getattr(node.target, "__name__", node.target)
    return name.endswith("_") or True in (*node.args[1:], *node.kwargs.values())


def _no_features(x):
    raise ValueError(
        "The network has no penultimate features, as it does not end in a linear layer. Use a "
        "network that ends in nn.Linear."
    )


class _LastLinearInput:
    """Features of a network that cannot be traced: the input of the last linear layer it runs."""

    def __init__(self, module):
        # A copy that shares the weights, as the hooks are no part of the network.
        self.module = copy_network(module, share_weights=True)
        self.last = threading.local()  # threads may share the network
        for layer in self.module.modules():
            if isinstance(layer, (nn.Linear, _ConvNd)):
                layer.register_forward_pre_hook(self._remember, with_kwargs=True)

    def _remember(self, layer, args, kwargs):
        self.last.call = layer, args[0] if args else kwargs["input"]

    def __call__(self, x):
        self.last.call = None, None
        self.module(x)
        (layer, features), self.last.call = self.last.call, None
        if not isinstance(layer, nn.Linear):
            _no_features(x)
        return features

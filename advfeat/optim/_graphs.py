"""The gradient with respect to the input, replayed as a CUDA graph where steps repeat.

A GPU is done with a step of a small network before the CPU has launched its kernels one by one; a
CUDA graph launches all of them at once. The kernels, and so the results, are the same.
"""

import threading
from collections import Counter, OrderedDict

import torch

from advfeat.optim._tracing import tracing

_REPEATS = 20  # plain steps after which a graph is captured; the capture costs about four
_KEPT = 3  # graphs of a network; each holds the memory of one step


def output_and_gradient(network, loss, z, target):
    """Compute the output for z, its loss, and the gradient of the loss with respect to z.

    Parameters
    ----------
    network : callable
        From inputs to logits or features. Steps of a network of this package, or of a method of
        one, may be replayed: the tensors returned are then written to by the next step.
    loss : callable
        From the output and the target to one value per sample.
    z : tensor of shape (n, ...)
    target : tensor of shape (n, ...)

    Returns
    -------
    output, value, gradient : tensor
        The gradient is None if there is none.
    """
    steps = getattr(getattr(network, "__self__", network), "steps", None)
    if steps is None or not steps.repeatable:
        return _compute(network, loss, z, target)
    return steps(network, loss, z, target)


class Steps:
    """The steps of one network, counted by kind; the kinds that repeat are replayed.

    Attributes
    ----------
    repeatable : bool
        Whether the network may be captured: on a CUDA device, traced, and not random. Whoever
        traces the network says so.
    """

    def __init__(self):
        self.repeatable = False
        self._own = threading.local()  # a graph has one set of buffers: one for each thread

    def __getstate__(self):
        return {}  # of no use in another process, where the network is traced anew

    def __setstate__(self, state):
        self.__init__()

    def __deepcopy__(self, memo):
        return Steps()

    def __call__(self, network, loss, z, target):
        """Compute as `output_and_gradient`."""
        own = self._own.__dict__
        counts = own.setdefault("counts", Counter())
        graphs = own.setdefault("graphs", OrderedDict())
        name = getattr(network, "__name__", "")
        kind = (name, loss, z.shape, z.dtype, target.shape, target.dtype)
        counts[kind] += 1
        if kind not in graphs:
            if counts[kind] != _REPEATS:
                return _compute(network, loss, z, target)
            graphs[kind] = _Graph.of(network, loss, z, target)
            if len(graphs) > _KEPT:
                counts.pop(graphs.popitem(last=False)[0])
        graphs.move_to_end(kind)
        graph = graphs[kind]
        return _compute(network, loss, z, target) if graph is None else graph(z, target)


class _Graph:
    """One captured step and the buffers that it reads and writes."""

    def __init__(self, network, loss, z, target):
        self.z, self.target = z.detach().clone().requires_grad_(True), target.clone()
        current, side = torch.cuda.current_stream(z.device), torch.cuda.Stream(z.device)
        side.wait_stream(current)
        with torch.cuda.device(z.device), torch.cuda.stream(side):
            for _ in range(2):  # what is set up at a first call must not be captured
                _compute(network, loss, self.z, self.target)
            side.synchronize()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=side, capture_error_mode="thread_local"):
                self.found = _compute(network, loss, self.z, self.target)
        current.wait_stream(side)

    @classmethod
    def of(cls, network, loss, z, target):
        """Capture a step, or return None where it cannot be."""
        try:
            with tracing:  # one capture at a time
                return cls(network, loss, z, target)
        except RuntimeError:  # an operation that asks the CPU in between, or too little memory
            return None

    def __call__(self, z, target):
        with torch.no_grad():
            self.z.copy_(z)
            self.target.copy_(target)
        self.graph.replay()
        return self.found


def _compute(network, loss, z, target):
    with torch.enable_grad():
        z = z.detach().requires_grad_(True)
        output = network(z)
        value = loss(output, target)
        gradient = None
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value.sum(), z, allow_unused=True)
    return output.detach(), value.detach(), gradient

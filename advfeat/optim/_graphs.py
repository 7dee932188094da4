"""The gradient with respect to the input, replayed as a CUDA graph where steps repeat.

A GPU is done with a step of a small network before the CPU has launched its kernels one by one; a
CUDA graph launches all of them at once. The kernels, and so the results, are the same.
"""

import threading
from collections import Counter, OrderedDict

import torch

from advfeat.optim._tracing import tracing

NO_GRADIENT = (
    "The network has no gradient with respect to its input: nothing that it does to it can be "
    "differentiated (is it detached, or turned into integers?). Use a network that lets gradients "
    "through."
)

# The run at which a step of one kind, with the same shapes, is captured: that costs about four
# plain runs. An attack of the default 20 steps ends before; fewer samples are another kind.
REPEATS = 21
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
        The gradient is None if there is none. The others may still hang on their graph.
    """
    steps = getattr(getattr(network, "__self__", network), "steps", None)
    if not isinstance(steps, Steps) or not steps.repeatable:
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

    def __reduce__(self):
        return Steps, ()  # copies, and other processes, trace the network anew

    def __call__(self, network, loss, z, target):
        """Compute as `output_and_gradient`."""
        own = self._own.__dict__
        counts = own.setdefault("counts", Counter())
        graphs = own.setdefault("graphs", OrderedDict())
        name = getattr(network, "__name__", "")
        kind = (name, loss, z.shape, z.dtype, target.shape, target.dtype)
        counts[kind] += 1
        if kind not in graphs:
            if counts[kind] != REPEATS:
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
        self.z, self.target = z.detach().clone(), target.clone()

        def step():
            output, value, gradient = _compute(network, loss, self.z, self.target)
            return output.detach(), value.detach(), gradient

        self.captured = capture(step, z.device)

    @classmethod
    def of(cls, network, loss, z, target):
        """Capture a step, or return None where it cannot be."""
        graph = cls(network, loss, z, target)
        return None if graph.captured is None else graph

    def __call__(self, z, target):
        self.z.copy_(z.detach())
        self.target.copy_(target)
        return self.captured.replay()


def capture(function, device):
    """Capture what a function without arguments computes on a CUDA device.

    The function is called twice: once to set up what must not be captured, then to be recorded.

    Returns
    -------
    Captured or None
        None where it cannot be captured.
    """
    with tracing, torch.cuda.device(device):  # one capture at a time
        stream = torch.cuda.current_stream()
        try:
            return Captured(function, device)
        except BaseException as error:
            torch.cuda.set_stream(stream)  # one that fails leaves the thread on its own
            _end_failed_capture()
            if isinstance(error, RuntimeError):  # an operation that asks the CPU, or no memory
                return None
            raise


def _end_failed_capture():
    """Let the device's random generator know that nothing is captured any more.

    A capture that fails leaves it in a state in which every draw outside a graph raises an error;
    one that succeeds ends that state.
    """
    counter = torch.zeros(1, device="cuda")
    stream = torch.cuda.Stream()  # torch's own belongs to the first device that asked for it
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        counter.add_(1)


class Captured:
    """A function as a CUDA graph."""

    def __init__(self, function, device):
        self.device = device
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            function()
        current.wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=side, capture_error_mode="thread_local"):
            self.found = function()

    def replay(self):
        """Run it again; return what it returned, written anew in the same tensors."""
        with torch.cuda.device(self.device):
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
    return output, value, gradient

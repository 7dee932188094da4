"""Training steps, replayed as CUDA graphs: a GPU is done before a CPU has launched the kernels."""

from collections import Counter

import torch
from torch.nn.modules.module import _has_any_global_hook

from advfeat.optim._graphs import REPEATS, capture
from advfeat.utils._random import draws_in_training


def repeats(module):
    """Whether a training step is the same work each time: no draws, and no hooks on gradients."""
    hooks = ("_backward_hooks", "_backward_pre_hooks", "_post_accumulate_grad_hooks")
    parts = (*module.modules(), *module.parameters())
    hooked = any(getattr(part, name, None) for part in parts for name in hooks)
    return not (hooked or _has_any_global_hook() or draws_in_training(module))


class CapturedStep:
    """Forward and backward pass of a batch, replayed for batches of the shape that repeats.

    It lasts for one epoch, or until the network has other parameters, as callbacks may give it.

    Parameters
    ----------
    compute : callable
        ``compute(x, y, weight)`` adds to the gradients of the parameters, which are None before,
        and returns the loss and the logits, detached. It draws nothing at random.
    module : nn.Module
        The network; what it counts and averages (batch-norm) is written in place.
    """

    def __init__(self, compute, module):
        self.compute, self.module = compute, module
        self.counts = Counter()
        self.kind = self.graph = None

    def __reduce__(self):
        # The net may be copied within an epoch; a graph cannot be.
        return CapturedStep, (self.compute, self.module)

    def __call__(self, *batch):
        """Compute as ``compute``."""
        kind = tuple((rows.shape, rows.dtype) for rows in batch)
        self.counts[kind] += 1
        if self.kind is None and self.counts[kind] == REPEATS:
            self.kind = kind
            self._capture(batch)
        if self.graph is not None and self._present() != self._then:
            self.graph = None  # a callback has changed the network
        if self.graph is None or kind != self.kind:
            return self.compute(*batch)
        for buffer, rows in zip(self.buffers, batch, strict=True):
            buffer.copy_(rows)
        loss, logits, gradients = self.graph.replay()
        self._set_gradients(gradients)
        return loss.clone(), logits.clone()  # callbacks may keep them

    def _capture(self, batch):
        self.buffers = [rows.clone() for rows in batch]
        statistics = [(buffer, buffer.clone()) for buffer in self.module.buffers()]

        def step():
            self._set_gradients([None] * len(self._parameters))
            loss, logits = self.compute(*self.buffers)
            return loss, logits, [p.grad for p in self._parameters]

        self._parameters = [p for p in self.module.parameters() if p.requires_grad]
        self._then = self._present()
        self.graph = capture(step, self.buffers[0].device)
        self._set_gradients([None] * len(self._parameters))
        with torch.no_grad():  # the first of the two runs counted
            for buffer, before in statistics:
                buffer.copy_(before)

    def _present(self):
        tensors = (*self.module.parameters(), *self.module.buffers())
        return [(tensor.data_ptr(), tensor.requires_grad) for tensor in tensors]

    def release(self):
        """Let go of the graph, and of the gradients that it holds."""
        if self.graph is not None:
            self.graph = None
            self._set_gradients([None] * len(self._parameters))

    def _set_gradients(self, gradients):
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient

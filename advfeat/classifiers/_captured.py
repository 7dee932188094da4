"""Training steps, replayed as CUDA graphs: a GPU is done before a CPU has launched the kernels."""

from collections import Counter

import torch

from advfeat.optim._graphs import REPEATS, capture


class CapturedStep:
    """Forward and backward pass of a batch, replayed for batches of the shape that repeats.

    It lasts for one epoch, since callbacks may change the network in between.

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

    def __call__(self, *batch):
        """Compute as ``compute``."""
        kind = tuple((rows.shape, rows.dtype) for rows in batch)
        self.counts[kind] += 1
        if self.kind is None and self.counts[kind] == REPEATS:
            self.kind = kind
            self._capture(batch)
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
        self.graph = capture(step, self.buffers[0].device)
        self._set_gradients([None] * len(self._parameters))
        with torch.no_grad():  # the first of the two runs counted
            for buffer, before in statistics:
                buffer.copy_(before)

    def _set_gradients(self, gradients):
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient

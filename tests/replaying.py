"""CUDA graphs played on the CPU, so that what surrounds them can be tested without a GPU."""

import torch

from advfeat.classifiers import _captured
from advfeat.optim import _attacked, _graphs


class Replay:
    """Runs a function again and writes what it returns into the buffers of the first time."""

    n_replays = 0

    def __init__(self, function, found):
        self.function, self.found = function, found

    def replay(self):
        Replay.n_replays += 1
        for buffer, value in zip(_flat(self.found), _flat(self.function()), strict=True):
            buffer.copy_(value)
        return self.found


def _flat(found):
    if isinstance(found, torch.Tensor):
        return [found]
    return [tensor for part in found or () for tensor in _flat(part)]


def capture(function, device):
    """Stand in for `advfeat.optim._graphs.capture`."""
    function()
    found = function()
    return Replay(function, found)


def on_the_cpu(monkeypatch):
    """Let everything that captures do so here."""
    Replay.n_replays = 0
    for module in (_graphs, _attacked, _captured):
        monkeypatch.setattr(module, "capture", capture)
    return Replay

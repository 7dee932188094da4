"""A network of one block and a linear layer, data for it, and how it is trained."""

import numpy as np
from torch import nn

SHAPE = (3, 8, 8)
X = np.random.default_rng(0).random((10, *SHAPE), dtype=np.float32)
Y = np.resize(range(4), 10)
QUICK = {"max_epochs": 1, "batch_size": 10, "random_state": 0, "verbose": 0}


class Block(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.block, self.last = Block(), nn.Linear(8, 4)

    def forward(self, x):
        return self.last(self.block(x).mean((2, 3)))

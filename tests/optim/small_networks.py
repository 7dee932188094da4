"""Small networks, and how two of them are compared."""

import copy

import torch
import torch.nn.functional as F
from torch import nn


def with_statistics(module, seed=0):
    """Give every batch-norm statistics and weights that a wrong folding would get wrong."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(like, low, high):
        return low + (high - low) * torch.rand(like.shape, generator=generator)

    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.track_running_stats:
            layer.running_mean.copy_(uniform(layer.running_mean, -0.2, 0.2))
            layer.running_var.copy_(uniform(layer.running_var, 0.5, 1.5))
            layer.weight.data.copy_(uniform(layer.weight, 0.8, 1.2))
            layer.bias.data.copy_(uniform(layer.bias, -0.2, 0.2))
    return module


def images(n=3, shape=(3, 8, 8), seed=0):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


def logits_of(module, x):
    with torch.no_grad():
        return copy.deepcopy(module).eval()(x)


def assert_close(actual, expected):
    scale = float(expected.detach().abs().max())
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 * scale)


def input_gradient(function, x, column):
    x = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(function(x)[:, column].sum(), x)
    return gradient


class Body(nn.Module):
    """A module with layers given by name and a forward given as a function."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.call = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.call(self, x)


def conv():
    return nn.Conv2d(3, 4, 3)


def mean(h):
    return h.mean((2, 3))


def by_value(self, x):
    h = F.relu(self.hidden(x.flatten(1)))
    return self.fc(h) if h.sum() > -1 else h

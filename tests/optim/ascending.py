"""The loop on small problems."""

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn

from advfeat.optim import (
    make_ball,
    projected_gradient,
)

SEEDS = st.integers(0, 2**31 - 1)
NORMS = [2, np.inf]
BOX = (0.0, 1.0)


def value(output, target):
    return output[:, 0]


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def uniform(seed, *shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def small_net(seed, d=12, n_classes=3):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(d, 8), nn.Tanh(), nn.Linear(8, n_classes)
        ).requires_grad_(False)


def ascend(network, x, loss=value, *, norm=2, eps=0.5, n_steps=20, target=None, **options):
    step_size = options.pop("step_size", 2.5 * eps / max(1, n_steps))
    return projected_gradient(
        network, x, target, loss,
        ball=make_ball(norm, eps), step_size=step_size, n_steps=n_steps, **options,
    )  # fmt: skip


def distance(z, x, norm):
    return torch.linalg.vector_norm((z - x).flatten(1), ord=norm, dim=1)


class Recorder:
    """A network that remembers its inputs."""

    def __init__(self, network):
        self.network = network
        self.seen = []

    def __call__(self, z):
        self.seen.append(z.detach().clone())
        return self.network(z)

"""Generators of random numbers that a network has for itself."""

import inspect
import pickle
import random

import numpy as np
import torch
from torch import nn

from advfeat.optim._functions import held_by, named_in

_KINDS = (
    torch.Generator,
    np.random.Generator,
    np.random.BitGenerator,
    np.random.RandomState,
    random.Random,
)


def generators_of(module):
    """List generators that a network holds, or that its forward finds by their global names."""
    held = [value for value in held_by(module) if isinstance(value, _KINDS)]
    for kind in {type(layer) for layer in module.modules()} - {nn.Module}:
        held += named_in(inspect.unwrap(kind.forward), _KINDS).values()
    return held


def states(generators):
    """States of generators, to be compared."""
    return [
        generator.get_state().numpy().tobytes()
        if isinstance(generator, torch.Generator)
        else _state(generator)
        for generator in generators
    ]


def _state(generator):
    try:
        return pickle.dumps(generator)
    except Exception:  # one without a state, such as of the system's own numbers
        return b""

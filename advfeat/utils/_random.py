"""From ``random_state`` to seeds and noise, without touching a global generator.

Everything is drawn from (seed, position) pairs, so a result does not depend on how the work
was cut into batches, shards or jobs.
"""

import contextlib
import os
import pickle
import random
import threading

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

_RANDOM_LAYERS = (_DropoutNd, nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)
_KNOWN_LAYERS = ("torch.nn.modules.", "torchvision.models.resnet", "advfeat.")
_WITH_GENERATOR = ("cuda", "mps", "xpu")  # of their own
_BLOCK = 16  # rows of noise drawn together; few, as rows that were not asked for are wasted


def draw_seed(random_state):
    """Draw one integer seed from an int, a RandomState or None."""
    return int(check_random_state(random_state).randint(2**31 - 1))


def make_rng(*key):
    """NumPy generator for one purpose, named by a tuple of integers."""
    return np.random.default_rng(_sequence(key))


def make_generator(device, *key):
    """torch.Generator on ``device`` for one purpose, named by a tuple of integers."""
    return torch.Generator(device).manual_seed(_torch_seed(key))


def normal_rows(key, start, stop, width):
    """Rows ``start:stop`` of an endless standard normal matrix that ``key`` determines.

    Returns
    -------
    ndarray of shape (stop - start, width), float32
    """
    first, last = start // _BLOCK, (stop - 1) // _BLOCK
    blocks = [
        make_rng(*key, block).standard_normal((_BLOCK, width), dtype=np.float32)
        for block in range(first, last + 1)
    ]
    rows = np.concatenate(blocks) if len(blocks) > 1 else blocks[0]
    offset = first * _BLOCK
    return rows[start - offset : stop - offset]


# The default generators belong to the whole process: one thread at a time has them to itself.
_default_generators = threading.RLock()


def _new_lock():
    # A fork copies a lock that another thread holds, and nobody would ever give it back.
    global _default_generators
    _default_generators = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


@contextlib.contextmanager
def isolated_torch_seed(device, *key):
    """Seed torch's default generators inside the block and restore them afterwards.

    Layers draw their initial weights and dropout masks from the default generators alone. Threads
    take turns: another one that enters such a block waits until this one leaves it.
    """
    device, seed = torch.device(device), _torch_seed(key)
    with _default_generators, draws_given_back(device):
        torch.default_generator.manual_seed(seed)
        if device.type in _WITH_GENERATOR:
            state = torch.Generator(device).manual_seed(seed).get_state()
            torch.get_device_module(device).set_rng_state(state, device)
        yield


def draws_given_back(device):
    """Context after which the default generators of the CPU and a device are as before it."""
    device = torch.device(device)
    if device.type not in _WITH_GENERATOR:
        return torch.random.fork_rng(devices=[])
    return torch.random.fork_rng(devices=[device], device_type=device.type)


@contextlib.contextmanager
def draws_kept(module, device):
    """Context after which the global generators of torch, NumPy and Python are as before it.

    So are draws of other threads meanwhile. Nothing is done for networks that are known to draw
    in training only, if at all.
    """
    if not draws_in_training(module):
        yield
        return
    with _default_generators, draws_given_back(device):
        in_numpy, in_python = np.random.get_state(legacy=False), random.getstate()
        try:
            yield
        finally:
            np.random.set_state(in_numpy)
            random.setstate(in_python)


def global_states(device):
    """States of the global generators of torch, NumPy and Python, to be compared."""
    states = [torch.default_generator.get_state()]
    if device.type in _WITH_GENERATOR:
        states.append(torch.get_device_module(device).get_rng_state(device))
    known = [state.cpu().numpy().tobytes() for state in states]
    return [*known, pickle.dumps(np.random.get_state(legacy=False)), random.getstate()]


def draws_in_training(module):
    """Whether a network may draw random numbers when it is trained, or also in eval mode.

    Known not to are networks of the layers of torch, of this package and of torchvision's ResNets,
    without dropout; any other may.
    """
    return any(_may_draw(layer) for layer in module.modules())


def _may_draw(layer):
    own = type(layer).__module__.startswith(_KNOWN_LAYERS)
    hooks = layer._forward_pre_hooks or layer._forward_hooks
    rate = getattr(layer, "dropout", 0)  # of attention and recurrent layers
    return not own or isinstance(layer, _RANDOM_LAYERS) or bool(hooks) or bool(rate)


def _sequence(key):
    # The length makes keys such as (1,) and (1, 0) differ: a SeedSequence pads with zeros.
    return np.random.SeedSequence((len(key), *key))


def _torch_seed(key):
    return int(_sequence(key).generate_state(1, np.uint64)[0]) >> 1

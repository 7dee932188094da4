"""From ``random_state`` to seeds and noise, without touching a global generator.

Everything is drawn from (seed, position) pairs, so a result does not depend on how the work
was cut into batches, shards or jobs.
"""

import contextlib

import numpy as np
import torch
from sklearn.utils import check_random_state

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


@contextlib.contextmanager
def isolated_torch_seed(device, *key):
    """Seed torch's default generators inside the block and restore them afterwards.

    Layers draw their initial weights and dropout masks from the default generators alone.
    """
    device = torch.device(device)
    devices = [device] if device.type == "cuda" else []
    seed = _torch_seed(key)
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def _sequence(key):
    # The length makes keys such as (1,) and (1, 0) differ: a SeedSequence pads with zeros.
    return np.random.SeedSequence((len(key), *key))


def _torch_seed(key):
    return int(_sequence(key).generate_state(1, np.uint64)[0]) >> 1

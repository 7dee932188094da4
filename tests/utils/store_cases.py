"""A small store, the work for it, and whether it holds the whole."""

import numpy as np
from numpy.testing import assert_array_equal

from advfeat.utils._store import Store

N, SIZE = 23, 5
X = np.random.default_rng(0).standard_normal((N, 3, 2)).astype(np.float32)
R = np.arange(N, dtype=np.float64)
COLUMNS = {"X": (np.float32, (3, 2)), "residual": (np.float64, ())}
BEGINS = list(range(0, N, SIZE))


def make(folder, manifest=None, **options):
    manifest = {"n_steps": 5} if manifest is None else manifest
    return Store(folder, manifest, COLUMNS, N, SIZE, **{"verbose": 0, **options})


def part(begin):
    return X[begin : begin + SIZE], R[begin : begin + SIZE]


def work(store, limit=None):
    """Do what is not there; return what was done."""
    done = []
    with store:
        for begin in BEGINS:
            if not store.holds(begin) and (limit is None or len(done) < limit):
                store.put(begin, part(begin))
                done.append(begin)
    return done


def check(store):
    for found, expected in zip(store.read(), (X, R), strict=True):
        assert_array_equal(found, expected)
        assert isinstance(found, np.memmap) and not found.flags.writeable

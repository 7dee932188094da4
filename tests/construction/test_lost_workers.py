"""A construction whose workers die: an error soon, what was finished kept, and gone on with."""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pytest
from dask_cluster import local_client
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from torch import nn

from advfeat import NonRobustRelabeler, RobustFeatureInverter, StandardClassifier
from advfeat.exceptions import WorkersLostError
from advfeat.utils._store import Store

MARK = 1000.0  # a value that only one sample has; the others are normal
N, SIZE = 60, 5


class Deadly(nn.Module):
    """Kills the process that shows it the marked sample, but for this one, while a file exists."""

    def __init__(self, n_features, n_classes):
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(n_features, 8), nn.ReLU(), nn.Linear(8, n_classes))
        self.file = None

    def forward(self, x):
        if self.file is not None and bool((x > MARK / 10).any()):
            with contextlib.suppress(FileNotFoundError):
                if os.getpid() != int(Path(self.file).read_text()):
                    time.sleep(1)  # the others that have begun are done
                    os.kill(os.getpid(), signal.SIGKILL)
        return self.fc(x)


@contextlib.contextmanager
def dask():
    with local_client(threads_per_worker=1), joblib.parallel_config("dask"):
        yield


@contextlib.contextmanager
def ray():
    ray = pytest.importorskip("ray")
    from ray.util.joblib import register_ray

    found = {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}}  # this file, by its workers
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=found)
    try:
        register_ray()
        with joblib.parallel_config("ray"):
            yield
    finally:
        ray.shutdown()


def inverter(source, **settings):
    return RobustFeatureInverter(source, init="noise", **settings)


BACKENDS = {"dask": dask, "loky": lambda: joblib.parallel_config("loky", n_jobs=2), "ray": ray}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The features were matched poorly", "ignore:Some features of")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")  # ray's own
@pytest.mark.parametrize(
    ("backend", "make"),
    [("dask", inverter), ("loky", NonRobustRelabeler), ("ray", inverter)],
)
def test_workers_that_always_die(backend, make, tmp_path, monkeypatch):
    X = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
    y = np.arange(N) % 2
    source = StandardClassifier(Deadly, max_epochs=1, random_state=0, verbose=0).fit(X, y)
    X[42, 1] = MARK
    file = tmp_path / "die"
    (network,) = [part for part in source.module_.modules() if isinstance(part, Deadly)]
    network.file = str(file)
    settings = {"n_steps": 3, "batch_size": SIZE, "random_state": 0, "verbose": 0}
    expected = make(FrozenEstimator(source), **settings).fit_transform(X, y)

    file.write_text(str(os.getpid()))
    kept = make(FrozenEstimator(source), store=tmp_path / "store", n_jobs=None, **settings)
    put, written = Store.put, []
    monkeypatch.setattr(Store, "put", lambda *args: written.append(args[1]) or put(*args))
    with BACKENDS[backend]():
        start = time.monotonic()
        with pytest.raises(WorkersLostError, match="the same call goes on from them"):
            kept.fit_transform(X, y)
        assert time.monotonic() - start < 300
        finished = set(written)
        assert len(finished) >= 3 and 40 not in finished
        file.unlink()  # whatever the reason was
        found = clone(kept).fit_transform(X, y)
    assert sorted(written) == list(range(0, N, SIZE))  # none of them twice
    assert_array_equal(getattr(found, "X", found), getattr(expected, "X", expected))

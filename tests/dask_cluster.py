"""A dask cluster on this machine, for tests."""

import contextlib

import pytest


@contextlib.contextmanager
def local_client(threads_per_worker):
    """Client of two processes; a task whose worker is lost gets one second chance."""
    distributed = pytest.importorskip("distributed")
    import dask

    settings = {
        "distributed.scheduler.allowed-failures": 1,
        "distributed.worker.memory.terminate": False,
        "distributed.deploy.lost-worker-timeout": "5 minutes",  # a new one may be slow to start
    }
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=threads_per_worker, processes=True,
            dashboard_address=":0", silence_logs=50,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):  # fmt: skip
        yield client

"""Batches on a dask cluster."""

import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence

import joblib
import numpy as np
import pytest
from dask_cluster import local_client
from numpy.testing import assert_array_equal
from waiting import wait_for
from worker_jobs import Killing, KillingLater, Sums, failing, late, process_of

from advfeat.exceptions import BatchError, WorkersLostError
from advfeat.utils import _workers
from advfeat.utils._batches import iter_batches, run_batches


@pytest.fixture(scope="module")
def client():
    with local_client(threads_per_worker=2) as client:
        yield client


def received():
    """Bytes that this process has received over TCP, on connections that are still open."""
    total = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            duplicate = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        with duplicate:
            if duplicate.type == socket.SOCK_STREAM and duplicate.family == socket.AF_INET:
                info = duplicate.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                total += struct.unpack_from("Q", info, 128)[0] if len(info) >= 136 else 0
    return total


@pytest.mark.long
def test_dask_gives_the_same_and_sends_each_row_and_each_network_once(client):
    rng = np.random.default_rng(0)
    X, job = rng.normal(size=(800, 50, 50)), Sums(rng.normal(size=1_000_000))
    before = sum(client.run(received).values())
    with joblib.parallel_config("dask"):
        (found,) = run_batches(job, (X,), batch_size=40, n_jobs=None)
    sent = sum(client.run(received).values()) - before
    assert_array_equal(found, X.sum((1, 2)))
    if before:  # the system counts
        # Two workers have the network, and dask may hand on the task that holds it before it
        # begins; with each of the 20 tasks it would be sent 20 times.
        assert X.nbytes < sent < 1.2 * X.nbytes + 4 * job.weights.nbytes


@pytest.mark.long
def test_an_error_on_dask_names_the_rows(client):
    X = np.arange(100.0)
    with joblib.parallel_config("dask"), pytest.raises(BatchError, match="rows 20 to 29.*no such"):
        run_batches(failing, (X,), batch_size=10, n_jobs=None)


@pytest.mark.long
def test_results_that_dask_sends_slowly_are_waited_for(client, monkeypatch):
    monkeypatch.setattr(_workers, "_POLL", 0.001)  # all take longer than that
    X = np.random.default_rng(0).random((40, 500_000))
    with joblib.parallel_config("dask"):
        (found,) = run_batches(failing, (X,), batch_size=15, n_jobs=None)
    assert_array_equal(found, X)


@pytest.mark.long
def test_work_on_dask_that_runs_out_of_time_is_told(client):
    X = np.arange(100.0)
    with joblib.parallel_config("dask"), pytest.raises(BatchError, match="TimeoutError.*too long"):
        run_batches(late, (X,), batch_size=10, n_jobs=None)


def test_rows_that_cannot_be_read_are_no_lost_workers(client):
    class Unreadable(Sequence):
        def __len__(self):
            return 40

        def __getitem__(self, rows):
            if rows.start == 20:
                raise FileNotFoundError("the drive is gone")
            return np.zeros((10, 1, 1))

    with joblib.parallel_config("dask"), pytest.raises(FileNotFoundError, match="drive is gone"):
        run_batches(Sums(np.zeros(1)), (Unreadable(),), batch_size=10, n_jobs=None)


@pytest.mark.long
def test_a_dask_worker_that_is_killed_once(client, tmp_path):
    X = np.arange(100.0)
    with joblib.parallel_config("dask"):
        job = Killing(tmp_path / "marker")
        assert_array_equal(run_batches(job, (X,), batch_size=10, n_jobs=None)[0], 2 * X)
    assert job.marker.exists()


@pytest.mark.slow
def test_a_task_that_always_kills_its_dask_worker(client, tmp_path):
    X, parts = np.arange(100.0), {}
    start = time.monotonic()
    with joblib.parallel_config("dask"), pytest.raises(WorkersLostError, match="again and again"):
        for begin, part in iter_batches(
            Killing(tmp_path / "marker", always=True), (X,), batch_size=10, n_jobs=None
        ):
            parts[begin] = part
    assert time.monotonic() - start < 300
    assert 30 not in parts and len(parts) >= 3  # what was finished was handed over
    assert_array_equal(parts[0][0], 2 * X[:10])


@pytest.mark.long
def test_a_dask_worker_that_is_killed_as_it_hands_over_a_batch(client, tmp_path):
    X = np.arange(100.0)
    with joblib.parallel_config("dask"):
        job = KillingLater(tmp_path / "marker")
        assert_array_equal(run_batches(job, (X,), batch_size=10, n_jobs=None)[0], 2 * X)
    assert job.marker.exists()


@pytest.mark.slow
def test_a_batch_that_always_kills_the_dask_worker_that_hands_it_over(
    client, tmp_path, monkeypatch
):
    monkeypatch.setattr(_workers, "_LOSSES", 1)  # there are two workers
    X, parts = np.arange(100.0), {}
    start = time.monotonic()
    with joblib.parallel_config("dask"), pytest.raises(WorkersLostError, match="held the result"):
        for begin, part in iter_batches(
            KillingLater(tmp_path / "marker", always=True), (X,), batch_size=10, n_jobs=None
        ):
            parts[begin] = part
    assert time.monotonic() - start < 300
    assert 30 not in parts and len(parts) >= 3  # which did not wait for it


@pytest.mark.slow
def test_dask_workers_that_leave_with_finished_batches(monkeypatch):
    monkeypatch.setattr(_workers, "_NO_WORKERS", 5.0)
    X, begins = np.arange(100.0), []
    with local_client(threads_per_worker=2) as client:
        with (
            joblib.parallel_config("dask"),
            pytest.raises(WorkersLostError, match="no worker for 5 seconds"),
        ):
            for begin, _ in iter_batches(process_of, (X[30:],), batch_size=5, n_jobs=None):
                begins.append(begin)
                if len(begins) == 1:
                    time.sleep(3)  # the next ones are finished
                if len(begins) == 2:
                    client.cluster.scale(0)
                    wait_for(lambda: not client.nthreads(), seconds=60)
    assert 2 <= len(begins) < 14


@pytest.mark.slow
def test_a_dask_scheduler_that_is_killed(tmp_path):
    distributed = pytest.importorskip("distributed")
    server = subprocess.Popen(
        [sys.executable, "-c", _SCHEDULER],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},  # its worker finds this file
    )
    client = distributed.Client(server.stdout.readline().strip())
    X, parts = np.arange(100.0), {}
    try:
        with (
            joblib.parallel_config("dask", client=client),  # others may be open
            pytest.raises(WorkersLostError, match="is gone"),
        ):
            for begin, part in iter_batches(
                Killing(tmp_path / "no"), (X[:30],), batch_size=1, n_jobs=None
            ):
                parts[begin] = part
                if len(parts) == 5:
                    server.kill()
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
        client.close(timeout=1)
    assert len(parts) >= 5


_SCHEDULER = """
import time
from distributed import LocalCluster
if __name__ == "__main__":
    cluster = LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0", protocol="tcp"
    )
    print(cluster.scheduler_address, flush=True)
    time.sleep(300)
"""

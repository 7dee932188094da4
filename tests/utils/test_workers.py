"""Where tasks run: the same results everywhere, what is sent, what happens when workers die."""

import os
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import time
import types
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from waiting import wait_for

from advfeat.exceptions import BatchError, WorkersLostError
from advfeat.utils import _workers
from advfeat.utils._batches import iter_batches, run_batches


@dataclass(frozen=True, eq=False)
class Sums:
    """Sum of each row; weighs as much as a network."""

    weights: np.ndarray

    def __call__(self, begin, X):
        return (X.sum((1, 2)),)


@dataclass(frozen=True, eq=False)
class Killing:
    """Kills its worker at row 30, either once or always; other batches take a moment."""

    marker: Path
    always: bool = False

    def __call__(self, begin, X):
        if begin == 30 and (self.always or not self.marker.exists()):
            self.marker.touch()
            time.sleep(0.5)  # the others that have begun are done
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.05)
        return (2 * X,)


def failing(begin, X):
    if begin == 20:
        raise ArithmeticError("no such number")
    return (X,)


@pytest.fixture(scope="module")
def client():
    """Client of a local dask cluster: two processes of two threads, one second chance."""
    distributed = pytest.importorskip("distributed")
    import dask

    settings = {
        "distributed.scheduler.allowed-failures": 1,
        "distributed.worker.memory.terminate": False,
    }
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, processes=True, dashboard_address=":0",
            silence_logs=50,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):  # fmt: skip
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


def test_an_error_on_dask_names_the_rows(client):
    X = np.arange(100.0)
    with joblib.parallel_config("dask"), pytest.raises(BatchError, match="rows 20 to 29.*no such"):
        run_batches(failing, (X,), batch_size=10, n_jobs=None)


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


@pytest.mark.slow
def test_a_loky_worker_that_is_killed_once(tmp_path):
    X = np.arange(60.0)
    job = Killing(tmp_path / "marker")
    assert_array_equal(run_batches(job, (X,), batch_size=10, n_jobs=2)[0], 2 * X)
    assert job.marker.exists()


@pytest.mark.slow
def test_a_task_that_always_kills_its_loky_worker(tmp_path):
    X, parts = np.arange(60.0), {}
    with pytest.raises(WorkersLostError, match="smaller batch_size"):
        for begin, part in iter_batches(
            Killing(tmp_path / "marker", always=True), (X,), batch_size=10, n_jobs=2
        ):
            parts[begin] = part
    assert 30 not in parts


def test_an_error_names_the_rows_wherever_it_happens():
    X = np.arange(100.0)
    for backend, n_jobs in (("loky", 1), ("threading", 2)):
        with joblib.parallel_config(backend), pytest.raises(BatchError, match="rows 20 to 29"):
            run_batches(failing, (X,), batch_size=10, n_jobs=n_jobs)


def test_multiprocessing_is_refused():
    with joblib.parallel_config("multiprocessing"):
        with pytest.raises(ValueError, match="'multiprocessing' backend forks.*'loky'"):
            run_batches(failing, (np.arange(3.0),), batch_size=1, n_jobs=2)
        assert len(run_batches(failing, (np.arange(3.0),), batch_size=1, n_jobs=1)[0]) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_process_can_compute():
    x, layer = torch.randn(16, 8, 32, 32), torch.nn.Conv2d(8, 16, 3)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        layer(x)  # on two threads, which the child does not have
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            layer(x)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        torch.set_num_threads(n_threads)


def test_a_single_batch_starts_no_process():
    X = np.arange(3.0)
    (found,) = run_batches(
        lambda begin, X: (np.full(len(X), os.getpid()),), (X,), batch_size=5, n_jobs=2
    )
    assert found.tolist() == 3 * [os.getpid()]


def test_one_job_is_done_here_with_the_network_that_is_here():
    """Also where it cannot be pickled, and with joblib's own defaults."""

    class Job:
        def __call__(self, begin, X):
            return (np.full(len(X), id(self)),)

        def __reduce__(self):
            raise TypeError("is pickled")

    job, X = Job(), np.arange(6.0)
    for n_jobs in (None, 1):
        (found,) = run_batches(job, (X,), batch_size=2, n_jobs=n_jobs)
        assert found.tolist() == 6 * [id(job)]
    with joblib.parallel_config("loky", n_jobs=2), pytest.raises(Exception, match="pickle"):
        run_batches(job, (X,), batch_size=2, n_jobs=None)


class Map(np.memmap):
    """A memory map of one's own kind, as image folders have it."""


def views(path):
    """Rows of memory maps that lie in all ways, and what they hold."""
    whole = np.arange(2 * 3 * 40, dtype=np.float32).reshape(40, 3, 2)
    np.save(path, whole)
    for mode in ("r", "c"):
        mapped = np.load(path, mmap_mode=mode)
        for kind in (np.memmap, Map):
            view = mapped.view(kind)
            for part in (view, view[::-1], view[:, ::-1], view[3:30:2, :, ::-1], view[:, 1:2]):
                yield part, np.array(part)
    for order in "CF":
        np.save(path.with_name(f"{order}.npy"), np.asarray(whole, order=order))
        mapped = np.load(path.with_name(f"{order}.npy"), mmap_mode="r")
        for part in (mapped, mapped.T, mapped[5:], mapped.T[:, 5:], mapped.T[::-1]):
            yield part, np.array(part)
    path.with_name("raw").write_bytes(whole.tobytes())  # whose map has one dimension
    raw = np.memmap(path.with_name("raw"), dtype=whole.dtype, mode="r")
    for order in "CF":
        yield (
            raw.reshape(whole.shape, order=order),
            whole.ravel().reshape(whole.shape, order=order),
        )
    changed = np.load(path, mmap_mode="c")
    changed += 1
    yield changed, whole + 1
    yield changed[5:], whole[5:] + 1


def test_rows_of_memory_maps_come_to_other_processes_as_they_are(tmp_path):
    for i, (rows, expected) in enumerate(views(tmp_path / "X.npy")):
        (sent,) = _workers._sent((rows,))
        assert type(sent) is np.ndarray
        assert_array_equal(sent, expected)
        if i % 4:
            continue
        with joblib.parallel_config("loky"):
            (found,) = run_batches(Sums(np.zeros(1)), (rows,), batch_size=10, n_jobs=2)
        assert_array_equal(found, expected.sum((1, 2)))


def test_rows_of_maps_are_sent_by_name(tmp_path, monkeypatch):
    np.save(tmp_path / "X.npy", np.ones((40, 100, 100)))
    mapped, sizes = np.load(tmp_path / "X.npy", mmap_mode="r"), []
    send = Connection.send_bytes

    def weighed(self, message, *args):
        sizes.append(len(memoryview(message)))
        return send(self, message, *args)

    monkeypatch.setattr(Connection, "send_bytes", weighed)
    for rows in (mapped, mapped.view(Map), mapped.view(Map)[::2]):
        run_batches(Sums(np.zeros(1)), (rows,), batch_size=10, n_jobs=2)
    assert max(sizes) < 65536


@pytest.mark.parametrize("backend", ["threading", pytest.param("loky", marks=pytest.mark.slow)])
def test_results_that_nobody_takes_hold_up_the_tasks(backend, tmp_path):
    def job(begin, X):
        (tmp_path / str(begin)).touch()
        return (X,)

    X, most = np.arange(60.0), 0
    with joblib.parallel_config(backend):
        parts = iter_batches(job, (X,), batch_size=1, n_jobs=2)
        found = []
        for n_taken, (begin, (part,)) in enumerate(parts, 1):
            time.sleep(0.1 if n_taken % 20 == 1 else 0)  # writing is slow now and then
            most = max(most, len(list(tmp_path.iterdir())) - n_taken)
            found.append((begin, *part))
    assert sorted(found) == [(i, i) for i in range(60)]
    assert 1 <= most <= 5  # twice the workers, and what begins while this is counted


def test_messages_to_processes_fit_into_a_pipe(monkeypatch):
    rng = np.random.default_rng(0)
    X, job = rng.normal(size=(40, 100, 100)), Sums(rng.normal(size=100_000))
    sizes, send = [], Connection.send_bytes

    def weighed(self, message, *args):
        sizes.append(len(memoryview(message)))
        return send(self, message, *args)

    monkeypatch.setattr(Connection, "send_bytes", weighed)
    (found,) = run_batches(job, (X,), batch_size=10, n_jobs=2)
    assert_array_equal(found, X.sum((1, 2)))
    # Of rows and networks only the names of the files that hold them are in the messages, so a
    # parent that is killed does not leave a worker waiting for the rest of one.
    assert len(sizes) >= 2 and max(sizes) < 65536


def test_a_job_is_unpacked_once_and_few_are_kept():
    X = np.ones((2, 1, 1))
    packed = [_workers._pack(Sums(np.zeros(i))) for i in range(5)]
    for name, array in packed:
        for _ in range(2):
            _workers._packed_task(name, array, 0, X)
    assert list(_workers._unpacked) == [name for name, _ in packed[-2:]]


def test_a_network_that_workers_cannot_import_is_told(monkeypatch):
    module = types.ModuleType("only_here")
    monkeypatch.setitem(sys.modules, "only_here", module)
    exec("class Job:\n    def __call__(self, begin, X):\n        return (X,)", vars(module))
    name, packed = _workers._pack(module.Job())
    monkeypatch.delitem(sys.modules, "only_here")
    with pytest.raises(BatchError, match="cannot load.*No module named 'only_here'.*importable"):
        _workers._packed_task(name, packed, 0, np.zeros(3))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at processes through /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent(how, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import os, time
            from pathlib import Path
            import numpy as np
            from advfeat.utils._batches import run_batches

            def job(begin, X):
                Path(f"{os.getpid()}.pid").touch()
                time.sleep(0.05)
                return (X,)

            if __name__ == "__main__":
                run_batches(job, (np.zeros((20000, 100, 30)),), batch_size=10, n_jobs=2)
        """)
    )
    parent = subprocess.Popen([sys.executable, script], cwd=tmp_path)
    wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == 2, seconds=300)
    workers = [path.stem for path in tmp_path.glob("*.pid")]
    parent.send_signal(how)
    parent.wait()
    wait_for(lambda: not any(_runs(worker) for worker in workers), seconds=20)
    wait_for(lambda: not list(Path("/dev/shm").glob(f"joblib_memmapping_folder_{parent.pid}_*")))


def _runs(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"

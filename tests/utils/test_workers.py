"""Where tasks run: the same results everywhere, what is sent, what happens when workers die."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import types
from multiprocessing.connection import Connection
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from waiting import wait_for
from worker_jobs import Counting, Killing, Sums, failing, process_of

from advfeat.exceptions import BatchError, WorkersLostError
from advfeat.utils import _workers
from advfeat.utils._batches import iter_batches, run_batches


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


@pytest.mark.long
def test_a_call_of_few_tasks_ends_no_workers(monkeypatch):
    monkeypatch.setattr(_workers, "cpu_count", lambda: 3)

    def workers(n):
        rows = np.zeros(n, dtype=np.int64)
        return set(run_batches(process_of, (rows,), batch_size=1, n_jobs=3)[0].tolist())

    workers(60)  # all have begun
    many = workers(60)
    assert len(many) == 3
    assert workers(2) <= many
    assert workers(60) == many


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_there_may_be_far_more_jobs_than_tasks(backend):
    X = np.arange(20.0)
    with joblib.parallel_config(backend):
        found = run_batches(failing, (X,), batch_size=10, n_jobs=10**7)
    assert len(found[0]) == 20


def test_multiprocessing_is_refused():
    with joblib.parallel_config("multiprocessing"):
        with pytest.raises(ValueError, match="'multiprocessing' backend forks.*'loky'"):
            run_batches(failing, (np.arange(3.0),), batch_size=1, n_jobs=2)
        for n_jobs in (1, None):  # None: a search that refits asks for nothing
            assert (
                len(run_batches(failing, (np.arange(3.0),), batch_size=1, n_jobs=n_jobs)[0]) == 3
            )


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


@pytest.mark.long
def test_rows_of_memory_maps_come_to_other_processes_as_they_are(tmp_path):
    for i, (rows, expected) in enumerate(views(tmp_path / "X.npy")):
        (sent,) = _workers._sent(lambda begin, rows=rows: (rows,), 0)
        assert type(sent) is np.ndarray
        assert_array_equal(sent, expected)
        if i % 4:
            continue
        with joblib.parallel_config("loky"):
            (found,) = run_batches(Sums(np.zeros(1)), (rows,), batch_size=10, n_jobs=2)
        assert_array_equal(found, expected.sum((1, 2)))


@pytest.mark.long
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


@pytest.mark.long
def test_rows_sent_are_given_back_before_the_end(tmp_path, monkeypatch):
    """joblib keeps them in memory until the tasks of one call are done."""
    monkeypatch.setenv("JOBLIB_TEMP_FOLDER", str(tmp_path))
    monkeypatch.setattr(_workers, "_GROUP", 2)
    X = np.random.default_rng(0).random((40, 4096))
    (n_kept,) = run_batches(Counting(tmp_path), (X,), batch_size=1, n_jobs=2)
    assert 0 < n_kept.max() <= 2 * 2 + 1  # and the network


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


def test_a_job_that_cannot_be_sent_is_told():
    job = Sums(threading.Lock())
    with pytest.raises(BatchError, match="cannot be sent to other processes, only to threads"):
        run_batches(job, (np.zeros((40, 2, 2)),), batch_size=10, n_jobs=2)
    with joblib.parallel_config("threading"):
        run_batches(job, (np.zeros((40, 2, 2)),), batch_size=10, n_jobs=2)


class Cluster:
    """Tasks that are done at once; the results of some are lost, so many times."""

    def __init__(self, losses):
        self.losses, self.most, self.n_asked = losses, 0, {}

    def finished(self, running):
        self.most = max(self.most, len(running))
        return list(running)

    def result(self, task):
        self.n_asked[task] = self.n_asked.get(task, 0) + 1
        if task == 5:
            raise BatchError("row 5")
        return None if self.n_asked[task] <= self.losses.get(task, 0) else (task, 2 * task)

    def run(self, begins, alive):
        return _workers._windowed(begins, int, self.finished, self.result, alive, window=3)


def test_results_that_got_lost_come_later():
    cluster = Cluster({1: 2, 3: 1})
    assert sorted(cluster.run(range(5), lambda: False)) == [(i, 2 * i) for i in range(5)]
    assert cluster.n_asked == {0: 1, 1: 3, 2: 1, 3: 2, 4: 1}
    assert cluster.most == 3  # those that are made again count


def test_results_that_stay_lost_end_without_workers(monkeypatch):
    monkeypatch.setattr(_workers, "_NO_WORKERS", 0.1)
    found = []
    with pytest.raises(WorkersLostError, match="no worker for 0.1 seconds"):
        for outcome in Cluster({1: 10**9}).run(range(5), lambda: False):
            found.append(outcome)
    assert sorted(found) == [(i, 2 * i) for i in (0, 2, 3, 4)]


def test_a_failure_is_told_although_a_result_stays_lost():
    with pytest.raises(BatchError, match="row 5"):
        list(Cluster({1: 10**9}).run(range(6), lambda: True))

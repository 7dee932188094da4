"""Several processes and full disks around one store."""

import errno
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from store_cases import BEGINS, check, make, work

from advfeat.utils import _files, _npy, _store
from advfeat.utils._files import Lock

WORKER = """
import sys, time, types
import numpy as np
sys.modules["advfeat"] = types.ModuleType("advfeat")  # without torch, which takes seconds
sys.modules["advfeat"].__path__ = [sys.argv[3]]
from advfeat.utils._store import Store
n, size, delay = 40, 2, float(sys.argv[2])
X = np.arange(40 * 3, dtype=np.float32).reshape(40, 3)
store = Store(sys.argv[1], {"a": 1}, {"X": (np.float32, (3,))}, n, size, verbose=0)
print("ready", flush=True)
try:
    with store:
        print("in", flush=True)
        for begin in range(0, n, size):
            if not store.holds(begin):
                time.sleep(delay)
                store.put(begin, (X[begin : begin + size],))
except BlockingIOError as error:
    print(error)
    sys.exit(3)
assert np.array_equal(store.read()[0], X)
"""


def start(folder, delay=0.0):
    package = Path(_store.__file__).parents[1]
    command = [sys.executable, "-c", WORKER, str(folder), str(delay), str(package)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )


def test_two_processes_on_one_new_store(tmp_path):
    processes = [start(tmp_path / "new", delay=0.01) for _ in range(3)]
    results = [(*p.communicate(timeout=60), p.returncode) for p in processes]
    codes = sorted(code for *_, code in results)
    assert set(codes) <= {0, 3} and 0 in codes, results
    for out, err, code in results:
        assert not err
        assert code == 0 or "is being written by another process" in out


def test_the_lock_dies_with_its_holder(tmp_path):
    process = start(tmp_path, delay=1.0)  # longer than the second one needs to be refused
    assert process.stdout.readline() == "ready\n" and process.stdout.readline() == "in\n"
    time.sleep(0.2)
    refused = start(tmp_path)
    out, _ = refused.communicate(timeout=60)
    assert refused.returncode == 3 and "is being written by another process" in out
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    after = start(tmp_path)
    _, err = after.communicate(timeout=60)
    assert after.returncode == 0 and not err


@pytest.mark.slow
def test_killed_at_random_instants(tmp_path):
    rng = np.random.default_rng(0)
    for trial in range(30):
        process = start(tmp_path / str(trial), delay=0.002)
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.15))
        process.kill()
        process.communicate()
        after = start(tmp_path / str(trial))
        out, err = after.communicate(timeout=60)
        assert after.returncode == 0, out + err
        assert not err or "done again" in err  # a batch may have been cut in its checksum


def test_a_finished_store_is_read_by_many(tmp_path):
    work(make(tmp_path))
    with make(tmp_path) as one, make(tmp_path) as other:
        check(one)
        check(other)
    lock = Lock(tmp_path / ".lock")
    assert lock.acquire()  # as if another process repaired it
    check(make(tmp_path).__enter__())
    lock.release()


def test_two_threads_exclude_each_other(tmp_path):
    with make(tmp_path), pytest.raises(BlockingIOError, match="another process"):
        make(tmp_path).__enter__()
    work(make(tmp_path))


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def refuse(file):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(_files, "_lock", refuse)
    with pytest.warns(UserWarning, match="has no locks .*no two processes"):
        work(make(tmp_path))


def test_a_disk_that_gets_full_keeps_what_is_finished(tmp_path, monkeypatch):
    write = _npy.RowFile.write

    def full(self, begin, array):
        if begin == 10 and self.path.name == "X.npy":
            write(self, begin, array[:2])
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, begin, array)

    with monkeypatch.context() as patch:
        patch.setattr(_npy.RowFile, "write", full)
        with pytest.raises(OSError, match=r"Cannot write into store=.*No space left") as error:
            work(make(tmp_path))
    assert error.value.errno == errno.ENOSPC and "call again" in str(error.value)
    assert work(make(tmp_path)) == [10, 15, 20]
    check(make(tmp_path))


def test_too_small_a_disk_is_refused_before_the_work(tmp_path, monkeypatch):
    def usage(folder):
        return type("Usage", (), {"total": 1000, "free": 100})

    monkeypatch.setattr(_store.shutil, "disk_usage", usage)
    with pytest.raises(OSError, match=r"936 bytes are needed.*100 left|bytes are needed"):
        work(make(tmp_path))
    monkeypatch.undo()
    assert work(make(tmp_path)) == BEGINS


def test_a_folder_without_write_permission_is_named(tmp_path, monkeypatch):
    work(make(tmp_path / "whole"))
    work(make(tmp_path / "part"), limit=1)

    def denied(path, mode="r", *args, **kwargs):
        if set(mode) & set("wax+"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, mode, *args, **kwargs)

    real = open
    for module in (_files, _npy):
        monkeypatch.setattr(module, "open", denied, raising=False)
    with pytest.raises(PermissionError, match=r"Cannot write into store=.*Permission denied"):
        work(make(tmp_path / "part"))
    check(make(tmp_path / "whole").__enter__())  # reading needs no permission to write

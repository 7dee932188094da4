"""Stores: killed, damaged, shared, full: what is read is what was written, or is done again."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from advfeat.utils import _files, _npy, _store
from advfeat.utils._files import Lock
from advfeat.utils._manifest import refuse_other_files
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


def test_goes_on_where_it_was(tmp_path):
    folder = tmp_path / "a" / "b"
    assert work(make(folder), limit=2) == [0, 5]
    assert work(make(folder)) == [10, 15, 20]
    assert work(make(folder)) == []
    check(make(folder))
    assert_array_equal(np.load(folder / "X.npy"), X)  # anybody can read it


def bit(path, at=-1):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def rows(path, change):
    array = np.load(path, mmap_mode="r+")
    change(array)
    array.flush()


def copy_neighbour(array):
    array[5:10] = array[10:15]


def fill_nan(array):
    array[5:10] = np.nan


DAMAGE = {
    "a bit": (lambda f: bit(f / "X.npy"), [20]),
    "a bit of a small column": (lambda f: bit(f / "residual.npy"), [20]),
    "a copied neighbour": (lambda f: rows(f / "X.npy", copy_neighbour), [5]),
    "NaN": (lambda f: rows(f / "X.npy", fill_nan), [5]),
    "truncated": (lambda f: os.truncate(f / "X.npy", 128 + 24 * 12), [10, 15, 20]),
    "too long": (lambda f: os.truncate(f / "X.npy", 9999), []),
    "empty": (lambda f: os.truncate(f / "X.npy", 0), BEGINS),
    "gone": (lambda f: os.remove(f / "residual.npy"), BEGINS),
    "the head": (lambda f: bit(f / "X.npy", 3), []),
    "another dtype": (lambda f: np.save(f / "X.npy", X.astype(np.float64)), BEGINS),
    "fewer rows": (lambda f: np.save(f / "X.npy", X[:-1]), [20]),
    "other rows": (lambda f: np.save(f / "X.npy", X[::-1]), BEGINS),
    "text": (lambda f: (f / "X.npy").write_text("thesis"), BEGINS),
    "a checksum": (lambda f: bit(next(f.glob("checksums*"))), [20]),
}


@pytest.mark.parametrize("damage", DAMAGE, ids=str)
def test_damaged_batches_are_done_again_and_it_is_said(tmp_path, damage):
    spoil, again = DAMAGE[damage]
    work(make(tmp_path))
    spoil(tmp_path)
    if again:
        with pytest.warns(UserWarning, match=f"{len(again)} of the 5 batches kept in .* damaged"):
            assert work(make(tmp_path)) == again
    else:
        assert work(make(tmp_path)) == []
    check(make(tmp_path))
    assert work(make(tmp_path)) == []


@pytest.mark.parametrize("spoil", [os.remove, lambda path: os.truncate(path, 130)])
def test_lost_checksums_are_told(tmp_path, spoil):
    work(make(tmp_path))
    spoil(next(tmp_path.glob("checksums*")))
    with pytest.warns(UserWarning, match="checksums .* missing or damaged: all is done again"):
        assert work(make(tmp_path)) == BEGINS
    check(make(tmp_path))


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"content": 3}', "\xff\xfe"])
def test_a_damaged_manifest_loses_nothing(tmp_path, content):
    work(make(tmp_path), limit=2)
    path = tmp_path / "manifest.json"
    path.unlink() if content is None else path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"manifest.json' is damaged|other files"):
        work(make(tmp_path, {"n_steps": 6}))  # whose it is can no longer be said
    assert work(make(tmp_path)) == [10, 15, 20]
    check(make(tmp_path))
    assert json.loads(path.read_text())["content"]["n_steps"] == 5


def test_another_content_is_refused_and_left_alone(tmp_path):
    work(make(tmp_path))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"differs in n_steps \(5 there, 6 here\)"):
        work(make(tmp_path, {"n_steps": 6}))
    with pytest.raises(ValueError, match=r"differs in solver \('x' there, None here\)|solver"):
        work(make(tmp_path, {"n_steps": 5, "solver": "x"}))
    with pytest.raises(ValueError, match=r"differs in batch_size, arrays|batch_size \(5"):
        work(Store(tmp_path, {"n_steps": 5}, COLUMNS, N, 6, verbose=0))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_other_weights_come_with_advice(tmp_path):
    here, there = {"threads": 2, "torch": "2.9"}, {"threads": 1, "torch": "2.9"}
    work(make(tmp_path, {"weights": 32 * "a"}, made_with=there))
    with pytest.raises(ValueError) as error:
        work(make(tmp_path, {"weights": 32 * "b"}, made_with=here))
    assert "differs in weights. " in str(error.value) and "FrozenEstimator" in str(error.value)
    assert "threads (1 there, 2 here)" in str(error.value) and "torch" not in str(error.value)
    assert "delete" not in str(error.value)
    # What is not compared does not matter where the content is the same.
    assert work(make(tmp_path, {"weights": 32 * "a"}, made_with=here)) == []


@pytest.mark.parametrize("name", [".DS_Store", "lost+found", "Thumbs.db", ".nfs0001", "@eaDir"])
def test_clutter_of_systems_does_not_refuse_a_folder(tmp_path, name):
    (tmp_path / name).mkdir() if name in ("lost+found", "@eaDir") else (tmp_path / name).touch()
    assert work(make(tmp_path)) == BEGINS
    assert (tmp_path / name).exists()


def test_folders_that_are_refused_stay_as_they_are(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="an empty or a new folder.*other files: thesis.txt"):
        work(make(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    np.save(tmp_path / "X.npy", X)  # a foreign one
    with pytest.raises(ValueError, match="other files: X.npy, thesis.txt"):
        work(make(tmp_path))
    with pytest.raises(FileExistsError, match="must name a folder, but is a file"):
        make(tmp_path / "thesis.txt")
    for empty in ("", " "):
        with pytest.raises(ValueError, match="store must name a folder. Got"):
            make(empty)


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    work(make("~/kept"))
    assert (tmp_path / "kept" / "X.npy").exists()


def test_left_over_partial_files_are_removed(tmp_path):
    work(make(tmp_path), limit=1)
    (tmp_path / ".manifest.json.0123.partial").write_text("half")
    work(make(tmp_path))
    assert not list(tmp_path.glob(".*.partial"))


def test_a_kill_before_the_manifest_leaves_a_usable_folder(tmp_path, monkeypatch):
    """At each file that is made, the process ends."""
    calls = []

    def dying(real):
        def call(*args):
            calls.append(args)
            if len(calls) == limit:
                raise KeyboardInterrupt
            return real(*args)

        return call

    monkeypatch.setattr(_npy.RowFile, "make", dying(_npy.RowFile.make))
    monkeypatch.setattr(os, "replace", dying(os.replace))
    for limit in range(1, 5):
        folder = tmp_path / str(limit)
        calls.clear()
        with pytest.raises(KeyboardInterrupt):
            work(make(folder))
        work(make(folder))
        check(make(folder))
    assert len(calls) > limit


# --- several processes --------------------------------------------------------------------------

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


# --- disks --------------------------------------------------------------------------------------


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


def test_wrong_parts_are_refused(tmp_path):
    with make(tmp_path) as store:
        for bad in [(X[:4], R[:4]), (X[:5].astype(float), R[:5]), (X[:5, :1], R[:5])]:
            with pytest.raises(ValueError, match="Expected 5 rows of float32"):
                store.put(0, bad)
        assert not store.holds(0)


# --- quick opening, small arrays beside ---------------------------------------------------------


def test_quick_reads_nothing_while_the_files_are_untouched(tmp_path, monkeypatch):
    store = make(tmp_path)
    work(store)
    store.finish()
    with monkeypatch.context() as patch:
        patch.setattr(_npy.RowFile, "read", _only_checksums)
        check(make(tmp_path, quick=True).__enter__())
        with pytest.raises(AssertionError):
            make(tmp_path).__enter__()
    time.sleep(0.02)  # the clock of a file system is coarse
    rows(tmp_path / "X.npy", fill_nan)
    with pytest.warns(UserWarning, match="1 of the 5 batches"):
        assert work(make(tmp_path, quick=True)) == [5]


def _only_checksums(self, begin, n_rows, real=_npy.RowFile.read):
    assert self.path.name.startswith("checksums")
    return real(self, begin, n_rows)


def test_extras_are_kept_and_mended(tmp_path):
    extras = {"y": np.array(["a", "b"]), "classes": np.arange(3)}
    work(make(tmp_path, extras=extras))
    assert_array_equal(np.load(tmp_path / "y.npy"), extras["y"])
    Path(tmp_path / "y.npy").write_bytes(b"")
    assert work(make(tmp_path, extras=extras)) == []
    assert_array_equal(np.load(tmp_path / "y.npy"), extras["y"])


def test_extras_without_their_digests_are_written_again(tmp_path):
    """As a kill between the two writes leaves them."""
    for text in (None, "{}", '{"y": "other"}'):
        extras = {"y": np.array(["a", "b"])}
        work(make(tmp_path, extras=extras))
        noted = tmp_path / "extras.json"
        kept = noted.read_text()
        noted.unlink() if text is None else noted.write_text(text)
        work(make(tmp_path, extras=extras))
        assert noted.read_text() == kept


def test_files_that_another_process_is_just_making_are_not_foreign(tmp_path):
    """Seen once in 60 starts: its files appear between two looks at the folder."""
    store = make(tmp_path)

    def listed():
        work(make(tmp_path), limit=1)  # the other process
        return [tmp_path / "X.npy"]

    folder = type("Folder", (), {"exists": lambda self: True, "iterdir": lambda self: listed()})()
    refuse_other_files(folder, "store", unless=store._checksums.path.exists)
    with pytest.raises(ValueError, match="other files: X.npy"):
        refuse_other_files(folder, "store", unless=lambda: False)


def test_a_lock_whose_file_was_removed_excludes_nobody_and_is_refused(tmp_path, monkeypatch):
    """Between opening the file and locking it, its last holder may remove it."""
    path = tmp_path / ".lock"
    lock_it = _files._lock

    def removed_before(file):
        path.unlink()
        lock_it(file)

    late, other = Lock(path), Lock(path)
    monkeypatch.setattr(_files, "_lock", removed_before)
    assert not late.acquire()
    monkeypatch.setattr(_files, "_lock", lock_it)
    assert other.acquire() and not late.acquire()
    other.release()
    assert late.acquire()
    late.release()

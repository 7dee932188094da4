"""Stores: killed, damaged, shared, full: what is read is what was written, or is done again."""

import json
import os
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from store_cases import BEGINS, COLUMNS, N, R, X, check, make, work

from advfeat.utils import _files, _npy
from advfeat.utils._files import Lock
from advfeat.utils._manifest import refuse_other_files
from advfeat.utils._store import Store, open_finished


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


@pytest.mark.parametrize("content", [None, "", "{"])
def test_the_manifest_of_a_finished_store_is_mended(tmp_path, content):
    work(make(tmp_path))
    path = tmp_path / "manifest.json"
    before = path.read_bytes()
    path.unlink() if content is None else path.write_text(content)
    assert work(make(tmp_path)) == []
    assert path.read_bytes() == before
    check(make(tmp_path))


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


def test_a_content_that_says_less_is_another_one(tmp_path):
    work(make(tmp_path, {"n_steps": 5, "solver": "x"}))
    with pytest.raises(ValueError, match=r"differs in solver \('x' there, None here\)"):
        work(make(tmp_path))


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


def same_times(folder, change):
    """Change a column and set its clock back."""
    status = (folder / "X.npy").stat()
    change(folder / "X.npy")
    os.utime(folder / "X.npy", ns=(status.st_atime_ns, status.st_mtime_ns))


NOT_AS_FINISHED = {
    "a column is gone": (lambda f: os.remove(f / "residual.npy"), BEGINS),
    "another size": (lambda f: same_times(f, lambda p: os.truncate(p, 128 + 24 * 12)), BEGINS[2:]),
    "another checksum": (lambda f: bit(next(f.glob("checksums*"))), [20]),
    "no note": (lambda f: os.remove(f / "finished.json"), []),
    "half a note": (lambda f: os.truncate(f / "finished.json", 9), []),
}


@pytest.mark.parametrize("damage", NOT_AS_FINISHED, ids=str)
def test_quick_believes_only_what_is_as_it_was_finished(tmp_path, damage):
    spoil, again = NOT_AS_FINISHED[damage]
    store = make(tmp_path)
    work(store)
    store.finish()
    spoil(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damage, as above
        assert work(make(tmp_path, quick=True)) == again
    check(make(tmp_path))


@pytest.mark.parametrize("spoil", [os.remove, lambda path: np.save(path, np.arange(3) + 1)])
def test_small_arrays_that_are_gone_or_others_are_refused_and_mended(tmp_path, spoil):
    extras = {"y": np.arange(3), "classes": np.arange(2)}
    work(make(tmp_path, extras=extras))
    spoil(tmp_path / "y.npy")
    with pytest.raises(ValueError, match="damaged: y.npy is not what was kept"):
        open_finished(tmp_path)
    assert work(make(tmp_path, extras=extras)) == []
    assert_array_equal(open_finished(tmp_path)["y"], extras["y"])


def test_a_finished_store_is_read_only_if_all_of_it_is_there(tmp_path):
    work(make(tmp_path))
    found = open_finished(tmp_path)
    assert_array_equal(found["X"], X)
    manifest = tmp_path / "manifest.json"
    written = manifest.read_text()
    manifest.write_text(written.replace('"format": 2', '"format": 1'))
    with pytest.raises(ValueError, match="not written by this version.*format is another"):
        open_finished(tmp_path)
    manifest.write_text(written)
    (tmp_path / "residual.npy").unlink()
    with pytest.raises(ValueError, match="not finished: 5 of 5 batches are missing or damaged"):
        open_finished(tmp_path)


def test_what_is_not_known_early_is_compared_by_what_it_will_be_made_with(tmp_path):
    def early(content, made_with):
        make(tmp_path, content, made_with=made_with).check_early()

    known, there = {"n_steps": 5}, {"source lr": 0.1, "source y": "a"}
    work(make(tmp_path, {**known, "weights": 32 * "a"}, made_with=there))
    early(known, there)
    early(known, {"source lr": 0.1, "something new": 3})
    with pytest.raises(ValueError, match=r"differs in source lr \(0.1 there, 0.2 here\)"):
        early(known, {"source lr": 0.2, "source y": "a"})
    with pytest.raises(ValueError, match=r"differs in n_steps \(5 there, 6 here\)"):
        early({"n_steps": 6}, there)


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


def test_the_only_small_array_that_is_gone_is_missed(tmp_path):
    work(make(tmp_path, extras={"y": np.arange(3)}))
    (tmp_path / "y.npy").unlink()
    with pytest.raises(ValueError, match="damaged: y.npy is not what was kept"):
        open_finished(tmp_path)


def test_a_folder_in_place_of_a_small_array_is_named(tmp_path):
    work(make(tmp_path, extras={"y": np.arange(3)}))
    (tmp_path / "y.npy").unlink()
    (tmp_path / "y.npy").mkdir()
    with pytest.raises(OSError, match=r"y\.npy' is a folder"):
        work(make(tmp_path, extras={"y": np.arange(3)}))

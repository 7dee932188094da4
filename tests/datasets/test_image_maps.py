"""Folders that are decoded once, into a memory map."""

import os
import pickle
import time
from multiprocessing.connection import Connection
from operator import attrgetter

import numpy as np
import pytest
from image_files import save
from joblib import Parallel, delayed
from numpy.testing import assert_array_equal
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import GridSearchCV

from advfeat.datasets import _image_files, load_image_folder, load_restricted_imagenet
from advfeat.utils._fingerprint import fingerprint


@pytest.fixture
def many(tmp_path):
    root = tmp_path / "many"
    for i in range(150):
        save(root / "ab"[i % 2] / f"{i:03}.png", (i, 0, 0))
    return root


def test_images_are_decoded_once(many, tmp_path, monkeypatch):
    X, y = load_image_folder(many, return_X_y=True)
    kept = tmp_path / "kept"
    mapped, labels = load_image_folder(many, as_memmap=kept, n_jobs=2, return_X_y=True)
    assert isinstance(mapped, np.memmap) and not mapped.flags.writeable
    assert_array_equal(mapped, X)
    assert_array_equal(labels, y)
    calls = []
    decode = _image_files.decode
    monkeypatch.setattr(_image_files, "decode", lambda *a: calls.append(a) or decode(*a))
    again, _ = load_image_folder(many, as_memmap=kept, return_X_y=True)
    assert_array_equal(again, X)
    assert len(calls) <= 1  # the first, for its size
    assert fingerprint(again) == fingerprint(X)
    monkeypatch.setattr(type(again), "__getitem__", lambda *a: pytest.fail("read"))
    assert fingerprint(again) == fingerprint(X)


def test_a_part_of_a_map_has_its_own_fingerprint(many, tmp_path):
    X = load_image_folder(many).data
    mapped = load_image_folder(many, as_memmap=tmp_path / "kept").data
    for part in (slice(0, 100), slice(None, None, -1), np.arange(70), slice(1, None)):
        assert fingerprint(mapped[part]) == fingerprint(X[part])
    assert fingerprint(mapped[:, :1]) == fingerprint(X[:, :1])


def test_decoding_that_was_stopped_goes_on(many, tmp_path, monkeypatch):
    decode, calls = _image_files.decode, []

    def stop(*args):
        calls.append(args)
        if len(calls) == 80:
            raise KeyboardInterrupt
        return decode(*args)

    kept = tmp_path / "kept"
    with monkeypatch.context() as patch:
        patch.setattr(_image_files, "decode", stop)
        with pytest.raises(KeyboardInterrupt):
            load_image_folder(many, as_memmap=kept)
    calls.clear()
    monkeypatch.setattr(_image_files, "decode", lambda *a: calls.append(a) or decode(*a))
    mapped = load_image_folder(many, as_memmap=kept).data
    assert len(calls) < 100
    assert_array_equal(mapped, load_image_folder(many).data)


def test_other_files_are_another_map(many, tmp_path):
    kept = tmp_path / "kept"
    load_image_folder(many, as_memmap=kept)
    with pytest.raises(ValueError, match=r"as_memmap=.* holds something else: .*size"):
        load_image_folder(many, as_memmap=kept, size=2)
    with pytest.raises(ValueError, match="differs in .*files"):
        load_image_folder(many, as_memmap=kept, n_samples=20, random_state=0)
    path = many / "a" / "000.png"
    save(path, (99, 0, 0))
    os.utime(path, (1, 1))
    with pytest.raises(ValueError, match="differs in files"):
        load_image_folder(many, as_memmap=kept)
    with pytest.raises(ValueError, match="as_memmap must name a folder"):
        load_image_folder(many, as_memmap="")


def test_a_damaged_map_is_mended(many, tmp_path):
    kept = tmp_path / "kept"
    load_image_folder(many, as_memmap=kept)
    time.sleep(0.02)  # the clock of a file system is coarse
    rows = np.load(kept / "X.npy", mmap_mode="r+")
    rows[70] = 0
    rows.flush()
    with pytest.warns(UserWarning, match="1 of the 3 batches kept in as_memmap=.* damaged"):
        mapped = load_image_folder(many, as_memmap=kept).data
    assert_array_equal(mapped, load_image_folder(many).data)


@pytest.mark.long
def test_searches_send_a_map_by_its_path(many, tmp_path, monkeypatch):
    X, y = load_image_folder(many, size=32, as_memmap=tmp_path / "kept", return_X_y=True)
    sizes, send = [], Connection.send_bytes

    def weighed(self, message, *args):
        sizes.append(len(memoryview(message)))
        return send(self, message, *args)

    monkeypatch.setattr(Connection, "send_bytes", weighed)
    GridSearchCV(DummyClassifier(), {"constant": [0, 1]}, n_jobs=2, cv=2).fit(X, y)
    assert 0 < max(sizes) < 65536 < X.nbytes


def test_maps_and_their_parts_come_to_other_processes_as_they_are(many, tmp_path):
    X = load_image_folder(many, as_memmap=tmp_path / "kept").data
    parts = [X, X[9:99], X[::-1], X[:, ::-1], X[[5, 3]], X / 255]
    found = Parallel(n_jobs=2)(delayed(np.array)(part) for part in parts)
    for part, there in zip(parts, found, strict=True):
        assert_array_equal(there, np.array(part))
        assert_array_equal(pickle.loads(pickle.dumps(part)), np.array(part))
    files = Parallel(n_jobs=2)(delayed(attrgetter("filename"))(part) for part in parts[:2])
    assert files == [X.filename] * 2


def test_restricted_imagenet_as_a_map(imagenet, tmp_path):
    options = {"split": "val", "size": 8, "return_X_y": True}
    X, y = load_restricted_imagenet(imagenet, **options)
    mapped, labels = load_restricted_imagenet(imagenet, as_memmap=tmp_path / "kept", **options)
    assert isinstance(mapped, np.memmap)
    assert_array_equal(mapped, X)
    assert_array_equal(labels, y)


def test_few_images_wait_in_memory_for_the_disk(many, tmp_path, monkeypatch):
    monkeypatch.setattr(_image_files, "BLOCK", 4)
    decode, put, decoded, most = _image_files.decode, _image_files.Store.put, [], 0

    written = []
    monkeypatch.setattr(_image_files, "decode", lambda *a: decoded.append(1) or decode(*a))

    def count(store, begin, arrays):
        nonlocal most
        time.sleep(0.02)
        written.append(begin)
        most = max(most, len(decoded) // 4 - len(written))
        return put(store, begin, arrays)

    monkeypatch.setattr(_image_files.Store, "put", count)
    mapped = load_image_folder(many, as_memmap=tmp_path / "kept", n_jobs=2).data
    monkeypatch.undo()
    assert_array_equal(mapped, load_image_folder(many).data)
    assert len(written) == 38 and most <= 6


def test_what_is_computed_of_a_map_is_no_map(many, tmp_path):
    mapped = load_image_folder(many, as_memmap=tmp_path / "kept").data
    assert type(mapped.mean()) is np.float64 and type(mapped.max()) is np.uint8
    for made in (
        mapped / 255,
        mapped[[1, 2]],
        mapped.mean((0, 2, 3)),
        mapped[mapped[:, 0, 0, 0] > 9],
    ):
        assert type(made) is np.ndarray
    assert isinstance(mapped[3:9], np.memmap) and mapped[3, 0, 0, 0] == 6


@pytest.mark.parametrize("split", [None, "train"])
def test_a_map_among_the_class_folders_is_refused(many, split):
    root = many if split is None else many.rename(many.parent / "train").parent
    place = (root if split is None else root / split) / "decoded"
    with pytest.raises(ValueError, match="would lie among the class folders"):
        load_image_folder(root, split=split, as_memmap=place)
    assert not place.exists()
    if split is not None:
        (root / "test").mkdir()
        with pytest.raises(ValueError, match="would lie among the class folders"):
            load_image_folder(root, split=split, as_memmap=root / "test" / "decoded")
        (root / "test").rmdir()
        for _ in range(2):
            load_image_folder(root, split=split, as_memmap=root / "cache" / "decoded")

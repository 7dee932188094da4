"""A ConstructedDataset in files and in other processes."""

import contextlib
import pickle
import tempfile
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.frozen import FrozenEstimator
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Subset,
)

from advfeat import (
    ConstructedDataset,
    NonRobustRelabeler,
    RobustFeatureInverter,
    StandardClassifier,
)


@pytest.mark.parametrize("kind", ["float32", "float16", "object labels", "memory map", "part"])
def test_save_and_load(eleven, kind, tmp_path):
    data = eleven
    if kind == "float16":
        data = ConstructedDataset(data.X.astype("float16"), data.y, data.y_source, data.classes)
    if kind == "object labels":
        data = ConstructedDataset(
            data.X, data.y.astype(object), data.y_source.astype(object), data.classes
        )
    if kind in ("memory map", "part"):
        np.save(tmp_path / "x.npy", data.X)
        X = np.load(tmp_path / "x.npy", mmap_mode="r")
        data = ConstructedDataset(X, data.y, data.y_source, data.classes)
        data = data if kind == "memory map" else data[np.arange(330)[::-1]]
    data.save(tmp_path / "set.npz")
    again = ConstructedDataset.load(str(tmp_path / "set.npz"))
    for name in ("X", "y", "y_source", "classes"):
        assert_array_equal(getattr(again, name), np.asarray(getattr(data, name)))
    assert again.X.dtype == data.X.dtype and again.y.dtype.kind == eleven.y.dtype.kind
    with np.load(tmp_path / "set.npz", allow_pickle=False) as plain:  # anybody can read it
        assert_array_equal(plain["X"], np.asarray(data.X))


def test_names_of_features_are_kept(eleven, tmp_path):
    eleven.feature_names = np.array([f"feature {i}" for i in range(11)], dtype=object)
    eleven.save(tmp_path / "set.npz")
    again = ConstructedDataset.load(tmp_path / "set.npz")
    assert_array_equal(again.feature_names, eleven.feature_names)
    assert_array_equal(again[:3].feature_names, eleven.feature_names)


def test_damaged_files_are_named(eleven, tmp_path):
    path = tmp_path / "set.npz"
    with pytest.raises(FileNotFoundError, match="set.npz', found nothing"):
        ConstructedDataset.load(path)
    eleven.save(path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[500] ^= 1
    np.savez(tmp_path / "other.npz", X=eleven.X)
    np.save(tmp_path / "one.npy", eleven.X)
    np.savez(tmp_path / "pickled.npz", X=eleven.X, y=np.array([{}]), y_source=0, classes=0)
    np.savez(
        tmp_path / "odd.npz", X=eleven.X, y=eleven.y[:-1], y_source=eleven.y, classes=eleven.y
    )
    contents = [b"", b"text", whole[: len(whole) // 2], bytes(flipped)]
    contents += [(tmp_path / f"{name}").read_bytes() for name in (
        "other.npz", "one.npy", "pickled.npz", "odd.npz")]  # fmt: skip
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match="set.npz' (is damaged|holds no constructed set)"
        ) as info:
            ConstructedDataset.load(path)
        assert content != b"text" or "allow_pickle" not in str(info.value)


def test_labels_that_cannot_be_kept(tmp_path):
    label = frozenset({1})
    data = ConstructedDataset(np.zeros((1, 2), np.float32), [label], [label], [label])
    with pytest.raises(ValueError, match="Labels must be numbers or text"):
        data.save(tmp_path / "set.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:The source takes only")  # few steps
def test_a_finished_store_is_loaded(blobs, tmp_path):
    X, y = blobs
    source = FrozenEstimator(StandardClassifier(max_epochs=2, random_state=0, verbose=0).fit(X, y))
    common = {"n_steps": 2, "batch_size": 50, "random_state": 0, "verbose": 0}
    relabeler = NonRobustRelabeler(source, store=tmp_path / "rand", **common)
    made = relabeler.fit_transform(X, y)
    again = ConstructedDataset.load(tmp_path / "rand")
    assert isinstance(again.X, np.memmap)
    for name in ("X", "y", "y_source", "classes"):
        assert_array_equal(getattr(again, name), getattr(made, name))
    rows = np.load(tmp_path / "rand" / "X.npy", mmap_mode="r+")
    rows[60] = np.nan
    rows.flush()
    with pytest.raises(ValueError, match="is not finished: 1 of 4 batches are missing or damaged"):
        ConstructedDataset.load(tmp_path / "rand")
    inverter = RobustFeatureInverter(source, store=tmp_path / "r", solver="decayed", **common)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inverter.fit_transform(X, y)
    with pytest.raises(ValueError, match="holds no labels, only inputs.*numpy.load"):
        ConstructedDataset.load(tmp_path / "r")
    with pytest.raises(ValueError, match="is no store"):
        ConstructedDataset.load(tmp_path)


def test_bytes_are_scaled_whoever_reads_them():
    """As images are everywhere else."""
    X = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    y = np.arange(40) % 2
    data = ConstructedDataset(X, y, y, np.unique(y))
    assert data[0][0].dtype == torch.float32
    assert_array_equal(data[3][0].numpy(), X[3].astype(np.float32) / 255)
    clf = StandardClassifier(max_epochs=1, random_state=0, verbose=0)
    expected = clf.fit(X.astype(np.float32) / 255, y).decision_function(X)
    for given in (data, Subset(data, range(40)), ConcatDataset([data])):
        assert_allclose(clf.fit(given).decision_function(X), expected, atol=1e-5)
    table = ConstructedDataset(X.reshape(40, -1), y, y, np.unique(y))
    assert table[0][0].max() > 1  # values of tables are meant as they are
    swapped = ConstructedDataset(X.astype(">f4"), y, y, np.unique(y))
    assert_array_equal(swapped[0][0].numpy(), X[0].astype(np.float32))


def mapped(tmp_path, order):
    X = np.asarray(np.random.default_rng(0).random((40, 3, 8, 8), dtype=np.float32), order=order)
    np.save(tmp_path / "X.npy", X)
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    return ConstructedDataset(X, np.arange(40) % 2, np.arange(40) % 3, classes=range(3))


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_process_that_is_spawned_gets_the_path_of_a_map(tmp_path, monkeypatch, order):
    data = mapped(tmp_path, order)
    whole = len(pickle.dumps(data))
    assert whole > data.X.nbytes  # a pickle may be read on another machine
    monkeypatch.setattr("advfeat.datasets._constructed.get_spawning_popen", object)
    sent = pickle.dumps(Subset(data, [3, 1]))
    assert len(sent) < whole / 10
    found = pickle.loads(sent)
    assert isinstance(found.dataset.X, np.memmap)
    np.testing.assert_array_equal(found.dataset.X, data.X)
    assert torch.equal(found[0][0], data[3][0])
    part = pickle.loads(pickle.dumps(data[::-2]))  # rows in another order than the file's
    np.testing.assert_array_equal(part.X, data.X[::-2])
    np.testing.assert_array_equal(part.y_source, data.y_source[::-2])


def test_a_map_without_a_path_is_sent_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("advfeat.datasets._constructed.get_spawning_popen", object)
    removed = mapped(tmp_path, "C")
    (tmp_path / "X.npy").unlink()
    with tempfile.TemporaryFile() as file:
        file.write(removed.X.tobytes())
        file.flush()
        X = np.memmap(file, np.float32, "r", shape=removed.X.shape)
        nameless = ConstructedDataset(X, removed.y, removed.y_source, removed.classes)
        for data in (removed, nameless):
            found = pickle.loads(pickle.dumps(data))
            np.testing.assert_array_equal(found.X, removed.X)


@pytest.mark.slow
def test_workers_of_a_loader_read_the_file(tmp_path):
    data = mapped(tmp_path, "C")
    loader = DataLoader(data, batch_size=8, num_workers=1, multiprocessing_context="spawn")
    X, y = zip(*loader, strict=True)
    np.testing.assert_array_equal(torch.cat(X), data.X)
    np.testing.assert_array_equal(torch.cat(y), data.y)


def test_frames_of_several_types_are_kept_as_numbers(tmp_path):
    X = pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5], "c": [True, False]}).astype(object).to_numpy()
    data = ConstructedDataset(X, [0, 1], [1, 0], classes=[0, 1])
    data.save(tmp_path / "set.npz")
    found = ConstructedDataset.load(tmp_path / "set.npz")
    assert_array_equal(found.X, [[1, 0.5, 1], [2, 1.5, 0]])
    with pytest.raises(ValueError, match="X must hold numbers"):
        ConstructedDataset(np.array([["a"], [1]], dtype=object), [0, 1], [1, 0], classes=[0, 1])


def test_a_folder_that_is_missing_is_named(data, tmp_path):
    with pytest.raises(FileNotFoundError, match="Expected a folder .*missing' to write 'set.npz'"):
        data.save(tmp_path / "missing" / "set.npz")


@pytest.mark.parametrize("store", [False, True])
def test_files_damaged_anywhere_are_named(tmp_path, store):
    y = np.arange(30) % 2
    data = ConstructedDataset(np.random.default_rng(0).random((30, 4)), y, 1 - y, classes=[0, 1])
    if store:
        source = StandardClassifier(max_epochs=1, random_state=0, verbose=0).fit(data.X, y)
        relabeler = NonRobustRelabeler(
            FrozenEstimator(source), n_steps=1, store=tmp_path / "set", random_state=0, verbose=0
        )
        relabeler.fit_transform(data.X, y)
    else:
        data.save(tmp_path / "set")
    files = [tmp_path / "set"] if not store else sorted((tmp_path / "set").glob("y*.npy"))
    rng = np.random.default_rng(0)
    for path in files:
        content = path.read_bytes()
        for _ in range(60):
            spoiled = bytearray(content)
            spoiled[rng.integers(min(len(content), 300))] ^= 1 << rng.integers(8)
            path.write_bytes(spoiled)
            with contextlib.suppress(ValueError):
                ConstructedDataset.load(tmp_path / "set")
        path.write_bytes(content)

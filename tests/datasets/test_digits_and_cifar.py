"""The loaders of digits and of CIFAR-10."""

import hashlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
import sklearn.datasets
from torchvision.datasets import CIFAR10

from advfeat.datasets import (
    fetch_cifar10,
    load_digits,
)


@pytest.mark.long
def test_import_opens_no_connection():
    code = (
        "import socket\n"
        "def refuse(*args): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\n"
        "import sys, advfeat.datasets\n"
        "assert 'advfeat.datasets' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- digits -------------------------------------------------------------------------------------


def test_digits_are_scikit_learns_digits_as_images():
    digits, original = load_digits(), sklearn.datasets.load_digits()
    assert digits.data.shape == (1797, 1, 8, 8) and digits.data.dtype == np.float32
    assert np.array_equal(digits.data.reshape(1797, 64) * 16, original.data)
    assert np.array_equal(digits.target, original.target) and digits.target.dtype == np.int64
    assert digits.target_names.tolist() == list(range(10))


def test_digits_splits_are_fixed_disjoint_complete_and_stratified():
    parts = {split: load_digits(split=split, return_X_y=True) for split in ("train", "test")}
    assert [len(X) for X, _ in parts.values()] == [1347, 450]
    rows = [
        X.tobytes() + bytes([y]) for part in parts.values() for X, y in zip(*part, strict=True)
    ]
    X, y = load_digits(return_X_y=True)
    assert sorted(rows) == sorted(
        x.tobytes() + bytes([label]) for x, label in zip(X, y, strict=True)
    )
    counts = {split: np.bincount(part[1]) for split, part in parts.items()}
    assert np.all(np.abs(counts["test"] - np.bincount(y) / 4) < 1)
    # The test set that published numbers refer to must not change between releases.
    digest = hashlib.sha256((parts["test"][0] * 16).astype(np.uint8).tobytes()).hexdigest()
    assert digest.startswith("6f979d272e74c673")


def test_digits_refuse_an_unknown_split():
    with pytest.raises(ValueError, match=r"'split' parameter of load_digits .* Got 'val' instead"):
        load_digits(split="val")


# --- CIFAR-10 -----------------------------------------------------------------------------------


@pytest.fixture
def write_cifar(monkeypatch):
    """A function that writes a CIFAR-10 of 6 images per batch; torchvision expects its sums."""

    rng = np.random.default_rng(0)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    contents = {
        name: {
            "data": rng.integers(0, 256, (6, 3072), dtype=np.uint8),
            "labels": rng.integers(0, 10, 6).tolist(),
        }
        for name in names
    }
    contents["batches.meta"] = {"label_names": [f"class {i}" for i in range(10)]}
    blobs = {name: pickle.dumps(content) for name, content in contents.items()}
    sums = {name: hashlib.md5(blob).hexdigest() for name, blob in blobs.items()}
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in names[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": sums["batches.meta"]})

    def write(root):
        folder = root / CIFAR10.base_folder
        folder.mkdir(parents=True)
        for name, blob in blobs.items():
            (folder / name).write_bytes(blob)
        return contents

    return write


@pytest.mark.parametrize("split", ["train", "test"])
def test_cifar10_returns_the_stored_images_and_labels(tmp_path, write_cifar, split):
    contents = write_cifar(tmp_path)
    names = [name for name in contents if name.startswith("data" if split == "train" else "test")]
    data = fetch_cifar10(tmp_path, split=split)
    expected = np.concatenate([contents[name]["data"] for name in names])
    assert data.data.dtype == np.uint8 and data.data.flags.c_contiguous
    assert np.array_equal(data.data, expected.reshape(-1, 3, 32, 32))
    assert data.target.tolist() == sum((contents[name]["labels"] for name in names), [])
    assert data.target_names.tolist() == contents["batches.meta"]["label_names"]
    X, y = fetch_cifar10(str(tmp_path), split=split, return_X_y=True)
    assert np.array_equal(X, data.data) and np.array_equal(y, data.target)


def test_cifar10_missing_or_damaged_says_what_to_do(tmp_path, write_cifar):
    with pytest.raises(FileNotFoundError, match="cifar-10-batches-py.*download=True"):
        fetch_cifar10(tmp_path)
    write_cifar(tmp_path)
    (tmp_path / CIFAR10.base_folder / "data_batch_3").write_bytes(b"not what it was")
    with pytest.raises(FileNotFoundError, match="missing or damaged"):
        fetch_cifar10(tmp_path)


def test_cifar10_downloads_only_when_asked(tmp_path, write_cifar, monkeypatch):
    monkeypatch.setattr(CIFAR10, "download", lambda self: write_cifar(tmp_path))
    with pytest.raises(FileNotFoundError):
        fetch_cifar10(tmp_path)
    assert fetch_cifar10(tmp_path, download=True).data.shape == (30, 3, 32, 32)


def test_cifar10_passes_on_a_failed_download(tmp_path, monkeypatch):
    def fail(self):
        raise RuntimeError("no route to host")

    monkeypatch.setattr(CIFAR10, "download", fail)
    with pytest.raises(RuntimeError, match="no route to host"):
        fetch_cifar10(tmp_path, download=True)

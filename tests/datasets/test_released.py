"""Sets in the form of the authors' release: read, written, and nothing in them executed."""

import os

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from advfeat import ConstructedDataset
from advfeat.datasets import dump_released_set, load_released_set

X = np.random.default_rng(0).random((25, 3, 32, 32)).astype(np.float32)
Y = np.arange(25) % 10


def write(folder, images, labels):
    torch.save(images, folder / "CIFAR_ims")
    torch.save(labels, folder / "CIFAR_lab")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("form", ["tensor", "list", "tuple"])
def test_reads_what_the_authors_wrote(tmp_path, form, legacy):
    def pack(array):
        tensor = torch.from_numpy(array)
        return (
            tensor if form == "tensor" else {"list": list, "tuple": tuple}[form](tensor.split(7))
        )

    for name, array in (("CIFAR_ims", X), ("CIFAR_lab", Y)):
        torch.save(pack(array), tmp_path / name, _use_new_zipfile_serialization=not legacy)
    data = load_released_set(tmp_path)
    assert_array_equal(data.data, X)
    assert_array_equal(data.target, Y)
    assert data.data.dtype == np.float32 and data.target.dtype == np.int64
    assert data.target_names[data.target[3]] == "cat"
    found = load_released_set(str(tmp_path), return_X_y=True)
    assert_array_equal(found[1], Y)


def test_their_code_reads_what_is_written(tmp_path):
    dump_released_set(X, Y, tmp_path / "robust_CIFAR")
    images = torch.cat(torch.load(tmp_path / "robust_CIFAR" / "CIFAR_ims"))
    labels = torch.cat(torch.load(tmp_path / "robust_CIFAR" / "CIFAR_lab"))
    assert_array_equal(images.numpy(), X)
    assert_array_equal(labels.numpy(), Y)
    with pytest.raises(FileExistsError, match="CIFAR_ims' exists"):
        dump_released_set(X, Y, tmp_path / "robust_CIFAR")


def test_forms_that_are_written(tmp_path):
    names = np.array(list("abcdefghij"))
    data = ConstructedDataset(X.astype(np.float16), names[(Y + 1) % 10], names[Y], names)
    np.save(tmp_path / "x.npy", X)
    for number, (images, labels, expected) in enumerate([
        (data, None, (X.astype(np.float16), (Y + 1) % 10)),
        (np.load(tmp_path / "x.npy", mmap_mode="r"), Y.tolist(), (X, Y)),
        (torch.from_numpy(X), Y, (X, Y)),
        ((255 * X).astype(np.uint8), Y, ((255 * X).astype(np.uint8), Y)),
    ]):  # fmt: skip
        dump_released_set(images, labels, tmp_path / str(number))
        found = load_released_set(tmp_path / str(number))
        assert_array_equal(found.data, expected[0])
        assert_array_equal(found.target, expected[1])


class Command:
    def __reduce__(self):
        return os.system, ("echo executed > executed",)


def test_nothing_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, [Command()], torch.from_numpy(Y))
    with pytest.raises(ValueError, match="CIFAR_ims' is damaged, or holds more than tensors"):
        load_released_set(tmp_path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ({"a": 1}, torch.zeros(3, dtype=int), "list of tensors in .*CIFAR_ims', got dict"),
        ([], torch.zeros(3, dtype=int), "list of tensors in .*CIFAR_ims', got list"),
        ([torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 5, 5)], torch.zeros(2, dtype=int),
         "do not fit together"),
        (torch.zeros(3, 3, 4, 4), torch.zeros(4, dtype=int), r"got float32 \(3, 3, 4, 4\) and"),
        (torch.zeros(3, 3, 4, 4), torch.zeros(3), "n labels that are whole numbers"),
        (torch.zeros(3, 48), torch.zeros(3, dtype=int), r"images of shape \(n, C, H, W\)"),
    ],
)  # fmt: skip
def test_other_contents_are_refused(tmp_path, images, labels, message):
    write(tmp_path, images, labels)
    with pytest.raises(ValueError, match=message):
        load_released_set(tmp_path)


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="CIFAR_ims', found nothing"):
        load_released_set(tmp_path)
    write(tmp_path, torch.from_numpy(X), torch.from_numpy(Y))
    whole = (tmp_path / "CIFAR_ims").read_bytes()
    for broken in (b"", b"text", whole[:1000], whole[:-500]):
        (tmp_path / "CIFAR_ims").write_bytes(broken)
        with pytest.raises(ValueError, match="CIFAR_ims' is damaged"):
            load_released_set(tmp_path)


@pytest.mark.parametrize(
    ("images", "labels"),
    [(X[:, 0], Y), (X, Y[:-1]), (X, Y.astype(str)), (X, Y - 1), (X, Y / 2)],
)
def test_what_cannot_be_written(tmp_path, images, labels):
    with pytest.raises(ValueError, match="Expected images of shape"):
        dump_released_set(images, labels, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_channels_last_are_not_written(tmp_path):
    last = X.transpose(0, 2, 3, 1)
    with pytest.raises(ValueError, match=r"looks like NHWC .*transpose\(0, 3, 1, 2\)"):
        dump_released_set(last, np.zeros(len(X), int), tmp_path / "set")
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (X[:0], Y[:0], "Expected images of shape"),
        (X, Y - 1, "whole numbers in 0..999999 in .* from -1 to 8"),
        (X, Y + 10**12, "whole numbers in 0..999999"),
    ],
)
def test_sets_that_cannot_be_read(tmp_path, images, labels, message):
    write(tmp_path, torch.from_numpy(images), torch.from_numpy(labels))
    with pytest.raises(ValueError, match=message):
        load_released_set(tmp_path)


@pytest.mark.parametrize("images", [X[:0], (255 * X).astype(np.int64), X * np.nan, 2 * X, X - 1])
def test_images_that_are_no_images_are_not_written(tmp_path, images):
    with pytest.raises(ValueError, match="Expected images"):
        dump_released_set(images, Y[: len(images)], tmp_path / "set")
    assert not list((tmp_path / "set").glob("*"))


def test_a_part_of_a_constructed_set_is_written(tmp_path):
    data = ConstructedDataset(X, Y, (Y + 1) % 10, classes=range(10))
    dump_released_set(torch.utils.data.Subset(data, [3, 1, 2]), None, tmp_path / "set")
    found, labels = load_released_set(tmp_path / "set", return_X_y=True)
    assert_array_equal(found, X[[3, 1, 2]])
    assert_array_equal(labels, Y[[3, 1, 2]])


def test_torch_datasets_are_written(tmp_path):
    data = ConstructedDataset(X, Y, (Y + 1) % 10, classes=range(10))
    whole = torch.utils.data.ConcatDataset([data[:10], data[10:]])
    plain = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    for name, dataset in (("whole", whole), ("plain", plain), ("data", data)):
        dump_released_set(dataset, None, tmp_path / name)
        found, labels = load_released_set(tmp_path / name, return_X_y=True)
        assert_array_equal(found, X)
        assert_array_equal(labels, Y)
        with pytest.raises(ValueError, match="carries its own labels"):
            dump_released_set(dataset, Y, tmp_path / "other")


def test_labels_that_torch_does_not_trust_are_refused_in_plain_words(tmp_path):
    torch.save(list(torch.from_numpy(X).split(7)), tmp_path / "CIFAR_ims")
    torch.save(Y, tmp_path / "CIFAR_lab")
    with pytest.raises(ValueError, match="holds more than tensors") as error:
        load_released_set(tmp_path)
    assert "\x1b" not in str(error.value) and "options" not in str(error.value)

"""Restricted ImageNet follows Table 2 of the paper."""

import pickle

import numpy as np
import pytest
import torch

from advfeat.datasets import (
    RESTRICTED_IMAGENET_RANGES,
    RestrictedImageNet,
    load_restricted_imagenet,
)


def class_numbers(X):
    return X[:, 0, 0, 0].astype(int) * 256 + X[:, 1, 0, 0]


def table_2(number):
    """Super-class of an ImageNet class, or None; written out from the paper once more."""
    ranges = [
        range(151, 269), range(281, 286), range(30, 33), range(33, 38), range(80, 101),
        range(365, 383), range(389, 398), range(118, 122), range(300, 320),
    ]  # fmt: skip
    return next((label for label, numbers in enumerate(ranges) if number in numbers), None)


def test_restricted_imagenet_follows_table_2(imagenet):
    images = load_restricted_imagenet(imagenet, size=8)
    numbers = class_numbers(images.data)
    assert images.data.shape == (203, 3, 8, 8) and images.data.dtype == np.uint8
    assert sorted(numbers) == [n for n in range(1000) if table_2(n) is not None]
    assert images.target.tolist() == [table_2(n) for n in numbers]
    names = ["dog", "cat", "frog", "turtle", "bird", "primate", "fish", "crab", "insect"]
    assert images.target_names.tolist() == list(RESTRICTED_IMAGENET_RANGES) == names
    assert np.bincount(images.target).tolist() == [118, 5, 3, 5, 21, 18, 9, 4, 20]


def test_restricted_imagenet_is_lazy_and_agrees_with_the_array(imagenet):
    files = RestrictedImageNet(imagenet, split="val", size=6)
    X, y = load_restricted_imagenet(imagenet, split="val", size=6, return_X_y=True)
    assert len(files) == len(X) and np.array_equal(files.targets, y)
    batches = list(torch.utils.data.DataLoader(files, batch_size=100))
    assert np.array_equal(torch.cat([batch[0] for batch in batches]).numpy(), X)
    assert np.array_equal(torch.cat([batch[1] for batch in batches]).numpy(), y)
    image, label = files[np.int64(5)]
    assert image.dtype == torch.uint8 and image.shape == (3, 6, 6) and type(label) is int
    assert pickle.loads(pickle.dumps(files)).paths == files.paths


def test_restricted_imagenet_reads_no_file_before_it_is_asked(tmp_path, imagenet, monkeypatch):
    def refuse(*args):
        raise AssertionError("decoded")

    monkeypatch.setattr("advfeat.datasets._image_files.decode", refuse)
    files = RestrictedImageNet(imagenet)
    with pytest.raises(AssertionError, match="decoded"):
        files[0]


def test_restricted_imagenet_subset_is_stratified_by_super_class(imagenet):
    X, y = load_restricted_imagenet(
        imagenet, size=8, n_samples=100, random_state=3, return_X_y=True
    )
    assert np.all(np.abs(np.bincount(y) - np.array([118, 5, 3, 5, 21, 18, 9, 4, 20]) / 2.03) < 1)
    assert [table_2(n) for n in class_numbers(X)] == y.tolist()
    with pytest.raises(ValueError, match="leaves no image for .*frog"):
        load_restricted_imagenet(imagenet, size=8, n_samples=9, random_state=0)


def test_restricted_imagenet_needs_the_1000_classes_of_ilsvrc2012(tmp_path):
    with pytest.raises(FileNotFoundError, match="found no folder '.*train'"):
        RestrictedImageNet(tmp_path)
    for i in range(999):
        (tmp_path / "train" / f"n{i:08}").mkdir(parents=True)
    with pytest.raises(ValueError, match="1000 class folders of ILSVRC2012 .*, got 999"):
        load_restricted_imagenet(tmp_path)
    (tmp_path / "train" / "n99999999").mkdir()
    with pytest.raises(ValueError, match="run from n02085620 to n02113978.*got n00000151"):
        load_restricted_imagenet(tmp_path)


def test_restricted_imagenet_names_an_empty_class(imagenet):
    frog = imagenet / "val" / "n01641577"
    (frog / "0.png").rename(frog / "0.txt")
    try:
        with pytest.raises(FileNotFoundError, match="n01641577"):
            RestrictedImageNet(imagenet, split="val")
    finally:
        (frog / "0.txt").rename(frog / "0.png")


@pytest.mark.parametrize("options", [{"split": "test"}, {"size": None}, {"size": 0}])
def test_restricted_imagenet_refuses_parameters_out_of_range(imagenet, options):
    for read in (RestrictedImageNet, load_restricted_imagenet):
        with pytest.raises(ValueError, match=f"'{next(iter(options))}' parameter of"):
            read(imagenet, **options)

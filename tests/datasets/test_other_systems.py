"""Folders as other systems and network drives show them."""

import os
import unicodedata

import numpy as np
import pytest
from image_files import save

from advfeat.datasets import load_image_folder

NAMES = ["eclair", "\u00e9clair", "zebra"]  # the order of the accent as a part of its letter, last
READ = {"verbose": 0}


def written(form, name):
    return unicodedata.normalize(form, name)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_classes_have_the_same_numbers_however_accents_are_written(tmp_path, form):
    for value, name in enumerate(NAMES):
        save(tmp_path / written(form, name) / "0.png", (value, 0, 0))
    found = load_image_folder(tmp_path, **READ)
    assert found.target_names.tolist() == ["eclair", "zebra", "\u00e9clair"]
    assert found.data[:, 0, 0, 0].tolist() == [0, 2, 1]


def test_images_have_the_same_order_however_accents_are_written(tmp_path):
    orders = []
    for form in ("NFC", "NFD"):
        for value, name in enumerate(["f.png", "\u00e9.png", "e.png", "z.png"]):
            save(tmp_path / form / "all" / written(form, name), (value, 0, 0))
        orders.append(load_image_folder(tmp_path / form, **READ).data[:, 0, 0, 0])
    np.testing.assert_array_equal(*orders)


def test_splits_may_write_accents_differently(tmp_path):
    for split, form in (("train", "NFC"), ("test", "NFD")):
        for value, name in enumerate(NAMES):
            save(tmp_path / split / written(form, name) / "0.png", (value, 0, 0))
    train, test = (load_image_folder(tmp_path, split=s, **READ) for s in ("train", "test"))
    np.testing.assert_array_equal(train.target_names, test.target_names)
    np.testing.assert_array_equal(train.data, test.data)


def test_two_classes_that_look_the_same_are_refused(tmp_path):
    for form in ("NFC", "NFD"):
        save(tmp_path / written(form, "\u00e9clair") / "0.png")
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system takes the two names for one")
    with pytest.raises(ValueError, match="Two class folders of .* have the name"):
        load_image_folder(tmp_path, **READ)


@pytest.fixture
def no_numbers(monkeypatch):
    """Files have no number, as on some network drives."""
    real = os.stat

    def stat(path, **settings):
        found = real(path, **settings)
        return os.stat_result((found.st_mode, 0, *found[2:]))

    monkeypatch.setattr(os, "stat", stat)


def test_files_without_numbers_are_told_apart_by_their_paths(tmp_path, no_numbers):
    for value, name in enumerate(NAMES):
        save(tmp_path / "all" / name / "deeper" / "0.png", (value, 0, 0))
    assert len(load_image_folder(tmp_path / "all", **READ).data) == 3
    os.symlink(tmp_path / "all" / "zebra", tmp_path / "all" / "horse")
    with pytest.raises(ValueError, match="'horse' and 'zebra'.*one and the same"):
        load_image_folder(tmp_path / "all", **READ)


@pytest.mark.parametrize(
    "name", ["Network Trash Folder", "Temporary Items", "~snapshot", "@tmp", ".TemporaryItems"]
)
def test_what_network_drives_keep_beside_the_classes_is_none(tmp_path, name):
    for folder in ("cat", "dog", name, f"cat/{name}"):
        save(tmp_path / folder / "0.png")
    found = load_image_folder(tmp_path, **READ)
    assert found.target_names.tolist() == ["cat", "dog"]
    assert len(found.data) == 2


def test_a_link_to_itself_is_told(tmp_path):
    save(tmp_path / "cat" / "0.png")
    os.symlink("loop", tmp_path / "cat" / "loop")
    with pytest.raises(ValueError, match="is a link to 'loop', which is not there"):
        load_image_folder(tmp_path, **READ)


def test_a_map_stays_good_when_accents_are_written_otherwise(tmp_path):
    for form in ("NFC", "NFD"):
        save(tmp_path / form / written(form, "\u00e9") / "0.png")
        os.utime(tmp_path / form / written(form, "\u00e9") / "0.png", ns=(1, 1))
    kept = tmp_path / "kept"
    load_image_folder(tmp_path / "NFC", as_memmap=kept, **READ)
    assert len(load_image_folder(tmp_path / "NFD", as_memmap=kept, **READ).data) == 1

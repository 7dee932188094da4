"""Files that appear whole or not at all, whatever their path leads to."""

import errno
import json
import os
import stat
import time
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sklearn.exceptions import ConvergenceWarning

from advfeat import ConstructedDataset, NonRobustRelabeler, StandardClassifier, load, save
from advfeat.classifiers import _persistence
from advfeat.classifiers._persistence import _checksum
from advfeat.datasets import dump_released_set, load_image_folder, load_released_set
from advfeat.datasets._released import _save
from advfeat.utils import _files
from advfeat.utils._files import resolve_path, writing
from advfeat.utils._npy import RowFile

X = np.random.default_rng(0).random((40, 1, 8, 8), dtype=np.float32)
Y = np.arange(40) % 4


def write(path, content=b"new"):
    with writing(path) as file:
        file.write(content)


def test_links_stay_links(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "dangling").symlink_to(tmp_path / "made")
    for name, real in (("link", "real"), ("dangling", "made")):
        write(tmp_path / name)
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / real).read_bytes() == b"new"


@pytest.mark.skipif(os.name == "nt", reason="permissions of Unix")
def test_permissions_of_a_file_stay(tmp_path):
    path = tmp_path / "private"
    write(path)
    as_new = stat.S_IMODE(path.stat().st_mode)
    for mode in (0o600, 0o640, as_new):
        path.chmod(mode)
        write(path)
        assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_pipes_and_folders_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    data = ConstructedDataset(X, Y, Y, np.arange(4))
    with pytest.raises(FileExistsError, match="is a device or a pipe"):
        data.save(tmp_path / "pipe")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    with pytest.raises(IsADirectoryError, match="is a folder. Name a file in it"):
        data.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
    for read in (load, ConstructedDataset.load):  # without waiting for a writer
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "pipe")
    os.mkfifo(tmp_path / "CIFAR_ims")
    with pytest.raises(FileNotFoundError):
        load_released_set(tmp_path)


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127, "a b\n%s", "x.y."])
def test_any_name_that_the_system_takes(tmp_path, name):
    write(tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"new"
    assert len(list(tmp_path.iterdir())) == 1


def test_names_that_are_no_text(tmp_path):
    path = os.path.join(tmp_path, os.fsdecode(b"\xff\xfe.safetensors"))
    clf = StandardClassifier(max_epochs=1, random_state=0, verbose=0).fit(X, Y)
    save(clf, path)
    np.testing.assert_array_equal(load(path).decision_function(X), clf.decision_function(X))


def test_what_a_kill_left_is_removed_later(tmp_path):
    old, young, others = (tmp_path / f".{name}.partial" for name in ("set.aa", "set.bb", "two.cc"))
    for path in (old, young, others):
        path.write_bytes(b"half")
    for path in (old, others):
        os.utime(path, (time.time() - 4000,) * 2)
    write(tmp_path / "set")
    assert not old.exists() and young.exists() and others.exists()


@pytest.mark.parametrize("folder", ["can be read", "cannot"])
def test_what_is_written_is_no_error(tmp_path, folder, monkeypatch):
    """A folder for letters, into which one may only put files, cannot be opened to be synced."""
    if folder == "cannot":
        opened = os.open

        def refused(path, *args, **kwargs):
            if path == tmp_path:
                raise PermissionError(errno.EACCES, "refused")
            return opened(path, *args, **kwargs)

        monkeypatch.setattr(_files.os, "open", refused)
    write(tmp_path / "letter")
    assert (tmp_path / "letter").read_bytes() == b"new"


CLF = StandardClassifier(max_epochs=1, verbose=0)


@pytest.mark.parametrize("path", ["", "  ", None, 3, "a\0b", "~nobody-of-this-name/x"])
@pytest.mark.parametrize(
    "call",
    [
        lambda path: save(CLF.fit(X, Y), path),
        load,
        ConstructedDataset(X, Y, Y, np.arange(4)).save,
        ConstructedDataset.load,
        lambda path: dump_released_set(X, Y, path),
        load_released_set,
        load_image_folder,
    ],
)
def test_what_is_no_path(path, call):
    with pytest.raises((TypeError, ValueError), match="path|folder|root") as caught:
        call(path)
    assert "PosixPath" not in str(caught.value)


def test_paths_of_bytes():
    assert resolve_path(b"/a/b", "path") == resolve_path("/a/b", "path")


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_every_wrong_bit_of_a_released_set_is_found(tmp_path):
    dump_released_set(X, Y, tmp_path)
    whole = {name: (tmp_path / name).read_bytes() for name in ("CIFAR_ims", "CIFAR_lab")}
    rng = np.random.default_rng(0)
    for name, content in whole.items():
        for place in rng.integers(len(content), size=150):
            flip(tmp_path / name, place)
            try:
                found = load_released_set(tmp_path)
            except ValueError:
                pass
            else:  # some bits mean nothing, such as those of dates
                np.testing.assert_array_equal(found.data, X)
                np.testing.assert_array_equal(found.target, Y)
            (tmp_path / name).write_bytes(content)


def test_every_wrong_bit_of_a_kept_set_is_found(tmp_path):
    path = tmp_path / "set.npz"
    names = np.array([f"f{i}" for i in range(20)])
    tables = np.random.default_rng(0).random((100, 20), dtype=np.float32)
    y = np.arange(100) % 3
    ConstructedDataset(tables, y, y, np.arange(3), names).save(path)
    content = path.read_bytes()
    heads = [i for i in range(len(content)) if content.startswith((b"\x93NUMPY", b"PK"), i)]
    places = {i + j for i in heads for j in range(0, 100, 3)} & set(range(len(content)))
    for place in sorted(places):
        flip(path, place)
        try:
            found = ConstructedDataset.load(path)
        except ValueError as error:
            assert str(path) in str(error)
        else:
            np.testing.assert_array_equal(found.X, tables)
            np.testing.assert_array_equal(found.y, y)
            np.testing.assert_array_equal(found.feature_names, names)
        path.write_bytes(content)


def test_a_folder_that_may_not_be_read_is_no_damage(tmp_path, monkeypatch):
    dump_released_set(X, Y, tmp_path)

    def refused(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("torch.load", refused)
    with pytest.raises(PermissionError):
        load_released_set(tmp_path)


def test_a_full_disk_leaves_room_for_another_try(tmp_path, monkeypatch):
    """Whether it is full at the images or at the labels."""
    sync, left = os.fsync, []

    def full(handle):
        if stat.S_ISREG(os.fstat(handle).st_mode) and not left.pop():
            raise OSError(errno.ENOSPC, "No space left on device")
        return sync(handle)

    monkeypatch.setattr(_files.os, "fsync", full)
    for n_whole in (0, 1):
        left[:] = [False] + n_whole * [True]
        with pytest.raises(OSError, match="No space left"):
            dump_released_set(X, Y, tmp_path)
        assert not (tmp_path / "CIFAR_ims").exists()
    left[:] = [True, True]
    dump_released_set(X, Y, tmp_path)
    np.testing.assert_array_equal(load_released_set(tmp_path).data, X)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["CIFAR_ims", "CIFAR_lab"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no full device")
def test_torch_tells_of_a_full_disk_as_python_does():
    with open("/dev/full", "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        _save([torch.zeros(1000)], file)


def test_only_one_process_writes_a_released_set(tmp_path):
    lock = _files.Lock(tmp_path / ".lock")
    assert lock.acquire()
    with pytest.raises(FileExistsError, match="Another process is writing"):
        dump_released_set(X, Y, tmp_path)
    lock.release()
    dump_released_set(X, Y, tmp_path)
    with pytest.raises(FileExistsError):
        dump_released_set(1 - X, Y, tmp_path)
    np.testing.assert_array_equal(load_released_set(tmp_path).data, X)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (X.astype(np.int64), "floats or uint8"),
        (X.astype(np.complex64), "floats or uint8"),
        (255 * X, "Expected images in"),
        (X * np.nan, "Expected images in"),
    ],
)
def test_released_values_that_are_no_images(tmp_path, images, message):
    torch.save(torch.from_numpy(images), tmp_path / "CIFAR_ims")
    torch.save(torch.from_numpy(Y), tmp_path / "CIFAR_lab")
    with pytest.raises(ValueError, match=message):
        load_released_set(tmp_path)


def test_nothing_is_made_for_images_that_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="Expected images in"):
        dump_released_set(255 * X, Y, tmp_path / "new")
    with pytest.raises(ValueError, match="Expected images of shape"):
        dump_released_set(X[:, :, :0], Y, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_file_that_is_cut_while_it_is_read(tmp_path, monkeypatch):
    """It is not mapped: then the process would be killed."""
    path = tmp_path / "clf.safetensors"
    clf = StandardClassifier(max_epochs=1, random_state=0, verbose=0).fit(X, Y)
    save(clf, path)
    parse = _persistence.from_bytes

    def cut(content):
        os.truncate(path, 0)
        return parse(content)

    monkeypatch.setattr(_persistence, "from_bytes", cut)
    again = load(path)
    np.testing.assert_array_equal(again.decision_function(X), clf.decision_function(X))
    for tensor in again.module_.state_dict().values():  # of torch's own memory
        assert tensor.data_ptr() % 64 == 0


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 0},
        {"batch_size": "many"},
        {"arrays": {"X": ["<f4", -4, 1, 8, 8], "y": ["<i8", -4]}},
        {"arrays": {"X": ["<f4", 40, 1, 8, 8], "y": ["<i8", 39]}},
        {"arrays": {"X": ["no type", 40]}},
        {"arrays": 3},
        None,
        "text",
    ],
)
def test_manifests_that_say_nothing(tmp_path, change):
    clf = StandardClassifier(max_epochs=1, random_state=0, verbose=0).fit(X, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        settings = {"n_steps": 1, "random_state": 0, "verbose": 0}
        NonRobustRelabeler(clf, store=tmp_path / "s", **settings).fit_transform(X, Y)
    ConstructedDataset.load(tmp_path / "s")
    path = tmp_path / "s" / "manifest.json"
    found = json.loads(path.read_text())
    found["content"] = {**found["content"], **change} if isinstance(change, dict) else change
    path.write_text(json.dumps(found))
    with pytest.raises(ValueError, match="damaged|is no store"):
        ConstructedDataset.load(tmp_path / "s")
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="damaged"):
        ConstructedDataset.load(tmp_path / "s")


def test_files_of_other_versions(tmp_path):
    """Of earlier ones, without a checksum of the whole, and of later ones with more in them."""
    held = {"X": X, "y": Y, "y_source": Y, "classes": np.arange(4)}
    for number, more in enumerate(({}, {"note": np.arange(3)})):
        np.savez(tmp_path / f"{number}.npz", **held, **more)
        np.testing.assert_array_equal(ConstructedDataset.load(tmp_path / f"{number}.npz").X, X)


def test_names_in_a_file_lead_to_no_code(tmp_path):
    path = tmp_path / "clf.safetensors"
    for name in ("forward", "_forward_hooks", "training"):
        save(StandardClassifier("mlp", max_epochs=1, random_state=0, verbose=0).fit(X, Y), path)
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            text = file.metadata()["advfeat"]
        tensors[f"attribute.body.{name}"] = torch.ones(3)
        save_file(tensors, path, {"advfeat": text, "checksum": _checksum(text, tensors)})
        with pytest.raises(ValueError, match=f"{name} of the network is no tensor|not fit"):
            load(path)


def test_a_file_system_without_permissions_is_written_to(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def refused(*_):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(os, "fchmod", refused, raising=False)
    with writing(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


def test_space_is_not_asked_for_twice_where_blocks_are_not_told(tmp_path, monkeypatch):
    """As on Windows."""
    rows = RowFile(tmp_path / "X.npy", np.uint8, (100, 100))
    assert rows.missing_space() == rows.size
    rows.make()
    assert rows.missing_space() > 0  # a hole
    size = SimpleNamespace(st_size=rows.size)
    monkeypatch.setattr(type(rows.path), "stat", lambda *_, **__: size)
    monkeypatch.setattr(type(rows.path), "exists", lambda *_: True)
    assert rows.missing_space() == 0

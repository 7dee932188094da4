"""Data sets: splits, files on disk (good, odd and broken ones), and planted ground truth."""

import hashlib
import pickle
import subprocess
import sys

import joblib
import numpy as np
import pytest
import sklearn.datasets
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torchvision.datasets import CIFAR10
from torchvision.transforms import v2

from advfeat.datasets import (
    RESTRICTED_IMAGENET_RANGES,
    RestrictedImageNet,
    fetch_cifar10,
    load_digits,
    load_image_folder,
    load_restricted_imagenet,
    make_planted_features,
    make_planted_images,
)

SEEDS = st.integers(0, 2**32 - 1)


def save(path, value=0, mode="RGB", size=(4, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


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


# --- image folder -------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Three classes of 2, 4 and 6 images; the grey value of an image is its number."""
    number = 0
    for name, n_images in [("ant", 2), ("bee", 4), ("cow", 6)]:
        for i in range(n_images):
            save(tmp_path / name / f"{i}.png", (number, number, number))
            number += 1
    return tmp_path


def test_folder_gives_classes_in_alphabetical_order(folder):
    images = load_image_folder(folder)
    assert images.data.shape == (12, 3, 4, 4) and images.data.dtype == np.uint8
    assert images.data[:, 0, 0, 0].tolist() == list(range(12))
    assert images.target.tolist() == [0] * 2 + [1] * 4 + [2] * 6
    assert images.target_names.tolist() == ["ant", "bee", "cow"]


def test_folder_does_not_depend_on_the_number_of_threads(folder):
    X, y = load_image_folder(folder, return_X_y=True)
    for n_jobs in (2, -1):
        X_threads, y_threads = load_image_folder(folder, n_jobs=n_jobs, return_X_y=True)
        assert np.array_equal(X, X_threads) and np.array_equal(y, y_threads)
    with joblib.parallel_config(n_jobs=2, backend="loky"):  # a user's choice for other work
        assert np.array_equal(X, load_image_folder(folder).data)


def test_folder_reads_many_files_in_chunks(tmp_path):
    for i in range(600):
        save(tmp_path / "ab"[i % 2] / f"{i:03}.png", (i % 256, i // 256, 0), size=(1, 1))
    X = load_image_folder(tmp_path, n_jobs=2).data[:, :, 0, 0].astype(int)
    assert (X[:, 0] + 256 * X[:, 1]).tolist() == [*range(0, 600, 2), *range(1, 600, 2)]


def test_folder_channel_order_and_orientation(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels).save(tmp_path / "a" / "0.png")
    X, _ = load_image_folder(tmp_path, return_X_y=True)
    assert np.array_equal(X[0], pixels.transpose(2, 0, 1))


def test_folder_is_silent_when_fast(folder, capfd):
    load_image_folder(folder)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["x.jpg", "x.JPEG", "x.bmp", "x.ppm", "x.tiff", "x.webp"])
def test_folder_reads_the_usual_formats(tmp_path, name):
    save(tmp_path / "a" / name, (10, 100, 200))
    X, _ = load_image_folder(tmp_path, return_X_y=True)
    assert np.allclose(X[0, :, 0, 0].astype(int), [10, 100, 200], atol=4)  # some are lossy


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("L", 77, [77, 77, 77]),
        ("1", 1, [255, 255, 255]),
        ("LA", (77, 255), [77, 77, 77]),
        ("LA", (77, 0), [255, 255, 255]),  # transparent pixels are laid on white
        ("RGBA", (1, 2, 3, 255), [1, 2, 3]),
        ("RGBA", (255, 0, 0, 51), [255, 204, 204]),
    ],
)
def test_folder_turns_other_colour_modes_into_rgb(tmp_path, mode, value, expected):
    save(tmp_path / "a" / "0.png", value, mode=mode)
    X, _ = load_image_folder(tmp_path, return_X_y=True)
    assert X[0, :, 0, 0].tolist() == expected


@pytest.mark.parametrize("transparency", [None, 0, b"\x80\xff"])
def test_folder_turns_palettes_into_rgb(tmp_path, transparency):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 9, 8, 7])
    (tmp_path / "a").mkdir()
    options = {} if transparency is None else {"transparency": transparency}
    image.save(tmp_path / "a" / "0.png", **options)
    X, _ = load_image_folder(tmp_path, return_X_y=True)
    assert X[0, :, 0, 0].tolist() == [9, 8, 7]


def test_folder_ignores_stray_and_hidden_files(folder):
    for name in ("ant/.DS_Store", "ant/Thumbs.db", "bee/._0.png", "README.txt", "cow/notes.txt"):
        (folder / name).write_bytes(b"no image")
    (folder / ".ipynb_checkpoints").mkdir()
    assert load_image_folder(folder).target_names.tolist() == ["ant", "bee", "cow"]
    assert len(load_image_folder(folder).data) == 12


def damage_text(path):
    path.write_bytes(b"this is no image")


def damage_empty(path):
    path.write_bytes(b"")


def damage_truncate(path):
    save(path, size=(64, 64))
    path.write_bytes(path.read_bytes()[:-40])


def damage_chunk(path):
    data = bytearray(path.read_bytes())
    data[37] ^= 255  # length of the pixel chunk
    path.write_bytes(data)


def damage_bomb(path):
    Image.new("1", (20_000, 10_000)).save(path)


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize(
    "damage", [damage_text, damage_empty, damage_truncate, damage_chunk, damage_bomb]
)
@pytest.mark.parametrize("name", ["ant/0.png", "cow/3.png"])
def test_folder_names_the_broken_file(folder, damage, name, n_jobs):
    damage(folder / name)
    with pytest.raises(ValueError, match=f"readable 8-bit image in '.*{name}'"):
        load_image_folder(folder, n_jobs=n_jobs)


def test_folder_refuses_16_bit_images(tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)).save(tmp_path / "a" / "0.png")
    with pytest.raises(ValueError, match="a/0.png.*convert the file to 8 bits"):
        load_image_folder(tmp_path)


def test_folder_passes_on_an_unreadable_file(folder):
    (folder / "bee" / "9.png").symlink_to(folder / "gone.png")
    with pytest.raises(FileNotFoundError, match="9.png"):
        load_image_folder(folder)


def test_folder_names_the_image_of_another_size(folder):
    save(folder / "cow" / "4.png", size=(9, 5))
    message = "images of 4 x 4 pixels, as in '.*0.png', got 9 x 5 in '.*cow/4.png'.*size="
    with pytest.raises(ValueError, match=message):
        load_image_folder(folder)
    assert load_image_folder(folder, size=4).data.shape == (12, 3, 4, 4)


@pytest.mark.parametrize("shape", [(8, 8), (8, 16), (16, 8), (8, 24), (40, 20)])
@pytest.mark.parametrize("size", [4, 8, 16])
def test_folder_size_is_torchvisions_resize_and_centre_crop(tmp_path, shape, size):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels).save(tmp_path / "a" / "0.png")
    X, _ = load_image_folder(tmp_path, size=size, return_X_y=True)
    reference = v2.Compose([v2.Resize(size), v2.CenterCrop(size)])(Image.fromarray(pixels))
    assert np.abs(X[0] - np.asarray(reference, dtype=int).transpose(2, 0, 1)).max() <= 1


@pytest.mark.parametrize("shape", [(9, 21), (21, 9), (10, 33)])
def test_folder_size_keeps_the_centre_of_any_shape(tmp_path, shape):
    """The image fades along its longer side; half way is as bright as the result's middle."""
    ramp = np.linspace(0, 250, max(shape)).round().astype(np.uint8)
    grey = np.broadcast_to(ramp if shape[1] > shape[0] else ramp[:, None], shape)
    (tmp_path / "a").mkdir()
    Image.fromarray(np.ascontiguousarray(grey)).save(tmp_path / "a" / "0.png")
    X, _ = load_image_folder(tmp_path, size=5, return_X_y=True)
    assert X.shape == (1, 3, 5, 5)
    assert np.all(np.abs(X[0].mean(axis=(1, 2)) - 125) < 2)
    assert np.ptp(X[0].astype(int)) < 250 * min(shape) / max(shape)  # only the square is left


def test_folder_size_that_fits_changes_no_pixel(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels).save(tmp_path / "a" / "0.png")
    X, _ = load_image_folder(tmp_path, size=8, return_X_y=True)
    assert np.array_equal(X[0], pixels.transpose(2, 0, 1))


@given(seed=SEEDS)
@settings(max_examples=10, deadline=None)
def test_folder_subset_is_stratified_and_reproducible(tmp_path_factory, seed):
    folder = _planted_folder(tmp_path_factory)
    X, y = load_image_folder(folder, n_samples=6, random_state=seed, return_X_y=True)
    assert np.bincount(y).tolist() == [1, 2, 3]
    numbers = X[:, 0, 0, 0]
    assert np.all(np.diff(numbers.astype(int)) > 0)  # no repeats, and in the order of the files
    assert np.array_equal(np.digitize(numbers, [2, 6]), y)  # labels still belong to the images
    again = load_image_folder(folder, n_samples=6, random_state=seed, n_jobs=2)
    assert np.array_equal(X, again.data)


def _planted_folder(tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "counted"
    if not path.exists():
        for i in range(12):
            save(path / ("ant" if i < 2 else "bee" if i < 6 else "cow") / f"{i:02}.png", (i, 0, 0))
    return path


def test_folder_subsets_differ_between_seeds(folder):
    subsets = {
        load_image_folder(folder, n_samples=6, random_state=seed).data.tobytes()
        for seed in range(5)
    }
    assert len(subsets) > 1


def test_folder_opens_only_the_chosen_files(folder):
    chosen = load_image_folder(folder, n_samples=6, random_state=0).data[:, 0, 0, 0]
    for number, path in enumerate(sorted(folder.glob("*/*.png"))):
        if number not in chosen:
            path.write_bytes(b"broken")
    again = load_image_folder(folder, n_samples=6, random_state=0).data[:, 0, 0, 0]
    assert np.array_equal(again, chosen)


@pytest.mark.parametrize(
    ("n_samples", "message"),
    [(13, "at most 12.*got 13"), (1, "leaves no image for ant"), (0, "'n_samples' parameter")],
)
def test_folder_refuses_an_impossible_subset(folder, n_samples, message):
    with pytest.raises(ValueError, match=message):
        load_image_folder(folder, n_samples=n_samples, random_state=0)


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(0)])
def test_folder_subset_that_is_kept_needs_a_seed(folder, tmp_path_factory, random_state):
    kept = tmp_path_factory.mktemp("kept") / "subset"
    options = {"n_samples": 6, "as_memmap": kept}
    with pytest.raises(ValueError, match="as_memmap and n_samples need an integer random_state"):
        load_image_folder(folder, random_state=random_state, **options)
    assert not kept.exists()
    first = load_image_folder(folder, random_state=0, **options).data
    assert np.array_equal(load_image_folder(folder, random_state=0, **options).data, first)
    load_image_folder(folder, random_state=random_state, n_samples=6)  # not kept


def test_folder_splits(tmp_path):
    for split, value in [("train", 1), ("test", 2), ("val", 3)]:
        for name in ("a", "b"):
            save(tmp_path / split / name / "0.png", (value, 0, 0))
    for split, value in [("train", 1), ("test", 2), ("val", 3)]:
        images = load_image_folder(tmp_path, split=split)
        assert images.data[:, 0, 0, 0].tolist() == [value, value]
        assert images.target_names.tolist() == ["a", "b"]


def test_folder_of_splits_without_split_is_refused(tmp_path):
    save(tmp_path / "train" / "a" / "0.png")
    save(tmp_path / "test" / "a" / "0.png")
    with pytest.raises(ValueError, match="look like splits. Pass split='test'"):
        load_image_folder(tmp_path)


@pytest.mark.parametrize("split", ["train", "test"])
def test_folder_splits_with_other_classes_are_refused(tmp_path, split):
    for name in ("train/a", "train/b", "test/b"):
        save(tmp_path / name / "0.png")
    with pytest.raises(ValueError, match="same classes in .* only one of them has: a"):
        load_image_folder(tmp_path, split=split)


def test_folder_names_the_splits_that_are_there(tmp_path):
    for name in ("train/a", "valid/a", ".hidden/a"):
        save(tmp_path / name / "0.png")
    message = "split 'val' .* no folder '.*val'. These folders are there: train, valid."
    for load in (load_image_folder, load_restricted_imagenet):
        with pytest.raises(FileNotFoundError, match=message):
            load(tmp_path, split="val")


def test_folder_that_is_missing_or_empty(tmp_path):
    with pytest.raises(FileNotFoundError, match="found no folder '.*nowhere'"):
        load_image_folder(tmp_path / "nowhere")
    save(tmp_path / "file.png")
    with pytest.raises(FileNotFoundError, match="found no folder '.*file.png'"):
        load_image_folder(tmp_path / "file.png")
    with pytest.raises(FileNotFoundError, match="one folder per class in .*, found none"):
        load_image_folder(tmp_path)  # images lie directly in it
    with pytest.raises(FileNotFoundError, match="found no folder '.*val'"):
        load_image_folder(tmp_path, split="val")


def test_folder_names_an_empty_class(folder):
    (folder / "dog").mkdir()
    (folder / "dog" / "notes.txt").write_text("soon")
    with pytest.raises(FileNotFoundError, match="every class folder of .* dog.*Known extensions"):
        load_image_folder(folder)


@pytest.mark.parametrize("options", [{"size": 0}, {"split": 1}, {"n_jobs": "two"}])
def test_folder_refuses_parameters_out_of_range(folder, options):
    with pytest.raises(
        ValueError, match=f"'{next(iter(options))}' parameter of load_image_folder"
    ):
        load_image_folder(folder, **options)


# --- Restricted ImageNet ------------------------------------------------------------------------


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


# --- planted features ---------------------------------------------------------------------------


def attacked_accuracy(data, features, eps):
    """Move every sample by eps towards the nearest other class of the linear rule, and predict.

    The attack is exact for a linear rule; eps is shortened by nothing, so a tie cannot happen.
    """
    X, y = data.data.reshape(len(data.data), -1).astype(float), data.target
    W, rows = data.coef[features], np.arange(len(X))
    scores = X @ W.T
    distances = np.full_like(scores, np.inf)
    for k in range(len(W)):
        other = y != k
        length = np.linalg.norm(W[y[other]] - W[k], axis=1)
        distances[other, k] = (scores[rows, y] - scores[:, k])[other] / length
    direction = W[distances.argmin(axis=1)] - W[y]
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return np.mean(((X + eps * direction) @ W.T).argmax(axis=1) == y)


def agrees(observed, expected, n):
    return abs(observed - expected) < 5 * np.sqrt(expected * (1 - expected) / n) + 4 / n


@pytest.mark.parametrize("make", [make_planted_features, make_planted_images])
@given(
    seed=SEEDS,
    n_classes=st.sampled_from([2, 3, 5]),
    agreement=st.sampled_from([0.5, 0.8, 0.95]),
    snr=st.sampled_from([0.7, 1.5, 2.5]),
    fraction=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
)
@settings(max_examples=25, deadline=None)
def test_planted_accuracy_agrees_with_the_closed_form(
    make, seed, n_classes, agreement, snr, fraction
):
    n, margin = 2000, 0.03
    data = make(
        n,
        n_classes=n_classes,
        agreement=agreement,
        nonrobust_margin=margin,
        noise=margin / snr,
        robust_margin=0.8,
        random_state=seed,
    )
    eps = fraction * margin
    for features in ("robust", "nonrobust", "all"):
        expected = data.accuracy(features, eps=eps)
        assert agrees(attacked_accuracy(data, features, eps), expected, n), features


@pytest.mark.parametrize("make", [make_planted_features, make_planted_images])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_planted_robust_feature_holds_up_to_its_margin(make, n_classes):
    data = make(2000, n_classes=n_classes, robust_margin=0.9, random_state=0)
    assert agrees(attacked_accuracy(data, "robust", 0.899), 0.8, 2000)
    assert attacked_accuracy(data, "robust", 0.901) == 0
    assert data.accuracy("robust", eps=0.899) == 0.8
    assert data.accuracy("robust", eps=0.9) == 0


def test_planted_accuracy_equals_the_binary_formulas():
    p, r, s, sigma = 0.7, 1.0, 0.1, 0.08
    data = make_planted_features(agreement=p, robust_margin=r, nonrobust_margin=s, noise=sigma)
    normal = torch.distributions.Normal(0.0, 1.0)

    def phi(x):
        return normal.cdf(torch.tensor(x, dtype=torch.float64)).item()

    bonus = np.log(p / (1 - p)) * sigma / (2 * s)
    slope = np.sqrt(1 + (bonus * sigma / r) ** 2)
    for eps in (0.0, 0.05, 0.2, 1.0):
        assert data.accuracy("nonrobust", eps=eps) == pytest.approx(phi((s - eps) / sigma))
        lead = (s - slope * eps) / sigma
        expected = p * phi(lead + bonus) + (1 - p) * phi(lead - bonus)
        assert data.accuracy(eps=eps) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("make", [make_planted_features, make_planted_images])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_no_trained_classifier_beats_the_bayes_accuracy(make, n_classes):
    data = make(
        8000, n_classes=n_classes, nonrobust_margin=0.04, noise=0.04, random_state=n_classes
    )
    X, y = data.data.reshape(8000, -1) * 25, data.target  # to unit noise
    score = (
        LogisticRegression(C=1.0, max_iter=2000).fit(X[:4000], y[:4000]).score(X[4000:], y[4000:])
    )
    best = data.accuracy()
    assert best > max(data.accuracy("robust"), data.accuracy("nonrobust")) + 0.01
    assert best - 0.04 < score < best + 5 * np.sqrt(best * (1 - best) / 4000)


def test_planted_usefulness_is_that_of_the_notes():
    n, p, s, sigma, eps = 20_000, 0.8, 0.1, 0.04, 0.03
    data = make_planted_features(n, random_state=0)
    sign = 2 * data.target - 1
    robust = data.data[:, data.robust_mask].sum(axis=1)  # has unit variance as it is
    columns = data.data[:, ~data.robust_mask].sum(axis=1) / np.sqrt(20)
    scale = np.sqrt(s**2 + sigma**2)
    assert np.std(columns) == pytest.approx(scale, rel=0.03)
    assert np.mean(sign * robust) == pytest.approx(2 * p - 1, abs=0.02)
    assert np.mean(sign * columns) / scale == pytest.approx(s / scale, abs=0.02)
    # The worst attack moves the columns by eps along their sum, against the label.
    attacked = columns - eps * sign
    assert np.mean(sign * attacked) / scale == pytest.approx((s - eps) / scale, abs=0.02)


@pytest.mark.parametrize("make", [make_planted_features, make_planted_images])
@given(seed=SEEDS, n_classes=st.integers(2, 6))
@settings(max_examples=15, deadline=None)
def test_planted_ground_truth_describes_the_sample(make, seed, n_classes):
    data = make(301, n_classes=n_classes, random_state=seed)
    assert data.data.dtype == np.float32 and data.target.dtype == np.int64
    assert np.ptp(np.bincount(data.target, minlength=n_classes)) <= 1
    assert agrees(np.mean(data.robust_target == data.target), 0.8, 301)
    base = 0.5 if data.data.ndim == 4 else 0.0
    clean = base + data.robust_patterns[data.robust_target] + data.nonrobust_patterns[data.target]
    noise = (data.data - clean).reshape(301, -1)
    sigma = 0.04 if data.data.ndim == 2 else 0.03
    robust = data.robust_patterns.reshape(n_classes, -1)
    assert np.abs(noise @ robust.T).max() < 1e-5  # none along the robust feature
    d_noise = noise.shape[1] - (n_classes - 1)
    assert np.sqrt((noise**2).sum() / (301 * d_noise)) == pytest.approx(sigma, rel=0.1)
    nonrobust = data.nonrobust_patterns.reshape(n_classes, -1)
    assert np.abs(robust @ nonrobust.T).max() < 1e-12
    for patterns, distance in [(robust, 2.0), (nonrobust, data.flip_eps)]:
        gaps = np.linalg.norm(patterns[:, None] - patterns[None], axis=2)
        assert np.allclose(gaps, distance * (1 - np.eye(n_classes)))


def test_planted_features_columns():
    data = make_planted_features(10, n_classes=3, n_nonrobust=7, random_state=0)
    assert data.data.shape == (10, 9)
    assert data.robust_mask.tolist() == [True] * 2 + [False] * 7
    assert not data.robust_patterns[:, ~data.robust_mask].any()
    assert not data.nonrobust_patterns[:, data.robust_mask].any()
    binary = make_planted_features(10, n_nonrobust=25, nonrobust_margin=0.1)
    assert np.allclose(binary.nonrobust_patterns[:, 1:], [[-0.02] * 25, [0.02] * 25])
    assert binary.robust_patterns[:, 0].tolist() == pytest.approx([-1, 1])


@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_planted_images_are_valid_with_a_smooth_and_a_fast_pattern(n_classes):
    images = make_planted_images(500, n_classes=n_classes, random_state=0)
    assert images.data.shape == (500, 1, 16, 16)
    assert images.data.min() >= 0 and images.data.max() <= 1
    assert (
        images.robust_patterns.shape == images.nonrobust_patterns.shape == (n_classes, 1, 16, 16)
    )
    spectrum = np.abs(np.fft.fft2(images.robust_patterns)) ** 2
    low = np.add.outer(*[np.abs(np.fft.fftfreq(16))] * 2) < 0.3
    assert spectrum[..., low].sum() > 0.9 * spectrum.sum()
    spectrum = np.abs(np.fft.fft2(images.nonrobust_patterns)) ** 2
    high = np.add.outer(*[np.abs(np.fft.fftfreq(16))] * 2) > 0.7
    assert spectrum[..., high].sum() > 0.9 * spectrum.sum()
    assert np.abs(images.robust_patterns).max() > 3 * np.abs(images.nonrobust_patterns).max()


@pytest.mark.parametrize("make", [make_planted_features, make_planted_images])
def test_planted_data_are_reproducible_and_leave_the_global_generator_alone(make):
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    first, again = make(50, random_state=7), make(50, random_state=np.random.RandomState(7))
    assert np.array_equal(np.random.get_state()[1], before)
    assert np.array_equal(first.data, again.data) and np.array_equal(first.target, again.target)
    assert not np.array_equal(first.data, make(50, random_state=8).data)
    X, y = make(50, random_state=7, return_X_y=True)
    assert np.array_equal(X, first.data) and np.array_equal(y, first.target)


@pytest.mark.parametrize("make", [make_planted_features, make_planted_images])
def test_planted_truth_survives_pickling(make):
    data = make(5, random_state=0)
    copy = pickle.loads(pickle.dumps(data))
    assert copy.accuracy("nonrobust", eps=0.01) == data.accuracy("nonrobust", eps=0.01)


@pytest.mark.parametrize("make", [make_planted_features, make_planted_images])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_samples": 0}, "'n_samples' parameter"),
        ({"n_classes": 1}, "'n_classes' parameter"),
        ({"agreement": 1.0}, "'agreement' parameter"),
        ({"n_classes": 3, "agreement": 0.3}, "at least 1 / n_classes = 0.333"),
        ({"noise": 0.0}, "'noise' parameter"),
        ({"robust_margin": -1.0}, "'robust_margin' parameter"),
        ({"nonrobust_margin": 0.0}, "'nonrobust_margin' parameter"),
        ({"random_state": "seed"}, "'random_state' parameter"),
    ],
)
def test_planted_data_refuse_parameters_out_of_range(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_planted_data_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="'n_nonrobust' .* at least n_classes - 1 = 4. Got 3"):
        make_planted_features(n_classes=5, n_nonrobust=3)
    with pytest.raises(ValueError, match=r"size\*\*2 > 2 \* \(n_classes - 1\) = 4. Got 2"):
        make_planted_images(n_classes=3, size=2)
    with pytest.raises(ValueError, match="within 0.5 of grey.*Lower robust_margin"):
        make_planted_images(robust_margin=5.0)


def test_planted_accuracy_refuses_unknown_features_and_negative_eps():
    data = make_planted_features(5)
    with pytest.raises(ValueError, match="'features' parameter .* Got 'useful' instead"):
        data.accuracy("useful")
    for eps in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="'eps' parameter must be at least 0"):
            data.accuracy(eps=eps)

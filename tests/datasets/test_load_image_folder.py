"""Folders of images: formats, sizes, subsets, splits, and what is refused."""

import os

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import save
from PIL import Image
from torchvision.transforms import v2

from advfeat.datasets import (
    load_image_folder,
    load_restricted_imagenet,
)

SEEDS = st.integers(0, 2**32 - 1)


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


@pytest.mark.parametrize("more", [(), ("figures",), ("unlabeled", "extra")])
def test_splits_beside_other_folders_are_no_classes(tmp_path, more):
    for name in ("train", "test", *more):
        save(tmp_path / name / "a" / "0.png")
        save(tmp_path / name / "b" / "0.png")
    with pytest.raises(ValueError, match="look like splits. Pass split='test'"):
        load_image_folder(tmp_path)


def test_classes_may_be_called_like_splits(tmp_path):
    for name in ("train", "test", "plane"):
        save(tmp_path / name / "0.png")
    assert load_image_folder(tmp_path).target_names.tolist() == ["plane", "test", "train"]


def test_hard_links_of_one_image_in_two_classes(tmp_path):
    save(tmp_path / "a" / "0.png")
    save(tmp_path / "b" / "0.png")
    os.link(tmp_path / "a" / "0.png", tmp_path / "a" / "1.png")
    assert load_image_folder(tmp_path).target.tolist() == [0, 0, 1]
    os.link(tmp_path / "a" / "0.png", tmp_path / "b" / "1.png")
    with pytest.raises(ValueError, match="one and the same file"):
        load_image_folder(tmp_path)


def test_a_split_whose_images_are_not_sorted_by_class(tmp_path):
    """Tiny ImageNet has train/<class>/images/*.JPEG, but val/images/*.JPEG."""
    for value, name in enumerate(("n01", "n02")):
        save(tmp_path / "train" / name / "images" / "0.JPEG", value)
    for split in ("val", "test"):
        save(tmp_path / split / "images" / "0.JPEG", 9)
    data = load_image_folder(tmp_path, split="train")
    assert data.target_names.tolist() == ["n01", "n02"] and data.target.tolist() == [0, 1]
    for split in ("val", "test"):
        with pytest.raises(ValueError, match="Sort the images of the former by class"):
            load_image_folder(tmp_path, split=split)

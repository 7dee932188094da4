"""SampleGridDisplay shows the images and labels that it was given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from advfeat import ConstructedDataset
from advfeat.plotting import SampleGridDisplay


def constructed(X, y, target):
    return ConstructedDataset(X, target, y, np.unique([*y, *target]))


def pixels(image):
    """(C, H, W) as drawn: (H, W) or (H, W, 3)."""
    return image[0] if len(image) == 1 else np.moveaxis(image, 0, 2)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_grid_shows_the_same_rows_of_each_set(channels, dtype):
    rng = np.random.default_rng(0)
    X = rng.random((20, channels, 5, 4))
    X = (X * 255).astype(dtype) if dtype == np.uint8 else X.astype(dtype)
    y = rng.integers(3, size=20)
    target = (y + 1) % 3
    scaled = (X / X.max()).astype(np.float32)
    sets = {"D": X, "D_R": X[::-1].copy(), "D_det": constructed(scaled, y, target)}
    display = SampleGridDisplay.from_datasets(sets, y=y, n_samples=4, random_state=3)
    assert display.images_.shape == (3, 4)
    assert len(set(display.indices)) == 4
    for j, row in enumerate(display.indices):
        for i, source in enumerate((X, X[::-1], scaled)):
            drawn = display.images_[i, j]
            np.testing.assert_array_equal(drawn.get_array(), pixels(source[row]))
            if channels == 1:
                assert drawn.get_clim() == (0, 255 if source.dtype == np.uint8 else 1)
    texts = [text.get_text() for text in display.texts_]
    same = [str(label) for label in y[display.indices]]
    moved = [f"{y[i]} → {target[i]}" for i in display.indices]
    assert texts == same + same + moved
    assert [text.get_text() for text in display.ax_.get_yticklabels()] == list(sets)


def test_grid_images_lie_apart_and_inside():
    X = np.zeros((3, 1, 4, 6))
    display = SampleGridDisplay(
        {"D": X, "D_R": X[:, :, :2]}, labels={"D": ["a → b", "c", "a long name → another"]}
    ).plot()
    left, right = display.ax_.get_xlim()
    bottom, top = display.ax_.get_ylim()
    boxes = [image.get_extent() for image in display.images_.flat]
    for i, (x0, x1, y1, y0) in enumerate(boxes):
        assert left <= x0 < x1 <= right
        assert top <= y0 < y1 <= bottom
        for a0, a1, b1, b0 in boxes[:i]:
            assert a1 < x0 or x1 < a0 or b1 < y0 or y1 < b0
    heights = [box[2] - box[3] for box in boxes]
    np.testing.assert_allclose(heights, [4 / 6] * 3 + [2 / 6] * 3)
    # One label is too long for a line, so all of its row are broken alike.
    assert [text.get_text() for text in display.texts_] == [
        "a\n→ b",
        "c",
        "a long name\n→ another",
    ]


# The formula: matplotlib before 3.10 uses what pyparsing 3.3 deprecates, also from within it.
@pytest.mark.filterwarnings("ignore:.*deprecated.* use:DeprecationWarning")
@pytest.mark.parametrize("name", ["D", r"$\widehat{D}_R$", "a training set with a long name"])
def test_grid_names_lie_inside_the_figure(name):
    display = SampleGridDisplay({name: np.zeros((3, 1, 4, 4))}).plot()
    display.figure_.canvas.draw()
    (text,) = display.ax_.get_yticklabels()
    assert text.get_window_extent().x0 >= 0
    box = display.images_[0, 0].get_window_extent()
    assert box.width > 0.9 * 0.8 * display.figure_.dpi  # and leave the images their size


def test_grid_draws_by_random_state():
    X = np.linspace(0, 1, 50)[:, None, None, None]
    first, again, other = (
        SampleGridDisplay.from_datasets({"D": X}, n_samples=5, random_state=seed).indices
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_grid_takes_names_by_label():
    X, y = np.zeros((6, 1, 4, 4)), np.array([3, 3, 1, 1, 2, 2])
    names = {3: "c", np.int64(1): "a", 2: "b", 9: "never seen"}
    display = SampleGridDisplay.from_datasets({"D": X}, y=y, class_names=names, n_samples=6)
    assert [text.get_text() for text in display.texts_] == list("ccaabb")
    for wrong in ({3: "c", 1: "a"}, {"3": "c", "1": "a", "2": "b"}, set("abc")):
        with pytest.raises(ValueError, match="class_names must hold one name for each label"):
            SampleGridDisplay.from_datasets({"D": X}, y=y, class_names=wrong, n_samples=6)


@pytest.mark.parametrize("n_samples", [2.0, "2", None, 0, 7])
def test_grid_refuses_numbers_of_samples(n_samples):
    with pytest.raises(ValueError, match="n_samples must be an integer in 1..6"):
        SampleGridDisplay.from_datasets({"D": np.zeros((6, 1, 4, 4))}, n_samples=n_samples)


@pytest.mark.parametrize("labels", [["a"], {"D": None}, {"D": "ab"}, {"D": [["a"]]}, 3])
def test_grid_refuses_labels_that_are_no_texts(labels):
    with pytest.raises(ValueError, match="labels must be a mapping from names of sets"):
        SampleGridDisplay({"D": np.zeros((1, 1, 4, 4))}, labels=labels)


@pytest.mark.parametrize("dtype", [np.longdouble, np.float16, bool, np.uint16])
@pytest.mark.parametrize("name", ["D", "", " "])
def test_grid_draws_any_type_under_any_name(dtype, name):
    X = np.ones((2, 3, 4, 4), dtype)
    display = SampleGridDisplay({name: X}).plot()
    display.figure_.canvas.draw()
    assert (display.images_[0, 0].get_array() == 1).all()


def test_grid_names_the_classes():
    X = np.zeros((2, 3, 4, 4))
    data = constructed(X, [7, 9], [9, 7])
    display = SampleGridDisplay.from_datasets(
        {"D_rand": data, "D": X}, class_names=["cat", "dog"], n_samples=2
    )
    assert [text.get_text() for text in display.texts_] == ["cat → dog", "dog → cat"]
    with pytest.raises(ValueError, match=r"one name for each label, \[7, 9\].* Got 3 names"):
        SampleGridDisplay.from_datasets({"D": data}, class_names=list("abc"), n_samples=2)


def test_grid_writes_labels_of_two_types_as_they_are():
    X = np.zeros((2, 1, 4, 4), dtype=np.float32)
    numbers = TensorDataset(torch.from_numpy(X), torch.tensor([0, 1]))
    sets = {"D": numbers, "D_det": constructed(X, ["cat", "dog"], ["dog", "cat"])}
    display = SampleGridDisplay.from_datasets(sets, n_samples=2)
    texts = [text.get_text() for text in display.texts_]
    assert texts == ["0", "1", "cat → dog", "dog → cat"]
    with pytest.raises(ValueError, match=r"labels of one type.* Got both, \[0, 1, 'cat', 'dog'\]"):
        SampleGridDisplay.from_datasets(sets, class_names=["cat", "dog"], n_samples=2)


@pytest.mark.parametrize("make", [list, np.array, torch.tensor])
def test_grid_writes_numbers_as_text(make):
    display = SampleGridDisplay({"D": IMAGES[:3]}, labels={"D": make([3, 1, 2])}).plot()
    assert display.labels == {"D": ["3", "1", "2"]}
    assert [text.get_text() for text in display.texts_] == ["3", "1", "2"]


def test_grid_draws_into_given_axes_and_tensors():
    figure, axes = plt.subplots(2)
    X = torch.rand(4, 3, 6, 6)
    display = SampleGridDisplay.from_datasets({"D": X}, n_samples=2, ax=axes[1])
    assert display.ax_ is axes[1]
    assert display.figure_ is figure
    assert not axes[0].images
    assert not display.texts_
    assert len(plt.get_fignums()) == 1
    np.testing.assert_array_equal(display.images["D"], X[display.indices].numpy())


def test_grid_clips_rounding_errors_only():
    X = np.array([-1e-7, 1 + 1e-7], dtype=np.float64).reshape(2, 1, 1, 1)
    display = SampleGridDisplay({"D": X}).plot()
    drawn = [float(image.get_array()[0, 0]) for image in display.images_[0]]
    assert drawn == [0, 1]


IMAGES = np.zeros((6, 3, 4, 4))


@pytest.mark.parametrize(
    ("datasets", "keywords", "message"),
    [
        ({}, {}, "must be a mapping.* Got an empty one"),
        (IMAGES, {}, "must be a mapping.* Got ndarray"),
        ({"D": IMAGES, "D_R": IMAGES[1:]}, {}, "'D' has 6 and 'D_R' has 5"),
        ({"D": IMAGES}, {"n_samples": 7}, r"must be an integer in 1\.\.6.* Got 7"),
        ({"D": IMAGES}, {"n_samples": 0}, r"must be an integer in 1\.\.6.* Got 0"),
        ({"D": IMAGES}, {"y": [1, 2]}, r"y must have shape \(6,\).* Got \(2,\)"),
        ({"D": IMAGES.transpose(0, 2, 3, 1)}, {}, r"channels last: use X.transpose\(0, 3, 1, 2"),
        ({"D": IMAGES[:, :2]}, {}, "'D' must hold images .* with C = 1 or 3"),
        ({"D": IMAGES[:, 0, 0]}, {}, r"Got shape \(3, 4\)"),
        ({"D": IMAGES, "D_R": IMAGES + 255.0}, {}, "'D_R' must be floats in .* to 255"),
        ({"D": IMAGES + np.nan}, {}, "Input X contains NaN"),
        (
            {"D_det": constructed(IMAGES, [0] * 6, [1] * 6)},
            {"y": [1] * 6},
            "'D_det' was constructed from other labels than y",
        ),
    ],
)
def test_grid_refuses(datasets, keywords, message):
    with pytest.raises(ValueError, match=message):
        SampleGridDisplay.from_datasets(datasets, **{"n_samples": 3, **keywords})


@pytest.mark.parametrize("labels", [{"D": ["a"]}, {"other": ["a", "b"]}])
def test_grid_refuses_labels_that_do_not_fit(labels):
    with pytest.raises(ValueError, match="labels must hold 2 texts"):
        SampleGridDisplay({"D": IMAGES[:2]}, labels=labels)


def test_grids_of_samples_have_no_grid_lines():
    images = np.full((2, 3, 8, 8), 0.5)
    with plt.style.context("ggplot"):
        display = SampleGridDisplay({"D": images, "D_R": images}).plot()
        assert not any(line.get_visible() for line in display.ax_.get_ygridlines())

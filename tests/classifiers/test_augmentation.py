"""augment: own draw for each image, known contents, torchvision as the reference."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as reference

from advfeat.classifiers._augmentation import AUGMENTATIONS, _jitter, _rotate, augment

SHAPES = [(1, 8, 8), (3, 32, 32), (3, 12, 20), (2, 9, 5), (4, 3, 3)]


def generator(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def images(n, shape, seed=0):
    return torch.rand(n, *shape, generator=generator(seed))


def coordinates(n, height, width):
    """Images whose two channels hold the row and the column, counted from 1."""
    rows, columns = torch.meshgrid(
        torch.arange(1.0, height + 1), torch.arange(1.0, width + 1), indexing="ij"
    )
    return torch.stack([rows, columns]).expand(n, 2, height, width)


@pytest.mark.parametrize("kind", AUGMENTATIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_shape_range_and_reproducibility(kind, shape, device):
    x = images(6, shape).to(device)
    before = x.clone()
    result = augment(x, kind, generator(1, device))
    assert result.shape == x.shape
    assert (result.dtype, result.device) == (x.dtype, x.device)
    assert result.min() >= 0
    assert result.max() <= 1
    assert torch.equal(x, before)
    assert torch.equal(augment(x, kind, generator(1, device)), result)
    if kind != "none":
        assert not torch.equal(augment(x, kind, generator(2, device)), result)


def test_none_changes_nothing():
    x = images(3, (3, 8, 8))
    assert augment(x, "none", None) is x


@pytest.mark.parametrize("kind", ["flip-crop", "paper"])
def test_the_global_generator_is_not_used(kind):
    state = torch.get_rng_state()
    augment(images(3, (3, 8, 8)), kind, generator())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", ["flip-crop", "paper"])
def test_each_image_has_its_own_draw(kind):
    same = images(1, (3, 32, 32)).expand(64, 3, 32, 32)
    different = torch.unique(augment(same, kind, generator()), dim=0)
    # "flip-crop" has 2 * 9 * 9 outcomes.
    assert len(different) > 45


@pytest.mark.parametrize(("height", "width", "padding"), [(8, 8, 1), (32, 32, 4), (16, 40, 2)])
def test_flip_crop_moves_by_up_to_an_eighth_and_mirrors_half_of_the_images(height, width, padding):
    n = 600
    rows, columns = augment(coordinates(n, height, width), "flip-crop", generator()).unbind(1)
    centre = (height // 2, width // 2)
    flipped = columns[:, centre[0], centre[1]] > columns[:, centre[0], centre[1] + 1]
    columns = torch.where(flipped[:, None, None], columns.flip(2), columns)
    rows = torch.where(flipped[:, None, None], rows.flip(2), rows)
    down = rows[:, centre[0], centre[1]] - (centre[0] + 1)
    right = columns[:, centre[0], centre[1]] - (centre[1] + 1)
    # Every image is the original moved by (down, right), with zeros outside.
    wanted_rows = torch.arange(1.0, height + 1) + down[:, None]
    wanted_columns = torch.arange(1.0, width + 1) + right[:, None]
    inside = ((wanted_rows >= 1) & (wanted_rows <= height))[:, :, None] & (
        (wanted_columns >= 1) & (wanted_columns <= width)
    )[:, None, :]
    assert torch.equal(rows, wanted_rows[:, :, None] * inside)
    assert torch.equal(columns, wanted_columns[:, None, :] * inside)
    # All moves occur, about equally often, and so do the flips.
    for move in (down, right):
        values, counts = move.unique(return_counts=True)
        assert values.tolist() == list(range(-padding, padding + 1))
        assert counts.min() > 0.5 * n / len(values)
    assert 0.4 < flipped.float().mean() < 0.6
    assert abs(np.corrcoef(down, right)[0, 1]) < 0.15


def draws(seed, n, low, high):
    """The factors that a generator with this seed gives, one batch of n after the other."""
    source = generator(seed)
    while True:
        yield low + (high - low) * torch.rand(n, generator=source)


@given(seed=st.integers(0, 1000), channels=st.sampled_from([1, 3]))
@settings(max_examples=20)
def test_colour_jitter_agrees_with_torchvision(seed, channels):
    x = images(4, (channels, 6, 7), seed)
    found = _jitter(x, generator(seed), 0.25)
    factors = draws(seed, 4, 0.75, 1.25)
    brightness, contrast = next(factors), next(factors)
    saturation = next(factors) if channels == 3 else torch.ones(4)
    for i in range(4):
        expected = reference.adjust_brightness(x[i], brightness[i].item())
        expected = reference.adjust_contrast(expected, contrast[i].item())
        expected = reference.adjust_saturation(expected, saturation[i].item())
        # torchvision rounds the weights of the grey value to four digits.
        torch.testing.assert_close(found[i], expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 12, 25), (2, 25, 12)])
@pytest.mark.parametrize("degrees", [2, 45])
def test_rotation_agrees_with_torchvision(shape, degrees):
    x = images(5, shape)
    found = _rotate(x, generator(3), degrees)
    angles = next(draws(3, 5, -degrees, degrees))
    bilinear = InterpolationMode.BILINEAR
    for i in range(5):
        expected = reference.rotate(x[i], angles[i].item(), interpolation=bilinear)
        torch.testing.assert_close(found[i], expected, atol=1e-3, rtol=0)


def test_paper_rotates_by_two_degrees_at_most():
    # A rotation by 2 degrees moves the rim of 33 pixels by about half a pixel: the ramp shows it.
    ramp = torch.linspace(0.2, 0.8, 33)[:, None].expand(33, 33)
    x = _rotate(ramp.expand(200, 1, 33, 33), generator(), 2)[:, 0]
    slope = (x[:, 16, 32 - 4] - x[:, 16, 4]) / 24 / (0.6 / 32)
    assert slope.abs().max() < np.tan(np.radians(2)) + 1e-3
    assert slope.abs().max() > np.tan(np.radians(1.8))
    assert slope.min() < -0.02
    assert slope.max() > 0.02

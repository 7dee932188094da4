"""Bounds: one range for all inputs, or one for each channel or feature."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from advfeat.utils._bounds import is_unit_box, resolve_bounds, validate_bounds

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.mark.parametrize(
    ("bounds", "shape", "expected"),
    [
        ("auto", (3, 6, 7), (0.0, 1.0)),
        ("auto", (5,), None),
        (None, (3, 6, 7), None),
        ((-1, 1), (5,), (-1.0, 1.0)),
        ([0, 255], (3, 6, 7), (0.0, 255.0)),
        (np.array([0, 2]), (5,), (0.0, 2.0)),
        (([0], [1]), (3, 6, 7), (0.0, 1.0)),
        (([0, 0, 0], 1), (3, 6, 7), (0.0, 1.0)),
        ((-np.inf, [1, 1]), (2,), (-np.inf, 1.0)),
    ],
)
def test_one_range(bounds, shape, expected):
    validate_bounds(bounds, "Estimator")
    assert resolve_bounds(bounds, shape) == expected


@pytest.mark.parametrize(
    "kind", [np.asarray, list, torch.tensor, lambda side: side.reshape(3, 1, 1)]
)
def test_a_range_for_each_channel(kind):
    bounds = (kind(-MEAN / STD), kind((1 - MEAN) / STD))
    validate_bounds(bounds, "Estimator")
    low, high = resolve_bounds(bounds, (3, 6, 7))
    assert low.shape == high.shape == (3, 1, 1) and low.dtype == np.float32
    assert_allclose(low.ravel(), -MEAN / STD, rtol=1e-6)
    assert_allclose(high.ravel(), (1 - MEAN) / STD, rtol=1e-6)


def test_channel_wise_shapes_are_for_images():
    with pytest.raises(ValueError, match=r"shape \(C, 1, 1\) are for images"):
        resolve_bounds((MEAN.reshape(3, 1, 1), 1), (3,))


def test_a_range_for_each_feature():
    low, high = resolve_bounds(([0, -1], 3), (2,))
    assert low.tolist() == [0, -1] and high.tolist() == [3, 3]


def test_as_many_as_there_are_channels():
    with pytest.raises(ValueError, match="one for each of the 3 channels of X. Got 2"):
        resolve_bounds(([0, 0], [1, 1]), (3, 6, 7))
    with pytest.raises(ValueError, match="one for each of the 5 features of X. Got 4"):
        resolve_bounds((0, [1, 1, 2, 2]), (5,))


@pytest.mark.parametrize(
    "bounds",
    [
        (1, 0), (0, 0), (0,), (0, 1, 2), 3, "wide", "01", (0, "a"), (np.nan, 1), ([0, 1], [1, 1]),
        ([], []), (np.zeros((2, 2)), 1), (np.zeros((3, 1)), 1), (np.zeros((1, 3, 1, 1)), 1),
        ({}, 1), (0, None),
    ],
)  # fmt: skip
def test_bounds_that_are_refused(bounds):
    with pytest.raises(
        ValueError, match="'bounds' parameter of Estimator must be 'auto', None or"
    ):
        validate_bounds(bounds, "Estimator")


def test_the_unit_box():
    assert is_unit_box((0.0, 1.0))
    assert not is_unit_box(None)
    assert not is_unit_box((0.0, 2.0))
    assert not is_unit_box(resolve_bounds(([0, 0], [1, 2]), (2,)))

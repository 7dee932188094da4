"""Fixtures that the tests of this folder share."""

import numpy as np
import pytest

from advfeat import ConstructedDataset

NAMES = np.arange(100, 111)  # of eleven classes, and not their positions


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.RandomState(0)
    y = np.repeat(["a", "b", "c"], 60)
    centres = {"a": [0, 0], "b": [4, 0], "c": [0, 4]}
    X = np.array([centres[label] for label in y]) + rng.randn(180, 2)
    return X.astype(np.float32), y


@pytest.fixture
def data(blobs):
    X, y = blobs
    moved = np.array(["b", "c", "a"])[np.searchsorted(["a", "b", "c"], y)]
    return ConstructedDataset(X, moved, y_source=y, classes=["a", "b", "c"])


@pytest.fixture(params=["numbers", "text"])
def eleven(request):
    """A set in which feature j is 1 for the j-th class, so that any linear model is right."""
    names = NAMES if request.param == "numbers" else NAMES.astype(str)
    index = np.random.default_rng(0).integers(11, size=330)
    X = np.eye(11, dtype=np.float32)[index]
    return ConstructedDataset(X, names[index], names[(index + 1) % 11], names)

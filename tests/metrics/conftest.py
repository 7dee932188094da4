"""Fixtures that the tests of this folder share."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression


@pytest.fixture(scope="module")
def linear():
    rng = np.random.RandomState(0)
    y = rng.randint(2, size=400)
    X = rng.randn(400, 6) + 0.8 * (2 * y[:, None] - 1)
    return X, y, LogisticRegression().fit(X, y)

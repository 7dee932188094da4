"""NumPy's small integers as settings, as grids and searches give them: none overflows."""

import warnings

import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator

from advfeat import (
    NonRobustRelabeler,
    RobustFeatureInverter,
    StandardClassifier,
    adversarial_examples,
    robust_feature_usefulness,
)

N = 300


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.random((N, 5), dtype=np.float32), np.arange(N) % 2


@pytest.fixture(scope="module")
def source(data):
    return StandardClassifier(max_epochs=1, random_state=0, verbose=0).fit(*data)


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
@pytest.mark.parametrize("Construction", [NonRobustRelabeler, RobustFeatureInverter])
def test_constructions_with_a_store(Construction, kind, data, source, tmp_path):
    made = []
    for number in (int, kind):
        settings = {"n_steps": 1, "batch_size": 100, "random_state": 3}
        settings = {name: number(value) for name, value in settings.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one step makes no set of use
            transformer = Construction(
                FrozenEstimator(source), store=tmp_path / number.__name__, verbose=0, **settings
            )
            found = transformer.fit_transform(*data)
        made.append(getattr(found, "X", found))
    np.testing.assert_array_equal(*made)


def test_attacks_and_usefulness(data, source):
    examples, usefulness = [], []
    few = [values[:4] for values in data]
    for number in (int, np.int8):
        settings = {"n_steps": 2, "batch_size": 100, "random_state": 3}
        settings = {name: number(value) for name, value in settings.items()}
        settings |= {"norm": 2, "eps": 0.5, "verbose": 0}
        examples.append(adversarial_examples(source, *data, **settings))
        usefulness.append(robust_feature_usefulness(source, *few, **settings))
    for pair in (*zip(*examples, strict=True), *zip(*usefulness, strict=True)):
        np.testing.assert_array_equal(*pair)

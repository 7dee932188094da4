"""Seeds and step sizes do what they say: of each, a network shows the difference."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.frozen import FrozenEstimator

from advfeat import (
    NonRobustRelabeler,
    RobustFeatureInverter,
    adversarial_examples,
    robust_feature_usefulness,
)
from advfeat.classifiers import _augmentation
from advfeat.optim import _balls
from advfeat.utils._random import make_generator

QUIET = {"verbose": 0}


def moved(made, X):
    return np.linalg.norm((np.asarray(made) - X).reshape(len(X), -1), axis=1)


def test_the_seed_of_an_attack_decides_its_starts(standard, digits):
    X, y = digits[2][:40], digits[3][:40]
    attack = {"norm": 2, "eps": 0.05, "n_steps": 1, "step_size": 1e-6, **QUIET}
    made = [adversarial_examples(standard, X, y, random_state=s, **attack)[0] for s in (0, 1, 0)]
    assert_array_equal(made[0], made[2])
    assert not np.array_equal(made[0], made[1])


def test_the_step_size_of_an_attack_bounds_its_steps(standard, digits):
    X, y = digits[2][:40], digits[3][:40]
    attack = {"norm": 2, "eps": 0.5, "n_steps": 1, "random_start": False, **QUIET}
    short, _ = adversarial_examples(standard, X, y, step_size=0.05, **attack)
    assert 0.04 < moved(short, X).max() <= 0.05 + 1e-5


def test_runs_of_an_attack_start_apart(standard, digits, monkeypatch):
    keys, drawn = set(), _balls.L2Ball.sample

    def sample(self, *args, **kwargs):
        point = drawn(self, *args, **kwargs)
        keys.add(point.numpy().tobytes())
        return point

    monkeypatch.setattr(_balls.L2Ball, "sample", sample)
    attack = {"norm": 2, "eps": 1e-3, "n_steps": 1, "n_restarts": 3, **QUIET}
    adversarial_examples(standard, digits[2][:5], digits[3][:5], random_state=0, **attack)
    assert len(keys) >= 3


def test_the_step_size_of_usefulness(standard, digits):
    X, y = digits[2][:60], digits[3][:60]
    attack = {"norm": 2, "eps": 1.0, "random_state": 0, **QUIET}
    still = robust_feature_usefulness(standard, X, y, n_steps=1, step_size=1e-6, **attack)
    far = robust_feature_usefulness(standard, X, y, n_steps=1, step_size=1.0, **attack)
    assert np.mean(far) < np.mean(still) - 0.01


@pytest.mark.filterwarnings("ignore:The features were matched poorly")
def test_the_seed_of_an_inversion_decides_its_starts(standard, digits):
    X, y = digits[0][:40], digits[1][:40]
    still = {"init": "sample", "n_steps": 1, "step_size": 1e-9, **QUIET}
    made = [
        RobustFeatureInverter(FrozenEstimator(standard), random_state=s, **still).fit_transform(
            X, y
        )
        for s in (0, 1, 0)
    ]
    assert_array_equal(made[0], made[2])
    assert not np.allclose(made[0], made[1], atol=1e-3)


@pytest.mark.filterwarnings("ignore:The features were matched poorly")
def test_noise_has_the_statistics_of_the_training_data(standard, digits):
    X, y = digits[0][:40], digits[1][:40]
    still = {"init": "noise", "n_steps": 1, "step_size": 1e-9, "random_state": 0, **QUIET}
    inverter = RobustFeatureInverter(FrozenEstimator(standard), **still)
    made = [inverter.fit(X, y).invert(data) for data in (X, 0.1 * X)]
    assert np.mean(made[1]) == pytest.approx(np.mean(made[0]), rel=0.05)
    inverter.fit_transform(X, y)
    assert inverter.distance_.max() < 1e-6  # what the box takes of the noise is no movement


@pytest.mark.filterwarnings("ignore:The source takes only")
def test_the_step_size_of_a_relabelling_bounds_its_steps(standard, digits):
    X, y = digits[0][:40], digits[1][:40]
    relabeler = NonRobustRelabeler(
        FrozenEstimator(standard), n_steps=1, step_size=1e-3, random_state=0, **QUIET
    )
    assert 0 < moved(relabeler.fit_transform(X, y).X, X).max() <= 1e-3 + 1e-5


def test_the_papers_augmentation_turns_by_two_degrees_and_jitters_by_a_quarter(monkeypatch):
    asked = []
    for name in ("_rotate", "_jitter"):
        monkeypatch.setattr(
            _augmentation,
            name,
            lambda x, g, *a, n=name, **k: asked.append((n, *a, *k.values())) or x,
        )
    _augmentation.augment(
        torch.rand(4, 3, 32, 32), "paper", make_generator(torch.device("cpu"), 0)
    )
    assert sorted(asked) == [("_jitter", 0.25), ("_rotate", 2)]

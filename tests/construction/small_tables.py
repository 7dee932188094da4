"""Forty samples of two classes, and constructors that are quick on them."""

import numpy as np

from advfeat import NonRobustRelabeler, RobustFeatureInverter, StandardClassifier

Y = np.array(["a", "b"])[np.arange(40) % 2]
X = (np.random.default_rng(0).normal(size=(40, 3)) + 2 * (np.arange(40) % 2)[:, None]).astype("f")
QUIET = {"random_state": 0, "verbose": 0}


def source(**settings):
    return StandardClassifier(**{"max_epochs": 1, "verbose": 0, "random_state": 0, **settings})


def inverter(estimator=None, **settings):
    return RobustFeatureInverter(estimator or source(), **{"n_steps": 60, **QUIET, **settings})


def relabeler(estimator=None, **settings):
    return NonRobustRelabeler(estimator or source(), **{"n_steps": 2, **QUIET, **settings})

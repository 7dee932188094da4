"""Pickles say which version wrote them, and what cannot be read is refused at once."""

import copy
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from torch import nn

import advfeat.utils._estimator as pickles
from advfeat import (
    AdversarialClassifier,
    GaussianRobustMLE,
    NonRobustRelabeler,
    RobustFeatureInverter,
    StandardClassifier,
    from_torch,
)

ESTIMATORS = [
    StandardClassifier(max_epochs=3),
    AdversarialClassifier(eps=0.3),
    from_torch(nn.Linear(4, 3), classes=range(3), input_shape=(4,)),
    RobustFeatureInverter(StandardClassifier(), n_steps=7),
    NonRobustRelabeler(n_steps=7),
    GaussianRobustMLE(eps=0.3).fit(np.random.RandomState(0).normal(size=(20, 2)), [0, 1] * 10),
]


def names(estimators):
    return [type(estimator).__name__ for estimator in estimators]


class AsBefore:
    """What an older version would have pickled: the class and a state without a version."""

    def __init__(self, estimator, **changes):
        self.estimator, self.changes = estimator, changes

    def __reduce__(self):
        state = {**self.estimator.__getstate__(), **self.changes}
        state = {name: value for name, value in state.items() if value is not ...}
        return copyreg_new, (type(self.estimator),), state


def copyreg_new(kind):
    return kind.__new__(kind)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=names(ESTIMATORS))
def test_pickles_of_every_estimator(estimator, monkeypatch):
    kept = pickle.dumps(estimator)
    before = dict(vars(estimator))
    for twin in (pickle.loads(kept), copy.deepcopy(estimator), clone(estimator)):
        assert not hasattr(twin, "_advfeat_version")
        assert twin.get_params().keys() == estimator.get_params().keys()
    assert vars(estimator).keys() == before.keys()

    monkeypatch.setattr(pickles, "__version__", "3.5")
    with pytest.warns(UserWarning, match="written by advfeat 0.1.*; in advfeat 3.5 it may not"):
        pickle.loads(kept)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=names(ESTIMATORS))
def test_pickles_of_older_versions_are_refused_at_once(estimator):
    unmarked = pickle.dumps(AsBefore(estimator, _advfeat_version=...))
    with pytest.raises(ValueError, match="written by advfeat before 0.1 and cannot"):
        pickle.loads(unmarked)
    param = next(iter(estimator.get_params(deep=False)))
    fewer = pickle.dumps(AsBefore(estimator, **{param: ..., "_advfeat_version": "0.0.7"}))
    with pytest.raises(ValueError, match="written by advfeat 0.0.7 and cannot be read by"):
        pickle.loads(fewer)

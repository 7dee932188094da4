"""Fits that go on: warm starts, epochs one by one, copies and pickles."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from advfeat import (
    AdversarialClassifier,
    StandardClassifier,
)

QUICK = {"max_epochs": 3, "random_state": 0, "verbose": 0}


def test_warm_start_goes_on_from_the_weights(digits):
    X, y, X_test, y_test = digits
    clf = StandardClassifier(warm_start=True, max_epochs=8, random_state=0, verbose=0).fit(X, y)
    first = clf.history_[0]["train_loss"]
    clf.fit(X, y)
    assert clf.history_[0]["train_loss"] < 0.7 * first
    with pytest.raises(ValueError, match="not among the classes"):
        clf.fit(X, y + 1)


def test_partial_fit_one_epoch_each(digits):
    X, y, X_test, y_test = digits
    clf = StandardClassifier(lr=0.05, batch_size=32, random_state=0, verbose=0)
    for _ in range(6):
        clf.partial_fit(X[:300], y[:300], classes=np.unique(y))
        clf.partial_fit(X[300:], y[300:])
    assert len(clf.history_) == 12
    assert clf.score(X_test, y_test) > 0.8


def test_partial_fit_after_fit(standard, digits):
    X, y, X_test, y_test = digits
    clf = pickle.loads(pickle.dumps(standard))
    before = clf.decision_function(X_test)
    clf.partial_fit(X, y)
    assert not np.array_equal(clf.decision_function(X_test), before)
    assert clf.score(X_test, y_test) > 0.85
    with pytest.raises(ValueError, match="not among the classes"):
        clf.partial_fit(X[:5], np.full(5, 77))
    with pytest.raises(ValueError, match="those of the first call"):
        clf.partial_fit(X, y, classes=[1, 2])


def test_pickle_and_clone(standard, digits):
    X_test = digits[2]
    again = pickle.loads(pickle.dumps(standard))
    assert_array_equal(again.decision_function(X_test), standard.decision_function(X_test))
    fresh = clone(standard)
    assert fresh.get_params() == standard.get_params()
    with pytest.raises(NotFittedError):
        fresh.predict(X_test)


def test_partial_fit_takes_the_parameters_as_they_are_now(digits):
    X, y = digits[0][:100], digits[1][:100]
    settings = {"max_epochs": 1, "random_state": 0, "verbose": 0}
    changed = {"eps": 0.8, "n_steps": 5, "norm": np.inf, "momentum": 0.5, "weight_decay": 0.01}
    clf = AdversarialClassifier(eps=0.1, **settings).fit(X, y).set_params(**changed)
    clf.partial_fit(X, y)
    attack, (group,) = clf.net_.attack, clf.net_.optimizer_.param_groups
    assert (attack["eps"], attack["n_steps"], attack["norm"]) == (0.8, 5, np.inf)
    assert attack["step_size"] == pytest.approx(2.5 * 0.8 / 5)
    assert (group["momentum"], group["weight_decay"]) == (0.5, 0.01)
    # A network that did not change goes on to the same bits as before.
    same, other = (AdversarialClassifier(eps=0.1, **settings).fit(X, y) for _ in range(2))
    other.set_params(eps=2.0)
    scores = [c.partial_fit(X, y).decision_function(X) for c in (same, other)]
    assert not np.array_equal(*scores)


def test_validation_scores_are_none_after_partial_fit_alone(digits):
    clf = StandardClassifier(random_state=0, verbose=0).partial_fit(
        digits[0][:50], digits[1][:50], classes=range(10)
    )
    assert clf.validation_scores_ is None and clf.best_validation_score_ is None
    assert clf.partial_fit(digits[0][:50], digits[1][:50]).validation_scores_ is None


def test_statistics_are_those_of_the_data_of_the_last_fit(digits):
    """Also where a warm start puts earlier weights into the network."""
    X, y = digits[0][:60], digits[1][:60]
    clf = StandardClassifier(warm_start=True, **QUICK).fit(X, y)
    first = clf.input_statistics_
    clf.fit(0.5 * X, y)
    for now, then in zip(clf.input_statistics_, first, strict=True):
        assert_allclose(now, 0.5 * then, rtol=1e-4)
    assert_allclose(clf.module_.mean, first[0])  # of its weights

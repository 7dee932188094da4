"""partial_fit: parameters that changed are checked, and classes weigh the same in every part."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from advfeat import AdversarialClassifier, StandardClassifier
from advfeat.classifiers._training_data import check_training_data

QUIET = {"random_state": 0, "verbose": 0}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("norm", 1),
        ("n_steps", 0),
        ("eps", -1.0),
        ("lr", -0.1),
        ("momentum", 1.0),
        ("precision", "fp16"),
        ("augmentation", "flip"),
        ("channels", "lsat"),
        ("batch_size", 0),
        ("class_weight", "even"),
    ],
)
def test_parameters_changed_after_a_fit_are_checked(digits, name, value):
    X, y = digits[0][:40], digits[1][:40]
    clf = AdversarialClassifier(n_steps=1, **QUIET).partial_fit(X, y, classes=range(10))
    before = clf.decision_function(X)
    with pytest.raises(ValueError, match=f"'{name}' parameter"):
        clf.set_params(**{name: value}).partial_fit(X, y)
    assert_array_equal(clf.decision_function(X), before)


def test_a_class_weighs_the_same_whatever_comes_with_it():
    X, y = np.random.default_rng(0).normal(size=(40, 3)).astype("f"), np.arange(40) % 2
    clf = StandardClassifier(class_weight={1: 3.0})
    for rows, weights in ((y == 0, [0.5]), (y == 1, [1.5]), (y >= 0, [0.5, 1.5])):
        data = check_training_data(
            clf, X[rows], y[rows], None, reset=True, classes=[0, 1], whole=False
        )
        assert_allclose(data.sample_weight, np.array(weights)[data.y - data.y.min()])
    whole = check_training_data(clf, X[10:], np.r_[y[10:30], np.ones(10, int)], None, reset=True)
    assert whole.sample_weight.mean() == pytest.approx(1)


def test_class_weights_count_where_parts_are_of_one_class(digits):
    X, y = digits[0], digits[1]
    X, y = X[y < 2], y[y < 2]
    scores = []
    for class_weight in (None, {1: 20.0}):
        clf = StandardClassifier(class_weight=class_weight, lr=0.01, **QUIET)
        for label in (0, 1, 0, 1):
            clf.partial_fit(X[y == label], y[y == label], classes=[0, 1])
        scores.append(clf.decision_function(X).mean())
    assert scores[1] > scores[0]


def test_a_last_step_that_diverges_is_an_error(digits):
    X, y = digits[0][:100], digits[1][:100]
    diverging = {"batch_size": 200, "lr": 1e30, "lr_schedule": "constant", "max_epochs": 1}
    with pytest.raises(ValueError, match=r"diverged.*not finite.*got 1e\+30"):
        StandardClassifier(**diverging, **QUIET).fit(X, y)
    clf = StandardClassifier(**{**diverging, "lr": 0.1}, **QUIET).partial_fit(X, y, range(10))
    before = clf.decision_function(X)
    with pytest.raises(ValueError, match="diverged"):
        clf.set_params(lr=1e30).partial_fit(X, y)
    assert_array_equal(clf.decision_function(X), before)

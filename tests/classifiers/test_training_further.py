"""Classifiers whose training goes on from a trained network."""

import copy

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from skorch import NeuralNetClassifier
from torch import nn

from advfeat import (
    AdversarialClassifier,
    StandardClassifier,
    from_torch,
)

IMAGES = {"classes": range(10), "input_shape": (1, 8, 8)}
NAMES = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])


@pytest.mark.parametrize("Classifier", [StandardClassifier, AdversarialClassifier])
def test_training_goes_on_from_a_copy_of_the_weights(Classifier, trained, clf, unchanged, digits):
    X, y, X_test, y_test = digits
    still = Classifier(clf, max_epochs=1, lr=1e-7, random_state=0, verbose=0)
    for _ in range(2):
        still.fit(X, y)
        # Batch-norm statistics move, weights hardly.
        for ours, theirs in zip(still.module_.parameters(), unchanged.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert still.score(X_test, y_test) > clf.score(X_test, y_test) - 0.05
    assert clone(still).network.module is clf.module
    once = [Classifier(clf, max_epochs=1, random_state=0, verbose=0).fit(X, y) for _ in range(2)]
    assert_array_equal(*(c.decision_function(X_test) for c in once))


def test_a_module_alone_takes_inputs_as_they_are(digits):
    X, y, X_test, _ = digits
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    clf = StandardClassifier(net, max_epochs=1, lr=1e-7, random_state=0, verbose=0).fit(X, y)
    with torch.no_grad():
        expected = net(torch.from_numpy(X_test)).numpy()
    np.testing.assert_allclose(clf.decision_function(X_test), expected, atol=1e-5)
    assert not net.training
    mean, std = clf.input_statistics_  # of the training data, for starts from noise
    assert float(mean) == pytest.approx(X.mean(), rel=1e-5)
    assert float(std) == pytest.approx(X.std(), rel=1e-5)


def test_folds_do_not_go_on_from_each_other(clf, unchanged, digits):
    X, y, _, _ = digits
    further = StandardClassifier(clf, max_epochs=1, random_state=0, verbose=0)
    first, second = (cross_val_score(further, X, y, cv=2) for _ in range(2))
    assert_array_equal(first, second)
    assert first.min() > 0.85


def test_classes_and_partial_fit_when_training_goes_on(trained, digits):
    X, y, X_test, y_test = digits
    net, mean, std = trained
    named = from_torch(net, classes=NAMES, input_shape=(1, 8, 8), mean=mean, std=std)
    few = y < 4
    further = StandardClassifier(named, lr=1e-5, random_state=0, verbose=0)
    further.partial_fit(X[few], NAMES[y[few]])
    assert_array_equal(further.classes_, np.sort(NAMES))
    assert further.score(X_test, NAMES[y_test]) > 0.8
    with pytest.raises(ValueError, match="not among the classes.*ten"):
        clone(further).fit(X, np.where(few, "ten", NAMES[y]))


def test_functions_that_return_one_module_are_refused(trained, unchanged, digits):
    X, y, _, _ = digits
    net = trained[0]
    for network in (
        lambda: net,
        lambda: nn.Sequential(net),
        lambda: nn.Sequential(nn.ReLU(), net),
    ):
        with pytest.raises(ValueError, match=r"the same module at every call.*from_torch\(module"):
            StandardClassifier(network, verbose=0).fit(X, y)


def test_functions_that_return_trained_weights_are_warned_of(trained, digits):
    X, y, _, _ = digits
    net = trained[0]
    clf = StandardClassifier(lambda: copy.deepcopy(net), max_epochs=1, random_state=0, verbose=0)
    with pytest.warns(UserWarning, match="the same weights at every call"):
        clf.fit(X, y)


def test_functions_that_build_anew_give_the_same_bits_as_a_class(digits):
    X, y, X_test, _ = digits

    class Net(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Flatten(), nn.Linear(64, 10))

    settings = {"max_epochs": 1, "random_state": 0, "verbose": 0}
    by_class, by_function = (
        StandardClassifier(network, **settings).fit(X, y).decision_function(X_test)
        for network in (Net, lambda: Net())
    )
    assert_array_equal(by_class, by_function)


def test_an_estimator_is_no_network(digits):
    X, y, _, _ = digits
    net = NeuralNetClassifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 10))).initialize()
    for wrong in (net, StandardClassifier(), 3):
        with pytest.raises(ValueError, match="'network' parameter of StandardClass") as caught:
            StandardClassifier(wrong, verbose=0).fit(X, y)
        assert "\n" not in str(caught.value)

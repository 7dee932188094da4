"""A fit that fails or is interrupted leaves the classifier as it was."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from skorch.callbacks import Callback
from torch import nn

from advfeat import (
    StandardClassifier,
)

QUICK = {"max_epochs": 3, "random_state": 0, "verbose": 0}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_computed_weights_are_trained_on(digits, norm):
    X, y, X_test, _ = digits

    class Normed(nn.Sequential):
        def __init__(self, n_classes):
            super().__init__(nn.Flatten(), norm(nn.Linear(64, n_classes)))

    clf = StandardClassifier(Normed, lr=0.05, **QUICK).fit(X, y)
    before = clf.decision_function(X_test)
    after = clf.partial_fit(X, y).decision_function(X_test)
    assert not np.array_equal(before, after)
    clf.set_params(callbacks=[Interrupt(2)])
    with pytest.raises(KeyboardInterrupt):
        clf.partial_fit(X, y)
    assert_array_equal(clf.decision_function(X_test), after)


def test_failed_fit_keeps_the_fitted_net(standard, digits):
    X, y, X_test, _ = digits
    clf = pickle.loads(pickle.dumps(standard))
    with pytest.raises(ValueError):
        clf.fit(X, np.zeros(len(X)))
    assert_array_equal(clf.predict(X_test), standard.predict(X_test))


class Interrupt(Callback):
    """Ctrl-C after a number of batches."""

    def __init__(self, after):
        self.after = after

    def on_batch_end(self, net, **kwargs):
        self.after -= 1
        if self.after == 0:
            raise KeyboardInterrupt


def test_an_interrupted_fit_is_no_fit(digits):
    X, y, _, _ = digits
    clf = StandardClassifier(max_epochs=2, callbacks=[Interrupt(3)], random_state=0, verbose=0)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, y)
    assert not hasattr(clf, "net_")


@pytest.mark.parametrize("cause", ["divergence", "interrupt"])
def test_a_failed_partial_fit_changes_nothing(digits, cause):
    X, y, X_test, _ = digits
    callbacks = [Interrupt(25)] if cause == "interrupt" else None
    clf = StandardClassifier(
        lr=0.05, batch_size=32, callbacks=callbacks, random_state=0, verbose=0
    ).partial_fit(X, y)  # 19 batches
    before, n_epochs = clf.decision_function(X_test), len(clf.history_)
    if cause == "divergence":
        clf.set_params(lr=1e30)
        with pytest.raises(ValueError, match=r"diverged.*got 1e\+30"):
            clf.partial_fit(X, y)
    else:
        with pytest.raises(KeyboardInterrupt):
            clf.partial_fit(X, y)
    assert_array_equal(clf.decision_function(X_test), before)
    assert len(clf.history_) == n_epochs
    clf.set_params(lr=0.05).partial_fit(X, y)
    assert len(clf.history_) == n_epochs + 1

"""Callbacks that build the network anew, score, and set rates and draws."""

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, EarlyStopping, EpochScoring, Initializer, LRScheduler
from torch import nn

from advfeat import AdversarialClassifier, StandardClassifier
from advfeat.classifiers._nets import _has_foreign_code
from advfeat.classifiers._overfitting import OverfittingGuard
from advfeat.datasets import load_digits


@pytest.fixture(scope="module")
def table():
    X, y = load_digits(return_X_y=True)
    return X[:200].reshape(200, -1), y[:200]


SETTINGS = {"max_epochs": 3, "lr_schedule": "constant", "random_state": 0, "verbose": 0}


class Rebuild(Callback):
    def __init__(self, when):
        self.when = when

    def on_train_begin(self, net, **kwargs):
        if self.when == "parameters":
            net.set_params(module__network="mlp")
        elif self.when == "module":
            net.initialize_module()
            net.initialize_optimizer()


@pytest.mark.parametrize("when", ["parameters", "module"])
@pytest.mark.parametrize("kind", [StandardClassifier, AdversarialClassifier])
def test_networks_that_callbacks_build_anew_are_trained(kind, when, table):
    X, y = table
    own = {"eps": 0.1, "n_steps": 4} if kind is AdversarialClassifier else {}
    clf = kind("mlp", callbacks=[Rebuild(when)], **own, **{**SETTINGS, "max_epochs": 8})
    assert clf.fit(X, y).score(X, y) > 0.8


def test_functions_in_callbacks_of_skorch_draw_from_the_seed(table):
    X, y = table
    before = torch.random.get_rng_state()

    def fitted():
        start = Initializer("*weight", fn=nn.init.kaiming_normal_)
        clf = StandardClassifier("mlp", callbacks=[start], **SETTINGS).fit(X, y)
        return clf.decision_function(X)

    np.testing.assert_array_equal(fitted(), fitted())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_schedules_of_partial_fit_begin_at_its_rate(table):
    X, y = table

    class Spy(Callback):
        def on_batch_begin(self, net, **kwargs):
            rates.append(net.optimizer_.param_groups[0]["lr"])

    rates = []
    schedule = LRScheduler(
        policy=torch.optim.lr_scheduler.LambdaLR,
        lr_lambda=lambda i: 1 / (1 + i),
        step_every="batch",
    )
    clf = StandardClassifier("mlp", lr=0.1, **SETTINGS).fit(X, y)
    clf.set_params(lr=0.001, callbacks=[schedule, Spy()]).partial_fit(X, y)
    assert max(rates) <= 0.001
    fresh = StandardClassifier("mlp", **SETTINGS).partial_fit(X, y)
    fresh.set_params(lr=0.001, callbacks=[schedule, Spy()]).partial_fit(X, y)  # once a KeyError
    assert max(rates) <= 0.001


def test_scores_without_a_cache_get_the_samples(table):
    X, y = table
    images = np.round(255 * load_digits(return_X_y=True)[0][:60]).astype(np.uint8)
    own = EpochScoring("accuracy", name="own", use_caching=False, on_train=True)
    for data, labels in ((X, y), (images, y[:60])):
        for weight in (None, (labels < 5).astype(float)):
            clf = StandardClassifier(callbacks=[own], **SETTINGS).fit(data, labels, weight)
            used = slice(None) if weight is None else weight > 0
            assert clf.history_[-1]["own"] == pytest.approx(clf.score(data[used], labels[used]))
    held = EpochScoring("accuracy", name="own", use_caching=False)
    clf = StandardClassifier(callbacks=[held], early_stopping=True, **SETTINGS).fit(X, y)
    assert [row["own"] for row in clf.history_] == pytest.approx(clf.validation_scores_)


def test_the_guard_goes_back_to_what_callbacks_made(table, monkeypatch):
    X, y = table
    seen = []

    class Spy(Callback):
        def on_epoch_begin(self, net, **kwargs):
            seen.append(net.module_.body[1].weight.mean().item())

    monkeypatch.setattr(OverfittingGuard, "_accuracies", lambda *a: (1.0, 0.0))
    sevens = Initializer("body.1.weight", fn=lambda w: nn.init.constant_(w, 7.0))
    clf = AdversarialClassifier("mlp", eps=0.1, n_steps=2, callbacks=[sevens, Spy()], **SETTINGS)
    with pytest.warns(UserWarning, match="Catastrophic overfitting in epoch 1"):
        clf.fit(X, y)
    assert seen[:2] == [7.0, 7.0]


def test_quiet_callbacks_of_skorch_are_not_taken_for_code_from_elsewhere():
    class Odd(Callback):
        kwargs = None

    assert not _has_foreign_code(EarlyStopping())
    assert not _has_foreign_code(EpochScoring("accuracy"))
    assert _has_foreign_code(Initializer("*", fn=nn.init.zeros_)) and _has_foreign_code(Odd())

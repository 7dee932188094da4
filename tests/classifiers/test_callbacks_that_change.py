"""Callbacks that build the network anew, score, and set rates and draws."""

import types

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, EarlyStopping, EpochScoring, Initializer, LRScheduler
from torch import nn

from advfeat import AdversarialClassifier, StandardClassifier
from advfeat.classifiers._nets import _has_foreign_code
from advfeat.classifiers._overfitting import OverfittingGuard
from advfeat.datasets import load_digits
from advfeat.optim import _attacked


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


class Blends(nn.Module):
    """Looks at the negative of its input, as far as some setting says."""

    def __init__(self, settings, n_classes=10):
        super().__init__()
        self.settings, self.alpha, self.sign = settings, 0.0, "positive"
        self.net = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, n_classes))

    def forward(self, x):
        held = self.settings
        if isinstance(held, types.SimpleNamespace):
            held = vars(getattr(held, "inner", held))
        alpha = max(held.get("alpha", 0.0), self.alpha, float(self.sign == "negative"))
        return self.net((1 - alpha) * x + alpha * (1 - x))


def in_dict(net):
    net.settings["alpha"] = 1.0


def in_object(net):
    net.settings.alpha = 1.0


def in_a_new_object(net):
    net.settings = types.SimpleNamespace(alpha=1.0)


def in_an_object_of_an_object(net):
    net.settings.inner.alpha = 1.0


def as_number(net):
    net.alpha = 1.0


def as_text(net):
    net.sign = "negative"


CHANGES = {
    in_dict: dict,
    in_object: types.SimpleNamespace,
    in_a_new_object: types.SimpleNamespace,
    in_an_object_of_an_object: lambda: types.SimpleNamespace(inner=types.SimpleNamespace()),
    as_number: dict,
    as_text: dict,
}


class Midway(Callback):
    """Changes a setting at the third batch."""

    def __init__(self, change):
        self.change, self.n = change, 0

    def on_batch_begin(self, net, **kwargs):
        self.n += 1
        if self.n == 3:
            self.change(net.module_.body)


def trained_with(change, table):
    make = CHANGES[change]
    settings = make()
    holder = getattr(settings, "inner", settings)
    (holder if isinstance(holder, dict) else vars(holder))["alpha"] = 0.0
    clf = AdversarialClassifier(
        lambda n_classes: Blends(settings), eps=1.0, lr=0.05, batch_size=40, max_epochs=1,
        n_steps=2, callbacks=[Midway(change)], random_state=0, verbose=0,
    )  # fmt: skip
    return clf.fit(*table)


@pytest.mark.parametrize("change", CHANGES)
def test_attacks_follow_a_setting_within_an_epoch(change, table, monkeypatch):
    found = trained_with(change, table)
    monkeypatch.setattr(_attacked, "trace", lambda module: None)  # the network as it is
    expected = trained_with(change, table)
    for name, weight in expected.module_.state_dict().items():
        assert torch.equal(found.module_.state_dict()[name], weight), name
    del expected.callbacks[0]
    expected.fit(*table)
    assert not torch.equal(found.module_.body.net[0].weight, expected.module_.body.net[0].weight)


def test_networks_that_hold_very_much_are_not_traced(table, monkeypatch):
    monkeypatch.setattr(_attacked, "_MANY", 1)
    folded = []
    monkeypatch.setattr(_attacked, "fold_batch_norm", lambda *args: folded.append(args) or [])
    trained_with(in_object, table)
    assert not folded

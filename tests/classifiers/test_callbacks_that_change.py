"""Callbacks that build the network anew, score, and set rates and draws."""

import logging
import threading
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

    def __init__(self, held):
        super().__init__()
        self.held, self.alpha, self.sign = held, None, "positive"
        self.net = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
        if isinstance(held, types.SimpleNamespace) and hasattr(held, "owner"):
            held.owner = self.net  # as a trainer knows its network

    def forward(self, x):
        held = getattr(self.held, "inner", self.held)
        found = held.get("alpha") if isinstance(held, dict) else getattr(held, "alpha", None)
        alpha = max(found or 0.0, self.alpha or 0.0, float(self.sign == "negative"))
        return self.net((1 - alpha) * x + alpha * (1 - x))


class Default:
    """A setting of the class, which an object may have for itself."""

    alpha = 0.0


def to_number(net):
    net.alpha = 1.0


def to_text(net):
    net.sign = "negative"


def in_dict(net):
    net.held["alpha"] = 1.0


def in_object(net):
    getattr(net.held, "inner", net.held).alpha = 1.0


def to_dict(net):
    net.held = {"alpha": 1.0}


def to_object(net):
    net.held = types.SimpleNamespace(alpha=1.0)


Space = types.SimpleNamespace
CHANGES = [
    (to_number, lambda: None),
    (to_text, lambda: None),
    (to_dict, lambda: None),
    (to_object, lambda: None),
    (in_dict, dict),
    (in_dict, lambda: {"alpha": None}),
    (in_dict, lambda: {"alpha": 0.0, "other": "text"}),
    (in_object, Space),
    (in_object, lambda: Space(alpha=None)),
    (in_object, lambda: Space(alpha=0.0, owner=None)),
    (in_object, lambda: Space(inner=Space(alpha=0.0))),
    (in_object, Default),
    (to_object, lambda: Space(alpha=0.0)),
]


class Midway(Callback):
    """Changes a setting at the third batch."""

    def __init__(self, change):
        self.change, self.n = change, 0

    def on_batch_begin(self, net, **kwargs):
        self.n += 1
        if self.n == 3:
            self.change(net.module_.body)


def trained_with(change, make, table):
    clf = AdversarialClassifier(
        lambda n_classes: Blends(make()), eps=1.0, lr=0.05, batch_size=40, max_epochs=1,
        n_steps=2, callbacks=[Midway(change)], random_state=0, verbose=0,
    )  # fmt: skip
    return clf.fit(*table)


@pytest.mark.parametrize(("change", "make"), CHANGES)
def test_attacks_follow_a_setting_within_an_epoch(change, make, table, monkeypatch):
    found = trained_with(change, make, table)
    monkeypatch.setattr(_attacked, "trace", lambda module: None)  # the network as it is
    expected = trained_with(change, make, table)
    for name, weight in expected.module_.state_dict().items():
        assert torch.equal(found.module_.state_dict()[name], weight), name
    expected = trained_with(lambda net: None, make, table)
    assert not torch.equal(found.module_.body.net[0].weight, expected.module_.body.net[0].weight)


class Ordinary(nn.Module):
    """Holds what has nothing to do with its logits."""

    def __init__(self, n_classes):
        super().__init__()
        self.class_names = [f"class {i}" for i in range(1000)]
        self.logger = logging.getLogger(__name__)
        self.lock = threading.Lock()
        self.net = nn.Linear(64, n_classes)

    def __deepcopy__(self, memo):
        return self  # locks cannot be copied

    def forward(self, x):
        return self.net(x)


def test_networks_with_names_and_loggers_are_traced(table):
    attacked = _attacked.AttackedNetwork(Ordinary(10).eval(), device="cpu", precision="fp32")
    attacked(torch.from_numpy(table[0][:5]))
    attacked.refresh()
    assert isinstance(attacked._traced[0], torch.fx.GraphModule)


def test_networks_that_hold_very_much_are_not_traced(table, monkeypatch):
    monkeypatch.setattr(_attacked, "_MAX_MEMBERS", 0)
    folded = []
    monkeypatch.setattr(_attacked, "fold_batch_norm", lambda *args: folded.append(args) or [])
    trained_with(in_object, Space, table)
    assert not folded

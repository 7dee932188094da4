"""Whatever a network holds goes where its weights go."""

import copy

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from torch import nn

from advfeat import AdversarialClassifier, StandardClassifier, from_torch, load, save
from advfeat.classifiers._overfitting import OverfittingGuard
from advfeat.datasets import load_digits
from advfeat.optim import AttackedNetwork
from advfeat.optim._network_state import network_state, set_network_state

KINDS = ["buffer", "hidden buffer", "attribute"]


class Tracked(nn.Module):
    """Subtracts a running mean of its hidden layer, of one kind of tensor."""

    def __init__(self, n_features, n_classes, kind="attribute"):
        super().__init__()
        self.first, self.last = nn.Linear(n_features, 20), nn.Linear(20, n_classes)
        if kind == "attribute":
            self.mean = torch.zeros(20)
        else:
            self.register_buffer("mean", torch.zeros(20), persistent=kind == "buffer")

    def forward(self, x):
        h = self.first(x)
        if self.training:
            self.mean = 0.5 * self.mean + 0.5 * h.detach().mean(0)
        return self.last(torch.relu(h - self.mean))


def tracked(kind):
    def network(n_features, n_classes):
        return Tracked(n_features, n_classes, kind)

    return network


class Spoiler(Callback):
    """Spoils the network at the beginning of one epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == self.epoch:
            net.module_.body.first.bias.data.add_(100)


@pytest.fixture(scope="module")
def table():
    X, y = load_digits(return_X_y=True)
    return X[:200].reshape(200, -1), y[:200]


SETTINGS = {"max_epochs": 3, "lr_schedule": "constant", "random_state": 0, "verbose": 0}


@pytest.mark.parametrize("kind", KINDS)
def test_files_keep_all_tensors(kind, table, tmp_path):
    X, y = table
    clf = StandardClassifier(tracked(kind), **SETTINGS).fit(X, y)
    save(clf, tmp_path / "a.safetensors")
    again = load(tmp_path / "a.safetensors", network=tracked(kind))
    np.testing.assert_array_equal(again.decision_function(X), clf.decision_function(X))
    frozen = from_torch(clf.module_.body, classes=range(10), input_shape=(64,))
    save(frozen, tmp_path / "b.safetensors")
    for network in (tracked(kind), clf.module_.body, frozen):
        again = load(tmp_path / "b.safetensors", network=network)
        np.testing.assert_array_equal(again.decision_function(X), frozen.decision_function(X))


def test_files_refuse_what_is_no_network(table, tmp_path):
    X, y = table
    save(StandardClassifier(tracked("buffer"), **SETTINGS).fit(X, y), tmp_path / "a.safetensors")
    for network in ("mlp", {}, 3):
        with pytest.raises(ValueError, match="'network' must be tracked.*as an nn.Module class"):
            load(tmp_path / "a.safetensors", network=network)

    class Other(nn.Module):
        def __init__(self, n_features, n_classes):
            super().__init__()
            self.first, self.last = nn.Linear(n_features, 20), nn.Linear(20, n_classes)

        def forward(self, x):
            return self.last(torch.relu(self.first(x)))

    hidden = StandardClassifier(tracked("hidden buffer"), **SETTINGS).fit(X, y)
    save(hidden, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="the network has no buffer body.mean"):
        load(tmp_path / "b.safetensors", network=Other)


@pytest.mark.parametrize("kind", KINDS)
def test_early_stopping_goes_back_to_all_tensors(kind, table):
    X, y = table
    spoil = {"callbacks": [Spoiler(5)], "early_stopping": True, "validation_fraction": 0.3}
    clf = StandardClassifier(tracked(kind), **{**SETTINGS, "max_epochs": 5}, **spoil).fit(X, y)
    best = StandardClassifier(tracked(kind), **{**SETTINGS, "max_epochs": 5}, **spoil)
    best.set_params(max_epochs=4, callbacks=None).fit(X, y)
    assert clf.best_validation_score_ == best.best_validation_score_ > 0.5
    np.testing.assert_array_equal(clf.decision_function(X), best.decision_function(X))


@pytest.mark.parametrize("kind", KINDS)
def test_warm_start_goes_on_with_all_tensors(kind, table):
    X, y = table
    clf = StandardClassifier(tracked(kind), warm_start=True, **SETTINGS).fit(X, y)
    state = copy.deepcopy(clf.module_.body.mean)
    seen = []

    class Spy(Callback):
        def on_train_begin(self, net, **kwargs):
            seen.append(net.module_.body.mean.clone())

    clf.set_params(callbacks=[Spy()], max_epochs=1).fit(X, y)
    assert torch.equal(seen[0], state)


@pytest.mark.parametrize("kind", KINDS)
def test_the_guard_takes_all_tensors_back(kind, table, monkeypatch):
    X, y = table
    seen = []

    class Spy(Callback):
        def on_epoch_begin(self, net, **kwargs):
            seen.append(net.module_.body.mean.clone())

    answers = iter([(1.0, 1.0), (1.0, 0.0)])
    monkeypatch.setattr(OverfittingGuard, "_accuracies", lambda *a: next(answers))
    clf = AdversarialClassifier(tracked(kind), eps=0.1, n_steps=2, callbacks=[Spy()], **SETTINGS)
    with pytest.warns(UserWarning, match="Catastrophic overfitting in epoch 2"):
        clf.fit(X, y)
    assert torch.equal(seen[2], seen[1]) and not torch.equal(seen[1], seen[0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_attacked_is_that_of_the_moment(kind):
    module = Tracked(6, 3, kind)
    attacked = AttackedNetwork(module.eval(), device="cpu", precision="fp32")
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        torch.testing.assert_close(attacked(x), module(x))
        module.train()(x)
        module.eval()
        attacked.refresh()


class Tied(nn.Module):
    """Layers that share tensors in ways of which torch's own tables do not tell."""

    def __init__(self, n_features, n_classes):
        super().__init__()
        self.first, self.last = nn.Linear(n_features, n_features), nn.Linear(n_features, n_classes)
        object.__setattr__(self, "back", self.first.weight)  # a tied weight
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features), persistent=False)
        self.child, self.second = nn.Module(), nn.Module()
        self.child.mean = self.mean
        self.child.register_buffer("scale", self.scale, persistent=False)
        self.lazy = self.second.lazy = None

    def forward(self, x):
        h = torch.relu(self.first(x)) @ self.back
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(h.mean(0), 0.5)
                self.scale.lerp_(h.std(0) + 1, 0.5)
                self.lazy = self.second.lazy = h.mean() if self.lazy is None else self.lazy + 1
        return self.last((h - self.child.mean) / self.child.scale)

    @property
    def pairs(self):
        return [
            (self.back, self.first.weight),
            (self.child.mean, self.mean),
            (self.child.scale, self.scale),
        ]


@pytest.mark.parametrize("way", ["warm start", "early stopping", "guard", "file"])
def test_shared_tensors_stay_shared(way, table, tmp_path, monkeypatch):
    X, y = table
    clf = StandardClassifier(Tied, warm_start=True, **SETTINGS)
    if way == "early stopping":
        spoil = {"callbacks": [Spoiler(5)], "early_stopping": True, "validation_fraction": 0.3}
        clf.set_params(**spoil, max_epochs=5)
    if way == "guard":
        answers = iter([(1.0, 1.0), (1.0, 0.0)])
        monkeypatch.setattr(OverfittingGuard, "_accuracies", lambda *a: next(answers))
        clf = AdversarialClassifier(Tied, eps=0.1, n_steps=2, **SETTINGS)
        with pytest.warns(UserWarning, match="Catastrophic overfitting"):
            clf.fit(X, y)
    clf = clf if way == "guard" else clf.fit(X, y)
    if way == "file":
        save(clf, tmp_path / "a.safetensors")
        again = load(tmp_path / "a.safetensors", network=Tied)
        np.testing.assert_array_equal(again.decision_function(X), clf.decision_function(X))
        clf = again
    if way == "early stopping":
        clf.set_params(early_stopping=False, callbacks=None)
    for _ in range(2):
        body = clf.module_.body
        assert all(one is other for one, other in body.pairs)
        assert torch.equal(body.second.lazy, body.lazy)
        clf = clf.fit(X, y) if way == "warm start" else clf.partial_fit(X, y)


HELD = {
    "list": (lambda mean: [mean], lambda held: held[0]),
    "dict": (lambda mean: {"mean": (mean, 1)}, lambda held: held["mean"][0]),
    "number": (lambda mean: float(mean.mean()), lambda held: held),
}


class Holding(nn.Module):
    """Subtracts a running mean that it holds in a container, or as a number."""

    def __init__(self, n_features, n_classes, kind="list"):
        super().__init__()
        self.first, self.last = nn.Linear(n_features, 20), nn.Linear(20, n_classes)
        self.put, self.get = HELD[kind]
        self.held, self.sizes = self.put(torch.zeros(20)), [n_features, 20]
        self.weights = [self.first.weight]

    def forward(self, x):
        h = self.first(x)
        if self.training:
            self.held = self.put(0.5 * self.get(self.held) + 0.5 * h.detach().mean(0))
        return self.last(torch.relu(h - self.get(self.held)))


def holding(kind):
    def network(n_features, n_classes):
        return Holding(n_features, n_classes, kind)

    return network


@pytest.mark.parametrize("kind", HELD)
def test_what_layers_hold_is_that_of_the_best_epoch(kind, table):
    X, y = table
    settings = {**SETTINGS, "early_stopping": True, "validation_fraction": 0.3}
    clf = StandardClassifier(holding(kind), callbacks=[Spoiler(5)], **settings)
    clf.set_params(max_epochs=5, lr_schedule="constant").fit(X, y)
    best = int(np.argmax(clf.validation_scores_)) + 1
    assert best < 5
    until = StandardClassifier(holding(kind), **settings).set_params(lr_schedule="constant")
    until.set_params(max_epochs=best, n_iter_no_change=10).fit(X, y)
    np.testing.assert_array_equal(clf.decision_function(X), until.decision_function(X))
    body = clf.module_.body
    assert body.weights[0] is body.first.weight


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_a_warm_start_goes_on_with_tensors_in_containers_but_not_with_numbers(kind, table):
    X, y = table
    held = []

    class Spy(Callback):
        def on_train_begin(self, net, **kwargs):
            held.append(copy.deepcopy(net.module_.body.get(net.module_.body.held)))

    clf = StandardClassifier(holding(kind), warm_start=True, **SETTINGS).fit(X, y)
    clf.module_.body.sizes[0] = -1
    then = clf.module_.body.get(clf.module_.body.held).clone()
    clf.set_params(callbacks=[Spy()]).fit(X, y)
    assert torch.equal(held[0], then) and then.any()
    assert clf.module_.body.sizes == [64, 20]


@pytest.mark.parametrize("kind", HELD)
def test_what_is_attacked_follows_what_layers_hold(kind):
    torch.manual_seed(0)
    module, x = Holding(6, 3, kind).eval(), torch.randn(5, 6)
    attacked = AttackedNetwork(module, device="cpu", precision="fp32")
    attacked(x)
    assert isinstance(attacked._traced[0], torch.fx.GraphModule)
    for _ in range(3):
        torch.testing.assert_close(attacked(x), module(x))
        module.train()(x)
        module.eval()
        attacked.refresh()


def test_attributes_are_taken_back_to_none():
    module = Tied(4, 3)
    state = network_state(module)
    before = module.eval()(torch.ones(2, 4))
    module.train()(torch.ones(2, 4))
    set_network_state(module, state)
    assert module.lazy is None and module.second.lazy is None
    torch.testing.assert_close(module.eval()(torch.ones(2, 4)), before)


def test_files_leave_out_sparse_attributes(table, tmp_path):
    X, y = table

    class Sparse(nn.Module):
        def __init__(self, n_features, n_classes):
            super().__init__()
            self.last = nn.Linear(n_features, n_classes)
            self.graph = torch.eye(n_features).to_sparse()

        def forward(self, x):
            return self.last(torch.sparse.mm(self.graph, x.T).T)

    clf = StandardClassifier(Sparse, **SETTINGS).fit(X, y)
    save(clf, tmp_path / "a.safetensors")
    again = load(tmp_path / "a.safetensors", network=Sparse)
    np.testing.assert_array_equal(again.decision_function(X), clf.decision_function(X))


def test_files_give_back_networks_of_from_torch_with_what_they_know(table, tmp_path):
    """A later fit starts from their classes and normalisation."""
    X, y = table
    given = from_torch(nn.Linear(64, 10), classes=range(10), input_shape=(64,), mean=0.3, std=0.3)
    clf = StandardClassifier(given, **SETTINGS).fit(X, y)
    save(clf, tmp_path / "a.safetensors")
    again = load(tmp_path / "a.safetensors", network=given)
    for one in (clf, again):
        one.fit(X[y > 0], y[y > 0])
    np.testing.assert_array_equal(again.decision_function(X), clf.decision_function(X))
    assert again.classes_.tolist() == list(range(10))


def test_what_a_network_only_stores_costs_no_graph():
    class Storing(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)
            self.seen = torch.zeros(1)
            self.scale = torch.ones(5)

        def forward(self, x):
            h = self.first(x)
            if self.training:
                self.seen = h.detach()
            return self.last(h * self.scale)

    module = Storing().eval()
    attacked = AttackedNetwork(module, device="cpu", precision="fp32")
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    attacked(x)
    module.train()(x)
    module.eval()
    attacked.refresh()
    assert attacked._traced[0] is not module
    module.scale = 2 * module.scale
    attacked.refresh()
    torch.testing.assert_close(attacked(x), module(x))

"""Buffers that change their shape in use, or whose values share memory, and what no file keeps."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from advfeat import AdversarialClassifier, StandardClassifier, from_torch, load, save
from advfeat.classifiers._overfitting import OverfittingGuard
from advfeat.optim._network_state import network_state, set_network_state

QUICK = {"max_epochs": 3, "random_state": 0, "verbose": 0}


class Expanded(nn.Module):
    """A fixed window, expanded: its values lie at one place."""

    def __init__(self, n_classes=2):
        super().__init__()
        self.layer = nn.Linear(4, n_classes)
        self.register_buffer("window", torch.tensor([[0.5]]).expand(1, 4))

    def forward(self, x):
        return self.layer(x * self.window)


class Queue(nn.Module):
    """What it has seen in training, and what it keeps from the first use."""

    def __init__(self, n_classes=2):
        super().__init__()
        self.layer = nn.Linear(4, n_classes)
        self.register_buffer("seen", torch.zeros(1, 4))
        self.register_buffer("first", None)

    def forward(self, x):
        if self.first is None:
            self.first = x.detach().mean(0, keepdim=True) + 1
        if self.training:
            self.seen = torch.cat([self.seen, x.detach()])
        return self.layer(x - self.seen.mean(0) + self.first)


NETWORKS = [Expanded, Queue]


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    X = rng.random((40, 4), dtype=np.float32)
    return X, (X[:, 0] > 0.5).astype(int)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("Classifier", [StandardClassifier, AdversarialClassifier])
def test_files_give_the_same_classifier(network, Classifier, table, tmp_path):
    X, y = table
    params = {"n_steps": 4} if Classifier is AdversarialClassifier else {}
    clf = Classifier(network, **params, **QUICK).fit(X, y)
    save(clf, tmp_path / "file")
    again = load(tmp_path / "file", network=network)
    np.testing.assert_array_equal(again.decision_function(X), clf.decision_function(X))


@pytest.mark.parametrize("network", NETWORKS)
def test_files_of_frozen_networks(network, table, tmp_path):
    module = network()
    module(torch.rand(3, 4))
    clf = from_torch(module.eval(), classes=[0, 1], input_shape=(4,))
    save(clf, tmp_path / "file")
    again = load(tmp_path / "file", network=network)
    np.testing.assert_array_equal(again.predict_proba(table[0]), clf.predict_proba(table[0]))


@pytest.mark.parametrize("network", NETWORKS)
def test_early_stopping_goes_back_to_the_best_epoch(network, table):
    clf = StandardClassifier(
        network, early_stopping=True, validation_fraction=0.25, tol=0, **{**QUICK, "max_epochs": 6}
    ).fit(*table)
    assert clf.best_validation_score_ == max(clf.validation_scores_)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_guard_takes_an_epoch_back(network, table, monkeypatch):
    marks = iter([(0.9, 0.9), (0.9, 0.1)])
    monkeypatch.setattr(OverfittingGuard, "_accuracies", lambda *_: next(marks))
    with pytest.warns(ConvergenceWarning, match="taken back"):
        AdversarialClassifier(network, n_steps=1, **QUICK).fit(*table)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_warm_start_goes_on(network, table):
    clf = StandardClassifier(network, warm_start=True, **QUICK).fit(*table)
    assert len(clf.fit(*table).history_) >= 3


def test_all_is_as_it_was_when_it_was_copied():
    network = Queue()
    state = network_state(network)
    network(torch.ones(2, 4))
    assert network.first is not None and len(network.seen) == 3
    set_network_state(network, state)
    assert network.first is None and len(network.seen) == 1


def test_layers_that_share_a_buffer_share_the_new_one():
    network = nn.Sequential(Queue(), Queue())
    network[1].seen = network[0].seen = torch.zeros(5, 4)
    state = network_state(network)
    network[1].seen = network[0].seen = torch.ones(2, 4)
    set_network_state(network, state)
    assert network[1].seen is network[0].seen and len(network[0].seen) == 5


def test_weights_of_another_network_are_still_refused(table, tmp_path):
    clf = StandardClassifier(Expanded, **QUICK).fit(*table)
    save(clf, tmp_path / "file")

    class Wider(Expanded):
        def __init__(self, n_classes=2):
            super().__init__(n_classes)
            self.layer = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, n_classes))

    with pytest.raises(ValueError, match="its weights do not fit"):
        load(tmp_path / "file", network=Wider)


class Hidden(nn.Module):
    """Something beside parameters and buffers decides what it says."""

    kinds = ("list", "array", "closure")

    def __init__(self, n_classes=2, kind="list", seed=None):
        super().__init__()
        self.layer = nn.Linear(4, n_classes)
        self.hidden = {
            "list": [nn.Linear(4, n_classes)],
            "array": np.random.default_rng().normal(size=(4, n_classes)).astype("f"),
            "closure": (lambda w: lambda x: x @ w)(torch.randn(4, n_classes)),
        }[kind]

    def forward(self, x):
        hidden = self.hidden
        if isinstance(hidden, np.ndarray):
            other = x @ torch.from_numpy(hidden)
        else:
            other = hidden[0](x) if isinstance(hidden, list) else hidden(x)
        return self.layer(x) + 3 * other


@pytest.mark.parametrize("kind", Hidden.kinds)
def test_what_a_file_does_not_keep_is_told_when_it_is_read(kind, tmp_path):
    clf = from_torch(Hidden(kind=kind), classes=[0, 1], input_shape=(4,))
    save(clf, tmp_path / "file")
    with pytest.raises(ValueError, match="logits are others than when it was kept"):
        load(tmp_path / "file", network=Hidden(kind=kind))
    again = load(tmp_path / "file", network=clf.module)  # which has what the file lacks
    x = np.ones((1, 4), dtype="f")
    np.testing.assert_array_equal(again.decision_function(x), clf.decision_function(x))


def test_networks_that_draw_are_kept(tmp_path):
    class Noisy(Expanded):
        def forward(self, x):
            return super().forward(x) + torch.rand(len(x), 1)

    clf = from_torch(Noisy(), classes=[0, 1], input_shape=(4,))
    save(clf, tmp_path / "file")
    assert load(tmp_path / "file", network=Noisy).classes_.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("buffer", "message"),
    [
        (torch.ones(2, dtype=torch.complex128), "of torch.complex128"),
        (torch.eye(3).to_sparse(), "sparse"),
        (torch.ones(2).to(torch.float8_e5m2), "of torch.float8_e5m2"),
    ],
)
def test_tensors_that_a_file_cannot_hold(buffer, message, tmp_path):
    module = nn.Linear(4, 2)
    module.register_buffer("rare", buffer)
    clf = from_torch(module, classes=[0, 1], input_shape=(4,))
    with pytest.raises(TypeError, match=f"'network.rare' of the network is {message}"):
        save(clf, tmp_path / "file")
    assert not list(tmp_path.iterdir())


class Masks(Hidden):
    """One class is masked."""

    def forward(self, x):
        return torch.cat([super().forward(x), torch.full((len(x), 1), -torch.inf)], 1)


def test_masked_classes_hide_no_difference(tmp_path):
    clf = from_torch(Masks(kind="array"), classes=[0, 1, 2], input_shape=(4,))
    save(clf, tmp_path / "file")
    assert load(tmp_path / "file", network=clf.module).classes_.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="logits are others"):
        load(tmp_path / "file", network=Masks(kind="array"))


class Renamed(nn.Module):
    """Its state_dict has its layers under other names, as torch's checkpoint_wrapper does."""

    def __init__(self, n_classes=2):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, n_classes))
        self._register_state_dict_hook(self._shorten)
        self.register_load_state_dict_pre_hook(self._lengthen)

    @staticmethod
    def _shorten(module, state, prefix, metadata):
        for name in [name for name in state if name.startswith(f"{prefix}inner.")]:
            state[name.replace("inner.", "", 1)] = state.pop(name)

    @staticmethod
    def _lengthen(module, state, prefix, *_):
        own = [name for name in state if name.startswith(prefix) and "inner." not in name]
        for name in own:
            state[f"{prefix}inner.{name.removeprefix(prefix)}"] = state.pop(name)

    def forward(self, x):
        return self.inner(x)


def test_early_stopping_of_networks_that_rename_their_state(table):
    clf = StandardClassifier(Renamed, early_stopping=True, validation_fraction=0.25, **QUICK)
    clf.fit(*table)
    assert clf.best_validation_score_ == max(clf.validation_scores_)

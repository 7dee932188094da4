"""Copies of networks: what is shared in one is shared in its copy, and nothing between both."""

import copy
import dataclasses
import types

import numpy as np
import pytest
import torch
from torch import nn

from advfeat import (
    AdversarialClassifier,
    StandardClassifier,
    from_torch,
    robust_accuracy_score,
)
from advfeat.classifiers._net_copies import draft_of_net
from advfeat.optim._copying import copy_network, copy_state, memo_of_copies


class Buffers(nn.Module):
    """Buffers of many kinds."""

    def __init__(self):
        super().__init__()
        whole = torch.arange(6.0)
        self.layer = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        self.register_buffer("plain", torch.rand(4, 3).t())
        self.register_buffer("whole", whole)
        self.register_buffer("reshaped", whole.view(2, 3))
        self.register_buffer("rows", whole[3:])
        self.register_buffer("part", torch.arange(10.0)[2:5])
        self.register_buffer("expanded", torch.ones(1).expand(1000))
        self.register_buffer("sparse", torch.eye(3).to_sparse())
        self.register_buffer("empty", torch.zeros(0))
        self.register_buffer("none", None)
        self.register_buffer("named", torch.ones(2))
        self.named.unit = "pixels"
        self.register_buffer("trained", torch.ones(2, requires_grad=True))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Buffers()


@pytest.mark.parametrize(
    "make", [copy_network, lambda module: copy.deepcopy(module, memo_of_copies(module))]
)
def test_a_copy_has_the_same_values_in_the_same_form(network, make):
    other = make(network)
    state, found = network.state_dict(), other.state_dict()
    assert state.keys() == found.keys()
    for name in state:
        ours, theirs = found[name], state[name]
        assert ours.layout == theirs.layout and ours.dtype == theirs.dtype
        if ours.layout is torch.strided:
            assert ours.stride() == theirs.stride()
            assert ours.untyped_storage().nbytes() == theirs.untyped_storage().nbytes()
        assert torch.equal(ours.to_dense(), theirs.to_dense()), name
    assert other.named.unit == "pixels" and other.trained.requires_grad


def test_a_copy_shares_nothing_with_the_network(network):
    other = copy_network(network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        for value in other.state_dict().values():
            if value.layout is torch.strided and value.numel():
                value.untyped_storage().fill_(1)
    for name, value in network.state_dict().items():
        assert torch.equal(value.to_dense(), before[name].to_dense()), name


def test_what_lies_in_one_storage_does_so_in_the_copy(network):
    other = copy_network(network)
    other.whole[0] = other.whole[3] = 17
    assert other.reshaped[0, 0] == 17 and other.rows[0] == 17
    assert network.whole[0] == 0 and network.rows[0] == 3


def test_a_draft_of_a_net_has_its_own_weights_and_momentum(digits):
    X, y, _, _ = digits
    net = StandardClassifier("small_cnn", max_epochs=1, random_state=0).fit(X[:64], y[:64]).net_
    draft = draft_of_net(net)
    ours, theirs = draft.optimizer_, net.optimizer_
    weights = list(draft.module_.parameters())
    used = [p for group in ours.param_groups for p in group["params"]]
    assert list(map(id, used)) == list(map(id, weights))
    for old, new in zip(net.module_.parameters(), weights, strict=True):
        assert torch.equal(old, new) and old.data_ptr() != new.data_ptr()
        old, new = theirs.state[old]["momentum_buffer"], ours.state[new]["momentum_buffer"]
        assert torch.equal(old, new) and old.data_ptr() != new.data_ptr() and new.abs().sum() > 0


def test_the_copy_of_a_state_does_not_follow_the_training(network):
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)

    def step():
        network.layer(network.plain.t()).square().sum().backward()
        optimizer.step()

    step()
    states = [copy_state(part.state_dict()) for part in (network, optimizer)]
    kept = [copy.deepcopy(state) for state in states]
    step()
    for state, then, part in zip(states, kept, (network, optimizer), strict=True):
        assert str(state) == str(then) != str(part.state_dict())
    optimizer.load_state_dict(states[1])
    network.layer.load_state_dict(
        {name[6:]: value for name, value in states[0].items() if name.startswith("layer.")}
    )
    assert str(network.state_dict()) == str(kept[0]) and str(optimizer.state_dict()) == str(
        kept[1]
    )


class Onlooker:
    """Looks into a buffer's memory from where no one sees it."""

    def __init__(self, buffer):
        self.view = buffer[1:]


@pytest.mark.parametrize("number", range(4))
def test_who_shared_memory_shares_it_in_the_copy(number):
    """Whoever looks into a buffer's memory looks into that of the copy's buffer there."""
    norm = nn.BatchNorm1d(3)
    mean = norm.running_mean
    norm.other = [
        {"views": [mean[1:]]},
        Onlooker(mean),
        mean.numpy(),
        nn.Parameter(mean[:2]),
    ][number]
    draft = copy.deepcopy(norm, memo_of_copies(norm))
    look = [
        lambda norm: norm.other["views"][0],
        lambda norm: norm.other.view,
        lambda norm: norm.other,
        lambda norm: norm.other,
    ][number]
    plain = copy.deepcopy(norm)
    for copied in (draft, plain):
        copied.running_mean.fill_(7.0)
    assert look(draft).tolist() == look(plain).tolist()
    assert float(mean.sum()) == 0.0


def test_lists_that_hold_themselves_are_copied():
    layer = nn.Linear(2, 2)
    layer.notes = [1]
    layer.notes.append(layer.notes)
    copied = copy_network(layer)
    assert copied.notes[1] is copied.notes


@dataclasses.dataclass
class Seen:
    last: object = None


class KeepsActivations(nn.Module):
    """Puts what it has computed into an object, for plots."""

    def __init__(self, make):
        super().__init__()
        self.seen, self.hidden, self.fc = make(), nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = self.hidden(x).relu()
        if isinstance(self.seen, dict):
            self.seen["last"] = h
        else:
            self.seen.last = [h] if isinstance(self.seen, Seen) else h
        return self.fc(h)


@pytest.mark.parametrize("make", [dict, Seen, types.SimpleNamespace])
def test_what_an_object_keeps_of_a_forward_can_be_copied(make):
    net, x = KeepsActivations(make), torch.ones(2, 3)
    net(x).sum().backward()
    for copied in (copy_network(net), copy_network(net, share_weights=True)):
        assert torch.equal(copied(x), net(x))
        assert copied.seen is not net.seen
    X, y = np.ones((6, 3), np.float32), np.arange(6) % 2
    for kind in (StandardClassifier, AdversarialClassifier):
        clf = kind(net, max_epochs=1, verbose=0).fit(X, y)
        assert robust_accuracy_score(clf, X, y, norm=2, eps=0) == clf.score(X, y)
    assert from_torch(net, classes=[0, 1], input_shape=(3,)).predict(X).shape == (6,)

"""What tells one source network from another in a store."""

import copy
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from kept_cases import relabelled
from numpy.testing import assert_array_equal
from torch import nn

from advfeat import (
    from_torch,
    load,
    save,
)
from advfeat.construction._network_fingerprint import network_fingerprint

pytestmark = pytest.mark.filterwarnings(
    "ignore:The source takes only", "ignore:The features were matched poorly"
)


class Scaled(nn.Module):
    """Computes with what is in no state_dict."""

    def __init__(self, scale, mean=0.0):
        super().__init__()
        self.scale, self.mean, self.seen = scale, torch.tensor([mean]), None
        self.register_buffer("shift", torch.zeros(1), persistent=False)
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        self.seen = self.linear((x - self.mean) * self.scale + self.shift)
        return self.seen


def test_a_store_knows_what_a_network_computes_with(tmp_path):
    X = np.random.default_rng(0).normal(size=(6000, 4)).astype("f")
    y = np.arange(6000) % 2
    torch.manual_seed(0)
    net = Scaled(1.0)
    others = [copy.deepcopy(net) for _ in range(3)]
    others[0].scale, others[1].mean = -1.0, torch.tensor([0.5])
    others[2].shift += 1

    def made(module):
        source = from_torch(module, classes=[0, 1], input_shape=(4,))
        return relabelled(source, X, y, store=tmp_path / "s", target="deterministic").X

    first = made(net)
    net.seen = torch.ones(5000, 2)  # activations that a network keeps say nothing of it
    assert_array_equal(made(net), first)
    for other in others:
        with pytest.raises(ValueError, match="holds something else: it differs in weights"):
            made(other)


@dataclass
class Config:
    scale: float


@dataclass(slots=True)
class Slots:
    scale: float


def second(x):
    return 2 * x


def times(factor):
    return lambda x: factor * x


CONSTANTS = {
    "a tuple": ((0.5, 0.5), (0.5, 0.4)),
    "nested": ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}),
    "a function": (torch.relu, torch.tanh),
    "functions of one name": (lambda x: x + 1, lambda x: x + 2),
    "constants in containers": (lambda x: x.mean((2, 3)), lambda x: x.mean((1, 3))),
    "defaults": (lambda x, k=1: k * x, lambda x, k=2: k * x),
    "closures": (times(1.0), times(2.0)),
    "functions in functions": (lambda x: lambda: x + 1, lambda x: lambda: x + 2),
    "slots": (Slots(1.0), Slots(2.0)),
    "a partial": (partial(pow, 2), partial(pow, 3)),
    "a callable of one's own": (abs, second),
    "settings": (Config(1.0), Config(2.0)),
    "a dtype": (torch.float32, torch.float16),
    "numpy's number": (np.float32(1), np.float32(2)),
    "an array in a list": ([np.ones(3)], [np.zeros(3)]),
    "a bfloat16 tensor": (torch.ones(1, dtype=torch.bfloat16), torch.zeros(1)),
    "a range": (slice(0, 1), slice(0, 2)),
}


@pytest.mark.parametrize("name", ["scale", "_scale"])
@pytest.mark.parametrize(("one", "other"), CONSTANTS.values(), ids=CONSTANTS)
def test_networks_that_differ_in_a_constant_differ(one, other, name):
    first = nn.Sequential(nn.Linear(2, 2), nn.Flatten())
    second, third = copy.deepcopy(first), copy.deepcopy(first)
    for module, value in ((first, one), (second, one), (third, other)):
        layer = Keeper()
        setattr(layer, name, value)
        module.append(layer)
    assert hash_of(first) == hash_of(second) != hash_of(third)


def hash_of(module, d=2):
    return network_fingerprint(module, (d,))


class Hiding(nn.Module):
    """Computes with layers and tensors of which torch does not know."""

    def __init__(self, hold):
        super().__init__()
        torch.manual_seed(0)
        held = [nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval() for _ in range(2)]
        self.linear, self.held = nn.Linear(2, 2), hold([*held, torch.ones(100, 100)])
        self.children_and_self = [self, self.linear, {"held": held}]

    def forward(self, x):
        self.linear.last, self.seen = x, {"x": x}
        return self.linear(x)


HOLD = {
    "a list": list,
    "a tuple in a dict": lambda held: {"a": {"b": tuple(held)}},
    "a set": set,
    "keys": lambda held: dict.fromkeys(held, 0),
    "a namespace": lambda held: SimpleNamespace(a=held),
}


@pytest.mark.parametrize("hold", HOLD.values(), ids=HOLD)
def test_networks_that_differ_in_what_is_not_registered_differ(hold):
    expected = hash_of(Hiding(hold))
    assert hash_of(Hiding(hold)) == hash_of(copy.deepcopy(Hiding(hold))) == expected
    hashes = {expected}
    for change in (
        lambda held: held[0][0].weight.data.mul_(2),
        lambda held: held[1][0].bias.data.add_(1),
        lambda held: held[0][1].running_mean.add_(1),
        lambda held: setattr(held[1][1], "eps", 0.1),
        lambda held: held[2].mul_(2),
    ):
        kept = []
        net = Hiding(lambda held, kept=kept: kept.extend(held) or hold(held))
        change(kept)
        hashes.add(hash_of(net))
    assert len(hashes) == 6


class Keeper(nn.Module):
    def forward(self, x):
        return x


class Remembering(nn.Module):
    """Keeps what it has seen."""

    def __init__(self):
        super().__init__()
        self.linear, self.calls, self._shape, self._cache, self.last = nn.Linear(4, 2), 0, 0, {}, 0

    def forward(self, x):
        self.calls, self._shape, self.last = self.calls + 1, x.shape, x.mean()
        self._cache[x.shape] = x
        return self.linear(x)


def test_sparse_tensors_count_by_what_they_stand_for():
    def holding(tensor):
        net = Keeper()
        net.graph = tensor
        return hash_of(net)

    one, other = torch.eye(80).to_sparse(), torch.eye(80).flip(0).to_sparse()
    assert holding(one) == holding(one.clone()) != holding(other)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize(
    "norm", [nn.utils.weight_norm, nn.utils.spectral_norm, nn.utils.parametrizations.weight_norm]
)
def test_what_changes_with_use_says_nothing_of_a_network(norm, tmp_path):
    X = np.random.default_rng(0).normal(size=(20, 4)).astype("f")
    y = np.arange(20) % 2
    net = Remembering()
    net.linear = norm(net.linear)
    source = from_torch(net, classes=[0, 1], input_shape=(4,))
    first = relabelled(source, X, y, store=tmp_path / "s").X
    source.predict(X[:7])
    assert_array_equal(relabelled(source, X, y, store=tmp_path / "s").X, first)
    save(source, tmp_path / "clf")
    other = Remembering()
    other.linear = norm(other.linear)
    loaded = load(tmp_path / "clf", network=other)
    assert_array_equal(relabelled(loaded, X, y, store=tmp_path / "s").X, first)


def test_layers_of_torch_that_differ_in_what_they_do_not_show_differ():
    torch.manual_seed(0)
    layers = [nn.TransformerEncoderLayer(8, 2, norm_first=first) for first in (False, True)]
    layers[1].load_state_dict(layers[0].state_dict())
    assert repr(layers[0]) == repr(layers[1])
    layers = [nn.Sequential(nn.Unflatten(1, (1, 8)), layer) for layer in layers]
    assert hash_of(layers[0], 8) != hash_of(layers[1], 8)


def test_a_constant_that_holds_itself_ends():
    layer = Keeper()
    layer.list = [1]
    layer.list.append(layer.list)
    assert hash_of(layer)


def test_a_source_with_a_bfloat16_buffer_is_kept(tmp_path):
    net = Scaled(1.0)
    net.register_buffer("offset", torch.zeros(1, dtype=torch.bfloat16))
    source = from_torch(net, classes=[0, 1], input_shape=(4,))
    X = np.random.default_rng(0).normal(size=(20, 4)).astype("f")
    assert len(relabelled(source, X, np.arange(20) % 2, store=tmp_path / "s")) == 20

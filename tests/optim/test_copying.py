"""Copies of networks: what is shared in one is shared in its copy, and nothing between both."""

import copy

import pytest
import torch
from torch import nn

from advfeat.optim._copying import copy_network, memo_of_copies


class Buffers(nn.Module):
    """Buffers of every kind that `memo_of_copies` tells apart."""

    def __init__(self):
        super().__init__()
        whole = torch.arange(6.0)
        self.layer = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        self.register_buffer("plain", torch.rand(4, 3).t())
        self.register_buffer("whole", whole)
        self.register_buffer("reshaped", whole.view(2, 3))
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
    other.whole[0] = 17
    assert other.reshaped[0, 0] == 17 and network.whole[0] == 0


def test_the_state_of_an_optimizer_is_copied_with_its_network(network):
    optimizer = torch.optim.SGD(network.layer.parameters(), lr=0.1, momentum=0.9)
    network.layer(torch.rand(5, 3)).sum().backward()
    optimizer.step()
    states = [value for state in optimizer.state.values() for value in state.values()]
    layer, other = copy.deepcopy((network.layer, optimizer), memo_of_copies(network, *states))
    assert {id(p) for p in layer.parameters()} == {id(p) for p in other.param_groups[0]["params"]}
    for old, new in zip(network.layer.parameters(), layer.parameters(), strict=True):
        theirs, ours = optimizer.state[old], other.state[new]
        assert torch.equal(ours["momentum_buffer"], theirs["momentum_buffer"])
        assert ours["momentum_buffer"] is not theirs["momentum_buffer"]

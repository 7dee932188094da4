import copy
import pickle

import pytest
import torch
from replaying import on_the_cpu
from torch import nn

from advfeat.classifiers.networks import build_network
from advfeat.optim import (
    AttackedNetwork,
    FrozenNetwork,
    L2Ball,
    _attacked,
    cross_entropy,
    cw_margin,
    feature_distance,
    projected_gradient,
)
from advfeat.optim._graphs import Steps

ATTACK = dict(ball=L2Ball(1.0), bounds=(0.0, 1.0), step_size=0.1, n_steps=60)


def problem(device):
    torch.manual_seed(0)
    zero, one = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    net = build_network("small_resnet", (3, 16, 16), 10, zero, one).to(device).eval()
    x = torch.rand(8, 3, 16, 16, device=device)
    return net, x, torch.arange(8, device=device)


def graphs_of(network):
    return network.steps._own.__dict__.get("graphs", {})


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("keep", ["last", "best"])
def test_replayed_steps_are_the_plain_steps(precision, keep):
    net, x, y = problem("cuda")
    frozen = FrozenNetwork(net, device="cuda", precision=precision)
    found = projected_gradient(frozen, x, y, cross_entropy, keep=keep, **ATTACK)
    assert len(graphs_of(frozen)) == 1
    frozen.steps.repeatable = False
    plain = projected_gradient(frozen, x, y, cross_entropy, keep=keep, **ATTACK)
    # The kernels are the same; a few add up in an order that is not fixed.
    torch.testing.assert_close(found, plain, rtol=0, atol=2e-3)


@pytest.mark.gpu
def test_features_and_other_targets_are_replayed_as_well():
    net, images, _ = problem("cuda")
    frozen = FrozenNetwork(net, device="cuda")
    for x in (images, images.flip(0)):  # the second is replayed from its beginning
        target = frozen.features(x).detach()
        start = torch.full_like(x, 0.5)
        settings = {**ATTACK, "ball": L2Ball(float("inf")), "start": start}
        found = projected_gradient(
            frozen.inversion_features, x, target, feature_distance, **settings
        )
        before, after = ((frozen.features(z) - target).square().sum(1) for z in (start, found))
        assert (after < 0.1 * before).all()
    assert len(graphs_of(frozen)) == 1


@pytest.mark.gpu
def test_the_attack_follows_the_weights_of_a_network_in_training():
    net, x, y = problem("cuda")
    attacked = AttackedNetwork(net, device="cuda", precision="fp32")
    projected_gradient(attacked, x, y, cross_entropy, **ATTACK)
    assert len(graphs_of(attacked)) == 1
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.1)
    attacked.refresh()
    found = projected_gradient(attacked, x, y, cross_entropy, **ATTACK)
    fresh = AttackedNetwork(net, device="cuda", precision="fp32")
    expected = projected_gradient(fresh, x, y, cross_entropy, **ATTACK)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


class AsksTheCPU(nn.ReLU):
    """A layer that cannot be captured: it looks at a value."""

    def forward(self, x):
        return super().forward(x) * (1.0 if x.sum().item() else 0.0)


AsksTheCPU.__module__ = "torch.nn.modules.activation"  # so that tracing takes it as one layer


@pytest.mark.gpu
def test_a_network_that_cannot_be_captured_runs_plainly():
    net, x, y = problem("cuda")
    net.body = nn.Sequential(net.body, nn.Linear(10, 10).cuda(), AsksTheCPU())
    frozen = FrozenNetwork(net, device="cuda")
    found = projected_gradient(frozen, x, y, cross_entropy, **ATTACK)
    assert list(graphs_of(frozen).values()) == [None]
    torch.rand(2, device="cuda")  # the generator knows that the capture has ended
    assert (cross_entropy(frozen(found), y) >= cross_entropy(frozen(x), y)).all()


@pytest.mark.gpu
def test_few_graphs_are_kept():
    net, x, y = problem("cuda")
    frozen = FrozenNetwork(net, device="cuda")
    for n in range(2, 8):
        projected_gradient(frozen, x[:n], y[:n], cross_entropy, **ATTACK)
    assert len(graphs_of(frozen)) == 3


def test_steps_travel_empty():
    steps = Steps()
    steps.repeatable = True
    for other in (pickle.loads(pickle.dumps(steps)), copy.deepcopy(steps)):
        assert not other.repeatable
    assert not FrozenNetwork(problem("cpu")[0], device="cpu").steps.repeatable


def test_on_the_cpu_nothing_is_captured():
    net, x, y = problem("cpu")
    frozen = FrozenNetwork(net, device="cpu")
    projected_gradient(frozen, x, y, cross_entropy, **ATTACK)
    assert not frozen.steps.repeatable and not graphs_of(frozen)


@pytest.mark.long
@pytest.mark.parametrize("keep", ["last", "best"])
def test_bookkeeping_of_replays(keep, monkeypatch):
    replay = on_the_cpu(monkeypatch)
    net, x, y = problem("cpu")
    frozen = FrozenNetwork(net, device="cpu").verify(x.numpy())
    plain = [
        projected_gradient(frozen, x[:n], y[:n], loss, keep=keep, **ATTACK)
        for n, loss in [(8, cross_entropy), (5, cw_margin), (8, cross_entropy)]
    ]
    frozen.steps.repeatable = True
    replayed = [
        projected_gradient(frozen, x[:n], y[:n], loss, keep=keep, **ATTACK)
        for n, loss in [(8, cross_entropy), (5, cw_margin), (8, cross_entropy)]
    ]
    for a, b in zip(plain, replayed, strict=True):
        assert torch.equal(a, b)
    # The 21st step of a kind is captured, and it and all later ones are replayed.
    assert replay.n_replays == 40 + 40 + 60


def as_if_replayed(net, x, monkeypatch):
    attacked = AttackedNetwork(net, device="cpu", precision="fp32")
    with monkeypatch.context() as patch:
        patch.setattr(_attacked, "is_repeatable", lambda module, device: True)
        attacked(x)
    return attacked


@pytest.mark.parametrize("name", ["0.weight", "1.running_mean"])
def test_memory_that_is_exchanged_ends_the_replays(name, monkeypatch):
    """As by a callback that swaps averages in: a graph would go on reading the old memory."""
    on_the_cpu(monkeypatch)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))
    x = torch.rand(6, 1, 8, 8)
    attacked = as_if_replayed(net.eval(), x, monkeypatch)
    for _ in range(25):
        attacked.refresh()
    assert attacked.steps.repeatable
    state = net.state_dict(keep_vars=True)[name]
    state.data = state.data + 1
    attacked.refresh()
    assert not attacked.steps.repeatable
    assert torch.allclose(attacked(x), net(x), atol=1e-5)


def test_bookkeeping_of_refreshes(monkeypatch):
    replay = on_the_cpu(monkeypatch)
    net, x, _ = problem("cpu")
    attacked = as_if_replayed(net, x, monkeypatch)
    for _ in range(30):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(1.001)
        attacked.refresh()
        fresh = AttackedNetwork(net, device="cpu", precision="fp32")
        assert torch.equal(attacked(x), fresh(x))
    assert replay.n_replays == 10  # all after the twentieth


def test_steps_of_a_network_of_ones_own_are_its_own_affair():
    net, x, y = problem("cpu")
    net.steps = 3
    found = projected_gradient(net, x, y, cross_entropy, **ATTACK)
    assert not torch.equal(found, x)

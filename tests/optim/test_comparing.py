"""A network that tracing or folding would change is run as it is: logits and input gradients."""

import copy

import cloudpickle
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from advfeat.optim import AttackedNetwork, FrozenNetwork, _attacked
from advfeat.optim._comparing import close
from advfeat.optim._tracing import trace

SHAPE = (3, 8, 8)


def images(n=6, seed=0):
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def seeded(make, *args):
    """Make a network with weights and batch-norm statistics of its own, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = make(*args)
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                if name.endswith("running_mean"):
                    buffer.normal_()
                if name.endswith("running_var"):
                    buffer.uniform_(0.5, 2)
    return module.eval()


class StraightThroughSign(torch.autograd.Function):
    """Sign whose gradient is that of the identity: a binarised network trains with it."""

    @staticmethod
    def forward(ctx, x):
        return x.sign()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return (x * 7).round() / 7

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Clipped(torch.autograd.Function):
    """Identity with a bounded gradient: the logits alone would not show that it was lost."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.clamp(-1e-3, 1e-3)


class WithFunction(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.fc = nn.Linear(144, 5)

    def forward(self, x):
        return self.fc(self.function.apply(self.bn(self.conv(x))).flatten(1))


class GradientHook(nn.Module):
    """Scales the gradient in a hook on a tensor."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(192, 5)

    def forward(self, x):
        h = x.flatten(1) * 1.0
        if isinstance(h, torch.Tensor) and h.requires_grad:
            h.register_hook(lambda gradient: 3 * gradient)
        return self.fc(h)


class FullBackwardHook(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)))
        self[0].register_full_backward_hook(lambda layer, inputs, outputs: (inputs[0] * 3,))


class DetachedWhenTraced(nn.Module):
    """Depends on whether it is traced, as some libraries' networks do."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(192, 5)

    def forward(self, x):
        return self.fc(x.flatten(1)) * (1 if isinstance(x, torch.Tensor) else 2)


LOST = {
    "binarised": lambda: WithFunction(StraightThroughSign),
    "rounded": lambda: WithFunction(Rounded),
    "clipped": lambda: WithFunction(Clipped),
    "tensor hook": GradientHook,
    "backward hook": FullBackwardHook,
    "own branch": DetachedWhenTraced,
}


def frozen_view(module, precision="fp32"):
    return FrozenNetwork(module, device="cpu", precision=precision)


def attacked_view(module, precision="fp32"):
    return AttackedNetwork(module, device="cpu", precision=precision)


def logits_and_gradient(network, x):
    x = x.clone().requires_grad_(True)
    logits = network(x)
    (gradient,) = torch.autograd.grad(logits.square().sum(), x)
    return logits.detach(), gradient


def assert_same(view, module, x, **tolerance):
    for actual, expected in zip(
        logits_and_gradient(view, x), logits_and_gradient(module, x), strict=True
    ):
        torch.testing.assert_close(actual, expected, **tolerance)


@pytest.mark.parametrize("view", [frozen_view, attacked_view])
@pytest.mark.parametrize("name", LOST)
def test_what_tracing_would_lose_is_kept(view, name):
    module, x = seeded(LOST[name]), images()
    assert_same(view(module), module, x)
    assert logits_and_gradient(module, x)[1].abs().max() > 0


@pytest.mark.parametrize("name", LOST)
def test_the_verdict_travels_and_holds_for_the_features(name):
    module, x = seeded(LOST[name]), images()
    frozen = frozen_view(module).verify(x.numpy())
    again = cloudpickle.loads(cloudpickle.dumps(frozen))
    assert_same(again, module, x)
    last = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1]
    for network in (frozen, again):
        torch.testing.assert_close(last(network.features(x)), module(x))
        assert network.has_features


def conv_net(wrap_conv=lambda layer: layer, norm=nn.BatchNorm2d, wrap_norm=lambda layer: layer):
    conv, bn = wrap_conv(nn.Conv2d(3, 4, 3)), wrap_norm(norm(4))
    return nn.Sequential(conv, bn, nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))


def old_weight_norm(layer):
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(layer)


def with_forward_hook(layer):
    layer.register_forward_hook(lambda layer, args, output: output.clamp(-0.5, 0.5))
    return layer


def with_pre_hook(layer):
    layer.register_forward_pre_hook(lambda layer, args: (args[0] * 2,))
    return layer


def with_backward_hook(layer):
    layer.register_full_backward_hook(lambda layer, inputs, outputs: (inputs[0] * 3,))
    return layer


KEPT = {
    "old weight norm": lambda: conv_net(old_weight_norm),
    "old spectral norm": lambda: conv_net(nn.utils.spectral_norm),
    "weight norm": lambda: conv_net(parametrizations.weight_norm),
    "spectral norm": lambda: conv_net(parametrizations.spectral_norm),
    "norm without affine": lambda: conv_net(norm=lambda n: nn.BatchNorm2d(n, affine=False)),
    "norm without statistics": lambda: conv_net(
        norm=lambda n: nn.BatchNorm2d(n, track_running_stats=False)
    ),
    "hook on the convolution": lambda: conv_net(with_forward_hook),
    "pre-hook on the convolution": lambda: conv_net(with_pre_hook),
    "hook on the norm": lambda: conv_net(wrap_norm=with_forward_hook),
    "pre-hook on the norm": lambda: conv_net(wrap_norm=with_pre_hook),
    "backward hook on the norm": lambda: conv_net(wrap_norm=with_backward_hook),
    "instance norm": lambda: conv_net(norm=nn.InstanceNorm2d),
    "DataParallel inside": lambda: nn.Sequential(nn.DataParallel(conv_net()), nn.Identity()),
    "compiled inside": lambda: nn.Sequential(torch.compile(conv_net(), backend="eager")),
    "compiled DataParallel": lambda: torch.compile(nn.DataParallel(conv_net()), backend="eager"),
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", KEPT)
@pytest.mark.filterwarnings("ignore:.*grad attribute of a Tensor that is not a leaf")  # of dynamo
def test_trained_networks_of_all_kinds_keep_their_values(name, precision):
    module, x = seeded(KEPT[name]), images()
    for _ in range(2):  # also after a training step, which leaves computed tensors in the layers
        tolerance = {"rtol": 0.05, "atol": 0.1} if precision == "bf16" else {}
        expected = copy.deepcopy(module.state_dict())
        for view in (frozen_view, attacked_view):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                truth = module(x).float()
            torch.testing.assert_close(view(module, precision)(x), truth, **tolerance)
            if precision == "fp32":
                assert_same(view(module), module, x)
        for key, value in module.state_dict().items():
            assert torch.equal(value, expected[key])
        module.train()
        module(x).sum().backward()
        module.eval()


def test_batch_norm_left_in_train_mode_is_not_folded():
    module = seeded(conv_net)
    module[1].train()
    x = images()
    expected = copy.deepcopy(module)(x)
    torch.testing.assert_close(attacked_view(copy.deepcopy(module))(x), expected)
    evaluated = frozen_view(module)(x)  # the frozen copy is in eval mode throughout
    torch.testing.assert_close(evaluated, module.eval()(x))


class Random(nn.Module):
    def __init__(self, draw):
        super().__init__()
        self.draw, self.fc = draw, nn.Linear(192, 5)

    def forward(self, x):
        x = x.flatten(1)
        return self.fc(x + self.draw(x))


@pytest.mark.parametrize(
    "draw",
    [
        lambda x: torch.randn(192),
        torch.randn_like,
        lambda x: F.dropout(x, 0.5),
        lambda x: torch.empty(192).uniform_(),
    ],
    ids=["apart from x", "like x", "dropout", "in place"],
)
def test_random_networks_stay_random_and_are_known_to_be(draw):
    module, x = seeded(Random, draw), images()
    frozen = frozen_view(module).verify(x.numpy())
    assert frozen.random
    assert cloudpickle.loads(cloudpickle.dumps(frozen)).random
    assert not torch.equal(frozen(x), frozen(x))
    attacked = attacked_view(module)
    assert not torch.equal(attacked(x), attacked(x))


def test_ordinary_networks_are_traced_and_not_random():
    for make in (conv_net, lambda: nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(192, 2))):
        frozen = frozen_view(seeded(make)).verify(images().numpy())
        assert not frozen.random
        assert isinstance(frozen._parts().logits, torch.fx.GraphModule)


@pytest.mark.parametrize(
    "make", [lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), conv_net]
)
def test_numbers_that_are_none_do_not_hide_a_network_from_being_traced(make):
    module = seeded(make)
    with torch.no_grad():
        module[-1].bias.fill_(torch.nan)
    frozen = frozen_view(module).verify(images().numpy())
    assert isinstance(frozen._parts().logits, torch.fx.GraphModule)


def test_computed_tensors_in_layers_are_copied():
    class Remembers(nn.Linear):
        def forward(self, x):
            self.seen = {"last": [x * 2]}
            return super().forward(x.flatten(1))

    module, x = Remembers(192, 2), images()
    module(x.requires_grad_(True))
    torch.testing.assert_close(frozen_view(module)(x), module(x))


def test_inference_mode_around_the_first_call():
    module, x = seeded(lambda: WithFunction(Clipped)), images()
    frozen = frozen_view(module)
    with torch.inference_mode():
        frozen(x)
    assert_same(frozen, module, x)


def test_a_masked_class_hides_no_difference():
    a = torch.tensor([[1.0, -torch.inf, 2.0]])
    assert close(a, a.clone()) and close(a, a * (1 + 1e-6))
    assert not close(a, a + torch.tensor([[0.0, 0.0, 0.5]]))
    assert not close(a, torch.tensor([[1.0, -3.0, 2.0]]))


def test_a_network_that_told_nothing_at_first_is_traced_once_it_has_gradients():
    module, x = seeded(conv_net), images()
    last = module[-1]
    nn.init.zeros_(last.weight)
    attacked = attacked_view(module)
    attacked(x)
    assert attacked._traced[0] is module
    nn.init.normal_(last.weight, generator=torch.Generator().manual_seed(0))
    attacked.refresh()
    assert_same(attacked, module, x)
    assert isinstance(attacked._traced[0], torch.fx.GraphModule)


def test_a_network_that_never_tells_anything_is_not_traced_for_ever(monkeypatch):
    module, x = seeded(conv_net), images()
    nn.init.zeros_(module[-1].weight)
    traces = []
    monkeypatch.setattr(_attacked, "trace", lambda module: traces.append(1) or trace(module))
    attacked = attacked_view(module)
    for _ in range(25):
        attacked(x)
        attacked.refresh()
    assert len(traces) == _attacked._N_TRIES < 25

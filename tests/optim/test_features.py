"""Gradients of features that are off: which networks need help, and both forms of it by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from advfeat.optim import FrozenNetwork
from advfeat.optim._features import stuck_features


class Net(nn.Module):
    """Four channels of a convolution, something behind it, a linear head."""

    def __init__(self, behind, n_features=4):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
            self.layer_norm, self.fc = nn.LayerNorm(4), nn.Linear(n_features, 3)
        self.behind = behind

    def forward(self, x):
        return self.fc(self.behind(self, self.conv(x)))


def mean(h):
    return h.mean((2, 3))


def images(n=6):
    return torch.rand(n, 3, 6, 6, generator=torch.Generator().manual_seed(1)) - 0.5


def frozen_of(behind, **options):
    net, x = Net(behind, **options).eval(), images()
    return net, x, FrozenNetwork(net, device="cpu").verify(x.numpy())


def gradient_of(function, x, weight):
    x = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad((function(x) * weight).sum(), x)
    return gradient


def through_conv(net, x, gradient):
    """Input gradient, given the gradient at the output of the convolution, by the chain rule."""
    return F.conv_transpose2d(gradient, net.conv.weight)


def test_both_forms_against_the_chain_rule_by_hand():
    net, x, frozen = frozen_of(lambda self, h: mean(F.relu(h)))
    with torch.no_grad():
        before = net.conv(x)
    weight = torch.rand(6, 4, generator=torch.Generator().manual_seed(2)) + 0.5
    pooled = (weight / 16)[:, :, None, None].expand_as(before)
    on, features = (before > 0).float(), mean(F.relu(before))
    off = (features == 0)[:, :, None, None].float()
    assert 0 < on.mean() < 1
    # The authors' form: the ReLU is the identity for all units.
    torch.testing.assert_close(
        gradient_of(frozen.fake_relu_features, x, weight), through_conv(net, x, pooled)
    )
    # Ours: for the units of features that are off.
    torch.testing.assert_close(
        gradient_of(frozen.inversion_features, x, weight),
        through_conv(net, x, pooled * (on + off * (1 - on))),
    )
    for form in (frozen.fake_relu_features, frozen.inversion_features):
        assert torch.equal(form(x), frozen.features(x))


def test_both_forms_where_a_feature_is_off_everywhere():
    net = Net(lambda self, h: mean(self.relu(h))).eval()
    net.relu = nn.ReLU(inplace=True)
    with torch.no_grad():
        net.conv.bias[0], net.conv.bias[1] = -50, 50
    x = images()
    frozen = FrozenNetwork(net, device="cpu").verify(x.numpy())
    assert (frozen.features(x)[:, 0] == 0).all()
    for unit in (0, 1):
        weight = F.one_hot(torch.full((6,), unit), 4).float()
        identity = through_conv(net, x, (weight / 16)[:, :, None, None].expand(6, 4, 4, 4))
        for form in (frozen.fake_relu_features, frozen.inversion_features):
            torch.testing.assert_close(gradient_of(form, x, weight), identity)


SMOOTH = {
    "gelu": lambda self, h: mean(F.gelu(h)),
    "silu": lambda self, h: mean(F.silu(h)),
    "tanh": lambda self, h: mean(torch.tanh(h)),
    "elu": lambda self, h: mean(F.elu(h)),
    "leaky relu": lambda self, h: mean(F.leaky_relu(h, 0.1)),
    "softplus": lambda self, h: mean(F.softplus(h)),
    "mish": lambda self, h: mean(F.mish(h)),
    "none": lambda self, h: mean(h),
    "layer norm": lambda self, h: self.layer_norm(mean(F.relu(h))),
    "linear behind the relu": lambda self, h: mean(F.relu(h)) @ torch.eye(4).roll(1, 0).add(0.1),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_features_that_always_have_a_gradient_are_left_alone(name):
    net, x, frozen = frozen_of(SMOOTH[name])
    assert frozen.passes_gradient
    weight = torch.rand(6, 4, generator=torch.Generator().manual_seed(2))
    expected = gradient_of(lambda x: SMOOTH[name](net, net.conv(x)), x, weight)
    torch.testing.assert_close(gradient_of(frozen.inversion_features, x, weight), expected)


RECTIFIED = {
    "threshold": lambda self, h: mean(F.threshold(h, 0, 0)),
    "clamp": lambda self, h: mean(h.clamp(min=0)),
    "clamp_min": lambda self, h: mean(torch.clamp_min(h, 0)),
    "maximum": lambda self, h: mean(torch.maximum(h, torch.zeros(()))),
    "times a mask": lambda self, h: mean(h * (h > 0)),
    "where": lambda self, h: mean(torch.where(h > 0, h, torch.zeros(()))),
    "hardswish": lambda self, h: mean(F.hardswish(h)),
    "pooled by a sum": lambda self, h: F.relu(h).sum((2, 3)) / 16,
    "unflattened": lambda self, h: F.relu(h).unflatten(1, (2, 2)).flatten(1, 2).mean((2, 3)),
    "transposed": lambda self, h: F.relu(h).permute(0, 2, 3, 1).mean((1, 2)),
    "padded": lambda self, h: mean(F.pad(F.relu(h), (1, 1, 1, 1))),
}


@pytest.mark.parametrize("name", RECTIFIED)
def test_units_with_a_dead_zone_are_found_by_what_they_do(name):
    net = Net(RECTIFIED[name]).eval()
    with torch.no_grad():
        net.conv.bias[0] = -50
    x = images()
    assert stuck_features(lambda x: RECTIFIED[name](net, net.conv(x)), x)[:, 0].all()
    frozen = FrozenNetwork(net, device="cpu").verify(x.numpy())
    assert frozen.passes_gradient
    assert not stuck_features(frozen.inversion_features, x).any()
    torch.testing.assert_close(frozen.inversion_features(x), frozen.features(x))


STUCK = {
    "cannot be traced": lambda self, h: (F.relu(h) if h.sum() > -1e9 else h).flatten(1),
    "shifted": lambda self, h: F.relu(h).flatten(1) - 0.1,
    "squared": lambda self, h: F.relu(h).flatten(1) ** 2,
}


@pytest.mark.parametrize("name", STUCK)
def test_features_that_stay_without_a_gradient_are_reported(name):
    _, x, frozen = frozen_of(STUCK[name], n_features=64)
    assert stuck_features(frozen.inversion_features, x).any()
    assert not frozen.passes_gradient


def test_stuck_features_of_a_small_network_by_hand():
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    x = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    stuck = stuck_features(lambda x: F.relu(x @ weight.T), x)
    assert stuck.tolist() == [[False, True, True], [True, False, True]]


@pytest.mark.parametrize(
    ("head", "ends"),
    [
        (lambda self, h: self.fc(h), True),
        (lambda self, h: self.fc(h) / 0.1, True),
        (lambda self, h: self.fc(h) + self.fc.bias, True),
        (lambda self, h: F.log_softmax(self.fc(h), 1), True),
        (lambda self, h: self.fc(h).softmax(1).log(), True),
        (lambda self, h: torch.cat(self.fc(h).split([1, 2], 1), 1), True),
        (lambda self, h: self.fc(h).flip(1), True),
        (lambda self, h: self.fc(h)[:, [0, 0, 1]], False),
        (lambda self, h: -self.fc(h), False),
        (lambda self, h: self.fc(h) @ torch.ones(3, 3).tril(), False),
        (lambda self, h: self.fc(h) @ torch.ones(3, 4), False),
        (lambda self, h: F.bilinear(self.fc(h), h, torch.ones(3, 3, 4)), False),
    ],
)
def test_what_may_follow_the_last_linear_layer(head, ends):
    class Headed(Net):
        def forward(self, x):
            return head(self, mean(F.relu(self.conv(x))))

    net, x = Headed(None).eval(), images()
    frozen = FrozenNetwork(net, device="cpu").verify(x.numpy())
    assert frozen.has_features is ends
    if ends:
        torch.testing.assert_close(frozen.features(x), mean(F.relu(net.conv(x))))


def test_bf16_has_the_same_forms(device):
    net, x = Net(lambda self, h: mean(F.relu(self.norm(h)))).eval(), images().to(device)
    for precision in ("fp32", "bf16"):
        frozen = FrozenNetwork(net, device=device, precision=precision).verify(images().numpy())
        assert frozen.passes_gradient
        ones = torch.ones(6, 4, device=device)
        gradient = gradient_of(frozen.fake_relu_features, x, ones)
        net_on_device = frozen._module
        expected = gradient_of(lambda x, net=net_on_device: mean(net.norm(net.conv(x))), x, ones)
        torch.testing.assert_close(gradient, expected, rtol=0.05, atol=0.01)


def test_networks_that_compute_in_another_dtype_have_features():
    class Inside(nn.Module):
        def __init__(self, dtype):
            super().__init__()
            self.dtype = dtype
            self.a, self.b, self.c = (nn.Linear(8, n).to(dtype) for n in (8, 8, 3))

        def forward(self, x):
            return self.c(self.b(self.a(x.to(self.dtype)).relu())).float()

    for dtype in (torch.bfloat16, torch.float64):
        frozen = FrozenNetwork(Inside(dtype), device="cpu")
        x = torch.ones(2, 8)
        torch.testing.assert_close(frozen.inversion_features(x), frozen.features(x))

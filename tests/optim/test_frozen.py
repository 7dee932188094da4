"""FrozenNetwork: same logits, right features, gradients of dead units, untouched original."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from small_networks import (
    Body,
    assert_close,
    by_value,
    conv,
    images,
    input_gradient,
    logits_of,
    mean,
    with_statistics,
)
from torch import nn

from advfeat.classifiers.networks import NETWORKS, build_network
from advfeat.optim import FrozenNetwork

HEAVY = ("resnet18", "resnet34", "resnet50", "vgg16", "densenet121", "inception_v3")
CASES = [
    pytest.param(
        name,
        shape,
        marks=pytest.mark.slow if name in HEAVY and shape[0] == 3 else (),
        id=f"{name}-{shape[1]}px",
    )
    for shape in ((1, 8, 8), (3, 32, 32))
    for name in NETWORKS
]


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_architectures_keep_their_logits_and_features(name, shape, device):
    torch.manual_seed(0)
    stats = torch.full((shape[0], 1, 1), 0.4), torch.full((shape[0], 1, 1), 0.3)
    module = with_statistics(build_network(name, shape, 5, *stats)).to(device).eval()
    frozen = FrozenNetwork(module, device=device)
    x = images(2, shape).to(device)
    with torch.no_grad():
        expected = module(x)
        assert_close(frozen(x), expected)
        features = frozen.features(x)
        head = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1]
        assert_close(head(features), expected)
        assert_close(frozen.inversion_features(x), features)
    assert frozen.has_features
    assert frozen.passes_gradient
    # Each feature reaches the input, also where its units are off.
    gradient = input_gradient(frozen.inversion_features, x, 0)
    assert torch.isfinite(gradient).all()
    assert (gradient.flatten(1).abs().amax(1) > 0).all()


def test_the_original_is_untouched():
    module = with_statistics(nn.Sequential(conv(), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten()))
    module.append(nn.Linear(144, 2))
    module.train()
    before = copy.deepcopy(module.state_dict())
    frozen = FrozenNetwork(module, device="cpu")
    x = images().requires_grad_(True)
    (frozen(x).sum() + frozen.inversion_features(x).sum()).backward()
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert module.training and module[1].training
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    # Dropout is off in the copy although the original is in training mode.
    assert torch.equal(frozen(x), frozen(x))


def test_dead_units_pass_the_gradient_of_their_input():
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        module[0].bias.copy_(torch.tensor([9.0, -9.0, 9.0, -9.0]))  # on, off, on, off
    frozen = FrozenNetwork(module, device="cpu")
    x = torch.rand(2, 3)
    weight = module[0].weight
    for unit in range(4):
        row = weight[unit].expand(2, 3)
        on = unit % 2 == 0
        assert torch.equal(input_gradient(frozen.features, x, unit), row * on)
        assert torch.equal(input_gradient(frozen.inversion_features, x, unit), row)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_only_units_that_are_off_at_every_position_pass_through_the_last_relu(precision):
    torch.manual_seed(0)
    layers = [conv(), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU()]
    rest = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(4, 2)]
    module = with_statistics(nn.Sequential(*layers, *rest)).eval()
    x = 4 * images() - 2
    with torch.no_grad():  # two units are off, the others on at about half of the positions
        height = nn.Sequential(*layers[:-1]).eval()(x).transpose(0, 1).flatten(1).mean(1)
        layers[3].bias -= height + torch.tensor([50, 50, 0, 0])
    frozen = FrozenNetwork(module, device="cpu", precision=precision)
    features = nn.Sequential(*layers, *rest[:-1]).eval()
    without_last_relu = nn.Sequential(*layers[:-1], *rest[:-1]).eval()
    # In bf16 positions close to zero change sides: at most 0.27 over 150 networks.
    tolerance = 1e-5 if precision == "fp32" else 0.35
    for unit in range(4):
        through = input_gradient(without_last_relu, x, unit)
        own = input_gradient(features, x, unit)
        assert (own - through).norm() > 0.4 * through.norm()  # the two can be told apart
        expected = through if unit < 2 else own
        actual = input_gradient(frozen.inversion_features, x, unit)
        assert (actual - expected).norm() <= tolerance * expected.norm()


RELUS = {
    "module": lambda self, h: self.relu(h),
    "module, in place": lambda self, h: self.relu_(h),
    "relu6 module": lambda self, h: self.relu6(h),
    "function": lambda self, h: F.relu(h),
    "function, in place": lambda self, h: F.relu(h, inplace=True),
    "by keyword": lambda self, h: F.relu(input=h),
    "relu6 function": lambda self, h: F.relu6(h),
    "torch": lambda self, h: torch.relu(h),
    "method": lambda self, h: h.relu(),
    "method, in place": lambda self, h: h.relu_(),
}


@pytest.mark.parametrize("kind", RELUS)
def test_every_way_to_write_a_relu(kind):
    body = Body(
        lambda self, x: self.fc(mean(RELUS[kind](self, self.conv(x)))),
        conv=conv(), fc=nn.Linear(4, 2),
        relu=nn.ReLU(), relu_=nn.ReLU(inplace=True), relu6=nn.ReLU6(),
    )  # fmt: skip
    with torch.no_grad():
        body.conv.bias[0] -= 500  # off everywhere
    x = 40 * images() - 20  # some units over 6
    frozen = FrozenNetwork(body, device="cpu").verify(x.numpy())
    assert frozen.passes_gradient
    assert_close(frozen.inversion_features(x), frozen.features(x))
    assert frozen.features(x)[:, 1].min() > 0
    off = input_gradient(lambda x: mean(body.conv(x)), x, 0)
    assert_close(input_gradient(frozen.inversion_features, x, 0), off)
    on = input_gradient(frozen.features, x, 1)
    assert_close(input_gradient(frozen.inversion_features, x, 1), on)


POOLS = {
    "max_pool2d": lambda h: F.max_pool2d(h, 6).flatten(1),
    "avg_pool2d": lambda h: F.avg_pool2d(h, 6).squeeze(3).squeeze(2),
    "adaptive_avg_pool2d": lambda h: F.adaptive_avg_pool2d(h, 1).view(-1, 4),
    "adaptive_max_pool2d": lambda h: F.adaptive_max_pool2d(h, 1).reshape(-1, 4),
    "dropout": lambda h: F.dropout(torch.flatten(h, 1), training=False)[:, ::36],
    "mean": lambda h: torch.mean(h, (2, 3)),
    "amax": lambda h: h.amax((2, 3)),
    "cat": lambda h: torch.cat([mean(h)[:, :2], mean(h)[:, 2:]], 1),
}


@pytest.mark.parametrize("kind", POOLS)
def test_the_last_relu_is_found_through_pooling_and_reshaping(kind):
    body = Body(
        lambda self, x: self.fc(POOLS[kind](F.relu(self.conv(x)))),
        conv=conv(), fc=nn.Linear(4, 2),
    )  # fmt: skip
    with torch.no_grad():
        body.conv.bias[0] -= 50  # off everywhere
    x = images()
    frozen = FrozenNetwork(body, device="cpu").verify(x.numpy())
    assert frozen.passes_gradient
    assert_close(frozen.inversion_features(x), frozen.features(x))
    assert_close(body.fc(frozen.features(x)), logits_of(body, x))
    without_relu = input_gradient(lambda x: POOLS[kind](body.conv(x)), x, 0)
    assert_close(input_gradient(frozen.inversion_features, x, 0), without_relu)


def test_relus_in_parallel_all_pass_gradients():
    body = Body(
        lambda self, x: self.fc(torch.cat([F.relu(self.a(x)), self.b(x).relu()], 1)),
        a=nn.Linear(3, 2), b=nn.Linear(3, 2), fc=nn.Linear(4, 2),
    )  # fmt: skip
    with torch.no_grad():
        body.a.bias.fill_(-9)
        body.b.bias.fill_(-9)
    frozen = FrozenNetwork(body, device="cpu")
    for unit, row in enumerate([*body.a.weight, *body.b.weight]):
        gradient = input_gradient(frozen.inversion_features, torch.rand(1, 3), unit)
        assert torch.equal(gradient[0], row)


def test_in_place_operations_whose_result_is_dropped_still_count():
    def forward(self, x):
        h = self.conv(x)
        h.relu_()
        h.add_(1)
        return self.fc(mean(h))

    body = Body(forward, conv=conv(), fc=nn.Linear(4, 2))
    frozen = FrozenNetwork(body, device="cpu")
    x = images()
    expected = mean(F.relu(body.conv(x)) + 1)
    assert_close(frozen.features(x), expected)
    assert_close(frozen.inversion_features(x), expected)
    assert_close(frozen(x), body.fc(expected))


def test_networks_that_overwrite_their_input_leave_the_callers_alone():
    def forward(self, x):
        x.sub_(0.5)
        return self.fc(F.relu(x, inplace=True))

    frozen = FrozenNetwork(Body(forward, fc=nn.Linear(4, 2)), device="cpu")
    x = torch.rand(3, 4)
    before = x.clone()
    expected = F.relu(x - 0.5)
    assert torch.equal(frozen.features(x), expected)
    assert torch.equal(frozen.inversion_features(x), expected)
    frozen(x)
    assert torch.equal(x, before)
    gradient = input_gradient(frozen.features, x, 0)
    assert torch.equal(gradient[:, 0], (x[:, 0] > 0.5).float())


def test_an_in_place_relu_that_others_rely_on_stays():
    def forward(self, x):
        h = self.conv(x)
        return self.fc(mean(torch.cat([self.relu(h), h], 1)))

    body = Body(forward, conv=conv(), relu=nn.ReLU(inplace=True), fc=nn.Linear(8, 2))
    frozen = FrozenNetwork(body, device="cpu")
    x = images()
    assert_close(frozen.inversion_features(x), frozen.features(x))


class WithLatent(nn.Module):
    """Optional arguments, as in networks of the robustness literature."""

    def __init__(self):
        super().__init__()
        self.hidden, self.fc = nn.Linear(192, 4), nn.Linear(4, 2)

    def forward(self, x, with_latent=False):
        h = F.relu(self.hidden(x.flatten(1)))
        return (self.fc(h), h) if with_latent else self.fc(h)


class Wrapper(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)


@pytest.mark.parametrize(
    "wrap", [lambda m: m, Wrapper, nn.DataParallel, lambda m: torch.compile(m, backend="eager")],
    ids=["plain", "own wrapper", "DataParallel", "torch.compile"],
)  # fmt: skip
def test_optional_arguments_and_wrappers(wrap):
    module = WithLatent()
    frozen = FrozenNetwork(wrap(module), device="cpu")
    x = images()
    assert_close(frozen(x), module(x))
    assert_close(frozen.features(x), module(x, with_latent=True)[1])
    assert frozen.passes_gradient


def test_pickling_keeps_values_and_gradients():
    module = with_statistics(
        build_network("small_cnn", (1, 8, 8), 3, torch.zeros(1), torch.ones(1))
    )
    untraceable = Body(by_value, hidden=nn.Linear(64, 4), fc=nn.Linear(4, 3))
    x = images(shape=(1, 8, 8))
    for frozen in (FrozenNetwork(module, device="cpu"), FrozenNetwork(untraceable, device="cpu")):
        again = pickle.loads(pickle.dumps(frozen))
        assert torch.equal(again(x), frozen(x))
        for unit in range(4):
            assert torch.equal(
                input_gradient(again.inversion_features, x, unit),
                input_gradient(frozen.inversion_features, x, unit),
            )


def test_bf16_gives_float32_close_to_the_original(device):
    module = with_statistics(
        build_network("small_cnn", (1, 8, 8), 3, torch.zeros(1), torch.ones(1))
    )
    x = images(shape=(1, 8, 8)).to(device)
    exact = FrozenNetwork(module, device=device)
    rough = FrozenNetwork(module, device=device, precision="bf16")
    assert rough(x).dtype == rough.features(x).dtype == torch.float32
    assert not torch.equal(rough(x), exact(x))
    torch.testing.assert_close(rough(x), exact(x), rtol=0.05, atol=0.05)

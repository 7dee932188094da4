"""FrozenNetwork: same logits, right features, gradients of dead units, untouched original."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from advfeat.classifiers.networks import NETWORKS, build_network
from advfeat.optim import AttackedNetwork, FrozenNetwork

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


def with_statistics(module, seed=0):
    """Give every batch-norm statistics and weights that a wrong folding would get wrong."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(like, low, high):
        return low + (high - low) * torch.rand(like.shape, generator=generator)

    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.track_running_stats:
            layer.running_mean.copy_(uniform(layer.running_mean, -0.2, 0.2))
            layer.running_var.copy_(uniform(layer.running_var, 0.5, 1.5))
            layer.weight.data.copy_(uniform(layer.weight, 0.8, 1.2))
            layer.bias.data.copy_(uniform(layer.bias, -0.2, 0.2))
    return module


def images(n=3, shape=(3, 8, 8), seed=0):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


def logits_of(module, x):
    with torch.no_grad():
        return copy.deepcopy(module).eval()(x)


def assert_close(actual, expected):
    scale = float(expected.detach().abs().max())
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 * scale)


def input_gradient(function, x, column):
    x = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(function(x)[:, column].sum(), x)
    return gradient


class Body(nn.Module):
    """A module with layers given by name and a forward given as a function."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.call = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.call(self, x)


def conv():
    return nn.Conv2d(3, 4, 3)


def mean(h):
    return h.mean((2, 3))


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


def test_a_convolution_used_twice_is_not_folded_twice():
    def forward(self, x):
        return self.fc(mean(self.bn2(self.conv(self.bn1(self.conv(x))))))

    body = Body(
        forward,
        conv=nn.Conv2d(3, 3, 3), bn1=nn.BatchNorm2d(3), bn2=nn.BatchNorm2d(3), fc=nn.Linear(3, 2),
    )  # fmt: skip
    with_statistics(body)
    assert_close(FrozenNetwork(body, device="cpu")(images()), logits_of(body, images()))


def test_a_weight_used_elsewhere_is_not_folded():
    def forward(self, x):
        return self.fc(mean(self.bn(self.conv(x)) + F.conv2d(x, self.conv.weight)))

    body = Body(forward, conv=conv(), bn=nn.BatchNorm2d(4), fc=nn.Linear(4, 2))
    with_statistics(body)
    assert_close(FrozenNetwork(body, device="cpu")(images()), logits_of(body, images()))


@pytest.mark.parametrize("width", [3, 5])
def test_batch_norm_over_tokens_is_not_folded_into_a_linear_layer(width):
    # BatchNorm1d normalises axis 1, the tokens; the linear layer writes axis 2.
    body = Body(
        lambda self, x: self.fc(self.bn(self.linear(x.flatten(2))).flatten(1)),
        linear=nn.Linear(64, width), bn=nn.BatchNorm1d(3), fc=nn.Linear(3 * width, 2),
    )  # fmt: skip
    with_statistics(body)
    assert_close(FrozenNetwork(body, device="cpu")(images()), logits_of(body, images()))


@pytest.mark.parametrize("options", [{"track_running_stats": False}, {"affine": False}])
def test_batch_norm_without_statistics_or_weights(options):
    module = nn.Sequential(conv(), nn.BatchNorm2d(4, **options), nn.Flatten(), nn.Linear(144, 2))
    assert_close(FrozenNetwork(module, device="cpu")(images()), logits_of(module, images()))


def test_batch_norm_is_folded_into_the_convolution():
    module = with_statistics(
        build_network("small_cnn", (1, 8, 8), 3, torch.zeros(1), torch.ones(1))
    )
    frozen = FrozenNetwork(module, device="cpu").verify(images(shape=(1, 8, 8)).numpy())
    kinds = {type(layer) for layer in frozen._parts().logits.modules()}
    assert nn.Conv2d in kinds
    assert nn.BatchNorm2d not in kinds


def by_length(self, x):
    return self.fc(F.relu(self.hidden(x.reshape(len(x), -1))))


def by_value(self, x):
    h = F.relu(self.hidden(x.flatten(1)))
    return self.fc(h) if h.sum() > -1 else h


def by_assertion(self, x):
    assert x.shape[1] == 3, "three channels"
    return self.fc(F.relu(self.hidden(x.flatten(1))))


@pytest.mark.parametrize("forward", [by_length, by_value, by_assertion])
def test_networks_that_cannot_be_traced(forward):
    # fc comes first in the order of registration, last in the order of execution.
    body = Body(forward, fc=nn.Linear(4, 2), hidden=nn.Linear(192, 4), unused=nn.Linear(3, 3))
    x = images()
    frozen = FrozenNetwork(body, device="cpu").verify(x.numpy())
    assert frozen.has_features
    assert not frozen.passes_gradient
    assert torch.equal(frozen(x), body(x))
    expected = F.relu(body.hidden(x.flatten(1)))
    assert torch.equal(frozen.features(x), expected)
    assert torch.equal(frozen.inversion_features(x), expected)
    assert not body.fc._forward_pre_hooks


def test_untraceable_features_do_not_mix_up_threads():
    meet, armed = threading.Barrier(2, timeout=20), []

    def forward(self, x):
        if x.sum() > -1:
            h = F.relu(self.hidden(x))
            if armed:
                meet.wait()
            y = self.fc(h)
            if armed:
                meet.wait()
            return y

    body = Body(forward, hidden=nn.Linear(3, 4), fc=nn.Linear(4, 2))
    frozen = FrozenNetwork(body, device="cpu").verify(np.ones((2, 3), np.float32))
    armed.append(True)
    inputs, found = [torch.zeros(2, 3), torch.ones(5, 3)], {}

    def work(i):
        found[i] = frozen.features(inputs[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(2):
        assert torch.equal(found[i], F.relu(body.hidden(inputs[i])))


def test_features_of_a_linear_layer_called_by_keyword():
    for forward in (
        lambda self, x: self.fc(input=x.flatten(1)),
        lambda self, x: F.linear(input=x.flatten(1), weight=self.fc.weight),
        lambda self, x: self.fc(input=x.flatten(1)) if x.sum() > -1 else x,
    ):
        frozen = FrozenNetwork(Body(forward, fc=nn.Linear(192, 2)), device="cpu")
        assert torch.equal(frozen.features(images()), images().flatten(1))


def test_a_linear_layer_used_twice_counts_at_its_last_use():
    body = Body(lambda self, x: self.fc(F.relu(self.fc(x))), fc=nn.Linear(4, 4))
    untraceable = Body(
        lambda self, x: self.fc(F.relu(self.fc(x))) if x.sum() > -1 else x, fc=body.fc
    )
    x = torch.rand(3, 4)
    for module in (body, untraceable):
        frozen = FrozenNetwork(module, device="cpu")
        assert torch.equal(frozen.features(x), F.relu(body.fc(x)))


def test_a_head_that_does_not_reach_the_output_is_no_last_layer():
    def forward(self, x):
        h = F.relu(self.hidden(x))
        y = self.fc(h)
        self.auxiliary(x)
        return y

    body = Body(
        forward, hidden=nn.Linear(3, 4), fc=nn.Linear(4, 2), auxiliary=nn.Linear(3, 5)
    )  # fmt: skip
    frozen = FrozenNetwork(body, device="cpu")
    x = torch.rand(3, 3)
    assert torch.equal(frozen.features(x), F.relu(body.hidden(x)))
    assert frozen.passes_gradient


def test_linear_heads_in_parallel_share_their_features():
    body = Body(
        lambda self, x: (lambda h: self.value(h) + self.advantage(h))(F.relu(self.hidden(x))),
        hidden=nn.Linear(3, 4), value=nn.Linear(4, 1), advantage=nn.Linear(4, 2),
    )  # fmt: skip
    x = torch.rand(3, 3)
    assert torch.equal(FrozenNetwork(body, device="cpu").features(x), F.relu(body.hidden(x)))


class SqueezeExcite(nn.Module):
    """Ends in a convolution; its linear layer sits in the middle."""

    def __init__(self, traceable):
        super().__init__()
        self.gate, self.head, self.traceable = nn.Linear(3, 3), nn.Conv2d(3, 2, 1), traceable

    def forward(self, x):
        h = x * torch.sigmoid(self.gate(mean(x)))[:, :, None, None]
        if self.traceable or h.sum() > -1e9:
            return mean(self.head(h))


@pytest.mark.parametrize("traceable", [True, False])
def test_a_linear_layer_in_the_middle_gives_no_features(traceable):
    frozen = FrozenNetwork(SqueezeExcite(traceable), device="cpu")
    assert frozen(images()).shape == (3, 2)
    assert not frozen.passes_gradient
    with pytest.raises(ValueError, match="does not end in a linear layer"):
        frozen.features(images())


def test_no_linear_layer():
    frozen = FrozenNetwork(nn.Sequential(conv(), nn.Flatten()), device="cpu")
    frozen.verify(images().numpy())
    assert not frozen.has_features
    assert not frozen.passes_gradient
    with pytest.raises(ValueError, match="does not end in a linear layer"):
        frozen.inversion_features(images())


def test_a_plain_linear_module():
    module = nn.Linear(5, 2)
    x = torch.rand(3, 5)
    frozen = FrozenNetwork(module, device="cpu")
    assert torch.equal(frozen(x), module(x))
    assert torch.equal(frozen.features(x), x)
    assert frozen.passes_gradient  # there is nothing to be off


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


@pytest.mark.parametrize("traceable", [True, False])
def test_a_product_after_the_last_linear_layer_is_the_head(traceable):
    def forward(self, x):
        h = F.relu(self.hidden(x))
        return h @ self.w if traceable or x.sum() > -1e9 else h

    body = Body(forward, hidden=nn.Linear(4, 3), w=nn.Parameter(torch.ones(3, 2)))
    if traceable:
        frozen = FrozenNetwork(body, device="cpu").verify(torch.rand(2, 4).numpy())
        assert not frozen.has_features
    assert torch.equal(FrozenNetwork(body, device="cpu")(torch.ones(2, 4)), body(torch.ones(2, 4)))


@pytest.mark.parametrize("name", ["small_cnn", "small_resnet"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_attacked_network_follows_the_weights(name, precision):
    net = with_statistics(build_network(name, (3, 8, 8), 4, torch.zeros(3, 1, 1), torch.ones(1)))
    net.eval()
    view = AttackedNetwork(net, device="cpu", precision=precision)
    x = images()
    first = view(x)
    assert_close(first, FrozenNetwork(net, device="cpu", precision=precision)(x))
    with_statistics(net, seed=1)
    with torch.no_grad():
        net.get_parameter(next(iter(dict(net.named_parameters())))).mul_(1.5)
    view.refresh()
    second = view(x)
    assert_close(second, FrozenNetwork(net, device="cpu", precision=precision)(x))
    assert (second - first).abs().max() > 1e-2
    net.train()
    for layer in net.modules():  # nothing of the network itself was replaced or folded
        assert not (isinstance(layer, nn.Conv2d) and layer.bias is not None)


def test_attacked_network_that_cannot_be_traced_is_taken_as_it_is():
    net = Body(lambda self, h: self.fc(h.flatten(1) if h.sum() > 0 else -h.flatten(1)),
               fc=nn.Linear(192, 3)).eval()  # fmt: skip
    view = AttackedNetwork(net, device="cpu", precision="fp32")
    view.refresh()
    assert_close(view(images()), logits_of(net, images()))


class OwnNorm(nn.Module):
    """Computes with its buffers, which change in place or are replaced."""

    def __init__(self, replaced):
        super().__init__()
        self.replaced = replaced
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("var", torch.ones(4))
        self.linear = nn.Linear(4, 2)

    def change(self):
        if self.replaced:
            self.mean, self.var = self.mean + 1, self.var * 9
        else:
            self.mean += 1
            self.var *= 9

    def forward(self, x):
        return self.linear((x - self.mean) / torch.sqrt(self.var + 1e-5))


@pytest.mark.parametrize("replaced", [False, True])
def test_attacked_network_follows_buffers_that_layers_compute_with(replaced):
    torch.manual_seed(0)
    net, x = OwnNorm(replaced).eval(), torch.rand(3, 4)
    view = AttackedNetwork(net, device="cpu", precision="fp32")
    with torch.no_grad():
        assert_close(view(x), net(x))
        for _ in range(3):
            net.change()
            view.refresh()
            assert_close(view(x), net(x))
    frozen = FrozenNetwork(net, device="cpu")
    with torch.no_grad():
        before = net(x)
        net.change()
        assert_close(frozen(x), before)

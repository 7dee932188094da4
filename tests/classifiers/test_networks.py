"""build_network: architectures fit their data, and misuse is named."""

import functools

import pytest
import torch
import torchvision
from torch import nn

from advfeat.classifiers.networks import NETWORKS, Network, build_network, check_network_name
from advfeat.optim import FrozenNetwork

PENULTIMATE = {
    "resnet18": 512,
    "resnet34": 512,
    "resnet50": 2048,
    "vgg16": 512,
    "densenet121": 1024,
    "inception_v3": 2048,
}


def build(network, shape=(1, 8, 8), n_classes=3):
    return build_network(network, shape, n_classes, torch.zeros(1), torch.ones(1))


def layers(module, kind):
    return [layer for layer in module.modules() if isinstance(layer, kind)]


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_on_small_images(name):
    module = build(name, (2, 8, 12), n_classes=4)
    assert module.training
    assert module.eval()(torch.rand(3, 2, 8, 12)).shape == (3, 4)


@pytest.mark.parametrize("name", PENULTIMATE)
def test_penultimate_widths(name):
    head = layers(build(name), nn.Linear)
    assert len(head) == 1
    assert (head[0].in_features, head[0].out_features) == (PENULTIMATE[name], 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_logits_and_gradients_on_large_images(name):
    module = build(name, (3, 128, 112), n_classes=4).eval()
    frozen = FrozenNetwork(module, device="cpu")
    x = torch.rand(1, 3, 128, 112).requires_grad_(True)
    logits = frozen(x)
    assert logits.shape == (1, 4)
    logits.sum().backward()
    assert x.grad.abs().max() > 0
    if name == "vgg16":  # the original head, for large images only
        assert frozen.features(x).shape == (1, 4096)


@pytest.mark.parametrize(
    ("name", "stride"),
    [("resnet18", 8), ("resnet9", 8), ("vgg16", 32), ("densenet121", 8), ("small_cnn", 1)],
)
def test_resolution_before_the_last_pooling(name, stride):
    shapes = []
    module = build(name, (3, 32, 32)).eval()
    last = layers(module, nn.Conv2d)[-1]
    last.register_forward_hook(lambda layer, args, output: shapes.append(tuple(output.shape[2:])))
    module(torch.rand(1, 3, 32, 32))
    side = 32 // stride
    if name == "vgg16":
        side *= 2  # its last convolution comes before the fifth pooling
    assert shapes == [(side, side)]


@pytest.mark.parametrize("name", ["vgg16", "resnet9", "resnet18", "small_resnet"])
@pytest.mark.parametrize("side", [1, 2, 5, 95])
def test_odd_sizes(name, side):
    assert build(name, (1, side, side + 3)).eval()(torch.rand(1, 1, side, side + 3)).shape == (
        1,
        3,
    )


@pytest.mark.parametrize("name", ["small_cnn", "small_resnet", "resnet9"])
@pytest.mark.parametrize("images", ["noise", "flat"])
def test_every_pixel_parity_gets_its_share_of_the_gradient(name, images):
    """Else an inversion paints a checkerboard; a strided stem gave .14, .27, .21 and .38."""
    torch.manual_seed(0)
    module = build(name, (3, 32, 32), n_classes=10).eval()
    x = (
        torch.rand(16, 3, 32, 32)
        if images == "noise"
        else torch.rand(16, 3, 1, 1).repeat(1, 1, 32, 32)
    )
    x.requires_grad_(True)
    loss = nn.functional.cross_entropy(module(x), torch.arange(16) % 10)
    (gradient,) = torch.autograd.grad(loss, x)
    inner = gradient[..., 4:-4, 4:-4].square()  # the borders see the padding
    shares = torch.stack([inner[..., i::2, j::2].sum() for i in (0, 1) for j in (0, 1)])
    assert (shares / shares.sum() - 0.25).abs().max() < 0.02


def multiply_adds(module, x):
    """Counted by hooks on convolutions and linear layers."""
    counts = []

    def count(layer, args, output):
        per_output = layer.weight[0].numel()
        counts.append(output[0].numel() * per_output)

    for layer in layers(module, (nn.Conv2d, nn.Linear)):
        layer.register_forward_hook(count)
    module.eval()(x)
    return sum(counts)


@pytest.mark.parametrize(("name", "millions"), [("small_resnet", 13), ("resnet9", 95)])
def test_cost_is_as_the_docstring_says(name, millions):
    found = multiply_adds(build(name, (3, 32, 32), 10), torch.rand(1, 3, 32, 32))
    assert found / 1e6 == pytest.approx(millions, abs=0.6)
    assert f"{millions} million multiply-adds" in NETWORKS[name].__doc__


def test_auto_depends_on_the_data():
    assert not layers(build("auto", (5,)), nn.Conv2d)
    convolutions = {
        name: len(layers(build(name, (1, side, side)), nn.Conv2d))
        for name, side in [("small_cnn", 15), ("small_resnet", 16)]
    }
    for side, expected in ((15, "small_cnn"), (16, "small_resnet")):
        assert len(layers(build("auto", (1, side, 64)), nn.Conv2d)) == convolutions[expected]


def test_mlp_takes_images_too():
    assert build("mlp", (2, 3, 4)).eval()(torch.rand(5, 2, 3, 4)).shape == (5, 3)


def test_normalisation_is_part_of_the_network():
    mean, std = torch.tensor([[[0.5]], [[0.2]]]), torch.tensor([[[0.1]], [[0.3]]])
    body = nn.Sequential(nn.Flatten(), nn.Linear(8, 3))
    module = build_network(body, (2, 2, 2), 3, mean, std)
    x = torch.rand(4, 2, 2, 2)
    torch.testing.assert_close(module(x), body((x - mean) / std))
    assert set(dict(module.named_buffers())) == {"mean", "std"}
    assert "mean" in module.state_dict()


def test_checking_the_output_leaves_statistics_and_mode_alone():
    module = build_network(
        lambda: nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 3)),
        (2,), 3, torch.ones(2), torch.ones(2),
    )  # fmt: skip
    body = module.body
    assert module.training
    assert body[0].training
    assert body[0].num_batches_tracked == 0
    assert torch.equal(body[0].running_mean, torch.zeros(2))


class Asks(nn.Module):
    """Takes every keyword that is on offer."""

    def __init__(self, input_shape, in_channels, n_features, n_classes, num_classes, width=4):
        super().__init__()
        self.given = (input_shape, in_channels, n_features, n_classes, num_classes, width)
        self.layer = nn.Linear(int(torch.tensor(input_shape).prod()), n_classes)

    def forward(self, x):
        return self.layer(x.flatten(1))


def test_own_classes_get_the_keywords_that_they_name():
    assert build(Asks, (2, 3, 4)).body.given == ((2, 3, 4), 2, 2, 3, 3, 4)
    assert build(Asks, (7,)).body.given == ((7,), 7, 7, 3, 3, 4)
    assert build(functools.partial(Asks, width=9), (7,)).body.given[-1] == 9


def test_names_that_are_known():
    for name in ("auto", *NETWORKS, Asks, lambda: None):
        check_network_name(name)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("resnet-18", "resnet18"), ("VGG", "vgg16"), ("smallcnn", "small_cnn"), ("MLP", "mlp")],
)
def test_unknown_names_suggest_the_nearest(wrong, near):
    with pytest.raises(ValueError, match=f"Got '{wrong}' instead; did you mean '{near}'"):
        build(wrong)


@pytest.mark.parametrize("wrong", ["", "???"])
def test_names_without_any_likeness(wrong):
    with pytest.raises(ValueError, match="must be one of .*'auto'.*'mlp'"):
        check_network_name(wrong)


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"mlp"}))
def test_image_networks_refuse_tabular_data(name):
    with pytest.raises(ValueError, match=r"needs images of shape \(n, C, H, W\), got \(n, 5\)"):
        build(name, (5,))


class TooWide(nn.Linear):
    def __init__(self, n_features):
        super().__init__(n_features, 7)


class Pair(nn.Linear):
    def __init__(self, n_features, n_classes):
        super().__init__(n_features, n_classes)

    def forward(self, x):
        return super().forward(x), x


class Fails(nn.Linear):
    def __init__(self, n_features, n_classes):
        super().__init__(n_features, n_classes)

    def forward(self, x):
        return super().forward({}["no such key"])


def test_networks_that_do_not_fit_the_data():
    with pytest.raises(ValueError, match=r"logits of shape \(n, 3\).*returned \(1, 7\)"):
        build(TooWide, (5,))
    with pytest.raises(ValueError, match="as a tensor. It returned a tuple of 2"):
        build(Pair, (5,))
    with pytest.raises(ValueError, match="no parameter to train"):
        build(lambda: nn.Linear(5, 3).requires_grad_(False), (5,))
    for wrong, reason in ((Fails, "no such key"), (TooWide, "shapes")):
        with pytest.raises(
            ValueError, match=f"failed on one sample of shape .*{reason}"
        ) as caught:
            build(wrong, (5,) if wrong is not TooWide else (5, 4, 4))
        assert caught.value.__cause__ is not None


def test_architectures_that_are_too_deep_for_the_images():
    with pytest.raises(
        ValueError, match=r"'densenet121' failed on one sample of shape \(1, 2, 2\)"
    ):
        build("densenet121", (1, 2, 2))


def test_classes_that_need_other_arguments():
    with pytest.raises(
        ValueError, match="missing a required argument: 'in_features'.*num_classes"
    ):
        build(nn.Linear, (5,))


def test_functions_that_return_no_module():
    with pytest.raises(ValueError, match="returned NoneType"):
        build(lambda: None, (5,))


def test_torchvision_builders_through_a_function():
    def network(num_classes):
        return torchvision.models.squeezenet1_1(num_classes=num_classes)

    module = build(network, (3, 32, 32)).eval()
    assert isinstance(module, Network)
    x = torch.rand(2, 3, 32, 32)
    assert module(x).shape == (2, 3)
    frozen = FrozenNetwork(module, device="cpu").verify(x.numpy())
    assert not frozen.has_features  # it ends in a convolution


def test_initial_weights_depend_on_the_seed_alone():
    for name in ("small_cnn", "mlp"):
        weights = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            weights.append(torch.cat([p.flatten() for p in build(name).parameters()]))
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("name", PENULTIMATE)
def test_signals_neither_vanish_nor_explode_at_the_start(name):
    torch.manual_seed(0)
    module = build(name, (3, 16, 16), n_classes=10)
    logits = module(torch.randn(8, 3, 16, 16))
    assert 1e-2 < logits.std() < 10

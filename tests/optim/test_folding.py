"""Batch-norm is folded where that changes nothing, and nowhere else."""

import pytest
import torch
import torch.nn.functional as F
from small_networks import Body, assert_close, conv, images, logits_of, mean, with_statistics
from torch import nn

from advfeat.classifiers.networks import build_network
from advfeat.optim import AttackedNetwork, FrozenNetwork


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

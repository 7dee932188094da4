"""Which layer gives the features, and networks that cannot be traced."""

import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_networks import Body, by_value, conv, images, mean
from torch import nn
from torch.nn.utils import prune

from advfeat.optim import FrozenNetwork


def by_length(self, x):
    return self.fc(F.relu(self.hidden(x.reshape(len(x), -1))))


def by_layers(self, x):
    return self.fc(F.relu(self.hidden(x.flatten(1))))


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


def halved(layer, args):
    return args[0] / 2


def halved_by_keyword(layer, args, kwargs):
    return (), {"input": args[0] / 2}


@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("hook", [halved, halved_by_keyword])
def test_what_a_hook_makes_of_the_features_is_what_the_last_layer_gets(hook, traced):
    forward = by_layers if traced else by_value
    body = Body(forward, fc=nn.Linear(4, 2), hidden=nn.Linear(192, 4)).eval()
    body.fc.register_forward_pre_hook(hook, with_kwargs=hook is halved_by_keyword)
    x = images()
    frozen = FrozenNetwork(body, device="cpu").verify(x.numpy())
    expected = F.relu(body.hidden(x.flatten(1))) / 2
    for features in (frozen.features, frozen.inversion_features):
        torch.testing.assert_close(features(x), expected)
    torch.testing.assert_close(F.linear(expected, body.fc.weight, body.fc.bias), body(x))
    assert len(body.fc._forward_pre_hooks) == 1


@pytest.mark.parametrize("pruned", [True, False])
def test_pruning_leaves_the_gradient_of_features_that_are_off(pruned):
    layers = nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)
    if pruned:  # by a hook on the layer, which changes its weights alone
        prune.l1_unstructured(layers[2], "weight", amount=0.5)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    frozen = FrozenNetwork(nn.Sequential(*layers), device="cpu").verify(x.numpy())
    assert torch.equal(frozen.features(x), layers[0](x).relu())
    assert frozen.passes_gradient


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

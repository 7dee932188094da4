"""Networks that a trace, or the search for their features, could take for something else."""

import copy
import pickle
import types
from collections import Counter, deque

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from advfeat import (
    AdversarialClassifier,
    adversarial_examples,
    from_torch,
    robust_accuracy_score,
)
from advfeat.optim import AttackedNetwork, FrozenNetwork
from advfeat.optim._tracing import trace

SHAPE = (3, 8, 8)


@pytest.fixture
def x():
    return torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(0))


def member():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 4))


def classifier(module):
    torch.manual_seed(0)
    return from_torch(module(), classes=range(4), input_shape=SHAPE)


class Untraceable(nn.Module):
    """Runs another network behind a look at its input, as networks of transformers do."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        if x.shape[1] != 3:
            raise ValueError
        return self.module(x)


class Patches(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.last = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 4)
        self.place = nn.Parameter(torch.randn(4, 16))

    def tokens(self, x):
        return self.embed(x).flatten(2).transpose(1, 2)


class BuiltInForward(Patches):
    """Its position embedding is a tensor that each call makes and changes."""

    def forward(self, x):
        place = torch.zeros(4, 16)
        place += self.place
        return self.last(F.gelu(self.tokens(x) + place).mean(1))


class SeededInForward(Patches):
    def forward(self, x):
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(x.shape[1:], generator=generator)
        return self.last(F.gelu(self.tokens(x + noise)).mean(1))


# traces that would keep what each call makes anew


@pytest.mark.parametrize("kind", [BuiltInForward, SeededInForward])
def test_what_a_call_makes_anew_is_not_kept_in_a_trace(kind, x):
    module = kind().eval()
    for network in (
        FrozenNetwork(module, device="cpu"),
        AttackedNetwork(module, device="cpu", precision="fp32"),
    ):
        for _ in range(3):
            torch.testing.assert_close(network(x), module(x))
    clf = classifier(kind)
    X, y = x.numpy(), clf.predict(x.numpy())
    attack = {"norm": 2, "eps": 0.3, "n_steps": 2, "batch_size": 2, "verbose": 0}
    assert robust_accuracy_score(clf, X, y, **{**attack, "eps": 0.0}) == 1
    found, fooled = adversarial_examples(clf, X, y, **attack)
    np.testing.assert_array_equal(clf.predict(found) != y, fooled)


def test_draws_by_the_place_in_the_batch_are_refused():
    class Drawing(nn.Module):
        def __init__(self):
            super().__init__()
            self.member, self.generator = member(), torch.Generator()

        def forward(self, x):
            self.generator.manual_seed(0)
            return self.member(x + torch.randn(x.shape, generator=self.generator))

    with pytest.raises(ValueError, match="other logits in another batch"):
        classifier(Drawing)


def test_traces_leave_no_symbols_in_a_network(x):
    class Caching(Patches):
        def __init__(self, input_shape, n_classes):
            super().__init__()
            self.cache, self.seen, self.deep = {}, deque(maxlen=3), {"lists": ([],)}
            self.count, self.unknown = Counter(calls=0), float("nan")

        def forward(self, x):
            z = self.tokens(x)
            n = z.shape[1]
            if n not in self.cache:
                self.cache[n] = torch.arange(n).float() / n
            self.latest = z.mean()
            self.seen.append(self.latest)
            self.count["calls"] += 1
            self.deep["lists"][0].append(n)
            return self.last(F.gelu(z + self.cache[n][:, None]).mean(1))

    Caching.__module__, Caching.__qualname__ = __name__, "Caching"
    globals()["Caching"] = Caching
    y = np.arange(6) % 4
    clf = AdversarialClassifier(Caching, eps=0.1, max_epochs=1, random_state=0, verbose=0)
    clf.fit(x.numpy(), y)
    body = clf.module_.body
    kept = [*body.cache, *body.cache.values(), *body.seen, *body.deep["lists"][0], body.latest]
    assert kept and not any(isinstance(value, torch.fx.Proxy) for value in kept)
    module = Caching(SHAPE, 4).eval()
    module.count["calls"] = 5
    trace(module)
    assert module.count == {"calls": 5} and not module.seen and not hasattr(module, "latest")
    again = pickle.loads(pickle.dumps(clf))
    copy.deepcopy(clf)
    np.testing.assert_array_equal(again.predict(x.numpy()), clf.predict(x.numpy()))


def test_numbers_that_change_are_those_of_the_moment(x):
    class Warming(nn.Module):
        def __init__(self):
            super().__init__()
            self.member, self.step = member(), 0

        def forward(self, x):
            if self.training:
                self.step += 1
            return self.member(x) * (self.step / 5)

    module = Warming().eval()
    attacked = AttackedNetwork(module, device="cpu", precision="fp32")
    for _ in range(3):
        torch.testing.assert_close(attacked(x), module(x))
        module.train()(x)
        module.eval()
        attacked.refresh()


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def test_a_last_layer_of_zeros_hides_nothing(x):
    class Rounding(nn.Module):
        def __init__(self):
            super().__init__()
            self.member = member()
            nn.init.zeros_(self.member[3].weight)

        def forward(self, x):
            return self.member(Rounded.apply(4 * x))

    module = Rounding().eval()
    attacked = AttackedNetwork(module, device="cpu", precision="fp32")
    attacked(x)
    nn.init.normal_(module.member[3].weight)
    attacked.refresh()
    gradients = []
    for network in (attacked, module):
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(network(leaf)[:, 0].sum(), leaf)
        gradients.append(gradient)
    torch.testing.assert_close(*gradients)
    assert gradients[0].any()


def test_batch_norm_with_a_forward_of_its_own_is_not_folded(x):
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 4),
    ).eval()  # fmt: skip

    def own(self, x):
        out = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)
        return out + x.mean((2, 3), keepdim=True)

    module[1].forward = types.MethodType(own, module[1])
    torch.testing.assert_close(FrozenNetwork(module, device="cpu")(x), module(x))


def test_networks_without_weights_are_refused():
    def lazy():
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(4))

    with pytest.raises(ValueError, match="layers without weights"):
        classifier(lazy)
    used = lazy()
    used(torch.zeros(1, *SHAPE))
    assert classifier(lambda: used).classes_.tolist() == [0, 1, 2, 3]


# features


class Summed(nn.Module):
    """Averages networks, as an ensemble does."""

    def __init__(self):
        super().__init__()
        self.members = nn.ModuleList([member(), member()])

    def forward(self, x):
        return sum(one(x) for one in self.members) / 2


class Flipped(nn.Module):
    """Averages over an image and its mirror image."""

    def __init__(self):
        super().__init__()
        self.member = member()

    def forward(self, x):
        return (self.member(x) + self.member(x.flip(3))) / 2


class Adapted(nn.Module):
    """A last layer with a correction of low rank."""

    def __init__(self):
        super().__init__()
        self.body, self.base = member()[:3], nn.Linear(16, 4)
        self.down, self.up = nn.Linear(16, 2), nn.Linear(2, 4)

    def forward(self, x):
        h = self.body(x)
        return self.base(h) + self.up(self.down(h))


class WideAndDeep(nn.Module):
    def __init__(self):
        super().__init__()
        self.deep, self.wide = member(), nn.Linear(192, 4)

    def forward(self, x):
        return self.deep(x) + self.wide(x.flatten(1))


class Centred(nn.Module):
    """A side path by the means of the channels, and logits whose sum says nothing of it."""

    def __init__(self):
        super().__init__()
        self.member, self.side = member(), nn.Linear(3, 4)

    def forward(self, x):
        logits = self.member(x) + 5 * self.side(x.mean((2, 3))).relu()
        return logits - logits.mean(1, keepdim=True)


class Cosine(Patches):
    """Its last layer is no nn.Linear; one stands in the middle."""

    def __init__(self):
        super().__init__()
        self.mix, self.weight = nn.Linear(16, 16), nn.Parameter(torch.randn(4, 16))

    def forward(self, x):
        z = self.tokens(x)
        z = (z + self.mix(F.gelu(z))).mean(1)
        return 10 * F.normalize(z, dim=-1) @ F.normalize(self.weight, dim=-1).t()


class Aside(nn.Module):
    """Runs another linear layer after its last one."""

    def __init__(self):
        super().__init__()
        self.member, self.other = member(), nn.Linear(4, 7)

    def forward(self, x):
        logits = self.member(x)
        self.aside = self.other(logits)
        return logits


@pytest.mark.parametrize("untraceable", [False, True])
@pytest.mark.parametrize("kind", [Summed, Flipped, Adapted, WideAndDeep, Centred, Cosine])
def test_features_of_one_layer_of_several_are_refused(kind, untraceable, x):
    clf = classifier(lambda: Untraceable(kind()) if untraceable else kind())
    for rows in (x, x[:1], x[:1].repeat(4, 1, 1, 1)):  # also where there is no other sample
        with pytest.raises(ValueError, match="does not end in a linear layer"):
            clf.features(rows.numpy())


SCALES = {
    "none": lambda z, h: z,
    "length": lambda z, h: z / h.norm(dim=1, keepdim=True),
    "gate": lambda z, h: z * torch.sigmoid(3 * h[:, :1]),
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("untraceable", [False, True])
@pytest.mark.parametrize("scale", SCALES)
def test_a_scale_behind_the_last_layer_leaves_its_features(scale, untraceable, precision, x):
    scale = SCALES[scale]

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.last = member()[:3], nn.Linear(16, 4)

        def forward(self, x):
            h = self.body(x)
            return F.log_softmax(scale(self.last(h), h), 1)

    torch.manual_seed(0)
    module = Scaled()
    hidden = module.body(x).detach()
    close = {"rtol": 1e-5, "atol": 1e-6} if precision == "fp32" else {"rtol": 0.05, "atol": 0.02}
    for rows in (x, x[:1]):
        whole = Untraceable(module) if untraceable else module
        network = FrozenNetwork(whole, device="cpu", precision=precision)
        torch.testing.assert_close(network.features(rows), hidden[: len(rows)], **close)


def test_untraceable_networks_have_the_features_of_their_last_layer(x):
    clf = classifier(lambda: Untraceable(member()))
    hidden = clf.module_.body.module[:3](x).detach().numpy()
    np.testing.assert_allclose(clf.features(x.numpy()), hidden, rtol=1e-5)
    with pytest.raises(ValueError, match="does not end in a linear layer"):
        classifier(lambda: Untraceable(Aside())).features(x.numpy())


class Counting(nn.Module):
    """Sets a buffer in its forward."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.first, self.last = nn.Linear(12, 6), nn.Linear(6, 3)

    def forward(self, x):
        self.calls = self.calls + 1
        self.calls += 1
        return self.last(self.first(x.flatten(1)).relu())


def test_buffers_that_a_forward_sets_are_no_symbols(x):
    module, images = Counting().eval(), x[:, :, :2, :2].contiguous()
    expected = module.first(images.flatten(1)).relu()
    frozen = FrozenNetwork(module, device="cpu")
    for _ in range(3):
        assert torch.allclose(frozen(images), module(images), atol=1e-6)
        assert torch.allclose(frozen.features(images), expected, atol=1e-6)
    assert type(module.calls) is torch.Tensor
    attacked = AttackedNetwork(module, device="cpu", precision="fp32")
    for _ in range(3):
        attacked.refresh()
        assert torch.allclose(attacked(images), module(images), atol=1e-6)
    assert type(module.calls) is torch.Tensor


def test_exported_programs_have_features(x):
    module, images = Counting().eval(), x[:, :, :2, :2].contiguous()
    expected = module.first(images.flatten(1)).relu()
    batch = torch.export.Dim("batch", min=1, max=10_000)
    program = torch.export.export(module, (images,), dynamic_shapes=({0: batch},))
    frozen = FrozenNetwork(program.module(), device="cpu").verify(images.numpy())
    assert torch.allclose(frozen.features(images), expected, atol=1e-6)

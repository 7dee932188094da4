"""Hooks that users put on layers see tensors in every call, and networks that use hooks work."""

import functools
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from block_network import QUICK, SHAPE, Net, X, Y
from skorch.callbacks import Callback
from torch import nn

from advfeat import (
    AdversarialClassifier,
    RobustFeatureInverter,
    adversarial_examples,
    from_torch,
    robust_accuracy_score,
)
from advfeat.optim._copying import copy_network


def classifier(network=Net):
    torch.manual_seed(0)
    return from_torch(network().eval(), classes=range(4), input_shape=SHAPE)


def attack(clf):
    return adversarial_examples(clf, X, Y, norm=2, eps=0.5, n_steps=3, random_state=0)[0]


USES = {
    "predict": lambda clf: clf.predict(X),
    "attack": attack,
    "score": lambda clf: robust_accuracy_score(clf, X, Y, norm=2, eps=0.5, n_steps=3),
    "features": lambda clf: clf.features(X),
    "invert": lambda clf: RobustFeatureInverter(clf, n_steps=3, random_state=0).fit_transform(
        X, Y
    ),
}
PLACES = {
    "block": lambda clf: clf.module_.body.block,
    "layer": lambda clf: clf.module_.body.block[0],
}


@pytest.mark.filterwarnings("ignore:Some features of the source|The features were matched")
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["function", "method", "partial", "global"])
def test_hooks_see_tensors_in_every_call(kind, place, use):
    if kind == "global" and place != "block":
        pytest.skip("has no place")
    clf, watcher, seen = classifier(), SimpleNamespace(lock=threading.Lock(), sum=0), []
    expected = USES[use](classifier())

    class Recorder:
        lock = threading.Lock()

        def see(self, layer, args, output):
            self.own = threading.Lock()  # no copy of it can be made
            seen.append(output.detach())
            watcher.sum = watcher.sum + output.detach().sum()

    see = Recorder().see
    hook = {
        "function": lambda *args: see(*args),
        "method": see,
        "partial": functools.partial(lambda holder, *args: see(*args), watcher),
        "global": lambda *args: see(*args),
    }[kind]
    if kind == "global":
        handle = nn.modules.module.register_module_forward_hook(hook)
    else:
        handle = PLACES[place](clf).register_forward_hook(hook)
    found = USES[use](clf)
    handle.remove()
    assert len(seen) >= {"predict": 1, "features": 1}.get(use, 3)
    assert all(type(output) is torch.Tensor for output in seen)
    assert type(watcher.sum) is torch.Tensor
    assert max(map(len, seen)) == len(X)
    if use != "invert":  # which goes on without the way around a ReLU
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_hooks_of_the_backward_pass_see_every_step():
    clf, seen = classifier(), []
    hook = clf.module_.body.block.register_full_backward_hook(lambda *_: seen.append(None))
    attack(clf)
    hook.remove()
    assert len(seen) > 5


class Watch(Callback):
    def on_train_begin(self, net, **kwargs):
        self.total, self.n = 0, 0
        self.hook = net.module_.body.block.register_forward_hook(self.see)

    def see(self, layer, args, output):
        self.total, self.n = self.total + output.detach().mean(), self.n + 1

    def on_epoch_end(self, net, **kwargs):
        net.history.record("mean", float(self.total))

    def on_train_end(self, net, **kwargs):
        self.hook.remove()


def test_a_callback_watches_adversarial_training():
    settings = {"eps": 0.5, "n_steps": 2, **QUICK}
    watch = Watch()
    clf = AdversarialClassifier(Net, callbacks=[watch], **settings).fit(X, Y)
    assert watch.n >= 3
    assert np.isfinite(clf.history_[-1]["mean"])
    plain = AdversarialClassifier(Net, **settings).fit(X, Y)
    np.testing.assert_allclose(clf.decision_function(X), plain.decision_function(X), atol=1e-3)


class Extractor(nn.Module):
    """Reads a layer inside another network by a hook."""

    def __init__(self):
        super().__init__()
        self.backbone, self.seen, self.head = Net(), {}, nn.Linear(8, 4)
        self.backbone.block[1].register_forward_hook(self.keep)

    def keep(self, layer, args, output):
        self.seen["norm"] = output

    def forward(self, x):
        self.backbone(x)
        return self.head(torch.relu(self.seen["norm"]).mean((2, 3)))


class Plain(Extractor):
    def forward(self, x):
        return self.head(
            torch.relu(self.backbone.block[1](self.backbone.block[0](x))).mean((2, 3))
        )


@pytest.mark.filterwarnings("ignore:Some features of the source|The features were matched")
@pytest.mark.parametrize("n_before", [4, 10])
@pytest.mark.parametrize("use", USES)
def test_a_network_that_reads_its_layers_by_hooks(use, n_before):
    clf, plain = classifier(Extractor), classifier(Plain)
    clf.predict(X[:n_before])
    found = USES[use](clf)
    if use != "invert":
        np.testing.assert_allclose(found, USES[use](plain), atol=1e-4)
    fitted = AdversarialClassifier(Extractor, eps=0.5, n_steps=2, **QUICK).fit(X, Y)
    assert len(attack(fitted)) == len(X)


class Closing(Net):
    """Reads a layer by a function that was made inside it."""

    def __init__(self):
        super().__init__()
        self.seen = {}

        def keep(layer, args, output):
            self.seen["block"], self.last_seen = output, output

        self.block[0].register_forward_hook(lambda *args: self.seen.__setitem__("conv", args[2]))
        self.block[2].register_forward_hook(keep)

    def forward(self, x):
        self.block(x)
        assert len(self.seen) == 2
        return self.last((self.seen["block"] + self.last_seen).mean((2, 3)) / 2)


def test_hooks_that_were_made_inside_a_network_know_its_copy():
    module = Closing().eval()
    clf = from_torch(module, classes=range(4), input_shape=SHAPE)
    assert not module.seen
    expected = module(torch.from_numpy(X)).detach().numpy()
    module.seen.clear()
    np.testing.assert_allclose(clf.decision_function(X), expected, rtol=1e-5)
    assert len(attack(clf)) == len(X) and not module.seen


def test_a_hook_whose_object_works_on_a_layer_works_on_that_of_the_copy():
    class Clamp:
        def __init__(self, layer):
            self.layers = [layer]

        def __call__(self):
            pass

        def before(self, layer, args):
            with torch.no_grad():
                self.layers[0].weight.clamp_(-0.01, 0.01)

    module = Net().eval()
    module.last.register_forward_pre_hook(Clamp(module.last).before)
    before = module.last.weight.detach().clone()
    copied = copy_network(module)
    copied(torch.from_numpy(X))
    assert torch.equal(module.last.weight, before)
    assert copied.last.weight.abs().max() <= 0.01


class Holder:
    pass


class Holding(Net):
    """Keeps what it has seen in an object of its own."""

    def __init__(self):
        super().__init__()
        self.holder, self.space = Holder(), SimpleNamespace(seen=[], total=torch.zeros(4))
        self.holder.total, self.holder.inner = torch.zeros(4), ()

    def forward(self, x):
        logits = super().forward(x)
        self.holder.total = self.holder.total + logits.detach().sum(0)
        self.space.total = self.space.total + logits.detach().sum(0)
        self.space.seen.append(logits.detach())
        self.holder.inner = (*self.holder.inner, [logits.detach()])
        return logits


@pytest.mark.filterwarnings("ignore:Some features of the source|The features were matched")
@pytest.mark.parametrize("use", USES)
def test_a_network_that_keeps_what_it_has_seen(use):
    clf = classifier(Holding)
    for _ in range(2):
        USES[use](clf)
    fitted = AdversarialClassifier(Holding, eps=0.5, n_steps=2, **QUICK).fit(X, Y)
    attack(fitted)
    for module in (clf.module_.body, fitted.module_.body):
        kept = [module.holder.total, module.space.total, *module.space.seen]
        kept += [value for values in module.holder.inner for value in values]
        assert {type(value) for value in kept} == {torch.Tensor}

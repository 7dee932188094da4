"""Functions that layers hold and that lead to layers: a copy's lead into the copy."""

import functools
import pickle
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from block_network import QUICK, SHAPE, Net, X, Y
from torch import nn

from advfeat import StandardClassifier, from_torch
from advfeat.optim import FrozenNetwork
from advfeat.optim._copying import copy_network


def halved(x, factor=0.5):
    return factor * x


def closing(network):
    def scaled(x):
        return scale(network.last(x))

    def scale(x):
        return halved(x)

    return lambda x: scaled(x)


def recursive(network):
    def go(x, depth):
        return halved(network.last(x)) if depth == 0 else go(x, depth - 1)

    return lambda x: go(x, 3)


def mutual(network):
    def even(x, depth):
        return halved(network.last(x)) if depth == 0 else odd(x, depth - 1)

    def odd(x, depth):
        return even(x, depth - 1)

    return lambda x: even(x, 4)


def over_a_list(network):
    layers = [network.last]
    return lambda x: halved(layers[0](x))


def over_weights(network):
    weight, bias = network.last.weight, network.last.bias
    return lambda x: halved(nn.functional.linear(x, weight, bias))


def over_a_method(network):
    last = network.last.forward
    return lambda x: halved(last(x))


FUNCTIONS = {
    "closure": closing,
    "recursion": recursive,
    "mutual recursion": mutual,
    "a list in the closure": over_a_list,
    "weights in the closure": over_weights,
    "a method in the closure": over_a_method,
    "a default": lambda network: lambda x, network=network: halved(network.last(x)),
    "a keyword": lambda network: lambda x, *, inner=network: halved(inner.last(x)),
    "a partial": lambda network: functools.partial(
        lambda layer, x: halved(layer(x)), network.last
    ),
    "a partial of a closure": lambda network: functools.partial(closing(network)),
}
HOLDERS = {
    "attribute": lambda f: f,
    "list": lambda f: [[f]],
    "dict": lambda f: {"f": (f,)},
    "object": lambda f: SimpleNamespace(f=f),
}


def found_in(holder):
    while not callable(holder):
        holder = next(iter(vars(holder).values() if hasattr(holder, "f") else holder.values()
                           if isinstance(holder, dict) else holder))  # fmt: skip
    return holder


class Calling(Net):
    """Calls a function that was made inside it and knows its layers."""

    def __init__(self, function="closure", holder="attribute"):
        super().__init__()
        self.head = HOLDERS[holder](FUNCTIONS[function](self))

    def forward(self, x):
        return found_in(self.head)(self.block(x).mean((2, 3)))


class Head(nn.Module):
    """Knows the network that it belongs to, without holding it."""

    def __init__(self, owner):
        super().__init__()
        self.owner = weakref.ref(owner)

    def forward(self, x):
        return self.owner().last(x) / 2


class Owning(Net):
    def __init__(self):
        super().__init__()
        self.head = Head(self)

    def forward(self, x):
        return self.head(self.block(x).mean((2, 3)))


def patched(wrap=lambda old: lambda x: 0.5 * old(x)):
    network = Net()
    network.last.forward = wrap(network.last.forward)
    return network


def in_a_notebook(inner):
    """The function finds the network by the name that it has in a notebook."""
    names = {"Net": Net, "halved": halved}
    exec("net = Net()", names)
    exec(f"net.last.forward = {inner}", names)
    return names["net"]


LINEAR = "__import__('torch').nn.functional.linear(x, net.last.weight, net.last.bias)"
NETWORKS = {
    **{name: functools.partial(Calling, name) for name in FUNCTIONS},
    **{f"in a {name}": functools.partial(Calling, holder=name) for name in HOLDERS},
    "patched": patched,
    "a weak reference": Owning,
    "a global": functools.partial(in_a_notebook, f"lambda x: halved({LINEAR})"),
    "a global inside": functools.partial(in_a_notebook, f"lambda x: (lambda: {LINEAR})() / 2"),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_a_copy_is_one_that_functions_do_not_lead_out_of(network):
    module = NETWORKS[network]().eval()
    x = torch.from_numpy(X)
    expected = module(x).detach()
    copied = copy_network(copy_network(module))
    assert torch.equal(copied(x), expected)
    with torch.no_grad():
        module.last.weight.mul_(5)
    assert torch.equal(copied(x), expected)
    with torch.no_grad():
        copied.last.weight.zero_()
        copied.last.bias.zero_()
    assert not copied(x).any()
    assert module(x).any()


def test_a_compiled_forward_is_copied_as_it_was():
    module = patched(lambda old: torch.compile(old, backend="eager"))
    copied, x = copy_network(module), torch.from_numpy(X)
    expected = copied(x).detach()
    with torch.no_grad():
        module.last.weight.mul_(5)
    assert torch.equal(copied(x), expected)


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_with_functions_are_trained(network):
    module = NETWORKS[network]()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    clf = StandardClassifier(module, **QUICK).fit(X, Y)
    first = clf.module_.body.last.weight.detach().clone()
    assert not torch.equal(first, before["last.weight"])
    expected = clf.decision_function(X)
    clf.partial_fit(X, Y)
    assert not torch.equal(clf.module_.body.last.weight, first)
    assert not np.array_equal(clf.decision_function(X), expected)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(weight.grad is None for weight in module.parameters())
    clf = from_torch(module.eval(), classes=range(4), input_shape=SHAPE)
    expected = clf.decision_function(X)
    with torch.no_grad():
        module.last.weight.mul_(5)
    assert np.array_equal(clf.decision_function(X), expected)


class Compiled(Net):
    @torch.compile(backend="eager")
    def forward(self, x):
        return super().forward(x)


class CompiledMethod(Net):
    def __init__(self):
        super().__init__()
        self.run = torch.compile(self._run, backend="eager")

    def _run(self, x):
        return Net.forward(self, x)

    def forward(self, x):
        return self.run(x)


def compiled_from_outside():
    network = Net()
    network.forward = torch.compile(network.forward, backend="eager")
    return network


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch.compile's own
@pytest.mark.parametrize("make", [Compiled, CompiledMethod, compiled_from_outside])
def test_networks_that_compile_themselves_have_features(make):
    module, x = make().eval(), torch.from_numpy(X)
    expected = module.block(x).mean((2, 3)).detach()
    clf = from_torch(module, classes=range(4), input_shape=SHAPE)
    clf.predict(X)  # code that is compiled knows of no hooks
    np.testing.assert_allclose(clf.features(X), expected, atol=1e-6)
    frozen = FrozenNetwork(module, device="cpu").verify(X)
    assert torch.allclose(frozen.features(x), expected, atol=1e-6)
    assert module(x).shape == (10, 4)
    if make is Compiled:
        again = pickle.loads(pickle.dumps(frozen))
        assert torch.equal(again.features(x), frozen.features(x))
    fitted = StandardClassifier(make, **QUICK).fit(X, Y)
    assert fitted.features(X).shape == (10, 8)


class Agreeable:
    """Has every attribute that it is asked for, as some configurations do."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return {}


def test_objects_that_have_every_attribute_stay():
    module = Net().eval()
    module.config = Agreeable()
    frozen = FrozenNetwork(module, device="cpu").verify(X)
    assert type(frozen._module.config) is Agreeable

"""Modes of the caller, read-only samples, and callbacks that act between batches."""

import copy

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from skorch.callbacks import Callback, EarlyStopping, GradientNormClipping, LRScheduler
from torch import nn

from advfeat import AdversarialClassifier, StandardClassifier, from_torch
from advfeat.classifiers import _net_copies, _training_data
from advfeat.classifiers._captured import CapturedStep
from advfeat.classifiers._net_copies import on_device
from advfeat.classifiers._nets import _acts_between_batches
from advfeat.classifiers._user_modules import portable
from advfeat.optim import into_box
from advfeat.optim._copying import tensors_in
from advfeat.optim._network_state import to_device
from advfeat.optim._tracing import trace
from advfeat.utils import _device
from advfeat.utils._device import resolve_device


@pytest.mark.parametrize("make", [StandardClassifier, AdversarialClassifier])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_callers_autocast_changes_nothing(digits, make, precision):
    """Its cache of cast weights lives as long: a training would go on with the first ones."""
    X, y, X_test, _ = digits
    settings = {"n_steps": 2} if make is AdversarialClassifier else {}
    clf = make(precision=precision, max_epochs=2, random_state=0, verbose=0, **settings)
    plain = clf.fit(X[:200], y[:200]).decision_function(X_test)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = clf.fit(X[:200], y[:200]).decision_function(X_test)
    assert_array_equal(found, plain)


class OnBatchEnd(Callback):
    def on_batch_end(self, net, **kwargs):
        net.label_smoothing = 0.5


class OnGrad(Callback):
    def on_grad_computed(self, net, named_parameters, **kwargs):
        self.kept = [p.grad for _, p in named_parameters]


class OnEpochEnd(Callback):
    def on_epoch_end(self, net, **kwargs):
        net.label_smoothing = 0.5


@pytest.mark.parametrize(
    ("callback", "acts"),
    [
        (OnBatchEnd(), True),
        (OnGrad(), True),
        (OnEpochEnd(), False),
        (GradientNormClipping(1.0), False),
        (EarlyStopping(), False),
        (LRScheduler("LambdaLR", lr_lambda=lambda epoch: 1.0), False),
    ],
)
def test_callbacks_that_act_between_batches(callback, acts):
    """A step that is replayed would see nothing of what they change."""
    assert _acts_between_batches(callback) == acts


@pytest.mark.parametrize("name", ["0.weight", "1.running_mean"])
def test_a_captured_step_knows_where_the_network_lies(name):
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    step = CapturedStep(None, module)
    then = step._present()
    tensor = module.state_dict(keep_vars=True)[name]
    with torch.no_grad():
        tensor.mul_(2)
    assert step._present() == then
    tensor.data = tensor.data.clone()
    assert step._present() != then


class Holding(nn.Module):
    """Holds tensors in every place that layers have for them."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("late", torch.zeros(3), persistent=False)
        self.alone = torch.arange(3.0)
        self.listed = [torch.ones(3), self.weight, self.mean]
        self.named = {"scale": torch.ones(3), "more": ([self.alone], 7, "text")}

    def forward(self, x):
        listed, named = self.listed, self.named["more"][0][0]
        return (x - self.mean - self.late) * self.weight + self.alone + listed[0] + named


def held(module):
    listed, named = module.listed, module.named
    return [*module.parameters(), *module.buffers(), module.alone, *listed, named["scale"],
            named["more"][0][0]]  # fmt: skip


def test_all_that_a_network_holds_moves():
    """To "meta", the second device that every machine has."""
    module = Holding()
    weight, before = module.weight, [tensor.clone() for tensor in held(module)]
    assert to_device(module, "cpu") is module
    assert module.listed[1] is weight and module.listed[2] is module.mean
    for tensor, then in zip(held(module), before, strict=True):
        assert torch.equal(tensor, then)
    to_device(module, "meta")
    assert {tensor.device.type for tensor in held(module)} == {"meta"}
    assert module.listed[1] is module.weight and module.listed[2] is module.mean
    assert module.named["more"][0][0] is module.alone and module.named["more"][1:] == (7, "text")


def test_what_lies_elsewhere_is_found_wherever_it_is():
    assert portable(module := Holding()) is module
    clf = from_torch(module, classes=range(3), input_shape=(3,))
    assert_array_equal(clf.predict(np.eye(3, dtype=np.float32)), module(torch.eye(3)).argmax(1))


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize("form", ["read-only", "in another order", "plain"])
def test_samples_are_put_on_a_device_in_blocks(dtype, form, monkeypatch):
    """Read-only ones, too, of which torch warns: the inverter's own store gives such."""
    monkeypatch.setattr(_device, "_BLOCK", 50)
    X = np.arange(24).reshape(4, 6).astype(dtype)
    X = X.T if form == "in another order" else X
    X.flags.writeable = form != "read-only"
    found = _device._in_blocks(X, "cpu")
    assert_array_equal(found.numpy(), X)
    assert found.numpy().dtype == dtype


def test_devices_have_their_number(monkeypatch):
    """Workers have their own current device."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda:1")
    assert resolve_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(ValueError, match="only 2 CUDA devices"):
        resolve_device("cuda:2")


@pytest.mark.parametrize("side", [torch.tensor, np.asarray, float])
def test_a_box_of_any_type(side):
    z = torch.tensor([[-1.0, 0.5, 2.0]])
    assert into_box(z, (side(0.0), side(1.0))).tolist() == [[0.0, 0.5, 1.0]]
    moved = into_box(z.to("meta"), (side(0.0), side(1.0)))
    assert moved.device.type == "meta"


@pytest.mark.parametrize("fails", [False, True])
def test_samples_lie_on_the_device_once_a_fit(digits, monkeypatch, fails):
    """For the training and for what is set aside; another fit sees what has changed meanwhile."""
    uploaded, kept = [], []

    def upload(source, device):
        uploaded.append(source)
        return torch.from_numpy(source.copy())

    X, y, X_test, y_test = digits
    X = X.copy()
    settings = {"max_epochs": 3, "early_stopping": True, "random_state": 0, "verbose": 0}
    plain = StandardClassifier(**settings).fit(1 - X, y).decision_function(X_test)
    monkeypatch.setattr(_training_data, "on_accelerator", upload)
    if fails:
        try:
            StandardClassifier(callbacks=[Fails()], **settings).fit(X, y)
        except RuntimeError as error:
            kept.append(error)  # as a notebook does, with all that was alive
    else:
        StandardClassifier(**settings).fit(X, y)
    assert len(uploaded) == 1
    np.subtract(1, X, out=X)
    clf = StandardClassifier(**settings).fit(X, y)
    assert len(uploaded) == 2
    assert_array_equal(clf.decision_function(X_test), plain)


class Fails(Callback):
    def on_epoch_end(self, net, **kwargs):
        raise RuntimeError("on purpose")


def test_a_trace_that_fails_prints_nothing(capfd):
    """Captures are tried on purpose."""

    class Asks(nn.Module):
        def forward(self, x):
            return x[:, torch.tensor([0, 7])]

    graph = trace(Asks())
    with pytest.raises(IndexError):
        graph(torch.ones(2, 3))
    graph.recompile()
    assert graph(torch.ones(2, 8)).shape == (2, 2)
    assert capfd.readouterr().err == ""


def test_momentum_that_lies_elsewhere_moves(digits, monkeypatch):
    """Of a fit inside `with torch.cuda.device(1)`, say, of which only the network has moved."""
    clf = StandardClassifier(max_epochs=1, random_state=0, verbose=0).fit(digits[0], digits[1])
    net = copy.copy(clf.net_)
    assert on_device(net, torch.device("cpu")) is net
    momenta = tensors_in([*net.optimizer_.state.values()])
    assert momenta
    net.optimizer_ = copy.deepcopy(net.optimizer_)
    state = [*net.optimizer_.state.values()][-1]
    state["momentum_buffer"] = state["momentum_buffer"].to("meta")
    copied = []
    monkeypatch.setattr(
        _net_copies, "deep_copy", lambda net, *args: copied.append(net) or clf.net_
    )
    on_device(net, torch.device("cpu"))
    assert copied == [net]

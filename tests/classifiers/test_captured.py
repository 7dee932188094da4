"""Training steps as CUDA graphs."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from replaying import on_the_cpu

from advfeat import AdversarialClassifier, StandardClassifier
from advfeat.classifiers import _captured
from advfeat.classifiers._captured import CapturedStep, repeats
from advfeat.classifiers.networks import build_network


def problem():
    torch.manual_seed(0)
    zero, one = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
    net = build_network("small_cnn", (1, 8, 8), 3, zero, one).train()
    x = torch.rand(30 * 8 + 5, 1, 8, 8)
    return net, x, torch.arange(len(x)) % 3, torch.rand(len(x))


def train(net, batches, captured):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)

    def compute(x, y, weight):
        logits = net(x)
        loss = (F.cross_entropy(logits, y, reduction="none") * weight).mean()
        loss.backward()
        return loss.detach(), logits.detach()

    step = CapturedStep(compute, net) if captured else compute
    seen = []
    for batch in batches:
        optimizer.zero_grad()
        loss, logits = step(*batch)
        optimizer.step()
        seen.append((loss, logits))
    return seen


def test_bookkeeping(monkeypatch):
    replay = on_the_cpu(monkeypatch)
    net, *data = problem()
    batches = list(zip(*(rows.split(8) for rows in data), strict=True))
    other = copy.deepcopy(net)
    plain, replayed = train(net, batches, False), train(other, batches, True)
    assert replay.n_replays == 10  # of 30 whole batches, from the 21st; the last has 5 samples
    for a, b in zip(plain, replayed, strict=True):  # also what was kept of earlier steps
        assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
    for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_what_cannot_be_captured_runs_plainly(monkeypatch):
    monkeypatch.setattr(_captured, "capture", lambda function, device: function() and None)
    net, *data = problem()
    batches = list(zip(*(rows.split(8) for rows in data), strict=True))
    other = copy.deepcopy(net)
    plain, found = train(net, batches, False), train(other, batches, True)
    assert torch.equal(plain[-1][1], found[-1][1])
    for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def freeze(net):
    next(net.parameters()).requires_grad_(False)


def replace_weights(net):
    parameter = next(net.parameters())
    parameter.data = parameter.data.clone()


@pytest.mark.parametrize("change", [freeze, replace_weights])
def test_a_network_that_changes_within_an_epoch_runs_plainly_from_then_on(change, monkeypatch):
    replay = on_the_cpu(monkeypatch)
    net, *data = problem()
    other = copy.deepcopy(net)

    def batches(net):
        for i, batch in enumerate(zip(*(rows.split(8) for rows in data), strict=True)):
            if i == 25:
                change(net)
            yield batch

    train(net, batches(net), False)
    train(other, batches(other), True)
    assert replay.n_replays == 5
    for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_captured_steps_travel_without_their_graph(monkeypatch):
    on_the_cpu(monkeypatch)
    step = CapturedStep(len, None)
    step.kind, step.graph = "a kind", object()
    other = copy.deepcopy(step)
    assert other.kind is other.graph is None


@pytest.mark.parametrize(
    "hook",
    [
        lambda net: net.register_full_backward_hook(lambda *arguments: None),
        lambda net: next(net.parameters()).register_hook(lambda gradient: None),
        lambda net: next(net.parameters()).register_post_accumulate_grad_hook(lambda p: None),
    ],
)
def test_hooks_of_the_backward_pass_must_run(hook):
    net = problem()[0]
    assert repeats(net)
    hook(net)
    assert not repeats(net)


SETTINGS = dict(
    max_epochs=2, batch_size=16, lr=0.02, device="cuda", random_state=0, label_smoothing=0.1
)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", [StandardClassifier, AdversarialClassifier])
def test_replayed_training_is_the_plain_training(digits, kind, precision, monkeypatch):
    X, y, X_test, y_test = digits
    weight = np.linspace(0.5, 1.5, len(X))
    captures = []
    original = _captured.capture

    def counted(*arguments):
        captures.append(original(*arguments))
        return captures[-1]

    monkeypatch.setattr(_captured, "capture", counted)
    replayed = kind(**SETTINGS, precision=precision).fit(X, y, sample_weight=weight)
    assert len(captures) == 2 and None not in captures  # one in each epoch
    monkeypatch.setattr(_captured, "REPEATS", 10**9)
    plain = kind(**SETTINGS, precision=precision).fit(X, y, sample_weight=weight)
    history = [[row["train_loss"] for row in clf.net_.history] for clf in (plain, replayed)]
    # The kernels are the same; a few add up in an order that is not fixed.
    np.testing.assert_allclose(*history, rtol=0.05 if precision == "bf16" else 0.01)
    for name, value in plain.net_.module_.state_dict().items():
        if "num_batches_tracked" in name:
            assert torch.equal(value, replayed.net_.module_.state_dict()[name])

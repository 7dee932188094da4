"""The same work done by advfeat, by hand-written loops and by other libraries, for speed.py.

Every function returns a dict of name to a callable without arguments. A callable does the work
once and returns another, which gives the mean loss that was reached, so that equal work can be
seen to be equal. Neither that nor setting up (frozen copies, wrappers of other libraries) is
timed.
"""

import contextlib
import copy
import functools
import importlib.util
import io
import warnings

import numpy as np
import torch
import torch.nn.functional as F

from advfeat import AdversarialClassifier, StandardClassifier
from advfeat.optim import (
    AttackedNetwork,
    FrozenNetwork,
    L2Ball,
    cross_entropy,
    feature_distance,
    projected_gradient,
)
from advfeat.utils._device import autocast

EPS, STEP_SIZE = 0.5, 0.1


def has(module):
    """Whether a package of the ``bench`` extra is installed."""
    return importlib.util.find_spec(module) is not None


def pgd(net, x, y, n_steps, precision):
    """L2 PGD on the cross-entropy from x, with steps of constant length."""
    frozen = FrozenNetwork(net, device=x.device, precision=precision)
    net = _ordinary(net)
    ball = L2Ball(EPS)

    def ours():
        return projected_gradient(
            frozen, x, y, cross_entropy, ball=ball, bounds=(0, 1), step_size=STEP_SIZE,
            n_steps=n_steps,
        )  # fmt: skip

    contenders = {
        "advfeat": ours,
        "tuned loop": lambda: _loop(frozen, x, y, n_steps),
        "plain torch": lambda: _loop(net, x, y, n_steps),
    }
    if has("torchattacks"):
        import torchattacks

        theirs = torchattacks.PGDL2(net, EPS, STEP_SIZE, n_steps, random_start=False)
        contenders["torchattacks"] = lambda: theirs(x, y)
    if has("foolbox"):
        import foolbox

        model = foolbox.PyTorchModel(net, bounds=(0, 1), device=x.device)
        attack = foolbox.attacks.L2ProjectedGradientDescentAttack(
            abs_stepsize=STEP_SIZE, steps=n_steps, random_start=False
        )
        contenders["foolbox"] = lambda: attack.run(model, x, y, epsilon=EPS)
    if has("art"):
        art = _art_pgd(_art_classifier(net, x), n_steps, len(x))
        images, labels = x.cpu().numpy(), y.cpu().numpy()
        contenders["ART"] = lambda: torch.from_numpy(art.generate(images, labels))
    contenders |= _without_graphs(frozen, ours)
    return _judged(contenders, lambda found: F.cross_entropy(net(found.to(x)), y))


def _without_graphs(frozen, ours):
    """Let the same loop launch every kernel by itself, where it would replay CUDA graphs."""
    if frozen.device.type != "cuda":
        return {}

    def plainly():
        frozen.steps.repeatable = False
        try:
            return ours()
        finally:
            frozen.steps.repeatable = True

    return {"advfeat, no graphs": plainly}


def measures(net, x, y, n_steps):
    """L2 PGD with one more measure each time."""
    device = x.device
    ordinary, fast = _ordinary(net), copy.deepcopy(net).to(memory_format=torch.channels_last)
    networks = {
        "plain torch": ordinary,
        "channels-last": fast,
        "+ batch-norm folded": FrozenNetwork(net, device=device, precision="fp32"),
        "+ bf16": FrozenNetwork(net, device=device, precision="bf16"),
    }
    contenders = {
        name: functools.partial(_loop, network, x, y, n_steps)
        for name, network in networks.items()
    }
    contenders = _judged(contenders, lambda found: F.cross_entropy(ordinary(found), y))
    return contenders | {"advfeat": pgd(net, x, y, n_steps, "bf16")["advfeat"]}


def inversion(net, x, n_steps, precision):
    """Move the next sample until its penultimate features are those of x."""
    frozen = FrozenNetwork(net, device=x.device, precision=precision)
    net = _ordinary(net)
    start = x.roll(1, 0)
    with torch.no_grad():
        target = frozen.features(x)

    def ours():
        return projected_gradient(
            frozen.inversion_features, x, target, feature_distance, ball=L2Ball(np.inf),
            bounds=(0, 1), step_size=STEP_SIZE, n_steps=n_steps, start=start,
        )  # fmt: skip

    def loop(features, n_forward):
        z = start.clone()
        for _ in range(n_steps):
            z.requires_grad_(True)
            value = (features(z) - target).square().sum()
            (gradient,) = torch.autograd.grad(value, z)
            with torch.no_grad():
                z = (z - STEP_SIZE * _unit(gradient)).clamp(0, 1)
                if n_forward == 2:
                    features(z)
        return z

    penultimate = _Penultimate(net)
    contenders = {
        "advfeat": ours,
        "tuned loop": lambda: loop(frozen.inversion_features, 1),
        "plain torch": lambda: loop(penultimate, 1),
        # As the robustness package does with a loss of one's own.
        "two forwards": lambda: loop(penultimate, 2),
    } | _without_graphs(frozen, ours)
    return _judged(
        contenders, lambda found: (frozen.features(found) - target).square().sum(1).mean()
    )


def adversarial_training(network, x, y, batch_size, n_steps, precision):
    """One epoch of adversarial training: PGD on each batch and a step of SGD."""
    X, labels = x.cpu().numpy(), y.cpu().numpy()
    clf = AdversarialClassifier(
        network, eps=EPS, step_size=STEP_SIZE, n_steps=n_steps, batch_size=batch_size,
        max_epochs=1, lr=1e-3, lr_schedule="constant", random_state=0, verbose=0,
        precision=precision, device=str(x.device),
    )  # fmt: skip
    clf.partial_fit(X, labels, classes=np.arange(10))
    by_hand = _ordinary(clf.net_.module_)
    optimizer = _sgd(by_hand)

    def train_by_hand(net, optimizer, attacked, in_precision):
        total = 0.0
        for rows in torch.randperm(len(x), device=x.device).split(batch_size):
            net.eval()
            found = _loop(attacked(), x[rows], y[rows], n_steps)
            net.train()
            optimizer.zero_grad()
            with autocast(x.device, in_precision):
                logits = net(found)
            loss = F.cross_entropy(logits.float(), y[rows])
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(rows)
        return lambda: total / len(x)

    tuned_net = copy.deepcopy(clf.net_.module_).eval()
    tuned_optimizer = _sgd(tuned_net)
    view = AttackedNetwork(tuned_net, device=x.device, precision=precision)

    def refreshed():
        view.refresh()
        return view

    contenders = {
        "advfeat": lambda: _train(clf, X, labels),
        "tuned loop": lambda: train_by_hand(tuned_net, tuned_optimizer, refreshed, precision),
        "plain torch": lambda: train_by_hand(by_hand, optimizer, lambda: by_hand, "fp32"),
    }
    if has("art"):
        from art.defences.trainer import AdversarialTrainer

        theirs = _art_classifier(copy.deepcopy(by_hand), x, train=True)
        # Its AdversarialTrainerMadryPGD knows L-infinity only.
        trainer = AdversarialTrainer(theirs, _art_pgd(theirs, n_steps, batch_size), ratio=1.0)

        def of_art():
            with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
                trainer.fit(X, np.eye(10)[labels], batch_size=batch_size, nb_epochs=1)
            return lambda: None  # its trainer reports none

        contenders["ART"] = of_art
    return contenders


def epoch(network, x, y, batch_size, precision):
    """One epoch of plain training from arrays, without augmentation."""
    X, labels = x.cpu().numpy(), y.cpu().numpy()
    clf = StandardClassifier(
        network, batch_size=batch_size, max_epochs=1, lr=1e-3, lr_schedule="constant",
        random_state=0, verbose=0, precision=precision, device=str(x.device),
    )  # fmt: skip
    clf.partial_fit(X, labels, classes=np.arange(10))
    by_hand = _ordinary(clf.net_.module_)
    optimizer = _sgd(by_hand)

    def bare():
        by_hand.train()
        total = 0.0
        for rows in torch.randperm(len(x), device=x.device).split(batch_size):
            optimizer.zero_grad()
            loss = F.cross_entropy(by_hand(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(rows)
        return lambda: total / len(x)

    return {"advfeat": lambda: _train(clf, X, labels), "bare loop": bare}


def _train(clf, X, y):
    """One epoch; the loss as its history has it."""
    clf.partial_fit(X, y)
    return lambda: clf.net_.history[-1, "train_loss"]


def _judged(contenders, loss):
    """Callables that work and return what computes the loss of the inputs they found."""

    def judge(found):
        with torch.no_grad():
            return float(loss(found))

    def judged(call):
        found = call()
        return lambda: judge(found)

    return {name: functools.partial(judged, call) for name, call in contenders.items()}


def _sgd(net):
    return torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)


def _ordinary(net):
    """Return a copy in torch's default memory format, as networks usually are."""
    return copy.deepcopy(net).to(memory_format=torch.contiguous_format)


def _loop(net, x, y, n_steps):
    """L2 PGD as one writes it by hand."""
    z = x.clone()
    for _ in range(n_steps):
        z.requires_grad_(True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(net(z), y, reduction="sum"), z)
        with torch.no_grad():
            delta = z + STEP_SIZE * _unit(gradient) - x
            norm = delta.flatten(1).norm(dim=1).clamp_min(EPS)
            z = (x + delta * (EPS / norm).view(-1, 1, 1, 1)).clamp(0, 1)
    return z


def _unit(gradient):
    norm = gradient.flatten(1).norm(dim=1).clamp_min(1e-12)
    return gradient / norm.view(-1, 1, 1, 1)


class _Penultimate:
    """Features of a live network, by a hook on its last linear layer."""

    def __init__(self, net):
        self.net = net
        last = [layer for layer in net.modules() if isinstance(layer, torch.nn.Linear)][-1]
        last.register_forward_pre_hook(self._remember)

    def _remember(self, layer, args):
        self.features = args[0]

    def __call__(self, x):
        self.net(x)
        return self.features


def _art_pgd(classifier, n_steps, batch_size):
    from art.attacks.evasion import ProjectedGradientDescentPyTorch

    return ProjectedGradientDescentPyTorch(
        classifier, norm=2, eps=EPS, eps_step=STEP_SIZE, max_iter=n_steps, batch_size=batch_size,
        verbose=False,
    )  # fmt: skip


def _art_classifier(net, x, train=False):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from art.estimators.classification import PyTorchClassifier

    optimizer = None
    if train:
        optimizer = _sgd(net)
    return PyTorchClassifier(
        net, loss=torch.nn.CrossEntropyLoss(), optimizer=optimizer, input_shape=x.shape[1:],
        nb_classes=10, clip_values=(0, 1), device_type="gpu" if x.is_cuda else "cpu",
    )  # fmt: skip

"""Data-parallel training: two processes of torch.distributed against one."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from skorch.callbacks import EarlyStopping, Freezer, LRScheduler, PrintLog
from torch import nn
from torch.optim.lr_scheduler import StepLR

from advfeat import AdversarialClassifier, NonRobustRelabeler, StandardClassifier
from advfeat.classifiers import _nets, _standard
from advfeat.classifiers._distributed import Ranks

SHORT = {"max_epochs": 1, "batch_size": 16, "verbose": 0}
N = 45  # no multiple of the batch size, nor of two


def data():
    rng = np.random.default_rng(0)
    X = rng.random((N, 1, 6, 6), dtype=np.float32)
    y = np.where(X[:, 0, :3].sum((1, 2)) > X[:, 0, 3:].sum((1, 2)), "up", "down")
    return X, y, rng.uniform(0.5, 2, N)


class Convolution(nn.Sequential):
    """A network without batch-norm; some of its weights are never used."""

    def __init__(self, in_channels, n_classes):
        super().__init__(
            nn.Conv2d(in_channels, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, n_classes)
        )
        self.unused = nn.Parameter(self[0].bias.detach().clone())

    def forward(self, x):
        for layer in self:
            x = layer(x)
        return x


def classifiers():
    common = {"batch_size": 16, "max_epochs": 2, "random_state": 0, "verbose": 0}
    few = {"n_steps": 2, "random_start": True, "early_stopping": True, "validation_fraction": 0.2}
    stop = EarlyStopping("train_loss", patience=1, threshold=10)
    return {
        "standard": StandardClassifier(Convolution, augmentation="paper", **common),
        "adversarial": AdversarialClassifier(Convolution, **few, **common),
        "batch-norm": AdversarialClassifier("small_cnn", n_steps=1, **common),
        "tiny batches": StandardClassifier(Convolution, **{**common, "batch_size": 3}),
        "stopped": StandardClassifier(Convolution, callbacks=[stop], **common),
    }


def state(clf):
    return np.concatenate([t.numpy().ravel() for t in clf.net_.module_.state_dict().values()])


def trained():
    """Everything that one process, or each of two, finds."""
    X, y, weight = data()
    found = {}
    for name, clf in classifiers().items():
        clf.fit(X, y, sample_weight=weight)
        found[name] = state(clf)
        found[f"{name}: loss"] = [epoch["train_loss"] for epoch in clf.history_]
        found[f"{name}: batches"] = [b["train_batch_size"] for b in clf.history_[0]["batches"]
                                     if "train_batch_size" in b]  # fmt: skip
        if clf.early_stopping:
            found[f"{name}: scores"] = clf.validation_scores_
            found[f"{name}: valid_acc"] = [epoch["valid_acc"] for epoch in clf.history_]
    clf = StandardClassifier(Convolution, batch_size=16, random_state=0, verbose=0)
    for part in (slice(0, 20), slice(20, N)):
        clf.partial_fit(X[part], y[part], classes=["down", "up"], sample_weight=weight[part])
    found["partial_fit"] = state(clf)
    return found


def trained_on_one_of_two(out):
    import torch.distributed as dist

    from advfeat.classifiers import _callbacks

    found = trained()
    X, y, weight = data()
    rank = dist.get_rank()
    clf = StandardClassifier("mlp", bounds=(0, 1), max_epochs=1, verbose=1)
    shown = []
    bar = _callbacks.progress_bar
    _callbacks.progress_bar = lambda verbose, **kw: shown.append(verbose) or bar(verbose=0, **kw)
    found["without a seed"] = state(clf.fit(X.reshape(N, -1), y))
    found["shown"] = [bool(verbose) for verbose in shown]
    for name, change in {
        "X": (X + np.float32(1e-3 * rank) * (X < 0.5), y, weight),
        "y": (X, np.roll(y, rank), weight),
        "sample_weight": (X, y, weight * np.linspace(1, 1 + rank, N)),
        "order": (np.roll(X, rank, axis=0), y, weight),
        "length": (X[: N - rank], y[: N - rank], weight[: N - rank]),
    }.items():
        try:
            clf.set_params(network=Convolution).fit(*change)
        except ValueError as error:
            found[f"different {name}"] = str(error)
    found |= {f"told of {name}": told(call) for name, call in mistakes(rank).items()}
    clf = StandardClassifier(Convolution, random_state=0, **SHORT).fit(X, y)
    found["after all"] = state(clf)
    found["allowed"] = allowed(rank)
    np.savez(out, **found)


def told(call):
    try:
        call()
    except ValueError as error:
        return str(error)
    return ""


def mistakes(rank):
    """What differs between the two ranks, or is wrong on one of them alone."""
    X, y, _ = data()

    def fit(network=Convolution, X=X, y=y, **settings):
        return StandardClassifier(network, **{**SHORT, **settings}).fit(X, y)

    def go_on(method, **settings):
        part = slice(10 * rank, None)
        with (
            mock.patch.object(_standard, "Ranks", Alone),
            mock.patch.object(_nets, "Ranks", Alone),
        ):
            clf = fit(X=X[part], y=y[part], random_state=0, **settings)
        return getattr(clf, method)(X, y)

    def parts(clf, **settings):
        return clf.set_params(**settings).partial_fit(X, y)

    def on_rank_1(**settings):
        """Trained alone before, on one rank."""
        if rank:
            return lambda method: go_on(method, **settings)
        return lambda method: getattr(StandardClassifier(Convolution, **SHORT), method)(X, y)

    rate = LRScheduler(policy=StepLR, step_size=1)
    return {
        "lr": lambda: fit(lr=0.1 + rank),
        "lr_schedule": lambda: fit(lr_schedule=("one-cycle", "constant")[rank]),
        "tol": lambda: fit(early_stopping=True, tol=0.1 * rank),
        "classes": lambda: fit(y=y if rank else np.char.upper(y)),
        "more classes": lambda: StandardClassifier(Convolution, **SHORT).partial_fit(
            X, y, classes=["down", "up", "left"][: 2 + rank]
        ),
        "network": lambda: fit(("mlp", "small_cnn")[rank]),
        "callbacks": lambda: fit(
            lr_schedule="constant", callbacks=[rate] if rank else [Freezer("0.*")]
        ),
        "attack": lambda: AdversarialClassifier(
            Convolution, n_steps=2, eps=0.1 * (1 + rank), **SHORT
        ).fit(X, y),
        "class": lambda: (StandardClassifier, AdversarialClassifier)[rank](
            Convolution, **SHORT
        ).fit(X, y),
        "momentum": lambda: go_on("partial_fit"),
        "warm start": lambda: go_on("fit", warm_start=True),
        "seed": lambda: parts(another_seed(fit(random_state=0), rank)),
        "a fit on one rank": lambda: on_rank_1()("partial_fit"),
        "a warm start on one rank": lambda: on_rank_1(warm_start=True)("fit"),
        "early stopping in parts": lambda: parts(
            StandardClassifier(Convolution, **SHORT), early_stopping=bool(rank)
        ),
        "an invalid parameter in parts": lambda: parts(
            StandardClassifier(Convolution, **SHORT), lr=0.1 - rank
        ),
        "an invalid random_state": lambda: fit(random_state="a" if rank else 0),
        "an invalid parameter": lambda: fit(batch_size=16 - 16 * rank),
        "an unknown network": lambda: fit(("mlp", "linear")[rank]),
        "a NaN": lambda: fit(X=np.where(rank and X > 0.9, np.nan, X)),
        "a class alone": lambda: StandardClassifier(Convolution, **SHORT).partial_fit(
            X, y, classes=["down", "up"][rank:]
        ),
        "a store": lambda: NonRobustRelabeler(
            StandardClassifier(Convolution, **SHORT), n_steps=1, store="never", random_state=0
        ).fit_transform(X, y),
    }


def another_seed(clf, rank):
    clf.net_.seed += rank
    return clf


def allowed(rank):
    """What may differ: what is the same in another form, and who logs."""
    X, y, _ = data()
    log = [PrintLog(sink=lambda *words: None)] if rank else None
    mixed = [
        StandardClassifier(Stateful, callbacks=log, random_state=0, **SHORT).fit(X, y),
        StandardClassifier(
            Convolution,
            lr=(0.1, np.float64(0.1))[rank],
            weight_decay=(0, 0.0)[rank],
            class_weight=({"up": 1, "down": 2}, {"down": 2.0, "up": 1.0})[rank],
            bounds=(torch.zeros(1), np.ones(1)),
            random_state=0,
            **SHORT,
        ).fit(X, y),
    ]
    half = StandardClassifier(HalfBuffer, random_state=0, **SHORT)
    mixed.append(half.partial_fit(X, y).partial_fit(X, y))
    return np.concatenate([parameters(clf) for clf in mixed])


def parameters(clf):
    return np.concatenate([p.detach().float().numpy().ravel() for p in clf.module_.parameters()])


class Stateful(Convolution):
    """Its state_dict holds more than tensors."""

    def get_extra_state(self):
        return {"a": 1}

    def set_extra_state(self, state):
        pass


class HalfBuffer(Convolution):
    def __init__(self, in_channels, n_classes):
        super().__init__(in_channels, n_classes)
        self.scale = nn.Parameter(torch.ones(1, dtype=torch.bfloat16), requires_grad=False)

    def forward(self, x):
        return super().forward(x * self.scale.float())


class Alone(Ranks):
    """What a process finds that trains by itself."""

    def __init__(self):
        self.size, self.rank, self.module = 1, 0, None


SCRIPT = """
import sys, warnings
import torch, torch.distributed as dist
warnings.simplefilter("error")
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
import test_distributed
dist.init_process_group("gloo", init_method={url!r}, rank={rank}, world_size=2)
test_distributed.trained_on_one_of_two({out!r})
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    here = os.path.dirname(__file__)
    with contextlib.ExitStack() as stack:
        processes, logs = [], []
        for rank in range(2):
            out, url = str(folder / f"{rank}.npz"), (folder / "meeting").as_uri()
            code = SCRIPT.format(tests=here, url=url, rank=rank, out=out)
            logs.append(folder / f"{rank}.log")
            log = stack.enter_context(open(logs[-1], "wb"))
            processes.append(subprocess.Popen([sys.executable, "-c", code], stderr=log))
            stack.callback(processes[-1].wait)
            stack.callback(processes[-1].kill)
        for process, log in zip(processes, logs, strict=True):
            assert process.wait(timeout=300) == 0, log.read_text()
    return [dict(np.load(folder / f"{rank}.npz")) for rank in range(2)]


@pytest.fixture(scope="module")
def alone():
    return trained()


@pytest.mark.long
def test_ranks_end_with_the_same_bits(ranks):
    for name in ranks[0].keys() - {"shown"}:
        if name.startswith("told of"):
            continue  # one rank may only hear what is wrong on the other
        np.testing.assert_array_equal(ranks[0][name], ranks[1][name], name)
    assert len(ranks[0]) > 20


@pytest.mark.long
def test_two_ranks_are_one_process_within_rounding(ranks, alone):
    for name in alone.keys() - {"batch-norm", "batch-norm: loss"}:
        np.testing.assert_allclose(ranks[0][name], alone[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.long
def test_batch_norm_normalises_each_share_by_itself(ranks, alone):
    mine, one = ranks[0]["batch-norm: loss"], alone["batch-norm: loss"]
    assert not np.array_equal(mine, one)
    np.testing.assert_allclose(mine, one, rtol=0.2)


@pytest.mark.long
def test_only_the_first_rank_shows_progress(ranks):
    assert ranks[0]["shown"].tolist() == [True]
    assert ranks[1]["shown"].tolist() == [False]


@pytest.mark.parametrize(
    ("difference", "named"),
    [
        ("X", "X."),
        ("y", "y."),
        ("sample_weight", "sample_weight."),
        ("order", "X."),
        ("length", "X, y, sample_weight."),
    ],
)
def test_ranks_with_different_data_are_told_so(ranks, difference, named):
    for rank in ranks:
        message = str(rank[f"different {difference}"])
        assert f"They differ in: {named} Give every rank the whole data set" in message


@pytest.mark.parametrize(
    ("mistake", "named"),
    [
        ("lr", r"differ in: lr\."),
        ("lr_schedule", r"differ in: lr_schedule\."),
        ("tol", r"differ in: tol\."),
        ("classes", r"differ in: classes\."),
        ("more classes", "differ in: y, classes, network"),
        ("network", "differ in: network"),
        ("callbacks", r"differ in: callbacks\."),
        ("attack", "differ in: eps, attack"),
        ("class", "differ in: class, attack, eps"),
        ("momentum", r"differ in: earlier training\."),
        ("warm start", r"differ in: earlier training\."),
        ("seed", r"differ in: earlier training\."),
        ("a fit on one rank", "Some of the processes.*go on from an earlier training"),
        ("a warm start on one rank", "Some of the processes.*go on from an earlier training"),
        ("early stopping in parts", "partial_fit does not support early_stopping=True"),
        ("an invalid parameter in parts", "'lr' parameter of StandardClassifier"),
        ("an invalid random_state", "'random_state' parameter of StandardClassifier"),
        ("an invalid parameter", "'batch_size' parameter of StandardClassifier"),
        ("an unknown network", "'network' parameter must be one of"),
        ("a NaN", "NaN"),
        ("a class alone", "samples of at least 2 classes"),
        ("a store", "store='never'.*every process.*FrozenEstimator"),
    ],
)
def test_a_mistake_on_one_rank_is_told_on_both(ranks, mistake, named):
    messages = [str(rank[f"told of {mistake}"]) for rank in ranks]
    assert all(re.search(named, message) for message in messages), messages
    if mistake in ("an invalid parameter", "an unknown network", "a NaN"):
        assert messages[0].startswith("Rank 1 of the 2 processes that train together")


def test_ranks_train_after_their_mistakes(ranks):
    np.testing.assert_array_equal(ranks[0]["after all"], ranks[1]["after all"])


def test_what_may_differ_between_ranks(ranks):
    np.testing.assert_array_equal(ranks[0]["allowed"], ranks[1]["allowed"])


def test_shares_cut_a_batch():
    ranks = Ranks()
    assert ranks.share(5) == slice(0, 5)  # one process
    for size in (2, 3, 5):
        for n in (1, size, 2 * size, 2 * size + 1, 128):
            rows = []
            for rank in range(size):
                ranks.size, ranks.rank = size, rank
                rows.append(np.arange(n)[ranks.share(n)])
            if n < 2 * size:
                assert all(len(part) == n for part in rows)
            else:
                np.testing.assert_array_equal(np.concatenate(rows), np.arange(n))
                assert min(map(len, rows)) >= 2


@pytest.mark.slow
def test_the_example_runs_with_its_own_line():
    root = Path(__file__).parents[2]
    example = root / "examples" / "distributed_training.py"
    (line,) = re.findall(r"^    (torchrun .*)$", example.read_text(), re.MULTILINE)
    command = [sys.executable, "-m", "torch.distributed.run", *line.split()[1:]]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    (accuracy,) = re.findall(r"^2 processes, accuracy (.*)$", run.stdout, re.MULTILINE)
    assert float(accuracy) > 0.85

"""What a process that runs for long meets: refits beside predictions, changed files, garbage."""

import gc
import linecache
import os
import signal
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from skorch.callbacks import Callback
from torch import nn
from torch.fx import graph_module

import advfeat
from advfeat import (
    AdversarialClassifier,
    GaussianRobustMLE,
    NonRobustRelabeler,
    RobustFeatureInverter,
    StandardClassifier,
    from_torch,
    robust_accuracy_score,
)
from advfeat.gaussian import discriminant
from advfeat.utils._files import Lock

QUICK = {"max_epochs": 2, "random_state": 0, "verbose": 0, "device": "cpu"}


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    side = np.arange(60) % 2
    return (rng.random((60, 6)) * 0.3 + 0.7 * side[:, None]).astype("float32"), side


def refits(monkeypatch, owner, name, clf, X, y):
    """Let a function fit the classifier anew just before it does its own work, once."""
    whole, left = getattr(owner, name), [1]

    def meanwhile(*args, **kwargs):
        if left:
            left.pop()
            clf.fit(X, y)
        return whole(*args, **kwargs)

    monkeypatch.setattr(owner, name, meanwhile)
    return left


@pytest.mark.parametrize(
    "verb", ["predict", "predict_proba", "predict_log_proba", "decision_function", "score"]
)
@pytest.mark.parametrize("kind", [StandardClassifier, GaussianRobustMLE])
def test_a_refit_in_another_thread_is_not_mixed_in(table, monkeypatch, kind, verb):
    X, side = table
    names, others = (
        np.array(["cat", "dog"])[side],
        np.array(["elk", "dog", "fox"])[np.arange(60) % 3],
    )
    clf = (kind(**QUICK) if kind is StandardClassifier else kind(0.1)).fit(X, names)
    args = (X, names) if verb == "score" else (X,)
    expected = getattr(clf, verb)(*args)
    if kind is StandardClassifier:
        left = refits(monkeypatch, StandardClassifier, "_forward", clf, X, others)
    else:
        left = refits(monkeypatch, discriminant, "validate_data", clf, X, others)
    assert_array_equal(getattr(clf, verb)(*args), expected)
    assert not left and list(clf.classes_) == ["dog", "elk", "fox"]


def test_attacks_are_of_one_fit(table, monkeypatch):
    X, side = table
    names, others = np.array(["cat", "dog"])[side], np.arange(60) % 3
    clf = StandardClassifier(**QUICK).fit(X, names)
    settings = {"norm": 2, "eps": 0.1, "verbose": 0}
    expected = robust_accuracy_score(clf, X, names, **settings)
    left = refits(monkeypatch, StandardClassifier, "frozen", clf, X, others)
    assert robust_accuracy_score(clf, X, names, **settings) == expected
    assert not left and list(clf.classes_) == [0, 1, 2]


@pytest.mark.filterwarnings("ignore:The features were matched poorly")
@pytest.mark.filterwarnings("ignore:The source takes only")
@pytest.mark.parametrize("kind", [NonRobustRelabeler, RobustFeatureInverter])
def test_constructions_are_of_one_fit(table, monkeypatch, kind):
    X, side = table
    names, others = np.array(["cat", "dog"])[side], np.arange(60) % 3
    constructor = kind(StandardClassifier(**QUICK), n_steps=2, random_state=0, verbose=0)
    constructor.fit(X, names)
    args = (X, names) if kind is NonRobustRelabeler else (X,)
    verb = "relabel" if kind is NonRobustRelabeler else "invert"
    expected = getattr(constructor, verb)(*args)
    left = refits(monkeypatch, kind, "_check_inputs", constructor, X, others)
    found = getattr(constructor, verb)(*args)
    assert_array_equal(getattr(found, "X", found), getattr(expected, "X", expected))
    assert not left and list(constructor.estimator_.classes_) == [0, 1, 2]


def test_verbs_warn_at_the_line_of_their_caller(table):
    X, side = table
    clf = StandardClassifier(**QUICK).fit(X, side)
    inverter = RobustFeatureInverter(clf, n_steps=1, step_size=1e-9, random_state=0, verbose=0)
    with pytest.warns(ConvergenceWarning) as caught:
        inverter.fit(X, side).invert(X)
    assert [w.filename for w in caught] == [__file__]


def test_what_is_set_during_a_fit_stays_set(table):
    X, y = table
    clf = StandardClassifier(**QUICK)

    class Note(Callback):
        def on_epoch_end(self, net, **kwargs):
            clf.set_params(lr=0.01)
            clf.seen = "by a callback"

    clf.set_params(callbacks=[Note()]).fit(X, y)
    assert clf.lr == 0.01 and clf.seen == "by a callback" and clf.score(X, y) > 0.5
    n_features = clf.n_features_in_
    clf.fit(X[:, :4], y)
    assert (n_features, clf.n_features_in_) == (6, 4)


def test_a_loaded_classifier_needs_its_file_no_more(table, tmp_path):
    X, y = table
    path = tmp_path / "model.safetensors"
    order = from_torch(nn.Linear(6, 2), classes=["b", "a"], input_shape=(6,), mean=0.1, std=2.0)
    for clf in (StandardClassifier(**QUICK).fit(X, y), order):
        advfeat.save(clf, path)
        network = {"network": nn.Linear(6, 2)} if clf is order else {}
        loaded = advfeat.load(path, **network)
        expected = loaded.decision_function(X)
        maps = Path("/proc/self/maps")
        assert not maps.exists() or str(path) not in maps.read_text()
        with open(path, "r+b") as file:
            file.write(b"\0" * path.stat().st_size)
        assert_array_equal(loaded.decision_function(X), expected)


@pytest.mark.filterwarnings("ignore:The source takes only")
def test_results_can_be_changed(table):
    X, y = table
    clf = StandardClassifier(**QUICK).fit(X, y)
    relabeler = NonRobustRelabeler(FrozenEstimator(clf), eps=0.1, n_steps=2, verbose=0)
    data = relabeler.fit_transform(X, y)
    again = relabeler.relabel(X, y)
    trained = from_torch(nn.Linear(6, 2), classes=[3, 5], input_shape=(6,))
    further = StandardClassifier(trained, **QUICK).fit(X, np.array([3, 5])[y])
    for classes in (data.classes, again.classes, further.classes_):
        classes += 1
    assert list(clf.classes_) == [0, 1] and list(trained.classes_) == [3, 5]


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_from_torch_keeps_copies_of_what_it_is_given(table, tmp_path, kind):
    X, _ = table
    classes, shape, low, mean = kind([5, 7]), [6], np.zeros(6), np.full(6, 0.5)
    clf = from_torch(
        nn.Linear(6, 2),
        classes=classes,
        input_shape=shape,
        mean=mean,
        std=2.0,
        bounds=(low, np.ones(6)),
    )
    expected = clf.predict(X)
    classes[0], shape[0], low[:], mean[0] = 1, 9, -5, 99
    clf.set_params(device="cpu")
    advfeat.save(clf, tmp_path / "model")
    loaded = advfeat.load(tmp_path / "model", network=nn.Linear(6, 2))
    for each in (clf, loaded):
        assert_array_equal(each.predict(X), expected)
        assert np.min(each.input_bounds_[0]) == 0


@pytest.mark.parametrize("kind", [StandardClassifier, AdversarialClassifier])
def test_no_gradients_are_left_in_the_network(table, kind):
    X, y = table
    settings = {"eps": 0.1} if kind is AdversarialClassifier else {}
    clf = kind(**QUICK, **settings).fit(X, y)
    assert all(weight.grad is None for weight in clf.module_.parameters())
    clf.partial_fit(X, y)
    assert all(weight.grad is None for weight in clf.module_.parameters())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_process_that_was_forked_meanwhile_holds_no_lock(tmp_path):
    lock, code = Lock(tmp_path / "lock"), "import time; time.sleep(60)"
    assert lock.acquire()
    child = subprocess.Popen([sys.executable, "-c", code], pass_fds=[lock._file.fileno()])
    try:
        lock.release()
        assert lock.acquire()
        lock.release()
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.out(self.hidden(x if float(x.detach().sum()) < 1e9 else -x).relu())


def traceable():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))


def uses(source, X, y):
    settings = {"norm": 2, "eps": 0.1, "n_steps": 2, "verbose": 0}
    source.features(X)
    robust_accuracy_score(source, X, y, **settings)
    RobustFeatureInverter(FrozenEstimator(source), n_steps=2, verbose=0).fit_transform(X, y)
    NonRobustRelabeler(FrozenEstimator(source), eps=0.1, n_steps=2, verbose=0).fit_transform(X, y)
    AdversarialClassifier(source, eps=0.1, **QUICK).fit(X, y)


@pytest.fixture
def no_collection():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:Some features of the source network have no gradient")
@pytest.mark.parametrize("make", [traceable, Untraceable])
def test_copies_of_networks_go_without_a_collection(table, make, no_collection):
    """The weights of a copy are found by their values."""
    X, y = table
    X, y = X[:10], y[:10]
    source = from_torch(make(), classes=[0, 1], input_shape=(6,))

    def alive():
        return sum(
            type(value) in (torch.Tensor, nn.Parameter) and value.shape == (8, 6)
            for value in gc.get_objects()
        )

    before = alive()
    uses(source, X, y)
    assert alive() == before


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_traced_networks_leave_no_text(table):
    X, y = table
    source = from_torch(traceable(), classes=[0, 1], input_shape=(6,))
    uses(source, X[:10], y[:10])
    before = len(linecache.cache), len(graph_module._loader.eval_cache)
    uses(source, X[:10], y[:10])
    assert (len(linecache.cache), len(graph_module._loader.eval_cache)) == before


def test_classes_of_networks_are_let_go_of(table):
    X, y = table

    class Offset(float):
        pass

    def study(offset):
        class Closure(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(6, 2)

            def forward(self, x):
                return self.layer(x) + offset

        StandardClassifier(Closure, **QUICK).fit(X, y).features(X)
        return weakref.ref(offset)

    gone = study(Offset(0.0))
    gc.collect()
    assert gone() is None


@pytest.mark.long
def test_the_start_method_of_processes_stays_open():
    code = (
        "import multiprocessing as mp, numpy as np, torch, advfeat\n"
        "X = np.zeros((8, 4), 'float32')\n"
        "X[:4] = np.eye(4)\n"
        "clf = advfeat.StandardClassifier(max_epochs=1, verbose=0).fit(X, [0, 1] * 4)\n"
        "clf.predict(X)\n"
        "mp.set_start_method('spawn')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)

"""Constructors: what is checked before the source is trained, and what is kept of it."""

import shutil
import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import DataConversionWarning
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from skorch import NeuralNetClassifier
from small_tables import X, Y, inverter, relabeler, source
from torch import nn

from advfeat import (
    AdversarialClassifier,
    StandardClassifier,
)
from advfeat.utils._files import Lock


class NoLinear(nn.Module):
    def __init__(self, n_classes, n_features):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_features, n_classes))

    def forward(self, x):
        return x @ self.weight


EARLY = {
    "a label that is lacking": (relabeler(target={"a": "b"}), r"lacks \['b'\]"),
    "a target that is no class": (relabeler(target={"a": "b", "b": "z"}), "not among the classes"),
    "targets of another type": (relabeler(target={"a": 1, "b": 0}), "another type"),
    "too few targets": (relabeler(target=lambda y: y[:3]), "one label per sample"),
    "starts of another shape": (inverter(init=X[:5]), "array of the shape of X"),
    "starts that are NaN": (inverter(init=X * np.nan), "init cannot be used: .*NaN"),
    "starts outside the box": (
        inverter(source(bounds=(-9, 9)), init=X + 90), r"init cannot be used: .*\[-9, 9\]"
    ),
    "no linear layer": (inverter(source(network=NoLinear)), "does not end in a linear layer"),
    "a store without a seed": (inverter(store="s", random_state=None), "integer 'random_state'"),
    "a used store": (relabeler(store="used"), "holds other files"),
    "a step size of zero": (inverter(step_size=0), "'step_size' parameter"),
    "a frozen source of other data": (
        inverter(FrozenEstimator(source().fit(X[:, :2], Y))), "expecting 2 features"
    ),
    "a frozen source of other labels": (
        relabeler(FrozenEstimator(source().fit(X, np.arange(40) % 2))), "another type"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EARLY)
def test_found_before_the_source_is_trained(name, monkeypatch, tmp_path):
    constructor, message = EARLY[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.txt").write_text("mine")
    monkeypatch.setattr(StandardClassifier, "fit", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ValueError, match=message):
        clone(constructor).fit_transform(X, Y)


def wide(n_features, n_classes):
    return nn.Sequential(nn.Linear(n_features, 7), nn.ReLU(), nn.Linear(7, n_classes))


# What is changed before the second call, and what its error names.
OTHERS = {
    "a parameter": (lambda c: c.set_params(n_steps=3), X, Y, r"n_steps \(2.0 there, 3.0 here\)"),
    "the seed": (lambda c: c.set_params(random_state=1), X, Y, "random_state"),
    "the batches": (lambda c: c.set_params(batch_size=7), X, Y, "batch_size"),
    "the dtype": (lambda c: c.set_params(dtype="float16"), X, Y, "dtype"),
    "the data": (lambda c: c, X + 1, Y, "X"),
    "fewer data": (lambda c: c, X[:-1], Y[:-1], "X"),
    "the labels": (lambda c: c, X, Y[::-1], "source y"),
    "the bounds": (lambda c: c.set_params(estimator__bounds=(-99, 99)), X, Y, "bounds"),
    "the source": (lambda c: c.set_params(estimator=AdversarialClassifier()), X, Y, "source"),
    "the source's lr": (lambda c: c.set_params(estimator__lr=0.5), X, Y, "source lr"),
    "its network": (lambda c: c.set_params(estimator__network=wide), X, Y, "source network"),
    "its epochs": (
        lambda c: c.set_params(estimator__max_epochs=2), X, Y,
        r"source max_epochs \(1.0 there, 2.0 here\)",
    ),
    "its classes": (lambda c: c.set_params(estimator__class_weight="balanced"), X, Y, "class_w"),
    "targets": (lambda c: c.set_params(target="deterministic"), X, Y, "target_labels"),
    "other targets": (lambda c: c.set_params(target=lambda y: y), X, Y, "target_labels"),
}  # fmt: skip


@pytest.fixture(scope="module")
def used(tmp_path_factory):
    """Constructors whose store holds the set that they made."""
    made = {}
    for make in (inverter, relabeler):
        made[make] = make(n_steps=2, store=tmp_path_factory.mktemp("store"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made[make].fit_transform(X, Y)
    return made


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("make", [inverter, relabeler])
def test_a_store_of_something_else_is_found_before_training(make, name, used, monkeypatch):
    change, data, labels, message = OTHERS[name]
    if "target" in name and make is inverter:
        pytest.skip("it has no targets")
    other = change(clone(used[make]))
    monkeypatch.setattr(StandardClassifier, "fit", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ValueError, match=f"something else: it differs in.*{message}"):
        other.fit_transform(data, labels)


def test_the_same_labels_in_another_type_are_the_same(used, tmp_path):
    labels = np.unique(Y, return_inverse=True)[1]
    kept = clone(used[inverter]).set_params(store=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [kept.fit_transform(X, labels.astype(kind)) for kind in (np.int64, np.int32)]
    assert_array_equal(*found)


def test_other_weights_of_samples_are_found_before_training(used, monkeypatch, tmp_path):
    weight = np.where(np.arange(40) < 20, 1.0, 0.0)
    kept = clone(used[relabeler]).set_params(store=tmp_path)
    kept.fit_transform(X, Y, sample_weight=weight)
    monkeypatch.setattr(StandardClassifier, "fit", lambda self, X, y, sample_weight: 1 / 0)
    with pytest.raises(ValueError, match="differs in source sample_weight"):
        kept.fit_transform(X, Y, sample_weight=1 - weight)


def test_a_skorch_source_is_checked_before_training(tmp_path, monkeypatch):
    net = NeuralNetClassifier(
        wide(3, 2), criterion=nn.CrossEntropyLoss, max_epochs=1, train_split=None, verbose=0
    )
    y = (Y == "b").astype(int)
    kept = relabeler(net, store=tmp_path)
    made = np.array(kept.fit_transform(X, y).X)
    assert_array_equal(clone(kept).fit_transform(X, y).X, made)  # the same source: the same store
    monkeypatch.setattr(NeuralNetClassifier, "fit", lambda *args, **kwargs: 1 / 0)
    monkeypatch.setattr(NeuralNetClassifier, "partial_fit", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ValueError, match="differs in source lr"):
        kept.set_params(estimator__lr=0.3).fit_transform(X, y)


@pytest.mark.filterwarnings("ignore:The features were matched poorly")
@pytest.mark.parametrize("make", [inverter, relabeler])
def test_the_same_store_is_not_taken_for_another(make, used):
    kept = used[make]
    before = np.array(np.load(kept.store / "X.npy"))
    for same in (
        clone(kept).set_params(estimator__verbose=0, n_jobs=1, estimator__bounds=None),
        clone(kept).set_params(estimator__channels="first"),
        clone(kept).set_params(estimator=FrozenEstimator(kept.estimator_)),
        clone(kept),  # also after a frozen one has had the folder
    ):
        made = same.fit_transform(np.asfortranarray(X), list(Y))
        assert_array_equal(getattr(made, "X", made), before)


def test_a_store_that_cannot_be_written_is_found_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(StandardClassifier, "fit", lambda *args, **kwargs: 1 / 0)
    kept = relabeler(store=tmp_path / "s")
    with monkeypatch.context() as full, pytest.raises(OSError, match="bytes are needed"):
        full.setattr("shutil.disk_usage", lambda folder: shutil._ntuple_diskusage(100, 90, 10))
        kept.fit_transform(X, Y)
    lock = Lock(tmp_path / "s" / ".lock")
    assert lock.acquire()
    try:
        with pytest.raises(BlockingIOError, match="being written by another process"):
            kept.fit_transform(X, Y)
    finally:
        lock.release()
    (tmp_path / "s" / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        kept.fit_transform(X, Y)


@pytest.mark.parametrize("make", [inverter, relabeler])
@pytest.mark.parametrize(
    "stop", [KeyboardInterrupt, RuntimeError("no memory"), OSError(28, "full")]
)
def test_a_trained_source_is_kept(make, stop, monkeypatch):
    constructor = make().fit(X, Y)
    before = constructor.estimator_

    def fail(*args, **kwargs):
        raise stop

    monkeypatch.setattr("advfeat.construction._train_time.run_batches", fail)
    with pytest.raises(BaseException, match=r"FrozenEstimator\(constructor.estimator_\)"):
        constructor.fit_transform(X[:30], Y[:30])
    monkeypatch.undo()
    assert constructor.estimator_ is not before
    onward = constructor.set_params(estimator=FrozenEstimator(constructor.estimator_))
    made, expected = onward.fit_transform(X[:30], Y[:30]), make().fit_transform(X[:30], Y[:30])
    assert_array_equal(getattr(made, "X", made), getattr(expected, "X", expected))


def test_what_an_earlier_call_made_is_gone():
    constructor = inverter()
    constructor.fit_transform(X, Y)
    assert not hasattr(constructor.fit(X, Y), "residual_")


def test_a_callable_is_asked_once():
    calls = []
    made = relabeler(target=lambda y: calls.append(1) or y[::-1]).fit_transform(X, Y)
    assert_array_equal(made.y, Y[::-1])
    assert calls == [1]


@pytest.mark.filterwarnings("ignore:The features were matched poorly")
@pytest.mark.parametrize("make", [inverter, relabeler])
def test_a_column_of_labels_is_the_labels(make):
    """Also for a classifier behind the constructor, which gets the same column."""
    pipes = [Pipeline([("make", make()), ("clf", source())]) for _ in range(2)]
    pipes[0].fit(X, Y)
    with pytest.warns(DataConversionWarning, match="column-vector y"):
        pipes[1].fit(X, Y[:, None])
    assert_array_equal(pipes[0].predict_proba(X), pipes[1].predict_proba(X))

"""save and load: the same bits again, without pickles; whatever does not fit is named."""

import json
import os
import pickle

import cloudpickle
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal
from persistence_cases import QUICK, Own, again, edit, same
from safetensors import safe_open
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import nn

from advfeat import (
    AdversarialClassifier,
    RobustFeatureInverter,
    StandardClassifier,
    from_torch,
    load,
    save,
)
from advfeat.classifiers.networks import NETWORKS


@pytest.mark.parametrize("Classifier", [StandardClassifier, AdversarialClassifier])
def test_a_class_of_a_script_travels_with_what_was_fitted(Classifier, digits):
    """As joblib sends it to workers, which do not have the script."""

    class Net(Own):
        pass

    X, y, *_ = digits
    X, y = X[:60], y[:60]
    clf = Classifier(network=Net, **QUICK).fit(X, y)
    sent = cloudpickle.dumps(clf)
    with pytest.raises((pickle.PicklingError, AttributeError)):  # only by its name
        pickle.dumps(clf)
    there = pickle.loads(sent)
    assert_array_equal(there.predict_proba(X), clf.predict_proba(X))
    for one in (clf, there):  # which go on from the same state of the optimizer
        one.partial_fit(X, y)
    assert_array_equal(there.predict_proba(X), clf.predict_proba(X))


def test_states_that_skorch_has_made_can_be_read(digits):
    X, y, *_ = digits
    net = StandardClassifier(**QUICK).fit(X[:60], y[:60]).net_
    read = type(net).__new__(type(net))
    read.__setstate__(NeuralNet.__getstate__(net))
    assert_array_equal(read.predict_proba(X[:5]), net.predict_proba(X[:5]))


class Wider(nn.Sequential):
    def __init__(self, n_classes):
        super().__init__(nn.Conv2d(1, 5, 3), nn.Flatten(), nn.Linear(180, n_classes))


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[] if n in ("mlp", "small_cnn", "resnet9") else pytest.mark.slow)
        for n in NETWORKS
    ],
)
def test_every_named_network(name, path):
    rng = np.random.default_rng(0)
    X, y = rng.random((24, 2, 8, 8), dtype=np.float32), np.arange(24) % 3
    clf = StandardClassifier(name, **QUICK).fit(X, y)
    same(clf, again(clf, path), X, y)


@pytest.mark.long
@pytest.mark.parametrize("fixture", ["standard", "adversarial"])
def test_both_classifiers(fixture, request, digits, path):
    _, _, X_test, y_test = digits
    clf = request.getfixturevalue(fixture)
    twin = again(clf, path)
    same(clf, twin, X_test, y_test)
    assert repr(twin) == repr(clf)
    assert twin.get_params() == clf.get_params()
    assert [row["train_loss"] for row in twin.history_] == [
        row["train_loss"] for row in clf.history_
    ]
    assert not any(layer.training for layer in twin.module_.modules())
    again(twin, path)  # and once more
    assert not [name for name in os.listdir(path.parent) if name != path.name]


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["zero", "one", "two"]),
        np.array(["zero", "one", "two"], dtype=object),
        np.array([-5, 7, 2**40]),
        np.array([0, 1, 2], dtype=np.uint8),
        np.array([0.0, 1.0, 2.0], dtype=np.float32),
        np.array([False, True, True]),
        np.array(["2020-01-01", "2020-01-02", "2021-01-01"], dtype="M8[D]"),
        np.array([5, 7, 2**60], dtype="m8[ns]"),
    ],
    ids=lambda labels: str(labels.dtype),
)
def test_labels_keep_their_type(labels, path):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 4)).astype(np.float32), labels[np.arange(30) % 3]
    weight = {y[0]: 2.0} if labels.dtype.kind not in "mM" else None
    clf = StandardClassifier(class_weight=weight, **QUICK).fit(X, y)
    twin = again(clf, path)
    same(clf, twin, X, y)
    assert twin.class_weight == clf.class_weight


def test_data_frames_and_tables(path):
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(40, 3)), columns=["a", "b", "c"])
    y = np.arange(40) % 2
    clf = StandardClassifier(bounds=(-10, np.inf), **QUICK).fit(X, y)
    twin = again(clf, path)
    assert_array_equal(twin.feature_names_in_, clf.feature_names_in_)
    assert twin.n_features_in_ == 3
    assert twin.bounds == (-10, np.inf)
    same(clf, twin, X, y, attacked=False)
    with pytest.raises(ValueError, match="feature names"):
        twin.predict(X[["b", "a", "c"]])


def test_uint8_images_and_bounds_of_each_channel(path):
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (40, 2, 6, 6), dtype=np.uint8), np.arange(40) % 2
    clf = AdversarialClassifier(norm=np.inf, eps=0.1, n_steps=1, **QUICK).fit(X, y)
    same(clf, again(clf, path), X, y)
    X = X / np.float32(255)
    bounds = (np.array([0.0, -1.0]), np.array([1.0, 2.0]))
    clf = StandardClassifier(bounds=bounds, **QUICK).fit(X, y)
    twin = again(clf, path)
    same(clf, twin, X, y)
    for ours, theirs in zip(twin.input_bounds_, clf.input_bounds_, strict=True):
        assert_array_equal(ours, theirs)


@pytest.mark.parametrize("Classifier", [StandardClassifier, AdversarialClassifier])
def test_partial_fit_goes_on_to_the_same_bits(Classifier, digits, path):
    X, y, X_test, _ = digits
    clf = Classifier(random_state=0, verbose=0).partial_fit(X[:300], y[:300])
    clf.partial_fit(X[:300], y[:300])
    twin = again(clf, path)
    for c in (clf, twin):
        c.partial_fit(X[300:], y[300:])
    assert_array_equal(twin.decision_function(X_test), clf.decision_function(X_test))
    assert len(twin.history_) == len(clf.history_) == 3


def test_warm_start_and_a_new_fit(digits, path):
    X, y, X_test, _ = digits
    clf = StandardClassifier(warm_start=True, **QUICK).fit(X, y)
    twin = again(clf, path)
    for c in (clf, twin):
        c.fit(X, y)
    assert_array_equal(twin.decision_function(X_test), clf.decision_function(X_test))


def test_scores_of_the_validation(digits, path):
    X, y, _, _ = digits
    clf = StandardClassifier(early_stopping=True, **QUICK).fit(X, y)
    twin = again(clf, path)
    assert twin.validation_scores_ == clf.validation_scores_
    assert twin.best_validation_score_ == clf.best_validation_score_


def test_steps_that_the_guard_raised_are_kept(adversarial, path):
    clf = pickle.loads(pickle.dumps(adversarial))
    clf.net_.attack = {**clf.net_.attack, "n_steps": 7, "step_size": 0.25}
    assert again(clf, path).net_.attack == clf.net_.attack


@pytest.mark.parametrize("init", ["sample", "noise"])
def test_a_loaded_source_constructs_the_same_set(init, adversarial, digits, path):
    X, y, _, _ = digits
    sets = [
        RobustFeatureInverter(
            FrozenEstimator(source), init=init, n_steps=20, random_state=0, verbose=0
        ).fit_transform(X[:50], y[:50])
        for source in (adversarial, again(adversarial, path))
    ]
    assert_array_equal(*sets)


@pytest.mark.long
def test_own_networks_are_passed_by_hand(digits, path):
    X, y, X_test, y_test = digits
    clf = StandardClassifier(Own, **QUICK).fit(X, y)
    for network in (Own, lambda n_classes: Own(n_classes), Own(10)):
        twin = again(clf, path, network=network)
        same(clf, twin, X_test, y_test)
        assert twin.network is network
    with pytest.raises(ValueError, match=r"network of its own, Own.*load\(path, network=Own\)"):
        load(path)
    with pytest.raises(ValueError, match="do not fit network=Wider: body.0.weight has the shape"):
        load(path, network=Wider)


@pytest.mark.parametrize("classes", [range(10), list("jihgfedcba")])
def test_networks_from_torch(classes, digits, path):
    X, y, X_test, _ = digits
    torch.manual_seed(0)
    net = Own(10).to(memory_format=torch.channels_last)
    clf = from_torch(net, classes=classes, input_shape=(1, 8, 8), mean=[0.3], std=torch.ones(1))
    labels = np.asarray(classes)[digits[3]]
    for network in (Own, Own(10)):
        same(clf, again(clf, path, network=network), X_test, labels)
    with pytest.raises(ValueError, match="do not fit network=Wider: 0.weight has"):
        load(path, network=Wider)
    # Trained further, with the order of the classes and the normalisation inside.
    further = StandardClassifier(clf, **QUICK).fit(X, np.asarray(classes)[y])
    same(further, again(further, path, network=clf), X_test, labels)
    same(further, load(path, network=Own(10)), X_test, labels)


def test_shared_weights(path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = self.two = nn.Linear(4, 4)

        def forward(self, x):
            return self.two(torch.relu(self.one(x)))

    X = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    clf = from_torch(Tied(), classes=range(4), input_shape=(4,))
    same(clf, again(clf, path, network=Tied), X, np.arange(9) % 4)


def test_the_device_can_be_changed(kept, monkeypatch):
    edit(kept, lambda header: header["params"].update(device="cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="cuda"):
        load(kept)
    assert load(kept, device="cpu").device == "cpu"


def test_callbacks_are_told_of(digits, path):
    X, y, _, _ = digits
    clf = StandardClassifier(
        callbacks=[Callback()], **{**QUICK, "random_state": np.random.RandomState(0)}
    ).fit(X[:100], y[:100])
    save(clf, path)
    with pytest.warns(UserWarning, match="Not kept in the file: callbacks, random_state"):
        assert load(path).callbacks is None


def test_nothing_but_tensors_and_text(kept, monkeypatch):
    def no(*args, **kwargs):
        raise AssertionError("unpickled")

    assert b"pickle" not in kept.read_bytes()
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, no)
    load(kept)
    with safe_open(kept, framework="np") as file:
        header = json.loads(file.metadata()["advfeat"])
    assert header["class"] == "StandardClassifier"
    assert header["params"]["max_epochs"] == 15


def test_writing_is_all_or_nothing(standard, adversarial, kept, monkeypatch):
    before = kept.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            save(adversarial, kept)
    assert kept.read_bytes() == before
    assert os.listdir(kept.parent) == [kept.name]
    save(adversarial, kept)
    assert isinstance(load(kept), AdversarialClassifier)


def test_what_cannot_be_kept(standard, digits, path, tmp_path):
    X, y, _, _ = digits

    class Mine(StandardClassifier):
        pass

    linear = LogisticRegression().fit(X.reshape(len(X), -1), y)
    for other in (linear, make_pipeline(standard), Mine(), nn.Linear(2, 2)):
        with pytest.raises(TypeError, match="save keeps StandardClassifier.*use pickle"):
            save(other, path)
    with pytest.raises(TypeError, match="pass its estimator"):
        save(FrozenEstimator(standard), path)
    with pytest.raises(NotFittedError):
        save(StandardClassifier(), path)
    with pytest.raises(FileNotFoundError, match="no folder.*does not exist"):
        save(standard, tmp_path / "no folder" / "a.safetensors")
    assert not path.exists()
    days = np.array(["2020-01-01", "2020-01-02"], dtype="M8[ns]")
    weighted = StandardClassifier(class_weight={days[0]: 2.0}, max_epochs=1, verbose=0)
    weighted.fit(X[:20], days[np.arange(20) % 2])
    with pytest.raises(TypeError, match="save cannot keep class_weight"):
        save(weighted, path)
    assert not path.exists()

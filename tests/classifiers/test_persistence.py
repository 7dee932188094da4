"""save and load: the same bits again, without pickles; whatever does not fit is named."""

import copy
import json
import os
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback
from torch import nn

from advfeat import (
    AdversarialClassifier,
    RobustFeatureInverter,
    StandardClassifier,
    adversarial_examples,
    from_torch,
    load,
    save,
)
from advfeat.classifiers._overfitting import raised
from advfeat.classifiers.networks import NETWORKS

QUICK = {"max_epochs": 1, "random_state": 0, "verbose": 0}


class Own(nn.Sequential):
    def __init__(self, n_classes):
        super().__init__(
            nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
            nn.Linear(144, n_classes),
        )  # fmt: skip


class Wider(nn.Sequential):
    def __init__(self, n_classes):
        super().__init__(nn.Conv2d(1, 5, 3), nn.Flatten(), nn.Linear(180, n_classes))


def again(clf, path, **given):
    save(clf, path)
    return load(path, **given)


def same(one, other, X, y, attacked=True):
    assert type(one) is type(other)
    assert_array_equal(one.predict(X), other.predict(X))
    assert one.predict(X).dtype == other.predict(X).dtype
    for method in ("decision_function", "predict_proba", "features"):
        assert_array_equal(getattr(one, method)(X), getattr(other, method)(X))
    assert one.classes_.dtype == other.classes_.dtype
    assert_array_equal(one.classes_, other.classes_)
    if attacked:
        attack = {"norm": 2, "eps": 0.3, "n_steps": 3, "verbose": 0}
        ours, theirs = (adversarial_examples(c, X[:20], y[:20], **attack) for c in (one, other))
        assert_array_equal(ours[0], theirs[0])


def edit(path, change, keep_checksum=False):
    """Change the header of a file, as someone with an editor would, or as we would."""
    from advfeat.classifiers._persistence import _checksum

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header = json.loads(metadata["advfeat"])
    change(header)
    text = json.dumps(header)
    checksum = metadata["checksum"] if keep_checksum else _checksum(text, tensors)
    save_file(tensors, path, {"advfeat": text, "checksum": checksum})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "source.safetensors"


@pytest.fixture
def kept(standard, path):
    save(standard, path)
    return path


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
    ],
    ids=lambda labels: str(labels.dtype),
)
def test_labels_keep_their_type(labels, path):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 4)).astype(np.float32), labels[np.arange(30) % 3]
    clf = StandardClassifier(class_weight={y[0]: 2.0}, **QUICK).fit(X, y)
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


# ---- files that are not what they should be -----------------------------------------------------


def damaged(kept, content):
    kept.write_bytes(content)
    with warnings.catch_warnings(), pytest.raises(ValueError) as caught:
        warnings.simplefilter("ignore")
        load(kept)
    message = str(caught.value)
    assert str(kept) in message
    assert "\n" not in message
    return message


def test_damaged_files(kept):
    whole = kept.read_bytes()
    for length in (0, 3, 8, 100, 5000, len(whole) // 2, len(whole) - 1):
        assert "damaged" in damaged(kept, whole[:length])
    for content in (whole + b"0", b"\x80\x05K\x01.", b"hello" * 100, os.urandom(999)):
        assert "damaged" in damaged(kept, content)
    for place in np.linspace(len(whole) // 3, len(whole) - 1, 9).astype(int):
        flipped = bytearray(whole)
        flipped[place] ^= 1
        assert "damaged" in damaged(kept, bytes(flipped))


def test_a_header_changed_by_hand(kept):
    edit(kept, lambda header: header["params"].update(lr=0.2), keep_checksum=True)
    with pytest.raises(ValueError, match="is damaged: its content does not have the checksum"):
        load(kept)


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.update({"class": "LogisticRegression"}),
        lambda h: h.update({"class": ["StandardClassifier"]}),
        lambda h: h.pop("params"),
        lambda h: h["params"].update(unknown=1),
        lambda h: h["params"].update(lr="fast"),
        lambda h: h["params"].update(network="no such network"),
        lambda h: h["params"].update(network="mlp"),
        lambda h: h["params"].update(bounds={"code": "import os"}),
        lambda h: h.update(input_shape_=[1, 9]),
        lambda h: h.update(input_shape_="big"),
        lambda h: h.update(history=3),
        lambda h: h["classes_"].update(values=[1, 2, 3]),
        lambda h: h["classes_"].update(dtype="no such dtype"),
        lambda h: h["classes_"].update(dtype="object", values=[{"dict": []}] * 10),
        lambda h: h.update(seed=None),
        lambda h: h.pop("dropped"),
    ],
)
def test_headers_of_others(kept, change):
    """With a checksum that fits: an error that names the file, and nothing else."""
    edit(kept, change)
    with pytest.raises(ValueError) as caught:
        load(kept)
    assert str(kept) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_newer_and_foreign_files(kept, tmp_path):
    edit(kept, lambda header: header.update(format=99, advfeat="7.0"))
    with pytest.raises(ValueError, match="written by advfeat 7.0 in format 99.*reads formats up"):
        load(kept)
    other = tmp_path / "weights.safetensors"
    save_file({"weight": torch.zeros(3)}, other)
    with pytest.raises(ValueError, match="weights.safetensors.*not of advfeat.save"):
        load(other)
    torch.save({"weight": torch.zeros(3)}, other)
    with pytest.raises(ValueError, match="weights.safetensors' is damaged, or no file of"):
        load(other)
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(FileNotFoundError, match="Expected a file of advfeat.save"):
            load(missing)


def test_a_network_for_a_file_that_names_its_own(kept):
    with pytest.raises(ValueError, match="names its network, so 'network' must be left out"):
        load(kept, network=Own)


@pytest.mark.parametrize("trained", [False, True])
def test_metadata_requests_are_kept(trained, standard, path):
    module = nn.Linear(4, 2)
    clf = from_torch(module, classes=[0, 1], input_shape=(4,))
    own = {"network": module}
    if trained:
        clf, own = copy.deepcopy(standard), {}
    before = str(again(clf, path, **own).get_metadata_routing())
    assert before == str(clf.get_metadata_routing())
    with config_context(enable_metadata_routing=True):
        clf.set_fit_request(sample_weight=True).set_score_request(sample_weight="weight")
        if trained:
            clf.set_partial_fit_request(classes=False)
    found = again(clf, path, **own).get_metadata_routing()
    assert str(found) == str(clf.get_metadata_routing()) != before
    assert found.fit.requests == {"sample_weight": True}
    edit(path, lambda header: header["requests"].update(fit={"no such thing": True}))
    with pytest.raises(ValueError, match=f"{path.name}.* cannot be read"):
        load(path, **own)


def test_no_callbacks_as_a_list(tmp_path, digits):
    clf = StandardClassifier(callbacks=[], max_epochs=1, random_state=0, verbose=0)
    clf.fit(digits[0][:50], digits[1][:50])
    save(clf, tmp_path / "file")
    assert load(tmp_path / "file").callbacks == []


class NotesAnObject(Callback):
    def on_epoch_end(self, net, **kwargs):
        net.history.record("note", object())


def test_objects_in_the_history_are_left_out_and_said(tmp_path, digits):
    clf = StandardClassifier(
        callbacks=[NotesAnObject()], max_epochs=2, random_state=0, verbose=0
    ).fit(digits[0][:50], digits[1][:50])
    save(clf, tmp_path / "file")
    with pytest.warns(UserWarning, match="Not kept in the file: callbacks, 'note' of the history"):
        again = load(tmp_path / "file")
    assert [row["train_loss"] for row in again.history_] == [
        row["train_loss"] for row in clf.history_
    ]


def test_an_attack_that_was_changed_or_raised_goes_on_the_same(tmp_path, digits):
    X, y = digits[0][:100], digits[1][:100]
    clf = AdversarialClassifier(eps=0.1, n_steps=2, max_epochs=1, random_state=0, verbose=0)
    clf.fit(X, y).set_params(eps=1.0)
    clf.net_.attack = raised(clf.net_.attack)  # as the guard against overfitting does
    save(clf, tmp_path / "file")
    again = load(tmp_path / "file")
    for one in (clf, again):
        one.partial_fit(X, y)
    assert clf.net_.attack == again.net_.attack
    assert (clf.net_.attack["n_steps"], clf.net_.attack["eps"]) == (7, 1.0)
    assert_array_equal(clf.decision_function(X), again.decision_function(X))


class Copies(Callback):
    """Copies the net and the classifier within a training."""

    owner, logits = [], []  # not of the instance, with which they would be copied

    def on_batch_end(self, net, training=True, **kwargs):
        for given in (net, *self.owner):
            clone(given)
            copies = [given, copy.deepcopy(given), pickle.loads(pickle.dumps(given))]
            if given is net:
                x = torch.zeros(3, 1, 8, 8)
                self.logits.append([each.infer(x).detach().numpy() for each in copies])


@pytest.mark.parametrize("Classifier", [StandardClassifier, AdversarialClassifier])
def test_copies_within_a_training_that_shows_a_bar(Classifier, digits, monkeypatch):
    X, y = digits[0][:100], digits[1][:100]
    monkeypatch.setattr(Copies, "logits", [])
    clf = Classifier(batch_size=50, max_epochs=2, random_state=0, verbose=1, callbacks=[Copies()])
    clf.fit(X, y)
    assert len(Copies.logits) == 4
    for net, *copies in Copies.logits:
        for logits in copies:
            assert_array_equal(logits, net)
    monkeypatch.setattr(Copies, "owner", [clf])
    clf.partial_fit(X, y)


class Shifted(nn.Module):
    """With buffers that no state_dict has, one of which is made by use."""

    def __init__(self, n_classes=10):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, n_classes))
        self.body.register_buffer("shift", torch.zeros(1, 1, 1), persistent=False)
        self.register_buffer("late", None, persistent=False)

    def forward(self, x):
        late = 0 if self.late is None else self.late
        return self.body(x - self.body.shift) + late


class Plain(nn.Module):
    def __init__(self, n_classes=10):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, n_classes))

    def forward(self, x):
        return self.body(x)


@pytest.mark.parametrize("trained", [False, True])
def test_buffers_that_no_state_dict_has_are_kept(trained, digits, tmp_path):
    net = Shifted()
    net.body.shift = torch.full((1, 1, 1), 0.3)
    net.late = torch.arange(10.0)
    clf = from_torch(net, classes=range(10), input_shape=(1, 8, 8))
    if trained:
        clf = StandardClassifier(net, **QUICK).fit(*digits[:2])
    save(clf, tmp_path / "clf")
    found = load(tmp_path / "clf", network=Shifted)
    assert_array_equal(found.decision_function(digits[2]), clf.decision_function(digits[2]))
    with pytest.raises(ValueError, match="the network has no buffer .*shift"):
        load(tmp_path / "clf", network=Plain)


def test_loading_a_network_leaves_torch_as_it_was(tmp_path):
    clf = from_torch(Own(10), classes=range(10), input_shape=(1, 8, 8))
    X = np.random.default_rng(0).random((5, 1, 8, 8), dtype=np.float32)
    save(clf, tmp_path / "clf")
    state = torch.get_rng_state()
    load(tmp_path / "clf", network=Own)
    assert torch.equal(torch.get_rng_state(), state)
    torch.set_default_dtype(torch.float64)
    try:
        found = load(tmp_path / "clf", network=Own)
    finally:
        torch.set_default_dtype(torch.float32)
    assert_array_equal(found.decision_function(X), clf.decision_function(X))
    with torch.inference_mode():
        found = load(tmp_path / "clf", network=Own)
    assert_array_equal(found.decision_function(X), clf.decision_function(X))
    adversarial_examples(found, X, np.zeros(5, int), norm=2, eps=0.1, n_steps=1, verbose=0)

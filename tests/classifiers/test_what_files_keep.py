"""Requests, histories, attacks and buffers that files of classifiers keep."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from persistence_cases import QUICK, Own, again, edit
from sklearn import config_context
from sklearn.base import clone
from skorch.callbacks import Callback, Freezer
from torch import nn
from torch.nn.utils import prune

from advfeat import (
    AdversarialClassifier,
    StandardClassifier,
    adversarial_examples,
    from_torch,
    load,
    save,
)
from advfeat.classifiers._overfitting import raised


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


@pytest.mark.parametrize("kind", [StandardClassifier, AdversarialClassifier, "from_torch"])
def test_files_are_read_in_inference_mode(kind, digits, tmp_path):
    X, y = digits[0][:60], digits[1][:60]
    if kind == "from_torch":
        clf = from_torch(Own(10), classes=range(10), input_shape=(1, 8, 8))
    else:
        clf = kind(Own, **QUICK).fit(X, y)
    save(clf, tmp_path / "clf")
    with torch.inference_mode():
        found = load(tmp_path / "clf", network=Own)
    assert_array_equal(found.decision_function(X), clf.decision_function(X))
    if kind != "from_torch":
        assert_array_equal(
            found.partial_fit(X, y).predict_proba(X), clf.partial_fit(X, y).predict_proba(X)
        )


def weights_of(clf, name):
    return clf.module_.state_dict()[name].clone()


@pytest.mark.parametrize("way", ["file", "pickle"])
@pytest.mark.parametrize("frozen", ["callback", "by hand"])
def test_frozen_layers_stay_frozen(frozen, way, digits, tmp_path):
    X, y = digits[0][:60], digits[1][:60]
    callbacks = [Freezer("body.0.*")] if frozen == "callback" else None
    clf = StandardClassifier(Own, callbacks=callbacks, **QUICK).fit(X, y)
    if frozen == "by hand":
        clf.module_.body[0].requires_grad_(False)
    if way == "file":
        save(clf, tmp_path / "clf")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Not kept in the file: callbacks")
            again = load(tmp_path / "clf", network=Own)
    else:
        again = pickle.loads(pickle.dumps(clf))
    kept, trained = weights_of(again, "body.0.weight"), weights_of(again, "body.4.weight")
    again.partial_fit(X, y)
    assert torch.equal(weights_of(again, "body.0.weight"), kept)
    assert not torch.equal(weights_of(again, "body.4.weight"), trained)


def test_a_file_frees_layers_that_were_trained(digits, tmp_path):
    X, y = digits[0][:60], digits[1][:60]
    clf = StandardClassifier(Own, **QUICK).fit(X, y)
    save(clf, tmp_path / "clf")
    other = Own(10)
    other[0].requires_grad_(False)
    again = load(tmp_path / "clf", network=other)
    assert_array_equal(
        again.partial_fit(X, y).predict_proba(X), clf.partial_fit(X, y).predict_proba(X)
    )


class OwnOptimizer(Callback):
    """Trains in another order, or some of the layers only, or by another method."""

    def __init__(self, what):
        self.what = what

    def on_train_begin(self, net, **kwargs):
        if len(net.history):
            return
        first, last = (net.module_.body[i].parameters() for i in (0, 4))
        if self.what == "adam":
            net.optimizer_ = torch.optim.Adam(net.module_.parameters(), lr=0.01)
            return
        groups = [{"params": last, "lr": 0.1}]
        groups += [{"params": first}] if self.what == "turned" else []
        net.optimizer_ = torch.optim.SGD(groups, lr=0.01, momentum=0.9)


class Averaging(torch.optim.SGD):
    """SGD that keeps more than the momentum."""

    def step(self, closure=None):
        super().step(closure)
        for state in self.state.values():
            state["average"] = state["momentum_buffer"].clone()


def momenta(clf):
    names = {id(weight): name for name, weight in clf.module_.named_parameters()}
    state = clf.net_.optimizer_.state.items()
    return {names[id(weight)]: found["momentum_buffer"] for weight, found in state}


def test_what_is_lost_of_another_optimizer_is_told(digits, tmp_path):
    class Averages(Callback):
        def on_train_begin(self, net, **kwargs):
            net.optimizer_ = Averaging(net.module_.parameters(), lr=0.01, momentum=0.9)

    X, y = digits[0][:60], digits[1][:60]
    clf = StandardClassifier(Own, callbacks=[Averages()], **QUICK).fit(X, y)
    save(clf, tmp_path / "clf")
    with pytest.warns(UserWarning, match="callbacks, the state of Averaging"):
        found = load(tmp_path / "clf", network=Own)
    for name, value in momenta(clf).items():
        assert torch.equal(momenta(found)[name], value)


@pytest.mark.parametrize("what", ["turned", "last", "adam"])
def test_optimizers_of_callbacks(what, digits, tmp_path):
    X, y = digits[0][:60], digits[1][:60]
    clf = StandardClassifier(Own, callbacks=[OwnOptimizer(what)], **QUICK).fit(X, y)
    save(clf, tmp_path / "clf")
    lost = "callbacks, the state of Adam" if what == "adam" else "callbacks"
    with pytest.warns(UserWarning, match=f"Not kept in the file: {lost}\\."):
        again = load(tmp_path / "clf", network=Own)
    assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    if what == "adam":
        assert not momenta(again)
        return
    assert set(momenta(again)) == set(momenta(clf))
    for name, value in momenta(clf).items():
        assert torch.equal(momenta(again)[name], value)
    again.partial_fit(X, y)


def test_a_network_that_was_pruned_goes_on(digits, tmp_path):
    X, y = digits[0][:60], digits[1][:60]

    def pruned(n_classes):
        net = Own(n_classes)
        prune.l1_unstructured(net[0], "weight", amount=0.5)
        return net

    clf = StandardClassifier(pruned, **QUICK).fit(X, y)
    prune.l1_unstructured(clf.module_.body[4], "weight", amount=0.5)

    def twice(n_classes):
        net = pruned(n_classes)
        prune.l1_unstructured(net[4], "weight", amount=0.5)
        return net

    save(clf, tmp_path / "clf")
    again = load(tmp_path / "clf", network=twice)
    assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    for name, value in momenta(clf).items():
        assert torch.equal(momenta(again)[name], value)

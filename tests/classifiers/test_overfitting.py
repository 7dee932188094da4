"""Few-step adversarial training and the guard against catastrophic overfitting."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback
from torch import nn

from advfeat import AdversarialClassifier, robust_accuracy_score
from advfeat.classifiers import _overfitting
from advfeat.classifiers._overfitting import OverfittingGuard
from advfeat.optim import AttackedNetwork


def few_steps(digits, **settings):
    X, y, _, _ = digits
    clf = AdversarialClassifier(
        "mlp", norm=np.inf, eps=0.06, n_steps=1, step_size=0.12, max_epochs=40, lr=0.02,
        bounds=(0, 1), random_state=0, verbose=0,
    )  # fmt: skip
    return clf.set_params(**settings).fit(X.reshape(len(X), -1), y)


def withstand(clf, digits):
    _, _, X, y = digits
    X = X.reshape(len(X), -1)
    return robust_accuracy_score(clf, X, y, norm=np.inf, eps=0.06, n_steps=10, verbose=0)


@pytest.mark.long
def test_masked_gradients_are_found_and_training_is_saved(digits, monkeypatch):
    with pytest.warns(ConvergenceWarning, match=r"epoch \d+: .*taken back.*7 steps"):
        guarded = few_steps(digits)
    steps = [epoch["attack_steps"] for epoch in guarded.history_]
    assert steps[0] == 1 and steps[-1] == 7 and steps == sorted(steps)
    monkeypatch.setattr(_overfitting, "MAX_GUARDED_STEPS", 0)
    unguarded = few_steps(digits)
    assert {epoch["attack_steps"] for epoch in unguarded.history_} == {1}
    assert withstand(guarded, digits) > withstand(unguarded, digits) + 0.3


def test_the_epoch_is_taken_back(digits, monkeypatch):
    """As if training had stopped before it: a strike in the last epoch leaves the one before."""
    accuracies = iter([(0.5, 0.5), (0.5, 0.5), (0.9, 0.0)])
    monkeypatch.setattr(
        _overfitting.OverfittingGuard, "_accuracies", lambda self, net, data: next(accuracies)
    )
    common = {"lr_schedule": "constant"}
    with pytest.warns(ConvergenceWarning):
        struck = few_steps(digits, max_epochs=3, **common)
    accuracies = iter([(0.5, 0.5), (0.5, 0.5)])
    before = few_steps(digits, max_epochs=2, **common)
    for a, b in zip(
        struck.net_.module_.parameters(), before.net_.module_.parameters(), strict=True
    ):
        assert np.array_equal(a.detach(), b.detach())


def test_the_guard_sees_what_callbacks_made_of_the_network(digits):
    class Replacing(Callback):
        """Gives the network another last layer, after the last batch too."""

        def on_batch_end(self, net, training=False, **kwargs):
            head = [part for part in net.module_.modules() if isinstance(part, nn.Sequential)][-1]
            with torch.random.fork_rng():
                torch.manual_seed(1)
                head[-1] = nn.Linear(head[-1].in_features, head[-1].out_features)

        def on_epoch_end(self, net, dataset_train=None, **kwargs):
            x = dataset_train.inputs(np.arange(20), net.device)
            with torch.no_grad():
                attacked, plain = net.attacked(x), net.module_(x)
            seen.append(float((attacked - plain).abs().max()))

    seen = []
    few_steps(digits, max_epochs=2, callbacks=[Replacing()])
    assert len(seen) == 2 and max(seen) < 1e-4


def normed(input_shape, n_classes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the old form of weight norm
        layer = torch.nn.utils.weight_norm(nn.Linear(64, n_classes))
    return nn.Sequential(nn.Flatten(), layer)


def test_callbacks_may_copy_the_net(digits):
    """Also one with a weight that its layer has computed, which torch cannot copy."""

    class Copying(Callback):
        def on_epoch_end(self, net, **kwargs):
            copies.append(copy.deepcopy(net))

    copies = []
    X, y, _, _ = digits
    settings = {"n_steps": 7, "max_epochs": 2, "random_state": 0, "verbose": 0}
    AdversarialClassifier(normed, callbacks=[Copying()], bounds=(0, 1), **settings).fit(X, y)
    assert len(copies) == 2
    assert all(net.attacked is None and net._last_attack is None for net in copies)


def test_sound_training_is_left_alone(digits, monkeypatch):
    settings = {"n_steps": 3, "step_size": None, "norm": 2, "eps": 0.5, "max_epochs": 5}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guarded = few_steps(digits, **settings)
    guard = dict(guarded.net_.callbacks_)["advfeat_guard"]
    assert len(pickle.dumps(guard)) < 1_000  # no weights are kept
    monkeypatch.setattr(_overfitting, "MAX_GUARDED_STEPS", 0)
    X = digits[2].reshape(len(digits[2]), -1)
    expected = few_steps(digits, **settings).predict_proba(X)
    assert np.array_equal(guarded.predict_proba(X), expected)


def test_the_guard_sees_the_weights_after_the_epoch(digits, monkeypatch):
    """It takes the network that training has traced: one of its own must say the same."""
    seen = []
    accuracies = _overfitting.OverfittingGuard._accuracies

    def both(self, net, data):
        found = accuracies(self, net, data)
        net.attacked = AttackedNetwork(net.module_, device=net.device, precision=net.precision)
        seen.append((tuple(found), tuple(accuracies(self, net, data))))
        return found

    monkeypatch.setattr(_overfitting.OverfittingGuard, "_accuracies", both)
    X, y, _, _ = digits
    AdversarialClassifier(
        "small_cnn", eps=0.5, n_steps=2, max_epochs=3, random_state=0, verbose=0
    ).fit(X[:300], y[:300])  # fmt: skip
    assert len(seen) == 3 and len(set(seen)) == 3
    assert all(ours == anew for ours, anew in seen)


class Rates(Callback):
    """Notes the learning rate of every step."""

    def __init__(self):
        self.rates = []

    def on_batch_begin(self, net, training=False, **kwargs):
        if training:
            self.rates.append(net.optimizer_.param_groups[0]["lr"])


def test_the_schedule_goes_on_after_an_epoch_was_taken_back(digits, monkeypatch):
    found = {}
    for strikes in (False, True):
        marks = iter([(0.9, 0.0 if strikes else 0.9), *[(0.9, 0.9)] * 9])
        monkeypatch.setattr(
            OverfittingGuard, "_accuracies", lambda self, net, data, marks=marks: next(marks)
        )
        rates = Rates()
        clf = AdversarialClassifier(
            n_steps=1, max_epochs=6, batch_size=100, callbacks=[rates], random_state=0, verbose=0
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            clf.fit(digits[0][:200], digits[1][:200])
        found[strikes] = rates.rates
    assert found[True] == found[False]


def test_there_is_no_score_of_weights_that_nobody_has_scored(digits, monkeypatch):
    marks = iter([(0.5, 0.5), (0.9, 0.0)])
    monkeypatch.setattr(OverfittingGuard, "_accuracies", lambda self, net, data: next(marks))
    clf = AdversarialClassifier(
        n_steps=1, max_epochs=2, early_stopping=True, random_state=0, verbose=0
    )
    with pytest.warns(ConvergenceWarning, match="Catastrophic overfitting"):
        clf.fit(digits[0][:300], digits[1][:300])
    assert clf.best_validation_score_ is None and len(clf.validation_scores_) == 2


class Curriculum(Callback):
    """Epochs without an attack, or with many steps, before those with one step."""

    def __init__(self, **before):
        self.before = before

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 1:
            self.attack = net.attack
        net.attack = {**self.attack, **(self.before if len(net.history) < 4 else {})}


@pytest.mark.parametrize("before", [{"eps": 0.0}, {"n_steps": 7}])
def test_epochs_that_were_not_judged_are_kept(before, digits, monkeypatch):
    monkeypatch.setattr(OverfittingGuard, "_accuracies", lambda self, net, data: (0.9, 0.0))
    common = {"lr_schedule": "constant", "callbacks": [Curriculum(**before)]}
    with pytest.warns(ConvergenceWarning, match="epoch 4.*taken back"):
        struck = few_steps(digits, max_epochs=4, **common)
    three = few_steps(digits, max_epochs=3, **common)
    for name, weight in three.module_.state_dict().items():
        assert torch.equal(struck.module_.state_dict()[name], weight), name


class Momenta(Callback):
    """Notes the optimizer's momentum as each epoch begins."""

    def __init__(self):
        self.found = []

    def on_batch_begin(self, net, training=False, **kwargs):
        if training and len(net.history) > len(self.found):
            states = net.optimizer_.state_dict()["state"].values()
            self.found.append([state["momentum_buffer"].clone() for state in states])


def test_the_momentum_is_taken_back_with_the_epoch(digits, monkeypatch):
    marks = iter([(0.9, 0.9), (0.9, 0.0)])
    monkeypatch.setattr(OverfittingGuard, "_accuracies", lambda self, net, data: next(marks))
    momenta = Momenta()
    with pytest.warns(ConvergenceWarning, match="epoch 2.*taken back"):
        few_steps(digits, max_epochs=3, callbacks=[momenta])
    _, second, third = momenta.found
    assert second and all(map(torch.equal, second, third))


@pytest.mark.parametrize("attack", [{"n_steps": 7}, {"eps": 0.0}])
def test_nothing_is_copied_where_nothing_is_watched(attack, digits, monkeypatch):
    def copied(net):
        raise AssertionError

    monkeypatch.setattr(_overfitting, "_state", copied)
    few_steps(digits, **{"max_epochs": 2, **attack})


class Lowers(Callback):
    """Lowers the number of steps during the first epoch."""

    def on_batch_end(self, net, training=False, **kwargs):
        if training and len(net.history) == 1:
            net.attack = {**net.attack, "n_steps": 1}


def test_an_epoch_that_began_with_many_steps_is_not_judged(digits, monkeypatch):
    judged = []

    def marks(self, net, data):
        judged.append(len(net.history))
        return 0.9, 0.9

    monkeypatch.setattr(OverfittingGuard, "_accuracies", marks)
    few_steps(digits, max_epochs=3, n_steps=7, callbacks=[Lowers()])
    assert judged == [2, 3]

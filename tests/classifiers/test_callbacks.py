"""skorch callbacks of the classifiers, and schedules of the learning rate."""

import functools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from skorch.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    Freezer,
    LRScheduler,
)

from advfeat import (
    AdversarialClassifier,
    StandardClassifier,
)

QUICK = {"max_epochs": 3, "random_state": 0, "verbose": 0}


def test_callbacks_reach_skorch(digits):
    X, y, _, _ = digits

    class Count(Callback):
        def on_epoch_end(self, net, **kwargs):
            seen.append(len(net.history))

    seen = []
    callbacks = [Count(), ("stop", EarlyStopping("train_loss", patience=1, threshold=10))]
    clf = StandardClassifier(callbacks=callbacks, max_epochs=10, verbose=0, random_state=0)
    clf.fit(X, y)
    assert seen == list(range(1, len(clf.history_) + 1))
    assert len(seen) < 10


@pytest.mark.parametrize("every", ["epoch", "batch"])
def test_a_constant_rate_is_left_to_callbacks(digits, every):
    own = LRScheduler(policy="ExponentialLR", gamma=0.5, step_every=every, monitor=None)
    settings = {**QUICK, "max_epochs": 3, "batch_size": 100}
    clf = StandardClassifier(lr=0.08, lr_schedule="constant", callbacks=[own], **settings)
    clf.fit(digits[0][:200], digits[1][:200])
    steps = 3 if every == "epoch" else 6
    rate = clf.net_.optimizer_.param_groups[0]["lr"]
    assert rate == pytest.approx(0.08 * 0.5**steps)


@pytest.mark.parametrize("schedule", ["one-cycle", "step"])
@pytest.mark.parametrize("named", [False, True])
def test_two_schedules_are_refused_before_the_training(digits, schedule, named):
    own = LRScheduler(policy="ExponentialLR", gamma=0.5, monitor=None)
    for given in (own, LRScheduler, type("Mine", (LRScheduler,), {})):
        callbacks = [("mine", given)] if named else [given]
        clf = StandardClassifier(lr_schedule=schedule, callbacks=callbacks, **QUICK)
        with pytest.raises(ValueError, match="Use lr_schedule='constant', or leave"):
            clf.fit(digits[0][:50], digits[1][:50])
        clf.partial_fit(digits[0][:50], digits[1][:50], classes=range(10))  # has no other


@pytest.mark.parametrize(
    "given", ["early", torch.optim.lr_scheduler.StepLR, ("a", "b"), ("a", Callback(), 1), None, ()]
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_what_is_no_callback_is_refused_before_the_training(digits, given, method):
    clf = StandardClassifier(callbacks=[Callback(), given], **QUICK)
    with pytest.raises(ValueError, match="callbacks must hold skorch callbacks, or pairs"):
        getattr(clf, method)(digits[0][:50], digits[1][:50])


@pytest.mark.parametrize("name", ["best_epoch", "schedule", "progress", "guard"])
def test_names_of_callbacks_are_free(digits, name):
    seen = []

    class Own(Callback):
        def on_epoch_end(self, net, **kwargs):
            seen.append(net)

    clf = AdversarialClassifier(n_steps=1, early_stopping=True, callbacks=[(name, Own())], **QUICK)
    clf.fit(digits[0][:200], digits[1][:200])
    assert seen


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_names_of_ours_are_refused(digits, method):
    clf = StandardClassifier(callbacks=[("advfeat_best_epoch", Callback())], **QUICK)
    with pytest.raises(ValueError, match="must not begin with 'advfeat_'"):
        getattr(clf, method)(digits[0][:50], digits[1][:50])


@pytest.mark.parametrize("kind", [StandardClassifier, AdversarialClassifier])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_net_is_trained_by_its_classifier_alone(digits, kind, method):
    X, y = digits[0][:50], digits[1][:50]
    clf = kind(**QUICK).fit(X, y)
    before = clf.decision_function(X)
    with pytest.raises(TypeError, match="trained by the classifier alone"):
        getattr(clf.net_, method)(X, y)
    np.testing.assert_array_equal(clf.decision_function(X), before)


@pytest.mark.parametrize("schedule", ["one-cycle", "step", "constant"])
def test_schedules(digits, schedule):
    X, y, _, _ = digits
    clf = StandardClassifier(lr=0.08, lr_schedule=schedule, **{**QUICK, "max_epochs": 6})
    clf.fit(X, y)
    rates = [batch["event_lr"] for epoch in clf.history_ for batch in epoch["batches"]]
    n = len(rates)
    assert max(rates) == pytest.approx(0.08, rel=0.02)
    if schedule == "constant":
        assert min(rates) == max(rates)
    elif schedule == "step":
        assert_allclose(rates[n // 3 + 1], 0.008)
        assert_allclose(rates[-1], 0.0008)
    else:
        assert rates[0] < 0.01 and rates[-1] < 0.001
        assert np.argmax(rates) == pytest.approx(n / 4, abs=2)


class Own(EpochScoring):
    """Scores samples of its own."""

    def get_test_data(self, dataset_train, dataset_valid, use_caching):
        return dataset_train, np.zeros(len(dataset_train)), None


def score(net, X, y):
    return 0.5


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (EarlyStopping(monitor="valid_acc"), "monitors 'valid_acc', .*early_stopping=True"),
        (EarlyStopping(monitor="valid_score"), "monitors 'valid_score'"),
        (Checkpoint(monitor="valid_acc_best"), "monitors 'valid_acc_best'"),
        (EarlyStopping, "monitors 'valid_loss'"),
        (("mine", EarlyStopping), "monitors 'valid_loss'"),
        (EpochScoring("accuracy"), "EpochScoring scores held-out samples"),
        (EarlyStopping(monitor="train_los"), "monitors 'train_los', which nothing measures"),
    ],
)
def test_what_nothing_measures_is_refused_before_the_training(callback, message, digits):
    X, y = digits[0][:40], digits[1][:40]
    clf = StandardClassifier(callbacks=[callback], max_epochs=1, verbose=0)
    with pytest.raises(ValueError, match=message):
        clf.fit(X, y)


def test_a_mistyped_monitor_is_refused_with_held_out_samples_too(digits):
    clf = StandardClassifier(
        callbacks=[EarlyStopping(monitor="valid_bla")], early_stopping=True, verbose=0
    )
    with pytest.raises(ValueError, match="valid_bla.* There are: .*valid_score"):
        clf.fit(digits[0][:80], digits[1][:80])


@pytest.mark.parametrize(
    "callbacks",
    [
        [EpochScoring("accuracy", name="mine", on_train=True), EarlyStopping("mine")],
        [EarlyStopping("train_loss")],
        [EarlyStopping("train_loss_best", threshold_mode="abs")],
        [EarlyStopping("dur")],
        [EarlyStopping("epoch")],
        [EpochScoring("accuracy", on_train=True), EarlyStopping("accuracy")],
        [EpochScoring(score, on_train=True), EarlyStopping("score_best", patience=9)],
        [EpochScoring(functools.partial(score), on_train=True), EarlyStopping("score")],
        [EpochScoring(None, on_train=True), EarlyStopping("score")],
        [Own(score, name="own", use_caching=False), EarlyStopping("own")],
    ],
)
def test_what_is_measured_may_be_monitored(callbacks, digits):
    clf = StandardClassifier(callbacks=callbacks, max_epochs=2, verbose=0)
    assert len(clf.fit(digits[0][:40], digits[1][:40]).history_) == 2


@pytest.mark.parametrize("Kind", [StandardClassifier, AdversarialClassifier])
def test_a_network_that_callbacks_freeze_whole_is_refused(Kind, digits):
    with pytest.raises(ValueError, match="Nothing is left to train"):
        Kind(callbacks=[Freezer("body.*")], **QUICK).fit(*digits[:2])

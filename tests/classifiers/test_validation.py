"""Validation split, early stopping, class weights and label smoothing."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score
from sklearn.utils.class_weight import compute_class_weight
from skorch.callbacks import Callback, Checkpoint, EarlyStopping, EpochScoring
from torch import nn

from advfeat import AdversarialClassifier, StandardClassifier, robust_accuracy_score
from advfeat.classifiers import _callbacks, _overfitting
from advfeat.classifiers._training_data import ArrayDataset

QUICK = {"max_epochs": 4, "batch_size": 32, "random_state": 0, "verbose": 0}
CLASSES = [StandardClassifier, AdversarialClassifier]


def blobs(n=120, shift=1.5, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    X = rng.standard_normal((n, 3)) + shift * np.eye(3)[y]
    return X.astype(np.float32), np.array(["a", "b", "c"])[y]


class Spy(Callback):
    """Keep the data sets and the scores that callbacks see."""

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        self.train, self.valid = dataset_train, dataset_valid
        self.seen = net.history[-1, "valid_score"]


def test_the_split_is_stratified_weighted_and_whole():
    X, y = blobs()
    weight = np.random.default_rng(1).integers(0, 3, len(X)).astype(float)
    spy = Spy()
    clf = StandardClassifier(
        early_stopping=True, validation_fraction=0.25, callbacks=[spy], **QUICK
    ).fit(X, y, sample_weight=weight)
    used = np.flatnonzero(weight)
    rows = np.concatenate([spy.train.rows, spy.valid.rows])
    np.testing.assert_array_equal(np.sort(rows), used)
    assert len(spy.valid) == np.ceil(0.25 * len(used))
    share = [np.bincount(part.y) / len(part) for part in (spy.train, spy.valid)]
    np.testing.assert_allclose(*share, atol=0.03)
    # The score is the weighted accuracy of the last epoch's weights, seen by callbacks too.
    assert spy.seen == clf.validation_scores_[-1]
    clf.set_params(early_stopping=False, callbacks=None)
    valid = spy.valid.rows
    for part in (spy.train, spy.valid):
        ratio = part.sample_weight / weight[part.rows]
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
    best = clf.score(X[valid], y[valid], sample_weight=weight[valid])
    assert clf.best_validation_score_ == max(clf.validation_scores_)
    assert best == pytest.approx(clf.best_validation_score_, abs=1e-6)


@pytest.mark.parametrize("make", CLASSES)
def test_the_best_weights_are_kept(make, monkeypatch):
    """Scores are made up; the network of the second epoch must be what is left."""
    X, y = blobs()
    weights, scores = [], iter([0.5, 0.9, 0.9, 0.6])

    class Keep(Callback):
        def on_epoch_end(self, net, **kwargs):
            weights.append([p.detach().clone() for p in net.module_.parameters()])

    def on_epoch_end(self, net, **kwargs):
        self.hits_, self.total_ = next(scores), 1.0
        original(self, net, **kwargs)

    original = _callbacks.BestEpoch.on_epoch_end
    monkeypatch.setattr(_callbacks.BestEpoch, "on_epoch_end", on_epoch_end)
    clf = make(early_stopping=True, callbacks=[Keep()], **QUICK).fit(X, y)
    assert clf.validation_scores_ == [0.5, 0.9, 0.9, 0.6]
    assert clf.best_validation_score_ == 0.9
    for kept, p in zip(weights[1], clf.net_.module_.parameters(), strict=True):
        assert torch.equal(kept, p)
    assert not all(torch.equal(a, b) for a, b in zip(weights[1], weights[3], strict=True))
    assert len(pickle.dumps(dict(clf.net_.callbacks_)["advfeat_best_epoch"])) < 1_000


@pytest.mark.parametrize(
    ("patience", "tol", "n_epochs"),
    [(1, 1e-4, 5), (2, 1e-4, 6), (1, 0.15, 3), (1, 0.0, 8), (10, 1e-4, 8)],
)
def test_patience_and_tolerance_as_in_mlp_classifier(monkeypatch, patience, tol, n_epochs):
    expected = [0.5, 0.6, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7]
    scores = iter(expected)

    def on_epoch_end(self, net, **kwargs):
        self.hits_, self.total_ = next(scores), 1.0
        original(self, net, **kwargs)

    # What scikit-learn's MLPClassifier does with these scores.
    best, misses, stopped = -np.inf, 0, len(expected)
    for epoch, score in enumerate(expected, 1):
        misses = misses + 1 if score < best + tol else 0
        best = max(best, score)
        if misses > patience:
            stopped = epoch
            break
    assert stopped == n_epochs
    original = _callbacks.BestEpoch.on_epoch_end
    monkeypatch.setattr(_callbacks.BestEpoch, "on_epoch_end", on_epoch_end)
    settings = {**QUICK, "max_epochs": 8}
    clf = StandardClassifier(early_stopping=True, n_iter_no_change=patience, tol=tol, **settings)
    assert len(clf.fit(*blobs()).history_) == stopped


def test_adversarial_score_is_the_robust_accuracy_under_the_training_attack():
    X, y = blobs(n=300)
    attack = {"norm": 2, "eps": 0.6}
    spy = Spy()
    clf = AdversarialClassifier(
        "mlp", n_steps=7, early_stopping=True, validation_fraction=0.3, callbacks=[spy],
        **attack, **{**QUICK, "max_epochs": 8},
    ).fit(X, y)  # fmt: skip
    valid = spy.valid.rows
    robust = robust_accuracy_score(clf, X[valid], y[valid], verbose=0, **attack)
    clean = clf.score(X[valid], y[valid])
    # A stronger attack finds a little more; the training attack far more than none.
    assert robust - 0.01 <= clf.best_validation_score_ < clean - 0.1
    assert clf.best_validation_score_ < robust + 0.05


@pytest.mark.parametrize("make", CLASSES)
def test_same_seed_same_split_and_weights(make):
    X, y = blobs()
    settings = {**QUICK, "early_stopping": True}
    a, b = make(**settings).fit(X, y), make(**settings).fit(X, y)
    np.testing.assert_array_equal(a.decision_function(X), b.decision_function(X))
    assert a.validation_scores_ == b.validation_scores_
    c = make(**{**settings, "random_state": 1}).fit(X, y)
    assert c.validation_scores_ != a.validation_scores_
    assert make(**QUICK).fit(X, y).validation_scores_ is None


def test_scores_of_a_masked_network_are_void(monkeypatch):
    """When the guard takes an epoch back and changes the attack, earlier scores do not count."""
    X, y = blobs()
    strikes = iter([False, True, False, False])
    monkeypatch.setattr(
        _overfitting.OverfittingGuard,
        "_accuracies",
        lambda self, net, data: (0.9, 0.0) if next(strikes) else (0.5, 0.5),
    )
    scores = iter([0.8, 1.0, 0.4, 0.3])
    original = _callbacks.BestEpoch.on_epoch_end

    def on_epoch_end(self, net, **kwargs):
        self.hits_, self.total_ = next(scores), 1.0
        original(self, net, **kwargs)

    monkeypatch.setattr(_callbacks.BestEpoch, "on_epoch_end", on_epoch_end)
    with pytest.warns(ConvergenceWarning, match="Catastrophic overfitting"):
        clf = AdversarialClassifier(n_steps=1, early_stopping=True, **QUICK).fit(X, y)
    assert clf.validation_scores_ == [0.8, 1.0, 0.4, 0.3]
    assert clf.best_validation_score_ == 0.4


@pytest.mark.parametrize("make", CLASSES)
def test_skorch_callbacks_see_the_validation(make, tmp_path):
    X, y = blobs()
    callbacks = [
        ("f1", EpochScoring("f1_macro", lower_is_better=False, name="f1")),
        ("train_acc", EpochScoring("accuracy", on_train=True, name="train_acc")),
        ("check", Checkpoint(monitor="valid_score_best", dirname=str(tmp_path))),
        ("loss", Checkpoint(dirname=str(tmp_path), fn_prefix="loss_")),
    ]
    clf = make(early_stopping=True, callbacks=callbacks, **QUICK).fit(X, y)
    for epoch in clf.history_:
        assert epoch["valid_acc"] == pytest.approx(epoch["valid_score"], abs=1e-6)  # no weights
        assert 0 < epoch["f1"] <= 1 and 0 < epoch["train_acc"] <= 1
        assert np.isfinite(epoch["valid_loss"])
    saved = torch.load(tmp_path / "params.pt", weights_only=True)
    for name, value in clf.net_.module_.state_dict().items():
        assert torch.equal(saved[name], value)
    assert (tmp_path / "loss_params.pt").exists()


def test_early_stopping_of_skorch_watches_the_validation_loss():
    X, y = blobs(shift=0.0)
    stop = EarlyStopping(patience=2)
    settings = {**QUICK, "max_epochs": 60, "lr_schedule": "constant"}
    clf = StandardClassifier(
        "mlp", early_stopping=True, n_iter_no_change=60, callbacks=[stop], **settings
    ).fit(X, y)
    assert len(clf.history_) < 60
    assert len(clf.validation_scores_) == len(clf.history_)


def test_on_train_scoring_without_a_validation_split():
    X, y = blobs()
    scoring = EpochScoring("accuracy", on_train=True, name="train_acc", lower_is_better=False)
    clf = StandardClassifier(callbacks=[scoring], **{**QUICK, "max_epochs": 30}).fit(X, y)
    assert clf.history_[-1]["train_acc"] == pytest.approx(clf.score(X, y), abs=0.05)


def test_bad_splits():
    X, y = blobs(n=12)
    with pytest.raises(ValueError, match="sets aside validation_fraction=0.1 of the 12 samples"):
        StandardClassifier(early_stopping=True, **QUICK).fit(X, y)
    y = np.where(np.arange(12) == 0, "a", "b")
    with pytest.raises(ValueError, match="validation_fraction=0.5 .*early_stopping=False"):
        StandardClassifier(early_stopping=True, validation_fraction=0.5, **QUICK).fit(X, y)
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        StandardClassifier(early_stopping=True).partial_fit(X, y)
    with pytest.raises(ValueError, match="partial_fit does not support class_weight='balanced'"):
        StandardClassifier(class_weight="balanced").partial_fit(X, y)
    for fraction in (0, 1, 1.5):
        with pytest.raises(ValueError, match="'validation_fraction' parameter"):
            StandardClassifier(validation_fraction=fraction).fit(X, y)


# weights of classes, and of labels


@pytest.mark.parametrize("given", ["balanced", {"a": 2.0, "c": 0.5}])
def test_class_weights_are_sample_weights(given):
    X, y = blobs()
    classes = np.unique(y)
    by_hand = compute_class_weight(given, classes=classes, y=y)[np.searchsorted(classes, y)]
    a = StandardClassifier(class_weight=given, **QUICK).fit(X, y)
    b = StandardClassifier(**QUICK).fit(X, y, sample_weight=by_hand)
    np.testing.assert_allclose(a.predict_proba(X), b.predict_proba(X), atol=1e-6)
    plain = StandardClassifier(**QUICK).fit(X, y)
    assert np.abs(a.predict_proba(X) - plain.predict_proba(X)).max() > 0.01


@pytest.mark.parametrize("unit", ["D", "s", "ns"])
@pytest.mark.parametrize("key", [lambda day: day, pd.Timestamp, lambda day: day.astype("M8[D]")])
def test_class_weights_of_times(unit, key):
    X, y = blobs()
    days = np.array(["2020-01-01", "2020-02-01", "2021-01-01"], f"M8[{unit}]")
    y = days[np.searchsorted(np.unique(y), y)]
    weight = np.where(y == days[1], 5.0, 1.0)
    a = StandardClassifier(class_weight={key(days[1]): 5.0}, **QUICK).fit(X, y)
    b = StandardClassifier(**QUICK).fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(a.predict_proba(X), b.predict_proba(X), atol=1e-6)
    other = key(np.datetime64("2030-05-05").astype(days.dtype))
    with pytest.raises(ValueError, match="which is none of the classes"):
        StandardClassifier(class_weight={other: 5.0}, **QUICK).fit(X, y)


def test_class_weights_name_what_a_fold_may_lack():
    X, y = blobs()
    weights = {"a": 1.0, "b": 2.0, "c": 3.0}
    a = StandardClassifier(class_weight=weights, **QUICK).fit(X[y != "c"], y[y != "c"])
    b = StandardClassifier(class_weight={"b": 2.0}, **QUICK).fit(X[y != "c"], y[y != "c"])
    np.testing.assert_array_equal(a.predict_proba(X), b.predict_proba(X))
    with pytest.raises(ValueError, match="has no weight for 'b', and names 'B', which is none"):
        StandardClassifier(class_weight={"a": 1.0, "B": 2.0, "c": 3.0}, **QUICK).fit(X, y)
    for unused in (np.nan, -1.0):
        with pytest.raises(ValueError, match="finite values"):
            StandardClassifier(class_weight={**weights, "d": unused}, **QUICK).fit(X, y)


def test_balanced_counts_weights_as_repetitions():
    X, y = blobs()
    weight = np.random.default_rng(0).integers(1, 4, len(X))
    clf = StandardClassifier(class_weight="balanced", max_epochs=1, verbose=0)
    spy = Spy()
    spy.on_epoch_end = lambda net, dataset_train, **kwargs: setattr(spy, "train", dataset_train)
    clf.set_params(callbacks=[spy]).fit(X, y, sample_weight=weight)
    totals = np.bincount(spy.train.y, spy.train.sample_weight)
    np.testing.assert_allclose(totals, totals[0], rtol=1e-5)


def test_bad_class_weights():
    X, y = blobs()
    with pytest.raises(ValueError, match="no weight for 'a', 'b', 'c', and names 'd'"):
        StandardClassifier(class_weight={"d": 1}).fit(X, y)
    for value in (-1, np.nan, np.inf):
        with pytest.raises(ValueError, match="finite values of at least 0"):
            StandardClassifier(class_weight={"a": value}).fit(X, y)
    with pytest.raises(ValueError, match="leaves no sample with a weight"):
        StandardClassifier(class_weight=dict.fromkeys("abc", 0)).fit(X, y)
    with pytest.raises(ValueError, match="'class_weight' parameter"):
        StandardClassifier(class_weight="even").fit(X, y)


def test_label_smoothing_has_its_known_optimum():
    """With one input for all samples the best probabilities are the smoothed frequencies."""
    X, y = np.zeros((90, 2), dtype=np.float32), np.repeat([0, 1, 2], [60, 20, 10])
    clf = StandardClassifier(
        "mlp", label_smoothing=0.3, max_epochs=300, batch_size=90, weight_decay=0.0,
        random_state=0, verbose=0,
    ).fit(X, y)  # fmt: skip
    expected = 0.7 * np.array([6, 2, 1]) / 9 + 0.3 / 3
    np.testing.assert_allclose(clf.predict_proba(X[:1])[0], expected, atol=0.005)
    with pytest.raises(ValueError, match="'label_smoothing' parameter"):
        StandardClassifier(label_smoothing=1.0).fit(X, y)


def test_data_sets_of_rows_copy_nothing():
    X = np.arange(20.0, dtype=np.float32).reshape(10, 2)
    data = ArrayDataset(X, np.arange(10), np.ones(10), np.arange(10)).subset(np.array([1, 4, 7]))
    assert data.source is X and len(data) == 3
    np.testing.assert_array_equal(data.X, X[[1, 4, 7]])
    np.testing.assert_array_equal(data.inputs(np.array([0, 2]), "cpu"), X[[1, 7]])
    np.testing.assert_array_equal(data.subset(np.array([2])).inputs(slice(0, 1), "cpu"), X[[7]])


@pytest.mark.parametrize(
    "weight", [[-1.0, 2.0], [np.nan, 1.0], [0.0, 0.0], [1.0], [[1.0], [1.0]], ["a", "b"]]
)
def test_weights_of_a_score_are_checked_before_the_predictions(weight, monkeypatch):
    X, y = blobs()
    clf = StandardClassifier(**QUICK).fit(X, y)

    def never(*arguments):
        raise AssertionError("predicted")

    monkeypatch.setattr(StandardClassifier, "_forward", never)
    with pytest.raises(ValueError, match=r"(?i)sample_weight|weights"):
        clf.score(X[:2], y[:2], sample_weight=weight)


def test_weights_of_a_score_are_those_of_scikit_learn():
    X, y = blobs()
    clf = StandardClassifier(**QUICK).fit(X, y)
    weight = np.random.default_rng(0).random(len(y))
    expected = accuracy_score(y, clf.predict(X), sample_weight=weight)
    assert clf.score(X, y, sample_weight=weight) == pytest.approx(expected)
    assert clf.score(X, y, torch.from_numpy(weight)) == pytest.approx(expected)
    assert clf.score(X, y) == accuracy_score(y, clf.predict(X))


def test_a_class_of_weight_zero_is_left_out():
    """As by weights of the samples; also where the network masks it."""
    X, y = blobs()
    of_samples = (y != "b").astype(float)
    common = {"max_epochs": 2, "random_state": 0, "verbose": 0}

    class Masking(nn.Module):
        def __init__(self, n_features, n_classes):
            super().__init__()
            self.body = nn.Linear(n_features, n_classes)
            self.register_buffer("mask", torch.arange(n_classes) == 1)

        def forward(self, x):
            return self.body(x).masked_fill(self.mask, -torch.inf)

    for network in ("mlp", Masking):
        by_class = StandardClassifier(network, class_weight={"b": 0}, **common).fit(X, y)
        by_sample = StandardClassifier(network, **common).fit(X, y, sample_weight=of_samples)
        np.testing.assert_array_equal(
            by_class.decision_function(X), by_sample.decision_function(X)
        )
    smooth = StandardClassifier(Masking, label_smoothing=0.1, class_weight={"b": 0}, **common)
    with pytest.raises(ValueError, match="If the network masks classes .* label_smoothing=0"):
        smooth.fit(X, y)

"""Robust scores behave like scikit-learn's accuracy: unknown labels, weights, routing, bounds."""

import numpy as np
import pytest
import sklearn
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, cross_validate
from skorch import NeuralNetClassifier
from torch import nn

from advfeat import (
    StandardClassifier,
    adversarial_examples,
    feature_usefulness,
    make_robust_scorer,
    robust_accuracy_curve,
    robust_accuracy_score,
    robust_feature_usefulness,
    transfer_rate,
)
from advfeat.plotting import AccuracyBarDisplay, RobustnessCurveDisplay

ATTACK = {"norm": 2, "n_steps": 3, "verbose": 0}


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=120)
    X = (rng.normal(size=(120, 4)) + 3 * np.eye(4)[y]).astype(np.float32)
    return X, y, LogisticRegression().fit(X, y)


@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_labels_that_the_training_had_not_count_as_wrong(table, eps):
    X, y, clf = table
    strange = np.where(np.arange(120) < 30, 7, y)
    expected = robust_accuracy_score(clf, X[30:], y[30:], eps=eps, **ATTACK) * 90 / 120
    assert robust_accuracy_score(clf, X, strange, eps=eps, **ATTACK) == pytest.approx(expected)
    curve = robust_accuracy_curve(clf, X, strange, eps_values=[0.0, eps + 0.1], **ATTACK)
    assert curve[0] == accuracy_score(strange, clf.predict(X)) < clf.score(X, y)
    X_adv, fooled = adversarial_examples(clf, X, strange, eps=0.3, **ATTACK)
    assert fooled[:30].all()
    assert_array_equal(X_adv[:30], X[:30])
    assert robust_accuracy_score(clf, X, y + 10, eps=eps, **ATTACK) == 0


def test_samples_of_unknown_label_do_not_count_as_transferred(table):
    X, y, clf = table
    strange = np.where(np.arange(120) < 30, 7, y)
    other = LogisticRegression(C=0.01).fit(X, y)
    attack = {**ATTACK, "eps": 3.0, "random_start": False}
    assert transfer_rate(clf, other, X, strange, **attack) == transfer_rate(
        clf, other, X[30:], y[30:], **attack
    )
    other = LogisticRegression().fit(X[y > 0], y[y > 0])
    assert transfer_rate(clf, other, X, y, **attack) == transfer_rate(
        clf, other, X[y > 0], y[y > 0], **attack
    )


def test_samples_of_unknown_label_are_the_rest_of_every_class(table):
    X, y, clf = table
    strange = np.where(y == 2, 9, y)
    for measure in (
        lambda y: feature_usefulness(clf, X, y),
        lambda y: robust_feature_usefulness(clf, X, y, eps=0.1, **ATTACK),
    ):
        assert_allclose(measure(strange)[:2], measure(y)[:2])


def sorted_folds():
    return KFold(3)  # of sorted labels: every fold tests a class that it was not trained on


@pytest.mark.parametrize(
    "clf", [LogisticRegression(), StandardClassifier(max_epochs=1, verbose=0)]
)
def test_a_cross_validation_over_sorted_labels_is_zero_not_nan(table, clf):
    X, y, _ = table
    order = np.argsort(y, kind="stable")
    y = np.repeat([0, 1, 2], 40)
    scorer = make_robust_scorer(eps=0.1, norm=2, n_steps=2)
    scores = cross_val_score(clf, X[order], y, cv=sorted_folds(), scoring=scorer)
    assert_array_equal(scores, cross_val_score(clf, X[order], y, cv=sorted_folds()))
    assert_array_equal(scores, [0, 0, 0])
    search = GridSearchCV(
        LogisticRegression(), {"C": [0.1, 1]}, scoring=scorer, cv=sorted_folds()
    ).fit(X[order], y)
    assert np.isfinite(search.best_score_)


def test_displays_count_them_as_wrong(table):
    X, y, clf = table
    strange = np.where(np.arange(120) < 60, 7, y)
    curve = RobustnessCurveDisplay.from_estimator(clf, X, strange, eps_values=[0], **ATTACK)
    assert curve.accuracy[0] == clf.score(X, strange)
    bars = AccuracyBarDisplay.from_estimators({"D": clf}, X, strange, eps=0.1, **ATTACK)
    assert bars.mean[0, 0] == clf.score(X, strange)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.zeros(120), "at least one (positive|non-zero)"),
        (-np.ones(120), "Negative values"),
        (np.ones(119), "inconsistent|shape"),
        (np.full(120, np.nan), "NaN"),
        (np.ones((120, 2)), "1D|2D|dim"),
    ],
)
def test_weights_are_checked_before_the_attack(table, weight, message, monkeypatch):
    X, y, clf = table
    monkeypatch.setattr("advfeat.metrics._robust_accuracy.run_batches", None)
    with pytest.raises(ValueError, match=message):
        robust_accuracy_score(clf, X, y, eps=0.1, sample_weight=weight, **ATTACK)
    with pytest.raises(ValueError, match=message):
        robust_accuracy_curve(clf, X, y, eps_values=[0.1], sample_weight=weight, **ATTACK)


def test_weights_of_any_kind(table):
    X, y, clf = table
    weight = (np.arange(120) % 3).astype(float)
    scores = {
        robust_accuracy_score(clf, X, y, eps=0.3, sample_weight=w, **ATTACK)
        for w in (weight, weight.tolist(), torch.from_numpy(weight))
    }
    assert len(scores) == 1


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, int])
@pytest.mark.parametrize("mapped", [False, True])
def test_an_empty_selection_is_told(dtype, mapped, tmp_path):
    X, y = np.arange(40).reshape(20, 2).astype(dtype), np.arange(20) % 2
    clf = LogisticRegression().fit(X, y)
    if mapped:
        np.save(tmp_path / "X.npy", X)
        X = np.load(tmp_path / "X.npy", mmap_mode="r")
    with pytest.raises(ValueError, match=r"Found array with 0 sample\(s\)"):
        robust_accuracy_score(clf, X[:0], y[:0], norm=2, eps=1)


@pytest.mark.parametrize("radii", [[0.1, -1], [0.1, np.nan], []])
def test_radii_are_checked_before_the_first_attack(table, radii, monkeypatch):
    X, y, clf = table
    monkeypatch.setattr("advfeat.metrics._robust_accuracy.run_batches", None)
    with pytest.raises(ValueError, match="eps_values must be"):
        robust_accuracy_curve(clf, X, y, eps_values=radii, **ATTACK)


def test_metadata_routing_of_the_scorer(table):
    X, y, _ = table
    weight = np.where(np.arange(120) % 2, 1.0, 0.0)
    scorer = make_robust_scorer(norm=2, eps=0.3, n_steps=2)
    clf, cv = LogisticRegression(), KFold(2, shuffle=True, random_state=0)
    expected = [
        scorer(LogisticRegression().fit(X[a], y[a]), X[b], y[b], weight[b]) for a, b in cv.split(X)
    ]
    with sklearn.config_context(enable_metadata_routing=True):
        clf.set_fit_request(sample_weight=False)
        settings = {"cv": cv, "params": {"sample_weight": weight}, "error_score": "raise"}
        with pytest.raises(UnsetMetadataPassedError, match="sample_weight"):
            cross_val_score(clf, X, y, scoring=scorer, **settings)
        scorer.set_score_request(sample_weight=True)
        assert_allclose(cross_val_score(clf, X, y, scoring=scorer, **settings), expected)
        both = cross_validate(clf, X, y, scoring={"robust": scorer}, **settings)
        assert_allclose(both["test_robust"], expected)
        scorer.set_score_request(sample_weight="w")
        settings["params"] = {"w": weight}
        assert_allclose(cross_val_score(clf, X, y, scoring=scorer, **settings), expected)
        scorer.set_score_request(sample_weight=False)
        settings["params"] = {"sample_weight": weight}
        with pytest.raises(TypeError, match="not routed to any object"):
            cross_val_score(clf, X, y, scoring=scorer, **settings)


MEAN, STD = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.25, 0.3])


@pytest.fixture(scope="module")
def normalised():
    """Images normalised by channel, and a net from elsewhere that was trained on them."""
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=60)
    X = np.clip(rng.random((60, 3, 4, 4)) * 0.5 + 0.4 * y[:, None, None, None], 0, 1)
    X = ((X - MEAN[:, None, None]) / STD[:, None, None]).astype(np.float32)
    net = NeuralNetClassifier(
        nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), criterion=nn.CrossEntropyLoss, lr=0.1,
        train_split=None, verbose=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        return X, y, net.fit(X, y)


BY_CHANNEL = (-MEAN / STD, (1 - MEAN) / STD)


def test_networks_from_elsewhere_take_bounds(normalised):
    X, y, net = normalised
    with pytest.raises(ValueError, match=r"in \[0, 1\].*bounds") as caught:
        robust_accuracy_score(net, X, y, eps=1, **ATTACK)
    assert "the network does so itself" not in str(caught.value)
    for bounds in (None, BY_CHANNEL, (X.min(), X.max())):
        attack = {**ATTACK, "bounds": bounds}
        scores = [
            robust_accuracy_score(net, X, y, eps=1.0, **attack),
            robust_accuracy_curve(net, X, y, eps_values=[1.0], **attack)[0],
            make_robust_scorer(eps=1.0, **attack)(net, X, y),
        ]
        assert scores[0] == scores[1] == scores[2]
        assert transfer_rate(net, net, X, y, eps=10.0, **attack) == 1
        assert feature_usefulness(net, X, y, bounds=bounds).shape == (2, 48)


@pytest.mark.parametrize("norm", [2, np.inf])
def test_examples_stay_in_the_box_of_their_channel(normalised, norm):
    X, y, net = normalised
    attack = {"norm": norm, "n_steps": 5, "eps": 3.0, "verbose": 0}
    X_adv, _ = adversarial_examples(net, X, y, bounds=BY_CHANNEL, **attack)
    low, high = (side[:, None, None].astype(np.float32) for side in BY_CHANNEL)
    assert (X_adv >= low).all() and (X_adv <= high).all()
    free, _ = adversarial_examples(net, X, y, bounds=None, **attack)
    assert (free < low).any() or (free > high).any()


def test_bounds_by_channel_hold_for_our_classifiers_too(normalised):
    X, y, _ = normalised
    clf = StandardClassifier(bounds=BY_CHANNEL, max_epochs=1, verbose=0).fit(X, y)
    X_adv, _ = adversarial_examples(clf, X, y, eps=3.0, **ATTACK)
    low, high = (side[:, None, None].astype(np.float32) for side in BY_CHANNEL)
    assert (X_adv >= low).all() and (X_adv <= high).all()
    with pytest.raises(ValueError, match=r"in channel 1, got a minimum"):
        clf.predict(X - np.array([0, 1, 0], np.float32)[:, None, None])
    with pytest.raises(ValueError, match="has bounds of its own"):
        robust_accuracy_score(clf, X, y, eps=1.0, bounds=None, **ATTACK)
    with pytest.raises(ValueError, match="one for each of the 3 channels"):
        StandardClassifier(bounds=([0, 0], [1, 1])).fit(X, y)


def test_linear_classifiers_take_bounds_too(table):
    X, y, clf = table
    X = X.clip(0, 2)
    X_adv, _ = adversarial_examples(clf, X, y, eps=3.0, bounds=(0, 2), **ATTACK)
    assert X_adv.min() >= 0 and X_adv.max() <= 2
    with pytest.raises(ValueError, match="'bounds' parameter"):
        adversarial_examples(clf, X, y, eps=3.0, bounds=(2, 0), **ATTACK)
    with pytest.raises(ValueError, match="4 features"):
        adversarial_examples(clf, X[:, :3], y, eps=3.0, **ATTACK)


def test_searches_by_several_scores_take_weights(table):
    X, y, _ = table
    scoring = {"robust": make_robust_scorer(eps=0.3, **ATTACK), "accuracy": "accuracy"}
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, scoring=scoring, refit="robust")
    weight = np.where(np.arange(120) % 3, 1.0, 0.0)
    found = search.fit(X, y, sample_weight=weight).cv_results_
    assert np.isfinite(found["mean_test_robust"]).all()
    assert (found["mean_test_robust"] <= found["mean_test_accuracy"]).all()


def test_one_weight_for_all_changes_nothing(table):
    X, y, clf = table
    expected = robust_accuracy_score(clf, X, y, eps=0.3, **ATTACK)
    assert robust_accuracy_score(clf, X, y, eps=0.3, sample_weight=2.0, **ATTACK) == expected


@pytest.mark.long
def test_a_radius_that_is_asked_for_twice_has_one_accuracy(digits, standard):
    values = [0.4, 0.2, 0.4, 0.0, 0.2, 0.4]
    curve = robust_accuracy_curve(
        standard, *digits[2:], eps_values=values, norm=2, n_steps=1, verbose=0
    )
    once = robust_accuracy_curve(
        standard, *digits[2:], eps_values=[0, 0.2, 0.4], norm=2, n_steps=1, verbose=0
    )
    assert_array_equal(curve, once[[2, 1, 2, 0, 1, 2]])


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, None])
def test_a_bad_batch_size_is_named(table, digits, standard, batch_size):
    for call in (feature_usefulness, robust_feature_usefulness):
        more = {} if call is feature_usefulness else {"norm": 2, "eps": 0.1}
        with pytest.raises(ValueError, match="'batch_size' parameter of .*feature_usefulness"):
            call(standard, *digits[2:], batch_size=batch_size, **more)


def test_a_request_without_routing_is_refused():
    scorer = make_robust_scorer(norm=2, eps=0.1)
    with pytest.raises(RuntimeError, match="enable_metadata_routing=True"):
        scorer.set_score_request(sample_weight=True)
    with (
        sklearn.config_context(enable_metadata_routing=True),
        pytest.raises(ValueError, match="alias"),
    ):
        scorer.set_score_request(sample_weight=3)

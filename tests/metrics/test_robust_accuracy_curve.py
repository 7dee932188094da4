"""The accuracy at several radii, and what is refused before the attack."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from advfeat import (
    robust_accuracy_curve,
    robust_accuracy_score,
)
from advfeat.metrics import _robust_accuracy as metrics_module


def test_curve_keeps_what_a_smaller_eps_found(linear, monkeypatch):
    attacked = []

    def fooled(target, settings, rows=None):
        rows = np.arange(4) if rows is None else rows
        attacked.append((settings["eps"], rows.tolist()))
        # Finds sample 1 at eps 0.1 only and sample 3 at eps 0.2 only.
        return rows == {0.1: 1, 0.2: 3}.get(settings["eps"], -1)

    monkeypatch.setattr(metrics_module, "_fooled", fooled)
    X, y, clf = linear
    X, y = X[:4], y[:4]
    settings = {"norm": 2, "eps_values": [0.4, 0.1, 0.2]}
    assert_array_equal(robust_accuracy_curve(clf, X, y, **settings), [0.5, 0.75, 0.5])
    assert attacked == [(0.1, [0, 1, 2, 3]), (0.2, [0, 2, 3]), (0.4, [0, 2])]
    weighted = robust_accuracy_curve(clf, X, y, sample_weight=[1, 5, 1, 1], **settings)
    assert_allclose(weighted, [2 / 8, 3 / 8, 2 / 8])


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.nan, "NaN"),
        (np.inf, "infinity"),
        (-1.0, "[Nn]egative"),
        ("heavy", "could not convert|one number"),
        (None, "one number|NaN"),
    ],
)
def test_a_bad_weight_is_refused_before_the_attack(linear, weight, message, monkeypatch):
    def no_attack(*args, **kwargs):
        raise AssertionError("the attack began")

    monkeypatch.setattr(metrics_module, "_fooled", no_attack)
    X, y, clf = linear
    weights = np.ones(len(y)).tolist()
    weights[7] = weight
    for score, radii in ((robust_accuracy_score, "eps"), (robust_accuracy_curve, "eps_values")):
        settings = {"norm": 2, radii: 0.1 if radii == "eps" else [0.1]}
        with pytest.raises(ValueError, match=message):
            score(clf, X, y, sample_weight=weights, **settings)
        with pytest.raises(ValueError, match="at least one"):
            score(clf, X, y, sample_weight=np.zeros(len(y)), **settings)
        for shape in (len(y) - 1, (len(y), 2)):
            with pytest.raises(ValueError, match="[Ss]ample.weight"):
                score(clf, X, y, sample_weight=np.ones(shape), **settings)


def test_curve_checks_every_radius_before_the_attack(linear):
    X, y, clf = linear
    with pytest.raises(ValueError, match="eps_values must be numbers"):
        robust_accuracy_curve(clf, X, y, norm=2, eps_values=[0.1, np.nan])
    with pytest.raises(TypeError, match="unknown settings"):
        robust_accuracy_curve(clf, X, y, norm=2, eps_values=[0.1], steps=3)


@pytest.mark.long
def test_curve_agrees_with_the_score_at_each_eps(standard, digits):
    _, _, X_test, y_test = digits
    X, y = X_test[:80], y_test[:80]
    settings = {"norm": 2, "n_steps": 10, "verbose": 0}
    curve = robust_accuracy_curve(standard, X, y, eps_values=[0.2, 0, 0.6, 50], **settings)
    assert curve[1] == standard.score(X, y)
    assert curve[3] == 0
    for eps, value in ((0.2, curve[0]), (0.6, curve[2])):
        score = robust_accuracy_score(standard, X, y, eps=eps, **settings)
        assert abs(value - score) <= 3 / 80  # they start at other points


def test_curve_refuses_what_is_no_list_of_radii(standard, digits):
    _, _, X, y = digits
    for eps_values in (0.5, []):
        with pytest.raises(ValueError, match="eps_values must be a list"):
            robust_accuracy_curve(standard, X, y, norm=2, eps_values=eps_values)
    with pytest.raises(ValueError, match="eps_values must be numbers"):
        robust_accuracy_curve(standard, X, y, norm=2, eps_values=[-1])
    with pytest.raises(ValueError, match="one label per sample"):
        robust_accuracy_curve(standard, X, y[:-1], norm=2, eps_values=[0.1])

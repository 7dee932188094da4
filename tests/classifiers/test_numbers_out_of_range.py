"""Radii, rates and data far from 1: right results or one clear error, never a number by chance."""

import numpy as np
import pytest

from advfeat import (
    AdversarialClassifier,
    RobustFeatureInverter,
    StandardClassifier,
    robust_accuracy_score,
)

NORMS = [2, np.inf]


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 4)).astype(np.float32)
    return X, (X[:, 0] > 0).astype(int)


@pytest.fixture(scope="module")
def fitted(table):
    return StandardClassifier(max_epochs=10, random_state=0, verbose=0).fit(*table)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [1e10, 1e22, 1e38, 1e300])
def test_nothing_withstands_a_huge_radius(table, fitted, standard, digits, norm, eps):
    assert robust_accuracy_score(fitted, *table, norm=norm, eps=eps, verbose=0) == 0
    images = digits[2][:40], digits[3][:40]
    assert robust_accuracy_score(standard, *images, norm=norm, eps=eps, verbose=0) == 0


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_scores_do_not_depend_on_the_unit_of_a_table(table, fitted, norm, scale):
    X, y = table
    clf = StandardClassifier(max_epochs=10, random_state=0, verbose=0).fit(scale * X, y)
    assert clf.score(scale * X, y) == pytest.approx(fitted.score(X, y), abs=0.04)
    actual = robust_accuracy_score(clf, scale * X, y, norm=norm, eps=0.5 * scale, verbose=0)
    expected = robust_accuracy_score(fitted, X, y, norm=norm, eps=0.5, verbose=0)
    assert actual == pytest.approx(expected, abs=0.04)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_training_and_inversion_do_not_depend_on_the_unit_of_a_table(table, scale):
    X, y = table
    score, residual = {}, {}
    for unit in (1, scale):
        clf = AdversarialClassifier(eps=0.5 * unit, max_epochs=10, random_state=0, verbose=0)
        inverter = RobustFeatureInverter(
            clf, n_steps=100, step_size=0.15 * unit, random_state=0, verbose=0
        )
        inverter.fit_transform(unit * X, y)
        score[unit] = inverter.estimator_.score(unit * X, y)
        residual[unit] = np.median(inverter.residual_)
        assert np.isfinite(inverter.distance_).all()
        assert (inverter.distance_ > 0).all()
    assert score[scale] == pytest.approx(score[1], abs=0.06)
    assert residual[scale] == pytest.approx(residual[1], abs=0.1)


@pytest.mark.parametrize("name", ["lr", "weight_decay"])
def test_rates_beyond_float32_are_refused(table, name):
    with pytest.raises(ValueError, match=f"'{name}' parameter"):
        StandardClassifier(verbose=0, **{name: 1e300}).fit(*table)

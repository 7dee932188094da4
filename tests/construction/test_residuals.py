"""Residuals of an inversion: features of zero, features that are no numbers, and the warning."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from small_tables import X, Y, inverter, source
from torch import nn

from advfeat import RobustFeatureInverter, from_torch


class Silent(nn.Sequential):
    """Its features are zero for every input."""

    def __init__(self):
        super().__init__(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        nn.init.constant_(self[0].bias, -1e3)


class Root(nn.Module):
    """Its features are no numbers where an input is negative."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(3, 2)

    def forward(self, x):
        return self.last((x + 1e-3).sqrt())


def inverter_of(network, **settings):
    trained = from_torch(network(), classes=["a", "b"], input_shape=(3,))
    return inverter(trained, n_steps=2, **settings)


def test_features_of_zero_are_matched_exactly():
    made = inverter_of(Silent)
    made.fit_transform(X, Y)  # warnings are errors
    assert_array_equal(made.residual_, 0)


def test_features_that_are_no_numbers_are_told_and_spoil_no_other_sample():
    positive = np.abs(X)
    given = np.where(np.arange(40)[:, None] < 5, -1 - positive, positive)
    made = inverter_of(Root, init=positive[::-1]).fit(positive, Y)
    with pytest.warns(ConvergenceWarning, match="median relative residual is nan"):
        _, residual = made.invert(given, return_residual=True)
    assert_array_equal(np.isnan(residual), np.arange(40) < 5)


@pytest.mark.parametrize(
    ("residual", "poor"), [(0.5, False), (0.51, True), (np.nan, True), (np.inf, True)]
)
def test_poor_matches_are_warned_of_by_their_median(residual, poor, monkeypatch):
    of_each = np.where(np.arange(40) < 21, residual, 0.0)
    found = X, of_each, np.zeros(40)
    monkeypatch.setattr(RobustFeatureInverter, "_run", lambda *args: found)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        inverter_of(Root).fit(np.abs(X), Y).invert(np.abs(X))
    assert [w.category for w in told] == [ConvergenceWarning] * poor


def test_starts_set_after_the_fit_are_held_to_the_bounds_of_the_source():
    inside = (X - X.min()) / (X.max() - X.min())
    trained = FrozenEstimator(source(bounds=(0, 1)).fit(inside, Y))
    made = inverter(trained, n_steps=2, init=inside[::-1]).fit(inside, Y)
    outside = inside.copy()
    outside[7, 1] = 1.5
    with pytest.raises(ValueError, match="array given as init cannot be used.*1.5"):
        made.set_params(init=outside).invert(inside)

"""Fixtures that the tests of this folder share."""

import numpy as np
import pytest
from sklearn.utils import Bunch
from tiny_runs import CLASSES, TINY

import measures
import reproduce


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(reproduce.PRESETS, "digits", TINY)
    load = reproduce.load_digits

    def load_few(**options):
        data = load(**options)
        rows = np.flatnonzero(np.isin(data.target, CLASSES))[:100]
        names = [f"digit {name}" for name in CLASSES]
        return Bunch(data=data.data[rows], target=data.target[rows], target_names=names)

    monkeypatch.setattr(reproduce, "load_digits", load_few)
    reproduce._load_once.cache_clear()
    yield
    reproduce._load_once.cache_clear()


@pytest.fixture
def quick_autoattack(monkeypatch):
    """AutoAttack itself is tested as a slow test."""
    monkeypatch.setattr(
        measures, "withstand_autoattack", lambda classifier, X, y, eps: np.arange(len(X)) % 2 == 0
    )

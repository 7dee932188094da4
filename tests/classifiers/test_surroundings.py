"""Whatever a user has set for the whole process, a fit works and gives the same bits."""

import contextlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from advfeat import AdversarialClassifier, GaussianRobustMLE, robust_accuracy_score

KINDS = {"image": (40, 1, 6, 6), "table": (40, 5)}


def data(kind):
    X = np.random.default_rng(0).random(KINDS[kind], dtype=np.float32)
    return X, (X.reshape(len(X), -1).mean(1) > 0.5).astype(int)


def found(kind):
    X, y = data(kind)
    images = {"augmentation": "paper"} if kind == "image" else {"bounds": (0, 1)}
    clf = AdversarialClassifier(
        n_steps=2, random_start=True, max_epochs=2, batch_size=16, early_stopping=True,
        random_state=0, verbose=0, **images,
    ).fit(X, y)  # fmt: skip
    clf.early_stopping = False
    clf.partial_fit(X, y)
    assert {p.dtype for p in clf.net_.module_.parameters()} == {torch.float32}
    robust = robust_accuracy_score(clf, X, y, norm=2, eps=0.2, n_steps=2, verbose=0)
    return clf.decision_function(X), clf.predict_proba(X), clf.features(X), robust


@pytest.fixture(scope="module")
def expected():
    return {kind: found(kind) for kind in KINDS}


@contextlib.contextmanager
def default_dtype(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SETTINGS = {
    "float64 by default": lambda: default_dtype(torch.float64),
    "bfloat16 by default": lambda: default_dtype(torch.bfloat16),
    "no gradients": torch.no_grad,
    "inference mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu"),
    "another device by default": lambda: torch.device("meta"),
    "deterministic algorithms": deterministic,
    "errors for every rounding": lambda: np.errstate(all="raise"),
}


@pytest.mark.long
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_settings_of_the_process_change_nothing(kind, setting, expected):
    with SETTINGS[setting]():
        values = found(kind)
    for value, truth in zip(values, expected[kind], strict=True):
        np.testing.assert_array_equal(value, truth)


@pytest.mark.slow  # compiles everything
def test_without_assertions():
    code = """
import numpy as np
from advfeat import AdversarialClassifier
assert False
X = np.random.default_rng(0).random((20, 3))
clf = AdversarialClassifier(n_steps=1, max_epochs=1, verbose=0).fit(X, np.arange(20) % 2)
print(clf.predict_proba(X).shape)
"""
    run = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True)
    assert run.stdout == "(20, 2)\n", run.stderr


@pytest.mark.parametrize("estimator", [LogisticRegression(), GaussianRobustMLE(0.1)])
def test_linear_estimators_are_attacked_all_the_same(estimator):
    X, y = data("table")
    estimator = clone(estimator).fit(X, y)
    attack = {"norm": 2, "eps": 0.1, "n_steps": 2, "verbose": 0}
    plain = robust_accuracy_score(estimator, X, y, **attack)
    with default_dtype(torch.float64):
        assert robust_accuracy_score(estimator, X, y, **attack) == plain

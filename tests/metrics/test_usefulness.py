"""Usefulness and robust usefulness of features, against their definitions."""

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from advfeat import (
    StandardClassifier,
    feature_usefulness,
    from_torch,
    robust_feature_usefulness,
)
from advfeat.exceptions import EvaluationWarning


class TwoLinear(nn.Sequential):
    """Features are linear in x, so everything has a closed form."""

    def __init__(self, n_features, n_classes):
        super().__init__(nn.Linear(n_features, 4), nn.Linear(4, n_classes))


@pytest.fixture(scope="module")
def linear_features():
    rng = np.random.RandomState(0)
    y = rng.randint(3, size=300)
    X = rng.randn(3, 5)[y] + rng.randn(300, 5)
    clf = StandardClassifier(TwoLinear, max_epochs=3, random_state=0, verbose=0).fit(X, y)
    module = clf.net_.module_
    weight = (module.body[0].weight / module.std).detach().numpy()
    return X, y, clf, weight


def test_usefulness_is_the_definition(linear_features):
    X, y, clf, _ = linear_features
    f = clf.features(X).astype(float)
    f = (f - f.mean(0)) / f.std(0)
    rho = feature_usefulness(clf, X, y)
    for c in range(3):
        sign = np.where(y == c, 1, -1)
        assert_allclose(rho[c], (sign[:, None] * f).mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("norm", "dual"), [(2, 2), (np.inf, 1)])
def test_robust_usefulness_of_linear_features_in_closed_form(linear_features, norm, dual):
    X, y, clf, weight = linear_features
    eps = 0.3
    reach = eps * np.linalg.norm(weight, ord=dual, axis=1) / clf.features(X).std(0)
    rho = feature_usefulness(clf, X, y)
    gamma = robust_feature_usefulness(clf, X, y, norm=norm, eps=eps, verbose=0)
    assert_allclose(gamma, np.abs(rho) - reach, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("random_start", [False, True])
def test_usefulness_does_not_depend_on_how_many_searches_run_together(
    adversarial, digits, random_start
):
    one_of_each = np.unique(digits[3], return_index=True)[1]
    X, y = digits[2][one_of_each], digits[3][one_of_each]
    settings = {
        "norm": 2, "eps": 0.4, "n_steps": 2, "random_start": random_start, "n_restarts": 2,
        "verbose": 0,
    }  # fmt: skip
    few = robust_feature_usefulness(adversarial, X, y, batch_size=23, **settings)
    for change in ({"batch_size": 50}, {"batch_size": 1000, "n_jobs": 2}):
        with joblib.parallel_config("threading"):  # processes: tests/test_backends.py
            found = robust_feature_usefulness(adversarial, X, y, **settings, **change)
        assert_allclose(found, few, atol=1e-4)


def test_robust_usefulness_never_exceeds_usefulness(adversarial, standard, digits):
    X, y = digits[2][:25], digits[3][:25]
    settings = {"norm": 2, "eps": 0.5, "n_steps": 4, "verbose": 0}
    robust = {}
    for name, clf in (("standard", standard), ("adversarial", adversarial)):
        rho = np.abs(feature_usefulness(clf, X, y))
        gamma = robust_feature_usefulness(clf, X, y, **settings)
        assert np.nanmax(gamma - rho) < 1e-6
        robust[name] = np.nanmean(gamma)
    assert robust["adversarial"] > robust["standard"]  # robust training keeps robust features


def test_constant_features_have_no_usefulness():
    X, y = np.random.RandomState(0).randn(40, 2), np.arange(40) % 2

    class Net(nn.Sequential):
        def __init__(self, n_features, n_classes):
            super().__init__(nn.Linear(n_features, 3), nn.Linear(3, n_classes))

    clf = StandardClassifier(Net, max_epochs=1, random_state=0, verbose=0).fit(X, y)
    with torch.no_grad():
        clf.net_.module_.body[0].weight[0] = 0
        clf.net_.module_.body[0].bias[0] = 1
    rho = feature_usefulness(clf, X, y)
    assert np.all(np.isnan(rho[:, 0])) and np.all(np.isfinite(rho[:, 1:]))


def test_every_further_restart_begins_elsewhere_and_the_worst_counts(linear_features):
    """With steps of hardly any length only the starts decide."""
    X, y, clf, _ = linear_features
    settings = {"norm": 2, "eps": 0.5, "n_steps": 1, "step_size": 1e-9, "random_start": True}
    gamma = [
        robust_feature_usefulness(clf, X[:40], y[:40], n_restarts=n, verbose=0, **settings)
        for n in range(1, 6)
    ]
    assert np.diff(gamma, axis=0).max() < 0


class Root(nn.Module):
    """Its features are no numbers where an input is negative."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(2, 2)

    def forward(self, x):
        return self.last(x.sqrt())


def test_searches_that_meet_no_number_leave_what_the_others_found():
    X, y = np.random.default_rng(0).uniform(0.05, 0.3, (40, 2)), np.arange(40) % 2
    clf = from_torch(Root(), classes=[0, 1], input_shape=(2,))
    settings = {"norm": np.inf, "eps": 0.1, "n_steps": 3, "random_start": True, "verbose": 0}
    once, often = (robust_feature_usefulness(clf, X, y, n_restarts=n, **settings) for n in (1, 6))
    assert np.isfinite(often).all() and (often <= once).all() and (often < once).any()


class Before(nn.Module):
    """Two layers behind a function of the input; its features end in another."""

    def __init__(self, before=lambda x: x, after=torch.relu):
        super().__init__()
        self.before, self.after = before, after
        self.hidden, self.last = nn.Linear(4, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.last(self.after(self.hidden(self.before(x))))


def usefulness_of(*parts, eps=0.1, n=60):
    X, y = np.random.default_rng(0).random((n, 4), dtype=np.float32), np.arange(n) % 3
    clf = from_torch(Before(*parts), classes=range(3), input_shape=(4,))
    return robust_feature_usefulness(clf, X, y, norm=2, eps=eps, n_steps=2, verbose=0)


BLIND = {
    "rounded": (lambda x: (x * 16).round() / 16,),
    "features in steps": (lambda x: x, lambda h: (h * 16).round() / 16),
    "features in steps, half of them": (
        lambda x: x, lambda h: torch.cat([h[:, :8], (h[:, 8:] * 16).round() / 16], 1),
    ),
    "a root of zero": (lambda x: (x - x).sqrt() + x,),
}  # fmt: skip


@pytest.mark.parametrize("name", BLIND)
def test_searches_without_a_gradient_are_told(name):
    with pytest.warns(EvaluationWarning, match="exactly zero, or no number, for .* of 64 pairs"):
        usefulness_of(*BLIND[name])
    usefulness_of(*BLIND[name], eps=0)  # there is nothing to be missed


def test_searches_in_a_random_network_are_told():
    with pytest.warns(EvaluationWarning, match="The network is random") as caught:
        usefulness_of(lambda x: x + 0.1 * torch.randn_like(x))
    assert len(caught) == 1


@pytest.mark.parametrize("after", [torch.relu, torch.tanh, nn.functional.gelu, lambda h: h])
def test_searches_that_have_a_gradient_raise_no_alarm(after):
    """Also that of features that are off, and for few samples."""
    for n in (2, 60):
        usefulness_of(lambda x: x, after, n=n)


def test_features_that_are_constant_raise_no_alarm():
    """They have no usefulness."""
    mask = (torch.arange(16) < 8).float()
    gamma = usefulness_of(lambda x: x, lambda h: mask * h)
    assert np.isnan(gamma[:, 8:]).all() and np.isfinite(gamma[:, :8]).all()
    assert np.isnan(usefulness_of(lambda x: x, lambda h: 0 * h)).all()

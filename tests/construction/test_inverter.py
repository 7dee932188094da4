"""RobustFeatureInverter: features matched, starts, reproducibility, bad input."""

import warnings

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from torch import nn

from advfeat import (
    AdversarialClassifier,
    NonRobustRelabeler,
    RobustFeatureInverter,
    StandardClassifier,
)
from advfeat.datasets import load_digits


def inverter(source, **settings):
    defaults = {"solver": "decayed", "n_steps": 60, "step_size": 0.4, "random_state": 0}
    return RobustFeatureInverter(FrozenEstimator(source), verbose=0, **{**defaults, **settings})


def test_features_are_matched_from_an_unrelated_start(adversarial, digits):
    X, y, _, _ = digits
    inv = inverter(adversarial)
    X_r = inv.fit_transform(X, y)
    assert X_r.shape == X.shape and X_r.dtype == np.float32
    assert X_r.min() >= 0 and X_r.max() <= 1
    g, g_r = adversarial.features(X), adversarial.features(X_r)
    residual = np.linalg.norm(g_r - g, axis=1) / np.linalg.norm(g, axis=1)
    assert_allclose(inv.residual_, residual, rtol=1e-2, atol=1e-4)
    assert np.median(residual) < 0.1
    assert np.mean(adversarial.predict(X_r) == adversarial.predict(X)) > 0.85
    # It is another image, not the sample found again.
    assert np.median(np.linalg.norm((X_r - X).reshape(len(X), -1), axis=1)) > 1


def test_features_that_pool_over_positions_are_matched():
    """Without batch-norm many positions are off; the gradient must not count them."""

    class Net(nn.Sequential):
        def __init__(self, in_channels, n_classes):
            super().__init__(
                nn.Conv2d(in_channels, 16, 3, padding=1), nn.ReLU(),
                nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, n_classes),
            )  # fmt: skip
            nn.init.kaiming_normal_(self[0].weight)
            nn.init.kaiming_normal_(self[2].weight)

    X, y = load_digits(return_X_y=True)
    X, y = X[:200], y[:200]
    source = StandardClassifier(Net, lr=0.1, max_epochs=15, random_state=0, verbose=0).fit(X, y)
    inv = inverter(source)
    inv.fit_transform(X, y)
    assert np.median(inv.residual_) < 0.045  # 0.10 if it does


def test_start_is_another_sample_whatever_its_label(adversarial, digits):
    X, y, _, _ = digits
    # Steps of no length leave the start where it is.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        start = inverter(adversarial, n_steps=1, step_size=1e-9).fit_transform(X, y)
    distance = np.linalg.norm(start.reshape(len(X), 1, -1) - X.reshape(1, len(X), -1), axis=2)
    chosen = distance.argmin(1)
    assert_allclose(distance.min(1), 0, atol=1e-6)
    assert np.all(chosen != np.arange(len(X)))
    same_label = np.mean(y[chosen] == y)
    assert abs(same_label - 0.1) < 4 * np.sqrt(0.1 * 0.9 / len(X))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_noise_and_given_starts(adversarial, digits):
    X, y, _, _ = digits
    frozen_start = {"n_steps": 1, "step_size": 1e-9}
    noise = inverter(adversarial, init="noise", **frozen_start).fit_transform(X, y)
    other = inverter(adversarial, init="noise", random_state=1, **frozen_start).fit_transform(X, y)
    assert not np.array_equal(noise, other)
    mean, std = X.mean(), X.std()
    expected = np.clip(np.random.RandomState(0).normal(mean, std, 10**5), 0, 1)
    assert abs(noise.mean() - expected.mean()) < 0.01
    assert abs(noise.std() - expected.std()) < 0.01
    given = np.full_like(X, 0.25)
    assert_allclose(inverter(adversarial, init=given, **frozen_start).fit_transform(X, y), 0.25)
    with pytest.raises(ValueError, match="an array of the shape of X"):
        inverter(adversarial, init=given[:5]).fit_transform(X, y)


def test_decayed_steps_come_closer(adversarial, digits):
    X, y, _, _ = digits
    residual = {}
    for solver, step in (("paper", 0.1), ("decayed", 0.4)):
        inv = inverter(adversarial, solver=solver, n_steps=60, step_size=step)
        inv.fit_transform(X[:200], y[:200])
        residual[solver] = np.median(inv.residual_)
    assert residual["decayed"] < residual["paper"]


def test_transform_is_the_identity_and_checks(adversarial, digits):
    X, y, X_test, _ = digits
    inv = inverter(adversarial).fit(X, y)
    assert inv.transform(X_test) is X_test
    with pytest.raises(ValueError, match="NHWC"):
        inv.transform(X_test.transpose(0, 2, 3, 1))
    with pytest.raises(ValueError, match="maximum of 255"):
        inv.transform(X_test * 255)
    with pytest.raises(NotFittedError):
        clone(inv).transform(X_test)
    with pytest.raises(NotFittedError):
        clone(inv).invert(X_test)


def test_same_seed_same_bits_whatever_the_batches(adversarial, digits):
    X, y, _, _ = digits
    X, y = X[:60], y[:60]
    settings = {"n_steps": 20, "init": "noise"}
    expected = inverter(adversarial, **settings).fit_transform(X, y)
    for change in ({"batch_size": 60}, {"batch_size": 7}, {"n_jobs": 2, "batch_size": 25}):
        with joblib.parallel_config("threading"):  # processes: tests/test_backends.py
            found = inverter(adversarial, **settings, **change).fit_transform(X, y)
        assert_allclose(found, expected, atol=1e-5)
    assert_array_equal(inverter(adversarial, **settings).fit_transform(X, y), expected)
    other = inverter(adversarial, **settings, random_state=1).fit_transform(X, y)
    assert np.abs(other - expected).max() > 0.1


def test_invert_serves_test_sets(adversarial, digits):
    X, y, X_test, _ = digits
    inv = inverter(adversarial).fit(X, y)
    X_r, residual = inv.invert(X_test, return_residual=True)
    assert X_r.shape == X_test.shape and residual.shape == (len(X_test),)
    assert_array_equal(inv.invert(X_test), X_r)
    assert not hasattr(inv, "residual_")


@pytest.mark.long
def test_source_is_trained_and_seeded(digits):
    X, y, _, _ = digits
    source = AdversarialClassifier(n_steps=1, max_epochs=8, verbose=0)
    settings = {"n_steps": 5, "step_size": 1e-3, "random_state": 3, "verbose": 0}
    with pytest.warns(ConvergenceWarning, match="matched poorly"):
        a = RobustFeatureInverter(source, **settings).fit_transform(X, y)
    with pytest.warns(ConvergenceWarning):
        b = RobustFeatureInverter(source, **settings).fit_transform(X, y)
    assert_array_equal(a, b)
    assert not hasattr(source, "net_") and source.random_state is None


def test_default_source_is_adversarially_trained():
    rng = np.random.RandomState(0)
    X, y = rng.randn(60, 4), np.arange(60) % 2
    inv = RobustFeatureInverter(n_steps=200, random_state=0, verbose=0).fit(X, y)
    assert type(inv.estimator_) is AdversarialClassifier


def test_frozen_source_is_not_retrained(adversarial, digits):
    X, y, _, _ = digits
    before = adversarial.decision_function(X)
    inv = inverter(adversarial, n_steps=5).fit(X[:50], y[:50])
    assert inv.estimator_.estimator is adversarial
    assert_array_equal(adversarial.decision_function(X), before)


def test_uint8_source_data(adversarial, digits):
    X, y, _, _ = digits
    X8 = np.round(X[:100] * 255).astype(np.uint8)
    found = inverter(adversarial, n_steps=10).fit_transform(X8, y[:100])
    same = inverter(adversarial, n_steps=10).fit_transform(X8.astype(np.float32) / 255, y[:100])
    assert found.dtype == np.float32
    assert_allclose(found, same, atol=1e-4)


def test_tabular_inversion_of_a_linear_map_recovers_the_sample():
    class Net(nn.Sequential):
        def __init__(self, n_features, n_classes):
            super().__init__(nn.Linear(n_features, n_features), nn.Linear(n_features, n_classes))
            nn.init.orthogonal_(self[0].weight)

    rng = np.random.RandomState(0)
    X = rng.randn(50, 3).astype(np.float32)
    source = StandardClassifier(Net, max_epochs=1, random_state=0, verbose=0)
    inv = RobustFeatureInverter(
        source, solver="decayed", n_steps=500, step_size=0.3, random_state=0, verbose=0
    )
    X_r = inv.fit_transform(X, X[:, 0] > 0)
    assert_allclose(X_r, X, atol=0.05)


def test_bad_source(digits):
    X, y, _, _ = digits
    with pytest.raises(TypeError, match="must be an advfeat classifier"):
        RobustFeatureInverter(LogisticRegression()).fit(X, y)
    with pytest.raises(ValueError, match="'estimator' parameter of RobustFeatureInverter"):
        RobustFeatureInverter("resnet50").fit(X, y)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init": "zeros"}, "'init' parameter"),
        ({"n_steps": 0}, "'n_steps' parameter"),
        ({"step_size": -0.1}, "'step_size' parameter"),
        ({"solver": "adam"}, "'solver' parameter"),
    ],
)
def test_bad_parameters(adversarial, digits, settings, message):
    X, y, _, _ = digits
    with pytest.raises(ValueError, match=message):
        inverter(adversarial, **settings).fit_transform(X, y)


def test_other_size_at_transform(adversarial, digits):
    X, y, _, _ = digits
    with pytest.raises(ValueError, match="expecting samples of shape"):
        inverter(adversarial).fit(X, y).invert(X[:, :, :6])
    with pytest.raises(ValueError, match="requires y to be passed"):
        inverter(adversarial).fit_transform(X)


def test_distance_is_that_from_the_start(adversarial, digits):
    X, y, X_test, _ = digits
    start = X_test[:50]
    inv = inverter(adversarial, init=start, n_steps=5)
    X_r = inv.fit_transform(X[:50], y[:50])
    moved = np.linalg.norm((X_r - start).reshape(50, -1), axis=1)
    assert_allclose(inv.distance_, moved, rtol=1e-4)


def test_momentum_matches_closer_than_constant_steps(adversarial, digits):
    X, y, _, _ = digits
    residual = {}
    for solver in ("paper", "momentum"):
        inv = inverter(adversarial, solver=solver, n_steps=60, step_size=0.1)
        inv.fit_transform(X[:200], y[:200])
        residual[solver] = np.median(inv.residual_)
    assert residual["momentum"] < 0.75 * residual["paper"]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("solver", "n_steps", "step_size"),
    [("momentum", 200, 0.15), ("decayed", 100, 0.6), ("paper", 1000, 0.1)],
)
def test_each_solver_has_steps_of_its_own(adversarial, digits, solver, n_steps, step_size):
    X, y = digits[0][:5], digits[1][:5]
    by_default = inverter(adversarial, solver=solver, n_steps=None, step_size=None)
    given = inverter(adversarial, solver=solver, n_steps=n_steps, step_size=step_size)
    assert_array_equal(by_default.fit_transform(X, y), given.fit_transform(X, y))


def test_momentum_of_zero_is_the_decayed_solver(adversarial, digits):
    X, y, _, _ = digits
    settings = {"n_steps": 10, "step_size": 0.1}
    expected = inverter(adversarial, **settings).fit_transform(X[:50], y[:50])
    found = inverter(adversarial, solver="momentum", momentum=0, **settings)
    assert_array_equal(found.fit_transform(X[:50], y[:50]), expected)
    found.set_params(momentum=0.5)
    assert np.abs(found.fit_transform(X[:50], y[:50]) - expected).max() > 0.01


@pytest.mark.filterwarnings("ignore:The features were matched poorly")  # one step
@pytest.mark.parametrize(
    ("solver", "form"), [("paper", "fake_relu_features"), ("decayed", "inversion_features")]
)
def test_each_solver_steps_along_its_own_gradient(standard, digits, solver, form):
    X = digits[0][:16]
    start = X[::-1].copy()
    found = inverter(standard, solver=solver, n_steps=1, step_size=0.1, init=start)
    found.fit(X, digits[1][:16])
    frozen = standard.frozen().verify(X)
    z = torch.from_numpy(start).requires_grad_(True)
    value = (getattr(frozen, form)(z) - frozen.features(torch.from_numpy(X))).square().sum()
    (gradient,) = torch.autograd.grad(value, z)
    direction = gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    expected = (z.detach() - 0.1 * direction).clamp(0, 1)
    actual = torch.from_numpy(found.invert(X))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def activated(activation):
    class Net(nn.Sequential):
        def __init__(self, n_features, n_classes):
            super().__init__(
                nn.Linear(n_features, 24), activation(), nn.Linear(24, 24), activation(),
                nn.Linear(24, n_classes),
            )  # fmt: skip

    return Net


class LayerNormed(nn.Sequential):
    def __init__(self, n_features, n_classes):
        super().__init__(
            nn.Linear(n_features, 24), nn.ReLU(), nn.LayerNorm(24), nn.Linear(24, n_classes)
        )


class Untraceable(nn.Module):
    def __init__(self, n_features, n_classes):
        super().__init__()
        self.hidden, self.fc = nn.Linear(n_features, 24), nn.Linear(24, n_classes)

    def forward(self, x):
        h = self.hidden(x)
        return self.fc(h.relu() if h.sum() > -1e9 else h)


@pytest.mark.parametrize(
    "network",
    [activated(nn.ReLU), activated(nn.GELU), activated(nn.SiLU), activated(nn.Tanh), LayerNormed],
    ids=["relu", "gelu", "silu", "tanh", "layer norm"],
)
def test_other_activations_are_matched_without_a_warning(network):
    X, y = make_classification(120, 12, n_informative=6, random_state=0)
    X = X.astype(np.float32)
    clf = StandardClassifier(network, max_epochs=5, random_state=0, verbose=0).fit(X, y)
    inv = RobustFeatureInverter(FrozenEstimator(clf), random_state=0, verbose=0)
    inv.fit_transform(X, y)
    assert np.median(inv.residual_) < 0.1


@pytest.mark.filterwarnings("ignore:The features were matched poorly")
def test_units_that_stay_off_are_told():
    X, y = make_classification(120, 12, n_informative=6, random_state=0)
    clf = StandardClassifier(Untraceable, max_epochs=2, random_state=0, verbose=0).fit(X, y)
    inv = RobustFeatureInverter(FrozenEstimator(clf), n_steps=5, random_state=0, verbose=0)
    with pytest.warns(UserWarning, match="have no gradient: their units are off"):
        inv.fit_transform(X, y)


def test_one_sample_has_no_other_to_start_from(standard, digits):
    X, y = digits[0][:20], digits[1][:20]
    fitted = inverter(standard).fit(X, y)
    for call in (lambda: fitted.invert(X[:1]), lambda: fitted.fit_transform(X[:1], y[:1])):
        with pytest.raises(ValueError, match=r"two samples at least. Got one sample; use init="):
            call()
    from_noise = inverter(standard, init="noise").fit(X, y).invert(X[:1])
    assert not np.array_equal(from_noise, X[:1])


class AlwaysDrops(nn.Module):
    """Dropout in eval mode, too: functional.dropout without ``training=self.training``."""

    def __init__(self, n_classes=10):
        super().__init__()
        self.body, self.head = nn.Linear(64, 32), nn.Linear(32, n_classes)

    def forward(self, x):
        return self.head(nn.functional.dropout(self.body(x.flatten(1)).relu(), 0.5))


@pytest.mark.parametrize("make", [RobustFeatureInverter, NonRobustRelabeler])
@pytest.mark.parametrize("trained", [True, False])
def test_random_sources_are_refused_and_take_no_global_numbers(make, trained, digits):
    X, y = digits[0][:50], digits[1][:50]
    source = StandardClassifier(AlwaysDrops, max_epochs=1, random_state=0, verbose=0)
    if trained:
        source = FrozenEstimator(source.fit(X, y))
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="source network is random: its logits for one input"):
        make(source, n_steps=2, random_state=0, verbose=0).fit_transform(X, y)
    assert torch.equal(torch.get_rng_state(), before)
    assert trained or not hasattr(source, "net_")  # refused before it is trained

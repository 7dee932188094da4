"""Planted features: their accuracies and usefulness are those of closed forms."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from advfeat.datasets import (
    make_planted_features,
    make_planted_images,
)

SEEDS = st.integers(0, 2**32 - 1)


def attacked_accuracy(data, features, eps):
    """Move every sample by eps towards the nearest other class of the linear rule, and predict.

    The attack is exact for a linear rule; eps is shortened by nothing, so a tie cannot happen.
    """
    X, y = data.data.reshape(len(data.data), -1).astype(float), data.target
    W, rows = data.coef[features], np.arange(len(X))
    scores = X @ W.T
    distances = np.full_like(scores, np.inf)
    for k in range(len(W)):
        other = y != k
        length = np.linalg.norm(W[y[other]] - W[k], axis=1)
        distances[other, k] = (scores[rows, y] - scores[:, k])[other] / length
    direction = W[distances.argmin(axis=1)] - W[y]
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return np.mean(((X + eps * direction) @ W.T).argmax(axis=1) == y)


def agrees(observed, expected, n):
    return abs(observed - expected) < 5 * np.sqrt(expected * (1 - expected) / n) + 4 / n


@pytest.mark.parametrize("make", [make_planted_features, make_planted_images])
@given(
    seed=SEEDS,
    n_classes=st.sampled_from([2, 3, 5]),
    agreement=st.sampled_from([0.5, 0.8, 0.95]),
    snr=st.sampled_from([0.7, 1.5, 2.5]),
    fraction=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
)
@settings(max_examples=25, deadline=None)
def test_planted_accuracy_agrees_with_the_closed_form(
    make, seed, n_classes, agreement, snr, fraction
):
    n, margin = 2000, 0.03
    data = make(
        n,
        n_classes=n_classes,
        agreement=agreement,
        nonrobust_margin=margin,
        noise=margin / snr,
        robust_margin=0.8,
        random_state=seed,
    )
    eps = fraction * margin
    for features in ("robust", "nonrobust", "all"):
        expected = data.accuracy(features, eps=eps)
        assert agrees(attacked_accuracy(data, features, eps), expected, n), features


@pytest.mark.parametrize("make", [make_planted_features, make_planted_images])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_planted_robust_feature_holds_up_to_its_margin(make, n_classes):
    data = make(2000, n_classes=n_classes, robust_margin=0.9, random_state=0)
    assert agrees(attacked_accuracy(data, "robust", 0.899), 0.8, 2000)
    assert attacked_accuracy(data, "robust", 0.901) == 0
    assert data.accuracy("robust", eps=0.899) == 0.8
    assert data.accuracy("robust", eps=0.9) == 0


def test_planted_accuracy_equals_the_binary_formulas():
    p, r, s, sigma = 0.7, 1.0, 0.1, 0.08
    data = make_planted_features(agreement=p, robust_margin=r, nonrobust_margin=s, noise=sigma)
    normal = torch.distributions.Normal(0.0, 1.0)

    def phi(x):
        return normal.cdf(torch.tensor(x, dtype=torch.float64)).item()

    bonus = np.log(p / (1 - p)) * sigma / (2 * s)
    slope = np.sqrt(1 + (bonus * sigma / r) ** 2)
    for eps in (0.0, 0.05, 0.2, 1.0):
        assert data.accuracy("nonrobust", eps=eps) == pytest.approx(phi((s - eps) / sigma))
        lead = (s - slope * eps) / sigma
        expected = p * phi(lead + bonus) + (1 - p) * phi(lead - bonus)
        assert data.accuracy(eps=eps) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("make", [make_planted_features, make_planted_images])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_no_trained_classifier_beats_the_bayes_accuracy(make, n_classes):
    data = make(
        8000, n_classes=n_classes, nonrobust_margin=0.04, noise=0.04, random_state=n_classes
    )
    X, y = data.data.reshape(8000, -1) * 25, data.target  # to unit noise
    score = (
        LogisticRegression(C=1.0, max_iter=2000).fit(X[:4000], y[:4000]).score(X[4000:], y[4000:])
    )
    best = data.accuracy()
    assert best > max(data.accuracy("robust"), data.accuracy("nonrobust")) + 0.01
    assert best - 0.04 < score < best + 5 * np.sqrt(best * (1 - best) / 4000)


def test_planted_usefulness_is_that_of_the_notes():
    n, p, s, sigma, eps = 20_000, 0.8, 0.1, 0.04, 0.03
    data = make_planted_features(n, random_state=0)
    sign = 2 * data.target - 1
    robust = data.data[:, data.robust_mask].sum(axis=1)  # has unit variance as it is
    columns = data.data[:, ~data.robust_mask].sum(axis=1) / np.sqrt(20)
    scale = np.sqrt(s**2 + sigma**2)
    assert np.std(columns) == pytest.approx(scale, rel=0.03)
    assert np.mean(sign * robust) == pytest.approx(2 * p - 1, abs=0.02)
    assert np.mean(sign * columns) / scale == pytest.approx(s / scale, abs=0.02)
    # The worst attack moves the columns by eps along their sum, against the label.
    attacked = columns - eps * sign
    assert np.mean(sign * attacked) / scale == pytest.approx((s - eps) / scale, abs=0.02)


@pytest.mark.parametrize("make", [make_planted_features, make_planted_images])
@given(seed=SEEDS, n_classes=st.integers(2, 6))
@settings(max_examples=15, deadline=None)
def test_planted_ground_truth_describes_the_sample(make, seed, n_classes):
    data = make(301, n_classes=n_classes, random_state=seed)
    assert data.data.dtype == np.float32 and data.target.dtype == np.int64
    assert np.ptp(np.bincount(data.target, minlength=n_classes)) <= 1
    assert agrees(np.mean(data.robust_target == data.target), 0.8, 301)
    base = 0.5 if data.data.ndim == 4 else 0.0
    clean = base + data.robust_patterns[data.robust_target] + data.nonrobust_patterns[data.target]
    noise = (data.data - clean).reshape(301, -1)
    sigma = 0.04 if data.data.ndim == 2 else 0.03
    robust = data.robust_patterns.reshape(n_classes, -1)
    assert np.abs(noise @ robust.T).max() < 1e-5  # none along the robust feature
    d_noise = noise.shape[1] - (n_classes - 1)
    assert np.sqrt((noise**2).sum() / (301 * d_noise)) == pytest.approx(sigma, rel=0.1)
    nonrobust = data.nonrobust_patterns.reshape(n_classes, -1)
    assert np.abs(robust @ nonrobust.T).max() < 1e-12
    for patterns, distance in [(robust, 2.0), (nonrobust, data.flip_eps)]:
        gaps = np.linalg.norm(patterns[:, None] - patterns[None], axis=2)
        assert np.allclose(gaps, distance * (1 - np.eye(n_classes)))


def test_planted_features_columns():
    data = make_planted_features(10, n_classes=3, n_nonrobust=7, random_state=0)
    assert data.data.shape == (10, 9)
    assert data.robust_mask.tolist() == [True] * 2 + [False] * 7
    assert not data.robust_patterns[:, ~data.robust_mask].any()
    assert not data.nonrobust_patterns[:, data.robust_mask].any()
    binary = make_planted_features(10, n_nonrobust=25, nonrobust_margin=0.1)
    assert np.allclose(binary.nonrobust_patterns[:, 1:], [[-0.02] * 25, [0.02] * 25])
    assert binary.robust_patterns[:, 0].tolist() == pytest.approx([-1, 1])


@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_planted_images_are_valid_with_a_smooth_and_a_fast_pattern(n_classes):
    images = make_planted_images(500, n_classes=n_classes, random_state=0)
    assert images.data.shape == (500, 1, 16, 16)
    assert images.data.min() >= 0 and images.data.max() <= 1
    assert (
        images.robust_patterns.shape == images.nonrobust_patterns.shape == (n_classes, 1, 16, 16)
    )
    spectrum = np.abs(np.fft.fft2(images.robust_patterns)) ** 2
    low = np.add.outer(*[np.abs(np.fft.fftfreq(16))] * 2) < 0.3
    assert spectrum[..., low].sum() > 0.9 * spectrum.sum()
    spectrum = np.abs(np.fft.fft2(images.nonrobust_patterns)) ** 2
    high = np.add.outer(*[np.abs(np.fft.fftfreq(16))] * 2) > 0.7
    assert spectrum[..., high].sum() > 0.9 * spectrum.sum()
    assert np.abs(images.robust_patterns).max() > 3 * np.abs(images.nonrobust_patterns).max()


@pytest.mark.parametrize("make", [make_planted_features, make_planted_images])
def test_planted_data_are_reproducible_and_leave_the_global_generator_alone(make):
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    first, again = make(50, random_state=7), make(50, random_state=np.random.RandomState(7))
    assert np.array_equal(np.random.get_state()[1], before)
    assert np.array_equal(first.data, again.data) and np.array_equal(first.target, again.target)
    assert not np.array_equal(first.data, make(50, random_state=8).data)
    X, y = make(50, random_state=7, return_X_y=True)
    assert np.array_equal(X, first.data) and np.array_equal(y, first.target)


@pytest.mark.parametrize("make", [make_planted_features, make_planted_images])
def test_planted_truth_survives_pickling(make):
    data = make(5, random_state=0)
    copy = pickle.loads(pickle.dumps(data))
    assert copy.accuracy("nonrobust", eps=0.01) == data.accuracy("nonrobust", eps=0.01)


@pytest.mark.parametrize("make", [make_planted_features, make_planted_images])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_samples": 0}, "'n_samples' parameter"),
        ({"n_classes": 1}, "'n_classes' parameter"),
        ({"agreement": 1.0}, "'agreement' parameter"),
        ({"n_classes": 3, "agreement": 0.3}, "at least 1 / n_classes = 0.333"),
        ({"noise": 0.0}, "'noise' parameter"),
        ({"robust_margin": -1.0}, "'robust_margin' parameter"),
        ({"nonrobust_margin": 0.0}, "'nonrobust_margin' parameter"),
        ({"random_state": "seed"}, "'random_state' parameter"),
    ],
)
def test_planted_data_refuse_parameters_out_of_range(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_planted_data_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="'n_nonrobust' .* at least n_classes - 1 = 4. Got 3"):
        make_planted_features(n_classes=5, n_nonrobust=3)
    with pytest.raises(ValueError, match=r"size\*\*2 > 2 \* \(n_classes - 1\) = 4. Got 2"):
        make_planted_images(n_classes=3, size=2)
    with pytest.raises(ValueError, match="within 0.5 of grey.*Lower robust_margin"):
        make_planted_images(robust_margin=5.0)


def test_planted_accuracy_refuses_unknown_features_and_negative_eps():
    data = make_planted_features(5)
    with pytest.raises(ValueError, match="'features' parameter .* Got 'useful' instead"):
        data.accuracy("useful")
    for eps in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="'eps' parameter must be at least 0"):
            data.accuracy(eps=eps)

"""Controls and the debate: sets without features, certified linear features, distances."""

import numpy as np
import pytest

import measures
from advfeat import ConstructedDataset, StandardClassifier
from tables import _table, controls, goh, leakage


@pytest.mark.parametrize(("name", "kind"), leakage._FEATURELESS)
def test_perturbations_without_features(name, kind):
    rng = np.random.default_rng(0)
    X, y = rng.uniform(0.4, 0.6, (300, 1, 4, 4)), rng.integers(5, size=300)
    found, target = leakage._perturb(X, y, name, kind, 0.5, 5, seed=1)
    moved = (found - X).reshape(300, -1)
    size = np.linalg.norm(moved, axis=1)
    kept = target == y
    still = kept & (kind == leakage._LEFT)
    assert size[still] == pytest.approx(0, abs=1e-6)
    assert size[~still] == pytest.approx(0.5, rel=0.02)  # the box is hardly reached
    assert kept.any() == (name == "D_rand")
    if name == "D_det":
        assert np.array_equal(target, (y + 1) % 5)
    first = [moved[(target == label) & ~kept][:2] for label in range(5)]
    same = [np.allclose(a, b, atol=1e-5) for a, b in first]
    assert not any(same) if kind == leakage._NOISE else all(same)
    again = leakage._perturb(X, y, name, kind, 0.5, 5, seed=1)
    assert np.array_equal(again[0], found) and np.array_equal(again[1], target)


@pytest.mark.parametrize("distance", [0.3, 2.0, 3.0])
def test_noise_moves_images_as_far_as_said_although_it_is_clipped(digits, distance):
    X = digits[0][:200]
    noisy = controls._noisy(X, distance, seed=0)
    assert noisy.min() >= 0 and noisy.max() <= 1
    assert measures.mean_distance(noisy, X) == pytest.approx(distance, rel=0.01)
    assert not np.array_equal(noisy, controls._noisy(X, distance, seed=1))


@pytest.mark.parametrize(("n", "counts"), [(6, [2, 2, 2]), (4, [2, 1, 1]), (2, [1, 1, 0])])
def test_pictures_show_every_class(n, counts):
    y = np.array(list("aab") + list("cb") * 3)
    rows = _table._of_every_class(y, n)
    assert len(set(rows.tolist())) == n
    assert [list(y[rows]).count(label) for label in "abc"] == counts
    assert y[rows].tolist() == sorted(y[rows])


def test_pictures_of_a_class_with_few_samples_show_more_of_the_others():
    rows = _table._of_every_class(np.array([0, 1, 1, 1, 1]), 4)
    assert len(rows) == 4 and 0 in rows


def test_linear_network_is_read_off_exactly(digits):
    X, y, X_test, _ = digits
    clf = StandardClassifier(goh.linear, max_epochs=1, random_state=0, verbose=0).fit(X, y)
    W, b = goh._weights(clf, X.shape[1:])
    logits = X_test.reshape(len(X_test), -1) @ W.T + b
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    assert np.abs(probabilities - clf.predict_proba(X_test)).max() < 1e-4


def test_certificates_are_exact():
    W, b = np.array([[1.0, 0.0], [0.0, 2.0]]), np.zeros(2)
    X, y = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 1.0]]), np.array([0, 1, 1])
    # The boundary is x_0 = 2 x_1: distances 1, 2 and 3 over the square root of 5.
    for eps, share in ((0.44, 1), (0.45, 2 / 3), (0.9, 1 / 3), (1.35, 0)):
        assert goh._static(W, b, X, eps) == pytest.approx(share)
    logits = X @ W.T
    z = (logits - logits.mean(0)) / logits.std(0)
    signs = np.array([[1, -1, -1], [-1, 1, 1]])
    rho = (signs * z.T).mean(1)
    slope = np.linalg.norm(W, axis=1) / logits.std(0)
    for eps in (0.1, 0.5, 0.6, 1.0):
        assert goh._stay_useful(W, b, X, y, eps).tolist() == (rho - eps * slope > 0).tolist()


class Says:
    """A source that predicts given labels, and notes of what."""

    def __init__(self, labels):
        self.labels = np.array(labels)

    def predict(self, X):
        self.asked = X
        return self.labels


def test_what_is_said_of_inverted_sets():
    X, y = np.zeros((4, 1, 2, 2), np.uint8), np.array([5, 6, 7, 8])
    X[:, 0, 1, 1] = [0, 51, 102, 204]  # 0.2, 0.4 and 0.8 of white
    moved = X.astype(np.float32) / 255
    moved[:, 0, 0, 0] += [0.0, 0.3, 0.3, 0.6]
    begun = np.array([0, 0, 0, 0])
    standard, robust = Says([5, 6, 7, 5]), Says([5, 6, 5, 5])
    found = measures.inverted_set(moved, X, y, begun, standard, robust)
    assert found == {
        "mean distance to x": pytest.approx(0.3),
        "mean distance to the start": pytest.approx(
            np.mean(np.hypot([0.0, 0.3, 0.3, 0.6], [0.0, 0.2, 0.4, 0.8]))
        ),
        "share, standard source says y": 0.75,
        "share, standard source says the start's label": 0.5,
        "share, robust source says y": 0.5,
        "share, robust source says the start's label": 0.75,
    }
    assert standard.asked is moved and robust.asked is moved
    apart = Says([5, 6, 7, 8]), Says([9, 9, 9, 8])
    assert measures.inverted_set(moved, X, y, None, *apart) == {
        "mean distance to x": pytest.approx(0.3),
        "share, standard source says y": 1,
        "share, robust source says y": 0.25,
    }


def test_what_is_said_of_relabelled_sets():
    X, y, target = np.zeros((4, 1, 2, 2), np.uint8), np.array([5, 6, 7, 8]), np.array([6, 7, 8, 5])
    moved = np.zeros((4, 1, 2, 2), np.float32)
    moved[:, 0, 0, 0] = [0.0, 0.2, 0.4, 0.6]
    data = ConstructedDataset(moved, target, y, np.arange(5, 9))
    standard, robust = Says([6, 6, 8, 5]), Says([5, 6, 9, 5])
    found = measures.relabelled_set(data, X, standard, robust)
    assert found == {
        "mean distance to x": pytest.approx(0.3),
        "share, standard source says the target": 0.75,
        "share, standard source says the true label": 0.25,
        "share, robust source says the target": 0.25,
        "share, robust source says the true label": 0.5,
    }
    assert standard.asked is data.X and robust.asked is data.X


def test_distance_in_parts():
    rng = np.random.default_rng(0)
    A, B = rng.uniform(size=(2, 25, 1, 3, 3)).astype(np.float32)
    expected = np.linalg.norm((A - B).reshape(25, -1), axis=1).mean()
    assert measures.mean_distance(A, B, rows=7) == pytest.approx(expected, rel=1e-5)

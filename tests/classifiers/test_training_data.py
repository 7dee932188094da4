"""What a training is made of: statistics of the inputs, rows, weights; never a whole copy."""

import tracemalloc

import numpy as np
import pytest
import torch

from advfeat import StandardClassifier, from_torch
from advfeat.classifiers import _training_data
from advfeat.classifiers._training_batches import BatchIterator
from advfeat.classifiers._training_data import ArrayDataset, input_statistics


def dataset(X, weight=None, rows=None):
    n = len(X) if rows is None else len(rows)
    return ArrayDataset(X, np.zeros(n, np.int64), np.ones(n) if weight is None else weight, rows)


def weighted(X, weight):
    """Textbook mean and standard deviation, per feature or channel."""
    axes = (0, 2, 3) if X.ndim == 4 else (0,)
    w = np.broadcast_to(weight.reshape(-1, *[1] * (X.ndim - 1)), X.shape)
    mean = np.average(X, axis=axes, weights=w)
    centred = X - mean.reshape(-1, *[1] * (X.ndim - 2))
    return mean, np.sqrt(np.average(centred**2, axis=axes, weights=w))


@pytest.mark.parametrize("shape", [(500, 4), (60, 3, 5, 7)])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e20])
@pytest.mark.parametrize("chunk", [1, 1000, 2**25])
def test_statistics_are_the_textbook_ones(shape, scale, chunk, monkeypatch):
    monkeypatch.setattr(_training_data, "_STATISTICS_BYTES", chunk)
    rng = np.random.default_rng(0)
    X = (scale * (5 + rng.standard_normal(shape))).astype(np.float32)
    weight = rng.uniform(0, 3, len(X))
    mean, std = input_statistics(dataset(X, weight))
    assert mean.shape == std.shape == (shape[1], *[1] * (len(shape) - 2))
    expected = weighted(X.astype(np.float64), weight)
    np.testing.assert_allclose(mean.flatten(), expected[0], rtol=1e-6)
    np.testing.assert_allclose(std.flatten(), expected[1], rtol=1e-6)
    rows = np.flatnonzero(weight > 1)
    mean, _ = input_statistics(dataset(X, weight[rows], rows))
    np.testing.assert_allclose(
        mean.flatten(), weighted(X[rows].astype(np.float64), weight[rows])[0], rtol=1e-6
    )


def test_statistics_of_constant_inputs_and_bytes():
    X = np.full((10, 2), 0.3, dtype=np.float32)
    mean, std = input_statistics(dataset(X))
    np.testing.assert_allclose(mean, 0.3)
    np.testing.assert_array_equal(std, 1)
    X8 = np.random.default_rng(0).integers(0, 256, (30, 3, 4, 4), dtype=np.uint8)
    for a, b in zip(
        input_statistics(dataset(X8)), input_statistics(dataset(X8 / np.float32(255))), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_large_images_are_read_in_pieces(monkeypatch):
    monkeypatch.setattr(_training_data, "_STATISTICS_BYTES", 2**22)
    X = np.zeros((256, 3, 64, 64), dtype=np.uint8)  # 3 MB; 25 MB as float64
    data = dataset(X)
    tracemalloc.start()
    input_statistics(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 2**22


class Lazy:
    """Array-like that gives rows only, and notes how many at a time."""

    def __init__(self, X):
        self.X, self.shape, self.dtype, self.ndim = X, X.shape, X.dtype, X.ndim
        self.most = 0

    def __len__(self):
        return len(self.X)

    def __getitem__(self, rows):
        part = self.X[rows]
        self.most = max(self.most, len(part))
        return part

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("read whole")


def test_statistics_of_lazy_arrays_are_read_batch_by_batch(monkeypatch):
    X = np.random.default_rng(0).random((300, 2, 4, 4), dtype=np.float32)
    expected = input_statistics(dataset(X))
    monkeypatch.setattr(_training_data, "_STATISTICS_BYTES", 8 * 32 * 16)
    lazy = Lazy(X)
    for value, truth in zip(input_statistics(dataset(lazy)), expected, strict=True):
        np.testing.assert_allclose(value, truth, rtol=1e-6)
    assert lazy.most == 16


@pytest.mark.parametrize("scale", [1e300, 1e-300])
def test_only_ratios_of_weights_count(scale):
    X, y = np.random.default_rng(0).random((40, 3)), np.arange(40) % 2
    weight = np.random.default_rng(1).uniform(1, 2, 40)
    settings = {"max_epochs": 2, "random_state": 0, "verbose": 0}
    a, b = (
        StandardClassifier(**settings).fit(X, y, sample_weight=w).decision_function(X)
        for w in (weight, scale * weight)
    )
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_memory_map_with_weights_and_a_split_gives_the_same_bits(tmp_path):
    rng = np.random.default_rng(0)
    X, y = rng.random((80, 1, 4, 4), dtype=np.float32), np.arange(80) % 2
    weight = rng.integers(0, 3, 80)
    np.save(tmp_path / "X.npy", X)
    settings = {"max_epochs": 2, "early_stopping": True, "random_state": 0, "verbose": 0}
    found = [
        StandardClassifier(**settings).fit(same, y, sample_weight=weight).decision_function(X)
        for same in (X, np.load(tmp_path / "X.npy", mmap_mode="r"), X[::-1][::-1])
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def epochs(data, n, *, batch_size=5, first=0, seed=0, augmentation="none"):
    """The inputs of some epochs, in the order in which training gets them."""
    batches = BatchIterator(
        data, batch_size=batch_size, training=True, seed=seed, first_epoch=first,
        augmentation=augmentation, device=torch.device("cpu"),
    )  # fmt: skip
    return [torch.cat([x for x, _ in batches]).numpy() for _ in range(n)]


def test_each_epoch_has_an_order_of_its_own():
    data = dataset(np.arange(40, dtype=np.float32)[:, None])
    found = epochs(data, 3)
    assert len({epoch.tobytes() for epoch in found}) == 3
    for epoch in found:
        np.testing.assert_array_equal(np.sort(epoch[:, 0]), np.arange(40))
    np.testing.assert_array_equal(epochs(data, 3), found)
    np.testing.assert_array_equal(epochs(data, 1, first=2)[0], found[2])  # as training goes on
    assert not np.array_equal(epochs(data, 1, seed=1)[0], found[0])


@pytest.mark.parametrize("augmentation", ["flip-crop", "paper"])
def test_each_epoch_augments_the_images_anew(augmentation):
    data = dataset(np.random.default_rng(0).random((6, 3, 16, 16), dtype=np.float32))
    settings = {"batch_size": 6, "augmentation": augmentation}  # one batch: always in order
    found = epochs(data, 3, **settings)
    assert len({epoch.tobytes() for epoch in found}) == 3
    np.testing.assert_array_equal(epochs(data, 3, **settings), found)
    np.testing.assert_array_equal(epochs(data, 1, first=2, **settings)[0], found[2])
    assert not np.array_equal(epochs(data, 1, seed=1, **settings)[0], found[0])


def test_the_classes_of_a_fit_are_its_own():
    """Neither the user's array nor a trained network's."""
    X, y = np.random.default_rng(0).random((40, 3)), np.arange(40) % 2
    settings = {"max_epochs": 1, "random_state": 0, "verbose": 0}
    given = np.array([0, 1])
    first = StandardClassifier(**settings).partial_fit(X, y, classes=given)
    trained = from_torch(first.module_, classes=[0, 1], input_shape=(3,))
    second = StandardClassifier(trained, **settings).fit(X, y)
    for clf in (first, second):
        clf.classes_ += 5
    np.testing.assert_array_equal(given, [0, 1])
    np.testing.assert_array_equal(trained.classes_, [0, 1])
    given += 7
    np.testing.assert_array_equal(first.classes_, [5, 6])

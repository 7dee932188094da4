"""Constructed sets in float16, and of bytes, in the units that are said of them."""

import numpy as np
import pytest
import torch
import torchvision
from kept_cases import QUIET, relabelled
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

from advfeat import (
    AdversarialClassifier,
    ConstructedDataset,
    NonRobustRelabeler,
    RobustFeatureInverter,
    StandardClassifier,
    adversarial_examples,
    robust_accuracy_score,
    transfer_rate,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:The source takes only", "ignore:The features were matched poorly"
)


@pytest.mark.long
def test_parts_of_a_float16_store_are_computed_with_in_float32(standard, digits, tmp_path):
    data = relabelled(
        FrozenEstimator(standard), digits[0], digits[1], store=tmp_path / "s", dtype="float16"
    )
    rows = np.arange(200)
    part = data[rows]
    plain = ConstructedDataset(part.X[:].astype("float32"), part.y, part.y_source, part.classes)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    for clf in (
        StandardClassifier(max_epochs=1, **QUIET),
        StandardClassifier(linear, max_epochs=1, **QUIET),
        AdversarialClassifier(max_epochs=1, n_steps=2, **QUIET),
    ):
        found, expected = (clf.fit(d).decision_function(digits[2]) for d in (part, plain))
        assert_array_equal(found, expected)
    attack = {"norm": 2, "eps": 0.5, "n_steps": 2, "verbose": 0}
    subset = Subset(data, rows.tolist())
    expected = robust_accuracy_score(standard, plain, **attack)
    assert robust_accuracy_score(standard, part, **attack) == expected
    assert robust_accuracy_score(standard, subset, **attack) == expected


def test_datasets_of_bytes_have_the_units_of_the_constructed_set(standard, digits):
    X = np.round(255 * digits[0][:50]).astype(np.uint8)
    y = torch.from_numpy(digits[1][:50])
    inverter = RobustFeatureInverter(FrozenEstimator(standard), n_steps=2, **QUIET)
    inverter.fit(X, digits[1][:50])
    whole = TensorDataset(torch.from_numpy(X), y)
    for given in (whole, Subset(whole, range(50)), Alone(X)):
        found = inverter.transform(given)
        items = [found[i] for i in range(len(found))]
        if not isinstance(given, Alone):
            items, labels = zip(*items, strict=True)
            assert_array_equal(torch.stack(labels), y)
        assert_array_equal(torch.stack(list(items)), X / np.float32(255))
        assert_array_equal(inverter.transform(found)[3][0], found[3][0])  # only once


def test_labels_that_a_dataset_lists_are_not_read_from_its_items(tmp_path):
    for i in range(6):
        (tmp_path / f"{i % 2}").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (40 * i,) * 3).save(tmp_path / f"{i % 2}" / f"{i}.png")
    reads = []

    def load(path):
        reads.append(path)
        return Image.open(path)

    given = torchvision.datasets.ImageFolder(
        tmp_path, loader=load, transform=torchvision.transforms.PILToTensor()
    )
    clf = StandardClassifier(max_epochs=1, **QUIET).fit(given)
    inverter = RobustFeatureInverter(FrozenEstimator(clf), n_steps=2, **QUIET).fit(given)
    made = inverter.transform(given)
    counts = []
    for data in (made, given):
        reads.clear()
        clf.score(data)
        counts.append(len(reads))
    assert counts[0] <= counts[1] + 6  # floats are read once for their bounds, bytes are not


class Alone(Dataset):
    """Inputs without labels."""

    def __init__(self, X):
        self.X = X

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i]


def test_images_of_bytes_have_the_units_of_the_constructed_set(standard, digits, tmp_path):
    """For whatever step stands behind a constructor."""
    X = np.round(255 * digits[0][:200]).astype(np.uint8)
    X_test, y_test = np.round(255 * digits[2]).astype(np.uint8), digits[3]
    flat = FunctionTransformer(lambda images: np.asarray(images).reshape(len(images), -1))
    inverter = RobustFeatureInverter(FrozenEstimator(standard), n_steps=2, **QUIET)
    pipe = make_pipeline(inverter, flat, LogisticRegression()).fit(X, digits[1][:200])
    expected = pipe.predict(X_test / np.float32(255))
    assert len(np.unique(expected)) > 5
    np.save(tmp_path / "X.npy", X_test)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    for given in (X_test, mapped, mapped[:], list(X_test), torch.from_numpy(X_test)):
        assert_array_equal(pipe.predict(given), expected)
    assert inverter.fit(X, digits[1][:200]).transform(X_test).dtype == np.float32
    # Attacks give the examples that they gave: bytes and floats are the same images.
    network = make_pipeline(inverter, StandardClassifier(max_epochs=10, **QUIET))
    network.fit(X, digits[1][:200])
    attack = {"norm": 2, "eps": 0.3, "n_steps": 2, "verbose": 0}
    found = [adversarial_examples(network, x, y_test, **attack)[0] for x in (X_test, mapped)]
    alone = adversarial_examples(network[-1], X_test, y_test, **attack)[0]
    for examples in found:
        assert_array_equal(examples, alone)
    rates = [transfer_rate(network, network, x, y_test, **attack) for x in (X_test, mapped)]
    assert rates == [1.0, 1.0]


@pytest.mark.filterwarnings("ignore:dtype=.float16. rounds these samples")
def test_what_is_said_of_a_set_in_half_precision_is_said_of_it_as_it_is_kept():
    rng = np.random.default_rng(0)
    X, y = rng.uniform(1024, 2048, (60, 8)).astype("f"), np.arange(60) % 2
    X[:, 0] = np.where(y, 1600, 1590) + rng.normal(size=60)
    clf = StandardClassifier(max_epochs=20, **QUIET).fit(X, y)
    settings = {"target": "deterministic", "eps": 8, "n_steps": 5, "dtype": "float16", **QUIET}
    relabeler = NonRobustRelabeler(FrozenEstimator(clf), **settings)
    data = relabeler.fit_transform(X, y)
    reached = clf.predict(np.asarray(data.X, dtype=np.float32)) == data.y
    assert relabeler.success_rate_ == pytest.approx(reached.mean())
    exact = clone(relabeler).set_params(dtype="float32")
    exact.fit_transform(X, y)
    assert exact.success_rate_ != relabeler.success_rate_  # rounding shows
    inverter = RobustFeatureInverter(FrozenEstimator(clf), n_steps=5, dtype="float16", **QUIET)
    X_r = np.asarray(inverter.fit_transform(X, y), dtype=np.float32)
    gaps = np.linalg.norm(clf.features(X_r) - clf.features(X), axis=1)
    expected = gaps / np.linalg.norm(clf.features(X), axis=1)
    assert_allclose(inverter.residual_, expected, rtol=1e-3)


def test_a_set_in_half_precision_stays_inside_its_bounds(digits):
    mean, std = 0.406, 0.225  # whose bounds no half-precision number meets
    X, y = ((digits[0][:100] - mean) / std).astype("f"), digits[1][:100]
    bounds = (-mean / std, (1 - mean) / std)
    for box in (bounds, tuple(np.array([side]) for side in bounds), (-np.inf, bounds[1])):
        clf = StandardClassifier(max_epochs=1, bounds=box, **QUIET).fit(X, y)
        for make in (NonRobustRelabeler, RobustFeatureInverter):
            made = make(FrozenEstimator(clf), n_steps=2, dtype="float16", **QUIET)
            found = made.fit_transform(X, y)
            values = np.asarray(found.X if make is NonRobustRelabeler else found, np.float64)
            assert np.float64(box[0]) <= values.min() and values.max() <= np.float64(box[1])
            clone(clf).fit(found, None if make is NonRobustRelabeler else y)

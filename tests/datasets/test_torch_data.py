"""torch Datasets and memory maps as training data: read in batches, labels in one pass."""

import tracemalloc

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from torch import nn
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    random_split,
)
from torchvision.datasets import FakeData, ImageFolder
from torchvision.transforms import ToTensor

from advfeat import (
    AdversarialClassifier,
    ConstructedDataset,
    NonRobustRelabeler,
    RobustFeatureInverter,
    StandardClassifier,
)
from advfeat.datasets._torch_data import split_dataset, unpack_data


class Items(Dataset):
    """A Dataset that remembers what was read."""

    def __init__(self, X, y, **attributes):
        self.X, self.y, self.read = X, y, []
        self.__dict__.update(attributes)

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        self.read.append(i)
        return self.X[i], self.y[i]


class Torchvisions(Items):
    """One as torchvision has them."""

    __module__ = "torchvision.datasets.mnist"


X = np.random.default_rng(0).integers(0, 256, (9, 1, 4, 4)).astype(np.uint8)
Y = np.array([3, 1, 2, 1, 3, 2, 1, 1, 2])


def test_inputs_and_labels():
    data = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    for dataset, rows in (
        (data, slice(None)), (Subset(data, [2, 0]), [2, 0]), (ConcatDataset([data, data]), None),
    ):  # fmt: skip
        inputs, labels, source = split_dataset(dataset)
        rows = np.arange(18) % 9 if rows is None else rows
        assert_array_equal(inputs[:], X[rows])
        assert_array_equal(labels, Y[rows])
        assert inputs.dtype == np.uint8 and source is None
    _, labels, _ = split_dataset(Items(X[:2], ["cat", torch.tensor(3)]))
    assert labels.tolist() == ["cat", 3]
    for other in (torch.tensor(3), float("nan"), None):
        with pytest.raises(ValueError, match="all text or all numbers, and none may be missing"):
            StandardClassifier(max_epochs=1, verbose=0).fit(Items(X[:2], ["cat", other]))


def test_targets_are_believed_where_they_are_the_labels():
    known = Torchvisions(X, Y, targets=Y.tolist(), target_transform=None)
    _, labels, _ = split_dataset(Subset(known, [1, 2, 3]))
    assert_array_equal(labels, Y[1:4])
    assert len(known.read) <= 4  # some, to compare
    names = np.array(["a", "b", "c", "d"])[Y]
    for attributes in (
        {"targets": Y + 1}, {"targets": Y[:-1]}, {"targets": np.stack([Y, Y], 1)},
        {"targets": Y, "target_transform": lambda y: y},
    ):  # fmt: skip
        _, labels, _ = split_dataset(Torchvisions(X, names, **attributes))
        assert_array_equal(labels, names)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([np.ones(3)], r"\(input, label\) pairs. Got ndarray at index 0"),
        ([(np.ones(3), 0, 1)], r"\(input, label\) pairs. Got tuple at index 0"),
        ([(np.ones(3), 0), (np.ones(3), [0, 1])], r"one label.*shape \(2,\) at index 1"),
    ],
)
def test_items_without_a_label_are_refused(items, message):
    class Raw(Dataset):
        def __len__(self):
            return len(items)

        def __getitem__(self, i):
            return items[i]

    with pytest.raises(ValueError, match=message):
        split_dataset(Raw())


def test_what_cannot_be_read_by_rows_is_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([])

    clf = StandardClassifier(verbose=0)
    with pytest.raises(ValueError, match="Pass its dataset instead"):
        clf.fit(DataLoader(Items(X, Y)))
    with pytest.raises(ValueError, match="map-style"):
        clf.fit(Stream())
    with pytest.raises(ValueError, match="yields its own labels"):
        clf.fit(Items(X, np.roll(Y, 1)), Y)
    with pytest.raises(ValueError, match="labels of one kind"):
        split_dataset(ConcatDataset([Items(X, Y), Items(X, Y.astype(str))]))
    with pytest.raises(ValueError, match="requires y to be passed"):
        unpack_data(clf, X, None)


@pytest.fixture(scope="module", params=["images", "table"])
def data(request):
    rng = np.random.default_rng(1)
    y = np.array(["no", "yes"])[np.arange(60) % 2]
    if request.param == "images":
        X = rng.integers(0, 200, (60, 1, 6, 6)).astype(np.uint8)
        X[y == "yes"] += 50
        return X, y
    X = rng.standard_normal((60, 5))
    X[y == "yes"] += 1
    return X, y


def forms(X, y, folder):
    np.save(folder / "x.npy", X)
    yield "memory map", np.load(folder / "x.npy", mmap_mode="r"), y
    yield "dataset", Items(X, y), None
    half = ConcatDataset([Items(X[30:], y[30:]), Items(X[:30], y[:30])])
    yield "split", Subset(half, [*range(30, 60), *range(30)]), None


@pytest.mark.parametrize("kind", [StandardClassifier, AdversarialClassifier])
def test_the_same_bits_from_arrays_maps_and_datasets(data, kind, tmp_path):
    X, y = data
    clf = kind(max_epochs=2, batch_size=16, random_state=0, verbose=0)
    expected = clone(clf).fit(X, y).decision_function(X)
    weight = np.arange(60) % 3 / 2.0
    weighted = clone(clf).fit(X, y, sample_weight=weight).decision_function(X)
    for _, inputs, labels in forms(X, y, tmp_path):
        fitted = clone(clf).fit(inputs, labels)
        assert_array_equal(fitted.decision_function(X), expected)
        assert_array_equal(fitted.decision_function(inputs), expected)
        assert fitted.score(inputs, y) == fitted.score(X, y)
        fitted = clone(clf).fit(inputs, labels, sample_weight=weight)
        assert_array_equal(fitted.decision_function(X), weighted)
        clone(clf).partial_fit(inputs, labels)


def test_a_random_split_trains_on_its_labels(data):
    X, y = data
    generator = torch.Generator().manual_seed(0)
    train, test = random_split(Items(X, y), [40, 20], generator=generator)
    clf = StandardClassifier(max_epochs=2, random_state=0, verbose=0)
    expected = clone(clf).fit(X[train.indices], y[train.indices])
    found = clf.fit(train)
    assert_array_equal(found.decision_function(X), expected.decision_function(X))
    assert_array_equal(found.predict(test), expected.predict(X[test.indices]))


class Generated(Dataset):
    """Images that exist only while they are read."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        image = np.full((3, 8, 8), (i % 2) / 2, dtype=np.float32)
        image[0, 0, 0] = i / self.n
        return image, i % 2


class Small(nn.Module):
    def __init__(self, input_shape, n_classes):
        super().__init__()
        self.linear = nn.Linear(3, n_classes)

    def forward(self, x):
        return self.linear(x.mean((2, 3)))


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path):
    def peak(n):
        dataset = Generated(n)
        clf = StandardClassifier(Small, max_epochs=1, random_state=0, verbose=0)
        tracemalloc.start()
        clf.fit(dataset)
        clf.predict(dataset)
        _, found = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return found / Generated(1)[0][0].nbytes

    peak(20)  # what is made only once
    few, many = peak(9000), peak(14000)
    assert many < 1.1 * few, (few, many)


@pytest.mark.parametrize("n_wrong", [1, 3])
def test_labels_of_a_class_of_ones_own_are_those_of_its_items(n_wrong):
    """Label noise and backdoors keep ``targets`` as they were."""

    class Poisoned(Dataset):
        data, targets = X, [0, 1, 2] * 3

        def __len__(self):
            return len(self.data)

        def __getitem__(self, i):
            return self.data[i], 5 if i in (1, 2, 6)[:n_wrong] else self.targets[i]

    _, y, _ = split_dataset(Poisoned())
    assert y.tolist() == [item[1] for item in Poisoned()][: len(X)]


def test_a_subclass_of_torchvisions_may_change_the_labels():
    class Shifted(FakeData):
        targets = [0] * 4  # noqa: RUF012

        def __getitem__(self, i):
            return super().__getitem__(i)[0], 7

    data = Shifted(4, (3, 4, 4), transform=ToTensor())
    assert split_dataset(data)[1].tolist() == [7] * 4


@pytest.mark.parametrize("name", ["samples", "imgs"])
def test_labels_are_those_of_the_list_that_items_are_read_from(name, tmp_path):
    """torchvision's folders list their targets again, which a change of the list misses."""
    for label, colour in (("a", 0), ("b", 255)):
        (tmp_path / label).mkdir()
        for i in range(20):
            Image.new("L", (4, 4), colour).save(tmp_path / label / f"{i:02}.png")
    data = ImageFolder(tmp_path, transform=ToTensor())
    listed = getattr(data, name)
    for i in (3, 5, 8, 30):  # label noise, where three that are looked at do not show it
        listed[i] = (listed[i][0], 1 - listed[i][1])
    data.samples = data.imgs = listed
    _, y, _ = split_dataset(data)
    assert y.tolist() == [label for _, label in data]
    rng = np.random.default_rng(0)
    data.samples = [data.samples[i] for i in rng.permutation(40)]
    _, y, _ = split_dataset(data)
    assert y.tolist() == [label for _, label in data]


def test_parts_of_constructed_sets_keep_their_classes():
    inputs = np.random.default_rng(0).random((30, 4), dtype=np.float32)
    y = np.arange(30) % 3
    source = StandardClassifier(max_epochs=1, random_state=0, verbose=0).fit(inputs, y)
    settings = {"n_steps": 1, "random_state": 0, "verbose": 0}
    data = NonRobustRelabeler(FrozenEstimator(source), **settings).fit_transform(inputs, y)
    rows = np.flatnonzero(data.y > 0).tolist()
    inverter = RobustFeatureInverter(FrozenEstimator(source), random_state=0, verbose=0)
    part = Subset(data, rows)
    for given in (data[rows], part, ConcatDataset([part, part]), Subset(part, [1, 0])):
        assert inverter.fit_transform(given).classes.tolist() == [0, 1, 2]
    plain = TensorDataset(torch.from_numpy(inputs[1:3]), torch.from_numpy(y[1:3]))
    assert inverter.fit_transform(plain).classes.tolist() == [1, 2]


def test_attributes_of_a_users_dataset_are_his_own():
    """Such as names of columns from before an encoding."""
    inputs = np.random.default_rng(0).random((30, 4), dtype=np.float32)
    data = Items(inputs, np.arange(30) % 2, feature_names=["age", "job"])
    source = StandardClassifier(max_epochs=1, random_state=0, verbose=0)
    settings = {"random_state": 0, "verbose": 0}
    for constructor in (NonRobustRelabeler, RobustFeatureInverter):
        made = constructor(source, **settings).fit_transform(data)
        assert made.feature_names is None
        make_pipeline(constructor(source, **settings), clone(source)).fit(data)
    with pytest.raises(ValueError, match="feature_names must name each feature"):
        ConstructedDataset(inputs, made.y, made.y_source, [0, 1], ["age", "job"])


def test_rounding_is_warned_of_whatever_holds_the_table(tmp_path):
    table = np.random.default_rng(0).normal(size=(60, 3)) + 2e8
    y = np.arange(60) % 2
    np.save(tmp_path / "x.npy", table)
    clf = StandardClassifier(max_epochs=1, random_state=0, verbose=0)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    items = TensorDataset(torch.from_numpy(table), torch.from_numpy(y))
    for given, labels in ((table, y), (mapped, y), (items, None)):
        with pytest.warns(UserWarning, match="rounds feature 0 by up to"):
            clf.fit(given, labels)


def test_missing_values_of_masked_arrays_are_refused():
    """Also where a number is below the mask."""
    images = np.random.default_rng(0).random((20, 1, 4, 4), dtype=np.float32)
    images[3, 0, 1, 1] = np.nan
    y = np.arange(20) % 2
    clf = StandardClassifier(max_epochs=1, random_state=0, verbose=0)
    for given in (images, images.reshape(20, -1)):
        for masked in (np.ma.masked_invalid(given), np.ma.masked_less(given, 0.01)):
            with pytest.raises(ValueError, match="Masked values count as missing"):
                clf.fit(masked, y)
    masked = np.ma.masked_equal(y, 1)
    for labels, weight in ((masked, None), (y, masked)):
        with pytest.raises(ValueError, match="Masked values count as missing"):
            clf.fit(images[4:], labels[4:], sample_weight=weight if weight is None else weight[4:])
    clf.fit(np.ma.masked_equal(images[4:], 2.0), y[4:])


def test_lists_of_a_users_dataset_are_his_own():
    for listed in (X, [f"{i}.png" for i in range(9)]):
        data = Items(X, Y, samples=listed, targets=Y)
        assert_array_equal(split_dataset(data)[1], Y)

"""Parts of a ConstructedDataset, and sets around it, keep its labels."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.model_selection import (
    train_test_split,
)
from torch.utils.data import (
    ConcatDataset,
    Dataset,
    Subset,
    TensorDataset,
    random_split,
)

from advfeat import (
    ConstructedDataset,
    StandardClassifier,
)

NAMES = np.arange(100, 111)  # as in `eleven`


class Wrapped(Dataset):
    """A Dataset of one's own around a constructed set."""

    def __init__(self, data, change=lambda label: label):
        self.data, self.change = data, change

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        x, label = self.data[i]
        return 2 * x, self.change(label)


PARTS = {
    "slice": lambda d: d[:200],
    "index array": lambda d: d[np.arange(0, 330, 2)],
    "mask": lambda d: d[np.arange(330) % 3 > 0],
    "list": lambda d: d[list(range(200))],
    "tensor": lambda d: d[torch.arange(200)],
    "train_test_split": lambda d: train_test_split(d, random_state=0)[0],
    "stratified": lambda d: train_test_split(d, stratify=d.y, random_state=0)[1],
    "Subset": lambda d: Subset(d, range(250)),
    "random_split": lambda d: random_split(d, [0.7, 0.3])[0],
    "ConcatDataset": lambda d: ConcatDataset([d[:100], d[100:], Subset(d, range(10))]),
    "nested": lambda d: Subset(ConcatDataset([Subset(d, range(200)), d[200:]]), range(300)),
    "one's own": Wrapped,
    "Subset of a Subset": lambda d: Subset(Subset(d, range(250)), range(0, 250, 2)),
}


@pytest.mark.parametrize("part", PARTS)
def test_parts_are_trained_on_with_their_labels(eleven, part):
    clf = StandardClassifier(max_epochs=20, random_state=0, verbose=0)
    clf.fit(PARTS[part](eleven))
    assert_array_equal(clf.classes_, eleven.classes)
    assert np.mean(clf.predict(eleven.X) == eleven.y) > 0.95


def test_parts_know_their_source_labels(eleven):
    clf = StandardClassifier(max_epochs=1, verbose=0)
    train, test, y_train, _ = train_test_split(eleven, eleven.y_source, random_state=0)
    assert isinstance(train, ConstructedDataset) and len(train) + len(test) == 330
    assert_array_equal(train.y_source, y_train)
    clf.fit(train, y_train)
    both = ConcatDataset([train, Wrapped(test)])
    clf.fit(both, np.concatenate([train.y_source, test.y_source]))
    for wrong in (eleven, Subset(eleven, range(330)), both, Wrapped(eleven)):
        with pytest.raises(ValueError, match="must be its y_source"):
            clf.fit(wrong, np.roll(eleven.y_source, 1))


def test_a_wrapper_that_gives_bare_labels_gives_the_labels(eleven):
    clf = StandardClassifier(max_epochs=1, verbose=0)
    number = eleven.classes.dtype.kind != "U"
    for change in (int, lambda label: label + 0, torch.tensor) if number else (str,):
        for data in (Wrapped(eleven, change), Wrapped(Subset(eleven, range(100)), change)):
            clf.fit(data)
            assert_array_equal(clf.classes_, eleven.classes)
            with pytest.raises(ValueError, match="yields its own labels"):  # the source is lost
                clf.fit(data, eleven.y_source[: len(data)])


def test_joined_with_other_data(eleven):
    """Labels of plain parts are labels, never positions."""
    plain = TensorDataset(torch.from_numpy(eleven.X), torch.from_numpy(np.arange(330) % 11 + 100))
    if eleven.classes.dtype.kind == "U":
        with pytest.raises(ValueError, match="labels of one kind"):
            StandardClassifier(verbose=0).fit(ConcatDataset([eleven, plain]))
        return
    joined = ConcatDataset([eleven, plain])
    clf = StandardClassifier(max_epochs=1, verbose=0).fit(joined)
    assert_array_equal(clf.classes_, NAMES)


def test_indexing(eleven):
    assert_array_equal(eleven[5:10].y, eleven.y[5:10])
    assert_array_equal(eleven[::-1].X, eleven.X[::-1])
    assert_array_equal(eleven[[3, -1]].y_source, eleven.y_source[[3, -1]])
    assert len(eleven[[]]) == 0 and len(eleven[3:3]) == 0
    assert_array_equal(eleven[[0], ...].X, eleven.X[[0]])
    for i in (7, -1, np.int64(7), np.array(7), torch.tensor(7)):
        x, label = eleven[i]
        assert label == eleven.y[i] == eleven.classes[x.argmax()]
    for bad in (330, [0, 400], "a", (0, 1), 1.5, [[0]], np.array([0.5])):
        with pytest.raises(IndexError):
            eleven[bad]
    part = eleven[np.arange(3)]
    assert_array_equal(part.classes, eleven.classes)  # also of labels that it lacks


@pytest.mark.parametrize(
    "names",
    [
        np.arange(5, 9), np.array([-1, 1]), np.array([False, True]), np.array([0.5, 2.0]),
        np.array([0.0, 1.0, 2.0]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [None, object])
def test_loaders_give_the_labels(names, dtype):
    names = names if dtype is None else names.astype(dtype)
    y = names[np.arange(40) % len(names)]
    data = ConstructedDataset(np.zeros((40, 3), np.float32), y, y[::-1], names)
    for part in (data, Subset(data, range(40)), random_split(data, [1.0])[0], Wrapped(data)):
        rows = getattr(part, "indices", range(40))
        loader = torch.utils.data.DataLoader(part, batch_size=16)
        labels = torch.cat([label for _, label in loader])
        assert labels.dtype == (torch.float64 if 0.5 in names else torch.int64)
        assert_array_equal(labels.numpy(), y[rows].astype(float))


def test_labels_that_no_tensor_holds_are_refused_in_batches():
    y = np.array(["cat", "dog"])[np.arange(40) % 2]
    data = ConstructedDataset(np.zeros((40, 3), np.float32), y, y[::-1], ["cat", "dog"])
    for part in (data, Subset(data, range(8)), random_split(data, [0.5, 0.5])[1]):
        with pytest.raises(ValueError, match="the labels of this .* are 'cat', 'dog', .*Encoder"):
            next(iter(torch.utils.data.DataLoader(part)))
    assert data[1][1] == "dog" and isinstance(data[1][1], str)


def test_items_go_to_other_processes(eleven):
    label = eleven[0][1]
    again = pickle.loads(pickle.dumps(label))
    assert again == label and again.label == label.label == eleven.y[0]
    assert again.source == eleven.y_source[0]

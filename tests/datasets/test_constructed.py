"""ConstructedDataset: it carries its labels, and refuses whoever would ignore them."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from skorch import NeuralNetClassifier
from skorch.dataset import ValidSplit
from torch import nn

from advfeat import (
    ConstructedDataset,
    GaussianRobustMLE,
    NonRobustRelabeler,
    StandardClassifier,
)


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.RandomState(0)
    y = np.repeat(["a", "b", "c"], 60)
    centres = {"a": [0, 0], "b": [4, 0], "c": [0, 4]}
    X = np.array([centres[label] for label in y]) + rng.randn(180, 2)
    return X.astype(np.float32), y


@pytest.fixture
def data(blobs):
    X, y = blobs
    moved = np.array(["b", "c", "a"])[np.searchsorted(["a", "b", "c"], y)]
    return ConstructedDataset(X, moved, y_source=y, classes=["a", "b", "c"])


def test_is_a_torch_dataset(data):
    assert len(data) == 180
    x, index = data[70]
    assert isinstance(x, torch.Tensor) and x.dtype == torch.float32
    assert data.classes[index] == data.y[70] == "c"
    batch, indices = next(iter(torch.utils.data.DataLoader(data, batch_size=8)))
    assert batch.shape == (8, 2) and indices.tolist() == [1] * 8
    assert "relabelled=100.0%" in repr(data)


def test_pickle(data):
    again = pickle.loads(pickle.dumps(data))
    assert_array_equal(again.X, data.X)
    assert_array_equal(again.y, data.y)


def test_advfeat_trains_on_the_labels_it_carries(data):
    clf = StandardClassifier(max_epochs=30, random_state=0, verbose=0)
    for y in (data.y_source, None, list(data.y_source)):
        assert clf.fit(data, y).score(data.X, data.y) > 0.9


def test_skorch_trains_on_the_labels_it_carries(data):
    index = np.searchsorted(data.classes, data.y_source)
    for y, split in ((index, ValidSplit(5, stratified=True)), (None, None)):
        net = NeuralNetClassifier(
            nn.Linear(2, 3),
            criterion=nn.CrossEntropyLoss,
            max_epochs=60,
            lr=0.3,
            train_split=split,
            classes=[0, 1, 2],
            verbose=0,
        )
        net.fit(data, y)
        assert np.mean(data.classes[net.predict(data.X)] == data.y) > 0.9


def test_foreign_y_is_refused(data):
    clf = StandardClassifier(max_epochs=1, verbose=0)
    for foreign in (data.y, data.y_source[::-1], data.y_source[:-1]):
        with pytest.raises(ValueError, match="must be its y_source"):
            clf.fit(data, foreign)


SKLEARN = [
    LogisticRegression(),
    SGDClassifier(),
    RandomForestClassifier(5),
    HistGradientBoostingClassifier(),
    SVC(),
    KNeighborsClassifier(),
    GaussianNB(),
    DecisionTreeClassifier(),
    MLPClassifier(),
    DummyClassifier(),
    make_pipeline(StandardScaler(), LogisticRegression()),
    GaussianRobustMLE(),
]


@pytest.mark.parametrize("estimator", SKLEARN, ids=lambda e: type(e).__name__)
def test_other_estimators_refuse_it_loudly(estimator, data):
    with pytest.raises(ValueError, match="carries its own labels; end the pipeline with"):
        estimator.fit(data, data.y_source)


@pytest.mark.parametrize("estimator", SKLEARN[:6], ids=lambda e: type(e).__name__)
def test_pipelines_that_end_elsewhere_refuse_it(estimator, blobs):
    source = StandardClassifier(max_epochs=2, random_state=0, verbose=0)
    pipe = make_pipeline(NonRobustRelabeler(source, n_steps=2, verbose=0), estimator)
    with pytest.raises(ValueError, match="carries its own labels; end the pipeline with"):
        pipe.fit(*blobs)


def test_bad_arguments(data):
    with pytest.raises(ValueError, match="one length"):
        ConstructedDataset(data.X, data.y[:-1], data.y_source, data.classes)
    with pytest.raises(ValueError, match="not in classes"):
        ConstructedDataset(data.X, data.y, data.y_source, ["a", "b"])


def test_classes_are_sorted_and_unique():
    for classes in (["b", "a"], ["a", "a", "b"]):
        with pytest.raises(ValueError, match="sorted and without repeats"):
            ConstructedDataset(np.zeros((1, 2)), ["a"], ["b"], classes)

"""Datasets that scikit-learn can cut, and those whose items are not what they promise."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from skorch.helper import SliceDataset
from torch.utils.data import Dataset, TensorDataset

from advfeat import (
    GaussianRobustMLE,
    NonRobustRelabeler,
    RobustFeatureInverter,
    StandardClassifier,
    adversarial_examples,
    feature_usefulness,
    robust_accuracy_score,
    transfer_rate,
)

QUICK = {"max_epochs": 1, "random_state": 0, "verbose": 0}
ATTACK = {"norm": 2, "eps": 0.5, "n_steps": 2, "verbose": 0}
ANYHOW = "ignore:The (features were matched poorly|source takes only)"


def samples(shape, kind="f4"):
    X = np.random.default_rng(0).random((40, *shape))
    return (255 * X).astype("u1") if kind == "u1" else X.astype(kind), np.arange(40) % 3


@pytest.mark.filterwarnings(ANYHOW)
@pytest.mark.parametrize(
    ("shape", "kind"), [((5,), "f4"), ((5,), "f8"), ((1, 4, 4), "f4"), ((1, 4, 4), "u1")]
)
def test_slices_of_a_dataset_are_their_inputs(shape, kind):
    X, y = samples(shape, kind)
    cut = SliceDataset(TensorDataset(torch.from_numpy(X), torch.from_numpy(y)))
    sides = SliceDataset(cut.dataset, idx=1)
    clf = StandardClassifier(**QUICK).fit(X, y)
    relabeler = NonRobustRelabeler(
        StandardClassifier(**QUICK), n_steps=2, random_state=0, verbose=0
    )
    inverter = RobustFeatureInverter(
        StandardClassifier(**QUICK), n_steps=2, random_state=0, verbose=0
    )
    search = GridSearchCV(StandardClassifier(**QUICK), {"lr": [0.1, 0.01]}, cv=2)
    for act in (
        lambda X, y: StandardClassifier(**QUICK).fit(X, y).decision_function(X),
        lambda X, y: clf.predict_proba(X),
        clf.score,
        lambda X, y: robust_accuracy_score(clf, X, y, **ATTACK),
        lambda X, y: adversarial_examples(clf, X, y, **ATTACK)[0],
        lambda X, y: transfer_rate(clf, clf, X, y, **ATTACK),
        lambda X, y: feature_usefulness(clf, X, y),
        lambda X, y: relabeler.fit_transform(X, y).X,
        inverter.fit_transform,
        lambda X, y: cross_val_score(make_pipeline(StandardClassifier(**QUICK)), X, y, cv=2),
        lambda X, y: search.fit(X, y).cv_results_["mean_test_score"],
    ):
        expected = act(X, y)
        assert_array_equal(act(cut, y), expected)
    assert_array_equal(clf.predict(cut[5:9]), clf.predict(X[5:9]))
    assert_array_equal(clf.predict(cut[np.array([3, 1])]), clf.predict(X[[3, 1]]))
    assert clf.score(cut, np.asarray(sides)) == clf.score(X, y)


def test_slices_of_a_dataset_in_a_gaussian():
    X, y = samples((5,))
    cut = SliceDataset(TensorDataset(torch.from_numpy(X), torch.from_numpy(y)))
    expected = GaussianRobustMLE(eps=0.1).fit(X, y)
    assert_array_equal(GaussianRobustMLE(eps=0.1).fit(cut, y).coef_, expected.coef_)


class Unsized(Dataset):
    def __init__(self):
        self.X, self.y = samples((5,))

    def __getitem__(self, i):
        return torch.from_numpy(self.X)[i], int(self.y[i])


class TooLong(Unsized):
    def __len__(self):
        return 45


class OneLess(Unsized):
    def __len__(self):
        return 40

    def __getitems__(self, rows):
        return [self[i] for i in rows][:-1]


class OneMore(OneLess):
    def __getitems__(self, rows):
        return [self[i] for i in [*rows, 0]]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Unsized, "must be map-style .* Got one without __len__"),
        (
            TooLong,
            "Item 40 of the TooLong, whose length is 45, cannot be had .IndexError: index 40",
        ),
        (OneLess, "__getitems__ of OneLess gave 39 items for 40 indices"),
        (OneMore, "__getitems__ of OneMore gave 41 items for 40 indices"),
    ],
)
def test_datasets_that_promise_other_items_are_told(kind, message):
    X, y = samples((5,))
    clf = StandardClassifier(**QUICK).fit(X, y)
    inverter = RobustFeatureInverter(clf, n_steps=1, random_state=0, verbose=0)
    for act in (
        lambda data: StandardClassifier(**QUICK).fit(data),
        clf.predict,
        lambda data: robust_accuracy_score(clf, data, **ATTACK),
        inverter.fit_transform,
    ):
        with pytest.raises(ValueError, match=message):
            act(kind())


@pytest.mark.parametrize(
    "frame",
    [
        lambda X: pd.DataFrame({"image": list(X)}),
        lambda X: pd.DataFrame({"a": X[:, 0], "image": X.tolist()}),
        lambda X: pl.DataFrame({"image": X.tolist()}),
    ],
)
def test_a_column_of_arrays_is_told(frame):
    X, y = samples((5,))
    for estimator in (StandardClassifier(**QUICK), GaussianRobustMLE(eps=0.1)):
        with pytest.raises(ValueError, match=r"entries that are arrays .* Use numpy\.stack"):
            estimator.fit(frame(X), y)


@pytest.mark.parametrize("kind", [torch.tensor, np.array, float])
def test_a_column_of_numbers_that_are_objects_is_taken(kind):
    X, y = samples((2,))
    column = pd.Series([kind(value) for value in X[:, 0].tolist()], dtype=object)
    frame = pd.DataFrame({"a": column, "b": X[:, 1]})
    clf = StandardClassifier(**QUICK).fit(frame, y)
    assert_array_equal(clf.predict(frame), StandardClassifier(**QUICK).fit(X, y).predict(X))


def test_an_item_that_a_slice_lacks_names_the_slice():
    X, y = samples((5,))
    cut = SliceDataset(TooLong(), indices=np.arange(45))
    with pytest.raises(ValueError, match="Item 40 of the SliceDataset, whose length is 45"):
        StandardClassifier(**QUICK).fit(cut, np.arange(45) % 3)

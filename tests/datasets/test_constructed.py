"""ConstructedDataset: it carries its labels, and refuses whoever would ignore them."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import DataConversionWarning
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    TunedThresholdClassifierCV,
    cross_val_score,
)
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
from torch.utils.data import (
    ConcatDataset,
    Subset,
    random_split,
)

from advfeat import (
    ConstructedDataset,
    GaussianRobustMLE,
    NonRobustRelabeler,
    StandardClassifier,
)


def test_is_a_torch_dataset(data):
    assert len(data) == 180
    x, label = data[70]
    assert isinstance(x, torch.Tensor) and x.dtype == torch.float32
    assert label == data.y[70] == "c"
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
    index, moved = (np.searchsorted(data.classes, y) for y in (data.y_source, data.y))
    data = ConstructedDataset(data.X, moved, index, range(3))
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
        assert np.mean(net.predict(data.X) == data.y) > 0.9


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


@pytest.mark.filterwarnings("ignore:The source takes only")  # few steps
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


def test_columns_of_labels_are_never_broadcast(data):
    """They are taken with scikit-learn's warning, beside the set and in it."""
    column = data.y_source[:, None]
    clf = StandardClassifier(max_epochs=1, verbose=0)
    with pytest.warns(DataConversionWarning, match="column-vector y"):
        clf.fit(data, column)
    with pytest.warns(DataConversionWarning, match="column-vector y"):
        again = ConstructedDataset(data.X, data.y[:, None], column, data.classes)
    assert_array_equal(again.y, data.y)
    assert_array_equal(again.y_source, data.y_source)
    for wrong in (np.stack([data.y, data.y], 1), data.y[0], data.y[:, None, None]):
        with pytest.raises(ValueError, match="one label per sample: shape .180,"):
            ConstructedDataset(data.X, wrong, data.y_source, data.classes)


def test_classes_are_sorted_and_unique():
    for classes in (["b", "a"], ["a", "a", "b"]):
        with pytest.raises(ValueError, match="sorted and without repeats"):
            ConstructedDataset(np.zeros((1, 2)), ["a"], ["b"], classes)


class Last(nn.Module):
    """A linear network with so many outputs."""

    def __init__(self, n_outputs):
        super().__init__()
        self.layer = nn.Linear(6, n_outputs)

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize("names", [np.arange(3), np.arange(5, 8), np.array([0, 2, 5])])
@pytest.mark.parametrize("where", ["Pipeline", "fit", "Subset", "random_split"])
def test_a_skorch_net_learns_labels(names, where):
    """Output j is for label j, as when it is trained on arrays."""
    index = np.random.default_rng(0).integers(3, size=300)
    X = np.repeat(np.eye(3, dtype=np.float32)[index], 2, axis=1)
    X, y = (
        X + 0.01 * np.random.default_rng(1).normal(size=X.shape).astype(np.float32),
        names[index],
    )
    options = dict(criterion=nn.CrossEntropyLoss, max_epochs=30, lr=0.5, verbose=0)
    torch.manual_seed(0)
    net = NeuralNetClassifier(Last, module__n_outputs=names.max() + 1, **options)
    # Images stay what they are, so that each class is learned to be the next one.
    relabeler = NonRobustRelabeler(
        StandardClassifier(max_epochs=1, verbose=0), target="deterministic", eps=1e-6, n_steps=1
    )
    following = names[(index + 1) % 3]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The source takes only")
        if where == "Pipeline":
            make_pipeline(relabeler, net).fit(X, y)
        else:
            data = relabeler.fit_transform(X, y)
            part = {
                "fit": lambda: data,
                "Subset": lambda: Subset(data, range(250)),
                "random_split": lambda: random_split(data, [0.8, 0.2])[0],
            }[where]()
            net.fit(part, following[: len(part)])
    assert net.score(X, following) == 1
    few = NeuralNetClassifier(Last, module__n_outputs=3, **options)
    if names.max() > 2:
        with warnings.catch_warnings(), pytest.raises(IndexError, match="out of bounds"):
            warnings.filterwarnings("ignore", "The source takes only")
            make_pipeline(relabeler, few).fit(X, y)


def test_a_skorch_net_refuses_names(eleven):
    net = NeuralNetClassifier(Last(11), criterion=nn.CrossEntropyLoss, verbose=0)
    if eleven.classes.dtype.kind == "U":
        with pytest.raises(ValueError, match="A batch of torch holds numbers"):
            net.fit(eleven, eleven.y_source)
    else:
        with pytest.raises(RuntimeError, match="shapes"):  # of the inputs
            net.fit(eleven, eleven.y_source)


def test_cross_validation_trains_on_the_labels_it_carries(eleven):
    seen = []

    class Spy(StandardClassifier):
        def fit(self, X, y=None):
            super().fit(X, y)
            seen.append(np.mean(self.predict(X.X) == X.y))
            return self

    def scorer(clf, X, y):
        return np.mean(clf.predict(X.X) == X.y)

    clf = Spy(max_epochs=20, random_state=0, verbose=0)
    scores = cross_val_score(clf, eleven, eleven.y_source, cv=3, scoring=scorer)
    assert min(seen) > 0.95 and min(scores) > 0.95


META = {
    "calibration": lambda clf: CalibratedClassifierCV(clf, cv=2),
    "calibration at once": lambda clf: CalibratedClassifierCV(clf, cv=2, ensemble=False),
    "threshold": lambda clf: TunedThresholdClassifierCV(clf, cv=2),
    "search": lambda clf: GridSearchCV(
        clf, {"lr": [0.1]}, scoring="accuracy", cv=2, error_score="raise"
    ),
    "nested": lambda clf: FixedThresholdClassifier(CalibratedClassifierCV(clf, cv=2)),
}


@pytest.mark.filterwarnings("ignore:The source takes only")  # few steps
@pytest.mark.parametrize("meta", META)
def test_meta_estimators_behind_a_relabeler_are_refused(meta):
    """They would calibrate, or compare, with the labels before the relabelling."""
    y = np.arange(60) % 2
    X = (y[:, None] + np.random.default_rng(0).normal(size=(60, 2)) / 9).astype(np.float32)
    clf = StandardClassifier(max_epochs=1, random_state=0, verbose=0)
    relabeler = NonRobustRelabeler(clf, n_steps=1, random_state=0, verbose=0)
    with pytest.raises(ValueError, match="training data .* around the whole Pipeline instead"):
        make_pipeline(relabeler, META[meta](clf)).fit(X, y)
    if meta != "search":  # whose parameter has another name there
        META[meta](make_pipeline(relabeler, clf)).fit(X, y).predict(X)


def test_constructed_sets_and_their_parts_are_not_predicted(data):
    clf = StandardClassifier(max_epochs=1, random_state=0, verbose=0).fit(data)
    parts = data, data[:9], Subset(Subset(data, range(9)), [1]), ConcatDataset([data, data])
    for X in parts:
        for method in (clf.predict, clf.predict_proba, clf.decision_function):
            with pytest.raises(ValueError, match="its inputs alone are data.inputs"):
                method(X)
        assert 0 <= clf.score(X) <= 1  # with the labels that it carries
    with pytest.raises(ValueError, match="StandardClassifier got a ConstructedDataset to predict"):
        cross_val_score(clf, data, data.y_source, cv=2, scoring="accuracy", error_score="raise")

"""ConstructedDataset: it carries its labels, and refuses whoever would ignore them."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import DataConversionWarning
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    TunedThresholdClassifierCV,
    cross_val_score,
    train_test_split,
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
    DataLoader,
    Dataset,
    Subset,
    TensorDataset,
    random_split,
)

from advfeat import (
    ConstructedDataset,
    GaussianRobustMLE,
    NonRobustRelabeler,
    RobustFeatureInverter,
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


# --- parts keep their labels --------------------------------------------------------------------

# Eleven classes whose names are not their positions.
NAMES = np.arange(100, 111)


@pytest.fixture(params=["numbers", "text"])
def eleven(request):
    """A set in which feature j is 1 for the j-th class, so that any linear model is right."""
    names = NAMES if request.param == "numbers" else NAMES.astype(str)
    index = np.random.default_rng(0).integers(11, size=330)
    X = np.eye(11, dtype=np.float32)[index]
    return ConstructedDataset(X, names[index], names[(index + 1) % 11], names)


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


# --- kept in files ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["float32", "float16", "object labels", "memory map", "part"])
def test_save_and_load(eleven, kind, tmp_path):
    data = eleven
    if kind == "float16":
        data = ConstructedDataset(data.X.astype("float16"), data.y, data.y_source, data.classes)
    if kind == "object labels":
        data = ConstructedDataset(
            data.X, data.y.astype(object), data.y_source.astype(object), data.classes
        )
    if kind in ("memory map", "part"):
        np.save(tmp_path / "x.npy", data.X)
        X = np.load(tmp_path / "x.npy", mmap_mode="r")
        data = ConstructedDataset(X, data.y, data.y_source, data.classes)
        data = data if kind == "memory map" else data[np.arange(330)[::-1]]
    data.save(tmp_path / "set.npz")
    again = ConstructedDataset.load(str(tmp_path / "set.npz"))
    for name in ("X", "y", "y_source", "classes"):
        assert_array_equal(getattr(again, name), np.asarray(getattr(data, name)))
    assert again.X.dtype == data.X.dtype and again.y.dtype.kind == eleven.y.dtype.kind
    with np.load(tmp_path / "set.npz", allow_pickle=False) as plain:  # anybody can read it
        assert_array_equal(plain["X"], np.asarray(data.X))


def test_names_of_features_are_kept(eleven, tmp_path):
    eleven.feature_names = np.array([f"feature {i}" for i in range(11)], dtype=object)
    eleven.save(tmp_path / "set.npz")
    again = ConstructedDataset.load(tmp_path / "set.npz")
    assert_array_equal(again.feature_names, eleven.feature_names)
    assert_array_equal(again[:3].feature_names, eleven.feature_names)


def test_damaged_files_are_named(eleven, tmp_path):
    path = tmp_path / "set.npz"
    with pytest.raises(FileNotFoundError, match="set.npz', found nothing"):
        ConstructedDataset.load(path)
    eleven.save(path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[500] ^= 1
    np.savez(tmp_path / "other.npz", X=eleven.X)
    np.save(tmp_path / "one.npy", eleven.X)
    np.savez(tmp_path / "pickled.npz", X=eleven.X, y=np.array([{}]), y_source=0, classes=0)
    np.savez(
        tmp_path / "odd.npz", X=eleven.X, y=eleven.y[:-1], y_source=eleven.y, classes=eleven.y
    )
    contents = [b"", b"text", whole[: len(whole) // 2], bytes(flipped)]
    contents += [(tmp_path / f"{name}").read_bytes() for name in (
        "other.npz", "one.npy", "pickled.npz", "odd.npz")]  # fmt: skip
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="set.npz' (is damaged|holds no constructed set)"):
            ConstructedDataset.load(path)


def test_labels_that_cannot_be_kept(tmp_path):
    label = frozenset({1})
    data = ConstructedDataset(np.zeros((1, 2), np.float32), [label], [label], [label])
    with pytest.raises(ValueError, match="Labels must be numbers or text"):
        data.save(tmp_path / "set.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:The source takes only")  # few steps
def test_a_finished_store_is_loaded(blobs, tmp_path):
    X, y = blobs
    source = FrozenEstimator(StandardClassifier(max_epochs=2, random_state=0, verbose=0).fit(X, y))
    common = {"n_steps": 2, "batch_size": 50, "random_state": 0, "verbose": 0}
    relabeler = NonRobustRelabeler(source, store=tmp_path / "rand", **common)
    made = relabeler.fit_transform(X, y)
    again = ConstructedDataset.load(tmp_path / "rand")
    assert isinstance(again.X, np.memmap)
    for name in ("X", "y", "y_source", "classes"):
        assert_array_equal(getattr(again, name), getattr(made, name))
    rows = np.load(tmp_path / "rand" / "X.npy", mmap_mode="r+")
    rows[60] = np.nan
    rows.flush()
    with pytest.raises(ValueError, match="is not finished: 1 of 4 batches are missing or damaged"):
        ConstructedDataset.load(tmp_path / "rand")
    inverter = RobustFeatureInverter(source, store=tmp_path / "r", solver="decayed", **common)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inverter.fit_transform(X, y)
    with pytest.raises(ValueError, match="holds no labels, only inputs.*numpy.load"):
        ConstructedDataset.load(tmp_path / "r")
    with pytest.raises(ValueError, match="is no store"):
        ConstructedDataset.load(tmp_path)


def test_bytes_are_scaled_whoever_reads_them():
    """As images are everywhere else."""
    X = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    y = np.arange(40) % 2
    data = ConstructedDataset(X, y, y, np.unique(y))
    assert data[0][0].dtype == torch.float32
    assert_array_equal(data[3][0].numpy(), X[3].astype(np.float32) / 255)
    clf = StandardClassifier(max_epochs=1, random_state=0, verbose=0)
    expected = clf.fit(X.astype(np.float32) / 255, y).decision_function(X)
    for given in (data, Subset(data, range(40)), ConcatDataset([data])):
        assert_allclose(clf.fit(given).decision_function(X), expected, atol=1e-5)
    table = ConstructedDataset(X.reshape(40, -1), y, y, np.unique(y))
    assert table[0][0].max() > 1  # values of tables are meant as they are
    swapped = ConstructedDataset(X.astype(">f4"), y, y, np.unique(y))
    assert_array_equal(swapped[0][0].numpy(), X[0].astype(np.float32))


def mapped(tmp_path, order):
    X = np.asarray(np.random.default_rng(0).random((40, 3, 8, 8), dtype=np.float32), order=order)
    np.save(tmp_path / "X.npy", X)
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    return ConstructedDataset(X, np.arange(40) % 2, np.arange(40) % 3, classes=range(3))


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_process_that_is_spawned_gets_the_path_of_a_map(tmp_path, monkeypatch, order):
    data = mapped(tmp_path, order)
    whole = len(pickle.dumps(data))
    assert whole > data.X.nbytes  # a pickle may be read on another machine
    monkeypatch.setattr("advfeat.datasets._constructed.get_spawning_popen", object)
    sent = pickle.dumps(Subset(data, [3, 1]))
    assert len(sent) < whole / 10
    found = pickle.loads(sent)
    assert isinstance(found.dataset.X, np.memmap)
    np.testing.assert_array_equal(found.dataset.X, data.X)
    assert torch.equal(found[0][0], data[3][0])
    part = pickle.loads(pickle.dumps(data[::-2]))  # rows in another order than the file's
    np.testing.assert_array_equal(part.X, data.X[::-2])
    np.testing.assert_array_equal(part.y_source, data.y_source[::-2])


@pytest.mark.slow
def test_workers_of_a_loader_read_the_file(tmp_path):
    data = mapped(tmp_path, "C")
    loader = DataLoader(data, batch_size=8, num_workers=1, multiprocessing_context="spawn")
    X, y = zip(*loader, strict=True)
    np.testing.assert_array_equal(torch.cat(X), data.X)
    np.testing.assert_array_equal(torch.cat(y), data.y)

"""What `fit` takes, everything takes; what nothing takes is refused in one line everywhere.

A table of entry points times kinds of input.
"""

import functools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.utils import _safe_indexing
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from advfeat import (
    ConstructedDataset,
    GaussianRobustMLE,
    NonRobustRelabeler,
    RobustFeatureInverter,
    StandardClassifier,
    adversarial_examples,
    feature_usefulness,
    make_robust_scorer,
    robust_accuracy_curve,
    robust_accuracy_score,
    robust_feature_usefulness,
    transfer_rate,
)
from advfeat.plotting import (
    AccuracyBarDisplay,
    GaussianMetricDisplay,
    LinearBoundaryDisplay,
    RobustnessCurveDisplay,
    SampleGridDisplay,
)

polars = pytest.importorskip("polars")
N, CLASSES = 12, ["a", "b", "c"]
ATTACK = {"norm": 2, "n_steps": 1, "verbose": 0}
SHAPES = {"images": (2, 3, 4), "table": (5,)}


def sample(kind):
    """X, of values that float16 and bfloat16 hold exactly, and y."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 9, size=(N, *SHAPES[kind])) / np.float32(8)
    return X.astype(np.float32), np.array(CLASSES)[np.arange(N) % 3]


@pytest.fixture(scope="module", params=["table", pytest.param("images", marks=pytest.mark.slow)])
def fitted(request):
    kind = request.param
    X, y = sample(kind)
    clf = StandardClassifier(max_epochs=2, lr=0.01, random_state=0, verbose=0).fit(X, y)
    settings = {"n_steps": 1, "random_state": 0, "verbose": 0}
    inverter = RobustFeatureInverter(FrozenEstimator(clf), **settings)
    relabeler = NonRobustRelabeler(FrozenEstimator(clf), target="deterministic", **settings)
    return kind, X, y, clf, inverter.fit(X, y), relabeler.fit(X, y)


def trained(clf, method, X, y):
    again = getattr(clone(clf), method)(X, y)
    return np.concatenate([w.detach().ravel() for w in again.module_.parameters()])


def closed(display):
    plt.close(display.figure_)
    return display


# What each entry point makes of (X, y), as one array. Those of ALONE look at X alone.
ALONE = {
    "predict": lambda f, X, y: f[3].predict(X) == np.array(CLASSES)[:, None],
    "predict_proba": lambda f, X, y: f[3].predict_proba(X),
    "decision_function": lambda f, X, y: f[3].decision_function(X),
    "features": lambda f, X, y: f[3].features(X),
    "invert": lambda f, X, y: f[4].invert(X),
}
WITH_LABELS = {
    "fit": lambda f, X, y: trained(f[3], "fit", X, y),
    "partial_fit": lambda f, X, y: trained(f[3], "partial_fit", X, y),
    "score": lambda f, X, y: f[3].score(X, y),
    "inverter": lambda f, X, y: arrays(clone(f[4]).fit_transform(X, y)),
    "relabeler": lambda f, X, y: arrays(clone(f[5]).fit_transform(X, y)),
    "relabel": lambda f, X, y: arrays(f[5].relabel(X, y)),
    "adversarial_examples": lambda f, X, y: adversarial_examples(f[3], X, y, eps=1, **ATTACK)[0],
    "robust_accuracy_score": lambda f, X, y: robust_accuracy_score(f[3], X, y, eps=0.1, **ATTACK),
    "robust_accuracy_curve": lambda f, X, y: robust_accuracy_curve(
        f[3], X, y, eps_values=[0, 0.1, 0.2], **ATTACK
    ),
    "make_robust_scorer": lambda f, X, y: make_robust_scorer(eps=0.1, **ATTACK)(f[3], X, y),
    "transfer_rate": lambda f, X, y: transfer_rate(f[3], f[3], X, y, eps=1, **ATTACK),
    "feature_usefulness": lambda f, X, y: feature_usefulness(f[3], X, y),
    "robust_feature_usefulness": lambda f, X, y: robust_feature_usefulness(
        f[3], X, y, eps=0.1, **ATTACK
    ),
    "RobustnessCurveDisplay": lambda f, X, y: (
        closed(
            RobustnessCurveDisplay.from_estimator(f[3], X, y, eps_values=[0, 0.1], **ATTACK)
        ).accuracy
    ),
    "AccuracyBarDisplay": lambda f, X, y: (
        closed(AccuracyBarDisplay.from_estimators({"D": f[3]}, X, y, eps=0.1, **ATTACK)).mean
    ),
}
ENTRIES = {**ALONE, **WITH_LABELS}
PREDICTING = ("predict", "predict_proba", "decision_function")
QUICK = {"fit", "predict", "score", "relabel", "robust_accuracy_score"}


def each(entries):
    """All entry points; the default run has a few of them."""
    return [pytest.param(e, marks=[] if e in QUICK else pytest.mark.slow) for e in entries]


def arrays(made):
    return np.asarray(made.X if isinstance(made, ConstructedDataset) else made)


class Items(Dataset):
    """A map-style data set as users write them."""

    def __init__(self, X, y):
        self.X, self.y = X, y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i], self.y[i]


class Foreign:
    """Data on disk as h5py gives them: no array, and rows only in increasing order."""

    def __init__(self, X):
        self._X, self.shape, self.dtype = X, X.shape, X.dtype

    def __len__(self):
        return len(self._X)

    def __getitem__(self, rows):
        if isinstance(rows, np.ndarray) and np.any(np.diff(rows) <= 0):
            raise TypeError("Indexing elements must be in increasing order")
        return self._X[rows]

    def __array__(self, dtype=None, copy=None):
        return np.array(self._X, dtype=dtype)


def on_disk(X, folder):
    np.save(folder / "X.npy", X)
    return np.load(folder / "X.npy", mmap_mode="r")


HOLDERS = {
    "list": lambda X, y, folder: (X.tolist(), list(y)),
    "list of arrays": lambda X, y, folder: (list(X), tuple(y)),
    "float64": lambda X, y, folder: (X.astype(float), y.astype(object)),
    "float16": lambda X, y, folder: (X.astype(np.float16), pd.Series(y)),
    "strided": lambda X, y, folder: (np.repeat(X, 2, axis=0)[::2], y),
    "big-endian": lambda X, y, folder: (X.astype(">f4"), y),
    "tensor": lambda X, y, folder: (torch.from_numpy(X), pd.Series(y, dtype="category")),
    "list of tensors": lambda X, y, folder: (list(torch.from_numpy(X)), y),
    "bfloat16": lambda X, y, folder: (torch.from_numpy(X).bfloat16(), polars.Series(y)),
    "half": lambda X, y, folder: (torch.from_numpy(X).half(), y),
    "with gradient": lambda X, y, folder: (torch.from_numpy(X).requires_grad_(), y),
    "memory map": lambda X, y, folder: (on_disk(X, folder), y),
    "memory map of float64": lambda X, y, folder: (on_disk(X.astype(float), folder), y),
    "memory map of float16": lambda X, y, folder: (on_disk(X.astype(np.float16), folder), y),
    "of another library": lambda X, y, folder: (Foreign(X), Foreign(y)),
    "half, of another library": lambda X, y, folder: (Foreign(X.astype(np.float16)), y),
    "Dataset": lambda X, y, folder: (Items(X, y), None),
    "Dataset of tensors": lambda X, y, folder: (Items(torch.from_numpy(X).bfloat16(), y), None),
    "Subset": lambda X, y, folder: (Subset(Items(X[::-1], y[::-1]), range(N)[::-1]), None),
    "ConstructedDataset": lambda X, y, folder: (ConstructedDataset(X, y, y, CLASSES), y),
    "ConstructedDataset alone": lambda X, y, folder: (ConstructedDataset(X, y, y, CLASSES), None),
}
FRAMES = {
    "pandas": lambda X, y, folder: (pd.DataFrame(X), pd.DataFrame({"label": y}).label),
    "polars": lambda X, y, folder: (polars.DataFrame(X, orient="row"), polars.Series(y)),
}


@pytest.fixture(scope="module")
def expected(fitted):
    _, X, y, *_ = fitted
    return functools.cache(lambda name: ENTRIES[name](fitted, X, y))


@pytest.mark.filterwarnings("ignore:X has feature names")
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.filterwarnings("ignore:The features were matched poorly")
@pytest.mark.parametrize("entry", each(ENTRIES))
def test_what_fit_takes_everything_takes(fitted, expected, entry, tmp_path):
    kind, X, y, *_ = fitted
    for name, held in {**HOLDERS, **(FRAMES if kind == "table" else {})}.items():
        inputs, labels = held(X, y, tmp_path)
        if entry in PREDICTING and isinstance(inputs, ConstructedDataset):
            with pytest.raises(ValueError, match="training data that carries its own labels"):
                ENTRIES[entry](fitted, inputs, labels)
            continue
        assert_allclose(
            ENTRIES[entry](fitted, inputs, labels), expected(entry), atol=1e-6, err_msg=name
        )


def test_images_of_another_library_stay_what_they_are():
    """Bytes, in any order of the rows."""
    X, y = sample("images")
    images = (255 * X).astype(np.uint8)
    clf = StandardClassifier(max_epochs=1, random_state=0, verbose=0).fit(Foreign(images), y)
    assert_allclose(clf.predict_proba(Foreign(images)), clf.predict_proba(images))
    inverter = RobustFeatureInverter(FrozenEstimator(clf), n_steps=1, verbose=0).fit(images, y)
    assert_allclose(inverter.transform(Foreign(images)), images / np.float32(255))
    made = ConstructedDataset(Foreign(images), y, y, CLASSES)[[3, 1]]
    assert_allclose(made.X, images[[3, 1]])


class Stream(IterableDataset):
    def __iter__(self):
        yield torch.zeros(5), 0


def spoiled(X, value):
    X = X.astype(type(value) if isinstance(value, complex) else X.dtype)
    X[3].flat[0] = value
    return X


def ragged(X, y):
    return Items([*X[:-1], X[-1][..., :-1]], y)


REFUSED = {
    "DataLoader": (lambda X, y: DataLoader(TensorDataset(torch.from_numpy(X))), "loader.dataset"),
    "IterableDataset": (lambda X, y: Stream(), "map-style"),
    "no items": (lambda X, y: Items([], []), "0 samples"),
    "items of other shapes": (lambda X, y: ragged(X, y), "one shape"),
    "items that are pictures": (lambda X, y: Items(list("abc"), y[:3]), "tensors or arrays"),
    "sparse": (lambda X, y: scipy.sparse.csr_array(X.reshape(N, -1)), "[Ss]parse.*dense"),
    "sparse tensor": (lambda X, y: torch.from_numpy(X).to_sparse(), "[Ss]parse.*to_dense"),
    "3 axes": (lambda X, y: X.reshape(N, 1, -1), r"\(n, d\) or \(n, C, H, W\)"),
    "5 axes": (lambda X, y: X.reshape(N, 1, 1, 1, -1), r"\(n, d\) or \(n, C, H, W\)"),
    "1 axis": (lambda X, y: X.reshape(-1), r"\(n, d\) or \(n, C, H, W\)|2D array"),
    "objects": (lambda X, y: np.full(X.shape, {}, object), "numbers|float"),
    "text": (lambda X, y: np.full(X.shape, "x"), "numbers|float"),
    "complex": (lambda X, y: spoiled(X, 1j), "[Cc]omplex"),
    "complex tensor": (lambda X, y: torch.from_numpy(X) * 1j, "[Cc]omplex"),
    "NaN": (lambda X, y: spoiled(X, np.nan), "NaN"),
    "NaN in a list": (lambda X, y: spoiled(X, np.nan).tolist(), "NaN"),
    "NaN in a tensor": (lambda X, y: torch.from_numpy(spoiled(X, np.nan)), "NaN"),
    "NaN in a Dataset": (lambda X, y: Items(spoiled(X, np.nan), y), "NaN"),
    "infinity": (lambda X, y: spoiled(X, np.inf), "infinity"),
    "too large": (lambda X, y: spoiled(X.astype(float), 1e39), "infinity|too large"),
    "no samples": (lambda X, y: X[:0], r"0 sample\(s\)"),
    "None": (lambda X, y: None, "Got NoneType|Got None"),
    "a dict": (lambda X, y: {"X": X}, "Got dict"),
    "a string": (lambda X, y: "X.npy", "Got str"),
    "a generator": (lambda X, y: (x for x in X), "Got generator"),
    "items cut by scikit-learn": (
        lambda X, y: _safe_indexing(Items(X, y), np.arange(N)),
        "inputs and labels apart",
    ),
    "tensors cut by scikit-learn": (
        lambda X, y: [*TensorDataset(torch.from_numpy(X), torch.zeros(N))],
        "inputs and labels apart",
    ),
    "ragged lists": (lambda X, y: [*X[:-1].tolist(), X[-1].tolist()[:-1]], "one shape"),
    "another shape": (lambda X, y: X[..., :-1], "features|samples of shape"),
}


def labels_for(X, y):
    return None if isinstance(X, Dataset) else y


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("entry", each(ENTRIES))
def test_what_nothing_takes_is_refused_in_one_line(fitted, entry):
    _, X, y, *_ = fitted
    for name, (spoil, message) in REFUSED.items():
        if name == "another shape" and entry in ("fit", "partial_fit", "inverter", "relabeler"):
            continue
        # TypeErrors are scikit-learn's own.
        with pytest.raises((ValueError, TypeError), match=message) as caught:
            inputs = spoil(X, y)
            ENTRIES[entry](fitted, inputs, labels_for(inputs, y))
            pytest.fail(f"{entry} took {name}")
        assert "\n" not in str(caught.value), (name, str(caught.value))


@pytest.mark.parametrize("y_given", [False, True])
def test_cross_validation_over_a_torch_data_set_is_refused_in_one_line(y_given):
    X, y = sample("table")
    clf = StandardClassifier(verbose=0)
    with pytest.raises(ValueError, match="cross-validation.*inputs and labels apart"):
        cross_val_score(clf, Items(X, y), y if y_given else None, cv=2, error_score="raise")


LABELS = {
    "one-hot": (lambda y: np.eye(N), "one-hot"),
    "too short": (lambda y: y[:-1], "one label per sample"),
    "continuous": (lambda y: np.arange(N) + 0.5, "continuous|another type"),
    "missing": (lambda y: [None, *y[1:]], "none may be missing"),
    "one string": (lambda y: "abc", "Got str"),
    "absent": (lambda y: None, "y"),
}


@pytest.mark.parametrize("entry", each(WITH_LABELS))
def test_labels_that_nothing_takes(fitted, entry):
    _, X, y, *_ = fitted
    for spoil, message in LABELS.values():
        with pytest.raises(ValueError, match=message) as caught:
            ENTRIES[entry](fitted, X, spoil(y))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("entry", each(WITH_LABELS))
def test_labels_beside_a_data_set_that_has_its_own(fitted, entry):
    _, X, y, *_ = fitted
    with pytest.raises(ValueError, match="yields its own labels, so y must be None"):
        ENTRIES[entry](fitted, Items(X, y), y[::-1])
    with pytest.raises(ValueError, match="must be its y_source"):
        ENTRIES[entry](fitted, ConstructedDataset(X, y, y, CLASSES), y[::-1])


GAUSSIAN = {
    "fit": lambda g, X, y: GaussianRobustMLE().fit(X, y).coef_,
    "partial_fit": lambda g, X, y: GaussianRobustMLE().partial_fit(X, y, classes=CLASSES).coef_,
    "predict_proba": lambda g, X, y: g.predict_proba(X),
    "score": lambda g, X, y: g.score(X, y),
    "robust_accuracy_score": lambda g, X, y: robust_accuracy_score(g, X, y, eps=0.1, **ATTACK),
}


@pytest.mark.filterwarnings("ignore:The average adversary is a poor stand-in")
@pytest.mark.filterwarnings("ignore:X has feature names")
@pytest.mark.parametrize("entry", GAUSSIAN)
def test_tables_for_the_gaussian_model(entry, tmp_path):
    X, y = sample("table")
    gaussian = GaussianRobustMLE().fit(X, y)
    expected = GAUSSIAN[entry](gaussian, X, y)
    for name, held in {**HOLDERS, **FRAMES}.items():
        inputs, labels = held(X, y, tmp_path)
        if isinstance(inputs, Dataset):
            if entry != "predict_proba" or not isinstance(inputs, ConstructedDataset):
                continue
            with pytest.raises(ValueError, match="carries its own labels"):
                GAUSSIAN[entry](gaussian, inputs, labels)
        else:
            found = GAUSSIAN[entry](gaussian, inputs, labels)
            assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=name)


# Displays of samples: images in grey or colour, or two classes in the plane.


def drawn_images(X, y):
    display = closed(SampleGridDisplay.from_datasets({"D": X}, y=y, n_samples=5, random_state=0))
    texts = [[ord(letter) for letter in text.get_text()] for text in display.texts_]
    return np.hstack([display.images["D"].reshape(5, -1), texts])


def boundaries(X, y):
    clf = LogisticRegression().fit(*plane())
    display = closed(LinearBoundaryDisplay.from_estimators({"it": clf}, X, y, eps=0.1))
    return np.column_stack([display.X, display.y == "a"])


def metric(X, y):
    model = GaussianRobustMLE(adversary="pointwise").fit(*plane())
    display = closed(GaussianMetricDisplay.from_estimator(model, X, y))
    return np.column_stack([display.X, display.y == "a"])


def plane():
    X, _ = sample("table")
    return X[:, :2], np.array(["a", "b"])[np.arange(N) % 2]


def images():
    X, y = sample("images")
    return X[:, :1], y


DRAWN = {
    "SampleGridDisplay": (drawn_images, images),
    "LinearBoundaryDisplay": (boundaries, plane),
    "GaussianMetricDisplay": (metric, plane),
}


@pytest.mark.parametrize("entry", DRAWN)
def test_what_displays_of_samples_take(entry, tmp_path):
    draw, data = DRAWN[entry]
    X, y = data()
    expected = draw(X, y)
    for name, held in {**HOLDERS, **(FRAMES if data is plane else {})}.items():
        inputs, labels = held(X, y, tmp_path)
        found = draw(inputs, labels)
        if isinstance(inputs, ConstructedDataset) and data is images:
            found = found[:, :-4]  # a constructed set is labelled with both labels, "a → a"
        assert_allclose(found, expected, atol=1e-6, err_msg=name)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("entry", DRAWN)
def test_what_displays_of_samples_refuse(entry):
    draw, data = DRAWN[entry]
    X, y = data()
    for name, (spoil, message) in REFUSED.items():
        if name == "another shape" and data is images:
            continue
        with pytest.raises((ValueError, TypeError), match=message) as caught:
            inputs = spoil(X, y)
            draw(inputs, labels_for(inputs, y))
            pytest.fail(f"{entry} took {name}")
        assert "\n" not in str(caught.value), (name, str(caught.value))
    for name, (spoil, message) in LABELS.items():
        if name == "absent" and data is images:  # they need not be given
            continue
        with pytest.raises(ValueError, match=message) as caught:
            draw(X, spoil(y))
            pytest.fail(f"{entry} took {name}")
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="yields its own labels, so y must be None"):
        draw(Items(X, y), y[::-1])
    with pytest.raises(ValueError, match="must be its y_source"):
        draw(ConstructedDataset(X, y, y, CLASSES), y[::-1])

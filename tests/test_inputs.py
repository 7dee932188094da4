"""What `fit` takes, everything takes; what nothing takes is refused in one line everywhere.

A table of entry points times kinds of input."""

import functools
from collections import UserList, deque

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from containers import CLASSES, FRAMES, HOLDERS, REFUSED, Foreign, Items, N, labels_for, sample
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from torch.utils.data import Dataset

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

ATTACK = {"norm": 2, "n_steps": 1, "verbose": 0}


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
    "predict_log_proba": lambda f, X, y: f[3].predict_log_proba(X),
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
PREDICTING = ("predict", "predict_proba", "predict_log_proba", "decision_function")
QUICK = {"fit", "predict", "score", "relabel", "robust_accuracy_score"}


def each(entries):
    """All entry points; the default run has a few of them."""
    return [pytest.param(e, marks=[] if e in QUICK else pytest.mark.slow) for e in entries]


def arrays(made):
    return np.asarray(made.X if isinstance(made, ConstructedDataset) else made)


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


def test_sequences_of_other_libraries():
    """Such as a column of a Hugging Face Dataset."""
    X, y = sample("images")
    expected = StandardClassifier(max_epochs=1, random_state=0, verbose=0).fit(X, y)
    for kind in (deque, UserList):
        clf = clone(expected).fit(kind(X), kind(y))
        assert np.array_equal(clf.predict_proba(kind(X)), expected.predict_proba(X))


class Rows:
    """Stands for a Hugging Face Dataset, whose items are dicts."""

    shape = (20, 2)

    def __len__(self):
        return 20

    def __getitem__(self, i):
        if i >= len(self):
            raise IndexError(i)
        return {"image": np.zeros((1, 8, 8)), "label": 0}


def test_data_sets_of_other_libraries_are_refused_in_one_line():
    clf = StandardClassifier(max_epochs=1, verbose=0)
    with pytest.raises(ValueError, match="Got a Rows without y, which is no torch Dataset"):
        clf.fit(Rows())
    with pytest.raises(ValueError, match="Expected an X of numbers, got Rows"):
        clf.fit(Rows(), np.arange(20) % 2)
    images = np.empty(20, dtype=object)
    images[:] = list(np.zeros((20, 1, 8, 8)))
    for given in (images, pd.Series(images), pd.Series(images, index=range(1, 21))):
        with pytest.raises(ValueError, match=r"Use numpy.stack\(X\)"):
            clf.fit(given, np.arange(20) % 2)
    with pytest.raises(ValueError, match="a 1D array of shape"):
        clf.fit(pd.Series(list("ab") * 10, index=range(1, 21)), np.arange(20) % 2)

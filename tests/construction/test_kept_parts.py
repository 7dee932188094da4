"""Parts of kept sets, and what a store knows of its source and its labels."""

import signal

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from kept_cases import QUIET, relabelled
from numpy.testing import assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from torch import nn
from torch.utils.data import Subset, random_split

from advfeat import (
    AdversarialClassifier,
    ConstructedDataset,
    NonRobustRelabeler,
    RobustFeatureInverter,
    StandardClassifier,
    from_torch,
    load,
    save,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:The source takes only", "ignore:The features were matched poorly"
)
NAMES = np.array(list("abcdefghij"))


def test_parts_with_text_labels_are_scored(digits):
    X, y = digits[0][:200], NAMES[digits[1][:200]]
    source = StandardClassifier(max_epochs=2, **QUIET).fit(X, y)
    data = relabelled(FrozenEstimator(source), X, y)
    train, test = random_split(data, [0.5, 0.5], torch.Generator().manual_seed(0))
    nested = Subset(test, [3, 1, 2])
    clf = StandardClassifier(max_epochs=1, **QUIET).fit(train)
    right = clf.predict(data.X[list(test.indices)]) == data.y[list(test.indices)]
    assert clf.score(test) == np.mean(right)
    assert clf.score(nested) == pytest.approx(np.mean(right[[3, 1, 2]]))


def test_bounds_of_many_features_are_compared_in_every_value(tmp_path):
    d, n = 1200, 8
    net = nn.Linear(d, 2)
    X = np.full((n, d), 0.5, np.float32)
    low, high = np.zeros(d), np.ones(d)
    other = low.copy()
    other[d // 2] = 0.4

    def made(low):
        source = from_torch(net, classes=[0, 1], input_shape=(d,), bounds=(low, high + low / 9))
        return relabelled(source, X, np.arange(n) % 2, store=tmp_path / "s").X

    first = made(low + np.arange(d) / 1e5)
    with np.printoptions(precision=2):
        assert_array_equal(made(low + np.arange(d) / 1e5), first)
    with pytest.raises(ValueError, match="it differs in bounds"):
        made(other + np.arange(d) / 1e5)


def test_other_labels_are_another_set(standard, digits, tmp_path):
    """Also where the targets do not follow from them."""
    X, y = digits[0][:40], digits[1][:40]
    frozen = FrozenEstimator(standard)
    kept = relabelled(frozen, X, y, store=tmp_path / "s", target="random")
    with pytest.raises(ValueError, match="it differs in y_source"):
        relabelled(frozen, X, (y + 1) % 10, store=tmp_path / "s", target="random")
    again = relabelled(frozen, X, list(y.astype(np.int16)), store=tmp_path / "s", target="random")
    assert_array_equal(again.y_source, kept.y_source)


def test_numpys_numbers_are_parameters(standard, digits, tmp_path):
    X, y = digits[0][:40], digits[1][:40]
    settings = {"batch_size": np.int64(16), "n_steps": np.int32(2), "eps": np.float32(0.5)}
    relabelled(FrozenEstimator(standard), X, y, store=tmp_path / "s", **settings)
    clf = AdversarialClassifier(n_steps=np.int64(1), max_epochs=np.int64(1), **QUIET).fit(X, y)
    save(clf, tmp_path / "clf.safetensors")
    assert_array_equal(load(tmp_path / "clf.safetensors").predict(X), clf.predict(X))


def test_a_store_copied_by_a_mac_is_read(standard, digits, tmp_path):
    made = relabelled(FrozenEstimator(standard), digits[0][:40], digits[1][:40], store=tmp_path)
    for path in list(tmp_path.glob("*.npy")):
        (tmp_path / f"._{path.name}").write_bytes(b"\0\5\x16\7")
    assert_array_equal(ConstructedDataset.load(tmp_path).X, made.X)


def test_images_have_no_feature_names(digits):
    X, y = digits[0][:40], digits[1][:40]
    for constructor in (RobustFeatureInverter, NonRobustRelabeler):
        fitted = constructor(StandardClassifier(max_epochs=1, **QUIET), n_steps=1, **QUIET)
        with pytest.raises(NotFittedError):
            fitted.get_feature_names_out()
        fitted.fit(X, y)
        with pytest.raises(ValueError, match="fitted on images of shape .1, 8, 8.: .* no feature"):
            fitted.get_feature_names_out()


def test_a_part_of_a_named_set_keeps_the_names():
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=list("uvw"))
    clf = StandardClassifier(max_epochs=1, **QUIET)
    part = Subset(relabelled(clf, X, np.arange(60) % 2), range(40))
    for constructor in (RobustFeatureInverter, NonRobustRelabeler):
        made = constructor(clf, n_steps=1, **QUIET)
        assert list(made.fit_transform(part).feature_names) == list("uvw")
    assert list(made.relabel(part).feature_names) == list("uvw")
    make_pipeline(made, clf).fit(part).predict(X)  # warnings are errors


def test_frames_whose_columns_have_no_text_names():
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), index=np.arange(60) + 5)
    y = np.arange(60) % 2
    clf = StandardClassifier(max_epochs=1, **QUIET)
    for constructor in (RobustFeatureInverter, NonRobustRelabeler):
        pipe = make_pipeline(constructor(clf, n_steps=2, **QUIET), clf).fit(X, y)
        assert not hasattr(pipe[-1], "feature_names_in_")
        pipe.predict(X)  # warnings are errors
    found = RobustFeatureInverter(clf, n_steps=2, **QUIET).fit_transform(X, y)
    assert found.columns.tolist() == [0, 1, 2] and found.index.tolist() == X.index.tolist()


def test_a_loaded_store_has_names_and_believes_no_other_labels(tmp_path):
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=list("uvw"))
    y = np.arange(60) % 2
    source = StandardClassifier(max_epochs=1, **QUIET).fit(X, y)
    made = relabelled(FrozenEstimator(source), X, y, store=tmp_path / "s")
    loaded = ConstructedDataset.load(tmp_path / "s")
    assert list(loaded.feature_names) == list(made.feature_names) == list("uvw")
    path = tmp_path / "s" / "y.npy"
    labels, kept = np.load(path), path.read_bytes()
    labels[0] = 1 - labels[0]
    np.save(path, labels)
    with pytest.raises(ValueError, match="damaged: y.npy is not what was kept.*Repeat the call"):
        ConstructedDataset.load(tmp_path / "s")
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="damaged.*Repeat the call"):
        ConstructedDataset.load(tmp_path / "s")
    path.unlink()
    with pytest.raises(ValueError, match="damaged: y.npy"):
        ConstructedDataset.load(tmp_path / "s")
    path.write_bytes(kept)
    (tmp_path / "s" / "extras.json").unlink()
    with pytest.raises(ValueError, match="damaged.*Repeat the call"):
        ConstructedDataset.load(tmp_path / "s")
    assert_array_equal(relabelled(FrozenEstimator(source), X, y, store=tmp_path / "s").y, made.y)
    assert_array_equal(ConstructedDataset.load(tmp_path / "s").y, made.y)


def test_files_of_the_user_in_a_store_are_left_alone(digits, tmp_path):
    X, y, store = digits[0][:40], digits[1][:40], tmp_path / "s"
    source = FrozenEstimator(StandardClassifier(max_epochs=1, **QUIET).fit(X, y))
    made = relabelled(source, X, y, store=store)
    (store / "notes.npy").write_bytes(b"not an array")
    (store / "folder.npy").mkdir()
    assert_array_equal(ConstructedDataset.load(store).y, made.y)
    assert_array_equal(relabelled(source, X, y, store=store).X, made.X)
    assert (store / "notes.npy").read_bytes() == b"not an array"


def test_a_folder_in_the_place_of_the_inputs_is_told(digits, tmp_path):
    X, y, store = digits[0][:40], digits[1][:40], tmp_path / "s"
    source = FrozenEstimator(StandardClassifier(max_epochs=1, **QUIET).fit(X, y))
    relabelled(source, X, y, store=store)
    (store / "X.npy").unlink()
    (store / "X.npy").mkdir()
    with pytest.raises(ValueError, match="batches are missing or damaged. Repeat the call"):
        ConstructedDataset.load(store)
    with pytest.raises(OSError, match="Cannot write into store=.*[Dd]irectory"):
        relabelled(source, X, y, store=store)


@pytest.mark.filterwarnings("ignore:The source takes only")
def test_a_search_under_multiprocessing_refits_here(digits):
    X, y = digits[0][:40], np.arange(40) % 2
    source = FrozenEstimator(StandardClassifier(max_epochs=1, **QUIET).fit(X, y))
    pipe = Pipeline(
        [
            ("make", NonRobustRelabeler(source, n_steps=2, batch_size=10, **QUIET)),
            ("learn", StandardClassifier(max_epochs=1, **QUIET)),
        ]
    )
    with joblib.parallel_config("multiprocessing", n_jobs=2):
        search = GridSearchCV(pipe, {"make__eps": [0.1, 0.5]}, cv=2).fit(X, y)
    alone = GridSearchCV(pipe, {"make__eps": [0.1, 0.5]}, cv=2).fit(X, y)
    assert_array_equal(search.decision_function(X), alone.decision_function(X))


@pytest.mark.parametrize("n_jobs", [0, 2])
def test_what_cannot_share_the_work_is_refused_before_the_source_is_trained(n_jobs, digits):
    def never(**kwargs):
        raise AssertionError("trained")

    relabeler = NonRobustRelabeler(StandardClassifier(never, **QUIET), **QUIET, n_jobs=n_jobs)
    backend = "multiprocessing" if n_jobs else "loky"
    match = "forks this process" if n_jobs else "n_jobs=0 has no meaning"
    with joblib.parallel_config(backend, n_jobs=2), pytest.raises(ValueError, match=match):
        relabeler.fit_transform(digits[0][:20], digits[1][:20])


class PressCtrlC(Callback):
    def on_batch_end(self, net, **kwargs):
        signal.raise_signal(signal.SIGINT)


class Enough(Callback):
    def on_epoch_end(self, net, **kwargs):
        raise KeyboardInterrupt


@pytest.mark.parametrize("callback", [PressCtrlC, Enough])
def test_ctrl_c_in_the_training_of_a_skorch_source_reaches_the_caller(callback, digits, tmp_path):
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    net = NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        max_epochs=3,
        callbacks=[callback()],
        train_split=None,
        verbose=0,
    )
    X, y, store = digits[0][:50], digits[1][:50], tmp_path / "s"
    if callback is Enough:  # skorch's way to end a training
        assert len(relabelled(net, X, y, store=store)) == 50
        return
    with pytest.raises(KeyboardInterrupt):
        relabelled(net, X, y, store=store)
    assert not list(store.glob("*.npy"))


class Linear(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.linear = nn.Linear(64, n_classes)

    def forward(self, x):
        return self.linear(x.flatten(1))


def test_another_default_device_changes_nothing(standard, digits, tmp_path):
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.device("meta"):
        save(standard, tmp_path / "a.safetensors")
        clf = from_torch(
            module, classes=range(10), input_shape=(1, 8, 8), mean=[0.5], device="cpu"
        )
        source = StandardClassifier(Linear, max_epochs=1, device="cpu", **QUIET)
        data = relabelled(source, digits[0][:50], digits[1][:50])
    assert clf.predict(digits[2]).shape == (len(digits[2]),)
    assert np.isfinite(data.X).all()


def test_starts_are_the_same_in_any_container(adversarial, digits, tmp_path):
    X, y = digits[0][:20], digits[1][:20]
    starts = X[::-1].copy()
    made = []
    for init in (starts, starts.tolist(), starts.astype(np.float64), torch.from_numpy(starts)):
        inverter = RobustFeatureInverter(
            FrozenEstimator(adversarial), init=init, n_steps=2, store=tmp_path / "kept", **QUIET
        )
        made.append(inverter.fit_transform(X, y))
    for again in made[1:]:
        assert_array_equal(again, made[0])
    inverter.set_params(init=X)
    with pytest.raises(ValueError, match="init"):
        inverter.fit_transform(X, y)

"""Constructions kept batch by batch: stopped and gone on with, mixed up, larger than memory."""

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from advfeat import (
    ConstructedDataset,
    NonRobustRelabeler,
    RobustFeatureInverter,
    StandardClassifier,
    robust_accuracy_score,
)
from advfeat.exceptions import BatchError
from advfeat.utils._store import Store

pytestmark = pytest.mark.filterwarnings("ignore:The features were matched poorly")


@pytest.fixture(params=["inverter", "relabeler"])
def constructor(request, adversarial):
    """An unfitted constructor with five batches of 20 samples."""
    common = {"n_steps": 5, "batch_size": 20, "random_state": 0, "verbose": 0}
    source = FrozenEstimator(adversarial)
    if request.param == "inverter":
        return RobustFeatureInverter(source, init="noise", step_size=1.0, **common)
    return NonRobustRelabeler(source, **common)


def arrays(constructed):
    if isinstance(constructed, np.ndarray):
        return (constructed,)
    return constructed.X, constructed.y


def diagnostics(constructor):
    names = ("residual_", "distance_", "success_rate_")
    return [getattr(constructor, name) for name in names if hasattr(constructor, name)]


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    constructor, digits, tmp_path, monkeypatch
):
    X, y, _, _ = digits
    X, y = X[:100], y[:100]
    expected = arrays(constructor.fit_transform(X, y))
    kept = clone(constructor).set_params(store=tmp_path / "new" / "folder")

    put, written = Store.put, []

    def stop_after_two(self, begin, part):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(begin)
        put(self, begin, part)

    monkeypatch.setattr(Store, "put", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        kept.fit_transform(X, y)
    assert written == [0, 20]

    def go_on(self, begin, part):
        written.append(begin)
        put(self, begin, part)

    monkeypatch.setattr(Store, "put", go_on)
    # Where the work is done makes no difference.
    with joblib.parallel_config("threading"):
        found = arrays(clone(kept).set_params(n_jobs=2).fit_transform(X, y))
    assert sorted(written) == [0, 20, 40, 60, 80]
    for a, b in zip(found, expected, strict=True):
        assert_array_equal(a, b)
    assert isinstance(found[0], np.memmap) and not found[0].flags.writeable
    assert_array_equal(np.load(tmp_path / "new" / "folder" / "X.npy"), expected[0])
    again = clone(kept)
    assert_array_equal(arrays(again.fit_transform(X, y))[0], expected[0])
    assert len(written) == 5
    for a, b in zip(diagnostics(again), diagnostics(constructor), strict=True):
        assert_array_equal(a, b)


def test_another_construction_is_not_mixed_in(constructor, standard, digits, tmp_path):
    X, y, _, _ = digits
    X, y = X[:40], y[:40]
    kept = clone(constructor).set_params(store=str(tmp_path))
    kept.fit_transform(X, y)
    other_source = clone(kept).set_params(estimator=FrozenEstimator(standard))
    for other, data, differing in [
        (clone(kept).set_params(n_steps=6), X, r"n_steps \(5.0 there, 6.0 here\)"),
        (clone(kept).set_params(batch_size=10), X, "batch_size"),
        (clone(kept).set_params(random_state=1), X, "random_state"),
        (clone(kept).set_params(dtype="float16"), X, "dtype"),
        (kept, X[::-1], "X"),
        (other_source, X, "weights.*FrozenEstimator"),
    ]:
        with pytest.raises(ValueError, match=f"something else: it differs in.*{differing}"):
            other.fit_transform(data, y)
    # The same values are the same data, however they lie in memory.
    for same in (np.asfortranarray(X), np.repeat(X, 2, axis=0)[::2], torch.from_numpy(X)):
        kept.fit_transform(same, y)
    content = json.loads((tmp_path / "manifest.json").read_text())["content"]
    assert content["n_steps"] == 5 and content["constructor"] == type(kept).__name__


def test_other_targets_are_another_construction(adversarial, digits, tmp_path):
    X, y, _, _ = digits
    kept = NonRobustRelabeler(
        FrozenEstimator(adversarial), target=lambda y: y, n_steps=1, random_state=0,
        store=tmp_path, verbose=0,
    )  # fmt: skip
    kept.fit_transform(X[:20], y[:20])
    # Another function with the same result is the same construction.
    kept.set_params(target=lambda y: y).fit_transform(X[:20], y[:20])
    with pytest.raises(ValueError, match="differs in target_labels"):
        kept.set_params(target=lambda y: (y + 1) % 10).fit_transform(X[:20], y[:20])


def test_explicit_verbs_do_not_use_the_store(adversarial, digits, tmp_path):
    X, y, _, _ = digits
    relabeler = NonRobustRelabeler(
        FrozenEstimator(adversarial), n_steps=1, random_state=0, store=tmp_path, verbose=0
    ).fit(X[:20], y[:20])
    relabeler.relabel(X[:20], y[:20])
    assert not any(tmp_path.iterdir())


def test_bad_stores_are_refused_before_the_source_is_trained(constructor, digits, tmp_path):
    X, y, _, _ = digits
    X, y = X[:20], y[:20]

    class Fails(StandardClassifier):
        def fit(self, X, y):
            pytest.fail("trained")

    constructor = clone(constructor).set_params(estimator=Fails())
    with pytest.raises(ValueError, match="needs an integer 'random_state'"):
        clone(constructor).set_params(store=tmp_path, random_state=None).fit_transform(X, y)
    with pytest.raises(ValueError, match="store must name a folder. Got ''"):
        clone(constructor).set_params(store="").fit_transform(X, y)
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="holds other files: thesis.txt"):
        clone(constructor).set_params(store=tmp_path).fit_transform(X, y)
    with pytest.raises(FileExistsError, match="is a file"):
        clone(constructor).set_params(store=tmp_path / "thesis.txt").fit_transform(X, y)
    with pytest.raises(ValueError, match="'store' parameter"):
        clone(constructor).set_params(store=3).fit_transform(X, y)


def test_other_bounds_of_the_source_are_another_construction(digits, tmp_path):
    X, y, _, _ = digits
    kept = RobustFeatureInverter(n_steps=1, random_state=0, store=tmp_path, verbose=0)
    source = {"max_epochs": 1, "random_state": 0, "verbose": 0}
    kept.set_params(estimator=StandardClassifier(**source)).fit_transform(X[:40], y[:40])
    kept.set_params(estimator=StandardClassifier(bounds=None, **source))
    with pytest.raises(ValueError, match="differs in bounds"):
        kept.fit_transform(X[:40], y[:40])


def test_damaged_batches_are_constructed_again(constructor, digits, tmp_path):
    X, y, _, _ = digits
    kept = clone(constructor).set_params(store=tmp_path)
    expected = np.array(arrays(kept.fit_transform(X[:60], y[:60]))[0])
    rows = np.load(tmp_path / "X.npy", mmap_mode="r+")
    rows[20:40] = np.nan
    rows.flush()
    with pytest.warns(UserWarning, match="1 of the 3 batches kept .* are damaged"):
        assert_array_equal(arrays(clone(kept).fit_transform(X[:60], y[:60]))[0], expected)


# --- float16 ------------------------------------------------------------------------------------


def test_float16_is_the_rounded_set(constructor, digits, tmp_path):
    X, y, X_test, _ = digits
    full = arrays(constructor.fit_transform(X[:50], y[:50]))
    half = clone(constructor).set_params(dtype="float16")
    for store in (None, tmp_path):
        found = clone(half).set_params(store=store).fit_transform(X[:50], y[:50])
        assert arrays(found)[0].dtype == np.float16
        for a, b in zip(arrays(found), full, strict=True):
            assert_array_equal(a, b.astype(a.dtype))
        train = StandardClassifier(max_epochs=1, random_state=0, verbose=0)
        labels = None if isinstance(found, ConstructedDataset) else y[:50]
        rounded = clone(train).fit(full[0].astype(np.float16).astype(np.float32), full[-1] if
                                   labels is None else labels)  # fmt: skip
        logits = train.fit(found, labels).decision_function(X_test)
        assert_array_equal(logits, rounded.decision_function(X_test))


def test_values_that_float16_cannot_hold_are_refused():
    X = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    y = np.arange(40) % 2
    source = StandardClassifier(max_epochs=1, random_state=0, verbose=0)
    relabeler = NonRobustRelabeler(source, eps=1e6, n_steps=1, dtype="float16", verbose=0)
    with pytest.raises(ValueError, match="X has [0-9.]+e\\+06. Scale X"):
        relabeler.fit_transform(X * 1e6, y)
    assert not hasattr(relabeler, "estimator_")  # before the source is trained
    with pytest.raises(BatchError, match="holds values up to 65504, and X has"):
        relabeler.fit_transform(X * 1e4, y)  # only what is constructed gets too large


# --- torch Datasets and memory ------------------------------------------------------------------


@pytest.mark.long
def test_constructions_of_datasets_and_memory_maps(constructor, digits, tmp_path):
    X, y, X_test, y_test = digits
    X, y = X[:60], y[:60]
    expected = constructor.fit_transform(X, y)
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    dataset = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    parts = ConcatDataset([Subset(dataset, range(30)), Subset(dataset, range(30, 60))])
    for number, (data, labels) in enumerate([(mapped, y), (dataset, None), (parts, None)]):
        kept = clone(constructor).set_params(store=tmp_path / str(number))
        found = kept.fit_transform(data, labels)
        if labels is None:  # a Dataset carries its own labels, and so does what is made of it
            assert isinstance(found, ConstructedDataset)
            assert_array_equal(found.y_source, y)
            assert_array_equal(found.X, arrays(expected)[0])
        else:
            for a, b in zip(arrays(found), arrays(expected), strict=True):
                assert_array_equal(a, b)
    clf = StandardClassifier(max_epochs=1, random_state=0, verbose=0)
    pipe = make_pipeline(clone(constructor), clf)
    same = clone(pipe).fit(X, y).predict(X_test)
    assert_array_equal(pipe.fit(parts).predict(X_test), same)
    score = {"norm": 2, "eps": 0.3, "n_steps": 2, "verbose": 0}
    test = TensorDataset(torch.from_numpy(X_test[:50]), torch.from_numpy(y_test[:50]))
    assert robust_accuracy_score(pipe[-1], test, y_test[:50], **score) == robust_accuracy_score(
        pipe[-1], X_test[:50], y_test[:50], **score
    )


class Generated(Dataset):
    """Images that exist only while they are read."""

    def __init__(self, n):
        self.targets = np.arange(n) % 2

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, i):
        return np.full((3, 32, 32), (i % 2) / 2 + i % 7 / 20, dtype=np.float32), i % 2


class Small(nn.Module):
    def __init__(self, input_shape, n_classes):
        super().__init__()
        self.linear = nn.Linear(3, n_classes)

    def forward(self, x):
        return self.linear(x.mean((2, 3)))


@pytest.mark.filterwarnings("ignore:No ReLU was found")
def test_memory_does_not_grow_with_the_number_of_samples(tmp_path):
    source = StandardClassifier(Small, max_epochs=1, random_state=0, verbose=0)
    source.fit(Generated(64))
    common = {"n_steps": 1, "batch_size": 64, "random_state": 0, "verbose": 0}

    def peak(n):
        tracemalloc.start()
        for cls in (RobustFeatureInverter, NonRobustRelabeler):
            store = tmp_path / f"{cls.__name__}{n}"
            made = cls(FrozenEstimator(source), store=store, **common).fit_transform(Generated(n))
            assert isinstance(made.X, np.memmap) and len(made) == n
        source.predict(made.X)
        _, found = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return found / Generated(1)[0][0].nbytes

    peak(64)  # what is made only once
    few, many = peak(1000), peak(2000)
    assert many < 1.1 * few, (few, many)


# --- kills --------------------------------------------------------------------------------------

SCRIPT = """
import sys, warnings
import joblib, numpy as np
import torch; torch.set_num_threads(1)
warnings.simplefilter("ignore")
source, X, y = joblib.load(sys.argv[1])
from sklearn.frozen import FrozenEstimator
from advfeat import RobustFeatureInverter
made = RobustFeatureInverter(FrozenEstimator(source), n_steps=30, batch_size=10, random_state=0,
                             store=sys.argv[2], verbose=0)
print("ready", flush=True)
np.save(sys.argv[3], made.fit_transform(X, y))
"""


@pytest.mark.slow
def test_killed_at_random_instants_to_the_same_bits(adversarial, digits, tmp_path):
    X, y, _, _ = digits
    X, y = X[:200], y[:200]
    joblib.dump((adversarial, X, y), tmp_path / "in.joblib")
    expected = RobustFeatureInverter(
        FrozenEstimator(adversarial), n_steps=30, batch_size=10, random_state=0, verbose=0
    ).fit_transform(X, y)
    rng = np.random.default_rng(0)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "in.joblib"), str(tmp_path / "store")]
    for _ in range(4):
        process = subprocess.Popen([*command, str(tmp_path / "out.npy")], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.5))
        process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        process.communicate()
    subprocess.run([*command, str(tmp_path / "out.npy")], check=True, env=os.environ)
    assert_array_equal(np.load(tmp_path / "out.npy"), expected)

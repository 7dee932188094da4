"""Constructions kept batch by batch: stopped and gone on with, mixed up, never half-read."""

import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from advfeat import NonRobustRelabeler, RobustFeatureInverter, StandardClassifier
from advfeat.construction._shards import Shards


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


@pytest.mark.filterwarnings("ignore:The features were matched poorly")
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    constructor, digits, tmp_path, monkeypatch
):
    X, y, _, _ = digits
    X, y = X[:100], y[:100]
    expected = arrays(constructor.fit_transform(X, y))
    kept = clone(constructor).set_params(store=tmp_path / "new" / "folder")

    put, written = Shards.put, []

    def stop_after_two(self, begin, part):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(begin)
        put(self, begin, part)

    monkeypatch.setattr(Shards, "put", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        kept.fit_transform(X, y)
    assert written == [0, 20]

    def go_on(self, begin, part):
        written.append(begin)
        put(self, begin, part)

    monkeypatch.setattr(Shards, "put", go_on)
    # Where the work is done makes no difference.
    found = arrays(clone(kept).set_params(n_jobs=2).fit_transform(X, y))
    assert sorted(written) == [0, 20, 40, 60, 80]
    for a, b in zip(found, expected, strict=True):
        assert_array_equal(a, b)
    again = clone(kept)
    assert_array_equal(arrays(again.fit_transform(X, y))[0], expected[0])
    assert len(written) == 5
    name = "residual_" if hasattr(again, "residual_") else "success_rate_"
    assert_array_equal(getattr(again, name), getattr(constructor, name))


@pytest.mark.filterwarnings("ignore:The features were matched poorly")
def test_another_construction_is_not_mixed_in(constructor, standard, digits, tmp_path):
    X, y, _, _ = digits
    X, y = X[:40], y[:40]
    kept = clone(constructor).set_params(store=str(tmp_path))
    kept.fit_transform(X, y)
    other_source = clone(kept).set_params(estimator=FrozenEstimator(standard))
    for other, data, differing in [
        (clone(kept).set_params(n_steps=6), X, "n_steps"),
        (clone(kept).set_params(batch_size=10), X, "batch_size"),
        (clone(kept).set_params(random_state=1), X, "random_state"),
        (kept, X[::-1], "X"),
        (other_source, X, "weights"),
    ]:
        with pytest.raises(ValueError, match=f"another construction: it differs in.*{differing}"):
            other.fit_transform(data, y)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["n_steps"] == 5 and manifest["constructor"] == type(kept).__name__


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


def test_bad_stores(constructor, digits, tmp_path):
    X, y, _, _ = digits
    X, y = X[:20], y[:20]
    with pytest.raises(ValueError, match="needs an integer 'random_state'"):
        clone(constructor).set_params(store=tmp_path, random_state=None).fit_transform(X, y)
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="holds other files"):
        clone(constructor).set_params(store=tmp_path).fit_transform(X, y)
    with pytest.raises(FileExistsError):
        clone(constructor).set_params(store=tmp_path / "thesis.txt").fit_transform(X, y)
    with pytest.raises(ValueError, match="'store' parameter"):
        clone(constructor).set_params(store=3).fit_transform(X, y)


def test_a_full_disk_leaves_no_half_shard(tmp_path, monkeypatch):
    shards = Shards(tmp_path, {})
    shards.put(0, (np.arange(3),))

    def full(file, *arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        shards.put(3, (np.arange(3),))
    assert shards.holds(0) and not shards.holds(3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "manifest.json",
        "rows-000000000.npz",
    ]


@pytest.mark.filterwarnings("ignore:The features were matched poorly")
def test_other_bounds_of_the_source_are_another_construction(digits, tmp_path):
    X, y, _, _ = digits
    kept = RobustFeatureInverter(n_steps=1, random_state=0, store=tmp_path, verbose=0)
    source = {"max_epochs": 1, "random_state": 0, "verbose": 0}
    kept.set_params(estimator=StandardClassifier(**source)).fit_transform(X[:40], y[:40])
    kept.set_params(estimator=StandardClassifier(bounds=None, **source))
    with pytest.raises(ValueError, match="differs in bounds"):
        kept.fit_transform(X[:40], y[:40])

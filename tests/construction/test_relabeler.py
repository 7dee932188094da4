"""NonRobustRelabeler: targets, budget, labels, reproducibility, bad input."""

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from skorch import NeuralNetClassifier
from torch import nn
from torch.utils.data import TensorDataset

from advfeat import (
    ConstructedDataset,
    NonRobustRelabeler,
    RobustFeatureInverter,
    StandardClassifier,
    from_torch,
)
from advfeat.datasets import make_planted_features
from advfeat.utils._rounding import warn_of_eps


def relabeler(source, **settings):
    defaults = {"eps": 1.0, "n_steps": 20, "random_state": 0}
    return NonRobustRelabeler(FrozenEstimator(source), verbose=0, **{**defaults, **settings})


class Masked(nn.Linear):
    """Its last class is impossible."""

    def forward(self, x):
        last = torch.arange(self.out_features, device=x.device) == self.out_features - 1
        return super().forward(x).masked_fill(last, -torch.inf)


def test_a_source_that_masks_a_class_reaches_the_others():
    X, y = np.random.default_rng(0).normal(size=(60, 4)).astype("f"), np.arange(60) % 3
    module = Masked(4, 4)
    with torch.no_grad():
        module.weight.copy_(2 * torch.eye(4))
    source = from_torch(module, classes=range(4), input_shape=(4,))
    rel = relabeler(source, target={0: 1, 1: 2, 2: 0, 3: 0}, eps=20.0)
    data = rel.fit_transform(X, y)
    assert rel.success_rate_ == 1
    assert_array_equal(source.predict(data.X), (y + 1) % 3)


@pytest.mark.parametrize(("norm", "eps"), [(2, 1.0), (np.inf, 0.2)])
def test_small_perturbations_carry_the_new_labels(standard, digits, norm, eps):
    X, y, _, _ = digits
    rel = relabeler(standard, target="deterministic", norm=norm, eps=eps)
    data = rel.fit_transform(X, y)
    assert isinstance(data, ConstructedDataset)
    assert_array_equal(data.y, (y + 1) % 10)
    assert_array_equal(data.y_source, y)
    size = np.linalg.norm((data.X - X).reshape(len(X), -1), ord=norm, axis=1)
    assert size.max() <= eps * (1 + 1e-5)
    assert data.X.min() >= 0 and data.X.max() <= 1
    success = np.mean(standard.predict(data.X) == data.y)
    assert rel.success_rate_ == pytest.approx(success, abs=0.01)
    assert success > 0.6


@pytest.mark.filterwarnings("ignore:The source takes only")  # few steps
def test_random_targets_are_uniform_over_all_classes(standard, digits):
    X, y, _, _ = digits
    data = relabeler(standard, n_steps=1).fit_transform(X, y)
    share = np.bincount(data.y, minlength=10) / len(y)
    assert np.abs(share - 0.1).max() < 4 * np.sqrt(0.09 / len(y))
    assert abs(np.mean(data.y == y) - 0.1) < 4 * np.sqrt(0.09 / len(y))


@pytest.mark.filterwarnings("ignore:The source takes only")  # few steps
def test_other_targets_are_uniform_over_the_wrong_classes(standard, digits):
    X, y, _, _ = digits
    data = relabeler(standard, n_steps=1, target="other").fit_transform(X, y)
    step = (data.y - y) % 10
    assert step.min() == 1
    share = np.bincount(step, minlength=10)[1:] / len(y)
    assert np.abs(share - 1 / 9).max() < 4 * np.sqrt(8 / 81 / len(y))
    again = relabeler(standard, n_steps=1, target="other").fit_transform(X, y)
    assert_array_equal(again.y, data.y)
    # Of two classes there is only one other.
    pair = np.isin(y, (3, 8))
    source = StandardClassifier(max_epochs=1, random_state=0, verbose=0).fit(X[pair], y[pair])
    two = relabeler(source, n_steps=1, target="other").fit_transform(X[pair], y[pair])
    assert_array_equal(two.y, 11 - y[pair])


@pytest.mark.filterwarnings("ignore:The source takes only")  # few steps
def test_mapping_and_callable_targets(standard, digits):
    X, y, _, _ = digits
    mapping = {label: 9 - label for label in range(10)}
    a = relabeler(standard, n_steps=1, target=mapping).fit_transform(X, y)
    b = relabeler(standard, n_steps=1, target=lambda y: 9 - y).fit_transform(X, y)
    assert_array_equal(a.y, 9 - y)
    assert_array_equal(b.y, 9 - y)


def test_bad_targets(standard, digits):
    X, y, _, _ = digits
    with pytest.raises(ValueError, match=r"lacks \[2, 3, 4, 5, 6, 7, 8, 9\]"):
        relabeler(standard, target={0: 1, 1: 0}).fit_transform(X, y)
    with pytest.raises(ValueError, match="not among the classes"):
        relabeler(standard, target=lambda y: y + 1).fit_transform(X, y)
    with pytest.raises(ValueError, match="one label per sample"):
        relabeler(standard, target=lambda y: y[:3]).fit_transform(X, y)
    with pytest.raises(ValueError, match="'target' parameter"):
        relabeler(standard, target="next").fit_transform(X, y)


@pytest.mark.parametrize("eps", [-0.5, "large", float("nan")])
def test_bad_eps(standard, digits, eps):
    X, y, _, _ = digits
    with pytest.raises(ValueError, match="'eps' parameter of NonRobustRelabeler must be"):
        relabeler(standard, eps=eps).fit_transform(X, y)


def test_eps_zero_changes_labels_only(standard, digits):
    X, y, _, _ = digits
    data = relabeler(standard, eps=0.0).fit_transform(X, y)
    assert_array_equal(data.X, X)


def test_string_labels():
    data = make_planted_features(200, random_state=0)
    y = np.where(data.target == 1, "yes", "no")
    rel = NonRobustRelabeler(
        StandardClassifier(max_epochs=3, verbose=0), target="deterministic", n_steps=3, verbose=0
    )
    made = rel.fit_transform(data.data, y)
    assert_array_equal(made.y, np.where(y == "yes", "no", "yes"))
    assert_array_equal(made.classes, ["no", "yes"])


def test_same_seed_same_bits_whatever_the_batches(standard, digits):
    X, y, _, _ = digits
    X, y = X[:150], y[:150]
    expected = relabeler(standard).fit_transform(X, y)
    for change in ({"batch_size": 7}, {"n_jobs": 2, "batch_size": 64}):
        with joblib.parallel_config("threading"):  # processes: tests/test_backends.py
            found = relabeler(standard, **change).fit_transform(X, y)
        assert_array_equal(found.y, expected.y)
        assert_allclose(found.X, expected.X, atol=1e-5)
    assert_array_equal(relabeler(standard).fit_transform(X, y).X, expected.X)
    other = relabeler(standard, random_state=1).fit_transform(X, y)
    assert not np.array_equal(other.y, expected.y)


def test_relabel_anything_afterwards(standard, digits):
    X, y, X_test, y_test = digits
    rel = relabeler(standard, n_steps=2).fit(X, y)
    assert not hasattr(rel, "success_rate_")
    assert_array_equal(rel.relabel(X_test, y_test).y_source, y_test)
    assert rel.transform(X_test) is X_test
    with pytest.raises(ValueError, match="not among the classes"):
        rel.relabel(X_test, y_test + 100)
    with pytest.raises(ValueError, match="one label per sample"):
        rel.relabel(X_test, y_test[:-1])


def test_perturbs_the_planted_non_robust_features():
    truth = make_planted_features(1500, random_state=0)
    X, y = truth.data, truth.target
    source = StandardClassifier(max_epochs=15, random_state=0, verbose=0)
    eps = 1.5 * truth.flip_eps
    rel = NonRobustRelabeler(
        source, target="deterministic", eps=eps, n_steps=20, random_state=0, verbose=0
    )
    data = rel.fit_transform(X, y)
    moved = np.abs(data.X - X).mean(0)
    energy = ((data.X - X) ** 2).sum(0)
    assert energy[~truth.robust_mask].sum() > 5 * energy[truth.robust_mask].sum()
    assert moved.max() > 0


def test_relabel_checks_parameters_too(standard, digits):
    X, y, _, _ = digits
    relabeler = NonRobustRelabeler(FrozenEstimator(standard), verbose=0).fit(X[:20], y[:20])
    with pytest.raises(ValueError, match="'target' parameter"):
        relabeler.set_params(target="determinstic").relabel(X[:20], y[:20])


def test_a_failed_fit_changes_nothing(standard, digits):
    X, y, _, _ = digits
    relabeler = NonRobustRelabeler(StandardClassifier(max_epochs=1, verbose=0), verbose=0)
    relabeler.fit(X[:50], y[:50])
    with pytest.raises(ValueError, match="2 classes"):
        relabeler.fit(np.zeros((20, 10)), np.zeros(20))
    assert relabeler.transform(X) is X


def test_a_callable_target_may_write_into_what_it_gets(standard, digits):
    def shift(labels):
        labels += 1
        labels %= 10
        return labels

    X, y = digits[0][:30], digits[1][:30].copy()
    data = relabeler(standard, target=shift, eps=3.0, n_steps=20).fit_transform(X, y)
    assert_array_equal(y, digits[1][:30])
    assert_array_equal(data.y_source, y)
    assert_array_equal(data.y, (y + 1) % 10)


FIVE = {i: i + 5 for i in range(5)}


def _with_ten_classes(kind):
    """Sources of ten classes, of which y holds five."""
    torch.manual_seed(0)
    if kind == "skorch":
        module = nn.Sequential(nn.Linear(4, 10))
        return NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, max_epochs=1, verbose=0)
    source = from_torch(nn.Linear(4, 10), classes=range(10), input_shape=(4,))
    if kind == "from_torch":
        return source
    return StandardClassifier(source, max_epochs=1, random_state=0, verbose=0)


@pytest.mark.filterwarnings("ignore:The source takes only")  # few steps
@pytest.mark.parametrize("kind", ["from_torch", "go on from it", "skorch"])
def test_targets_are_the_classes_of_the_source_with_and_without_a_store(kind, tmp_path):
    X = np.random.default_rng(0).normal(size=(50, 4)).astype("f")
    y = np.arange(50) % 5
    settings = {"n_steps": 2, "random_state": 0, "verbose": 0}
    for target in ("random", "other", "deterministic", FIVE):
        plain = NonRobustRelabeler(_with_ten_classes(kind), target=target, **settings)
        stored = clone(plain).set_params(store=tmp_path / str(target)[:5])
        data = plain.fit_transform(X, y)
        assert_array_equal(stored.fit_transform(X, y).y, data.y)
        if target == FIVE:
            assert_array_equal(data.y, y + 5)
        elif target == "deterministic":
            assert_array_equal(data.y, (y + 1) % 5 if kind == "skorch" else y + 1)
        else:  # five of the skorch net's outputs will have learned nothing
            assert (data.y.max() > 5) == (kind != "skorch")


@pytest.mark.parametrize("frozen", [False, True])
def test_targets_of_a_skorch_source_are_labels_that_it_learned(frozen):
    """Its outputs are 0, 1, ..., also where the labels begin with 1."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(90, 4)).astype("f"), rng.integers(1, 4, size=90)
    y[:3] = 1, 2, 3
    net = NeuralNetClassifier(
        nn.Linear, module__in_features=4, module__out_features=4, max_epochs=1, verbose=0,
        criterion=nn.CrossEntropyLoss, train_split=None,
    )  # fmt: skip
    source = FrozenEstimator(net.fit(X, y)) if frozen else net
    for target, expected in (
        ("deterministic", {(1, 2), (2, 3), (3, 1)}),
        ("other", {(a, b) for a in (1, 2, 3) for b in (1, 2, 3) if a != b}),
        ("random", {(a, b) for a in (1, 2, 3) for b in (1, 2, 3)}),
    ):
        relabeler = NonRobustRelabeler(
            source, target=target, eps=50.0, n_steps=3, random_state=0, verbose=0
        )
        data = relabeler.fit_transform(X, y)
        assert set(zip(data.y_source.tolist(), data.y.tolist(), strict=True)) == expected


def test_a_mapping_of_times():
    X, y = make_planted_features(60, random_state=0, return_X_y=True)
    days = np.array(["2020-01-01", "2020-02-01"], "M8[ns]")
    source = StandardClassifier(max_epochs=1, random_state=0, verbose=0).fit(X, days[y])
    targets = {days[0].astype("M8[D]"): days[1], days[1]: days[0]}
    data = relabeler(source, target=targets, n_steps=1).fit_transform(X, days[y])
    assert_array_equal(data.y, days[1 - y])
    with pytest.raises(ValueError, match="it contains labels that are not among the classes"):
        relabeler(source, target=lambda y: y + 1).fit_transform(X, days[y])
    with pytest.raises(ValueError, match="must hold every label of y. It lacks"):
        relabeler(source, target={days[0]: days[1]}).fit_transform(X, days[y])


def test_rounding_that_reaches_eps_is_warned_of():
    rng = np.random.default_rng(0)
    X, y = (rng.normal(size=(40, 20)) * 50 + 1000).astype("f"), np.arange(40) % 2
    settings = {"eps": 0.5, "n_steps": 1, "random_state": 0, "verbose": 0, "dtype": "float16"}
    source = StandardClassifier(max_epochs=1, random_state=0, verbose=0)
    for norm in (2, np.inf):
        with pytest.warns(UserWarning, match="dtype='float16' rounds these samples"):
            NonRobustRelabeler(source, norm=norm, **settings).fit_transform(X, y)
    small = rng.random((40, 20)).astype("f")
    NonRobustRelabeler(source, **settings).fit_transform(small, y)
    images = rng.random((4, 3, 224, 224), dtype=np.float32)
    images[:, :, 0, 0] = 1.0
    warn_of_eps(images, 2, 1.0, "float16")
    NonRobustRelabeler(source, **{**settings, "dtype": "float32"}).fit_transform(X, y)


def test_the_set_does_not_share_the_labels_given():
    X, y = make_planted_features(60, random_state=0, return_X_y=True)
    source = StandardClassifier(max_epochs=1, random_state=0, verbose=0).fit(X, y)
    settings = {"n_steps": 1, "random_state": 0, "verbose": 0}
    relabeler = NonRobustRelabeler(FrozenEstimator(source), **settings)
    inverter = RobustFeatureInverter(FrozenEstimator(source), random_state=0, verbose=0)
    before = y.copy()
    made = [relabeler.fit_transform(X, y), relabeler.relabel(X, y)]
    made.append(inverter.fit_transform(made[0]))
    y[:] = y[::-1].copy()
    made[0].y[:] = y[0]
    assert all(np.array_equal(data.y_source, before) for data in made)
    assert len(np.unique(made[2].y)) > 1


def test_a_second_relabeler_of_a_pipeline_is_refused_before_it_works(monkeypatch):
    X, y = make_planted_features(60, random_state=0, return_X_y=True)
    source = StandardClassifier(max_epochs=1, random_state=0, verbose=0).fit(X, y)
    made = []
    run = NonRobustRelabeler._relabel
    monkeypatch.setattr(
        NonRobustRelabeler, "_relabel", lambda *a, **k: made.append(1) or run(*a, **k)
    )
    settings = {"target": "other", "eps": 5.0, "n_steps": 2, "random_state": 0, "verbose": 0}
    relabeler = NonRobustRelabeler(FrozenEstimator(source), **settings)
    with pytest.raises(ValueError, match="A Pipeline can hold one NonRobustRelabeler only"):
        make_pipeline(relabeler, clone(relabeler), clone(source)).fit(X, y)
    assert len(made) == 1
    twice = relabeler.fit_transform(relabeler.fit_transform(X, y))  # by hand it is allowed
    assert len(twice) == 60


def test_targets_of_a_trained_skorch_net_where_its_last_fit_does_not_tell():
    """`classes` is a parameter; parts come one by one; a Dataset need not have its y."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 4)).astype("f"), np.arange(300) % 6
    settings = dict(
        module__in_features=4, module__out_features=6, max_epochs=1, verbose=0,
        criterion=nn.CrossEntropyLoss, train_split=None,
    )  # fmt: skip
    named = NeuralNetClassifier(nn.Linear, classes=list(range(1, 7)), **settings).fit(X, y)
    parts = NeuralNetClassifier(nn.Linear, **settings).fit(X, y).partial_fit(X[y > 3], y[y > 3])
    data = NeuralNetClassifier(nn.Linear, classes=range(6), **settings)
    data.fit(TensorDataset(torch.from_numpy(X), torch.from_numpy(y)), None)
    few = y < 3
    for net in (named, parts, data):
        for target in ("random", "other"):
            relabeler = NonRobustRelabeler(
                FrozenEstimator(net), target=target, eps=50.0, random_state=0, verbose=0
            )
            assert set(relabeler.fit_transform(X[few], y[few]).y.tolist()) == set(range(6))


def test_targets_of_labels_that_a_source_has_not_learned():
    """All outputs are among them then."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 4)).astype("f"), rng.integers(1, 4, size=300)
    net = NeuralNetClassifier(
        nn.Linear, module__in_features=4, module__out_features=4, max_epochs=1, verbose=0,
        criterion=nn.CrossEntropyLoss, train_split=None,
    )  # fmt: skip
    relabeler = NonRobustRelabeler(net, target="other", eps=50.0, random_state=0, verbose=0)
    made = relabeler.fit(X, y).relabel(X, np.zeros(300, dtype=int))
    assert set(made.y.tolist()) == {1, 2, 3} and not made.y_source.any()


def test_relabel_before_fit():
    with pytest.raises(NotFittedError):
        NonRobustRelabeler().relabel(np.zeros((3, 2)), [0, 1, 0])


@pytest.mark.parametrize(
    "target", [{0: 1, 1: 7}, lambda y: None, lambda y: np.full(len(y), np.nan), lambda y: y[:3]]
)
def test_bad_targets_are_called_targets(target):
    X = np.random.default_rng(0).normal(size=(20, 3))
    source = StandardClassifier(max_epochs=1, random_state=0, verbose=0)
    with pytest.raises(ValueError, match="The 'target' cannot be used"):
        NonRobustRelabeler(source, target=target).fit_transform(X, np.arange(20) % 2)


def test_a_source_in_two_frozen_estimators():
    X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    source = StandardClassifier(max_epochs=1, random_state=0, verbose=0).fit(X, np.arange(20) % 2)
    settings = {"n_steps": 1, "eps": 9.0, "random_state": 0, "verbose": 0}
    once, twice = (
        NonRobustRelabeler(frozen, **settings).fit_transform(X, np.arange(20) % 2)
        for frozen in (FrozenEstimator(source), FrozenEstimator(FrozenEstimator(source)))
    )
    assert_array_equal(once.X, twice.X)


def test_a_radius_larger_than_the_box_is_that_of_the_box():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 3))
    source = from_torch(net, classes=range(3), input_shape=(1, 2, 2))
    X, y = np.random.default_rng(0).random((30, 1, 2, 2), dtype=np.float32), np.arange(30) % 3
    whole, larger = (relabeler(source, eps=eps, n_steps=3).fit_transform(X, y) for eps in (2, 1e6))
    assert_array_equal(larger.X, whole.X)

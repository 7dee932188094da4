"""How often examples of one model fool another: closed forms, units, labels, containers."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier
from skorch import NeuralNetClassifier
from torch import nn

from advfeat import (
    StandardClassifier,
    adversarial_examples,
    from_torch,
    transfer_rate,
)
from advfeat.attacks._attack import Attack
from advfeat.datasets import make_planted_features
from advfeat.exceptions import EvaluationWarning
from advfeat.metrics import _transfer


def test_transfer_to_itself_is_one_and_to_noise_is_low(standard, adversarial, digits):
    _, _, X_test, y_test = digits
    attack = {"norm": 2, "eps": 0.7, "n_steps": 5, "verbose": 0}
    assert transfer_rate(standard, standard, X_test, y_test, **attack) == 1
    assert transfer_rate(standard, adversarial, X_test, y_test, **attack) < 0.6


@pytest.mark.long
def test_transfer_to_several_is_that_to_each_with_one_attack(
    standard, adversarial, digits, monkeypatch
):
    X, y = digits[2][:90], digits[3][:90]
    flat = FunctionTransformer(lambda images: np.asarray(images).reshape(len(images), -1))
    tree = make_pipeline(flat, DecisionTreeClassifier(random_state=0)).fit(X, y)
    few = clone(tree).fit(X[y < 5], y[y < 5])  # knows half of the labels
    others = [standard, tree, adversarial, few]
    attack = {"norm": 2, "eps": 0.5, "n_steps": 3, "batch_size": 40, "verbose": 0}
    expected = [transfer_rate(standard, other, X, y, **attack) for other in others]
    attacks = []
    iter_batches = _transfer.iter_batches
    monkeypatch.setattr(
        _transfer,
        "iter_batches",
        lambda job, *args, **kw: attacks.append(type(job)) or iter_batches(job, *args, **kw),
    )
    rates = transfer_rate(standard, others, X, y, **attack)
    assert rates.shape == (4,) and attacks.count(Attack) == 1
    assert_array_equal(rates, expected)
    assert len(set(expected)) == 4  # each has its own rows
    assert transfer_rate(standard, (tree,), X, y, **attack) == [expected[1]]
    with pytest.raises(ValueError, match="Got an empty list"):
        transfer_rate(standard, [], X, y, **attack)
    with pytest.raises(NotFittedError):
        transfer_rate(standard, [tree, clone(tree)], X, y, **attack)


def test_transfer_between_parallel_linear_models_in_closed_form(linear):
    X, y, clf = linear
    other = LogisticRegression().fit(X, y)
    other.coef_, other.intercept_ = 2 * clf.coef_, 2 * clf.intercept_
    attack = {"norm": 2, "eps": 0.5, "verbose": 0}
    assert transfer_rate(clf, other, X, y, **attack) == 1
    nobody = transfer_rate(clf, other, X, y, norm=2, eps=0, verbose=0)
    assert np.isnan(nobody)


def test_examples_in_the_units_of_a_later_step_are_not_transferred(linear):
    X, y, clf = linear
    pipe = make_pipeline(StandardScaler(), LogisticRegression()).fit(100 * X, y)
    with pytest.raises(ValueError, match="Pipeline whose earlier steps change X"):
        transfer_rate(pipe, clf, X, y, norm=2, eps=0.5)


def test_transfer_hands_over_examples_in_the_units_that_were_given(standard, digits):
    """An estimator that takes bytes for something else than floats would pass for robust."""
    X, y = digits[2][:60], digits[3][:60]
    bytes_ = np.round(255 * X).astype(np.uint8)
    flat = FunctionTransformer(lambda images: np.asarray(images, float).reshape(len(images), -1))
    tree = make_pipeline(flat, DecisionTreeClassifier(random_state=0))
    settings = {"norm": 2, "eps": 0.5, "n_steps": 3, "verbose": 0}
    with pytest.raises(ValueError, match=r"other labels for X / 255 than for X. Fit it on images"):
        transfer_rate(standard, clone(tree).fit(bytes_, y), bytes_, y, **settings)
    fitted = tree.fit(bytes_ / np.float32(255), y)
    images = bytes_ / np.float32(255)
    X_adv, fooled = adversarial_examples(standard, images, y, **settings)
    fooled &= (standard.predict(images) == y) & (fitted.predict(images) == y)
    expected = np.mean(fitted.predict(X_adv[fooled]) != y[fooled])
    assert transfer_rate(standard, fitted, images, y, **settings) == pytest.approx(expected)
    # Also where the source is a Pipeline whose first step makes floats of them.
    scale = FunctionTransformer(lambda images: images / np.float32(255))
    with pytest.raises(ValueError, match=r"other labels for X / 255 than for X"):
        source = make_pipeline(scale, FrozenEstimator(standard)).fit(bytes_, y)
        transfer_rate(source, clone(tree).fit(bytes_, y), bytes_, y, **settings)
    # A network takes both for the same.
    rates = [transfer_rate(standard, standard, images, y, **settings) for images in (bytes_, X)]
    assert rates == [1.0, 1.0]


def test_transfer_takes_tensors_for_any_estimator_and_steps_that_only_cast(standard, digits):
    X, y = digits[2][:60], digits[3][:60]
    flat = FunctionTransformer(lambda images: np.asarray(images).reshape(len(images), -1))
    tree = make_pipeline(flat, DecisionTreeClassifier(random_state=0)).fit(X, y)
    settings = {"norm": 2, "eps": 0.5, "n_steps": 3, "verbose": 0}
    expected = transfer_rate(standard, tree, X, y, **settings)
    held = torch.from_numpy(X).requires_grad_()
    assert transfer_rate(standard, tree, held, y, **settings) == expected
    X = X + 1e-12 * np.ones(1)
    assert X.dtype == np.float64
    cast = FunctionTransformer(lambda images: images.astype(np.float32))
    source = make_pipeline(cast, FrozenEstimator(standard)).fit(X, y)
    bare = transfer_rate(standard, tree, X.clip(0, 1), y, **settings)
    assert transfer_rate(source, tree, X.clip(0, 1), y, **settings) == bare


def test_transfer_of_many_classes_warns_of_nothing():
    X, y = np.tile(np.eye(60, dtype="f"), (3, 1)), np.tile(np.arange(60), 3)
    clf = from_torch(nn.Linear(60, 60, bias=False), classes=range(60), input_shape=(60,))
    with torch.no_grad():
        clf.module_.body.weight.copy_(torch.eye(60))
    attack = {"norm": 2, "eps": 2.0, "n_steps": 3, "batch_size": 60, "verbose": 0}
    assert transfer_rate(clf, clf, X, y, **attack) == 1


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_transfer_hands_over_frames_where_frames_were_given(library):
    frames = pytest.importorskip(library)
    X, y = make_planted_features(200, random_state=0, return_X_y=True)
    names = [f"feature {i}" for i in range(X.shape[1])]
    frame = frames.DataFrame(dict(zip(names, X.T, strict=True)))
    clf = StandardClassifier(max_epochs=3, random_state=0, verbose=0).fit(frame, y)

    class Named(DecisionTreeClassifier):
        def predict(self, X):
            assert list(X.columns) == names
            return super().predict(X)

    settings = {"norm": 2, "eps": 3.0, "n_steps": 3, "verbose": 0}
    rate = transfer_rate(clf, Named(random_state=0).fit(frame, y), frame, y, **settings)
    array = np.asarray(frame)
    bare = StandardClassifier(max_epochs=3, random_state=0, verbose=0).fit(array, y)
    tree = DecisionTreeClassifier(random_state=0).fit(array, y)
    assert rate == transfer_rate(bare, tree, array, y, **settings) > 0


class Halved(nn.Module):
    """Decides by the first value; where the second is large, says nothing (NaN) if it is told."""

    def __init__(self, silent):
        super().__init__()
        self.silent = silent

    def forward(self, x):
        z = torch.stack([-x[:, 0], x[:, 0]], 1)
        return z + torch.where(self.silent & (x[:, 1:] > 1), torch.nan, 0.0)


def test_transfer_leaves_out_what_a_network_says_nothing_of():
    silent, clear = (
        from_torch(Halved(quiet), classes=[0, 1], input_shape=(2,)) for quiet in (True, False)
    )
    X = np.array([[-0.1, 2.0]] * 5 + [[-0.1, 0.0]] * 5, dtype=np.float32)
    y, attack = np.zeros(10, dtype=int), {"norm": 2, "eps": 0.5, "verbose": 0}
    assert transfer_rate(silent, clear, X, y, **attack) == 1
    assert np.isnan(transfer_rate(silent, clear, X[:5], y[:5], **attack))
    others = [silent, FrozenEstimator(silent)]
    np.testing.assert_array_equal(transfer_rate(clear, others, X, y, **attack), [1, 1])


def test_transfer_compares_the_kinds_of_labels_and_takes_columns(linear):
    X, y, clf = linear
    attack = {"norm": 2, "eps": 2.0, "n_steps": 3, "verbose": 0}
    with pytest.raises(ValueError, match="labels of another type"):
        transfer_rate(clf, LogisticRegression().fit(X, y.astype(str)), X, y, **attack)

    class Column(LogisticRegression):
        def predict(self, X):
            return super().predict(X)[:, None]

    column = Column().fit(X, y)
    net = NeuralNetClassifier(nn.Linear, module__in_features=6, module__out_features=2, verbose=0)
    net.set_params(criterion=nn.CrossEntropyLoss, train_split=None).fit(X.astype("f"), y)
    rates = transfer_rate(clf, [clf, column, net, FrozenEstimator(net)], X, y, **attack)
    assert rates[0] == rates[1] == 1 and rates[2] == rates[3] > 0


def test_transfer_to_skorch_nets_goes_by_positions(linear):
    """Whatever their ``classes`` say, and whichever part they saw last."""
    X, y, clf = linear
    X = X.astype("f")
    attack = {"norm": 2, "eps": 2.0, "n_steps": 3, "verbose": 0}
    settings = {"module__in_features": 6, "module__out_features": 2, "verbose": 0}
    settings |= {"criterion": nn.CrossEntropyLoss, "train_split": None}
    net = NeuralNetClassifier(nn.Linear, **settings).fit(X, y)
    rate = transfer_rate(clf, net, X, y, **attack)
    net.classes_inferred_ = np.array([1])  # as after a part of one class
    assert transfer_rate(clf, net, X, y, **attack) == rate > 0
    for classes in (["a", "b"], [1, 2]):
        net.classes = classes
        assert transfer_rate(clf, net, X, y, **attack) == rate


class Misleading(nn.Module):
    def __init__(self, module, before):
        super().__init__()
        self.module, self.before = module, before

    def forward(self, x):
        return self.module(self.before(x))


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (lambda x: (x * 16).round() / 16, "gradient is exactly zero"),
        (lambda x: x + 0.1 * torch.randn_like(x), "network is random"),
        (lambda x: x.roll(int(torch.randint(-1, 2, ())), 3), "network is random"),
    ],
    ids=["rounded", "noise", "shifted"],
)
def test_transfer_from_a_source_that_misleads_its_attack_is_told(
    standard, digits, before, message
):
    X, y = digits[2][:60], digits[3][:60]
    source = from_torch(
        Misleading(standard.module_, before), classes=range(10), input_shape=(1, 8, 8)
    )
    attack = {"norm": 2, "n_steps": 2, "verbose": 0}
    with pytest.warns(EvaluationWarning, match=message) as caught:
        transfer_rate(source, [standard, standard], X, y, eps=0.3, **attack)
    assert len(caught) == 1
    transfer_rate(source, standard, X, y, eps=0, **attack)  # there is nothing to be missed
    transfer_rate(standard, source, X, y, eps=0.3, **attack)  # only the source is attacked

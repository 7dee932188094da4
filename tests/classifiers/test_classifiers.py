"""Both classifiers learn, and the same from the same."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from torch import nn

from advfeat import (
    AdversarialClassifier,
    StandardClassifier,
    from_torch,
    robust_accuracy_score,
    transfer_rate,
)
from advfeat.classifiers import _nets, _training_data
from advfeat.datasets import make_planted_features

QUICK = {"max_epochs": 3, "random_state": 0, "verbose": 0}


def test_learns_digits(standard, digits):
    _, _, X_test, y_test = digits
    assert standard.score(X_test, y_test) > 0.9


@pytest.mark.long
def test_adversarial_training_trades_accuracy_for_robustness(standard, adversarial, digits):
    _, _, X_test, y_test = digits
    attack = {"norm": 2, "eps": 0.5, "n_steps": 10, "verbose": 0}
    robust = robust_accuracy_score(adversarial, X_test, y_test, **attack)
    assert robust > robust_accuracy_score(standard, X_test, y_test, **attack) + 0.1


def test_net_gives_logits_in_input_units(standard, digits):
    X_test = digits[2]
    with torch.no_grad():
        logits = standard.net_.module_.eval()(torch.from_numpy(X_test)).numpy()
    assert_allclose(standard.decision_function(X_test), logits, rtol=1e-5, atol=1e-5)
    assert_allclose(standard.predict_proba(X_test).sum(1), 1)
    assert_allclose(np.exp(standard.predict_log_proba(X_test)), standard.predict_proba(X_test))


def test_features_are_the_input_of_the_last_linear_layer(standard, digits):
    X_test = digits[2]
    linear = standard.net_.module_.body[-1]
    with torch.no_grad():
        logits = linear(torch.from_numpy(standard.features(X_test))).numpy()
    assert_allclose(logits, standard.decision_function(X_test), rtol=1e-4, atol=1e-4)


def test_uint8_images_equal_their_scaled_floats(digits):
    X, y, _, _ = digits
    X8 = np.round(X * 255).astype(np.uint8)
    Xf = X8.astype(np.float32) / 255
    a = StandardClassifier(**QUICK).fit(X8, y)
    b = StandardClassifier(**QUICK).fit(Xf, y)
    assert_allclose(a.predict_proba(X8), b.predict_proba(Xf), atol=1e-4)
    assert_allclose(a.predict_proba(X8), a.predict_proba(Xf), atol=1e-6)


def test_memory_map_and_tensor(digits, tmp_path):
    X, y, _, _ = digits
    path = tmp_path / "X.npy"
    np.save(path, X)
    expected = StandardClassifier(**QUICK).fit(X, y).predict_proba(X)
    for same in (np.load(path, mmap_mode="r"), torch.from_numpy(X)):
        clf = StandardClassifier(**QUICK).fit(same, y)
        assert_array_equal(clf.predict_proba(same), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_data_kept_on_the_device_give_the_same_bits(digits, dtype, monkeypatch):
    """What CUDA devices do with data that fit, tried on the CPU."""
    X, y, X_test, _ = digits
    X = (255 * X).astype(dtype) if dtype == np.uint8 else X
    clf = StandardClassifier(max_epochs=2, random_state=0, verbose=0)
    expected = clf.fit(X, y).predict_proba(X_test)
    monkeypatch.setattr(_training_data, "on_accelerator", lambda X, device: torch.from_numpy(X))
    before = X.copy()
    assert_array_equal(clf.fit(X, y).predict_proba(X_test), expected)
    assert_array_equal(X, before)


def test_torch_dataset_brings_its_labels(digits):
    X, y, _, _ = digits
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    clf = StandardClassifier(**QUICK).fit(data)
    assert_array_equal(clf.predict(X), StandardClassifier(**QUICK).fit(X, y).predict(X))
    with pytest.raises(ValueError, match="yields its own labels"):
        StandardClassifier(**QUICK).fit(data, y[::-1])


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["cat", "dog", "emu"]),
        np.array([-7, 0, 12]),
        np.array(["a", "b", "c"], dtype=object),
        np.array([0.0, 1.0, 2.0]),
        np.array([10**12, 3, -1]),
    ],
)
def test_any_label_type(labels):
    rng = np.random.RandomState(0)
    y = labels[rng.randint(3, size=90)]
    X = (np.searchsorted(np.sort(labels), y)[:, None] + 0.1 * rng.randn(90, 2)).astype(np.float32)
    clf = StandardClassifier(max_epochs=20, random_state=0, verbose=0).fit(X, y)
    assert_array_equal(clf.classes_, np.sort(labels))
    assert clf.predict(X).dtype == clf.classes_.dtype
    assert clf.score(X, y) > 0.9


def test_boolean_labels():
    rng = np.random.RandomState(0)
    X = rng.randn(100, 2)
    clf = StandardClassifier(max_epochs=20, random_state=0, verbose=0).fit(X, X[:, 0] > 0)
    assert clf.predict(X).dtype == bool
    assert clf.decision_function(X).shape == (100,)


def test_same_seed_same_bits_and_global_state_untouched(digits):
    X, y, X_test, _ = digits
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    settings = {**QUICK, "augmentation": "paper"}
    a = AdversarialClassifier(n_steps=2, random_start=True, **settings).fit(X, y)
    assert_array_equal(torch.get_rng_state(), torch_state)
    assert_array_equal(np.random.get_state()[1], numpy_state)
    torch.manual_seed(99)
    b = AdversarialClassifier(n_steps=2, random_start=True, **settings).fit(X, y)
    assert_array_equal(a.decision_function(X_test), b.decision_function(X_test))
    c = clone(a).set_params(random_state=1).fit(X, y)
    assert not np.array_equal(a.decision_function(X_test), c.decision_function(X_test))


def test_dropout_is_seeded_too(digits):
    X, y, X_test, _ = digits

    class Net(nn.Sequential):
        def __init__(self, n_classes):
            super().__init__(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, n_classes))

    a = StandardClassifier(Net, **QUICK).fit(X, y)
    torch.manual_seed(5)
    b = StandardClassifier(Net, **QUICK).fit(X, y)
    assert_array_equal(a.decision_function(X_test), b.decision_function(X_test))
    assert_array_equal(a.decision_function(X_test), a.decision_function(X_test))


def test_eps_zero_is_standard_training(digits):
    X, y, X_test, _ = digits
    a = AdversarialClassifier(eps=0.0, n_steps=1, **QUICK).fit(X, y)
    b = StandardClassifier(**QUICK).fit(X, y)
    assert_array_equal(a.decision_function(X_test), b.decision_function(X_test))


def test_training_sees_perturbations_inside_ball_and_box(digits, monkeypatch):
    X, y, _, _ = digits
    pairs = []

    def spy(network, x, *args, **kwargs):
        moved = original(network, x, *args, **kwargs)
        pairs.append((x, moved))
        return moved

    original = _nets.projected_gradient
    monkeypatch.setattr(_nets, "projected_gradient", spy)
    for norm, eps in ((2, 0.7), (np.inf, 0.1)):
        pairs.clear()
        AdversarialClassifier(
            norm=norm, eps=eps, n_steps=3, random_start=True, max_epochs=1, verbose=0
        ).fit(X, y)
        assert pairs
        for x, moved in pairs:
            size = torch.linalg.vector_norm((moved - x).flatten(1), ord=norm, dim=1)
            assert size.max() <= eps * (1 + 1e-5)
            assert size.mean() > 0.5 * eps
            assert moved.min() >= 0 and moved.max() <= 1


def test_robust_training_drops_the_non_robust_features():
    data = make_planted_features(2000, random_state=0)
    X, y = data.data, data.target
    settings = {"max_epochs": 20, "random_state": 0, "verbose": 0}
    eps = 1.5 * data.flip_eps

    class Linear(nn.Linear):
        def __init__(self, n_features, n_classes):
            super().__init__(n_features, n_classes)

    plain = StandardClassifier(Linear, **settings).fit(X, y)
    robust = AdversarialClassifier(Linear, eps=eps, n_steps=5, **settings).fit(X, y)
    attack = {"norm": 2, "eps": eps, "verbose": 0}
    # The robust feature alone is right in `agreement` of the cases, whatever the attack.
    floor = data.accuracy("robust", eps=eps)
    assert plain.score(X, y) > floor + 0.1
    assert robust_accuracy_score(plain, X, y, **attack) < floor - 0.1
    assert robust_accuracy_score(robust, X, y, **attack) > floor - 0.05


def test_agrees_with_logistic_regression_on_a_linear_network():
    rng = np.random.RandomState(0)
    X = rng.randn(400, 3)
    p = 1 / (1 + np.exp(-(X @ [1.0, -2.0, 0.5] + 0.3)))
    y = (rng.rand(400) < p).astype(int)

    class Linear(nn.Linear):
        def __init__(self, n_features, n_classes):
            super().__init__(n_features, n_classes)

    clf = StandardClassifier(
        Linear, max_epochs=300, batch_size=400, weight_decay=0.0, random_state=0, verbose=0
    ).fit(X, y)
    truth = LogisticRegression(C=np.inf, tol=1e-8).fit(X, y)
    assert_allclose(clf.predict_proba(X), truth.predict_proba(X), atol=0.005)


def test_sample_weight_changes_the_prior():
    rng = np.random.RandomState(0)
    X, y = rng.randn(300, 2), np.repeat([0, 1], 150)
    weight = np.where(y == 1, 9.0, 1.0)
    clf = StandardClassifier(max_epochs=30, weight_decay=0.0, random_state=0, verbose=0)
    assert abs(clf.fit(X, y, weight).predict_proba(X)[:, 1].mean() - 0.9) < 0.05


def test_zero_weight_equals_removal(digits):
    X, y, X_test, _ = digits
    weight = (np.arange(len(X)) % 3 > 0).astype(float)
    a = StandardClassifier(**QUICK).fit(X, y, sample_weight=weight)
    b = StandardClassifier(**QUICK).fit(X[weight > 0], y[weight > 0])
    assert_array_equal(a.decision_function(X_test), b.decision_function(X_test))


@pytest.mark.parametrize("Classifier", [StandardClassifier, AdversarialClassifier])
def test_a_class_without_weight_keeps_its_place(Classifier, digits):
    X, y = digits[0][:200], digits[1][:200]
    weight = np.where(y == 3, 0.0, 1.0)
    clf = Classifier(class_weight="balanced", early_stopping=True, **QUICK)
    clf.fit(X, y, sample_weight=weight)
    assert_array_equal(clf.classes_, np.arange(10))
    assert clf.predict_proba(X).shape == (len(X), 10)
    two = StandardClassifier(**QUICK).fit(X, y == 3, sample_weight=weight)
    assert two.classes_.tolist() == [False, True]
    parts = StandardClassifier(lr=0.01, **QUICK).partial_fit(X, y, sample_weight=weight)
    assert_array_equal(parts.partial_fit(X, y).classes_, np.arange(10))


def test_augmentation_changes_training_only(digits):
    X, y, X_test, _ = digits
    plain = StandardClassifier(**QUICK).fit(X, y)
    moved = StandardClassifier(augmentation="flip-crop", **QUICK).fit(X, y)
    assert not np.array_equal(plain.decision_function(X_test), moved.decision_function(X_test))
    assert_array_equal(moved.decision_function(X_test), moved.decision_function(X_test))


def test_last_batch_of_one_sample_joins_the_one_before(digits):
    X, y, _, _ = digits
    clf = StandardClassifier(batch_size=64, **QUICK).fit(X[:129], y[:129])
    assert [b["train_batch_size"] for b in clf.history_[0]["batches"]] == [64, 65]


def test_progress_bar_goes_to_stderr_only_when_asked(digits, capsys, monkeypatch):
    from advfeat.utils import _progress

    X, y, _, _ = digits
    now = _progress._Bar
    monkeypatch.setattr(_progress, "_Bar", lambda **kw: now(**{**kw, "delay": 0}))
    StandardClassifier(max_epochs=1, verbose=1).fit(X, y)
    captured = capsys.readouterr()
    assert "StandardClassifier" in captured.err and captured.out == ""
    StandardClassifier(max_epochs=1, verbose=0).fit(X, y)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr", None)  # as under pythonw
    StandardClassifier(max_epochs=1, verbose=1).fit(X, y)


def test_bf16_predicts_like_fp32(digits):
    X, y, X_test, y_test = digits
    settings = {"max_epochs": 15, "random_state": 0, "verbose": 0}
    clf = StandardClassifier(precision="bf16", **settings).fit(X, y)
    exact = StandardClassifier(**settings).fit(X, y)
    assert clf.score(X_test, y_test) == pytest.approx(exact.score(X_test, y_test), abs=0.05)
    assert not np.array_equal(clf.decision_function(X_test), exact.decision_function(X_test))


@pytest.mark.gpu
def test_gpu_pickle_loads_on_cpu(digits):
    X, y, X_test, _ = digits
    clf = StandardClassifier(device="cuda", **QUICK).fit(X, y)
    again = pickle.loads(pickle.dumps(clf)).set_params(device="cpu")
    assert next(again.net_.module_.parameters()).device.type == "cpu"
    assert_allclose(again.predict_proba(X_test), clf.predict_proba(X_test), atol=1e-3)


class Masked(nn.Linear):
    """Class 2 is impossible; all are where the first feature is above 100."""

    def __init__(self, n_features, n_classes=3):
        super().__init__(n_features, n_classes)

    def forward(self, x):
        masked = torch.arange(3, device=x.device) == 2
        return super().forward(x).masked_fill(masked | (x[:, :1] > 100), -torch.inf)


@pytest.mark.parametrize("trained", [False, True])
def test_logits_of_minus_infinity_are_probabilities_of_zero(trained):
    X, y = np.random.default_rng(0).normal(size=(30, 4)).astype("f"), np.arange(30) % 2
    clf = from_torch(Masked(4), classes=range(3), input_shape=(4,))
    if trained:
        clf = AdversarialClassifier(Masked, eps=0.1, early_stopping=True, **QUICK)
        labels, weight = np.r_[y, 2], np.r_[np.ones(30), 0]
        clf.fit(np.r_[X, X[:1]], labels, sample_weight=weight)
        assert np.isfinite([epoch["train_loss"] for epoch in clf.history_]).all()
    probability = clf.predict_proba(X)
    assert_array_equal(probability[:, 2], 0.0)
    assert_allclose(probability.sum(1), 1.0)
    assert_array_equal(clf.decision_function(X)[:, 2], -np.inf)
    assert set(clf.predict(X)) <= {0, 1}
    X[3, 0] = 101
    right = clf.predict(np.delete(X, 3, 0)) == np.delete(y, 3)
    for method in (clf.predict_proba, clf.decision_function, clf.predict):
        with pytest.raises(ValueError, match="logits.* For 1 of 30 samples"):
            method(X)
    # Scores count it as wrong.
    attack = {"norm": 2, "eps": 0.0, "verbose": 0}
    assert clf.score(X, y) == robust_accuracy_score(clf, X, y, **attack) == right.sum() / 30
    assert transfer_rate(clf, clf, X, y, norm=2, eps=5.0, verbose=0) == 1

"""StandardClassifier and AdversarialClassifier: training, prediction, bad input."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from torch import nn

from advfeat import (
    AdversarialClassifier,
    StandardClassifier,
    from_torch,
    robust_accuracy_score,
    transfer_rate,
)
from advfeat.classifiers import _nets, _training_batches
from advfeat.datasets import make_planted_features

QUICK = {"max_epochs": 3, "random_state": 0, "verbose": 0}


def test_learns_digits(standard, digits):
    _, _, X_test, y_test = digits
    assert standard.score(X_test, y_test) > 0.9


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
    monkeypatch.setattr(_training_batches, "on_accelerator", lambda X, device: torch.from_numpy(X))
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


def test_warm_start_goes_on_from_the_weights(digits):
    X, y, X_test, y_test = digits
    clf = StandardClassifier(warm_start=True, max_epochs=8, random_state=0, verbose=0).fit(X, y)
    first = clf.history_[0]["train_loss"]
    clf.fit(X, y)
    assert clf.history_[0]["train_loss"] < 0.7 * first
    with pytest.raises(ValueError, match="not among the classes"):
        clf.fit(X, y + 1)


def test_partial_fit_one_epoch_each(digits):
    X, y, X_test, y_test = digits
    clf = StandardClassifier(lr=0.05, batch_size=32, random_state=0, verbose=0)
    for _ in range(6):
        clf.partial_fit(X[:300], y[:300], classes=np.unique(y))
        clf.partial_fit(X[300:], y[300:])
    assert len(clf.history_) == 12
    assert clf.score(X_test, y_test) > 0.8


def test_partial_fit_after_fit(standard, digits):
    X, y, X_test, y_test = digits
    clf = pickle.loads(pickle.dumps(standard))
    before = clf.decision_function(X_test)
    clf.partial_fit(X, y)
    assert not np.array_equal(clf.decision_function(X_test), before)
    assert clf.score(X_test, y_test) > 0.85
    with pytest.raises(ValueError, match="not among the classes"):
        clf.partial_fit(X[:5], np.full(5, 77))
    with pytest.raises(ValueError, match="those of the first call"):
        clf.partial_fit(X, y, classes=[1, 2])


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_computed_weights_are_trained_on(digits, norm):
    X, y, X_test, _ = digits

    class Normed(nn.Sequential):
        def __init__(self, n_classes):
            super().__init__(nn.Flatten(), norm(nn.Linear(64, n_classes)))

    clf = StandardClassifier(Normed, lr=0.05, **QUICK).fit(X, y)
    before = clf.decision_function(X_test)
    after = clf.partial_fit(X, y).decision_function(X_test)
    assert not np.array_equal(before, after)
    clf.set_params(callbacks=[Interrupt(2)])
    with pytest.raises(KeyboardInterrupt):
        clf.partial_fit(X, y)
    assert_array_equal(clf.decision_function(X_test), after)


def test_pickle_and_clone(standard, digits):
    X_test = digits[2]
    again = pickle.loads(pickle.dumps(standard))
    assert_array_equal(again.decision_function(X_test), standard.decision_function(X_test))
    fresh = clone(standard)
    assert fresh.get_params() == standard.get_params()
    with pytest.raises(NotFittedError):
        fresh.predict(X_test)


def test_callbacks_reach_skorch(digits):
    X, y, _, _ = digits

    class Count(Callback):
        def on_epoch_end(self, net, **kwargs):
            seen.append(len(net.history))

    seen = []
    callbacks = [Count(), ("stop", EarlyStopping("train_loss", patience=1, threshold=10))]
    clf = StandardClassifier(callbacks=callbacks, max_epochs=10, verbose=0, random_state=0)
    clf.fit(X, y)
    assert seen == list(range(1, len(clf.history_) + 1))
    assert len(seen) < 10


@pytest.mark.parametrize("every", ["epoch", "batch"])
def test_a_constant_rate_is_left_to_callbacks(digits, every):
    own = LRScheduler(policy="ExponentialLR", gamma=0.5, step_every=every, monitor=None)
    settings = {**QUICK, "max_epochs": 3, "batch_size": 100}
    clf = StandardClassifier(lr=0.08, lr_schedule="constant", callbacks=[own], **settings)
    clf.fit(digits[0][:200], digits[1][:200])
    steps = 3 if every == "epoch" else 6
    rate = clf.net_.optimizer_.param_groups[0]["lr"]
    assert rate == pytest.approx(0.08 * 0.5**steps)


@pytest.mark.parametrize("schedule", ["one-cycle", "step"])
@pytest.mark.parametrize("named", [False, True])
def test_two_schedules_are_refused_before_the_training(digits, schedule, named):
    own = LRScheduler(policy="ExponentialLR", gamma=0.5, monitor=None)
    for given in (own, LRScheduler):
        callbacks = [("mine", given)] if named else [given]
        clf = StandardClassifier(lr_schedule=schedule, callbacks=callbacks, **QUICK)
        with pytest.raises(ValueError, match="Use lr_schedule='constant', or leave"):
            clf.fit(digits[0][:50], digits[1][:50])
        clf.partial_fit(digits[0][:50], digits[1][:50], classes=range(10))  # has no other


@pytest.mark.parametrize(
    "given", ["early", torch.optim.lr_scheduler.StepLR, ("a", "b"), ("a", Callback(), 1), None]
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_what_is_no_callback_is_refused_before_the_training(digits, given, method):
    clf = StandardClassifier(callbacks=[Callback(), given], **QUICK)
    with pytest.raises(ValueError, match="callbacks must hold skorch callbacks, or pairs"):
        getattr(clf, method)(digits[0][:50], digits[1][:50])


@pytest.mark.parametrize("name", ["best_epoch", "schedule", "progress", "guard"])
def test_names_of_callbacks_are_free(digits, name):
    seen = []

    class Own(Callback):
        def on_epoch_end(self, net, **kwargs):
            seen.append(net)

    clf = AdversarialClassifier(n_steps=1, early_stopping=True, callbacks=[(name, Own())], **QUICK)
    clf.fit(digits[0][:200], digits[1][:200])
    assert seen


@pytest.mark.parametrize("kind", [StandardClassifier, AdversarialClassifier])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_net_is_trained_by_its_classifier_alone(digits, kind, method):
    X, y = digits[0][:50], digits[1][:50]
    clf = kind(**QUICK).fit(X, y)
    before = clf.decision_function(X)
    with pytest.raises(TypeError, match="trained by the classifier alone"):
        getattr(clf.net_, method)(X, y)
    np.testing.assert_array_equal(clf.decision_function(X), before)


@pytest.mark.parametrize("schedule", ["one-cycle", "step", "constant"])
def test_schedules(digits, schedule):
    X, y, _, _ = digits
    clf = StandardClassifier(lr=0.08, lr_schedule=schedule, **{**QUICK, "max_epochs": 6})
    clf.fit(X, y)
    rates = [batch["event_lr"] for epoch in clf.history_ for batch in epoch["batches"]]
    n = len(rates)
    assert max(rates) == pytest.approx(0.08, rel=0.02)
    if schedule == "constant":
        assert min(rates) == max(rates)
    elif schedule == "step":
        assert_allclose(rates[n // 3 + 1], 0.008)
        assert_allclose(rates[-1], 0.0008)
    else:
        assert rates[0] < 0.01 and rates[-1] < 0.001
        assert np.argmax(rates) == pytest.approx(n / 4, abs=2)


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
    now = _progress.tqdm
    monkeypatch.setattr(_progress, "tqdm", lambda **kw: now(**{**kw, "delay": 0}))
    StandardClassifier(max_epochs=1, verbose=1).fit(X, y)
    captured = capsys.readouterr()
    assert "StandardClassifier" in captured.err and captured.out == ""
    StandardClassifier(max_epochs=1, verbose=0).fit(X, y)
    assert capsys.readouterr().err == ""


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


# bad input


def test_unknown_network_suggests_the_nearest(digits):
    X, y, _, _ = digits
    with pytest.raises(ValueError, match="did you mean 'resnet18'"):
        StandardClassifier("resnet81").fit(X, y)
    with pytest.raises(ValueError, match="<Linear> failed on"):
        StandardClassifier(nn.Linear(2, 2)).fit(X, y)
    with pytest.raises(ValueError, match="needs images"):
        StandardClassifier("resnet18").fit(X.reshape(len(X), -1), y)


@pytest.mark.parametrize("eps", [-1, "big", float("nan"), None])
def test_bad_eps(digits, eps):
    X, y, _, _ = digits
    with pytest.raises(ValueError, match="'eps' parameter of AdversarialClassifier must be"):
        AdversarialClassifier(eps=eps).fit(X, y)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_epochs": 0}, "'max_epochs' parameter of StandardClassifier must be"),
        ({"lr": 0}, "'lr' parameter"),
        ({"lr_schedule": "cosine"}, "'lr_schedule' parameter"),
        ({"augmentation": "flip"}, "'augmentation' parameter"),
        ({"precision": "fp16"}, "'precision' parameter"),
        ({"device": "tpu9"}, "'device' parameter"),
        ({"device": "cuda:99"}, "CUDA"),
        ({"bounds": (1, 0)}, "'bounds' parameter .* low < high"),
        ({"bounds": "unit"}, "'bounds' parameter"),
    ],
)
def test_bad_parameters(digits, settings, message):
    X, y, _, _ = digits
    with pytest.raises(ValueError, match=message):
        StandardClassifier(**settings).fit(X, y)


def _with(X, value):
    X = X.copy()
    X.flat[17] = value
    return X


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X: _with(X, np.nan), "NaN"),
        (lambda X: _with(X, np.inf), "infinity"),
        (lambda X: X * 255, r"Expected values in \[0, 1\].*maximum of 255.*X / 255"),
        (lambda X: X - 0.5, "minimum of -0.5"),
        (lambda X: X[:, 0], r"add the channel axis: X\[:, None\]"),
        (lambda X: X[..., None], "5 dimensions"),
        (lambda X: X.transpose(0, 2, 3, 1), "looks like NHWC"),
        (lambda X: X[:0], "0 sample"),
        (lambda X: (X[:0] * 255).astype(np.uint8), "0 sample"),
        (lambda X: X[:-1], "inconsistent numbers of samples"),
    ],
)
def test_bad_images_at_fit(digits, change, message):
    X, y, _, _ = digits
    with pytest.raises(ValueError, match=message):
        StandardClassifier(**QUICK).fit(change(X), y)


def test_rounding_outside_the_box_passes(digits):
    X, y, _, _ = digits
    X = X.copy()
    X[0, 0, 0, 0] = -3e-8
    StandardClassifier(max_epochs=1, verbose=0).fit(X, y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X: X[:, :, :6], r"\(1, 6, 8\).*expecting samples of shape \(1, 8, 8\)"),
        (lambda X: np.repeat(X, 3, axis=1), r"\(3, 8, 8\)"),
        (lambda X: X.transpose(0, 2, 3, 1), "looks like NHWC"),
        (lambda X: X.reshape(len(X), -1), r"reshape\(-1, 1, 8, 8\)"),
        (lambda X: _with(X, np.nan), "NaN"),
    ],
)
@pytest.mark.parametrize("method", ["predict", "features", "predict_proba"])
def test_bad_images_at_predict(standard, digits, change, message, method):
    with pytest.raises(ValueError, match=message):
        getattr(standard, method)(change(digits[2]))


def test_one_class_only(digits):
    X, y, _, _ = digits
    with pytest.raises(ValueError, match="only one class"):
        StandardClassifier(**QUICK).fit(X, np.zeros(len(X)))


def test_missing_y(digits):
    with pytest.raises(ValueError, match="requires y to be passed"):
        StandardClassifier(**QUICK).fit(digits[0])


def test_custom_network_of_wrong_output(digits):
    X, y, _, _ = digits

    class Net(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Flatten(), nn.Linear(64, 3))

    with pytest.raises(ValueError, match=r"must return logits of shape \(n, 10\)"):
        StandardClassifier(Net).fit(X, y)


def test_network_without_linear_layer(digits):
    X, y, X_test, _ = digits

    class Net(nn.Sequential):
        def __init__(self, n_classes):
            super().__init__(nn.Conv2d(1, n_classes, 8), nn.Flatten())

    clf = StandardClassifier(Net, **QUICK).fit(X, y)
    with pytest.raises(ValueError, match="does not end in a linear layer"):
        clf.features(X_test)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_divergence_is_an_error(digits):
    X, y, _, _ = digits
    with pytest.raises(ValueError, match="Training diverged.*smaller lr"):
        StandardClassifier("mlp", lr=1e8, lr_schedule="constant", **QUICK).fit(X, y)


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


def test_failed_fit_keeps_the_fitted_net(standard, digits):
    X, y, X_test, _ = digits
    clf = pickle.loads(pickle.dumps(standard))
    with pytest.raises(ValueError):
        clf.fit(X, np.zeros(len(X)))
    assert_array_equal(clf.predict(X_test), standard.predict(X_test))


class Interrupt(Callback):
    """Ctrl-C after a number of batches."""

    def __init__(self, after):
        self.after = after

    def on_batch_end(self, net, **kwargs):
        self.after -= 1
        if self.after == 0:
            raise KeyboardInterrupt


def test_an_interrupted_fit_is_no_fit(digits):
    X, y, _, _ = digits
    clf = StandardClassifier(max_epochs=2, callbacks=[Interrupt(3)], random_state=0, verbose=0)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, y)
    assert not hasattr(clf, "net_")


@pytest.mark.parametrize("cause", ["divergence", "interrupt"])
def test_a_failed_partial_fit_changes_nothing(digits, cause):
    X, y, X_test, _ = digits
    callbacks = [Interrupt(25)] if cause == "interrupt" else None
    clf = StandardClassifier(
        lr=0.05, batch_size=32, callbacks=callbacks, random_state=0, verbose=0
    ).partial_fit(X, y)  # 19 batches
    before, n_epochs = clf.decision_function(X_test), len(clf.history_)
    if cause == "divergence":
        clf.set_params(lr=1e30)
        with pytest.raises(ValueError, match=r"diverged.*got 1e\+30"):
            clf.partial_fit(X, y)
    else:
        with pytest.raises(KeyboardInterrupt):
            clf.partial_fit(X, y)
    assert_array_equal(clf.decision_function(X_test), before)
    assert len(clf.history_) == n_epochs
    clf.set_params(lr=0.05).partial_fit(X, y)
    assert len(clf.history_) == n_epochs + 1


def test_augmentation_is_for_images_between_zero_and_one(digits):
    X, y, _, _ = digits
    for augmentation in ("paper", "flip-crop"):
        clf = StandardClassifier(bounds=(0, 255), augmentation=augmentation, verbose=0)
        with pytest.raises(ValueError, match=r"images in \[0, 1\].*bounds=\(0, 255\)"):
            clf.fit(255 * X, y)


def test_partial_fit_takes_the_parameters_as_they_are_now(digits):
    X, y = digits[0][:100], digits[1][:100]
    settings = {"max_epochs": 1, "random_state": 0, "verbose": 0}
    changed = {"eps": 0.8, "n_steps": 5, "norm": np.inf, "momentum": 0.5, "weight_decay": 0.01}
    clf = AdversarialClassifier(eps=0.1, **settings).fit(X, y).set_params(**changed)
    clf.partial_fit(X, y)
    attack, (group,) = clf.net_.attack, clf.net_.optimizer_.param_groups
    assert (attack["eps"], attack["n_steps"], attack["norm"]) == (0.8, 5, np.inf)
    assert attack["step_size"] == pytest.approx(2.5 * 0.8 / 5)
    assert (group["momentum"], group["weight_decay"]) == (0.5, 0.01)
    # A network that did not change goes on to the same bits as before.
    same, other = (AdversarialClassifier(eps=0.1, **settings).fit(X, y) for _ in range(2))
    other.set_params(eps=2.0)
    scores = [c.partial_fit(X, y).decision_function(X) for c in (same, other)]
    assert not np.array_equal(*scores)


def test_validation_scores_are_none_after_partial_fit_alone(digits):
    clf = StandardClassifier(random_state=0, verbose=0).partial_fit(
        digits[0][:50], digits[1][:50], classes=range(10)
    )
    assert clf.validation_scores_ is None and clf.best_validation_score_ is None
    assert clf.partial_fit(digits[0][:50], digits[1][:50]).validation_scores_ is None


class MixedBatch(nn.Module):
    """Batch-norm that looks at the batch in eval mode, too."""

    def __init__(self, n_classes=10):
        super().__init__()
        self.norm = nn.BatchNorm2d(1, track_running_stats=False)
        self.head = nn.Linear(64, n_classes)

    def forward(self, x):
        return self.head(self.norm(x).flatten(1))


def test_networks_that_mix_the_samples_of_a_batch_are_refused_before_training(digits):
    clf = StandardClassifier(MixedBatch, verbose=0)
    with pytest.raises(ValueError, match="gives one sample other logits in another batch"):
        clf.fit(digits[0][:50], digits[1][:50])
    with pytest.raises(ValueError, match="other logits in another batch"):
        from_torch(MixedBatch(), classes=range(10), input_shape=(1, 8, 8))


def test_tables_that_float32_cannot_tell_apart_are_said():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(200, 3))
    y = (A[:, 0] > 0).astype(int)
    clf = StandardClassifier(max_epochs=1, random_state=0, verbose=0)
    with pytest.warns(UserWarning, match=r"rounds feature 1 by up to .*StandardScaler"):
        clf.fit(A * [1, 30, 1] + [0, 1.7e9, 0], y)
    with pytest.warns(UserWarning, match=r"rounds feature 0 by up to"):
        clf.fit(pd.DataFrame(A + 1e7), y)
    linear = LogisticRegression().fit(A + 1e7, y)
    with pytest.warns(UserWarning, match=r"rounds feature 0 by up to"):
        robust_accuracy_score(linear, A + 1e7, y, norm=2, eps=0, verbose=0)
    # No warning: float32 as given, a constant, values that float32 holds.
    for X in ((A + 1e7).astype(np.float32), np.c_[A, np.full(200, 0.1)], A + 1e3, A * 1e20):
        clf.fit(X, y)


def test_statistics_are_those_of_the_data_of_the_last_fit(digits):
    """Also where a warm start puts earlier weights into the network."""
    X, y = digits[0][:60], digits[1][:60]
    clf = StandardClassifier(warm_start=True, **QUICK).fit(X, y)
    first = clf.input_statistics_
    clf.fit(0.5 * X, y)
    for now, then in zip(clf.input_statistics_, first, strict=True):
        assert_allclose(now, 0.5 * then, rtol=1e-4)
    assert_allclose(clf.module_.mean, first[0])  # of its weights

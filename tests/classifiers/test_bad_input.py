"""What the classifiers refuse before they train or predict."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from torch import nn

from advfeat import (
    AdversarialClassifier,
    StandardClassifier,
    from_torch,
    robust_accuracy_score,
)

QUICK = {"max_epochs": 3, "random_state": 0, "verbose": 0}


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


def test_augmentation_is_for_images_between_zero_and_one(digits):
    X, y, _, _ = digits
    for augmentation in ("paper", "flip-crop"):
        clf = StandardClassifier(bounds=(0, 255), augmentation=augmentation, verbose=0)
        with pytest.raises(ValueError, match=r"images in \[0, 1\].*bounds=\(0, 255\)"):
            clf.fit(255 * X, y)


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

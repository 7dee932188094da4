"""partial_fit: parameters that changed are checked, and classes weigh the same in every part."""

import copy
import functools
from functools import partial
from types import FunctionType

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from advfeat import AdversarialClassifier, StandardClassifier, from_torch, load, save
from advfeat.classifiers._training_data import check_training_data
from advfeat.datasets import load_digits

QUIET = {"random_state": 0, "verbose": 0}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("norm", 1),
        ("n_steps", 0),
        ("eps", -1.0),
        ("lr", -0.1),
        ("momentum", 1.0),
        ("precision", "fp16"),
        ("augmentation", "flip"),
        ("channels", "lsat"),
        ("batch_size", 0),
        ("class_weight", "even"),
    ],
)
def test_parameters_changed_after_a_fit_are_checked(digits, name, value):
    X, y = digits[0][:40], digits[1][:40]
    clf = AdversarialClassifier(n_steps=1, **QUIET).partial_fit(X, y, classes=range(10))
    before = clf.decision_function(X)
    good = clf.get_params()[name]
    with pytest.raises(ValueError, match=f"'{name}' parameter"):
        clf.set_params(**{name: value}).partial_fit(X, y)
    assert_array_equal(clf.set_params(**{name: good}).decision_function(X), before)


def test_a_class_weighs_the_same_whatever_comes_with_it():
    X, y = np.random.default_rng(0).normal(size=(40, 3)).astype("f"), np.arange(40) % 2
    clf = StandardClassifier(class_weight={1: 3.0})
    for rows, weights in ((y == 0, [0.5]), (y == 1, [1.5]), (y >= 0, [0.5, 1.5])):
        data = check_training_data(
            clf, X[rows], y[rows], None, reset=True, classes=[0, 1], whole=False
        )
        assert_allclose(data.sample_weight, np.array(weights)[data.y - data.y.min()])
    whole = check_training_data(clf, X[10:], np.r_[y[10:30], np.ones(10, int)], None, reset=True)
    assert whole.sample_weight.mean() == pytest.approx(1)


def test_class_weights_count_where_parts_are_of_one_class(digits):
    X, y = digits[0], digits[1]
    X, y = X[y < 2], y[y < 2]
    scores = []
    for class_weight in (None, {1: 20.0}):
        clf = StandardClassifier(class_weight=class_weight, lr=0.01, **QUIET)
        for label in (0, 1, 0, 1):
            clf.partial_fit(X[y == label], y[y == label], classes=[0, 1])
        scores.append(clf.decision_function(X).mean())
    assert scores[1] > scores[0]


def test_a_last_step_that_diverges_is_an_error(digits):
    X, y = digits[0][:100], digits[1][:100]
    diverging = {"batch_size": 200, "lr": 1e30, "lr_schedule": "constant", "max_epochs": 1}
    with pytest.raises(ValueError, match=r"diverged.*not finite.*got 1e\+30"):
        StandardClassifier(**diverging, **QUIET).fit(X, y)
    clf = StandardClassifier(**{**diverging, "lr": 0.1}, **QUIET).partial_fit(X, y, range(10))
    before = clf.decision_function(X)
    with pytest.raises(ValueError, match="diverged"):
        clf.set_params(lr=1e30).partial_fit(X, y)
    assert_array_equal(clf.decision_function(X), before)


@pytest.mark.parametrize("n_classes", [3, 20, 100])
@pytest.mark.parametrize("text", ["U", "O"])
def test_text_is_no_label_of_classes_that_are_numbers(n_classes, text):
    """NumPy would compare both as text, where 10 stands before 2."""
    y = np.arange(2 * n_classes) % n_classes
    X = np.random.default_rng(0).normal(size=(len(y), 3)).astype("f")
    clf = StandardClassifier(max_epochs=1, **QUIET).partial_fit(X, y, classes=range(n_classes))
    warm = StandardClassifier(max_epochs=1, warm_start=True, **QUIET).fit(X, y)
    trained = from_torch(nn.Linear(3, n_classes), classes=range(n_classes), input_shape=(3,))
    go_on = StandardClassifier(trained, max_epochs=1, **QUIET)
    words = y.astype(str).astype(text)
    for fit in (clf.partial_fit, warm.fit, go_on.fit):
        with pytest.raises(ValueError, match="labels of another type"):
            fit(X, words)
    with pytest.raises(ValueError, match="classes must be those"):
        clf.partial_fit(X, y, classes=np.unique(words))


def test_classes_of_a_trained_network_keep_their_logits():
    X, names = np.eye(3, dtype="f"), ["zero", "one", "two"]
    net = nn.Linear(3, 3)
    with torch.no_grad():
        net.weight.copy_(torch.eye(3) * 5), net.bias.zero_()
    source = from_torch(net, classes=names, input_shape=(3,))
    clf = StandardClassifier(source, lr=1e-6, **QUIET)
    with pytest.raises(ValueError, match="classes must be those of the trained network"):
        clf.partial_fit(X, [0, 1, 2], classes=range(3))
    with pytest.raises(ValueError, match="classes must be those of the trained network"):
        clf.partial_fit(X, names, classes=[*names, "three"])
    clf.partial_fit(X, names, classes=names[::-1])
    assert clf.predict(X).tolist() == names


@pytest.mark.parametrize("classes", [[0, 1, np.nan], [0, 1, None], [0, "1"], [[0, 1]], [], 2])
def test_classes_that_are_no_labels(classes):
    X, y = np.eye(2, dtype="f"), [0, 1]
    with pytest.raises(ValueError, match="classes must list all labels"):
        StandardClassifier(**QUIET).partial_fit(X, y, classes=classes)
    clf = StandardClassifier(**QUIET).partial_fit(X, y, classes=[1, 0, 0])  # as scikit-learn's
    assert clf.classes_.tolist() == [0, 1]
    with pytest.raises(ValueError, match="classes must list all labels"):
        clf.partial_fit(X, y, classes=classes)


def test_classes_of_partial_fit():
    X = np.eye(2, dtype="f")
    many = StandardClassifier(**QUIET).partial_fit(X, [0, 1], classes=range(30))
    assert many.predict_proba(X).shape == (2, 30)
    with pytest.raises(ValueError, match="labels that are not among the classes"):
        StandardClassifier(**QUIET).partial_fit(X, [0, 1], classes=[0, 2])
    with pytest.raises(ValueError, match="but classes contains only one class: 0"):
        StandardClassifier(**QUIET).partial_fit(X, [0, 0], classes=[0])


class Small(nn.Linear):
    def __init__(self, n_features, n_classes):
        super().__init__(n_features, n_classes)


def small(n_features, n_classes):
    return Small(n_features, n_classes)


def sized(n_classes, width):
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, n_classes))


def wide(width):
    return lambda n_classes: sized(n_classes, width)


def trained(*layers):
    return from_torch(nn.Sequential(*layers), classes=[0, 1], input_shape=(3,))


def decorated(function):
    @functools.wraps(function)
    def call(n_classes):
        return function(n_classes)

    return call


def local_class(width):
    class Local(nn.Sequential):
        def __init__(self, n_classes):
            super().__init__(*sized(n_classes, width))

    return Local


class Bare(nn.Module):
    """Shows nothing of its weights."""

    def __init__(self, width):
        super().__init__()
        self.first, self.last = (nn.Parameter(torch.ones(3, width)) for _ in range(2))

    def forward(self, x):
        return x @ self.first @ self.last[:2].T


OTHERS = [
    ("mlp", "resnet9"),
    (Small, "mlp"),
    ("mlp", Small),
    (small, Small),
    (wide(2), wide(4)),
    (lambda n_classes: nn.Linear(3, n_classes), lambda n_classes: nn.Linear(3, n_classes, False)),
    (partial(sized, width=2), partial(sized, width=4)),
    (partial(wide(2)), partial(wide(4))),
    (decorated(wide(2)), decorated(wide(4))),
    (local_class(2), local_class(4)),
    (Bare(2), Bare(4)),
    (nn.Linear(3, 2), nn.Linear(3, 2, bias=False)),
    (trained(nn.Linear(3, 2)), trained(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))),
    (trained(nn.Linear(3, 2)), trained(nn.Linear(3, 2)).set_params(mean=0.5)),
    (trained(nn.Linear(3, 2)), trained(nn.Linear(3, 2)).set_params(classes=[1, 0])),
    (trained(nn.Linear(3, 2)), "mlp"),
    ("mlp", trained(nn.Linear(3, 2))),
]


@pytest.mark.parametrize(("fitted", "other"), OTHERS)
def test_another_network_does_not_go_on(fitted, other, tmp_path):
    X = np.random.default_rng(0).normal(size=(20, 3)).astype("f")
    clf = StandardClassifier(fitted, max_epochs=1, **QUIET).fit(X, np.arange(20) % 2)
    before = clf.decision_function(X)
    clf.set_params(network=other)
    with pytest.raises(ValueError, match="goes on with the network of the last fit, .*set it"):
        clf.partial_fit(X, np.arange(20) % 2)
    save(clf, tmp_path / "clf.safetensors")  # what was fitted, whatever is named now
    own = {} if isinstance(fitted, str) else {"network": getattr(fitted, "module", fitted)}
    found = load(tmp_path / "clf.safetensors", **own)
    assert found.network == own.get("network", fitted)
    assert_array_equal(found.decision_function(X), before)


def lazy_layers(n_classes):
    return nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.Linear(4, n_classes))


class State(nn.Linear):
    """Its state_dict holds more than tensors."""

    def get_extra_state(self):
        return {"a": 1}

    def set_extra_state(self, state):
        pass


@pytest.mark.parametrize(
    ("fitted", "anew"),
    [
        (local_class(2), local_class(2)),
        (lazy_layers, lambda n_classes: lazy_layers(n_classes)),
        (lambda n_classes: State(3, n_classes), lambda n_classes: State(3, n_classes)),
        (trained(State(3, 2)), trained(State(3, 2))),
        (torch.compile(nn.Linear(3, 2)), torch.compile(nn.Linear(3, 2))),
    ],
)
def test_networks_of_one_structure_go_on_and_draw_nothing(fitted, anew):
    X, y = np.random.default_rng(0).normal(size=(20, 3)).astype("f"), np.arange(20) % 2
    clf = StandardClassifier(fitted, max_epochs=1, **QUIET).fit(X, y)
    before = torch.get_rng_state()
    clf.set_params(network=anew).partial_fit(X, y)
    assert len(clf.history_) == 2 and torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("network", ["mlp", *(fitted for fitted, _ in OTHERS[1:-2])])
def test_the_same_network_given_anew_goes_on(network):
    X, y = np.random.default_rng(0).normal(size=(20, 3)).astype("f"), np.arange(20) % 2
    clf = StandardClassifier(network, max_epochs=1, **QUIET).fit(X, y)
    anew = copy.deepcopy(network)
    if isinstance(network, FunctionType):  # as in a notebook whose cell is run again, moved
        code = network.__code__.replace(co_filename="other", co_firstlineno=99)
        known, cells = network.__globals__, network.__closure__
        anew = FunctionType(code, known, network.__name__, None, cells)
    clf.set_params(network=anew).partial_fit(X, y)
    assert len(clf.history_) == 2


def test_a_network_of_other_classes_is_another_one():
    X, y = load_digits(return_X_y=True)
    X, y = X[:100].reshape(100, -1), y[:100]
    module = nn.Linear(64, 10)
    same, text = (
        from_torch(module, classes=classes, input_shape=(64,))
        for classes in (range(10), [f"{i}" for i in range(10)])
    )
    clf = StandardClassifier(same, max_epochs=1, verbose=0).partial_fit(X, y)
    clf.set_params(network=text)
    with pytest.raises(ValueError, match="goes on with the classes of the last fit"):
        clf.partial_fit(X, y)
    named = StandardClassifier("auto", max_epochs=1, random_state=0, verbose=0).partial_fit(X, y)
    named.set_params(network="mlp").partial_fit(X, y)  # what "auto" stands for
    with pytest.raises(ValueError, match="which is another one"):
        named.set_params(network=same).partial_fit(X, y)


class Shown(nn.Module):
    """Shows what it has learned."""

    def __init__(self):
        super().__init__()
        self.p, self.last = nn.Parameter(torch.ones(1)), nn.Linear(3, 2)

    def forward(self, x):
        return self.last(self.p * x)

    def __repr__(self):
        return f"Shown(p={self.p.item():.6f})"


@pytest.mark.parametrize("network", [Shown, Shown(), trained(Shown())], ids=str)
def test_networks_whose_text_shows_weights_go_on(network, tmp_path):
    X, y = np.random.default_rng(0).normal(size=(20, 3)).astype("f"), np.arange(20) % 2
    clf = StandardClassifier(network, max_epochs=1, **QUIET).fit(X, y)
    save(clf, tmp_path / "a.safetensors")
    given = load(tmp_path / "a.safetensors", network=network)
    for going_on in (clf, given, copy.deepcopy(clf)):
        going_on.partial_fit(X, y)
        assert len(going_on.history_) == 2


@pytest.mark.parametrize("Classifier", [StandardClassifier, AdversarialClassifier])
def test_single_samples_that_batch_norm_cannot_take_are_told(Classifier, digits):
    X, y = digits[:2]
    clf = Classifier("small_resnet", **QUIET).partial_fit(X[:20], y[:20], classes=range(10))
    before = clf.decision_function(X[:5])
    weight = np.eye(20)[3]
    for size, n, given in ((128, 1, None), (1, 20, None), (128, 20, weight)):
        clf.set_params(batch_size=size)
        with pytest.raises(ValueError, match="Batch-norm cannot train on batches of one sample"):
            clf.partial_fit(X[:n], y[:n], sample_weight=given)
    assert_array_equal(clf.decision_function(X[:5]), before)
    plain = Classifier(**QUIET).partial_fit(X[:20], y[:20], classes=range(10))
    assert len(plain.partial_fit(X[:1], y[:1]).history_) == 2

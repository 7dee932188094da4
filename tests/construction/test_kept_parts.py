"""Parts of kept sets, and what a store knows of its source and its labels."""

import copy
import signal
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset, random_split

from advfeat import (
    AdversarialClassifier,
    ConstructedDataset,
    NonRobustRelabeler,
    RobustFeatureInverter,
    StandardClassifier,
    adversarial_examples,
    from_torch,
    load,
    robust_accuracy_score,
    save,
    transfer_rate,
)
from advfeat.construction._network_fingerprint import network_fingerprint

pytestmark = pytest.mark.filterwarnings(
    "ignore:The source takes only", "ignore:The features were matched poorly"
)
QUIET = {"random_state": 0, "verbose": 0}
NAMES = np.array(list("abcdefghij"))


def relabelled(source, X, y, **settings):
    relabeler = NonRobustRelabeler(source, **{"n_steps": 2, **QUIET, **settings})
    return relabeler.fit_transform(X, y)


def test_parts_of_a_float16_store_are_computed_with_in_float32(standard, digits, tmp_path):
    data = relabelled(
        FrozenEstimator(standard), digits[0], digits[1], store=tmp_path / "s", dtype="float16"
    )
    rows = np.arange(200)
    part = data[rows]
    plain = ConstructedDataset(part.X[:].astype("float32"), part.y, part.y_source, part.classes)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    for clf in (
        StandardClassifier(max_epochs=1, **QUIET),
        StandardClassifier(linear, max_epochs=1, **QUIET),
        AdversarialClassifier(max_epochs=1, n_steps=2, **QUIET),
    ):
        found, expected = (clf.fit(d).decision_function(digits[2]) for d in (part, plain))
        assert_array_equal(found, expected)
    attack = {"norm": 2, "eps": 0.5, "n_steps": 2, "verbose": 0}
    subset = Subset(data, rows.tolist())
    expected = robust_accuracy_score(standard, plain, **attack)
    assert robust_accuracy_score(standard, part, **attack) == expected
    assert robust_accuracy_score(standard, subset, **attack) == expected


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


class Scaled(nn.Module):
    """Computes with what is in no state_dict."""

    def __init__(self, scale, mean=0.0):
        super().__init__()
        self.scale, self.mean, self.seen = scale, torch.tensor([mean]), None
        self.register_buffer("shift", torch.zeros(1), persistent=False)
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        self.seen = self.linear((x - self.mean) * self.scale + self.shift)
        return self.seen


def test_a_store_knows_what_a_network_computes_with(tmp_path):
    X = np.random.default_rng(0).normal(size=(6000, 4)).astype("f")
    y = np.arange(6000) % 2
    torch.manual_seed(0)
    net = Scaled(1.0)
    others = [copy.deepcopy(net) for _ in range(3)]
    others[0].scale, others[1].mean = -1.0, torch.tensor([0.5])
    others[2].shift += 1

    def made(module):
        source = from_torch(module, classes=[0, 1], input_shape=(4,))
        return relabelled(source, X, y, store=tmp_path / "s", target="deterministic").X

    first = made(net)
    net.seen = torch.ones(5000, 2)  # activations that a network keeps say nothing of it
    assert_array_equal(made(net), first)
    for other in others:
        with pytest.raises(ValueError, match="holds something else: it differs in weights"):
            made(other)


@dataclass
class Config:
    scale: float


@dataclass(slots=True)
class Slots:
    scale: float


def second(x):
    return 2 * x


def times(factor):
    return lambda x: factor * x


CONSTANTS = {
    "a tuple": ((0.5, 0.5), (0.5, 0.4)),
    "nested": ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}),
    "a function": (torch.relu, torch.tanh),
    "functions of one name": (lambda x: x + 1, lambda x: x + 2),
    "constants in containers": (lambda x: x.mean((2, 3)), lambda x: x.mean((1, 3))),
    "defaults": (lambda x, k=1: k * x, lambda x, k=2: k * x),
    "closures": (times(1.0), times(2.0)),
    "functions in functions": (lambda x: lambda: x + 1, lambda x: lambda: x + 2),
    "slots": (Slots(1.0), Slots(2.0)),
    "a partial": (partial(pow, 2), partial(pow, 3)),
    "a callable of one's own": (abs, second),
    "settings": (Config(1.0), Config(2.0)),
    "a dtype": (torch.float32, torch.float16),
    "numpy's number": (np.float32(1), np.float32(2)),
    "an array in a list": ([np.ones(3)], [np.zeros(3)]),
    "a bfloat16 tensor": (torch.ones(1, dtype=torch.bfloat16), torch.zeros(1)),
    "a range": (slice(0, 1), slice(0, 2)),
}


@pytest.mark.parametrize("name", ["scale", "_scale"])
@pytest.mark.parametrize(("one", "other"), CONSTANTS.values(), ids=CONSTANTS)
def test_networks_that_differ_in_a_constant_differ(one, other, name):
    first = nn.Sequential(nn.Linear(2, 2), nn.Flatten())
    second, third = copy.deepcopy(first), copy.deepcopy(first)
    for module, value in ((first, one), (second, one), (third, other)):
        layer = Keeper()
        setattr(layer, name, value)
        module.append(layer)
    assert hash_of(first) == hash_of(second) != hash_of(third)


def hash_of(module, d=2):
    return network_fingerprint(module, (d,))


class Hiding(nn.Module):
    """Computes with layers and tensors of which torch does not know."""

    def __init__(self, hold):
        super().__init__()
        torch.manual_seed(0)
        held = [nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval() for _ in range(2)]
        self.linear, self.held = nn.Linear(2, 2), hold([*held, torch.ones(100, 100)])
        self.children_and_self = [self, self.linear, {"held": held}]

    def forward(self, x):
        self.linear.last, self.seen = x, {"x": x}
        return self.linear(x)


HOLD = {
    "a list": list,
    "a tuple in a dict": lambda held: {"a": {"b": tuple(held)}},
    "a set": set,
    "keys": lambda held: dict.fromkeys(held, 0),
    "a namespace": lambda held: SimpleNamespace(a=held),
}


@pytest.mark.parametrize("hold", HOLD.values(), ids=HOLD)
def test_networks_that_differ_in_what_is_not_registered_differ(hold):
    expected = hash_of(Hiding(hold))
    assert hash_of(Hiding(hold)) == hash_of(copy.deepcopy(Hiding(hold))) == expected
    hashes = {expected}
    for change in (
        lambda held: held[0][0].weight.data.mul_(2),
        lambda held: held[1][0].bias.data.add_(1),
        lambda held: held[0][1].running_mean.add_(1),
        lambda held: setattr(held[1][1], "eps", 0.1),
        lambda held: held[2].mul_(2),
    ):
        kept = []
        net = Hiding(lambda held, kept=kept: kept.extend(held) or hold(held))
        change(kept)
        hashes.add(hash_of(net))
    assert len(hashes) == 6


class Keeper(nn.Module):
    def forward(self, x):
        return x


class Remembering(nn.Module):
    """Keeps what it has seen."""

    def __init__(self):
        super().__init__()
        self.linear, self.calls, self._shape, self._cache, self.last = nn.Linear(4, 2), 0, 0, {}, 0

    def forward(self, x):
        self.calls, self._shape, self.last = self.calls + 1, x.shape, x.mean()
        self._cache[x.shape] = x
        return self.linear(x)


def test_sparse_tensors_count_by_what_they_stand_for():
    def holding(tensor):
        net = Keeper()
        net.graph = tensor
        return hash_of(net)

    one, other = torch.eye(80).to_sparse(), torch.eye(80).flip(0).to_sparse()
    assert holding(one) == holding(one.clone()) != holding(other)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize(
    "norm", [nn.utils.weight_norm, nn.utils.spectral_norm, nn.utils.parametrizations.weight_norm]
)
def test_what_changes_with_use_says_nothing_of_a_network(norm, tmp_path):
    X = np.random.default_rng(0).normal(size=(20, 4)).astype("f")
    y = np.arange(20) % 2
    net = Remembering()
    net.linear = norm(net.linear)
    source = from_torch(net, classes=[0, 1], input_shape=(4,))
    first = relabelled(source, X, y, store=tmp_path / "s").X
    source.predict(X[:7])
    assert_array_equal(relabelled(source, X, y, store=tmp_path / "s").X, first)
    save(source, tmp_path / "clf")
    other = Remembering()
    other.linear = norm(other.linear)
    loaded = load(tmp_path / "clf", network=other)
    assert_array_equal(relabelled(loaded, X, y, store=tmp_path / "s").X, first)


def test_layers_of_torch_that_differ_in_what_they_do_not_show_differ():
    torch.manual_seed(0)
    layers = [nn.TransformerEncoderLayer(8, 2, norm_first=first) for first in (False, True)]
    layers[1].load_state_dict(layers[0].state_dict())
    assert repr(layers[0]) == repr(layers[1])
    layers = [nn.Sequential(nn.Unflatten(1, (1, 8)), layer) for layer in layers]
    assert hash_of(layers[0], 8) != hash_of(layers[1], 8)


def test_a_constant_that_holds_itself_ends():
    layer = Keeper()
    layer.list = [1]
    layer.list.append(layer.list)
    assert hash_of(layer)


def test_a_source_with_a_bfloat16_buffer_is_kept(tmp_path):
    net = Scaled(1.0)
    net.register_buffer("offset", torch.zeros(1, dtype=torch.bfloat16))
    source = from_torch(net, classes=[0, 1], input_shape=(4,))
    X = np.random.default_rng(0).normal(size=(20, 4)).astype("f")
    assert len(relabelled(source, X, np.arange(20) % 2, store=tmp_path / "s")) == 20


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


@pytest.mark.parametrize("settings", [{"n_jobs": 0}, {}])
def test_what_cannot_share_the_work_is_refused_before_the_source_is_trained(settings, digits):
    def never(**kwargs):
        raise AssertionError("trained")

    relabeler = NonRobustRelabeler(StandardClassifier(never, **QUIET), **QUIET, **settings)
    backend = "loky" if settings else "multiprocessing"
    match = "n_jobs=0 has no meaning" if settings else "forks this process"
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


def test_datasets_of_bytes_have_the_units_of_the_constructed_set(standard, digits):
    X = np.round(255 * digits[0][:50]).astype(np.uint8)
    y = torch.from_numpy(digits[1][:50])
    inverter = RobustFeatureInverter(FrozenEstimator(standard), n_steps=2, **QUIET)
    inverter.fit(X, digits[1][:50])
    whole = TensorDataset(torch.from_numpy(X), y)
    for given in (whole, Subset(whole, range(50)), Alone(X)):
        found = inverter.transform(given)
        items = [found[i] for i in range(len(found))]
        if not isinstance(given, Alone):
            items, labels = zip(*items, strict=True)
            assert_array_equal(torch.stack(labels), y)
        assert_array_equal(torch.stack(list(items)), X / np.float32(255))
        assert_array_equal(inverter.transform(found)[3][0], found[3][0])  # only once


def test_labels_that_a_dataset_lists_are_not_read_from_its_items(tmp_path):
    for i in range(6):
        (tmp_path / f"{i % 2}").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (40 * i,) * 3).save(tmp_path / f"{i % 2}" / f"{i}.png")
    reads = []

    def load(path):
        reads.append(path)
        return Image.open(path)

    given = torchvision.datasets.ImageFolder(
        tmp_path, loader=load, transform=torchvision.transforms.PILToTensor()
    )
    clf = StandardClassifier(max_epochs=1, **QUIET).fit(given)
    inverter = RobustFeatureInverter(FrozenEstimator(clf), n_steps=2, **QUIET).fit(given)
    made = inverter.transform(given)
    counts = []
    for data in (made, given):
        reads.clear()
        clf.score(data)
        counts.append(len(reads))
    assert counts[0] <= counts[1] + 6  # floats are read once for their bounds, bytes are not


class Alone(Dataset):
    """Inputs without labels."""

    def __init__(self, X):
        self.X = X

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i]


def test_images_of_bytes_have_the_units_of_the_constructed_set(standard, digits, tmp_path):
    """For whatever step stands behind a constructor."""
    X = np.round(255 * digits[0][:200]).astype(np.uint8)
    X_test, y_test = np.round(255 * digits[2]).astype(np.uint8), digits[3]
    flat = FunctionTransformer(lambda images: np.asarray(images).reshape(len(images), -1))
    inverter = RobustFeatureInverter(FrozenEstimator(standard), n_steps=2, **QUIET)
    pipe = make_pipeline(inverter, flat, LogisticRegression()).fit(X, digits[1][:200])
    expected = pipe.predict(X_test / np.float32(255))
    assert len(np.unique(expected)) > 5
    np.save(tmp_path / "X.npy", X_test)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    for given in (X_test, mapped, mapped[:], list(X_test), torch.from_numpy(X_test)):
        assert_array_equal(pipe.predict(given), expected)
    assert inverter.fit(X, digits[1][:200]).transform(X_test).dtype == np.float32
    # Attacks give the examples that they gave: bytes and floats are the same images.
    network = make_pipeline(inverter, StandardClassifier(max_epochs=10, **QUIET))
    network.fit(X, digits[1][:200])
    attack = {"norm": 2, "eps": 0.3, "n_steps": 2, "verbose": 0}
    found = [adversarial_examples(network, x, y_test, **attack)[0] for x in (X_test, mapped)]
    alone = adversarial_examples(network[-1], X_test, y_test, **attack)[0]
    for examples in found:
        assert_array_equal(examples, alone)
    rates = [transfer_rate(network, network, x, y_test, **attack) for x in (X_test, mapped)]
    assert rates == [1.0, 1.0]


@pytest.mark.filterwarnings("ignore:dtype=.float16. rounds these samples")
def test_what_is_said_of_a_set_in_half_precision_is_said_of_it_as_it_is_kept():
    rng = np.random.default_rng(0)
    X, y = rng.uniform(1024, 2048, (60, 8)).astype("f"), np.arange(60) % 2
    X[:, 0] = np.where(y, 1600, 1590) + rng.normal(size=60)
    clf = StandardClassifier(max_epochs=20, **QUIET).fit(X, y)
    settings = {"target": "deterministic", "eps": 0.5, "n_steps": 5, "dtype": "float16", **QUIET}
    relabeler = NonRobustRelabeler(FrozenEstimator(clf), **settings)
    data = relabeler.fit_transform(X, y)
    reached = clf.predict(np.asarray(data.X, dtype=np.float32)) == data.y
    assert relabeler.success_rate_ == pytest.approx(reached.mean())
    inverter = RobustFeatureInverter(FrozenEstimator(clf), n_steps=5, dtype="float16", **QUIET)
    X_r = np.asarray(inverter.fit_transform(X, y), dtype=np.float32)
    gaps = np.linalg.norm(clf.features(X_r) - clf.features(X), axis=1)
    expected = gaps / np.linalg.norm(clf.features(X), axis=1)
    assert_allclose(inverter.residual_, expected, rtol=1e-3)


def test_a_set_in_half_precision_stays_inside_its_bounds(digits):
    mean, std = 0.406, 0.225  # whose bounds no half-precision number meets
    X, y = ((digits[0][:100] - mean) / std).astype("f"), digits[1][:100]
    bounds = (-mean / std, (1 - mean) / std)
    for box in (bounds, tuple(np.array([side]) for side in bounds), (-np.inf, bounds[1])):
        clf = StandardClassifier(max_epochs=1, bounds=box, **QUIET).fit(X, y)
        for make in (NonRobustRelabeler, RobustFeatureInverter):
            made = make(FrozenEstimator(clf), n_steps=2, dtype="float16", **QUIET)
            found = made.fit_transform(X, y)
            values = np.asarray(found.X if make is NonRobustRelabeler else found, np.float64)
            assert np.float64(box[0]) <= values.min() and values.max() <= np.float64(box[1])
            clone(clf).fit(found, None if make is NonRobustRelabeler else y)

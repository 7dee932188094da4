"""Networks of the user, given as functions, classes, modules or skorch nets, or kept in files."""

import numpy as np
import pytest
import torch
import torchvision
from numpy.testing import assert_array_equal
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier
from torch import nn

from advfeat import (
    AdversarialClassifier,
    NonRobustRelabeler,
    RobustFeatureInverter,
    StandardClassifier,
    from_torch,
    load,
    save,
)

QUICK = {"max_epochs": 1, "random_state": 0, "verbose": 0}


def layers(n_classes=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, n_classes))


class Doubles(nn.Sequential):
    def __init__(self, n_classes):
        super().__init__(*layers(n_classes).double())


def scripted(n_classes):
    return torch.jit.script(layers(n_classes))


def with_a_scripted_part(n_classes):
    return nn.Sequential(scripted(8), nn.Linear(8, n_classes))


def halves(n_classes):
    return layers(n_classes).half()


def meta(n_classes):
    return layers(n_classes).to("meta")


@pytest.fixture
def images():
    return np.random.default_rng(0).random((30, 1, 4, 4), dtype=np.float32), np.arange(30) % 3


@pytest.mark.filterwarnings("ignore:.torch.jit")
@pytest.mark.parametrize(
    ("network", "message"),
    [
        (scripted, "torch.jit modules are not supported"),
        (with_a_scripted_part, "torch.jit modules are not supported"),
        (Doubles, "must be float32. 1.weight of <Doubles> is torch.float64"),
        (halves, "must be float32. 1.weight of <Sequential> is torch.float16"),
        (meta, "1.weight of <Sequential> is on the meta device"),
    ],
)
def test_what_a_function_builds_is_refused_as_a_module_is(images, network, message):
    sources = [
        StandardClassifier(network, **QUICK),
        AdversarialClassifier(network, **QUICK),
        NonRobustRelabeler(StandardClassifier(network, **QUICK), verbose=0),
        RobustFeatureInverter(AdversarialClassifier(network, **QUICK), verbose=0),
    ]
    for source in sources:
        with pytest.raises(ValueError, match=message):
            source.fit(*images)


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_a_skorch_net_is_refused_for_its_module(images):
    net = NeuralNetClassifier(scripted(3), criterion=nn.CrossEntropyLoss, max_epochs=1, verbose=0)
    with pytest.raises(ValueError, match="torch.jit modules are not supported"):
        NonRobustRelabeler(net, verbose=0).fit(*images)


def test_lazy_layers_may_come_from_a_function(images):
    def network(n_classes):
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(n_classes))

    clf = StandardClassifier(network, **QUICK).fit(*images)
    assert [w.shape for w in clf.module_.parameters()][0] == (8, 16)


class HalfScale(nn.Sequential):
    def __init__(self, n_classes):
        super().__init__(*layers(n_classes))
        self.scale = nn.Parameter(torch.ones(1, dtype=torch.bfloat16), requires_grad=False)

    def forward(self, x):
        return super().forward(x * self.scale.float())


def test_weights_that_are_not_trained_may_be_of_another_type(images):
    clf = StandardClassifier(HalfScale, **QUICK).fit(*images)
    plain = StandardClassifier(layers, **QUICK).fit(*images)
    assert_array_equal(clf.predict_proba(images[0]), plain.predict_proba(images[0]))


def own(n_classes=3):
    return from_torch(layers(n_classes), classes=range(n_classes), input_shape=(1, 4, 4))


def normalising():
    return from_torch(layers(), classes=range(3), input_shape=(1, 4, 4), mean=0.5, std=0.2)


@pytest.mark.parametrize("kind", [StandardClassifier, AdversarialClassifier])
@pytest.mark.parametrize(
    ("network", "itself"),
    [("auto", True), (layers, True), (layers(), False), (own(), False), (normalising(), True)],
)
def test_only_a_network_that_normalises_is_said_to(images, kind, network, itself):
    X, y = images
    with pytest.raises(ValueError, match="Images must be floats in") as error:
        kind(network, **QUICK).fit(2 * X - 1, y)
    assert ("the network does so itself" in str(error.value)) == itself
    assert ("bounds=(low, high)" in str(error.value)) == (not itself)


@pytest.mark.parametrize("where", ["best_estimator_", "estimator_", "estimator"])
def test_save_says_which_part_it_keeps(images, tmp_path, where):
    clf = StandardClassifier(**QUICK)
    holder = {
        "best_estimator_": lambda: GridSearchCV(clf, {"lr": [0.1]}, cv=2).fit(*images),
        "estimator_": lambda: NonRobustRelabeler(clf, eps=9, random_state=0, verbose=0).fit(
            *images
        ),
        "estimator": lambda: FrozenEstimator(clf.fit(*images)),
    }[where]()
    with pytest.raises(TypeError, match=rf"pass its {where}\."):
        save(holder, tmp_path / "net.safetensors")
    save(getattr(holder, where), tmp_path / "net.safetensors")


def test_save_names_no_part_that_is_not_fitted(images, tmp_path):
    X, y = images[0].reshape(30, -1), images[1]
    clf = StandardClassifier(**QUICK)
    for holder in (BaggingClassifier(clf, n_estimators=2).fit(X, y), GridSearchCV(clf, {})):
        with pytest.raises(TypeError, match="use pickle or joblib"):
            save(holder, tmp_path / "net.safetensors")


class Versioned(nn.Linear):
    """A layer that reads weights of before its second version in another way."""

    _version = 2

    def _load_from_state_dict(self, state, prefix, metadata, *args):
        if metadata.get("version", 1) < 2:
            state[f"{prefix}weight"] = -state[f"{prefix}weight"]
        super()._load_from_state_dict(state, prefix, metadata, *args)


def test_files_keep_layers_of_a_later_version(images, tmp_path):
    X, y = images
    path = tmp_path / "net.safetensors"

    def network(n_classes):
        return nn.Sequential(nn.Flatten(), Versioned(16, n_classes))

    for clf in (
        from_torch(network(3), classes=range(3), input_shape=(1, 4, 4)),
        StandardClassifier(network, **QUICK).fit(X, y),
    ):
        save(clf, path)
        again = load(path, network=network(3) if hasattr(clf, "module") else network)
        assert_array_equal(again.decision_function(X), clf.decision_function(X))


def test_a_file_of_an_earlier_version_is_brought_up_to_date(images, tmp_path, monkeypatch):
    X, _ = images
    monkeypatch.setattr(Versioned, "_version", 1)
    net = nn.Sequential(nn.Flatten(), Versioned(16, 3))
    clf = from_torch(net, classes=range(3), input_shape=(1, 4, 4))
    save(clf, tmp_path / "net.safetensors")
    before = clf.decision_function(X)

    def forward(self, x):  # of the second version, whose weights have the other sign
        return nn.functional.linear(x, -self.weight, self.bias)

    monkeypatch.setattr(Versioned, "_version", 2)
    monkeypatch.setattr(Versioned, "forward", forward)
    again = load(
        tmp_path / "net.safetensors", network=nn.Sequential(nn.Flatten(), Versioned(16, 3))
    )
    assert_array_equal(again.decision_function(X), before)


class PlainState(nn.Linear):
    def state_dict(self, *args, **kwargs):
        return dict(super().state_dict(*args, **kwargs))


def test_a_state_that_is_a_plain_dict(tmp_path):
    clf = from_torch(PlainState(4, 3), classes=range(3), input_shape=(4,))
    save(clf, tmp_path / "net.safetensors")
    again = load(tmp_path / "net.safetensors", network=PlainState(4, 3))
    assert_array_equal(again.predict(np.eye(4)), clf.predict(np.eye(4)))


def test_files_keep_a_network_of_torchvision_with_versions(tmp_path):
    net = torchvision.models.mnasnet0_5(num_classes=3)
    clf = from_torch(net, classes=range(3), input_shape=(3, 32, 32))
    save(clf, tmp_path / "net.safetensors")
    again = load(
        tmp_path / "net.safetensors", network=torchvision.models.mnasnet0_5(num_classes=3)
    )
    X = np.random.default_rng(0).random((3, 3, 32, 32))
    assert_array_equal(again.decision_function(X), clf.decision_function(X))


@pytest.mark.parametrize("kind", [VotingClassifier, StackingClassifier])
def test_frozen_in_a_meta_estimator_that_gives_other_labels(images, kind):
    X, y = images
    names = np.array(["zz", "no", "yes"])
    frozen = FrozenEstimator(from_torch(layers(), classes=names, input_shape=(1, 4, 4)))
    members = [
        ("one", frozen),
        ("two", FrozenEstimator(StandardClassifier(**QUICK).fit(X, names[y]))),
    ]
    last = (
        {"voting": "soft"}
        if kind is VotingClassifier
        else {"final_estimator": LogisticRegression()}
    )
    found = kind(members, **last).fit(X, names[y])
    assert set(found.predict(X)) <= set(names)
    if kind is VotingClassifier:
        expected = sum(member.predict_proba(X) for _, member in members) / 2
        assert_array_equal(found.predict_proba(X), expected)

"""Networks with weight norm, spectral norm and other parametrizations: copied, pickled, sent."""

import copy
import pickle

import cloudpickle
import joblib
import numpy as np
import pytest
import sklearn
import torch
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import cross_val_score
from torch import nn
from torch.nn.utils import parametrize

from advfeat import NonRobustRelabeler, StandardClassifier, from_torch

NORMED = [
    nn.utils.weight_norm,
    nn.utils.spectral_norm,
    nn.utils.parametrizations.weight_norm,
    nn.utils.parametrizations.spectral_norm,
    nn.utils.parametrizations.orthogonal,
]


def normed_network(norm, input_shape=(1, 8, 8), n_classes=10):
    torch.manual_seed(0)
    body = nn.Sequential(norm(nn.Linear(64, 16)), nn.ReLU(), norm(nn.Linear(16, n_classes)))
    return nn.Sequential(nn.Flatten(), body)


def through_worker(thing):
    """What a worker process makes of it; a second pickle brings it back."""
    return joblib.Parallel(2)(joblib.delayed(copy.copy)(thing) for _ in range(2))[0]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("carry", [lambda c: pickle.loads(pickle.dumps(c)), copy.deepcopy])
@pytest.mark.parametrize("norm", NORMED)
def test_normed_weights_are_carried_with_their_norm(norm, carry, digits):
    X, y = digits[0][:100], digits[1][:100]
    net = normed_network(norm)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    clf = from_torch(net, classes=range(10), input_shape=(1, 8, 8))
    twin = carry(carry(clf))  # what was carried can be carried on
    frozen = carry(FrozenEstimator(clf)).estimator
    for found in (twin, frozen):
        assert_array_equal(found.decision_function(X), clf.decision_function(X))
        assert found.module_.body is found.module
    # Training goes on with the norm, not with the weights that it gave.
    trained, again = (
        StandardClassifier(c, max_epochs=1, random_state=0, verbose=0).fit(X, y)
        for c in (clf, twin)
    )
    assert_array_equal(again.decision_function(X), trained.decision_function(X))
    again = carry(trained)
    assert_array_equal(again.decision_function(X), trained.decision_function(X))
    assert_array_equal(
        again.partial_fit(X, y).decision_function(X),
        trained.partial_fit(X, y).decision_function(X),
    )
    if norm in NORMED[2:]:  # torch itself refuses to copy the old weight norm
        unfitted = carry(StandardClassifier(net, max_epochs=1, random_state=0, verbose=0))
        unfitted.fit(X, y)
    for key, value in net.state_dict().items():
        assert torch.equal(value, state[key])
    for layer, other in zip(clf.module.modules(), twin.module.modules(), strict=True):
        assert parametrize.is_parametrized(layer) == parametrize.is_parametrized(other)
        assert type(layer).__name__ == type(other).__name__


def test_parametrized_layers_of_own_classes_and_several_weights(digits):
    class Own(nn.Linear):
        pass

    layer = nn.utils.parametrizations.weight_norm(Own(64, 10))
    parametrize.register_parametrization(layer, "bias", nn.Tanh())
    parametrize.register_parametrization(layer, "weight", nn.Hardtanh())
    clf = from_torch(nn.Sequential(nn.Flatten(), layer), classes=range(10), input_shape=(1, 8, 8))
    # Python's own, of a local class; of another type since 3.14.
    with pytest.raises((AttributeError, pickle.PicklingError), match="Own"):
        pickle.dumps(clf)
    twin = cloudpickle.loads(cloudpickle.dumps(clf))
    X = digits[0]
    assert_array_equal(twin.decision_function(X), clf.decision_function(X))
    plain = parametrize.remove_parametrizations(twin.module[1], "bias")
    plain = parametrize.remove_parametrizations(plain, "weight")
    assert type(plain).__name__ == "Own" and not parametrize.is_parametrized(plain)
    np.testing.assert_array_equal(twin.decision_function(X), clf.decision_function(X))


@pytest.mark.slow  # starts processes
@pytest.mark.parametrize("norm", NORMED[2:])
def test_normed_weights_go_to_processes(norm, digits):
    X, y = digits[0][:100], digits[1][:100]
    clf = from_torch(normed_network(norm), classes=range(10), input_shape=(1, 8, 8))
    twin = through_worker(clf)
    assert_array_equal(twin.decision_function(X), clf.decision_function(X))
    further = StandardClassifier(clf, max_epochs=1, random_state=0, verbose=0)
    alone, shared = (cross_val_score(further, X, y, cv=2, n_jobs=n_jobs) for n_jobs in (1, 2))
    assert_array_equal(alone, shared)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:The source takes only")
@pytest.mark.parametrize("norm", NORMED)
def test_normed_modules_go_through_clones(norm, digits):
    X, y = digits[0][:100], digits[1][:100]
    net = normed_network(norm)
    net(torch.rand(2, 1, 8, 8)).sum().backward()  # some keep what they have computed
    clf = StandardClassifier(net, max_epochs=1, random_state=0, verbose=0)
    twin = clone(clf)
    assert twin.network is not net and twin.get_params().keys() == clf.get_params().keys()
    assert cross_val_score(clf, X, y, cv=2).shape == (2,)
    made = NonRobustRelabeler(clf, n_steps=1, random_state=0, verbose=0).fit_transform(X, y)
    assert len(made) == 100


def test_clones_keep_what_scikit_learn_knows_of_an_estimator():
    clf = StandardClassifier(nn.Linear(3, 2), lr=0.3)
    with sklearn.config_context(enable_metadata_routing=True):
        clf.set_fit_request(sample_weight=True)
        twin = clone(clf)
        assert twin.get_metadata_routing().fit.requests == {"sample_weight": True}
    assert twin.lr == 0.3 and not hasattr(clone(clf.fit(np.eye(3), [0, 1, 1])), "net_")


@pytest.mark.parametrize("norm", NORMED[2:])
def test_a_copy_keeps_its_norm_when_the_original_loses_it(norm, digits):
    X, y = digits[0][:100], digits[1][:100]
    for make in (
        lambda net: from_torch(net, classes=range(10), input_shape=(1, 8, 8)),
        lambda net: StandardClassifier(net, max_epochs=1, random_state=0, verbose=0).fit(X, y),
    ):
        net = normed_network(norm)
        clf = make(net)
        before = clf.decision_function(X)
        parametrize.remove_parametrizations(net[1][0], "weight")
        assert_array_equal(clf.decision_function(X), before)
        parametrize.remove_parametrizations(clf.module_.body[1][2], "weight")
        net(torch.from_numpy(X))

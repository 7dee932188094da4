"""The optimizer: one call for all tensors of a small network, without a changed bit."""

import pytest
import torch

from advfeat import AdversarialClassifier, StandardClassifier
from advfeat.classifiers import _net_setup


def weights(clf):
    return torch.cat([value.flatten().float() for value in clf.module_.state_dict().values()])


@pytest.mark.long
@pytest.mark.parametrize("kind", [StandardClassifier, AdversarialClassifier])
@pytest.mark.parametrize("settings", [{}, {"momentum": 0.0}, {"weight_decay": 0.0}])
def test_one_call_for_all_tensors_gives_the_same_bits(kind, settings, digits, monkeypatch):
    X, y, _, _ = digits
    made = []
    for few in (0, _net_setup._FOREACH_BELOW):
        monkeypatch.setattr(_net_setup, "_FOREACH_BELOW", few)
        clf = kind("small_cnn", max_epochs=2, random_state=0, verbose=0, device="cpu", **settings)
        clf.fit(X[:300], y[:300]).partial_fit(X[300:400], y[300:400])
        made.append((weights(clf), clf.net_.optimizer_.param_groups[0]["foreach"]))
    (one, not_so), (other, so) = made
    assert torch.equal(one, other) and so and not not_so


def test_large_networks_take_their_tensors_one_by_one():
    large = [{"params": [torch.zeros(_net_setup._FOREACH_BELOW)]}]
    small = [{"params": [torch.zeros(10), torch.zeros(20)]}, {"params": [torch.zeros(3)]}]
    assert _net_setup.sgd(large, lr=0.1).param_groups[0]["foreach"] is None
    assert all(group["foreach"] for group in _net_setup.sgd(small, lr=0.1).param_groups)

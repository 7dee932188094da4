"""What can be said of a source before it is trained."""

import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNet
from torch import nn

from advfeat.classifiers import StandardClassifier
from advfeat.classifiers._from_torch import TorchClassifier
from advfeat.classifiers.networks import build_network
from advfeat.optim import FrozenNetwork
from advfeat.utils._random import isolated_torch_seed


def unfrozen(source):
    """Return the estimator in a FrozenEstimator, and everything else as it is."""
    return source.estimator if isinstance(source, FrozenEstimator) else source


def refuse_without_features(source, X, n_classes):
    """Raise a ValueError if the source's network will have no linear layer.

    Parameters
    ----------
    source : StandardClassifier, skorch net, TorchClassifier, or a FrozenEstimator of one
    X : array of shape (n, ...), checked
    n_classes : int
    """
    module = _network(source, X.shape[1:], n_classes)
    if module is not None and not FrozenNetwork(module, device="cpu").verify(X).has_features:
        raise ValueError(
            "Inversion needs penultimate features, but the source network has no linear layer. "
            "Use a network that ends in nn.Linear."
        )


def _network(source, input_shape, n_classes):
    """Network of a source, trained or not; None for those that have a linear layer by name."""
    inner = unfrozen(source)
    if inner is not source or isinstance(inner, TorchClassifier):
        return inner.module_
    with isolated_torch_seed("cpu", 0):
        if isinstance(inner, NeuralNet):
            return clone(inner).initialize().module_
        if not isinstance(inner, StandardClassifier) or isinstance(inner.network, str):
            return None
        if isinstance(inner.network, (TorchClassifier, nn.Module)):
            return getattr(inner.network, "module_", inner.network)
        zero, one = torch.tensor(0.0), torch.tensor(1.0)
        return build_network(inner.network, input_shape, n_classes, zero, one)

"""What can be said of a source before it is trained."""

import contextlib

import numpy as np
import torch
from sklearn.base import clone
from skorch import NeuralNet
from torch import nn

from advfeat.classifiers import StandardClassifier
from advfeat.classifiers._from_skorch import from_skorch
from advfeat.classifiers._from_torch import TorchClassifier
from advfeat.classifiers.networks import build_network
from advfeat.optim import FrozenNetwork
from advfeat.utils._device import default_modes, in_float32_on_cpu
from advfeat.utils._modules import unfrozen
from advfeat.utils._random import isolated_torch_seed


def check_network(source, X, n_classes, needs_features):
    """Raise a ValueError if the source's network will be random, or lack gradients or features.

    Parameters
    ----------
    source : StandardClassifier, skorch net, TorchClassifier, or a FrozenEstimator of one
    X : array of shape (n, ...), checked
    n_classes : int
    needs_features : bool
        Whether it must end in one linear layer.
    """
    module = _network(source, X.shape[1:], n_classes)
    if module is None:
        return
    try:
        frozen = FrozenNetwork(module, device="cpu").verify(X)
    except Exception:  # callbacks may still shape it; if not, training says what is wrong
        return
    refuse_random(frozen)
    frozen.require_gradient(X)
    if needs_features:
        frozen.require_features()


def classes_to_be(source, X, y):
    """Return the classes that a source will have, which need not all occur in y.

    Parameters
    ----------
    source : StandardClassifier, skorch net or TorchClassifier
    X : array of shape (n, ...), checked
    y : ndarray of shape (n,), checked
    """
    if isinstance(source, TorchClassifier):
        return source.classes_
    classes = np.unique(y)
    if not isinstance(source, NeuralNet):
        return getattr(source.network, "classes_", classes)
    with isolated_torch_seed("cpu", 0), contextlib.suppress(Exception):  # as in `check_network`
        known = from_skorch(clone(source).initialize(), X.shape[1:]).classes_
        if y.dtype.kind in "iu" and np.isin(classes, known).all():
            return known
    return classes


def known_classes(source, y, classes):
    """Positions of the classes that a source has learned, or will learn.

    An output of a skorch net need not stand for any label. The labels of its last fit are those
    that it has learned, if they cover y; else, as after parts that came one by one, all count.

    Parameters
    ----------
    source : as for `check_network`
    y : ndarray of shape (n,)
    classes : ndarray of shape (n_classes,)
        Those of the source's outputs.
    """
    inner, every = unfrozen(source), np.arange(len(classes))
    if not isinstance(inner, NeuralNet):
        return every
    # Not `classes_`, which may be a parameter of the user's. Before the fit it is y.
    learned = getattr(inner, "classes_inferred_", every if inner is not source else y)
    known = np.flatnonzero(np.isin(classes, learned))
    return known if len(known) > 1 and np.isin(y, learned).all() else every


def refuse_random(frozen):
    """Return a verified network, or raise a ValueError if its logits differ from call to call."""
    if frozen.random:
        raise ValueError(
            "The source network is random: its logits for one input differ from call to call, so "
            "that no construction could be repeated. Let it draw in training only (as nn.Dropout "
            "does, or functional.dropout with training=self.training), or average a fixed number "
            "of draws inside it, the same for all samples, such as a buffer holds."
        )
    return frozen


def _network(source, input_shape, n_classes):
    """Network of a source, trained or not; None for those by name, which end in a linear layer."""
    inner = unfrozen(source)
    if inner is not source or isinstance(inner, TorchClassifier):
        return inner.module_
    with default_modes(), isolated_torch_seed("cpu", 0), in_float32_on_cpu():
        if isinstance(inner, NeuralNet):
            return clone(inner).initialize().module_
        if not isinstance(inner, StandardClassifier) or isinstance(inner.network, str):
            return None
        if isinstance(inner.network, (TorchClassifier, nn.Module)):
            return getattr(inner.network, "module_", inner.network)
        zero, one = torch.tensor(0.0), torch.tensor(1.0)
        return build_network(inner.network, input_shape, n_classes, zero, one)

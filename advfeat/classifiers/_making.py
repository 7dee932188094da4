"""From a classifier's parameters and its data to the skorch net that it trains."""

import re
from types import FunctionType

import numpy as np
import torch

from advfeat.classifiers._from_torch import TorchClassifier, starting_point
from advfeat.classifiers._own_modules import name_of
from advfeat.classifiers.networks import build_network
from advfeat.utils._device import resolve_device

# Weights: with more, a CPU takes longer with one call for all tensors than with one for each.
_FEW = 100_000


def make_net(estimator, statistics, max_epochs, seed, callbacks):
    """Make the net of a classifier, not initialised.

    Parameters
    ----------
    estimator : StandardClassifier
        Knows ``classes_`` and ``input_shape_``; gets ``input_statistics_``.
    statistics : (mean, std)
        Of the training data, as tensors that are broadcastable to one sample.
    max_epochs, seed : int
        Of the training.
    callbacks : list
        All that the net calls, in their order.

    Returns
    -------
    TrainingNet
    """
    # Copies: the network's own change with its weights.
    estimator.input_statistics_ = tuple(value.clone() for value in statistics)
    network, mean, std, order = starting_point(estimator.network, *statistics)
    net_class, extra = estimator._net_class()
    return net_class(
        build_network,
        module__network=network,
        module__input_shape=estimator.input_shape_,
        module__n_classes=len(estimator.classes_),
        module__mean=mean,
        module__std=std,
        module__order=order,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=sgd,
        optimizer__momentum=estimator.momentum,
        optimizer__weight_decay=estimator.weight_decay,
        lr=estimator.lr,
        max_epochs=max_epochs,
        batch_size=estimator.batch_size,
        train_split=None,
        classes=np.arange(len(estimator.classes_)),
        callbacks=callbacks,
        callbacks__print_log=None,
        device=str(resolve_device(estimator.device)),
        seed=seed,
        augmentation=estimator.augmentation,
        label_smoothing=estimator.label_smoothing,
        precision=estimator.precision,
        verbose=0,
        **extra,
    )


def check_same_network(net, network):
    """Raise a ValueError if a net's network does not look like the one that is given now."""
    fitted = net.module__network
    if fitted is not network and _look(fitted) != _look(network):
        raise ValueError(
            f"partial_fit goes on with the network of the last fit, {name_of(fitted)}. Got "
            f"network={name_of(network)}: use fit, or set it back."
        )


def _look(network):
    """Text that differs between networks, and is the same for a copy and for other weights."""
    network = network.module if isinstance(network, TorchClassifier) else network
    parts = [network]
    if isinstance(network, FunctionType):
        code, cells = network.__code__, network.__closure__ or ()
        parts += [network.__defaults__, network.__kwdefaults__, *(c.cell_contents for c in cells)]
        parts += [code.co_code, code.co_names, code.co_consts]
    return re.sub(r" at 0x[0-9a-f]+", "", repr(parts))


def sgd(groups, **settings):
    """SGD; for a small network on a CPU in one call for all tensors: the same bits, sooner."""
    parameters = [parameter for group in groups for parameter in group["params"]]
    few = sum(parameter.numel() for parameter in parameters) < _FEW
    small = few and all(parameter.device.type == "cpu" for parameter in parameters)
    return torch.optim.SGD(groups, foreach=True if small else None, **settings)

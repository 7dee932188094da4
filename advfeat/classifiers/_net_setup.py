"""From a classifier's parameters and its data to the skorch net that it trains."""

import contextlib
from collections import defaultdict

import numpy as np
import torch

from advfeat.classifiers._from_torch import TorchClassifier, starting_point
from advfeat.classifiers._net_copies import draft_of_net, on_device
from advfeat.classifiers._user_modules import name_of
from advfeat.classifiers.networks import build_network, check_trainable, resolve_name
from advfeat.optim._network_state import set_network_state
from advfeat.utils._device import in_float32_on_cpu, resolve_device
from advfeat.utils._random import isolated_torch_seed

# Parameters below which a CPU takes less time with one call for all tensors (foreach).
_FOREACH_BELOW = 100_000


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
        optimizer__momentum=float(estimator.momentum),
        optimizer__weight_decay=float(estimator.weight_decay),
        max_epochs=max_epochs,
        train_split=None,
        classes=np.arange(len(estimator.classes_)),
        callbacks=callbacks,
        callbacks__print_log=None,
        device=str(resolve_device(estimator.device)),
        seed=seed,
        verbose=0,
        **_settings(estimator),
        **extra,
    )


def _settings(estimator):
    """Parameters of the estimator that the net has by the same name."""
    plain = {"lr": float, "batch_size": int, "label_smoothing": float}  # not NumPy's, nor True
    names = ("augmentation", "precision")
    return {
        **{name: kind(getattr(estimator, name)) for name, kind in plain.items()},
        **{name: getattr(estimator, name) for name in names},
    }


def initialize(net, data, state=None):
    """Build a net's network and check it.

    Parameters
    ----------
    net : TrainingNet
        Not initialised.
    data : ArrayDataset
        What it will be trained on.
    state : tuple, optional
        `network_state` of an earlier fit.

    Raises
    ------
    ValueError
        If the network does not fit the data, cannot be trained on their batches, or is not the
        one that the weights belong to.
    """
    with isolated_torch_seed(net.device, net.seed):
        with in_float32_on_cpu():
            net.initialize()
        if state is not None:
            _load(net, state)
        net.uses_all_parameters_ = _try_smallest_batch(net, data)


def check_single_rows(net, data):
    """Raise a ValueError if a trained net would get batches of one sample and cannot take them."""
    if _smallest_batch(net, data) == 1:
        _try_smallest_batch(net, data)


def _smallest_batch(net, data):
    return 1 if 1 in (net.batch_size, len(data)) else 2


def _try_smallest_batch(net, data):
    return check_trainable(
        net.module_,
        net.module__network,
        input_shape=net.module__input_shape,
        n_classes=net.module__n_classes,
        n=_smallest_batch(net, data),
        device=net.device,
        needs_gradient=hasattr(net, "attack"),
    )


def _load(net, state):
    try:
        set_network_state(net.module_, state)
    except (RuntimeError, LookupError) as error:
        raise ValueError(
            "warm_start=True goes on from the weights of the last fit, but "
            f"network={name_of(net.module__network)} has others. Take the network of the last "
            "fit, or warm_start=False."
        ) from error


def set_for_one_epoch(net, estimator, callbacks, data):
    """Give a net the estimator's parameters as they are now, to train one epoch at constant lr.

    Its ``callbacks`` have no schedule: that of `fit` ended at a rate of zero.

    Raises
    ------
    ValueError
        If the data come in batches of one sample, and the net cannot take them.
    """
    vars(net).update(_settings(estimator), max_epochs=1, callbacks=callbacks)
    net.initialize_callbacks()
    for group in net.optimizer_.param_groups:
        group.update(
            lr=net.lr,
            initial_lr=net.lr,  # from which a schedule among the callbacks goes on
            momentum=float(estimator.momentum),
            weight_decay=float(estimator.weight_decay),
        )
    check_single_rows(net, data)


def refuse_for_parts(estimator):
    """Raise a ValueError for parameters that partial_fit, which sees parts, cannot follow."""
    for name, value in (("early_stopping", True), ("class_weight", "balanced")):
        if getattr(estimator, name) == value:
            raise ValueError(
                f"partial_fit does not support {name}={value!r}, which needs all the data: use "
                "fit, or change the parameter."
            )


def net_to_go_on_with(estimator):
    """Copy the net of the last fit, to be trained with the estimator's parameters as they are now.

    Raises
    ------
    ValueError
        If ``network`` is another one now, or one of other classes.
    """
    _check_same_network(estimator)
    net = draft_of_net(on_device(estimator.net_, resolve_device(estimator.device)))
    net.take_settings(estimator._net_class()[1])
    return net


def _check_same_network(estimator):
    """Raise a ValueError if the ``network`` given now is not that of the last fit."""
    net, network = estimator.net_, estimator.network
    fitted = net.module__network
    if fitted is not network and not _same(net, network):
        raise ValueError(
            f"partial_fit goes on with the network of the last fit, {name_of(fitted)}. Got "
            f"network={name_of(network)}, which is another one: use fit, or set it back."
        )
    classes = getattr(network, "classes_", estimator.classes_)
    if not np.array_equal(classes, estimator.classes_):
        raise ValueError(
            f"partial_fit goes on with the classes of the last fit, {estimator.classes_}. Got "
            f"network={name_of(network)} of other classes, {classes}: use fit, or set it back."
        )


def _same(net, network):
    fitted = net.module__network
    if isinstance(fitted, str) or isinstance(network, str):
        names = [name if isinstance(name, str) else None for name in (fitted, network)]
        shape = net.module__input_shape
        return None not in names and len({resolve_name(name, shape) for name in names}) == 1
    if isinstance(fitted, type) is not isinstance(network, type):
        return False
    fitted = net.module_
    given = network.module_ if isinstance(network, TorchClassifier) else _built(net, network)
    return (
        given is not None
        and _look(given.body) == _look(fitted.body)
        and all(_equal(getattr(given, k), getattr(fitted, k)) for k in ("mean", "std", "order"))
    )


def _built(net, network):
    """Build a network as `fit` does; None if it does not even fit the data."""
    mean, std = net.module_.mean.cpu(), net.module_.std.cpu()
    with isolated_torch_seed("cpu", 0), in_float32_on_cpu(), contextlib.suppress(ValueError):
        network, *around = starting_point(network, mean, std)
        return build_network(network, net.module__input_shape, net.module__n_classes, *around)
    return None


def _look(module):
    """Return what modules of one structure share, whatever their weights."""
    shapes = {k: getattr(values, "shape", None) for k, values in module.state_dict().items()}
    layers = [(name, type(layer).__qualname__) for name, layer in module.named_modules()]
    # Of torch's own layers; others may show weights there.
    settings = [
        layer.extra_repr()
        for layer in module.modules()
        if type(layer).__module__.startswith("torch.nn.modules.")
    ]
    return shapes, layers, settings


def _equal(value, other):
    if value is None or other is None:
        return value is other
    return torch.equal(value.cpu(), other.cpu())


class HashableSGD(torch.optim.SGD):
    """SGD that joblib can hash, as a Pipeline with a ``memory`` hashes a trained source.

    joblib sorts the keys of dicts, and parameters cannot be sorted.
    """

    def __getstate__(self):
        state = super().__getstate__()
        return {**state, "state": list(state["state"].items())}

    def __setstate__(self, state):
        super().__setstate__({**state, "state": defaultdict(dict, state["state"])})


def sgd(groups, **settings):
    """SGD; for a small network on a CPU in one call for all tensors: the same bits, sooner."""
    parameters = [parameter for group in groups for parameter in group["params"]]
    few = sum(parameter.numel() for parameter in parameters) < _FOREACH_BELOW
    small = few and all(parameter.device.type == "cpu" for parameter in parameters)
    return HashableSGD(groups, foreach=True if small else None, **settings)

"""The net of a classifier: built and tried before the training, copied, moved to a device."""

import copy

import torch

from advfeat.classifiers._own_modules import name_of
from advfeat.classifiers.networks import check_trainable
from advfeat.optim._copying import compact, memo_of_copies, tensors_in
from advfeat.optim._functions import deep_copy
from advfeat.optim._network_state import set_network_state, to_device
from advfeat.utils._device import in_float32_on_cpu
from advfeat.utils._random import isolated_torch_seed


def draft_of_net(net):
    """Copy a fitted net, so that training the copy leaves it as it is; they share callbacks."""
    draft = object.__new__(type(net))
    memo = memo_of_copies(net.module_)
    # Tensors are cloned far sooner than deep-copied: momentum, and buffers where no two share
    # memory, as in our own networks.
    tensors = [value for state in net.optimizer_.state.values() for value in state.values()]
    if isinstance(net.module__network, str):
        tensors += net.module_.buffers()
    memo.update({id(v): v.clone() for v in tensors if isinstance(v, torch.Tensor)})
    # Together, so that the copied optimizer holds the copied weights.
    module, optimizer = deep_copy((net.module_, net.optimizer_), net.module_, memo)
    vars(draft).update(
        vars(net), module_=compact(module), optimizer_=optimizer, history_=copy.copy(net.history_)
    )
    return draft


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


def on_device(net, device):
    """Return the fitted net, or a copy of it, with everything it holds on the device."""
    device = _with_index(device)
    momenta = tensors_in([*net.optimizer_.state.values()])
    held = (*net.module_.parameters(), *net.module_.buffers(), *momenta)
    used = {tensor.device for tensor in held}
    if used <= {device} and _with_index(net.device) == device:
        return net
    moved = deep_copy(net, net.module_, memo_of_copies(net.module_))
    moved.set_params(device=str(device))
    to_device(moved.module_, device)
    for state in moved.optimizer_.state.values():
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                state[key] = value.to(device)
    return moved


def _with_index(device):
    """Give the device as tensors name theirs: "cuda" is "cuda:0", or whichever is current."""
    return torch.empty(0, device=device).device

"""What fitting and keeping a classifier needs: data statistics, other devices."""

import contextlib
import copy

import numpy as np
import torch

from advfeat.classifiers._own_modules import name_of
from advfeat.classifiers.networks import check_trainable
from advfeat.optim._copying import memo_of_copies
from advfeat.optim._functions import deep_copy
from advfeat.optim._network_state import set_network_state
from advfeat.utils._device import to_device
from advfeat.utils._random import isolated_torch_seed

_STATISTICS_BYTES = 2**25  # of float64 values at a time


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
    # Of one's weights.
    module, optimizer = deep_copy((net.module_, net.optimizer_), net.module_, memo)
    vars(draft).update(
        vars(net), module_=module, optimizer_=optimizer, history_=copy.copy(net.history_)
    )
    return draft


@contextlib.contextmanager
def in_float32_on_cpu():
    """Build networks as float32 on the CPU first whatever torch's defaults."""
    dtype = torch.get_default_dtype()
    try:
        if dtype != torch.float32:
            torch.set_default_dtype(torch.float32)
        with torch.device("cpu"):
            yield
    finally:
        if dtype != torch.float32:
            torch.set_default_dtype(dtype)


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


def input_statistics(data):
    """Weighted mean and standard deviation per feature, or per channel for images.

    Parameters
    ----------
    data : ArrayDataset
        Its rows are read in pieces.

    Returns
    -------
    mean, std : tensor, float32
        Broadcastable to one sample, in input units.
    """
    shape = data.source.shape[1:]
    groups = (shape[0], -1)  # features or channels, and the values of each in one sample
    size = max(1, min(4096, _STATISTICS_BYTES // (8 * int(np.prod(shape)))))
    rows = np.arange(len(data)) if data.rows is None else data.rows
    scale = 255 if data.source.dtype == np.uint8 else 1
    centre = None
    total = square = 0.0
    for i in range(0, len(data), size):
        cut = slice(i, i + size) if data.rows is None else rows[i : i + size]
        part = np.asarray(data.source[cut], dtype=np.float64)
        part = part.reshape(len(part), *groups)
        if centre is None:
            centre = part.mean((0, 2))  # near the mean, so that little is lost by cancellation
        part = part - centre[:, None]
        weight = data.sample_weight[i : i + size].astype(np.float64)
        total = total + np.einsum("n,ncp->c", weight, part)
        square = square + np.einsum("n,ncp,ncp->c", weight, part, part)
    n = data.sample_weight.sum(dtype=np.float64) * part.shape[2]
    shift = total / n
    mean, std = centre + shift, np.sqrt(np.maximum(square / n - shift**2, 0))
    std[std <= 1e-7 * np.abs(mean)] = scale  # constant up to rounding: leave it as it is
    as_sample = (shape[0], *[1] * (len(shape) - 1))
    return tuple(
        torch.from_numpy((value / scale).astype(np.float32)).reshape(as_sample)
        for value in (mean, std)
    )


def on_device(net, device):
    """Return the fitted net, or a copy of it, with everything it holds on the device."""
    device = _with_index(device)
    used = {tensor.device for tensor in (*net.module_.parameters(), *net.module_.buffers())}
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

"""What fitting and keeping a classifier needs: data statistics, safe failure, other devices."""

import contextlib
import copy

import numpy as np
import torch


@contextlib.contextmanager
def restored_on_failure(estimator):
    """Keep what an estimator knew from earlier fits if this one fails."""
    state = dict(estimator.__dict__)
    try:
        yield
    except BaseException:
        estimator.__dict__ = state
        raise


@contextlib.contextmanager
def draft_of(estimator):
    """Give a draft to fit, which takes the estimator's place in one step if all goes well.

    Whatever fails or interrupts the fit, at whatever instant, the estimator is as it was before.
    """
    draft = object.__new__(type(estimator))
    draft.__dict__ = dict(vars(estimator))
    yield draft
    estimator.__dict__ = vars(draft)


def draft_of_net(net):
    """Copy a fitted net, so that training the copy leaves it as it is; they share callbacks."""
    draft = object.__new__(type(net))
    module, optimizer = copy.deepcopy((net.module_, net.optimizer_))  # one of the other's weights
    vars(draft).update(
        vars(net), module_=module, optimizer_=optimizer, history_=copy.copy(net.history_)
    )
    return draft


def input_statistics(X, weight):
    """Weighted mean and standard deviation per feature, or per channel for images."""
    axes = (0, 2, 3) if X.ndim == 4 else (0,)
    scale = 255 if X.dtype == np.uint8 else 1
    size = 4096  # rows at a time, so that no float copy of X is made
    centre = X[:size].mean(axes, keepdims=True, dtype=np.float64)
    total = square = 0.0
    for i in range(0, len(X), size):
        part = X[i : i + size].astype(np.float64) - centre
        share = weight[i : i + size].reshape(-1, *[1] * (X.ndim - 1)).astype(np.float64)
        total = total + (share * part).sum(axes, keepdims=True)
        square = square + (share * part**2).sum(axes, keepdims=True)
    n = weight.sum(dtype=np.float64) * X[0].size / total.size
    shift = total / n
    mean, std = centre + shift, np.sqrt(np.maximum(square / n - shift**2, 0))
    std[std <= 1e-7 * np.abs(mean)] = scale  # constant up to rounding: leave it as it is
    return (
        torch.from_numpy((mean[0] / scale).astype(np.float32)),
        torch.from_numpy((std[0] / scale).astype(np.float32)),
    )


def on_device(net, device):
    """Return the fitted net, or a copy of it, with everything it holds on the device."""
    device = _with_index(device)
    used = {tensor.device for tensor in (*net.module_.parameters(), *net.module_.buffers())}
    if used <= {device} and _with_index(net.device) == device:
        return net
    moved = copy.deepcopy(net)
    moved.set_params(device=str(device))
    moved.module_.to(device)
    for state in moved.optimizer_.state.values():
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                state[key] = value.to(device)
    return moved


def _with_index(device):
    """Give the device as tensors name theirs: "cuda" is "cuda:0", or whichever is current."""
    return torch.empty(0, device=device).device

"""Where and in which precision to compute."""

import contextlib

import numpy as np
import torch

from advfeat.utils._arrays import row_slices
from advfeat.utils._lazy import LazyArray

_BLOCK = 2**25  # bytes
_WITHOUT_FLOAT64 = ("mps",)
_WITH_AUTOCAST = ("cpu", "cuda", "mps", "xpu")


def resolve_device(device):
    """Turn ``"auto"``, a device name or a torch.device into a usable torch.device.

    Raises
    ------
    ValueError
        If the name is unknown, or the device is not available on this machine.
    """
    if isinstance(device, str) and device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            "The 'device' parameter must be 'auto', 'cpu', 'cuda', 'cuda:0', ... or a "
            f"torch.device. Got {device!r} instead."
        ) from error
    if device.type not in ("cpu", "cuda"):
        _try(device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device={str(device)!r} was asked for, but this machine has no usable CUDA device. "
            "Use device='cpu' or device='auto'."
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={str(device)!r} was asked for, but there are only "
            f"{torch.cuda.device_count()} CUDA devices."
        )
    if device.type == "cuda" and device.index is None:
        # By its number: threads and processes to which work is sent have their own current one.
        device = torch.device("cuda", torch.cuda.current_device())
    return device


def _try(device):
    try:
        torch.zeros(1, device=device).cpu()
    except Exception as error:  # whatever a backend raises that is not there
        raise ValueError(
            f"device={str(device)!r} was asked for, but cannot be used on this machine. Use "
            "device='cpu' or device='auto'."
        ) from error


def has_float64(device):
    """Whether a device computes in float64."""
    return torch.device(device).type not in _WITHOUT_FLOAT64


def on_accelerator(X, device):
    """Return X as a tensor on the device where that saves copying every batch, else X itself.

    That is a CUDA device on which X takes at most a quarter of the free memory. Lazy arrays stay
    lazy: a Dataset may give other inputs each time, by augmentation.
    """
    device = torch.device(device)
    if device.type != "cuda" or isinstance(X, LazyArray):
        return X
    if X.nbytes > torch.cuda.mem_get_info(device)[0] / 4:
        return X
    return _in_blocks(X, device)


def _in_blocks(X, device):
    """Copy an array, which may be a read-only map, without a whole copy on the way."""
    found = torch.empty(X.shape, dtype=torch.from_numpy(X[:0].copy()).dtype, device=device)
    for rows in row_slices(X, _BLOCK):
        found[rows] = torch.from_numpy(np.array(X[rows]))
    return found


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


@contextlib.contextmanager
def default_modes():
    """Compute with gradients and without autocast, whatever the caller has set around a call."""
    with contextlib.ExitStack() as modes:
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.enable_grad())
        for kind in _WITH_AUTOCAST:
            modes.enter_context(autocast(kind, "fp32"))
        yield


def check_precision(precision):
    """Raise a ValueError for what `autocast` does not know."""
    if precision not in ("fp32", "bf16"):
        raise ValueError(
            f"The 'precision' parameter must be 'fp32' or 'bf16'. Got {precision!r} instead."
        )


def autocast(device, precision):
    """Context that computes in ``precision`` ("fp32" or "bf16") on ``device``.

    A user's own autocast around the call changes nothing.
    """
    kind = torch.device(device).type
    if precision == "bf16":
        # Inside a user's autocast its cache would keep the weights of the first step.
        return torch.autocast(kind, dtype=torch.bfloat16, cache_enabled=False)
    if is_autocast(kind):
        return torch.autocast(kind, enabled=False)
    return contextlib.nullcontext()


def is_autocast(kind):
    """Whether autocast is on for a type of device; some know none."""
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)

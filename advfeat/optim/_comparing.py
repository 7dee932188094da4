"""Whether a traced network computes what the network itself computes."""

import contextlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

N_ROWS = 4  # inputs compared
_TOLERANCE = 1e-3  # relative; both do the same operations, so rounding alone is far smaller


def compare(module, graph, x):
    """Compare a traced network with the network, and the network with itself.

    Tracing loses what happens inside a custom autograd.Function, in the backward pass, or at
    random without regard to the input.

    Parameters
    ----------
    module : nn.Module
        The network.
    graph : GraphModule or None
        The same traced, before its batch-norm is folded; None if it cannot be traced.
    x : tensor of shape (n, ...)
        A few of its rows are tried.

    Returns
    -------
    same : bool
        Whether the logits and the input gradients are equal but for rounding.
    random : bool
        Whether the network's own logits for one input differ from call to call.
    """
    x = x[:N_ROWS]
    expected = _logits_and_gradient(module, x)
    again = _logits_and_gradient(module, x)
    if not close(expected[0], again[0]):
        return False, True
    return _agree(expected, graph, x) and _goes_the_same_way(module, graph, x), False


def agree(module, graph, x):
    """Whether a traced network computes what the network does: `compare` without its second pass.

    A random network has other logits than its trace, but for luck, and is not told from others.

    Returns
    -------
    bool, or None
        None if it cannot be told, as all gradients are zero: a last layer may begin with zeros.
    """
    x = x[:N_ROWS]
    expected = _logits_and_gradient(module, x)
    same = _agree(expected, graph, x) and _goes_the_same_way(module, graph, x)
    return None if same and not expected[1].any() else same


def _agree(expected, graph, x):
    # Twice: a tensor or generator that the network makes at each call is one and the same in a
    # graph, which may change it.
    return graph is not None and all(
        all(map(close, expected, _logits_and_gradient(graph, x))) for _ in range(2)
    )


def _goes_the_same_way(module, graph, x):
    """Whether a graph of which that is not sure does what the network does, step by step."""
    return not graph.was_asked or _operations(module, x) == _operations(graph, x)


def _operations(module, x):
    """Operations on tensors that a network does; what a graph holds as constants is none."""
    with torch.inference_mode(False), torch.no_grad(), _Noting() as noting:
        module(x.clone())
    return noting.seen


class _Noting(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(isinstance(value, torch.Tensor) for value in tree_leaves((args, kwargs))):
            self.seen.append(func)
        return func(*args, **(kwargs or {}))


def _logits_and_gradient(module, x):
    with torch.inference_mode(False), torch.enable_grad():
        x = x.detach().clone().requires_grad_(True)
        logits = module(x.clone())  # the network may begin in place
        # A combination of the logits in which none and no sum of them is left out.
        weight = torch.arange(1, logits.numel() + 1, device=x.device, dtype=torch.float32).cos()
        value = (logits.float() * weight.view_as(logits)).sum()
        gradient = None
        if value.requires_grad:
            with contextlib.suppress(RuntimeError):  # a network that has logits only
                (gradient,) = torch.autograd.grad(value, x, allow_unused=True)
    return logits.detach().float(), torch.zeros_like(x) if gradient is None else gradient


def close(a, b):
    """Whether two tensors are equal but for rounding."""
    if a.shape != b.shape:  # of a graph in which rows of an earlier batch became constants
        return False
    # Of what is finite: a logit of -inf masks its class.
    scale = torch.nan_to_num(a, posinf=0, neginf=0).abs().max() if a.numel() else 0.0
    return torch.allclose(a, b, rtol=_TOLERANCE, atol=_TOLERANCE * float(scale), equal_nan=True)

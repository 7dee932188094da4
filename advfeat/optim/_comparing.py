"""Whether a traced network computes what the network itself computes."""

import contextlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from advfeat.optim._randomness import generators_of, states
from advfeat.utils._random import draws_in_training, draws_kept, global_states

N_ROWS = 4  # inputs compared
_N_DRAWN = 2  # inputs on which a network is compared with itself
_N_CALLS = 64  # of a network that draws: they show what happens in one call of twenty
_N_MORE = 8  # of one whose draws may be hidden
_TOLERANCE = 1e-3  # relative; both do the same operations, so rounding alone is far smaller


def compare(module, graph, x):
    """Compare a traced network with the network, and the network with itself.

    Tracing loses what happens inside a custom autograd.Function, in the backward pass, at random
    without regard to the input, or without gradients only.

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
    if is_random(module, x):
        return False, True
    return graph is not None and _agree(_computed(module, x), module, graph, x), False


def agree(module, graph, x):
    """Whether a traced network computes what the network does: `compare` in one answer.

    Returns
    -------
    bool, or None
        None if it cannot be told, as all gradients are zero: a last layer may begin with zeros.
    """
    x = x[:N_ROWS]
    if graph is None or (draws_in_training(module) and is_random(module, x)):
        return False
    expected = _computed(module, x)
    same = _agree(expected, module, graph, x)
    return None if same and not expected[1].any() else same


def is_random(module, x):
    """Whether the logits of a network for one input differ from call to call.

    Draws from global generators are given back. That a generator moves is a reason to look closer
    and no more: a network may draw in vain, or seed it anew at each call.

    Parameters
    ----------
    module : nn.Module
    x : tensor of shape (n, ...)
        Two of its rows are tried.

    Returns
    -------
    bool
    """
    x = x[:_N_DRAWN]
    with draws_kept(module, x.device):
        may_draw = draws_in_training(module)
        generators = generators_of(module) if may_draw else []
        before = global_states(x.device), states(generators)
        first = [_logits(module, x, gradients) for gradients in (False, True)]
        n_calls = 2
        if may_draw:
            moved = (global_states(x.device), states(generators)) != before
            n_calls = _N_CALLS if moved else _N_MORE
        # By turns, as what a network draws may depend on whether there are gradients.
        return not all(close(first[i % 2], _logits(module, x, i % 2 == 1)) for i in range(n_calls))


def _agree(expected, module, graph, x):
    # Twice: a tensor or generator that the network makes at each call is one and the same in a
    # graph, which may change it.
    try:
        return all(
            all(map(close, expected, _computed(graph, x))) for _ in range(2)
        ) and _goes_the_same_way(module, graph, x)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # gradients taken inside may be missing in a graph
        return False


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


def _computed(module, x):
    """Logits and input gradients, and the logits without gradients, as predictions need them."""
    return *_logits_and_gradient(module, x), _logits(module, x, False)


def _logits(module, x, gradients):
    with torch.inference_mode(False), torch.set_grad_enabled(gradients):
        x = x.detach().clone().requires_grad_(gradients)
        return module(x.clone()).detach().float()  # the network may begin in place


def _logits_and_gradient(module, x):
    with torch.inference_mode(False), torch.enable_grad():
        x = x.detach().clone().requires_grad_(True)
        logits = module(x.clone())
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

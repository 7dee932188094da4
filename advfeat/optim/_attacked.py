"""The logits of a network in training, as attacks on it need them."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from advfeat.optim._comparing import agree
from advfeat.optim._folding import fold_batch_norm
from advfeat.optim._functions import CONTAINERS, is_plain_object, members
from advfeat.optim._graphs import REPEATS, Steps, capture
from advfeat.optim._network_state import MODULE_INTERNALS, SETTINGS
from advfeat.optim._tracing import is_repeatable, trace
from advfeat.utils._device import autocast, check_precision
from advfeat.utils._typing import Device

_MAX_MEMBERS = 10_000  # members of containers and objects, which are looked through at every step
_N_TRIES = 20  # traces of a network without any gradient


class AttackedNetwork:
    """The logits of a network in training, as an attack on it needs them.

    It shares the network's layers and must be refreshed whenever their weights have changed.

    Parameters
    ----------
    module : nn.Module
        In eval mode when this is built or called.
    device : torch.device
        Where the network lives.
    precision : {"fp32", "bf16"}
        In which it computes; logits are float32 either way.

    Raises
    ------
    ValueError
        For another precision.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from advfeat.optim import AttackedNetwork
    >>> module = nn.Linear(2, 2).eval()
    >>> attacked = AttackedNetwork(module, device="cpu", precision="fp32")
    >>> x = torch.ones(1, 2)
    >>> bool((attacked(x) == module(x)).all())
    True
    >>> with torch.no_grad():
    ...     _ = module.weight.zero_()  # a step of the training
    >>> attacked.refresh()
    >>> bool((attacked(x) == module.bias).all())
    True
    """

    def __init__(self, module: nn.Module, *, device: Device, precision: str) -> None:
        check_precision(precision)
        self.device, self.precision = device, precision
        self._module = module
        self._traced: Any = None
        self._watched: Any = None  # attributes of layers
        self._held: Any = None  # buffers and these, as they were then
        self.steps = Steps()
        self._containers: list = []  # attributes that hold others
        self._n_refreshed = self._n_undecided = 0
        self._undecided = False
        self._refreshing: Any = None  # a captured graph, where it pays

    def __reduce__(self):
        # Only the network travels: unpickling a graph of torch.fx would trace it again.
        make = partial(AttackedNetwork, device=self.device, precision=self.precision)
        return make, (self._module,)

    def refresh(self) -> None:
        """Fold the present weights."""
        if self._undecided:
            self._traced = None  # to be traced again, with other weights
        if self._traced is None:
            return
        now = self._held_now()
        if len(now) != len(self._held) or any(map(_differ, now, self._held)):
            # A layer puts new tensors in place of those it holds, which a graph does not see.
            self._traced, self._held, self._refreshing = (self._module, []), now, None
            self.steps.repeatable = False
        self._n_refreshed += 1
        if self.steps.repeatable and self._n_refreshed == REPEATS:
            self._refreshing = capture(self._fold_all, self.device)
        if self._refreshing is None:
            self._fold_all()
        else:
            self._refreshing.replay()

    def _held_now(self):
        """Tensors and settings that the graph took from the network once for all."""
        attributes = (vars(layer).get(name) for layer, name in self._watched)
        kept = (v if v is None or _is_value(v) else type(v) for v in attributes)
        held = [vars(layer).get(name) for layer, name in self._containers]
        values = [v for v in members(held, objects=True) if v is None or _is_value(v)]
        buffers, places = [*self._module.buffers()], []
        if self.steps.repeatable:  # replays read from there, and tensors may be put elsewhere
            places = [tensor.data_ptr() for tensor in (*self._module.parameters(), *buffers)]
        return [*buffers, *kept, *values, *places]

    def _fold_all(self):
        for fold in self._traced[1]:
            fold.update()

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of a batch.

        Parameters
        ----------
        x : tensor of shape (n, ...)
            Inputs, in input units.

        Returns
        -------
        tensor of shape (n, n_classes), float32
        """
        if self._traced is None:
            graph = trace(self._module)
            same = agree(self._module, graph, x)
            self._n_undecided += same is None
            self._undecided = same is None and self._n_undecided < _N_TRIES
            containers = _containers(self._module) if same else None
            same = containers is not None
            folds = fold_batch_norm(graph, self.precision) if same else []
            self._traced = graph if same else self._module, folds
            self._watched = _watched(self._module, graph) if same else []
            self._containers = containers or []
            self.steps.repeatable = same and is_repeatable(self._module, x.device)
            self._held = self._held_now()
        with autocast(self.device, self.precision):
            return self._traced[0](x.clone()).float()  # the network may begin in place


def _watched(module, graph):
    """Give (layer, name) of the plain attributes that a graph reads, or may have read.

    These are tensors, settings and those that are None. Not of torch's own layers, which it calls.
    """
    found = [
        (layer, name, f"{place}.{name}", value)
        for place, layer in nn.Sequential(module).named_modules()  # as it is traced
        if not type(layer).__module__.startswith("torch.nn.")
        for name, value in vars(layer).items()
        if (value is None or _is_value(value)) and name not in MODULE_INTERNALS
    ]
    targets = {node.target for node in graph.graph.nodes if node.op == "get_attr"}
    read = {id(value) for *_, place, value in found if place in targets}
    return [
        (layer, name)
        for layer, name, _, value in found
        if not isinstance(value, Tensor) or id(value) in read
    ]


def _containers(module):
    """Give (layer, name) of what may hold settings; None if it is too much to be watched."""
    found = [
        (layer, name, value)
        for layer in module.modules()
        if not type(layer).__module__.startswith("torch.nn.")
        for name, value in vars(layer).items()
        if name not in MODULE_INTERNALS
        and (isinstance(value, CONTAINERS) or is_plain_object(value))
    ]
    n_members = len(members([value for *_, value in found], objects=True))
    return [(layer, name) for layer, name, _ in found] if n_members <= _MAX_MEMBERS else None


def _is_value(value):
    return isinstance(value, (Tensor, *SETTINGS))


def _differ(now, then):
    """Whether an attribute is another: tensors may change in place, which a graph sees."""
    if isinstance(now, Tensor) or isinstance(then, Tensor):
        return now is not then
    return now is not then and now != then

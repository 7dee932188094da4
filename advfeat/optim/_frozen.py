"""A frozen copy of a network, for predictions and for gradients with respect to the input.

The copy is in eval mode, asks for no parameter gradients and has its batch-norm folded into the
convolutions. It gives the logits and g(x), the penultimate layer: the input of the last linear
layer.
"""

from __future__ import annotations

import contextlib
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from advfeat.optim._comparing import N_ROWS, compare
from advfeat.optim._copying import copy_network, with_plain_weights, without_compile
from advfeat.optim._features import (
    LastLinearInput,
    cut_at_features,
    no_features,
    pass_gradient_always,
    pass_gradient_when_off,
    stuck_features,
)
from advfeat.optim._folding import fold_batch_norm
from advfeat.optim._graphs import NO_GRADIENT, Steps
from advfeat.optim._network_state import to_device
from advfeat.optim._tracing import is_repeatable, trace, tracing
from advfeat.utils._checks import batch_tensor
from advfeat.utils._device import autocast, check_precision, default_modes, resolve_device
from advfeat.utils._random import draws_in_training, draws_kept, isolated_torch_seed
from advfeat.utils._typing import Device

if TYPE_CHECKING:
    from typing_extensions import Self

_MAX_STUCK_SHARE = 0.05  # share of features without a gradient that is no reason for a warning


class FrozenNetwork:
    """Inference copy of a trained network; the original is never touched.

    The network is traced (torch.fx) at the first use, to fold its batch-norm and to find its
    features. Where the traced network would not compute the same logits and input gradients,
    the network runs as it is.

    Parameters
    ----------
    module : nn.Module
        Returns logits for inputs in input units.
    device : torch.device
        Where the copy lives and its inputs must be.
    precision : {"fp32", "bf16"}, default="fp32"
        "bf16" computes under autocast, which is faster where the hardware has it and rounds to
        three digits; outputs are float32 either way.

    Raises
    ------
    ValueError
        For a device that is not there, or another precision.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from advfeat.optim import FrozenNetwork
    >>> module = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> network, x = FrozenNetwork(module, device="cpu"), torch.ones(5, 4)
    >>> network(x).shape, network.features(x).shape
    (torch.Size([5, 2]), torch.Size([5, 3]))
    >>> network.has_features
    True
    """

    def __init__(self, module: nn.Module, *, device: Device, precision: str = "fp32") -> None:
        check_precision(precision)
        self.device = resolve_device(device)
        self.precision = precision
        with default_modes():
            module = to_device(copy_network(module), self.device).eval()
            self._module = with_plain_weights(module).requires_grad_(False)
        self._verdict: Any = None  # of `compare`
        self._built: Any = None
        self.steps = Steps()

    def __getstate__(self):
        # Only the network travels: unpickling a graph of torch.fx would trace it again.
        return {**self.__dict__, "_built": None}

    def verify(self, X: np.ndarray) -> Self:
        """Decide, on a few inputs, whether the network is random and whether it can run traced.

        For the former a network with layers of one's own is called some ten times on two samples;
        one that draws in vain, so that its logits stay the same, some seventy times.

        The first call does so by itself. Before the network travels to workers it is to be done
        once for all of them.

        Parameters
        ----------
        X : ndarray of shape (n, ...)
            As in the public functions: uint8 is scaled to [0, 1].

        Returns
        -------
        self
        """
        self._parts(batch_tensor(X[:N_ROWS], self.device))
        return self

    def in_fp32(self, X: np.ndarray) -> FrozenNetwork:
        """Return this network, or its like in fp32 where it computes in less; verified on X.

        Parameters
        ----------
        X : ndarray of shape (n, ...)
            As in `verify`.

        Returns
        -------
        FrozenNetwork
        """
        if self.precision == "fp32":
            return self.verify(X)
        return FrozenNetwork(self._module, device=self.device).verify(X)

    @property
    def random(self) -> bool:
        """Whether the logits for one input differ from call to call; known once verified."""
        return self._verdict is not None and self._verdict[1]

    @property
    def has_features(self) -> bool:
        """Whether the network ends in a linear layer, whose input is g(x); known once verified."""
        return self._parts().features is not no_features

    def require_features(self) -> Self:
        """Refuse a network without features; it must be verified.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If it does not end in a linear layer, or is not verified yet.
        """
        if not self.has_features:
            no_features(None)
        return self

    def require_gradient(self, X: np.ndarray) -> Self:
        """Refuse a network whose logits do not depend on its input in a way that has a gradient.

        Parameters
        ----------
        X : ndarray of shape (n, ...)
            As in `verify`; eight of its samples are tried.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the gradient is missing; one that is zero may differ at other inputs.
        """
        rows = np.unique(np.linspace(0, len(X) - 1, 8).astype(int))  # some may be special
        with torch.inference_mode(False), torch.enable_grad():
            x = batch_tensor(X[rows], self.device).requires_grad_(True)
            logits, gradient = self(x.clone()), None
            with contextlib.suppress(NotImplementedError):  # of a Function without backward
                if logits.requires_grad:
                    (gradient,) = torch.autograd.grad(logits.sum(), x, allow_unused=True)
        if gradient is None:
            raise ValueError(NO_GRADIENT)
        return self

    @property
    def passes_gradient(self) -> bool:
        """Whether nearly all features have a gradient in `inversion_features`; once verified.

        Else units are off and there is no way around their ReLU, as in networks that cannot be
        traced.
        """
        return self.has_features and self._parts().stuck_share <= _MAX_STUCK_SHARE

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
        return self._run(self._parts(x).logits, x)

    def features(self, x: Tensor) -> Tensor:
        """Penultimate features g(x), the input of the last linear layer.

        Parameters
        ----------
        x : tensor of shape (n, ...)
            Inputs, in input units.

        Returns
        -------
        tensor of shape (n, n_features), float32
        """
        return self._run(self._parts(x).features, x).flatten(1)

    def inversion_features(self, x: Tensor) -> Tensor:
        """g(x); a feature that is off gives the gradient that it has without its ReLU.

        This is the "fake ReLU" of the paper's construction, kept to the features that need it.

        Parameters
        ----------
        x : tensor of shape (n, ...)
            Inputs, in input units.

        Returns
        -------
        tensor of shape (n, n_features), float32
        """
        return self._run(self._parts(x).inversion_features, x).flatten(1)

    def fake_relu_features(self, x: Tensor) -> Tensor:
        """g(x); every unit of the last ReLU, on or off, passes the gradient of its input.

        This is the "fake ReLU" of the authors' code: a ReLU forward, the identity backward.

        Parameters
        ----------
        x : tensor of shape (n, ...)
            Inputs, in input units.

        Returns
        -------
        tensor of shape (n, n_features), float32
        """
        return self._run(self._parts(x).fake_relu_features, x).flatten(1)

    def _parts(self, x=None):
        """Build the functions as soon as there are inputs."""
        if self._built is None:
            if x is None:
                raise ValueError("Not known before the first inputs: call verify(X) first.")
            # Threads that share the network wait for the first. A random network draws here, and
            # its lock comes first, as in a training that traces.
            with self._apart(), tracing, default_modes():
                if self._built is None:
                    self._built = self._build(x[:N_ROWS])
        return self._built

    @contextlib.contextmanager
    def _apart(self):
        """Keep the global generators as they are, if the network may draw from them."""
        may_draw = draws_in_training(self._module)
        seeded = isolated_torch_seed(self.device, 0) if may_draw else contextlib.nullcontext()
        with draws_kept(self._module, self.device), seeded:
            yield

    def _build(self, x):
        graph = None
        without_compile(self._module)
        if self._verdict is None:
            graph = trace(self._module)
            self._verdict = compare(self._module, graph, x.clone())
        same, _ = self._verdict
        if same and graph is None:
            graph = trace(self._module)
        self.steps.repeatable = same and is_repeatable(self._module, self.device)
        return _Parts(self._module, graph if same else None, self.device, self.precision, x)

    def _run(self, function, x):
        with autocast(self.device, self.precision):
            output = function(x.clone())  # the network may begin in place
        return output.float()


class _Parts:
    """Logits and features of a network, as functions; those for inversions are made when needed.

    Parameters
    ----------
    module : nn.Module
    graph : GraphModule or None
        The same traced; None runs the network as it is.
    device : torch.device
    precision : {"fp32", "bf16"}
    x : tensor of shape (n, ...)
        Some inputs.
    """

    def __init__(self, module, graph, device, precision, x):
        self.x = x.detach().clone()
        self.context = partial(autocast, device, precision)
        self.logits = module if graph is None else graph
        self.cut = None
        if graph is not None:
            fold_batch_norm(graph, precision)
            with self.context():
                self.cut = cut_at_features(graph, self.x)
            self.features = no_features if self.cut is None else self.cut
        else:
            with self.context():
                self.features = LastLinearInput.of(module, self.x) or no_features

    @cached_property
    def inversion_features(self):
        return self._changed(pass_gradient_when_off)

    @cached_property
    def fake_relu_features(self):
        return self._changed(pass_gradient_always)

    @cached_property
    def stuck_share(self):
        """Share of features that have no gradient, of those that differ between inputs."""
        with self.context():
            stuck = stuck_features(lambda x: self.inversion_features(x.clone()).flatten(1), self.x)
            with torch.no_grad():
                features = self.features(self.x.clone()).flatten(1)
        differ = (features != features.roll(1, 0)) | (len(features) == 1)
        return float((stuck & differ).float().mean())

    def _changed(self, change):
        if self.cut is None:
            return self.features
        with self.context():
            return change(self.cut, self.x)

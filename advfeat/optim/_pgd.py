"""Projected gradient ascent on the input, with normalised steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real

import torch
from torch import Tensor

from advfeat.optim._balls import LARGEST, L2Ball, LinfBall
from advfeat.optim._graphs import NO_GRADIENT, output_and_gradient
from advfeat.utils._typing import Box


def projected_gradient(
    network: Callable[[Tensor], Tensor],
    x: Tensor,
    target: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    ball: L2Ball | LinfBall,
    step_size: float | Callable[[int], float],
    n_steps: int,
    momentum: float = 0.0,
    bounds: Box = None,
    start: Tensor | None = None,
    keep: str = "last",
    is_better: Callable[[Tensor, Tensor], Tensor] | None = None,
    until_better: bool = False,
) -> Tensor:
    """Maximise ``loss(network(z), target)`` over z in the ball around x and in the box.

    Attack, adversarial training, representation inversion, robust scoring and robust usefulness
    all run through this function; they differ in ``loss`` and ``ball``.

    Parameters
    ----------
    network : callable
        Maps inputs (n, ...) to logits or features.
    x : tensor of shape (n, ...)
        Centre of the ball, in input units. Outside the box by rounding, it is clipped to it.
    target : tensor of shape (n, ...)
        What the loss compares with.
    loss : callable
        ``loss(output, target)`` gives one value per sample; larger is better.
    ball : L2Ball or LinfBall
        Feasible perturbations of x; its norm decides the direction of a step.
    step_size : float or callable
        Length of a step in the ball's norm, in input units; a callable gets the step's index.
    n_steps : int
        More steps take longer in proportion, and come closer to the maximum.
    momentum : float, default=0
        Share of the last step that is taken again ("heavy ball"), below 1; larger carries on for
        longer in directions that steps agree on.
    bounds : (low, high) or None, default=None
        Box of valid inputs: numbers, or arrays that are broadcastable to one sample. It is applied
        outside the graph: a clamp inside would zero the gradient at saturated pixels. In tables,
        whose features differ in scale, what leads out of the box takes no part in a step's length.
    start : tensor like x, optional
        First iterate, projected like all others; x by default.
    keep : {"last", "best"}, default="last"
        Which iterate to return. "best" costs one more forward pass.
    is_better : callable, optional
        ``is_better(output, target)`` gives one boolean per sample; with ``keep="best"`` an
        iterate for which it holds is preferred to any for which it does not.
    until_better : bool, default=False
        Whether to end, with ``keep="best"``, as soon as ``is_better`` has held once for every
        sample, for whoever asks no more than that.

    Returns
    -------
    tensor like x

    Raises
    ------
    ValueError
        If ``keep`` is neither of both, a number is out of its range, the low bound is above the
        high one, x holds integers, or the network has no gradient with respect to its input.

    Examples
    --------
    The input within 1 of the origin whose sum is largest:

    >>> import torch
    >>> from advfeat.optim import L2Ball, projected_gradient
    >>> def value(output, target):
    ...     return output.sum(1)
    >>> x = torch.zeros(1, 4)
    >>> projected_gradient(lambda z: z, x, x, value, ball=L2Ball(1.0), step_size=0.5, n_steps=5)
    tensor([[0.5000, 0.5000, 0.5000, 0.5000]])
    """
    _check_settings(keep, step_size, n_steps, momentum, bounds)
    with torch.inference_mode(False):  # a caller's would leave no gradients
        x, target, start = (_differentiable(tensor) for tensor in (x, target, start))
        if not x.is_floating_point():
            raise ValueError(f"x must be of floating point, as its gradient is. Got {x.dtype}.")

        def project(z):
            if math.isfinite(ball.eps):
                z = x + ball.project(z - x)
            # The box contains x, so clipping to it moves no coordinate away from x and the iterate
            # stays in the ball.
            return z if bounds is None else z.clamp(*bounds)

        bounds = _box_like(bounds, x)
        x = into_box(x, bounds)
        z = x if start is None else project(start)
        best = _Best(z) if keep == "best" else None
        velocity = 0.0
        for step in range(n_steps):
            output, value, gradient = output_and_gradient(network, loss, z, target)
            if gradient is None:
                raise ValueError(NO_GRADIENT)
            with torch.no_grad():
                if best is not None:
                    best.update(z, value, is_better and is_better(output, target))
                    if until_better and best.good.all():
                        return best.z
                length = step_size(step) if callable(step_size) else step_size
                length = min(float(length), LARGEST)
                if bounds is not None and z.ndim == 2:
                    gradient = _inwards(gradient, z, bounds)
                direction = ball.direction(gradient)
                # Without momentum, two passes over the batch less.
                velocity = momentum * velocity + direction if momentum else direction
                z = project(z + length * velocity)
        if best is not None:
            with torch.no_grad():
                output = network(z)
                best.update(z, loss(output, target), is_better and is_better(output, target))
            return best.z
        return z.detach()


def into_box(z: Tensor, bounds: Box) -> Tensor:
    """Clip inputs to their valid range.

    Parameters
    ----------
    z : tensor of shape (n, ...)
        Inputs.
    bounds : (low, high) or None
        Numbers, or arrays that are broadcastable to one sample; None clips nothing.

    Returns
    -------
    tensor like z

    Examples
    --------
    >>> import torch
    >>> from advfeat.optim import into_box
    >>> into_box(torch.tensor([[-0.5, 0.5, 1.5]]), (0, 1))
    tensor([[0.0000, 0.5000, 1.0000]])
    """
    return z if bounds is None else z.clamp(*_box_like(bounds, z))


def _check_settings(keep, step_size, n_steps, momentum, bounds):
    if keep not in ("last", "best"):
        raise ValueError(f"keep must be 'last' or 'best'. Got {keep!r}.")
    if not callable(step_size) and not step_size >= 0:
        raise ValueError(f"step_size must be a number of at least 0. Got {step_size!r}.")
    if not n_steps >= 0:
        raise ValueError(f"n_steps must be at least 0. Got {n_steps!r}.")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be at least 0 and below 1. Got {momentum!r}.")
    if bounds is None:
        return
    if any(side is None for side in bounds):
        raise ValueError(f"bounds must be None or (low, high), infinite for none. Got {bounds!r}.")
    low, high = (
        torch.as_tensor(side, device=getattr(side, "device", "cpu")).detach() for side in bounds
    )
    # Those on a GPU would have to be waited for.
    if low.is_cpu and high.is_cpu and (low > high).any():
        raise ValueError(f"bounds must be (low, high), low nowhere above high. Got {bounds!r}.")


def _differentiable(tensor):
    """Tensors that were made in inference mode take part in no gradient: a copy."""
    return tensor.clone() if tensor is not None and tensor.is_inference() else tensor


def _box_like(bounds, x):
    """Bounds as `torch.clamp` takes them; arrays go to the device of x."""
    if bounds is None or all(isinstance(side, Real) for side in bounds):
        return bounds
    return tuple(torch.as_tensor(side, dtype=x.dtype, device=x.device) for side in bounds)


def _inwards(gradient, z, bounds):
    """Leave out what the box would take back, and with it, of a heavy feature, all of the step."""
    low, high = bounds
    return gradient.masked_fill(((z <= low) & (gradient < 0)) | ((z >= high) & (gradient > 0)), 0)


class _Best:
    """Best iterate per sample."""

    def __init__(self, z):
        n = len(z)
        self.z = z.detach().clone()
        self.value = torch.full((n,), -torch.inf, dtype=torch.float32, device=z.device)
        self.good = torch.zeros(n, dtype=torch.bool, device=z.device)

    def update(self, z, value, good):
        value = torch.nan_to_num(value.detach().float(), nan=-torch.inf)
        if good is None:
            good = self.good
        better = (good & ~self.good) | ((good == self.good) & (value > self.value))
        self.value = torch.where(better, value, self.value)
        self.good = self.good | good
        self.z = torch.where(better.view(-1, *[1] * (z.ndim - 1)), z.detach(), self.z)


class HalfCosine:
    """Step length that falls from ``first`` to zero over ``n_steps`` as a half cosine.

    Long first steps explore, short last ones settle: for the same number of steps attacks are
    stronger and inversions closer than with steps of constant length.

    Parameters
    ----------
    first : float
        Length of the first step, in input units.
    n_steps : int
        Steps until the length would be zero, 1 or more.

    Raises
    ------
    ValueError
        If ``n_steps`` is below 1.

    Examples
    --------
    >>> from advfeat.optim import HalfCosine
    >>> length = HalfCosine(0.6, n_steps=4)
    >>> [round(length(step), 2) for step in range(4)]
    [0.6, 0.51, 0.3, 0.09]
    """

    def __init__(self, first: float, n_steps: int) -> None:
        if not n_steps >= 1:
            raise ValueError(f"n_steps must be at least 1. Got {n_steps!r}.")
        self.first = float(first)
        self.n_steps = n_steps

    def __call__(self, step: int) -> float:
        """Length of a step.

        Parameters
        ----------
        step : int
            Its number, from 0.

        Returns
        -------
        float
        """
        return self.first * 0.5 * (1 + math.cos(math.pi * step / self.n_steps))

"""Feasible sets around a sample: each knows its steepest direction, projection and noise."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from advfeat.utils._device import has_float64
from advfeat.utils._norms import norm_name
from advfeat.utils._random import normal_rows
from advfeat.utils._typing import Box

# Larger radii and steps count as this: what a float32 network makes of it must stay finite.
LARGEST = 1e30


def row_norms(values: Tensor) -> Tensor:
    """Euclidean norm of each sample's values, without overflow of their squares.

    Parameters
    ----------
    values : tensor of shape (n, ...)
        One row per sample.

    Returns
    -------
    tensor of shape (n,)
        In float64; on a device that does not know it (mps) in float32.

    Examples
    --------
    >>> import torch
    >>> from advfeat.optim import row_norms
    >>> row_norms(torch.tensor([[3.0, 4.0], [1e30, 0.0]])).tolist()
    [5.0, 1.0000000150474662e+30]
    """
    flat = values.flatten(1)
    if has_float64(values.device):
        return torch.linalg.vector_norm(flat, dim=1, dtype=torch.float64)
    flat = flat.float()
    scale = flat.abs().amax(1, keepdim=True)
    scale.masked_fill_((scale == 0) | scale.isinf(), 1)
    return torch.linalg.vector_norm(flat / scale, dim=1) * scale[:, 0]


def useful_radius(norm: float, eps: float, bounds: Box, shape: tuple[int, ...]) -> float:
    """``eps``, but no larger than it takes to reach all of the box from anywhere in it.

    A larger ball holds no more of the box, while steps in proportion to it would only jump from
    corner to corner.

    Parameters
    ----------
    norm : {2, numpy.inf}
        Norm of the ball.
    eps : float, in input units
        Radius.
    bounds : (low, high) or None
        Floats, or arrays that are broadcastable to one sample.
    shape : tuple
        Of one sample.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        For any other norm.

    Examples
    --------
    >>> from advfeat.optim import useful_radius
    >>> useful_radius(2, 1e9, (0.0, 1.0), shape=(1, 8, 8))
    8.0
    """
    name = norm_name(norm)
    if bounds is None:
        return min(float(eps), LARGEST)
    widths = np.broadcast_to(np.subtract(*bounds[::-1], dtype=np.float64), shape)
    reach = float(widths.max() if name == "L∞" else np.linalg.norm(widths))
    return min(float(eps), reach, LARGEST)


def crossing_step(eps, n_steps):
    """Length of a step of which ``n_steps`` can cross a ball of radius ``eps``: 2.5 eps in all."""
    return 2.5 * eps / n_steps


def _per_sample(values, like):
    """Reshape (n,) to broadcast against ``like`` of shape (n, ...)."""
    return values.to(like.dtype).view(-1, *[1] * (like.ndim - 1))


class L2Ball:
    """All perturbations with Euclidean norm at most ``eps``.

    Parameters
    ----------
    eps : float
        Radius, in input units; infinity: no constraint.

    Raises
    ------
    ValueError
        If it is negative or NaN.

    Examples
    --------
    >>> import torch
    >>> from advfeat.optim import L2Ball
    >>> L2Ball(1.0).project(torch.tensor([[3.0, 4.0], [0.3, 0.4]]))
    tensor([[0.6000, 0.8000],
            [0.3000, 0.4000]])
    """

    def __init__(self, eps: float) -> None:
        radius = _radius(eps)
        self.eps = radius if math.isinf(radius) else min(radius, LARGEST)

    def direction(self, gradient: Tensor) -> Tensor:
        """Direction of steepest ascent, with norm 1.

        Parameters
        ----------
        gradient : tensor of shape (n, ...)
            Of the loss, for each sample.

        Returns
        -------
        tensor like gradient
            Zero for samples whose gradient is zero or not finite.
        """
        # Two divisions: first by the largest entry, so that the squares of tiny gradients do not
        # vanish and those of huge ones do not overflow, then by the norm of the result, which is
        # 1 or more. Zeros are divided by 1 and stay zero (the norm is then 0, and clamped). An
        # infinite or NaN entry makes NaN of the norm, and so of the row, which becomes zero at
        # the end. All without a question to the device in between.
        flat = gradient.flatten(1)
        scale = flat.abs().amax(1, keepdim=True)
        flat = flat / scale.masked_fill_(scale == 0, 1)
        flat /= torch.linalg.vector_norm(flat, dim=1, keepdim=True).clamp_min(1)
        return flat.nan_to_num_().view_as(gradient)

    def project(self, delta: Tensor) -> Tensor:
        """Nearest perturbations in the ball.

        Parameters
        ----------
        delta : tensor of shape (n, ...)
            Perturbations, in input units.

        Returns
        -------
        tensor like delta
        """
        if math.isinf(self.eps):
            return delta
        norm = row_norms(delta)
        factor = self.eps / norm.clamp_min(max(self.eps, torch.finfo(norm.dtype).tiny))
        return delta * _per_sample(factor, delta)

    def sample(self, noise: Tensor, like: Tensor) -> Tensor:
        """Uniform perturbations in the ball.

        The first d coordinates of a uniform point on the sphere in d + 2 dimensions are uniform
        in the d-dimensional ball.

        Parameters
        ----------
        noise : tensor of shape (n, d + 2)
            Standard normal draws, where d is the number of values of a sample.
        like : tensor of shape (n, ...)
            Whose shape the perturbations get.

        Returns
        -------
        tensor of the shape of like
        """
        point = noise / torch.linalg.vector_norm(noise, dim=1, keepdim=True)
        return self.eps * point[:, :-2].reshape(like.shape)


class LinfBall:
    """All perturbations with no entry larger than ``eps`` in absolute value.

    Parameters
    ----------
    eps : float
        Radius, in input units.

    Raises
    ------
    ValueError
        If it is negative or NaN.

    Examples
    --------
    >>> import torch
    >>> from advfeat.optim import LinfBall
    >>> ball = LinfBall(0.5)
    >>> ball.project(torch.tensor([[3.0, -0.2]]))
    tensor([[ 0.5000, -0.2000]])
    >>> ball.direction(torch.tensor([[3.0, -0.2]]))
    tensor([[ 1., -1.]])
    """

    def __init__(self, eps: float) -> None:
        self.eps = min(_radius(eps), LARGEST)

    def direction(self, gradient: Tensor) -> Tensor:
        """Direction of steepest ascent: the sign of each entry.

        Parameters
        ----------
        gradient : tensor of shape (n, ...)
            Of the loss, for each sample.

        Returns
        -------
        tensor like gradient
            Zero where the gradient is zero or not finite.
        """
        return torch.nan_to_num(gradient, posinf=0.0, neginf=0.0).sign()

    def project(self, delta: Tensor) -> Tensor:
        """Nearest perturbations in the ball.

        Parameters
        ----------
        delta : tensor of shape (n, ...)
            Perturbations, in input units.

        Returns
        -------
        tensor like delta
        """
        return delta.clamp(-self.eps, self.eps)

    def sample(self, noise: Tensor, like: Tensor) -> Tensor:
        """Uniform perturbations in the ball.

        Parameters
        ----------
        noise : tensor of shape (n, d + 2)
            Standard normal draws, where d is the number of values of a sample;
            the last two are not used.
        like : tensor of shape (n, ...)
            Whose shape the perturbations get.

        Returns
        -------
        tensor of the shape of like
        """
        return self.eps * torch.erf(noise[:, :-2] / math.sqrt(2)).reshape(like.shape)


def random_points(ball, x, key, begin, rows=slice(None)):
    """Uniform points of the ball around some rows of a batch, whatever the batch.

    Parameters
    ----------
    ball : L2Ball or LinfBall
    x : tensor of shape (n, ...)
        The batch.
    key : tuple of int
        Seed of the draws.
    begin : int
        Number of its first row among all.
    rows : tensor of int or slice
        Which rows.

    Returns
    -------
    tensor like x[rows]
    """
    noise = normal_rows(key, begin, begin + len(x), x[0].numel() + 2)
    noise = torch.from_numpy(noise).to(x.device)[rows]
    return x[rows] + ball.sample(noise, like=x[rows])


def make_ball(norm: float, eps: float) -> L2Ball | LinfBall:
    """Make the ball of a norm.

    Parameters
    ----------
    norm : {2, numpy.inf}
        Norm that bounds the perturbation.
    eps : float
        Radius, in input units.

    Returns
    -------
    L2Ball or LinfBall

    Raises
    ------
    ValueError
        For any other norm, and for an eps that is negative or NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from advfeat.optim import make_ball
    >>> type(make_ball(np.inf, 0.1)).__name__
    'LinfBall'
    """
    return LinfBall(eps) if norm_name(norm) == "L∞" else L2Ball(eps)


def _radius(eps):
    try:
        radius = float(eps)
    except (TypeError, ValueError):
        radius = math.nan
    if not radius >= 0:
        raise ValueError(
            f"eps must be a number of at least 0, in input units. Got {eps!r} instead."
        )
    return radius

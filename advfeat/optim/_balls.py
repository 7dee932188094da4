"""Feasible sets around a sample: each knows its steepest direction, projection and noise."""

import math

import numpy as np
import torch


def _per_sample(values, like):
    """Reshape (n,) to broadcast against ``like`` of shape (n, ...)."""
    return values.view(-1, *[1] * (like.ndim - 1))


class L2Ball:
    """All perturbations with Euclidean norm at most ``eps`` (infinity: no constraint).

    Parameters
    ----------
    eps : float, in input units
    """

    def __init__(self, eps):
        self.eps = eps

    def direction(self, gradient):
        """Steepest ascent direction of norm 1; zero where the gradient is zero or not finite."""
        # Scaling by the largest entry first keeps the squares of tiny gradients from underflow.
        flat = gradient.flatten(1)
        scale = flat.abs().amax(1, keepdim=True)  # vector_norm takes ten times as long on a CPU
        usable = torch.isfinite(scale) & (scale > 0)
        flat = flat / torch.where(usable, scale, math.inf)  # 0, or NaN where it is not finite
        flat /= torch.linalg.vector_norm(flat, dim=1, keepdim=True).clamp_min(1)
        return flat.nan_to_num_().view_as(gradient)

    def project(self, delta):
        """Nearest perturbation in the ball."""
        if math.isinf(self.eps):
            return delta
        norm = torch.linalg.vector_norm(delta.flatten(1), dim=1)
        factor = self.eps / norm.clamp_min(max(self.eps, torch.finfo(norm.dtype).tiny))
        return delta * _per_sample(factor, delta)

    def sample(self, noise, like):
        """Uniform perturbations, from standard normal ``noise`` of shape (n, d + 2).

        The first d coordinates of a uniform point on the sphere in d + 2 dimensions are uniform
        in the d-dimensional ball.
        """
        point = noise / torch.linalg.vector_norm(noise, dim=1, keepdim=True)
        return self.eps * point[:, :-2].reshape(like.shape)


class LinfBall:
    """All perturbations with no entry larger than ``eps`` in absolute value.

    Parameters
    ----------
    eps : float, in input units
    """

    def __init__(self, eps):
        self.eps = eps

    def direction(self, gradient):
        """Steepest ascent direction: the sign; zero where the gradient is not finite."""
        return torch.nan_to_num(gradient, posinf=0.0, neginf=0.0).sign()

    def project(self, delta):
        """Nearest perturbation in the ball."""
        return delta.clamp(-self.eps, self.eps)

    def sample(self, noise, like):
        """Uniform perturbations, from standard normal ``noise`` of shape (n, d + 2)."""
        return self.eps * torch.erf(noise[:, :-2] / math.sqrt(2)).reshape(like.shape)


def make_ball(norm, eps):
    """L2Ball for norm 2, LinfBall for norm infinity."""
    return LinfBall(eps) if norm == np.inf else L2Ball(eps)

"""The per-sample adversary: its best perturbation, and the learner's best reply.

Everything is in coordinates along fixed orthogonal axes, where the model's precision matrix
is diagonal. The learner's problem is convex in the logarithms of the standard deviations.
"""

from typing import NamedTuple

import numpy as np
from scipy import linalg, optimize

_MAX_ITER = 100
_TOL = 4 * np.finfo(float).eps


class PointwiseStd(NamedTuple):
    """Robust standard deviations against the per-sample adversary.

    Attributes
    ----------
    std : ndarray of shape (n_axes,)
        Robust standard deviation along each axis.
    adversary_std : ndarray of shape (n_axes,)
        Root mean square of the perturbation along each axis.
    lambda_ : float
        Mean of the samples' Lagrange multipliers.
    n_iter : int
        Steps of L-BFGS.
    """

    std: np.ndarray
    adversary_std: np.ndarray
    lambda_: float
    n_iter: int


def worst_perturbation(V, precision, eps):
    r"""Perturbation of length ``eps`` that lowers each sample's likelihood most.

    Solves ``max (v + delta)' T (v + delta)`` over ``||delta|| <= eps`` with a diagonal
    ``T``: the maximum is at ``delta = (lambda T^-1 - I)^-1 v`` with ``lambda >= max T``.

    Parameters
    ----------
    V : ndarray of shape (n_samples, n_axes)
        Deviations from the class mean along the axes.
    precision : ndarray of shape (n_axes,)
        Positive diagonal of ``T``.
    eps : float
        Positive length of the perturbation.

    Returns
    -------
    delta : ndarray of shape (n_samples, n_axes)
        Perturbations of length ``eps``. Where a sample has no component along the axes of
        the largest precision the sign is free, and the positive one is taken.
    multiplier : ndarray of shape (n_samples,)
        Lagrange multipliers ``lambda``.

    References
    ----------
    Ilyas et al. 2019, Lemma 1.
    """
    top = int(np.argmax(precision))
    gap = precision[top] - precision
    pull = precision * V
    # multiplier = precision[top] + rise; every lower bound on the root comes from one axis.
    rise = np.max(np.abs(pull) / eps - gap, axis=1, initial=0.0)[:, None]
    for _ in range(_MAX_ITER):
        slack = gap + rise
        delta = np.divide(pull, slack, out=np.zeros_like(pull), where=slack > 0)
        length = np.sqrt(np.square(delta).sum(axis=1, keepdims=True))
        change = np.divide(np.square(delta), slack, out=np.zeros_like(pull), where=slack > 0)
        change = change.sum(axis=1, keepdims=True)
        # Newton for 1 / length, which is concave in the multiplier: monotone from the left.
        step = np.divide(
            (length / eps - 1) * np.square(length), change, out=np.zeros_like(rise), where=change > 0
        )
        rise += np.maximum(step, 0.0)
        if np.all(step <= _TOL * rise):
            break
    # No component along the top axes: what is left of the budget goes there.
    left = np.sqrt(np.maximum(eps**2 - np.square(delta).sum(axis=1), 0.0))
    free = (rise[:, 0] == 0) | (pull[:, top] == 0)
    delta[free, top] = left[free]
    return delta, precision[top] + rise[:, 0]


def pointwise_std(V, sample_weight, eps, start):
    """Robust standard deviations when every sample has its own budget.

    Minimises over ``sigma`` the mean of ``max_{||delta|| <= eps} sum_i (v_i + delta_i)^2 /
    (2 sigma_i^2)`` plus ``sum_i log sigma_i``, by L-BFGS on ``log sigma``.

    Parameters
    ----------
    V : ndarray of shape (n_samples, n_axes)
        Deviations from the class means along the axes.
    sample_weight : ndarray of shape (n_samples,)
        Weights that sum to 1.
    eps : float
        Positive length of the perturbations.
    start : ndarray of shape (n_axes,)
        First guess of the standard deviations.

    Returns
    -------
    PointwiseStd
        The solution.

    References
    ----------
    Ilyas et al. 2019, equation (12).
    """
    unit = eps
    V, start = V / unit, start / unit

    def loss(log_std):
        precision = np.exp(-2 * log_std)
        delta, _ = worst_perturbation(V, precision, 1.0)
        energy = precision * (sample_weight @ np.square(V + delta))
        return energy.sum() / 2 + log_std.sum(), 1 - energy

    result = optimize.minimize(
        loss,
        np.log(start),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 500, "ftol": 0.0, "gtol": 1e-9, "maxcor": 20},
    )
    std = np.exp(result.x)
    delta, multiplier = worst_perturbation(V, std**-2.0, 1.0)
    adversary_std = np.sqrt(sample_weight @ np.square(delta))
    multiplier = sample_weight @ multiplier
    return PointwiseStd(std * unit, adversary_std * unit, multiplier / unit / unit, result.nit)

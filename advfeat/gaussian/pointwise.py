"""The per-sample adversary: its best perturbation, and the learner's best reply.

Everything is in coordinates along fixed orthogonal axes, where the model's precision matrix
is diagonal. The learner's problem is convex in the logarithms of the standard deviations.
"""

from typing import NamedTuple

import numpy as np
from scipy import optimize

_MAX_ITER = 100
_TOL = 1e-14


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
    # multiplier = max T + rise; each axis alone gives a lower bound on the root.
    rise = np.max(np.abs(pull) / eps - gap, axis=1, initial=0.0, keepdims=True)
    for _ in range(_MAX_ITER):
        slack = gap + rise
        delta = np.divide(pull, slack, out=np.zeros_like(pull), where=slack > 0)
        length_2 = np.square(delta).sum(axis=1, keepdims=True)
        excess = np.sqrt(length_2) / eps - 1
        if np.all(excess <= _TOL):
            break
        # Newton for 1 / length, which is concave in the multiplier: monotone from the left.
        slope = np.divide(np.square(delta), slack, out=np.zeros_like(pull), where=slack > 0)
        slope = slope.sum(axis=1, keepdims=True)
        rise += np.divide(
            np.maximum(excess, 0.0) * length_2, slope, out=np.zeros_like(rise), where=slope > 0
        )
    # No component along the top axes: what is left of the budget goes there.
    free = rise[:, 0] == 0
    delta[free, top] = np.sqrt(np.maximum(eps**2 - length_2[free, 0], 0.0))
    return delta, precision[top] + rise[:, 0]


def pointwise_std(V, sample_weight, eps, start, multiplicity):
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
    multiplicity : ndarray of shape (n_axes,)
        Number of directions that an axis stands for: 1, or more where ``V`` is zero and
        the model is the same in several directions.

    Returns
    -------
    PointwiseStd
        The solution, per direction.

    References
    ----------
    Ilyas et al. 2019, equation (12).
    """
    V, start = V / eps, start / eps

    def loss(log_std):
        precision = np.exp(-2 * log_std)
        delta, _ = worst_perturbation(V, precision, 1.0)
        energy = precision * (sample_weight @ np.square(V + delta))
        return energy.sum() / 2 + multiplicity @ log_std, multiplicity - energy

    result = optimize.minimize(
        loss,
        np.log(start),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 1000, "ftol": 0.0, "gtol": 1e-8, "maxcor": 20},
    )
    std = np.exp(result.x)
    delta, multiplier = worst_perturbation(V, std**-2.0, 1.0)
    adversary_std = np.sqrt(sample_weight @ np.square(delta) / multiplicity)
    return PointwiseStd(
        std * eps, adversary_std * eps, sample_weight @ multiplier / eps / eps, result.nit
    )


def pointwise_spherical_std(V, sample_weight, eps):
    """:func:`pointwise_std` with one common standard deviation, in closed form.

    The adversary moves every sample straight away from its class mean.
    """
    n_axes = V.shape[1]
    length = np.linalg.norm(V, axis=1)
    std = np.sqrt(sample_weight @ np.square(length + eps) / n_axes)
    return PointwiseStd(
        np.full(n_axes, std),
        np.full(n_axes, eps / np.sqrt(n_axes)),
        sample_weight @ (1 + length / eps) / std / std,
        0,
    )


def robust_std_of_samples(X, y, sample_weight, scatter, eps, start):
    """Robust standard deviations of a whole model against the per-sample adversary.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Samples.
    y : ndarray of shape (n_samples,)
        Class numbers.
    sample_weight : ndarray of shape (n_samples,)
        Positive weights.
    scatter : ClassScatter
        Moments of the samples; its axes are kept.
    eps : float
        Positive length of the perturbations.
    start : RobustStd
        Solution for the average adversary, axes of all groups of classes in one row.

    Returns
    -------
    PointwiseStd
        The solution, axes of all groups in one row.
    """
    starts = start.std.reshape(len(scatter.axes), -1)
    std, adversary_std = starts.copy(), np.zeros_like(starts)
    multiplier, n_iter = 0.0, 0
    for g, (group, axes) in enumerate(zip(scatter.groups, scatter.axes, strict=True)):
        member = np.isin(y, group)
        if not member.any():  # a class whose samples all have weight zero
            continue
        weight = sample_weight[member] / sample_weight[member].sum()
        V, _ = axes.rotate(X[member] - scatter.mean[y[member]])
        if scatter.covariance_type == "spherical":
            solution = pointwise_spherical_std(V, weight, eps)
            std[g], adversary_std[g] = solution.std, solution.adversary_std
        else:
            # Directions without variance are all alike: one last axis stands for them.
            held = axes.std > 0
            number = np.where(held, np.cumsum(held) - 1, np.count_nonzero(held))
            _, first, multiplicity = np.unique(number, return_index=True, return_counts=True)
            V = np.hstack([V[:, held[: axes.n_axes]], np.zeros((len(V), int(not held.all())))])
            solution = pointwise_std(V, weight, eps, starts[g][first], multiplicity)
            std[g], adversary_std[g] = solution.std[number], solution.adversary_std[number]
        multiplier += scatter.weight[group].sum() / scatter.weight.sum() * solution.lambda_
        n_iter = max(n_iter, solution.n_iter)
    return PointwiseStd(std.ravel(), adversary_std.ravel(), multiplier, n_iter)

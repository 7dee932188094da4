"""The per-sample adversary: its best perturbation, and the learner's best reply.

Everything is in coordinates along fixed orthogonal axes, where the model's precision matrix
is diagonal. The learner's problem is convex in the logarithms of the standard deviations.
"""

from typing import NamedTuple

import numpy as np
from scipy import optimize
from sklearn.exceptions import ConvergenceWarning

from advfeat.gaussian.robust_covariance import ratio
from advfeat.utils._warnings import warn_caller

_MAX_ITER = 100
_N_STEPS, _N_STARTS = 1000, 10  # of L-BFGS
_TOL = 1e-14
_GTOL = 1e-8  # of L-BFGS, for the energy of a direction, which is 1 at the solution
_ENOUGH = 1e-6  # of it, for the axis taken for the lowest
_POOR = 1e-3  # error of an energy from which to warn
_NOTHING = 1e-8  # share of the budget: what differs by less is no better for the adversary
_ROUNDING = 1e-14  # relative: components that small are none
_ROUNDING_OUTSIDE = 1e-10  # the same in directions without variance, which are less sure


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
    share : ndarray of shape (n_axes,)
        How budgets that are free are spent, see `worst_perturbation`, so that the learner's
        standard deviations are its best reply.
    """

    std: np.ndarray
    adversary_std: np.ndarray
    lambda_: float
    n_iter: int
    share: np.ndarray


def worst_perturbation(V, precision, eps, share=None):
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
    share : ndarray of shape (n_axes,), optional
        Parts, which sum to 1, of the square of a free budget for the axes of the largest
        precision; the first of these gets all by default.

    Returns
    -------
    delta : ndarray of shape (n_samples, n_axes)
        Perturbations of length ``eps``. Where a sample has no component along the axes of the
        largest precision, what the others leave of the budget is free: any direction among
        these axes does the same harm. It is spent by ``share``, with positive signs.
    multiplier : ndarray of shape (n_samples,)
        Lagrange multipliers ``lambda``; the largest precision where budget is free.

    References
    ----------
    Ilyas et al. 2019, Lemma 1.
    """
    top = precision.max()
    gap = top - precision
    pull = precision * V
    # multiplier = max T + rise; each axis alone gives a lower bound on the root.
    rise = np.max(np.abs(pull) / eps - gap, axis=1, initial=0.0, keepdims=True)
    for _ in range(_MAX_ITER):
        slack = gap + rise
        delta = ratio(pull, slack)
        length_2 = np.square(delta).sum(axis=1, keepdims=True)
        excess = np.sqrt(length_2) / eps - 1
        if np.all(excess <= _TOL):
            break
        # Newton for 1 / length, which is concave in the multiplier: monotone from the left.
        slope = ratio(np.square(delta), slack).sum(axis=1, keepdims=True)
        rise += ratio(np.maximum(excess, 0.0) * length_2, slope)
    free = rise[:, 0] == 0
    if share is None:
        share = np.arange(len(precision)) == np.argmax(precision)
    delta[free] += np.sqrt(np.maximum(eps**2 - length_2[free], 0.0) * share)
    return delta, top + rise[:, 0]


def pointwise_std(V, sample_weight, eps, start, multiplicity):
    """Robust standard deviations when every sample has its own budget.

    Minimises over ``sigma`` the mean of ``max_{||delta|| <= eps} sum_i (v_i + delta_i)^2 /
    (2 sigma_i^2)`` plus ``sum_i log sigma_i``.

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

    Warns
    -----
    ConvergenceWarning
        If L-BFGS stops before the solution.

    Notes
    -----
    Convex in ``u = log sigma``, but with a kink where several axes are the lowest: a budget that
    is free goes to whichever is lower. So one axis is taken for the lowest, all others lie above
    it, ``u_i = u_low + rise_i`` with bounds ``rise_i >= 0``, and the loss is smooth. If the lowest
    wants to rise at the solution, another one that lies on its bound takes its place.

    References
    ----------
    Ilyas et al. 2019, equation (12).
    """
    V = without_rounding(V / eps)
    u, n_iter = np.log(start / eps), 0
    low = np.argmin(u)
    for _ in range(len(u) + 1):
        u, n_steps = _above(low, V, sample_weight, u, multiplicity)
        n_iter += n_steps
        _, own = _energies(low, V, sample_weight, u)
        # What free budgets must fill; if the lowest has more than enough, another takes its place.
        lacks = np.where(u == u[low], multiplicity - own, 0.0)
        if lacks[low] >= -_ENOUGH or lacks.max() <= _ENOUGH:
            break
        low = np.argmax(lacks)
    lacks = lacks.clip(min=0)
    total = lacks.sum()
    share = lacks / total if total > 0 else np.arange(len(u)) == low
    delta, multiplier = worst_perturbation(V, np.exp(-2 * u), 1.0, share)
    energy = np.exp(-2 * u) * (sample_weight @ np.square(V + delta))
    error = np.abs(energy / multiplicity - 1).max()
    if not error <= _POOR:
        warn_caller(
            "The search for the reply to the pointwise adversary stopped before it was found: "
            f"the variance after the attack differs by {error:.2g} of its value from the model's. "
            "Use adversary='average', or leave out features that hardly vary.",
            ConvergenceWarning,
        )
    adversary_std = np.sqrt(sample_weight @ np.square(delta) / multiplicity)
    return PointwiseStd(
        np.exp(u) * eps,
        adversary_std * eps,
        sample_weight @ multiplier / eps / eps,
        n_iter,
        share / multiplicity,
    )


def rotated(V, axes):
    """Coordinates along `PrincipalAxes` and what lies outside, without what rounding has left."""
    coordinates, outside = axes.rotate(V)
    if axes.axes is None:
        return coordinates, outside
    length = np.linalg.norm(V, axis=1, keepdims=True)
    share = np.where(axes.std[: axes.n_axes] > 0, _ROUNDING, _ROUNDING_OUTSIDE)
    coordinates[np.abs(coordinates) <= share * length] = 0
    if outside is not None:
        outside[np.linalg.norm(outside, axis=1) <= _ROUNDING_OUTSIDE * length[:, 0]] = 0
    return coordinates, outside


def without_rounding(V):
    """Deviations in units of the budget, of which those that are nothing beside it are zero.

    Else such a component would decide the direction of a whole budget.
    """
    return np.where(np.abs(V) <= _NOTHING, 0.0, V)


def _above(low, V, sample_weight, u, multiplicity):
    """Logarithms of the best standard deviations of which none is below that of one axis."""

    def expand(z):
        return np.where(np.arange(len(z)) == low, z[low], z[low] + z)

    def loss(z):
        u = expand(z)
        energy, _ = _energies(low, V, sample_weight, u)
        gradient = multiplicity - energy
        gradient[low] = gradient.sum()
        return energy.sum() / 2 + multiplicity @ u, gradient

    start = u - u[low]
    start[low] = u[low]
    z, n_iter = start.clip(min=np.where(np.arange(len(u)) == low, -np.inf, 0)), 0
    bounds = [(None if i == low else 0, None) for i in range(len(u))]
    settings = {"maxiter": _N_STEPS, "ftol": 0.0, "gtol": _GTOL, "maxcor": 20}
    for _ in range(_N_STARTS):
        result = optimize.minimize(
            loss, z, jac=True, method="L-BFGS-B", bounds=bounds, options=settings
        )
        z, n_iter = result.x, n_iter + result.nit
        upwards = (z == 0) & (np.arange(len(u)) != low) & (result.jac > 0)  # held by its bound
        if np.abs(np.where(upwards, 0, result.jac)).max() <= _ENOUGH:
            break  # else its curvatures led astray
    return expand(z), n_iter


def _energies(low, V, sample_weight, u):
    """Energies of the axes under attack, where one gets all free budgets, and without these."""
    precision = np.exp(-2 * u)
    delta, multiplier = worst_perturbation(V, precision, 1.0, np.arange(len(u)) == low)
    moved = np.square(V + delta)
    energy = precision * (sample_weight @ moved)
    own, bound = energy.copy(), multiplier > precision.max()
    own[low] = precision[low] * (sample_weight[bound] @ moved[bound, low])
    return energy, own


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
        np.full(n_axes, 1 / n_axes),
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
    share = np.full_like(starts, 1 / starts.shape[1])
    multiplier, n_iter = 0.0, 0
    for g, member in enumerate(scatter.members(y)):
        group, axes = scatter.groups[g], scatter.axes[g]
        if not len(y[member]):  # a class whose samples all have weight zero
            continue
        weight = sample_weight[member] / sample_weight[member].sum()
        V, _ = rotated(X[member] - scatter.mean[y[member]], axes)
        if scatter.covariance_type == "spherical":
            solution = pointwise_spherical_std(V, weight, eps)
            number = slice(None)
        else:
            # Directions without variance are all alike: one last axis stands for them.
            held = axes.std > 0
            number = np.where(held, np.cumsum(held) - 1, np.count_nonzero(held))
            _, first, multiplicity = np.unique(number, return_index=True, return_counts=True)
            V = np.hstack([V[:, held[: axes.n_axes]], np.zeros((len(V), int(not held.all())))])
            solution = pointwise_std(V, weight, eps, starts[g][first], multiplicity)
        std[g], adversary_std[g] = solution.std[number], solution.adversary_std[number]
        share[g] = solution.share[number]
        multiplier += scatter.weight[group].sum() / scatter.weight.sum() * solution.lambda_
        n_iter = max(n_iter, solution.n_iter)
    return PointwiseStd(std.ravel(), adversary_std.ravel(), multiplier, n_iter, share.ravel())

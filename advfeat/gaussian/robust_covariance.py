"""Closed form of the robust Gaussian covariance: mathematics on standard deviations.

Every function works on the standard deviations ``s`` of the data along fixed orthogonal
axes and never sees a matrix. `GaussianRobustMLE` is the estimator on top.
"""

from typing import NamedTuple

import numpy as np

from advfeat.utils._arrays import as_floats

_MAX_ITER = 50
# Newton converges quadratically: after a step of this size the error is below rounding.
_LAST_STEP = 1e-9


class RobustStd(NamedTuple):
    """Robust standard deviations, the saddle point of one or several budgets.

    Attributes
    ----------
    std : ndarray of shape (n_axes,) or (n_eps, n_axes)
        Robust standard deviation sigma along each axis.
    adversary_std : ndarray of the same shape
        Standard deviation delta of the adversary's perturbation, ``sigma - s``.
    null_std : float or ndarray of shape (n_eps,)
        ``t = lambda ** (-1/2)``, the robust standard deviation where ``s = 0``.
    n_iter : int
        Iterations of the root finder (the largest number over the budgets).
    """

    std: np.ndarray
    adversary_std: np.ndarray
    null_std: np.ndarray
    n_iter: int

    @property
    def lambda_(self):
        """Lagrange multiplier of the budget, infinite for a zero budget."""
        with np.errstate(divide="ignore", over="ignore"):
            return 1.0 / self.null_std / self.null_std


def robust_std(s, eps, *, weights=None):
    r"""Robust maximum likelihood standard deviations under an average L2 budget.

    The adversary moves every sample ``x`` by ``delta(x)`` to raise the Gaussian negative
    log-likelihood, subject to :math:`E\|\delta\|_2^2 = \epsilon^2`; the learner minimises
    what results. The saddle point is, along each axis,

    .. math:: \sigma = s/2 + \sqrt{s^2/4 + 1/\lambda}, \quad
              \delta = \sigma - s = 1 / (\lambda \sigma), \quad
              \sum_i w_i \delta_i^2 = \epsilon^2,

    where the last equation has exactly one root for every budget ``eps > 0``.

    Parameters
    ----------
    s : array-like of shape (n_axes,)
        Standard deviations of the data along orthogonal axes; zeros are allowed.
    eps : float or array-like of shape (n_eps,)
        Root mean square length of the perturbation, in the units of ``s``.
    weights : array-like of shape (n_axes,), default=None
        Share of each axis in the budget: its multiplicity, or its class's probability.
        ``None`` counts every axis once.

    Returns
    -------
    RobustStd
        Named tuple ``(std, adversary_std, null_std, n_iter)`` with property ``lambda_``.

    Raises
    ------
    ValueError
        If ``s``, ``eps`` or ``weights`` is negative or not finite, or all weights are zero.

    References
    ----------
    Ilyas et al. 2019, equations (21), (26) and (27), where (27) should read epsilon squared.

    Examples
    --------
    >>> from advfeat.gaussian.robust_covariance import robust_std
    >>> robust = robust_std([3.0, 4.0], eps=0.0)
    >>> robust.std
    array([3., 4.])
    >>> robust = robust_std([2.0, 2.0], eps=2**0.5)
    >>> robust.std, float(round(robust.lambda_, 12))
    (array([3., 3.]), 0.333333333333)
    """
    s, weights = _check_axes(s, weights)
    eps = check_budget(eps, "eps", "robust_std")
    # Scaled by a power of two, which is exact, no square below can overflow or vanish.
    budget = np.atleast_1d(eps)[:, None]
    unit = np.exp2(np.frexp(np.maximum(s.max(), budget))[1] - 1)
    no_budget = budget == 0
    t, n_iter = _solve(s / unit, np.where(no_budget, 1.0, budget / unit), weights)
    t = np.where(no_budget, 0.0, t * unit)
    std = s / 2 + np.hypot(s / 2, t)
    adversary_std = _adversary_std(std, t)
    if eps.ndim == 0:
        return RobustStd(std[0], adversary_std[0], t[0, 0], n_iter)
    return RobustStd(std, adversary_std, t[:, 0], n_iter)


def relaxation(robust, s, weights):
    """Tell how well a budget on average stands in for a budget per sample.

    Parameters
    ----------
    robust : RobustStd
        Solution of :func:`robust_std`.
    s, weights : ndarray of shape (n_axes,)
        Its arguments.

    Returns
    -------
    d_eff : float or ndarray of shape (n_eps,)
        Effective number of directions that share the budget,
        ``(sum delta^2)^2 / sum delta^4``; infinite without a budget.
    error : float or ndarray of shape (n_eps,)
        Estimate of the largest relative difference between the variances that are robust
        to the two adversaries: ``max(delta s / sigma^2) / (2 d_eff)``, exact to leading
        order for Gaussian data with equal ``s``.
    """
    delta, std = robust.adversary_std, robust.std
    largest = delta.max(axis=-1, keepdims=True)
    share = np.square(ratio(delta, largest))
    with np.errstate(divide="ignore", invalid="ignore"):
        d_eff = np.square(share @ weights) / (np.square(share) @ weights)
    d_eff = np.where(largest[..., 0] > 0, d_eff, np.inf)[()]
    moved = ratio(delta, std)
    return d_eff, (moved * (1 - moved)).max(axis=-1) / (2 * d_eff)


def lambda_bounds(s, eps, weights, *, tight):
    """Bounds on the multiplier, from Theorem 2 or from the bracket of the root finder.

    Parameters
    ----------
    s, eps, weights
        Arguments of :func:`robust_std`, with one budget.
    tight : bool
        Whether to give the sharper bounds, which do not need the solution.

    Returns
    -------
    low, high : float
        The bounds.
    """
    if eps == 0:
        return np.inf, np.inf
    s, weights = s[weights > 0], weights[weights > 0]
    if tight:
        low, high = bracket(s[None], np.array([[eps]]), weights)
        return 1 / high.item() / high.item(), 1 / low.item() / low.item()
    std, dimension = robust_std(s, eps, weights=weights).std, weights.sum()
    trace = weights @ np.square(std)
    unit = s.max() or 1.0  # squares of squares leave the range of floats soon
    frobenius = np.linalg.norm(np.sqrt(weights) * np.square(s / unit))
    low = dimension / trace * (1 + np.sqrt(dimension) * s.min() / eps)
    high = (1 + np.sqrt(dimension * frobenius) * (unit / eps)) / std.min() ** 2
    return float(low), float(high)


def vulnerability(s, model_std, C, weights):
    """Rise of twice the negative log-likelihood under an attack priced ``C ||delta||^2``.

    Parameters
    ----------
    s, model_std, weights : ndarray of shape (n_axes,)
        Standard deviations of the data and of the attacked model, and weights of the axes.
    C : ndarray of shape () or (n,)
        Positive prices.

    Returns
    -------
    rise : float or ndarray of shape (n,)
        ``tr(S Sigma^-1 [(I + (C Sigma - I)^-1)^2 - I])``, infinite unless ``C Sigma > I``.
    """
    s, model_std, weights = s[weights > 0], model_std[weights > 0], weights[weights > 0]
    surplus = C[..., None] * np.square(model_std) - 1
    finite = surplus.min(axis=-1) > 0
    surplus = np.where(finite[..., None], surplus, 1.0)
    rise = ((2 + 1 / surplus) / surplus) @ (weights * np.square(ratio(s, model_std)))
    return np.where(finite, rise, np.inf)[()]


def min_alignment(largest, smallest):
    """Worst cosine between a vector and its image under a precision matrix.

    Parameters
    ----------
    largest, smallest : float
        Extreme standard deviations of the model.

    Returns
    -------
    cosine : float
        ``2 sqrt(kappa) / (1 + kappa)`` with ``kappa = (largest / smallest)^2``.
    along_largest, along_smallest : float
        Components of the unit vector that attains it.
    """
    length = np.hypot(largest, smallest)
    if largest == smallest:
        return 1.0, 1.0, 0.0
    along_largest, along_smallest = largest / length, smallest / length
    return float(2 * along_largest * along_smallest), along_largest, along_smallest


def _check_axes(s, weights):
    """Check standard deviations and their weights; return both as float arrays."""
    s = np.asarray(s, dtype=float)
    weights = np.ones_like(s) if weights is None else np.asarray(weights, dtype=float)
    for name, value in (("s", s), ("weights", weights)):
        if value.ndim != 1 or value.size == 0 or not np.all((value >= 0) & np.isfinite(value)):
            raise ValueError(
                f"The '{name}' parameter of robust_std must be a non-empty one-dimensional "
                f"array of non-negative finite numbers. Got {value!r} instead."
            )
    if weights.shape != s.shape or not weights.any():
        raise ValueError(
            "The 'weights' parameter of robust_std must have one entry per standard deviation "
            f"and a positive sum. Got shape {weights.shape} and sum {weights.sum()} for "
            f"{s.size} standard deviations instead."
        )
    return s, weights


def ratio(a, b):
    """Divide a by b; zero where b is zero."""
    shape = np.broadcast_shapes(np.shape(a), np.shape(b))
    return np.divide(a, b, out=np.zeros(shape), where=b > 0)


def _adversary_std(std, t):
    """Adversary's ``t**2 / sigma``; zero where the budget and the data are both zero."""
    return t * ratio(t, std)


def _solve(s, eps, weights):
    """Root ``t`` of ``sum w delta(t)^2 = eps^2``, all budgets at once.

    ``log ||delta||`` against ``log t`` rises with a slope between 1 and 2, so Newton's
    method on the logarithms needs a handful of steps, whatever the scales are.
    """
    low, high = bracket(s, eps, weights)
    t, n_iter, step = high, 0, np.inf
    while np.abs(step).max() > _LAST_STEP and n_iter < _MAX_ITER:
        n_iter += 1
        std = s / 2 + np.hypot(s / 2, t)
        delta = _adversary_std(std, t)
        largest = delta.max(axis=1, keepdims=True)
        share = weights * np.square(delta / largest)
        total = share.sum(axis=1, keepdims=True)
        excess = np.log(largest * np.sqrt(total) / eps)
        slope = (share * (2 * std / (std + delta))).sum(axis=1, keepdims=True) / total
        step = excess / slope
        t = np.clip(t * np.exp(-step), low, high)
    return t, n_iter


def bracket(s, eps, weights):
    """Bounds ``low <= t <= high`` on the root, equal when all of ``s`` are equal.

    With ``e = eps / sqrt(d)``: ``low`` puts the power mean of exponent -2 of ``s`` in
    ``sqrt(e (e + mean))``; ``high`` takes the best of the arithmetic means of the k smallest,
    each with the whole budget to itself. Both follow from Jensen's inequality.

    Parameters
    ----------
    s, weights : ndarray of shape (n_axes,)
        Standard deviations (or (n_eps, n_axes), one row per budget) and weights.
    eps : ndarray of shape (n_eps, 1)
        Positive budgets.

    Returns
    -------
    low, high : ndarray of shape (n_eps, 1)
        The bounds.
    """
    counted = weights > 0
    s, weights = s[..., counted], weights[counted]
    order = np.argsort(s[0])
    s, weights = s[:, order], weights[order]
    smallest = s[:, :1]
    share = np.divide(smallest, s, out=np.ones_like(s), where=s > 0)
    count = np.cumsum(weights)
    e = eps / np.sqrt(count)
    power_mean = smallest / np.sqrt(np.square(share) @ weights / count[-1])[:, None]
    mean = np.cumsum(weights * s, axis=1) / count
    low = np.sqrt(e[:, -1:]) * np.sqrt(e[:, -1:] + power_mean)
    high = np.min(np.sqrt(e) * np.sqrt(e + mean), axis=1, keepdims=True)
    return low, np.maximum(low, high)


def check_budget(eps, name, method):
    """Non-negative finite number or one-dimensional array of them, as an array."""
    eps = as_floats(eps, f"The '{name}' parameter of {method}")
    if eps.ndim > 1 or eps.size == 0 or not np.all((eps >= 0) & np.isfinite(eps)):
        raise ValueError(
            f"The '{name}' parameter of {method} must be a non-negative finite number or a "
            f"one-dimensional array of them. Got {eps!r} instead."
        )
    return eps

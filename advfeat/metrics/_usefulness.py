"""The paper's own quantities: how useful a feature is, and how much of that is robust."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from advfeat.attacks._adversarial_examples import ATTACK_CONSTRAINTS
from advfeat.attacks._attackable import attackable_view
from advfeat.attacks._checks import warn_if_features_blind
from advfeat.datasets._torch_data import unpack_data
from advfeat.optim import (
    FrozenNetwork,
    HalfCosine,
    L2Ball,
    LinfBall,
    feature_value,
    make_ball,
    projected_gradient,
    useful_radius,
)
from advfeat.optim._balls import random_points
from advfeat.utils._batches import Forward, run_batches
from advfeat.utils._checks import batch_tensor
from advfeat.utils._labels import encode_labels
from advfeat.utils._random import draw_seed
from advfeat.utils._rounding import warn_of_eps
from advfeat.utils._sklearn import validate_params
from advfeat.utils._typing import Bounds, Inputs, RandomState

_ROUNDING = 1e-12  # of a correlation, of features without an offset


@validate_params(
    {name: ATTACK_CONSTRAINTS[name] for name in ("batch_size", "bounds")},
    prefer_skip_nested_validation=True,
)
def feature_usefulness(
    estimator: Any,
    X: Inputs,
    y: ArrayLike | None = None,
    *,
    batch_size: int = 256,
    bounds: Bounds = "auto",
) -> NDArray:
    """Measure the usefulness rho of every penultimate feature, one class against the rest.

    With f standardised to mean 0 and variance 1 on X, and y_c = +1 for class c, -1 otherwise,
    rho = E[y_c f(x)]. A negative value says that -f is useful.

    Parameters
    ----------
    estimator : fitted classifier
        See `adversarial_examples`.
    X : array-like of shape (n, d) or (n, C, H, W), or torch Dataset of (input, label) items
        Samples, in input units (images in [0, 1], or uint8).
    y : array-like of shape (n,), default=None
        None for a Dataset, which has its own. Samples whose label the estimator does not know
        count to the rest of every class.
    batch_size : int, default=256
        Samples worked on together. Memory grows with it; the result depends on it by rounding
        only.
    bounds : "auto", None or (low, high), default="auto"
        See `adversarial_examples`.

    Returns
    -------
    rho : ndarray of shape (n_classes, n_hidden)
        Rows in the order of the classes; NaN for features that are constant on X.

    Raises
    ------
    NotFittedError
        If the estimator is not fitted.
    TypeError
        If no gradients can be had from the estimator.
    ValueError
        For unusable X, y, ``batch_size`` or ``bounds``, or if the network does not end in a linear
        layer.

    References
    ----------
    Ilyas et al. 2019, eq. 1.

    Examples
    --------
    >>> from advfeat import StandardClassifier, feature_usefulness
    >>> from advfeat.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> clf = StandardClassifier(max_epochs=3, random_state=0).fit(X[:1000], y[:1000])
    >>> feature_usefulness(clf, X[1000:], y[1000:]).shape
    (10, 32)
    """
    X, y = unpack_data(estimator, X, y)
    view = _view(estimator, X, "fp32", bounds)
    sign = _signs(y, view)
    features = _features(view.network, view.X, batch_size)
    return _rho(sign, features, *_standardise(features))


@validate_params(ATTACK_CONSTRAINTS, prefer_skip_nested_validation=True)
def robust_feature_usefulness(
    estimator: Any,
    X: Inputs,
    y: ArrayLike | None = None,
    *,
    norm: float,
    eps: float,
    n_steps: int = 20,
    step_size: float | None = None,
    random_start: bool = False,
    n_restarts: int = 1,
    batch_size: int = 256,
    n_jobs: int | None = None,
    bounds: Bounds = "auto",
    precision: str = "fp32",
    random_state: RandomState = 0,
    verbose: int = 1,
) -> NDArray:
    """Measure the robust usefulness gamma of every penultimate feature, one class to the rest.

    gamma = E[inf over the ball of y_c f(x + delta)], with f standardised as in
    `feature_usefulness`. The infimum is found by projected gradient on each feature alone, so
    the value is an upper bound. Where rho is negative, -f is the useful feature and is measured
    instead.

    Parameters
    ----------
    estimator : fitted classifier
        See `adversarial_examples`.
    X : array-like of shape (n, d) or (n, C, H, W), or torch Dataset of (input, label) items
        Samples, in input units (images in [0, 1], or uint8).
    y : array-like of shape (n,), default=None
        As in `feature_usefulness`.
    norm : {2, numpy.inf}
        Norm that bounds the perturbation; no default, as robustness without its norm says nothing.
    eps : float
        Radius, in input units.
    n_steps, step_size, random_start, n_restarts
        As in `adversarial_examples`, but ``random_start`` is False by default; ``n_restarts``
        needs it: without it there is one run.
    batch_size : int, default=256
        Searches, one for each sample, feature and direction, that run together.
    n_jobs, bounds, precision, random_state, verbose
        As in `adversarial_examples`.

    Returns
    -------
    gamma : ndarray of shape (n_classes, n_hidden)
        Robust usefulness of f where rho >= 0 and of -f where rho < 0, so that it is at most
        ``|rho|``; NaN for features that are constant on X. A useful feature is robust if
        gamma > 0. Measured in fp32 whatever the precision of the search.

    Raises
    ------
    NotFittedError
        If the estimator is not fitted.
    TypeError
        If no gradients can be had from the estimator.
    ValueError
        For unusable X, y or settings, or if the network does not end in a linear layer.

    Warns
    -----
    EvaluationWarning
        If the network is random, or its features have no gradient: see
        `advfeat.exceptions.EvaluationWarning`.

    References
    ----------
    Ilyas et al. 2019, eq. 2.

    Examples
    --------
    >>> from advfeat import StandardClassifier, robust_feature_usefulness
    >>> from advfeat.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> clf = StandardClassifier(max_epochs=3, random_state=0).fit(X[:1000], y[:1000])
    >>> gamma = robust_feature_usefulness(
    ...     clf, X[1000:1050], y[1000:1050], norm=2, eps=0.25, n_steps=3
    ... )
    >>> gamma.shape
    (10, 32)
    """
    X, y = unpack_data(estimator, X, y)
    view = _view(estimator, X, precision, bounds)
    judge = view.network.in_fp32(view.X)
    warn_of_eps(view.X, norm, eps)
    sign = _signs(y, view)
    features = _features(judge, view.X, batch_size)
    mean, std = _standardise(features)
    warn_if_features_blind(judge, view.X, np.flatnonzero(np.isfinite(std)), norm, eps)
    n, n_hidden = features.shape
    radius = useful_radius(norm, eps, view.bounds, view.X.shape[1:])
    batch_size = int(batch_size)  # NumPy's small integers overflow
    job = ExtremeSearch(
        network=view.network,
        judge=judge,
        bounds=view.bounds,
        ball=make_ball(norm, radius),
        step_size=HalfCosine(radius if step_size is None else step_size, n_steps),
        n_steps=n_steps,
        n_restarts=n_restarts if random_start else 1,  # else all alike
        seed=draw_seed(random_state) if random_start else None,
        n_hidden=n_hidden,
        batch_size=batch_size,
    )
    extremes = run_batches(
        job,
        (view.X,),
        batch_size=max(1, batch_size // (2 * n_hidden)),
        n_jobs=n_jobs,
        desc=f"usefulness eps={eps:g}",
        verbose=verbose,
    )
    lowest = np.minimum(features, extremes[0])
    highest = np.maximum(features, extremes[1])
    low, high = (lowest - mean) / std, (highest - mean) / std
    positive, negative = sign > 0, sign < 0
    # inf of y_c f is the lowest f inside the class and minus the highest f outside of it.
    of_f = (positive @ low - negative @ high) / n
    of_minus_f = (negative @ low - positive @ high) / n
    return np.where(_rho(sign, features, mean, std) >= 0, of_f, of_minus_f)


def _rho(sign, features, mean, std):
    """E[y_c f(x)]; what rounding leaves of zero, as of classes that y lacks, has no sign."""
    rho = sign @ ((features - mean) / std) / len(features)
    return np.where(np.abs(rho) < _ROUNDING * (1 + np.abs(mean) / std), 0, rho)


@dataclass(frozen=True, eq=False, kw_only=True)
class ExtremeSearch:
    """The job of finding the lowest and the highest value of every feature in each sample's ball.

    Each (sample, feature, side) is a search of its own; many run in one batch of the network.

    Parameters
    ----------
    network : FrozenNetwork
    judge : FrozenNetwork
        The same in fp32, in which features are measured.
    bounds : (low, high) or None
    ball : L2Ball or LinfBall
        The feasible perturbations.
    step_size : callable
    n_steps : int
        Number of gradient steps.
    n_restarts : int
    seed : int or None
        Of the random starts; None starts at the sample.
    n_hidden : int
        Number of features.
    batch_size : int
        Searches that run together.
    """

    network: FrozenNetwork
    judge: FrozenNetwork
    bounds: tuple | None
    ball: L2Ball | LinfBall
    step_size: Callable
    n_steps: int
    n_restarts: int
    seed: int | None
    n_hidden: int
    batch_size: int

    def __call__(self, begin, X):
        """Return the lowest and the highest features found, (n, n_hidden) each."""
        x = batch_tensor(X, self.network.device)
        shape = (len(x), self.n_hidden, 2)
        row, feature, side = (axis.ravel() for axis in np.indices(shape))
        target = np.stack([feature, 2 * side - 1], 1).astype(np.float32)
        row, target = (torch.from_numpy(a).to(x.device) for a in (row, target))
        best = np.full(len(row), -np.inf, dtype=np.float32)
        for restart in range(self.n_restarts):
            start = None
            if self.seed is not None:
                start = random_points(self.ball, x, (self.seed, restart), begin)
            for i in range(0, len(row), self.batch_size):
                some = slice(i, i + self.batch_size)
                rows = row[some]
                found = projected_gradient(
                    self.network.inversion_features,
                    x[rows],
                    target[some],
                    feature_value,
                    ball=self.ball,
                    bounds=self.bounds,
                    step_size=self.step_size,
                    n_steps=self.n_steps,
                    start=None if start is None else start[rows],
                    keep="best",
                )
                with torch.no_grad():
                    value = feature_value(self.judge.features(found), target[some])
                best[some] = np.fmax(best[some], value.cpu().numpy())
        lowest, highest = np.moveaxis(best.reshape(shape), 2, 0)
        return -lowest, highest


def _view(estimator, X, precision, bounds):
    view = attackable_view(estimator, X, precision, bounds)
    view.network.verify(view.X).require_features()
    return view


def _features(network, X, batch_size):
    job = Forward(network.features, network.device)
    return run_batches(job, (X,), batch_size=batch_size)[0].astype(np.float64)


def _signs(y, view):
    """y_c for every class: (n_classes, n) of +1 and -1."""
    index = encode_labels(y, view.classes, len(view.X), unknown="mark")
    return np.where(np.arange(len(view.classes))[:, None] == index, 1.0, -1.0)


def _standardise(features):
    mean, std = features.mean(0), features.std(0)
    constant = std <= 1e-6 * np.maximum(np.abs(mean), 1e-30)
    return mean, np.where(constant, np.nan, std)

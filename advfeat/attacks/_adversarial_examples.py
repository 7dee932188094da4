"""Adversarial examples for a fitted estimator: the strongest found for each sample."""

import inspect
from numbers import Integral, Real
from typing import Any

from numpy.typing import ArrayLike, NDArray

from advfeat.attacks._attack import AttackTarget
from advfeat.attacks._checks import warn_if_beaten, warn_if_blind
from advfeat.utils._batches import run_batches
from advfeat.utils._norms import NORM_CONSTRAINT
from advfeat.utils._sklearn import (
    Interval,
    StrOptions,
    validate_parameter_constraints,
    validate_params,
)
from advfeat.utils._typing import Bounds, Inputs, RandomState

ATTACK_CONSTRAINTS = {
    "norm": NORM_CONSTRAINT,
    "eps": [Interval(Real, 0, None, closed="left")],
    "step_size": [Interval(Real, 0, None, closed="neither"), None],
    "n_steps": [Interval(Integral, 1, None, closed="left")],
    "random_start": ["boolean"],
    "n_restarts": [Interval(Integral, 1, None, closed="left")],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "n_jobs": [Integral, None],
    "bounds": [StrOptions({"auto"}), "array-like", None],
    "precision": [StrOptions({"fp32", "bf16"})],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}


@validate_params(ATTACK_CONSTRAINTS, prefer_skip_nested_validation=True)
def adversarial_examples(
    estimator: Any,
    X: Inputs,
    y: ArrayLike | None = None,
    *,
    norm: float,
    eps: float,
    n_steps: int = 20,
    step_size: float | None = None,
    random_start: bool = True,
    n_restarts: int = 1,
    batch_size: int = 256,
    n_jobs: int | None = None,
    bounds: Bounds = "auto",
    precision: str = "fp32",
    random_state: RandomState = 0,
    verbose: int = 1,
) -> tuple[NDArray, NDArray]:
    """Perturb each sample, within eps, so that the estimator misclassifies it.

    Each restart runs projected gradient ascent on the margin to the nearest other class, then on
    the cross-entropy, then on the margin to each of the nine most likely wrong classes in turn
    (if there are more than two); samples already misclassified drop out. Steps get shorter as a
    half cosine.
    Whether an example fools the network is judged in fp32 on the final example.

    Parameters
    ----------
    estimator : fitted classifier
        advfeat classifier, skorch net, linear scikit-learn classifier, or a Pipeline that ends
        in one, which is attacked at its last step: eps and the examples are then in the units
        that the earlier steps' ``transform`` returns.
    X : array-like of shape (n, d) or (n, C, H, W), or torch Dataset of (input, label) items
        Samples, in input units (images in [0, 1], or uint8).
    y : array-like of shape (n,), default=None
        True labels; None for a Dataset, which has its own. A label that the estimator does not
        know (a fold of a cross-validation may have one that the training had not) counts as
        misclassified, as in scikit-learn's accuracy.
    norm : {2, numpy.inf}
        Of the ball.
    eps : float
        Radius, in input units. With 0 nothing is moved.
    n_steps : int, default=20
        Steps of each run. More finds somewhat more, at proportional cost.
    step_size : float, default=None
        Length of the first step, in input units; eps by default.
    random_start : bool, default=True
        Whether runs start at a random point of the ball.
    n_restarts : int, default=1
        Times that all runs are made, each from other random points, on the samples that still
        withstand. The worst for each sample is kept. Without ``random_start`` there is one.
    batch_size : int, default=256
        Samples attacked together. More needs more memory and is faster on a GPU; results differ
        by rounding at most.
    n_jobs : int, default=None
        Batches worked on at the same time. 1 works in this process, None leaves it to joblib (one
        job, or what ``joblib.parallel_config`` says, which may be a cluster, see "Scaling out").
        More pays for small networks and long work only, and never beyond the number of cores,
        since torch uses all cores for one batch. The result does not depend on it.
    bounds : "auto", None or (low, high), default="auto"
        Valid range of the inputs, for estimators that have no bounds of their own (skorch nets,
        scikit-learn's): two numbers, or arrays with one for each channel (feature). "auto":
        [0, 1] for images, unbounded for (n, d); an advfeat classifier's own.
    precision : {"fp32", "bf16"}, default="fp32"
        Of the attack; "bf16" is faster where the hardware has it. Examples are judged in fp32.
    random_state : int, RandomState or None, default=0
        Of the random starts. 0 and not None, unlike in estimators, so that a score that is
        computed twice is the same.
    verbose : int, default=1
        Whether work of more than two seconds shows a progress bar.

    Returns
    -------
    X_adv : ndarray like X, float32
        Misclassified where an example was found; elsewhere the sample itself if it is already
        misclassified, or the example with the largest margin loss.
    fooled : ndarray of shape (n,), bool
        Whether the estimator misclassifies ``X_adv``.

    Raises
    ------
    NotFittedError
        If the estimator is not fitted.
    TypeError
        If no gradients can be had from the estimator.
    ValueError
        For unusable X, y or settings: values outside the bounds, bounds for an advfeat classifier,
        which has its own, and text for labels where the classes are numbers, among others.
    BatchError
        If the work on a batch fails, most often in the network.

    Warns
    -----
    EvaluationWarning
        If the network's gradients are zero, random, or worse than random search: see
        `advfeat.exceptions.EvaluationWarning`.

    References
    ----------
    Madry et al. 2018; Carlini and Wagner 2017; Ilyas et al. 2019, Appendix D.2.

    Examples
    --------
    >>> from advfeat import StandardClassifier, adversarial_examples
    >>> from advfeat.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> clf = StandardClassifier(max_epochs=3, random_state=0).fit(X[:1000], y[:1000])
    >>> X_adv, fooled = adversarial_examples(clf, X[1000:1100], y[1000:1100], norm=2, eps=0.5)
    >>> bool(abs(X_adv - X[1000:1100]).max() <= 0.5)
    True
    """
    target = AttackTarget.of(estimator, X, y, precision, bounds)
    told = warn_if_blind(target, norm, eps)
    settings = {
        "norm": norm,
        "eps": eps,
        "n_steps": n_steps,
        "step_size": step_size,
        "random_start": random_start,
        "n_restarts": n_restarts,
        "batch_size": batch_size,
        "n_jobs": n_jobs,
        "random_state": random_state,
        "verbose": verbose,
    }
    X_adv, fooled = run_batches(**target.plan(settings))
    if not told:
        warn_if_beaten(target, norm, eps, ~fooled)
    return target.view.as_given(X_adv), fooled


ATTACK_DEFAULTS = {
    p.name: p.default
    for p in inspect.signature(adversarial_examples).parameters.values()
    if p.kind is p.KEYWORD_ONLY
}


def attack_settings(caller, **given):
    """All settings of `adversarial_examples`, checked; its defaults where none are given.

    Raises
    ------
    TypeError
        For settings that it does not have.
    ValueError
        For values that it does not take.
    """
    unknown = sorted(set(given) - set(ATTACK_DEFAULTS))
    if unknown:
        known = sorted(ATTACK_DEFAULTS)
        raise TypeError(f"{caller} got unknown settings {unknown}; known are {known}.")
    validate_parameter_constraints(ATTACK_CONSTRAINTS, given, caller)
    return {**ATTACK_DEFAULTS, **given}

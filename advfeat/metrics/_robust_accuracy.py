"""Accuracy under the strongest perturbation found, as a score, a curve and a scorer."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import get_config
from sklearn.utils.metadata_routing import MetadataRequest

from advfeat.attacks._adversarial_examples import attack_settings
from advfeat.attacks._attack import AttackTarget
from advfeat.attacks._checks import warn_if_beaten, warn_if_blind
from advfeat.utils._arrays import as_floats
from advfeat.utils._batches import run_batches
from advfeat.utils._typing import Inputs
from advfeat.utils._weight import check_weight, weighted_share


def robust_accuracy_score(
    estimator: Any,
    X: Inputs,
    y: ArrayLike | None = None,
    *,
    norm: float,
    eps: float,
    sample_weight: ArrayLike | None = None,
    **attack: Any,
) -> float:
    """Share of the samples that stay correctly classified under attack.

    A label that the estimator does not know counts as wrong, as in scikit-learn's accuracy.

    Parameters
    ----------
    estimator : fitted classifier
        See `adversarial_examples`.
    X : array-like of shape (n, d) or (n, C, H, W), or torch Dataset of (input, label) items
        Samples, in input units (images in [0, 1], or uint8).
    y : array-like of shape (n,), default=None
        None for a Dataset, which has its own.
    norm : {2, numpy.inf}
        Norm that bounds the perturbation; no default, as robustness without its norm says nothing.
    eps : float
        Radius, in input units (for a Pipeline: of its last step); 0 gives plain accuracy.
    sample_weight : array-like of shape (n,), optional
        Weights in the mean, not negative; equal by default.
    **attack
        ``n_steps``, ``step_size``, ``random_start``, ``n_restarts``, ``batch_size``, ``n_jobs``,
        ``bounds``, ``precision``, ``random_state`` and ``verbose`` of `adversarial_examples`.

    Returns
    -------
    float
        In [0, 1]. The examples are judged in fp32 whatever the precision of the attack.

    Raises
    ------
    NotFittedError
        If the estimator is not fitted.
    TypeError
        If no gradients can be had from the estimator, or for unknown settings.
    ValueError
        For unusable X, y, settings or weights, before the attack: weights must be finite, not
        negative and not all zero.

    Warns
    -----
    EvaluationWarning
        If the network's gradients are zero, random, or worse than random search: see
        `advfeat.exceptions.EvaluationWarning`.

    References
    ----------
    Ilyas et al. 2019, Table 7 and Appendix D.2.

    Examples
    --------
    >>> from advfeat import StandardClassifier, robust_accuracy_score
    >>> from advfeat.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> clf = StandardClassifier(max_epochs=3, random_state=0).fit(X[:1000], y[:1000])
    >>> clean = clf.score(X[1000:1200], y[1000:1200])
    >>> robust_accuracy_score(clf, X[1000:1200], y[1000:1200], norm=2, eps=0) == clean
    True
    """
    settings = attack_settings("robust_accuracy_score", norm=norm, eps=eps, **attack)
    target = AttackTarget.of(estimator, X, y, settings["precision"], settings["bounds"])
    weight = check_weight(sample_weight, len(target.labels))
    told = warn_if_blind(target, norm, eps)
    withstands = ~_fooled(target, settings)
    if not told:
        warn_if_beaten(target, norm, eps, withstands)
    return weighted_share(withstands, weight)


def robust_accuracy_curve(
    estimator: Any,
    X: Inputs,
    y: ArrayLike | None = None,
    *,
    norm: float,
    eps_values: ArrayLike,
    sample_weight: ArrayLike | None = None,
    **attack: Any,
) -> NDArray:
    """Share of the samples that stay correctly classified, at each of several radii.

    A perturbation that fits into a small ball fits into every larger one. So a sample that is
    misclassified at one eps counts as misclassified at all larger eps and is not attacked again:
    the curve cannot rise, and costs less than `robust_accuracy_score` at each eps.

    Parameters
    ----------
    estimator : fitted classifier
        See `adversarial_examples`.
    X : array-like of shape (n, d) or (n, C, H, W), or torch Dataset of (input, label) items
        Samples, in input units (images in [0, 1], or uint8).
    y : array-like of shape (n,), default=None
        None for a Dataset, which has its own.
    norm : {2, numpy.inf}
        Norm that bounds the perturbation; no default, as robustness without its norm says nothing.
    eps_values : array-like of shape (n_eps,)
        Radii in any order, in input units; 0 gives plain accuracy.
    sample_weight : array-like of shape (n,), optional
        Weights in the mean, not negative; equal by default.
    **attack
        As in `robust_accuracy_score`.

    Returns
    -------
    ndarray of shape (n_eps,), float64
        In [0, 1], in the order of ``eps_values``.

    Raises
    ------
    NotFittedError
        If the estimator is not fitted.
    TypeError
        If no gradients can be had from the estimator, or for unknown settings.
    ValueError
        For unusable X, y, settings or weights, as in `robust_accuracy_score`, and if
        ``eps_values`` is no list of one radius or more, or one is negative or NaN.

    Warns
    -----
    EvaluationWarning
        As in `robust_accuracy_score`; gradients are compared with random search at the largest
        radius at which samples withstand.

    References
    ----------
    Ilyas et al. 2019, Table 7 and Appendix D.2.

    Examples
    --------
    >>> from advfeat import StandardClassifier, robust_accuracy_curve
    >>> from advfeat.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> clf = StandardClassifier(max_epochs=3, random_state=0).fit(X[:1000], y[:1000])
    >>> curve = robust_accuracy_curve(clf, X[1000:], y[1000:], norm=2, eps_values=[0, 0.5])
    >>> bool(curve[0] == clf.score(X[1000:], y[1000:])) and bool(curve[1] < curve[0])
    True
    """
    if "eps" in attack:
        raise TypeError("robust_accuracy_curve takes its radii as eps_values. Got eps, too.")
    radii = as_floats(eps_values, "eps_values")
    if radii.ndim != 1 or len(radii) == 0:
        raise ValueError(
            "eps_values must be a list of at least one radius. Got an array of shape "
            f"{radii.shape}."
        )
    if not np.all(radii >= 0):
        raise ValueError(f"eps_values must be numbers of at least 0. Got {radii}.")
    ascending, place = np.unique(radii, return_inverse=True)
    by_radius = [
        attack_settings("robust_accuracy_curve", norm=norm, eps=eps, **attack)
        for eps in ascending.tolist()
    ]
    first = by_radius[0]
    target = AttackTarget.of(estimator, X, y, first["precision"], first["bounds"])
    n = len(target.labels)
    weight = check_weight(sample_weight, n)
    told = warn_if_blind(target, norm, radii.max())
    fooled, accuracy = np.zeros(n, dtype=bool), []
    largest = 0.0, fooled  # radius at which samples withstand, and who is fooled there
    for settings in by_radius:
        rows = np.flatnonzero(~fooled)
        if len(rows):
            # All rows are cut as they lie, which costs less than looking them up.
            fooled[rows] = _fooled(target, settings, rows if len(rows) < n else None)
            if not fooled.all():
                largest = settings["eps"], fooled.copy()
        accuracy.append(weighted_share(~fooled, weight))
    if not told:
        eps, fooled = largest
        warn_if_beaten(target, norm, eps, ~fooled)
    return np.array(accuracy)[place]


def _fooled(target, settings, rows=None):
    """Whether each sample is misclassified under attack; no example is kept."""
    (fooled,) = run_batches(**target.plan(settings, rows, keeps_examples=False))
    return fooled


def make_robust_scorer(*, norm: float, eps: float, **attack: Any) -> Callable[..., float]:
    """Scorer for ``cross_val_score`` and ``GridSearchCV`` that attacks the estimator.

    ``make_scorer`` cannot express it, because it hands over predictions, not the estimator.

    Parameters
    ----------
    norm, eps, **attack
        As in `robust_accuracy_score`; ``verbose`` is 0 by default.

    Returns
    -------
    callable
        ``scorer(estimator, X, y=None, sample_weight=None)`` gives the robust accuracy. With
        scikit-learn's metadata routing, ``scorer.set_score_request(sample_weight=True)`` asks for
        the weights.

    Raises
    ------
    TypeError
        For unknown settings.
    ValueError
        For values that a setting does not take.

    Examples
    --------
    >>> from sklearn.model_selection import cross_val_score
    >>> from advfeat import StandardClassifier, make_robust_scorer
    >>> from advfeat.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> scorer = make_robust_scorer(norm=2, eps=0.25, n_steps=5)
    >>> clf = StandardClassifier(max_epochs=2, random_state=0)
    >>> cross_val_score(clf, X[:300], y[:300], scoring=scorer, cv=2).shape
    (2,)
    """
    settings = {"norm": norm, "eps": eps, **attack}
    attack_settings("make_robust_scorer", **settings)  # now, and not after the first long fit
    return _RobustScorer(**settings)


class _RobustScorer:
    """Picklable callable with a readable repr."""

    def __init__(self, **settings):
        self.settings = settings
        self._weight_request = None

    def __call__(self, estimator, X, y=None, sample_weight=None):
        return robust_accuracy_score(
            estimator, X, y, sample_weight=sample_weight, **{"verbose": 0, **self.settings}
        )

    def _accept_sample_weight(self):
        """Tell scikit-learn's searches by several scores that weights are taken."""
        return True

    def set_score_request(self, *, sample_weight):
        """Say whether scikit-learn's metadata routing is to hand over the weights.

        Parameters
        ----------
        sample_weight : bool, None or str
            As in scikit-learn's ``set_score_request``. Without a request weights are refused.

        Returns
        -------
        self

        Raises
        ------
        RuntimeError
            Unless metadata routing is switched on: nothing would come of it.
        """
        if not get_config()["enable_metadata_routing"]:
            raise RuntimeError(
                "set_score_request has an effect only with metadata routing. Switch it on before: "
                "sklearn.set_config(enable_metadata_routing=True)."
            )
        given, self._weight_request = self._weight_request, sample_weight
        try:
            self.get_metadata_routing()
        except ValueError:
            self._weight_request = given
            raise
        return self

    def get_metadata_routing(self):
        """Return the request, as scikit-learn's metadata routing asks for it."""
        request = MetadataRequest(owner=self)
        request.score.add_request(param="sample_weight", alias=self._weight_request)
        return request

    def __repr__(self):
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
        return f"make_robust_scorer({settings})"

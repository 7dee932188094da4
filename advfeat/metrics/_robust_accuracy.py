"""Accuracy under the strongest perturbation found, as a score and as a scorer."""

import numpy as np

from advfeat._attack import adversarial_examples


def robust_accuracy_score(estimator, X, y, *, norm, eps, sample_weight=None, **attack):
    """Share of the samples that stay correctly classified under attack.

    Parameters
    ----------
    estimator : fitted classifier
        See `adversarial_examples`.
    X : array-like of shape (n, d) or (n, C, H, W)
    y : array-like of shape (n,)
    norm : {2, numpy.inf}
    eps : float
        Radius, in input units; 0 gives plain accuracy.
    sample_weight : array-like of shape (n,), optional
    **attack
        ``n_steps``, ``step_size``, ``random_start``, ``n_restarts``, ``batch_size``,
        ``precision``, ``random_state`` and ``verbose`` of `adversarial_examples`.

    Returns
    -------
    float
        In [0, 1]. The examples are judged in fp32 whatever the precision of the attack.

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
    _, fooled = adversarial_examples(estimator, X, y, norm=norm, eps=eps, **attack)
    return float(np.average(~fooled, weights=sample_weight))


def make_robust_scorer(*, norm, eps, **attack):
    """Scorer for ``cross_val_score`` and ``GridSearchCV`` that attacks the estimator.

    ``make_scorer`` cannot express it, because it hands over predictions, not the estimator.

    Parameters
    ----------
    norm, eps, **attack
        As in `robust_accuracy_score`.

    Returns
    -------
    callable
        ``scorer(estimator, X, y, sample_weight=None)`` gives the robust accuracy.

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
    return _RobustScorer(norm=norm, eps=eps, **attack)


class _RobustScorer:
    """Picklable callable with a readable repr."""

    def __init__(self, **settings):
        self.settings = settings

    def __call__(self, estimator, X, y, sample_weight=None):
        return robust_accuracy_score(
            estimator, X, y, sample_weight=sample_weight, **{"verbose": 0, **self.settings}
        )

    def __repr__(self):
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
        return f"make_robust_scorer({settings})"

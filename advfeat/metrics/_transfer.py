"""How often adversarial examples of one model fool another."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from advfeat.attacks._adversarial_examples import adversarial_examples
from advfeat.attacks._attackable import attackable, only_given
from advfeat.utils._labels import check_labels
from advfeat.utils._modules import refuse_module


def transfer_rate(source, estimator, X, y, *, norm, eps, **attack):
    """Share of the source's adversarial examples that also fool another classifier.

    Counted over the samples that both classify correctly and whose perturbation fools the
    source. So samples whose label one of them does not know do not count.

    Parameters
    ----------
    source : fitted classifier
        The one attacked, see `adversarial_examples`.
    estimator : fitted classifier
        Any scikit-learn classifier; it only predicts.
    X : array-like of shape (n, d) or (n, C, H, W)
    y : array-like of shape (n,)
    norm : {2, numpy.inf}
    eps : float
        Radius, in input units.
    **attack
        As in `robust_accuracy_score`.

    Returns
    -------
    float
        In [0, 1], or NaN if no sample counts.

    References
    ----------
    Ilyas et al. 2019, Section 3.3 and Figure 3.

    Examples
    --------
    >>> from advfeat import StandardClassifier, transfer_rate
    >>> from advfeat.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> clf = StandardClassifier(max_epochs=3, random_state=0).fit(X[:1000], y[:1000])
    >>> transfer_rate(clf, clf, X[1000:1200], y[1000:1200], norm=2, eps=1.0)
    1.0
    """
    refuse_module(estimator)
    check_is_fitted(estimator)
    view = attackable(source, X, **only_given(attack.get("bounds", "auto")))
    if view.moved:
        raise ValueError(
            "The source is a Pipeline whose earlier steps change X, so its adversarial examples "
            "are not in the units of X. Pass its last step and transformed X instead."
        )
    y = check_labels(y, len(view.X))
    right = (source.predict(X) == y) & (estimator.predict(X) == y)  # before the long work
    X_adv, fooled = adversarial_examples(source, X, y, norm=norm, eps=eps, **attack)
    counted = fooled & right
    if not counted.any():
        return float("nan")
    return float(np.mean(estimator.predict(X_adv[counted]) != y[counted]))

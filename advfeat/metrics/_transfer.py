"""How often adversarial examples of one model fool another."""

from contextlib import closing, suppress
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import is_regressor
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet

from advfeat.attacks._adversarial_examples import attack_settings
from advfeat.attacks._attack import AttackTarget
from advfeat.attacks._checks import warn_if_blind
from advfeat.classifiers._from_skorch import as_skorch_takes
from advfeat.classifiers._network_classifier import NetworkClassifier
from advfeat.datasets._torch_data import unpack_data
from advfeat.utils._arrays import as_array, from_list
from advfeat.utils._batches import Forward, iter_batches
from advfeat.utils._checks import check_data
from advfeat.utils._frames import as_frame, library_of
from advfeat.utils._labels import check_labels, encode_labels
from advfeat.utils._logits import classified_as
from advfeat.utils._modules import refuse_module, unfrozen
from advfeat.utils._typing import Inputs
from advfeat.utils._units import images_in_units

_N_COMPARED = 256  # images


def transfer_rate(
    source: Any,
    estimator: Any,
    X: Inputs,
    y: ArrayLike | None = None,
    *,
    norm: float,
    eps: float,
    **attack: Any,
) -> float | np.ndarray:
    """Share of the source's adversarial examples that also fool another classifier.

    Counted over the samples that both classify correctly and whose perturbation fools the
    source. So samples whose label one of them does not know do not count.

    Parameters
    ----------
    source : fitted classifier
        The one attacked, see `adversarial_examples`.
    estimator : fitted classifier, or list of them
        Any scikit-learn classifier; it only predicts, and gets adversarial examples as X was
        given (images of uint8 as floats in [0, 1]). The source is attacked once for all of a
        list.
    X : array-like of shape (n, d) or (n, C, H, W), or torch Dataset of (input, label) items
        Samples, in input units (images in [0, 1], or uint8).
    y : array-like of shape (n,), default=None
        None for a Dataset, which has its own.
    norm : {2, numpy.inf}
        Norm that bounds the perturbation; no default, as robustness without its norm says nothing.
    eps : float
        Radius, in input units.
    **attack
        As in `robust_accuracy_score`.

    Returns
    -------
    float, or ndarray of shape (n_estimators,) for a list
        In [0, 1], or NaN if no sample counts.

    Raises
    ------
    NotFittedError
        If the source or the estimator is not fitted.
    TypeError
        If no gradients can be had from the source, or for unknown settings.
    ValueError
        If the source is a Pipeline that changes X, X is uint8 and ``estimator`` does not take
        images in [0, 1] for the same, y is text and its classes are numbers or the other way
        round, or the list is empty.

    Warns
    -----
    EvaluationWarning
        If the source's gradients are zero or random: see `advfeat.exceptions.EvaluationWarning`.

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
    several = isinstance(estimator, (list, tuple))
    estimators = list(estimator) if several else [estimator]
    if not estimators:
        raise ValueError("transfer_rate needs a classifier to transfer to. Got an empty list.")
    for each in estimators:
        refuse_module(each)
        check_is_fitted(each)
    settings = attack_settings("transfer_rate", norm=norm, eps=eps, **attack)
    X, y = unpack_data(source, X, y)
    X = from_list(X) if isinstance(X, (list, tuple)) else as_array(X)
    target = AttackTarget.of(source, X, y, settings["precision"], settings["bounds"])
    if target.view.moved:
        raise ValueError(
            "The source is a Pipeline whose earlier steps change X, so its adversarial examples "
            "are not in the units of X. Pass its last step and transformed X instead."
        )
    y = check_labels(y, len(target.view.X))
    warn_if_blind(target, norm, eps)
    others = [_Other(each, X, y) for each in estimators]
    source_right = _source_is_right(target, settings)
    with closing(iter_batches(**target.plan(settings))) as parts:
        for begin, (X_adv, fooled) in parts:
            part = slice(begin, begin + len(fooled))
            for other in others:
                rows = np.flatnonzero(fooled & source_right[part] & other.right[part])
                if len(rows):
                    X_rows = target.view.as_given(X_adv[rows])
                    if library := library_of(X):
                        X_rows = as_frame(X_rows, X.columns, library)
                    other.count(X_rows, begin + rows)
    rates = [other.fooled / other.counted if other.counted else np.nan for other in others]
    return np.array(rates) if several else float(rates[0])


class _Other:
    """A classifier to which examples are transferred, and what was counted so far.

    What it says of X itself is asked at once, so that its errors come before the long work.
    """

    def __init__(self, estimator, X, y):
        estimator = unfrozen(estimator)
        if not hasattr(estimator, "predict") or is_regressor(estimator):
            raise TypeError(
                "Examples are transferred to classifiers: got an estimator that predicts no "
                f"labels, {type(estimator).__name__}."
            )
        classes = getattr(estimator, "classes_", None)
        self.classes = None
        self._skorchs = isinstance(estimator, NeuralNet)  # it predicts positions, not `classes_`
        if not self._skorchs and isinstance(classes, np.ndarray) and classes.ndim == 1:
            self.classes = np.unique(classes)
            y = encode_labels(y, self.classes, len(y), unknown="mark")
        self.estimator, self.y = estimator, y
        _refuse_other_units(estimator, X)
        self.right = self._is_right(X, self.y)
        self.counted = self.fooled = 0

    def count(self, X, rows):
        """Count examples made of these rows."""
        self.counted += len(rows)
        self.fooled += np.sum(~self._is_right(X, self.y[rows]))

    def _is_right(self, X, y):
        """Whether each sample is classified correctly; a network may give no class (NaN)."""
        if isinstance(self.estimator, NetworkClassifier):
            return self.estimator._is_right(self.estimator.check_inputs(X), y)
        said = np.asarray(self._said(X)).reshape(len(y))
        if self.classes is None:
            return said == y
        return (y >= 0) & (said == self.classes[y])

    def _said(self, X):
        if self._skorchs:  # which takes float32 alone, as it is attacked
            if library_of(X) is not None:
                with suppress(Exception):  # unless it knows the columns by their names
                    return self.estimator.predict(X)
            X = as_skorch_takes(check_data(X, type(self.estimator).__name__, bounds=None))
        return self.estimator.predict(X)


def _source_is_right(target, settings):
    """Whether the source classifies each sample correctly, as its attack judges."""
    job = Forward(target.judge, target.judge.device)
    run = {name: settings[name] for name in ("batch_size", "n_jobs")}
    right = np.empty(len(target.labels), dtype=bool)
    with closing(iter_batches(job, (target.view.X,), **run)) as parts:
        for begin, (logits,) in parts:
            part = slice(begin, begin + len(logits))
            right[part] = classified_as(logits, target.labels[part])
    return right


def _refuse_other_units(estimator, X):
    """Raise a ValueError if the estimator takes bytes of images for something else than floats."""
    if isinstance(estimator, NetworkClassifier):  # it does
        return
    if getattr(X, "ndim", 2) != 4 or X.dtype != np.uint8:
        return
    some = np.linspace(0, len(X) - 1, min(len(X), _N_COMPARED)).astype(int)
    X = np.asarray(X[some])
    try:
        said = [estimator.predict(images) for images in (X, images_in_units(X))]
    except RuntimeError:  # a skorch net, whose layers take floats alone
        return
    if not np.array_equal(*said):
        raise ValueError(
            "X is uint8, and adversarial examples are images in [0, 1]; the estimator must take "
            f"both for the same. Got {type(estimator).__name__}, which predicts other labels for "
            "X / 255 than for X. Fit it on images in [0, 1], and pass X / 255."
        )

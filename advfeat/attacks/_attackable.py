"""The differentiable view of a fitted estimator: logits in input units, classes, bounds.

Robust metrics need gradients, so they cannot go through ``predict``.
"""

from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC, NuSVC
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet
from torch import nn

from advfeat.classifiers._from_skorch import from_skorch
from advfeat.classifiers._network_classifier import NetworkClassifier
from advfeat.optim import FrozenNetwork
from advfeat.optim._balls import LARGEST
from advfeat.utils._arrays import as_array, from_list, row_slices
from advfeat.utils._bounds import resolve_bounds, validate_bounds
from advfeat.utils._checks import check_data
from advfeat.utils._estimator import as_now
from advfeat.utils._frames import as_frame, check_names
from advfeat.utils._lazy import LazyArray
from advfeat.utils._modules import refuse_module
from advfeat.utils._typing import Bounds, Inputs
from advfeat.utils._units import InUnits, images_in_units

_N_COMPARED = 256  # samples
_CHUNK = 2**23  # bytes
_READY = np.float32, np.uint8
_RANGE = 1e20  # of coefficients that float32 holds well


@dataclass(frozen=True, eq=False)
class Attackable:
    """What an attack needs to know of an estimator.

    Parameters
    ----------
    network : FrozenNetwork
        Maps inputs in input units to logits, one for each class.
    classes : ndarray of shape (n_classes,)
        Sorted labels, in the order of the logits.
    bounds : (low, high) or None
        Box of valid inputs, in input units.
    X : ndarray of shape (n, d) or (n, C, H, W)
        The data, in the units that the network takes: float32, or uint8 for images. Other
        numbers are checked and converted.
    moved : bool, default=False
        Whether earlier steps of a Pipeline changed X, so that the examples are not in its units.
    channels : {"auto", "first", "last"}, default="first"
        Which axis held the channels in X as it was given.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from advfeat.attacks import Attackable
    >>> from advfeat.optim import FrozenNetwork
    >>> network = FrozenNetwork(torch.nn.Linear(4, 2), device="cpu")
    >>> X = np.zeros((3, 4), np.float32)
    >>> view = Attackable(network, np.array(["no", "yes"]), bounds=None, X=X)
    >>> view.X.shape, view.bounds
    ((3, 4), None)

    `attackable` has one for an estimator of another kind.
    """

    network: FrozenNetwork
    classes: np.ndarray
    bounds: tuple | None
    X: np.ndarray
    moved: bool = False
    channels: str = "first"

    def as_given(self, X: NDArray) -> NDArray:
        """Return images in the layout of the X that was given.

        Parameters
        ----------
        X : ndarray of shape (n, d) or (n, C, H, W)
            Samples in the layout of the network.

        Returns
        -------
        ndarray of shape (n, d), (n, C, H, W) or (n, H, W, C)
            The last one with ``channels="last"``.
        """
        return X.transpose(0, 2, 3, 1) if self.channels == "last" and X.ndim == 4 else X


@singledispatch
def attackable(estimator: Any, X: Inputs, precision: str = "fp32", **bounds: Bounds) -> Attackable:
    """Return the differentiable view of a fitted classifier and the data that it takes.

    One function for each kind of estimator is registered here. Register your own kind with
    ``@attackable.register(MyClassifier)``; every attack and every robust score then takes it,
    also behind a Pipeline, a FrozenEstimator or a search.

    Parameters
    ----------
    estimator : fitted classifier
        An advfeat classifier, a skorch net, a linear scikit-learn classifier (with ``coef_`` and
        ``intercept_``, such as `GaussianRobustMLE`), a registered kind, or a Pipeline,
        FrozenEstimator or search that ends in one. A Pipeline is attacked at its last step, after
        the earlier steps' ``transform``.
    X : array-like of shape (n, d) or (n, C, H, W), or torch Dataset
        Samples, in input units (images in [0, 1], or uint8).
    precision : {"fp32", "bf16"}, default="fp32"
        In which the network computes.
    **bounds : "auto", None or (low, high)
        ``bounds``, the valid range of the inputs. It is handed over, by name, only where the user
        has given one; estimators that have bounds of their own refuse it.

    Returns
    -------
    Attackable

    Raises
    ------
    NotFittedError
        If the estimator is not fitted.
    TypeError
        If no gradients can be had from the estimator.
    ValueError
        If X does not fit, or bounds are given for an estimator that has its own.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from advfeat import robust_accuracy_score
    >>> from advfeat.attacks import Attackable, attackable
    >>> from advfeat.optim import FrozenNetwork
    >>> class Threshold:  # a classifier of our own: is the first feature positive?
    ...     def predict(self, X):
    ...         return (X[:, 0] > 0).astype(int)
    >>> class Logits(torch.nn.Module):  # the same, in a form that has gradients
    ...     def forward(self, x):
    ...         return torch.stack([torch.zeros_like(x[:, 0]), x[:, 0]], 1)
    >>> @attackable.register(Threshold)
    ... def _(estimator, X, precision="fp32"):
    ...     network = FrozenNetwork(Logits(), device="cpu", precision=precision)
    ...     return Attackable(network, classes=np.array([0, 1]), bounds=None, X=X)
    >>> X = np.array([[-2.0], [-0.5], [0.5], [2.0]])
    >>> robust_accuracy_score(Threshold(), X, [0, 0, 1, 1], norm=2, eps=1)
    0.5
    """
    # What is known by what it has, not by its class.
    if hasattr(estimator, "best_estimator_"):
        return attackable(estimator.best_estimator_, X, precision, **bounds)
    if hasattr(estimator, "coef_") and hasattr(estimator, "classes_"):
        check_names(estimator, X)
        X, box = _check_foreign(estimator, X, **bounds)
        coef = estimator.coef_
        coef = np.atleast_2d(coef.toarray() if issparse(coef) else coef)
        linear = _linear_module(estimator, coef)
        if X.shape[1:] != (linear.in_features,):
            raise ValueError(
                f"X has samples of shape {X.shape[1:]}, but {type(estimator).__name__} is "
                f"expecting {linear.in_features} features as input."
            )
        _compare_predictions(estimator, coef, X)
        return Attackable(FrozenNetwork(linear, device="cpu"), estimator.classes_, box, X)
    if hasattr(estimator, "cv_results_"):
        raise TypeError(
            f"{type(estimator).__name__} was fitted with refit=False, so that it holds no "
            "classifier. Fit it with refit=True, or pass a classifier with its best_params_."
        )
    if not hasattr(estimator, "coef_"):
        check_is_fitted(estimator)
    raise TypeError(
        "Robustness needs gradients: the estimator must be an advfeat classifier, a skorch net, "
        "a linear scikit-learn classifier, or a Pipeline that ends in one. Got "
        f"{type(estimator).__name__} instead. Other kinds can be registered, see "
        "advfeat.attacks.attackable."
    )


def attackable_view(estimator, X, precision, bounds):
    """`attackable`, with what it gives checked: kinds that users register may forget something.

    Raises
    ------
    ValueError
        If the classes are not sorted, or X cannot be used.
    """
    given = {} if isinstance(bounds, str) else {"bounds": bounds}  # a user's kind may know of none
    view = attackable(estimator, X, precision, **given)
    if not isinstance(view, Attackable) or not isinstance(view.network, FrozenNetwork):
        raise TypeError(
            f"What is registered for {type(estimator).__name__} with advfeat.attacks.attackable "
            f"must return an Attackable with a FrozenNetwork. Got {type(view).__name__}."
        )
    classes = np.asarray(view.classes)
    if not np.array_equal(classes, np.unique(classes)):
        raise ValueError(
            "The classes of an Attackable must be sorted, and the logits in their order. Got "
            f"{classes}."
        )
    X = view.X
    ready = isinstance(X, LazyArray) or (isinstance(X, np.ndarray) and X.dtype in _READY)
    if not ready:
        X = check_data(X, type(estimator).__name__, bounds=view.bounds)
    return replace(view, classes=classes, X=X)


@attackable.register
def _(estimator: Pipeline, X, precision="fp32", **bounds):
    given = X = from_list(X) if isinstance(X, (list, tuple)) else X
    for _, step in estimator.steps[:-1]:
        passes = step is None or isinstance(step, str)  # "passthrough"
        # imbalanced-learn's samplers work on training data alone.
        if not passes and (hasattr(step, "transform") or not hasattr(step, "fit_resample")):
            X = step.transform(X)
    view = attackable(estimator.steps[-1][1], X, precision, **bounds)
    return replace(view, moved=view.moved or not _has_values(X, given))


def _has_values(X, given):
    """Whether X holds the values of what was given, in whatever container."""
    if X is given or (isinstance(X, InUnits) and X.X is given):
        return True
    X, given = map(_cut_by_rows, (X, given))
    if X.shape != given.shape:
        return False
    try:
        return all(_are_equal(X[rows], given[rows]) for rows in row_slices(X, _CHUNK))
    except (TypeError, ValueError):  # text, dates or pandas.NA, of which a step made numbers
        return False


def _cut_by_rows(data):
    data = as_array(data)
    return data if isinstance(data, LazyArray) else np.asarray(data)


def _are_equal(X, given):
    if X.dtype == np.float32:  # to which every attack rounds
        with np.errstate(over="ignore"):
            given = np.asarray(images_in_units(np.asarray(given)), dtype=np.float32)
    return bool((np.asarray(X) == given).all())


@attackable.register
def _(estimator: FrozenEstimator, X, precision="fp32", **bounds):
    return attackable(estimator.estimator, X, precision, **bounds)


@attackable.register
def _(estimator: NetworkClassifier, X, precision="fp32", bounds="auto"):
    if not isinstance(bounds, str):
        raise ValueError(
            f"{type(estimator).__name__} has bounds of its own, {estimator.input_bounds_}, so "
            "'bounds' must be 'auto'. To change them use its parameter: "
            "set_params(bounds=...)."
        )
    estimator = as_now(estimator)
    X = estimator.check_inputs(X)
    network = estimator.frozen(precision=precision)
    return Attackable(
        network, estimator.classes_, estimator.input_bounds_, X, channels=estimator.channels
    )


@attackable.register
def _(estimator: NeuralNet, X, precision="fp32", bounds="auto"):
    X, box = _check_foreign(estimator, X, bounds)
    view = from_skorch(estimator, X.shape[1:])
    return Attackable(view.frozen(precision=precision), view.classes_, box, X)


@attackable.register
def _(estimator: nn.Module, X, precision="fp32", **bounds):
    refuse_module(estimator)


def _check_foreign(estimator, X, bounds="auto"):
    """Check data of an estimator that says nothing of bounds; return them and their bounds."""
    validate_bounds(bounds, "the attack")
    X = check_data(X, type(estimator).__name__, bounds=bounds)
    return X, resolve_bounds(bounds, X.shape[1:])


def _compare_predictions(estimator, coef, X):
    """Raise a TypeError if `predict` says something else than the largest score, on some rows."""
    some = np.asarray(X[:_N_COMPARED], dtype=np.float64)  # float32 may not tell rows apart
    with np.errstate(all="ignore"):
        scores = some @ coef.T + np.asarray(estimator.intercept_)
        scores = np.hstack([np.zeros((len(some), 1)), scores]) if len(coef) == 1 else scores
        lower, upper = np.sort(scores, axis=1)[:, -2:].T
        clear = upper - lower > 1e-4 * np.abs(scores).max(axis=1)  # far from a tie
    if not clear.any():
        return
    names = getattr(estimator, "feature_names_in_", None)
    try:
        some = some[clear] if names is None else as_frame(some[clear], names)
        with np.errstate(all="ignore"):
            said = np.asarray(estimator.predict(some)).ravel()
    except Exception:  # it may take other containers alone, or ones that are not installed
        return
    expected = np.asarray(estimator.classes_)[scores[clear].argmax(axis=1)]
    if not np.array_equal(said, expected):
        raise TypeError(
            f"Attacks follow coef_ and intercept_, but predict of {type(estimator).__name__} says "
            f"another class than the largest score for {np.sum(said != expected)} of {len(said)} "
            "samples. Register how it decides, see advfeat.attacks.attackable."
        )


def _linear_module(estimator, coef):
    n_classes = len(estimator.classes_)
    pairwise = isinstance(estimator, (SVC, NuSVC)) and n_classes > 2
    if pairwise or len(coef) != (n_classes if n_classes > 2 else 1):
        raise TypeError(
            "Robustness needs one row of coef_ for each class (one in all for two classes). Got "
            f"{type(estimator).__name__} with {len(coef)} rows for {n_classes} classes"
            + (", one for each pair; use LinearSVC instead." if pairwise else ".")
        )
    intercept = np.atleast_1d(estimator.intercept_)
    if len(coef) == 1:  # the score of the second class; the first one's is zero
        coef, intercept = np.vstack([0 * coef, coef]), np.append(0.0, intercept)
        if intercept[1] == np.inf:  # the first class is never said
            intercept = np.array([-np.inf, 0.0])
    largest = np.abs(coef).max()
    if 0 < largest < np.inf and not 1 / _RANGE < largest < _RANGE:  # decisions stay the same
        coef = coef / largest
        # Of intercepts only the differences count.
        intercept = np.clip((intercept - intercept.max()) / largest, -LARGEST, LARGEST)
    coef = np.array(coef, dtype=np.float64)  # writable, as a memory map is not
    intercept = np.array(np.broadcast_to(intercept, len(coef)), dtype=np.float64)
    shape = coef.shape[1], len(coef)
    module = nn.utils.skip_init(nn.Linear, *shape, device="cpu", dtype=torch.float32)
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(coef))
        module.bias.copy_(torch.from_numpy(intercept))
    return module

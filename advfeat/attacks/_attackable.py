"""The differentiable view of a fitted estimator: logits in input units, classes, bounds.

Robust metrics need gradients, so they cannot go through ``predict``.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC, NuSVC
from sklearn.utils.validation import check_array, check_is_fitted
from skorch import NeuralNet, NeuralNetBinaryClassifier
from torch import nn

from advfeat.classifiers import StandardClassifier
from advfeat.optim import FrozenNetwork
from advfeat.utils._checks import check_inputs, resolve_bounds
from advfeat.utils._device import resolve_device


@dataclass
class Attackable:
    """What an attack needs to know of an estimator."""

    network: FrozenNetwork
    classes: np.ndarray
    bounds: tuple | None
    X: np.ndarray  # checked, as the network takes it
    moved: bool = False  # whether a Pipeline's earlier steps changed X


def attackable(estimator, X, precision="fp32"):
    """Return the differentiable view of a fitted classifier and the data that it takes.

    Parameters
    ----------
    estimator : fitted classifier
        An advfeat classifier, a skorch net, a linear scikit-learn classifier (with ``coef_`` and
        ``intercept_``, such as `GaussianRobustMLE`), or a Pipeline, FrozenEstimator or search
        that ends in one. A Pipeline is attacked at its last step, after the earlier steps'
        ``transform``.
    X : array-like
    precision : {"fp32", "bf16"}

    Raises
    ------
    TypeError
        If no gradients can be had from the estimator.
    """
    if isinstance(estimator, Pipeline):
        given = X
        for _, _, step in estimator._iter(with_final=False):
            X = step.transform(X)
        view = attackable(estimator.steps[-1][1], X, precision)
        return replace(view, moved=view.moved or X is not given)
    if isinstance(estimator, FrozenEstimator):
        return attackable(estimator.estimator, X, precision)
    if hasattr(estimator, "best_estimator_"):
        return attackable(estimator.best_estimator_, X, precision)
    if isinstance(estimator, StandardClassifier):
        X = estimator.check_inputs(X)
        return Attackable(
            estimator.frozen(precision=precision),
            estimator.classes_,
            estimator.input_bounds_,
            X,
        )
    if isinstance(estimator, NeuralNetBinaryClassifier):
        raise TypeError(
            "A NeuralNetBinaryClassifier has one logit; robustness needs one for each class. Use "
            "a NeuralNetClassifier whose module returns two."
        )
    if isinstance(estimator, NeuralNet):
        check_is_fitted(estimator)
        X = check_inputs(BaseEstimator(), X, reset=True)
        module = estimator.module_
        if isinstance(estimator.criterion_, nn.NLLLoss):
            # With this criterion skorch expects the module to return probabilities.
            module = nn.Sequential(module, _Log())
        network = FrozenNetwork(
            module, device=resolve_device(estimator.device), precision=precision
        )
        return Attackable(network, estimator.classes_, resolve_bounds("auto", X.shape[1:]), X)
    if hasattr(estimator, "coef_") and hasattr(estimator, "classes_"):
        X = check_array(X, dtype=np.float32)
        network = FrozenNetwork(_linear_module(estimator), device="cpu")
        return Attackable(network, estimator.classes_, None, X)
    if not hasattr(estimator, "coef_"):
        check_is_fitted(estimator)
    raise TypeError(
        "Robustness needs gradients: the estimator must be an advfeat classifier, a skorch net, "
        "a linear scikit-learn classifier, or a Pipeline that ends in one. Got "
        f"{type(estimator).__name__} instead."
    )


class _Log(nn.Module):
    def forward(self, probabilities):
        return torch.log(probabilities + torch.finfo(probabilities.dtype).eps)


def _linear_module(estimator):
    coef = estimator.coef_
    coef = np.atleast_2d(coef.toarray() if issparse(coef) else coef)
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
    module = nn.utils.skip_init(nn.Linear, coef.shape[1], len(coef))
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(coef))
        module.bias.copy_(torch.from_numpy(np.broadcast_to(intercept, len(coef)).copy()))
    return module

"""What may stand where an estimator is needed: torch modules, and estimators in others."""

from sklearn.frozen import FrozenEstimator
from torch import nn


def refuse_module(estimator):
    """Raise a TypeError if a torch module stands where an estimator is needed."""
    if isinstance(estimator, nn.Module):
        raise TypeError(
            f"A torch module ({type(estimator).__name__}) is no estimator: it does not tell its "
            "labels and input shape. Pass from_torch(module, classes=..., input_shape=...)."
        )


def unfrozen(estimator):
    """Return the estimator in a FrozenEstimator, and everything else as it is."""
    while isinstance(estimator, FrozenEstimator):
        estimator = estimator.estimator
    return estimator

"""Torch modules where estimators are needed."""

from torch import nn


def refuse_module(estimator):
    """Raise a TypeError if a torch module stands where an estimator is needed."""
    if isinstance(estimator, nn.Module):
        raise TypeError(
            f"A torch module ({type(estimator).__name__}) is no estimator: it does not tell its "
            "labels and input shape. Pass from_torch(module, classes=..., input_shape=...)."
        )

"""Networks as scikit-learn classifiers, trained through skorch.

::

    networks (architectures) -> _net_setup (a skorch net of an estimator's parameters)
                             -> _nets (its loss and training step), _training_batches, _callbacks
                             -> _standard, _adversarial (the estimators)
"""

from advfeat.classifiers._adversarial import AdversarialClassifier
from advfeat.classifiers._from_torch import TorchClassifier, from_torch
from advfeat.classifiers._persistence import load, save
from advfeat.classifiers._standard import StandardClassifier

__all__ = [
    "AdversarialClassifier",
    "StandardClassifier",
    "TorchClassifier",
    "from_torch",
    "load",
    "save",
]

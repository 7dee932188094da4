"""Robust and non-robust features of data, as scikit-learn estimators.

The data's way::

    images (X, y)
      -> source classifier            StandardClassifier, AdversarialClassifier
      -> constructed dataset          RobustFeatureInverter (D_R, D_NR), NonRobustRelabeler
                                      (D_rand, D_det)
      -> classifier trained on it     StandardClassifier
      -> evaluation on the original test set
                                      accuracy, robust_accuracy_score, transfer_rate, usefulness
      -> pictures                     advfeat.plotting

    beside it: GaussianRobustMLE, the same story in closed form
"""

from advfeat._attack import adversarial_examples
from advfeat._constructed import ConstructedDataset
from advfeat._gaussian import GaussianRobustMLE
from advfeat._inverter import RobustFeatureInverter
from advfeat._relabeler import NonRobustRelabeler
from advfeat.classifiers import AdversarialClassifier, StandardClassifier
from advfeat.metrics import (
    feature_usefulness,
    make_robust_scorer,
    robust_accuracy_curve,
    robust_accuracy_score,
    robust_feature_usefulness,
    transfer_rate,
)

__version__ = "0.1.0.dev0"

__all__ = [
    "AdversarialClassifier",
    "ConstructedDataset",
    "GaussianRobustMLE",
    "NonRobustRelabeler",
    "RobustFeatureInverter",
    "StandardClassifier",
    "adversarial_examples",
    "feature_usefulness",
    "make_robust_scorer",
    "robust_accuracy_curve",
    "robust_accuracy_score",
    "robust_feature_usefulness",
    "transfer_rate",
]

"""Robust and non-robust features of data, as scikit-learn estimators.

The data's way, and the packages that it passes::

    images (X, y)                     advfeat.datasets
      -> source classifier            advfeat.classifiers    StandardClassifier,
                                                             AdversarialClassifier
      -> adversarial examples         advfeat.attacks        adversarial_examples
      -> constructed data set         advfeat.construction   RobustFeatureInverter (D_R, D_NR),
                                                             NonRobustRelabeler (D_rand,
                                                             D_other, D_det)
      -> classifier trained on it     advfeat.classifiers
      -> evaluation on the original   advfeat.metrics        robust_accuracy_score,
         test set                                            transfer_rate, usefulness
      -> pictures                     advfeat.plotting

    beside it: advfeat.gaussian, the same story in closed form (GaussianRobustMLE)

Each package uses only those below it: plotting; construction, metrics; attacks; classifiers;
datasets, optim (the one place where inputs are optimised); utils.
"""

from advfeat._version import __version__
from advfeat.attacks import adversarial_examples
from advfeat.classifiers import AdversarialClassifier, StandardClassifier, from_torch, load, save
from advfeat.construction import NonRobustRelabeler, RobustFeatureInverter
from advfeat.datasets import ConstructedDataset
from advfeat.gaussian import GaussianRobustMLE
from advfeat.metrics import (
    feature_usefulness,
    make_robust_scorer,
    robust_accuracy_curve,
    robust_accuracy_score,
    robust_feature_usefulness,
    transfer_rate,
)

__all__ = [
    "AdversarialClassifier",
    "ConstructedDataset",
    "GaussianRobustMLE",
    "NonRobustRelabeler",
    "RobustFeatureInverter",
    "StandardClassifier",
    "adversarial_examples",
    "feature_usefulness",
    "from_torch",
    "load",
    "make_robust_scorer",
    "robust_accuracy_curve",
    "robust_accuracy_score",
    "robust_feature_usefulness",
    "save",
    "__version__",
    "transfer_rate",
]

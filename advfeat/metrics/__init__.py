"""Measures of robustness and of usefulness."""

from advfeat.metrics._robust_accuracy import (
    make_robust_scorer,
    robust_accuracy_curve,
    robust_accuracy_score,
)
from advfeat.metrics._transfer import transfer_rate
from advfeat.metrics._usefulness import feature_usefulness, robust_feature_usefulness

__all__ = [
    "feature_usefulness",
    "make_robust_scorer",
    "robust_accuracy_curve",
    "robust_accuracy_score",
    "robust_feature_usefulness",
    "transfer_rate",
]

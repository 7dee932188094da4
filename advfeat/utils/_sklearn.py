"""scikit-learn's private names that advfeat uses: all of them, so that a change breaks one place.

Beside these names two conventions of its estimators are used: the attribute
``_parameter_constraints`` and the method ``_validate_params``, which belong to `_fit_context`.
"""

from sklearn.base import _fit_context
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    Options,
    StrOptions,
    validate_parameter_constraints,
    validate_params,
)
from sklearn.utils.multiclass import _check_partial_fit_first_call
from sklearn.utils.validation import _check_sample_weight, _get_feature_names

__all__ = [
    "HasMethods",
    "Interval",
    "Options",
    "StrOptions",
    "_check_partial_fit_first_call",
    "_check_sample_weight",
    "_fit_context",
    "_get_feature_names",
    "_safe_indexing",
    "validate_parameter_constraints",
    "validate_params",
]

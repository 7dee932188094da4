"""scikit-learn's private names that advfeat imports, all here, so that a change breaks one place.

Private attributes of its estimators are used where they belong, such as
``_parameter_constraints``, ``_sklearn_output_config`` and ``_sk_visual_block_``.
"""

from sklearn.base import _clone_parametrized, _fit_context
from sklearn.utils._metadata_requests import _raise_for_params
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

try:
    from sklearn.utils._repr_html.estimator import _VisualBlock
except ImportError:  # before 1.7
    from sklearn.utils._estimator_html_repr import _VisualBlock

__all__ = [
    "HasMethods",
    "Interval",
    "Options",
    "StrOptions",
    "_check_partial_fit_first_call",
    "_check_sample_weight",
    "_clone_parametrized",
    "_fit_context",
    "_get_feature_names",
    "_raise_for_params",
    "html_block",
    "html_block_around",
    "validate_parameter_constraints",
    "validate_params",
]


def html_block(estimator, caption):
    """Box of an estimator in scikit-learn's HTML view, with a line below its name."""
    return _VisualBlock(
        "single",
        estimator,
        names=type(estimator).__name__,
        name_details=str(estimator),
        name_caption=caption,
    )


def html_block_around(name, inner):
    """Box of an estimator around that of another one, the value of its parameter ``name``."""
    title = f"{name}: {type(inner).__name__}"
    return _VisualBlock("parallel", [inner], names=[title], name_details=[str(inner)])

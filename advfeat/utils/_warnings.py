"""Warnings that name the line of the user's own code."""

import sys
import warnings

_INSIDE = {"advfeat", "contextlib", "copy", "joblib", "pickle", "sklearn", "skorch", "torch"}


def warn_caller(message, category=UserWarning):
    """Warn at the line outside this package and its libraries from which all was called."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0] in _INSIDE:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)

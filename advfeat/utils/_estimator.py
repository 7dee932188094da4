"""What all estimators share: pickles that say their version, and a link to their page."""

import contextlib
from typing import Any

from advfeat._version import __version__
from advfeat.utils._warnings import warn_caller

SITE = "https://advfeat.readthedocs.io"  # as in pyproject.toml; "stable" is the last release

_MARK = "_advfeat_version"


@contextlib.contextmanager
def draft_of(estimator):
    """Give a draft to fit, which takes the estimator's place in one step if all goes well.

    Whatever fails or interrupts the fit, at whatever instant, the estimator is as it was before.
    Parameters that other threads, or callbacks, set meanwhile stay set.
    """
    before = dict(vars(estimator))
    draft = as_now(estimator)
    draft.__dict__ = dict(before)
    yield draft
    new = {k: v for k, v in vars(estimator).items() if v is not before.get(k, draft)}
    meanwhile = {name: value for name, value in new.items() if name.strip("_") == name}
    estimator.__dict__ = {**vars(draft), **meanwhile}


def as_now(estimator):
    """Give a view of an estimator that sees one fit throughout, whatever another thread fits.

    A fit puts another dict in the place of the estimator's, see `draft_of`. What is set on either
    is set on both.
    """
    now = object.__new__(type(estimator))
    now.__dict__ = vars(estimator)
    return now


class EstimatorMixin:
    """Mixin for estimators, before scikit-learn's; of pickles see `__setstate__`."""

    # What the "?" in scikit-learn's HTML view opens.
    _doc_link_module = "advfeat"
    _doc_link_template = f"{SITE}/en/stable/api/advfeat.{{estimator_name}}.html"

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[assignment]
        return {**state, _MARK: __version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of a pickle.

        Raises
        ------
        ValueError
            If a version wrote it that did not say which it was, or had other parameters.

        Warns
        -----
        UserWarning
            If another version wrote it.
        """
        state = dict(state)
        version = state.pop(_MARK, None)
        name = type(self).__name__
        params = set(self._get_param_names())  # type: ignore[attr-defined]
        if version is None or not params <= set(state):
            writer = f"advfeat {version}" if version else "advfeat before 0.1"
            raise ValueError(
                f"This pickle of {name} was written by {writer} and cannot be read by "
                f"advfeat {__version__}. Read it with the version that wrote it, and keep it with "
                "advfeat.save if it is a classifier; or fit it again."
            )
        if version != __version__:
            warn_caller(
                f"This pickle of {name} was written by advfeat {version}; in advfeat "
                f"{__version__} it may not work, or give other results. Files of advfeat.save are "
                "made to last.",
            )
        super().__setstate__(state)  # type: ignore[misc]

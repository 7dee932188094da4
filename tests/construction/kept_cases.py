"""Constructions with a store, in two steps."""

from advfeat import (
    NonRobustRelabeler,
)

QUIET = {"random_state": 0, "verbose": 0}


def relabelled(source, X, y, **settings):
    relabeler = NonRobustRelabeler(source, **{"n_steps": 2, **QUIET, **settings})
    return relabeler.fit_transform(X, y)

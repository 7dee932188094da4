"""How sources, constructed sets and classifiers are made."""

import numpy as np
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from skorch.callbacks import Callback

from measures import as_floats, batches


class TestAccuracy(Callback):
    """Keeps the accuracy on the test set after each epoch; it decides nothing."""

    __test__ = False  # for pytest

    def __init__(self, X, y, classes):
        self.data = X, y, classes

    def on_epoch_end(self, net, **kwargs):
        """Predict the test set."""
        X, y, classes = self.data
        labels = np.searchsorted(classes, y)
        net.module_.eval()
        with torch.no_grad():
            parts = [
                net.infer(torch.from_numpy(as_floats(X[i : i + 1000])).to(net.device)).argmax(1)
                for i in range(0, len(X), 1000)
            ]
        found = torch.cat(parts).cpu().numpy()
        net.history.record("test_accuracy", float(np.mean(found == labels)))

    def on_train_end(self, net, **kwargs):
        """Let go of the data, so that they are not kept with the classifier."""
        self.data = None


def construct_inverted(constructor, source, X, y, rows):
    """Invert X from the images in ``rows``, or from noise; say how near the features came."""
    constructor.set_params(estimator=FrozenEstimator(source), **batches(source))
    if rows is not None:
        constructor.set_params(init=X[rows])
    found = {"set": constructor.fit_transform(X, y)}
    found["median residual"] = float(np.median(constructor.residual_))
    found["mean residual"] = float(np.mean(constructor.residual_))
    if rows is None:
        found["mean distance to the start"] = float(np.mean(constructor.distance_))
    return found


def construct_relabelled(constructor, source, X, y):
    """Perturb X towards its targets; say how often the source was convinced."""
    constructor.set_params(estimator=FrozenEstimator(source), **batches(source))
    return {"set": constructor.fit_transform(X, y), "success rate": constructor.success_rate_}


def construct_rows(constructor, source, X, y, rows, starts):
    """Construct some rows of a set alone, as they are in the whole but for rounding."""
    constructor.set_params(estimator=FrozenEstimator(source), **batches(source))
    if starts is not None:
        return constructor.set_params(init=X[starts[rows]]).fit_transform(X[rows], y[rows])
    # Random targets are drawn for all samples at once; they depend on neither eps nor steps.
    targets = clone(constructor).set_params(eps=0.0, n_steps=1).fit_transform(X, y).y[rows]
    return constructor.set_params(target=lambda y: targets).fit_transform(X[rows], y[rows])

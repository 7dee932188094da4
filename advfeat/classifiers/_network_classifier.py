"""What every classifier made of a torch network has in common: prediction, features, gradients."""

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import nn

from advfeat.classifiers._html import network_line
from advfeat.classifiers._user_modules import portable
from advfeat.datasets._torch_data import inputs_of, refuse_constructed, unpack_data
from advfeat.optim import FrozenNetwork
from advfeat.optim._copying import copy_network, make_picklable
from advfeat.optim._network_state import to_device
from advfeat.utils._batches import PREDICTION_BATCH, Forward, iter_batches, run_batches
from advfeat.utils._bounds import resolve_bounds
from advfeat.utils._checks import check_inputs
from advfeat.utils._device import has_float64, resolve_device
from advfeat.utils._estimator import EstimatorMixin, as_now
from advfeat.utils._labels import encode_labels
from advfeat.utils._logits import usable
from advfeat.utils._sklearn import _clone_parametrized, html_block
from advfeat.utils._typing import Inputs
from advfeat.utils._weight import check_weight, weighted_share


class NetworkClassifier(EstimatorMixin, ClassifierMixin, BaseEstimator):
    """A fitted network as a classifier; base of `StandardClassifier` and `TorchClassifier`.

    What attacks, constructors and metrics need of a source is here. A subclass gives `module_`,
    ``classes_`` and ``input_shape_``, and the parameters ``bounds``, ``channels`` and ``device``.
    Predictions take 256 samples at once.

    Attributes
    ----------
    module_ : nn.Module
        Gives logits of shape (n, n_classes) for a tensor in input units.
    classes_ : ndarray of shape (n_classes,)
        Sorted; class i belongs to logit i.
    input_shape_ : tuple
        Shape of one sample.
    input_bounds_ : (low, high) or None
        Valid range of the inputs, in input units; None if there is none.
    input_statistics_ : (mean, std) or None
        Of the training data, as tensors that are broadcastable to one sample, in input units;
        None if they are not known.

    The methods `frozen`, `check_inputs`, `predict`, `predict_proba`, `predict_log_proba`,
    `decision_function` and `features` belong to it as well.
    """

    def decision_function(self, X: Inputs) -> NDArray:
        """Logits.

        Parameters
        ----------
        X : array-like of shape (n, d) or (n, C, H, W)
            Inputs like those of the training: images in [0, 1] or uint8 in 0..255.

        Returns
        -------
        ndarray of shape (n, n_classes), or (n,) for two classes: the logit difference
        """
        self = as_now(self)
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Inputs) -> NDArray:
        """Class probabilities.

        Parameters
        ----------
        X : array-like of shape (n, d) or (n, C, H, W)
            Inputs like those of the training: images in [0, 1] or uint8 in 0..255.

        Returns
        -------
        ndarray of shape (n, n_classes)
        """
        self = as_now(self)
        return torch.from_numpy(self._logits(X)).softmax(1).numpy()

    def predict_log_proba(self, X: Inputs) -> NDArray:
        """Logarithms of the class probabilities, also of those too small for `predict_proba`.

        Parameters
        ----------
        X : array-like of shape (n, d) or (n, C, H, W)
            Inputs like those of the training: images in [0, 1] or uint8 in 0..255.

        Returns
        -------
        ndarray of shape (n, n_classes)
        """
        self = as_now(self)
        return torch.from_numpy(self._logits(X)).log_softmax(1).numpy()

    def predict(self, X: Inputs) -> NDArray:
        """Most probable class.

        Parameters
        ----------
        X : array-like of shape (n, d) or (n, C, H, W)
            Inputs like those of the training: images in [0, 1] or uint8 in 0..255.

        Returns
        -------
        ndarray of shape (n,)
        """
        self = as_now(self)
        refuse_constructed(X, type(self).__name__)
        said, bad = self._classes_said(self.check_inputs(X))
        self._refuse_unusable(bad)
        return self.classes_[said]

    def score(
        self, X: Inputs, y: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> float:
        """Accuracy.

        Parameters
        ----------
        X : array-like of shape (n, d) or (n, C, H, W), ConstructedDataset or torch Dataset
            Samples, in input units (images in [0, 1], or uint8).
        y : array-like of shape (n,), default=None
            As in `fit`. A label that was not seen in `fit` counts as wrong.
        sample_weight : array-like of shape (n,), optional
            Weights in the mean, not negative; equal by default.

        Returns
        -------
        float
            In [0, 1].
        """
        self = as_now(self)
        X, y = unpack_data(self, X, y)
        X = self.check_inputs(X)
        index = encode_labels(y, self.classes_, len(X), unknown="mark")
        weight = check_weight(sample_weight, len(X))
        return weighted_share(self._is_right(X, index), weight)

    def features(self, X: Inputs) -> NDArray:
        """g(X), the penultimate layer: the input of the last linear layer.

        Parameters
        ----------
        X : array-like of shape (n, d) or (n, C, H, W)
            Inputs like those of the training: images in [0, 1] or uint8 in 0..255.

        Returns
        -------
        ndarray of shape (n, n_hidden), float32

        Raises
        ------
        ValueError
            If the network does not end in one linear layer.
        """
        self = as_now(self)
        X = self.check_inputs(X)
        frozen = self.frozen().verify(X).require_features()
        job = Forward(frozen.features, frozen.device)
        return run_batches(job, (X,), batch_size=PREDICTION_BATCH)[0]

    def frozen(self, precision: str = "fp32") -> FrozenNetwork:
        """Inference copy of the network on the estimator's device.

        Parameters
        ----------
        precision : {"fp32", "bf16"}, default="fp32"
            In which the copy computes.

        Returns
        -------
        advfeat.optim.FrozenNetwork
        """
        self = as_now(self)
        device = resolve_device(self.device)
        return FrozenNetwork(self.module_, device=device, precision=precision)

    def check_inputs(self, X: Inputs) -> Any:
        """Check X as `predict` does and return it as an array.

        Parameters
        ----------
        X : array-like of shape (n, d) or (n, C, H, W), or torch Dataset
            Inputs like those of the training: images in [0, 1] or uint8 in 0..255.

        Returns
        -------
        array of shape (n, d) or (n, C, H, W)
            In float32, or uint8 for images. What is read batch by batch is not read whole.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If X does not fit what was seen in `fit`.
        """
        check_is_fitted(self)
        return check_inputs(self, inputs_of(X), bounds=self.bounds, channels=self.channels)

    @property
    def input_bounds_(self):
        """(low, high) in input units, or None for unbounded inputs."""
        check_is_fitted(self)
        return resolve_bounds(self.bounds, self.input_shape_)

    @property
    def _normalises(self):
        """Whether the network begins with a mean and std: modules, as they are given, do not."""
        return getattr(self.network, "_normalises", not isinstance(self.network, nn.Module))

    def _logits(self, X):
        refuse_constructed(X, type(self).__name__)
        job = self._forward(X := self.check_inputs(X))
        logits = run_batches(job, (X,), batch_size=PREDICTION_BATCH)[0].astype(np.float64)
        self._refuse_unusable(~usable(logits))
        return logits

    def _refuse_unusable(self, bad):
        if bad.any():
            raise ValueError(
                f"Expected finite logits, or -inf for some of the classes. For {bad.sum()} of "
                f"{len(bad)} samples the network returned NaN, inf, or -inf for all classes: "
                "look for an overflow or a mask in it, and check the scale of X."
            )

    def _is_right(self, X, index):
        """Whether the class said of each sample is the one at its index."""
        said, bad = self._classes_said(X)
        return ~bad & (said == index)

    def _classes_said(self, X):
        """Position of the class said of each sample, and whether its logits say none."""
        said, bad = np.empty(len(X), dtype=np.intp), np.empty(len(X), dtype=bool)
        parts = iter_batches(self._forward(X), (X,), batch_size=PREDICTION_BATCH)
        for begin, (logits,) in parts:  # of which all together may take more than X
            part = slice(begin, begin + len(logits))
            said[part], bad[part] = logits.argmax(1), ~usable(logits)
        return said, bad

    def _forward(self, X):
        """Job that gives the logits of data that are checked."""
        device = resolve_device(self.device)
        module, dtype = to_device(self.module_, device).eval(), torch.float32
        if self._computes_in_float64(X):
            device = device if has_float64(device) else torch.device("cpu")
            module, dtype = copy_network(module).to(device).double(), torch.float64
        return Forward(module, device, dtype)

    def _computes_in_float64(self, X):
        return False

    def _sk_visual_block_(self):
        return html_block(self, network_line(self))

    def __sklearn_clone__(self):
        twin = object.__new__(type(self))  # scikit-learn deep-copies what is no estimator
        vars(twin).update(vars(self))
        for name, given in self.get_params(deep=False).items():
            if isinstance(given, torch.nn.Module):
                setattr(twin, name, _Cloned(given))
        return _clone_parametrized(twin)

    def __getstate__(self):
        state = super().__getstate__()
        for name, given in self.get_params(deep=False).items():
            if isinstance(given, torch.nn.Module):
                make_picklable(given)
                state[name] = portable(given)
        return state


class _Cloned:
    """A module that scikit-learn's `clone` copies as `copy_network` does."""

    def __init__(self, module):
        self.module = module

    def __sklearn_clone__(self):
        return copy_network(self.module)

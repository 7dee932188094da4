"""skorch nets: fitted on the data of a constructor, and seen as classifiers of this package.

A skorch net takes label j for output j and predicts the position of the largest output, so its
labels are 0, 1, ..., whatever its ``classes_`` say.
"""

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn

from advfeat.classifiers._from_torch import TorchClassifier
from advfeat.classifiers._interrupts import marked_interrupts
from advfeat.classifiers._user_modules import (
    ForwardError,
    check_logits,
    copy_of,
    name_of,
    refuse_unusable,
)
from advfeat.optim._network_state import to_device
from advfeat.utils._device import default_modes
from advfeat.utils._labels import check_labels
from advfeat.utils._lazy import CastArray
from advfeat.utils._random import isolated_torch_seed
from advfeat.utils._units import InUnits


def check_skorch_net(net):
    """Raise an error unless a skorch net can be attacked: with one output for each class.

    Raises
    ------
    TypeError
        For another kind of net.
    ValueError
        For a module that cannot be used here, such as one of torch.jit.
    """
    if isinstance(net, NeuralNetBinaryClassifier):
        raise TypeError(
            "A NeuralNetBinaryClassifier has one logit; robustness needs one for each class. Use "
            "a NeuralNetClassifier whose module returns two."
        )
    if not isinstance(net, NeuralNetClassifier):
        raise TypeError(
            f"A skorch net must be a NeuralNetClassifier. Got {type(net).__name__} instead."
        )
    if isinstance(net.module, nn.Module):
        refuse_unusable(net.module, lazy=True)


def from_skorch(net, input_shape):
    """See a fitted skorch net as a `TorchClassifier` with a copy of its module.

    Parameters
    ----------
    net : skorch.NeuralNetClassifier
        Its module gets inputs in input units. With NLLLoss it returns probabilities, as skorch
        expects; otherwise logits.
    input_shape : tuple
        Shape of one sample.

    Raises
    ------
    TypeError
        For nets that are no classifiers with one output for each class.
    ValueError
        If the module does not return what it must.
    """
    check_skorch_net(net)
    check_is_fitted(net)
    with default_modes():
        return _classifier(net, input_shape)


def _classifier(net, input_shape):
    module = copy_of(net.module_)
    device = net.device or next(module.parameters()).device
    to_device(module, device)
    what = f"The module {name_of(module)} of the skorch net"
    if isinstance(net.criterion_, nn.NLLLoss):
        module = nn.Sequential(module, _Log())
    logits, _ = check_logits(module, input_shape, None, what, device)
    if isinstance(net.criterion_, nn.NLLLoss):
        sums = logits.detach().exp().sum(1)
        if not torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
            raise ValueError(
                f"{what} must return probabilities, as skorch takes their logarithm for NLLLoss. "
                f"Its outputs sum to {float(sums[0]):.3g}; for logits use CrossEntropyLoss."
            )
    return TorchClassifier(
        module,
        classes=range(logits.shape[1]),
        input_shape=input_shape,
        channels="first",  # the module has just taken this shape
        device=device,
    )._set_up()


def fit_skorch_net(net, X, y, seed):
    """Fit a skorch net on checked data, without torch's global generators.

    Parameters
    ----------
    net : skorch.NeuralNetClassifier
    X : array of shape (n, d) or (n, C, H, W), float32 or uint8
    y : array-like of shape (n,)
        Their labels.
    seed : int
        Of the weights, the order of the batches and the like.

    Raises
    ------
    ValueError
        If the labels are not 0, 1, ..., or the module does not fit the data.
    """
    y = check_labels(y, len(X))
    if y.dtype.kind not in "iu" or y.min() < 0:
        raise ValueError(
            "A skorch net takes the label j for its output j, so labels must be the integers "
            f"0, 1, ... Got {np.unique(y)[:3]}, ...; encode them (sklearn's LabelEncoder) or use "
            "a StandardClassifier, which does so itself."
        )
    device = torch.device(net.device or "cpu")
    misfit = None
    with isolated_torch_seed(device, seed):
        # Before the long work. What it does not see is found out by `from_skorch` after the fit.
        try:
            n_outputs = len(from_skorch(clone(net).initialize(), X.shape[1:]).classes_)
            if y.max() >= n_outputs:
                raise ValueError(
                    f"The skorch net has {n_outputs} outputs, for the labels 0 to "
                    f"{n_outputs - 1}, but y contains {y.max()}."
                )
        except ForwardError as error:  # callbacks may adapt the module to the data
            misfit = error
    X = as_skorch_takes(X)
    with isolated_torch_seed(device, seed), marked_interrupts() as interrupts:
        try:
            net.fit(X, y.astype(np.int64))
        except Exception as error:
            if misfit is None:
                raise
            raise misfit from error
    if interrupts:  # which skorch takes for the end of the training
        raise interrupts[0]
    return net


def as_skorch_takes(X):
    """Give checked data as a skorch net cuts batches of them: float32, in input units."""
    if X.dtype == np.uint8:
        return InUnits(X)
    if isinstance(X, np.ndarray) and not X.flags.writeable:
        return CastArray(X)  # which gives copies of rows: torch warns of those that are read-only
    return X


class _Log(nn.Module):
    def forward(self, probabilities):
        return torch.log(probabilities + torch.finfo(probabilities.dtype).eps)

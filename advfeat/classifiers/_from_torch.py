"""A torch module from elsewhere as a fitted classifier."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils import check_array
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils.data import Dataset

from advfeat.classifiers._network_classifier import NetworkClassifier
from advfeat.classifiers._user_modules import (
    check_logits,
    copy_of,
    has_gradient,
    name_of,
    portable,
)
from advfeat.classifiers.networks import Network
from advfeat.datasets._torch_data import inputs_of, unpack_data
from advfeat.optim._copying import copy_network
from advfeat.optim._network_state import to_device
from advfeat.utils._arrays import as_array
from advfeat.utils._bounds import resolve_bounds, validate_bounds
from advfeat.utils._checks import CHANNELS
from advfeat.utils._device import default_modes, resolve_device
from advfeat.utils._estimator import draft_of
from advfeat.utils._labels import encode_labels
from advfeat.utils._sklearn import StrOptions, _get_feature_names, validate_parameter_constraints
from advfeat.utils._typing import Bounds, Device, Inputs

if TYPE_CHECKING:
    from typing_extensions import Self


def from_torch(
    module: torch.nn.Module,
    *,
    classes: ArrayLike,
    input_shape: tuple[int, ...],
    mean: ArrayLike | None = None,
    std: ArrayLike | None = None,
    bounds: Bounds = "auto",
    channels: str = "auto",
    device: Device = "auto",
) -> Any:
    """Make a fitted classifier of a trained torch network.

    It predicts, can be attacked and scored, and be the source of a constructor; it is never
    trained. To train further, pass it to ``StandardClassifier(network=...)`` or
    ``AdversarialClassifier(network=...)``: each fit starts from a copy of its weights.

    Parameters
    ----------
    module : nn.Module
        Returns logits of shape (n, n_classes). It is copied, and stays as it is.
    classes : array-like of shape (n_classes,)
        The label of each logit: integers, booleans or text, such as ``range(10)`` or names.
    input_shape : tuple
        Shape of one sample: (C, H, W) or (d,).
    mean, std : float or array-like, default=None
        What inputs are normalised by, for each channel (or feature), in input units. None for
        networks that take inputs as they are, or normalise them inside.
    bounds : "auto", None or (low, high), default="auto"
        Valid range of the inputs: two numbers, or arrays with one for each channel (feature).
        "auto": [0, 1] for images, unbounded for (d,).
    channels : {"auto", "first", "last"}, default="auto"
        Which axis of the images given holds the channels, see `StandardClassifier`. The module
        gets (n, C, H, W) in any case.
    device : str or torch.device, default="auto"
        "auto" takes CUDA where there is one.

    Returns
    -------
    TorchClassifier

    Raises
    ------
    TypeError
        If the module is no nn.Module.
    ValueError
        If it does not return logits for such inputs (tried on two samples), or they have no
        gradient; for torch.jit modules and weights that are not float32.

    Examples
    --------
    >>> from torch import nn
    >>> from advfeat import from_torch, robust_accuracy_score
    >>> from advfeat.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))  # trained elsewhere
    >>> clf = from_torch(net, classes=range(10), input_shape=(1, 8, 8), mean=0.3, std=0.4)
    >>> clf.predict_proba(X).shape
    (1797, 10)
    >>> robust_accuracy_score(clf, X[:100], y[:100], norm=2, eps=2.0)
    0.0
    """
    with default_modes():
        return TorchClassifier(
            copy_of(module),
            classes=_own(classes),
            input_shape=_own(input_shape),
            mean=_own(mean),
            std=_own(std),
            bounds=tuple(map(_own, bounds)) if isinstance(bounds, (tuple, list)) else bounds,
            channels=channels,
            device=device,
        )._set_up()


class TorchClassifier(NetworkClassifier):
    """A torch network that was trained elsewhere, as a fitted classifier; see `from_torch`.

    ``fit`` checks its data and changes nothing, and ``clone`` gives a classifier of the same
    weights, as with scikit-learn's FrozenEstimator.

    Parameters
    ----------
    module, classes, input_shape, mean, std, bounds, channels, device
        As in `from_torch`.

    Attributes
    ----------
    module_ : nn.Module
        The normalisation and the copy of the network; gives logits in the order of ``classes_``.
    classes_ : ndarray of shape (n_classes,)
        Sorted.
    input_shape_ : tuple
    n_features_in_ : int
        For ``input_shape=(d,)``.

    Examples
    --------
    >>> from sklearn.base import clone
    >>> from torch import nn
    >>> from advfeat import from_torch
    >>> clf = from_torch(nn.Linear(4, 2), classes=["no", "yes"], input_shape=(4,))
    >>> clf
    TorchClassifier(<Linear>, 2 classes, input_shape=(4,))
    >>> clone(clf).module is clf.module
    True
    """

    _doc_link_template = NetworkClassifier._doc_link_template.replace(
        "advfeat.{", "advfeat.classifiers.{"
    )

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        classes: ArrayLike,
        input_shape: tuple[int, ...],
        mean: ArrayLike | None = None,
        std: ArrayLike | None = None,
        bounds: Bounds = "auto",
        channels: str = "auto",
        device: Device = "auto",
    ) -> None:
        self.module = module
        self.classes = classes
        self.input_shape = input_shape
        self.mean = mean
        self.std = std
        self.bounds = bounds
        self.channels = channels
        self.device = device

    def fit(
        self, X: Inputs, y: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Check the data; the network stays as it is.

        Parameters
        ----------
        X : array-like of shape (n, d) or (n, C, H, W)
            Samples, in input units (images in [0, 1], or uint8).
        y : array-like of shape (n,), optional
            Only checked: every label must be among ``classes``.
        sample_weight : array-like of shape (n,), optional
            Not used.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X has another shape than the network takes, or y has labels that it does not know.
        """
        if isinstance(X, Dataset):
            X, y = unpack_data(self, X, y)
        X = self.check_inputs(X)
        if y is not None:
            encode_labels(y, self.classes_, len(X))
        return self

    def check_inputs(self, X: Inputs) -> Any:
        """Check X as `predict` does and return it as an array.

        Parameters
        ----------
        X : array-like of shape (n, d) or (n, C, H, W), or torch Dataset
            The columns of a data frame are taken in their order.

        Returns
        -------
        array of shape (n, d) or (n, C, H, W)
            In float32, or uint8 for images. What is read batch by batch is not read whole.
        """
        X = inputs_of(X)
        if _get_feature_names(X) is not None:
            X = check_array(X, ensure_all_finite=False)  # an array; what is missing is NaN
        return super().check_inputs(X)

    @property
    def _normalises(self):
        return self.mean is not None

    def set_params(self, **params: Any) -> Self:
        """Set parameters and check the network anew.

        Parameters
        ----------
        **params
            Those of `from_torch`, by name.

        Returns
        -------
        self
        """
        with draft_of(self) as draft, default_modes():
            if "device" in params:
                params.setdefault("module", self.module)  # clones share it
            if "module" in params:
                params["module"] = copy_of(params["module"])
            super(TorchClassifier, draft).set_params(**params)
            draft._set_up()
        return self

    def _set_up(self):
        classes = _check_classes(self.classes)
        shape = _check_shape(self.input_shape)
        validate_bounds(self.bounds, type(self).__name__)
        validate_parameter_constraints(
            {"channels": [StrOptions(set(CHANNELS))]},
            {"channels": self.channels},
            type(self).__name__,
        )
        mean = self._per_channel("mean", 0.0, shape)
        std = self._per_channel("std", 1.0, shape)
        order = np.argsort(classes, kind="stable")
        in_order = np.array_equal(order, np.arange(len(order)))
        if any(is_lazy(weight) for weight in self.module.parameters()):
            raise ValueError(
                f"{name_of(self.module)} has layers without weights, which its first call would "
                "draw at random. Run it once, or load its weights, before it is passed."
            )
        module = Network(self.module, mean, std, None if in_order else torch.from_numpy(order))
        device = resolve_device(self.device)
        to_device(module, device).eval()
        what = f"The module {name_of(self.module)}"
        logits, x = check_logits(module, shape, len(classes), what, device)
        if not has_gradient(logits, [x], what):
            raise ValueError(
                f"{what} gives no gradient with respect to its input (torch.no_grad, detach or "
                "quantised layers), so it cannot be attacked."
            )
        self.module_, self.classes_, self.input_shape_ = module, classes[order], shape
        if len(shape) == 1:
            self.n_features_in_ = shape[0]
        return self

    def _per_channel(self, name, default, shape):
        """Mean or std, checked, as a tensor that is broadcastable to one sample."""
        given = getattr(self, name)
        try:
            value = default if given is None else given
            value = torch.from_numpy(np.array(as_array(value), dtype=np.float32))  # a copy
        except (TypeError, ValueError, RuntimeError):
            value = torch.zeros(0, device="cpu")
        per = "channel" if len(shape) == 3 else "feature"
        if value.numel() not in (1, shape[0]) or not torch.isfinite(value).all():
            raise ValueError(
                f"{name} must be a number, or {shape[0]}, one for each {per}. Got {given!r}."
            )
        if name == "std" and not (value > 0).all():
            raise ValueError(f"std must be positive. Got {given!r}.")
        value = value.reshape((-1, 1, 1)[: len(shape)] if value.numel() > 1 else ())
        bounds = resolve_bounds(self.bounds, shape)
        if name == "mean" and given is not None and bounds is not None:
            low, high = (torch.as_tensor(side, device="cpu") for side in bounds)
            if not ((low <= value) & (value <= high)).all():
                raise ValueError(
                    f"mean must be in input units, within the bounds of the inputs. Got {given}; "
                    "for images scaled to [0, 1] divide the mean and std of 0..255 by 255."
                )
        return value

    @property
    def input_statistics_(self):
        """None: the training data are not known."""
        return None

    def __sklearn_clone__(self):
        twin = object.__new__(type(self))
        twin.__dict__ = dict(vars(self))
        return twin

    def __getstate__(self):
        state = super().__getstate__()
        module = portable(self.module_)
        return {**state, "module_": module, "module": module.body}

    def __repr__(self, N_CHAR_MAX=700):
        # scikit-learn's would print the whole network.
        return (
            f"TorchClassifier({name_of(self.module)}, {len(self.classes_)} classes, "
            f"input_shape={self.input_shape_})"
        )


def refuse_estimator_as_network(network: str | Callable[..., torch.nn.Module], owner):
    """Raise a ValueError for a ``network`` that is a state dict or another kind of estimator."""
    kind = network if isinstance(network, type) else type(network)
    known = issubclass(kind, (TorchClassifier, torch.nn.Module))
    if isinstance(network, dict) or (hasattr(network, "predict") and not known):
        # scikit-learn's message would print all of its weights.
        how = "a module with it" if isinstance(network, dict) else "its module_ by from_torch"
        raise ValueError(
            f"The 'network' parameter of {owner} must be a name, an nn.Module or its class, or "
            f"what from_torch returns. Got an instance of {kind.__name__}; pass {how}."
        )


def starting_point(network: str | Callable[..., torch.nn.Module], mean: ArrayLike, std: ArrayLike):
    """Give what training starts from: (network, mean, std, order), as `build_network` takes them.

    ``mean`` and ``std`` are those of the training data.
    """
    if isinstance(network, TorchClassifier):
        start = to_device(copy_network(network.module_), "cpu")
        return start.body, start.mean, start.std, start.order
    if isinstance(network, nn.Module):  # it takes inputs as they are
        mean, std = (torch.full((), v, dtype=torch.float32, device="cpu") for v in (0.0, 1.0))
    return network, mean, std, None


def _own(values):
    """Copy of an array, so that the user's may change."""
    if isinstance(values, torch.Tensor):
        return values.detach().cpu().clone()
    try:
        return copy.copy(values)
    except TypeError:  # what is no container, which is refused later
        return values


def _check_classes(classes):
    given = classes.cpu() if isinstance(classes, torch.Tensor) else classes
    classes = np.asarray(given)
    if classes.ndim != 1 or len(classes) < 2:
        raise ValueError(
            "classes must hold the label of each logit, of 2 at least, such as range(10). Got "
            f"an array of shape {classes.shape}."
        )
    # NumPy makes one type of several.
    labels = list(given) if isinstance(given, (list, tuple)) else classes.tolist()
    scalars = np.generic, torch.Tensor
    kinds = {type(label.item() if isinstance(label, scalars) else label) for label in labels}
    if classes.dtype.kind in "OT" and len(kinds) == 1:
        classes = np.array(labels)  # whatever held them
    if len(kinds) > 1 or classes.dtype.kind not in "biuU":
        raise ValueError(
            "classes must be all integers, all booleans or all strings. Got "
            f"{', '.join(sorted(kind.__name__ for kind in kinds))}."
        )
    if len(np.unique(classes)) < len(classes):
        raise ValueError("classes must name each logit once, but some labels are repeated.")
    return classes


def _check_shape(shape):
    try:
        shape = tuple(operator.index(side) for side in shape)
    except (TypeError, ValueError):
        shape = ()
    if len(shape) not in (1, 3) or min(shape) < 1:
        raise ValueError(
            "input_shape must be the shape of one sample, (C, H, W) or (d,), such as (3, 32, 32)."
        )
    return shape

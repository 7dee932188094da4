"""StandardClassifier: a scikit-learn estimator that owns a skorch net."""

from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils import check_array
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d
from skorch.callbacks import Callback

from advfeat.classifiers._augmentation import AUGMENTATIONS
from advfeat.classifiers._fitting import draft_of, draft_of_net, input_statistics, on_device
from advfeat.classifiers._nets import (
    SCHEDULES,
    ArrayDataset,
    Progress,
    TrainingNet,
    make_schedule,
    n_batches,
)
from advfeat.classifiers._network_classifier import NetworkClassifier
from advfeat.classifiers.networks import build_network, check_network_name
from advfeat.datasets._constructed import unpack_training_data
from advfeat.utils._checks import check_inputs, resolve_bounds, validate_bounds
from advfeat.utils._device import resolve_device
from advfeat.utils._random import draw_seed, isolated_torch_seed
from advfeat.utils._sklearn import Interval, StrOptions, _check_sample_weight, _fit_context


class StandardClassifier(NetworkClassifier):
    """Image or tabular classifier, trained in the ordinary way.

    Parameters
    ----------
    network : str or callable, default="auto"
        "mlp", "small_cnn", "small_resnet", "resnet9", "resnet18", "resnet34", "resnet50",
        "vgg16" (with batch-norm), "densenet121", "inception_v3", or an nn.Module class (of
        the keywords ``input_shape``, ``in_channels``, ``n_features``, ``n_classes``,
        ``num_classes`` it is given those that it accepts) that maps normalised inputs to
        logits of shape (n, n_classes), without a softmax. "auto": "mlp" for (n, d), "small_cnn"
        for images with a side under 16 pixels, "small_resnet" for larger ones.
    max_epochs : int, default=30
    lr : float, default=0.1
        Peak learning rate of SGD.
    batch_size : int, default=128
        Samples of a training step. Predictions take 256 at once whatever it is.
    momentum : float, default=0.9
    weight_decay : float, default=5e-4
    lr_schedule : {"one-cycle", "step", "constant"}, default="one-cycle"
        "step" divides lr by 10 after one third and two thirds of the epochs, as in the paper.
    augmentation : {"none", "flip-crop", "paper"}, default="none"
        For images. "paper": random crop, flip, colour jitter 0.25, rotation by 2 degrees.
    bounds : "auto", None or (low, high), default="auto"
        Valid range of the inputs. "auto": [0, 1] for images, unbounded for (n, d).
    warm_start : bool, default=False
        Whether `fit` goes on from the weights of the last fit.
    callbacks : list of skorch callbacks, default=None
        Passed through to the skorch net.
    precision : {"fp32", "bf16"}, default="fp32"
    device : str or torch.device, default="auto"
        "auto" takes CUDA where there is one.
    random_state : int, RandomState or None, default=None
    verbose : int, default=1
        Whether training of more than two seconds shows a progress bar.

    Attributes
    ----------
    net_ : skorch.NeuralNetClassifier
        ``net_.module_(x)`` gives logits for a tensor x in input units.
    classes_ : ndarray of shape (n_classes,)
    input_shape_ : tuple
        Shape of one sample.
    n_features_in_ : int
        For (n, d) input.
    feature_names_in_ : ndarray of str
        For data frames.
    history_ : list of dict
        One entry per epoch, with "train_loss", "dur" (seconds) and, in adversarial training,
        "attack_steps".

    References
    ----------
    Ilyas et al. 2019, Section 2 (standard training) and Appendix C.2.

    Examples
    --------
    >>> from advfeat import StandardClassifier
    >>> from advfeat.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> clf = StandardClassifier(max_epochs=3, random_state=0).fit(X[:1000], y[:1000])
    >>> clf.predict_proba(X[1000:]).shape
    (797, 10)
    """

    _parameter_constraints: dict = {
        "network": [str, callable],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "lr_schedule": [StrOptions(set(SCHEDULES))],
        "augmentation": [StrOptions(set(AUGMENTATIONS))],
        "bounds": [StrOptions({"auto"}), "array-like", None],
        "warm_start": ["boolean"],
        "callbacks": [list, None],
        "precision": [StrOptions({"fp32", "bf16"})],
        "device": [str, torch.device],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        network="auto",
        *,
        max_epochs=30,
        lr=0.1,
        batch_size=128,
        momentum=0.9,
        weight_decay=5e-4,
        lr_schedule="one-cycle",
        augmentation="none",
        bounds="auto",
        warm_start=False,
        callbacks=None,
        precision="fp32",
        device="auto",
        random_state=None,
        verbose=1,
    ):
        self.network = network
        self.max_epochs = max_epochs
        self.lr = lr
        self.batch_size = batch_size
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.lr_schedule = lr_schedule
        self.augmentation = augmentation
        self.bounds = bounds
        self.warm_start = warm_start
        self.callbacks = callbacks
        self.precision = precision
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, sample_weight=None):
        """Train on (X, y).

        Parameters
        ----------
        X : array-like of shape (n, d) or (n, C, H, W), ConstructedDataset or torch Dataset
            Images are floats in [0, 1] or uint8 in 0..255. A `ConstructedDataset` and a torch
            Dataset of (input, label) items carry their own labels.
        y : array-like of shape (n,)
            Labels of any type. For a `ConstructedDataset` either None or the labels that it was
            constructed from.
        sample_weight : array-like of shape (n,), optional

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For unusable X, y or parameters, and when training diverges.
        """
        with draft_of(self) as draft:
            draft._fit(X, y, sample_weight)
        return self

    def _fit(self, X, y, sample_weight):
        keep = self.warm_start and hasattr(self, "net_")
        weights = self.net_.module_.state_dict() if keep else None
        data = self._check_training_data(X, y, sample_weight, reset=not keep)
        steps = self.max_epochs * n_batches(len(data), self.batch_size)
        net = self._build_net(data, self.max_epochs, steps, make_schedule(self.lr_schedule, steps))
        with isolated_torch_seed(net.device, net.seed):
            net.initialize()
        if keep:
            net.module_.load_state_dict(weights)
        net.partial_fit(data, None)
        self.net_ = net

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None, classes=None, sample_weight=None):
        """Train for one epoch at constant lr; call it repeatedly for data that come in parts.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.
        classes : array-like, optional
            All labels that will ever occur; needed on the first call if y lacks some.

        Returns
        -------
        self
        """
        with draft_of(self) as draft:
            draft._partial_fit(X, y, classes, sample_weight)
        return self

    def _partial_fit(self, X, y, classes, sample_weight):
        first = not hasattr(self, "net_")
        data = self._check_training_data(X, y, sample_weight, reset=first, classes=classes)
        steps = n_batches(len(data), self.batch_size)
        if first:
            net = self._build_net(data, 1, steps, Callback())
            with isolated_torch_seed(net.device, net.seed):
                net.initialize()
        else:
            net = draft_of_net(on_device(self.net_, resolve_device(self.device)))
        net.lr = self.lr
        net.set_params(
            max_epochs=1,
            batch_size=self.batch_size,
            augmentation=self.augmentation,
            precision=self.precision,
            callbacks=self._callbacks(steps, Callback()),  # fit's schedule ended at a rate of zero
        )
        net.initialize_callbacks()
        for group in net.optimizer_.param_groups:
            group["lr"] = self.lr
        net.partial_fit(data, None)
        self.net_ = net

    @property
    def history_(self):
        """List of dicts, one per epoch, with "train_loss", "dur" (seconds) and the like."""
        check_is_fitted(self, "net_")
        return list(self.net_.history)

    @property
    def module_(self):
        """The torch network; it gives logits for a tensor in input units."""
        check_is_fitted(self, "net_")
        return self.net_.module_

    @property
    def input_statistics_(self):
        """(mean, std) of the training data, as tensors that are broadcastable to one sample."""
        return self.module_.mean, self.module_.std

    def _computes_in_float64(self, X):
        # Small enough for it, and a row's result does then not depend on its batch.
        return X.ndim == 2 and isinstance(self.network, str)

    def _check_training_data(self, X, y, sample_weight, *, reset, classes=None):
        """Validate everything; set classes_ and input_shape_; return an ArrayDataset."""
        check_network_name(self.network)
        validate_bounds(self.bounds, type(self).__name__)
        X, y = unpack_training_data(self, X, y)
        X = check_inputs(self, X, reset=reset, bounds=self.bounds)
        y = column_or_1d(y, warn=True)
        check_array(y, ensure_2d=False, dtype=None, ensure_min_samples=0, input_name="y")
        if len(X) != len(y):
            raise ValueError(
                f"Found input variables with inconsistent numbers of samples: X has {len(X)} "
                f"and y has {len(y)}."
            )
        check_classification_targets(y)
        if self.augmentation != "none" and X.ndim != 4:
            raise ValueError(
                f"augmentation={self.augmentation!r} needs images of shape (n, C, H, W), got X "
                f"of shape {X.shape}. Use augmentation='none'."
            )
        if self.augmentation != "none" and resolve_bounds(self.bounds, X.shape[1:]) != (0, 1):
            raise ValueError(
                f"augmentation={self.augmentation!r} is made for images in [0, 1]. Got "
                f"bounds={self.bounds!r}; rescale X, or use augmentation='none'."
            )
        weight = _check_sample_weight(sample_weight, X, dtype=np.float32, ensure_non_negative=True)
        if sample_weight is not None:
            used = weight > 0
            if not used.any():
                raise ValueError("Expected at least one positive sample weight, got none.")
            if not used.all():
                X, y, weight = X[used], y[used], weight[used]
            weight = weight / weight.mean()
        seen = np.unique(y)
        if reset:
            self.classes_ = seen if classes is None else np.unique(classes)
            if len(self.classes_) < 2:
                raise ValueError(
                    f"{type(self).__name__} needs samples of at least 2 classes, but y contains "
                    f"only one class: {self.classes_[0]!r}."
                )
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(
                f"classes must be those of the first call, {self.classes_}. Got {classes}."
            )
        if not np.isin(seen, self.classes_).all():
            raise ValueError(
                f"y contains labels that are not among the classes {self.classes_}: "
                f"{np.setdiff1d(seen, self.classes_)}."
            )
        return ArrayDataset(X, np.searchsorted(self.classes_, y).astype(np.int64), weight)

    def _build_net(self, data, epochs, steps, schedule):
        device = resolve_device(self.device)
        mean, std = input_statistics(data.X, data.sample_weight)
        net_class, extra = self._net_class()
        return net_class(
            build_network,
            module__network=self.network,
            module__input_shape=self.input_shape_,
            module__n_classes=len(self.classes_),
            module__mean=mean,
            module__std=std,
            criterion=torch.nn.CrossEntropyLoss,
            optimizer=torch.optim.SGD,
            optimizer__momentum=self.momentum,
            optimizer__weight_decay=self.weight_decay,
            lr=self.lr,
            max_epochs=epochs,
            batch_size=self.batch_size,
            train_split=None,
            classes=np.arange(len(self.classes_)),
            callbacks=self._callbacks(steps, schedule),
            callbacks__print_log=None,
            device=str(device),
            seed=draw_seed(self.random_state),
            augmentation=self.augmentation,
            precision=self.precision,
            verbose=0,
            **extra,
        )

    def _callbacks(self, n_steps, schedule):
        return [
            ("schedule", schedule),
            ("progress", Progress(type(self).__name__, n_steps, self.verbose)),
            *(self.callbacks or []),
        ]

    def _net_class(self):
        return TrainingNet, {}

    def __getstate__(self):
        state = super().__getstate__()
        if "net_" in state:
            state = {**state, "net_": on_device(state["net_"], "cpu")}
        return state

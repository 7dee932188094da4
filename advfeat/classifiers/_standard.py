"""StandardClassifier: a scikit-learn estimator that owns a skorch net."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING

import torch
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import Callback

from advfeat.classifiers._augmentation import AUGMENTATIONS
from advfeat.classifiers._callbacks import (
    OURS,
    SCHEDULES,
    BestEpoch,
    Progress,
    check_callbacks,
    make_schedule,
)
from advfeat.classifiers._distributed import Ranks
from advfeat.classifiers._from_torch import TorchClassifier, refuse_estimator_as_network
from advfeat.classifiers._net_copies import on_device
from advfeat.classifiers._net_setup import (
    initialize,
    make_net,
    net_to_go_on_with,
    refuse_for_parts,
    set_for_one_epoch,
)
from advfeat.classifiers._nets import TrainingNet
from advfeat.classifiers._network_classifier import NetworkClassifier
from advfeat.classifiers._training_batches import n_batches
from advfeat.classifiers._training_data import check_training_data, input_statistics
from advfeat.classifiers.networks import check_network_name
from advfeat.optim._network_state import network_state
from advfeat.utils._bounds import validate_bounds
from advfeat.utils._checks import CHANNELS
from advfeat.utils._device import default_modes, resolve_device
from advfeat.utils._estimator import draft_of
from advfeat.utils._sklearn import Interval, StrOptions, _fit_context
from advfeat.utils._typing import Bounds, Device, Inputs, Network, RandomState

if TYPE_CHECKING:
    from typing_extensions import Self


class StandardClassifier(NetworkClassifier):
    """Image or tabular classifier, trained in the ordinary way.

    Parameters
    ----------
    network : str, callable, nn.Module or TorchClassifier, default="auto"
        "mlp", "small_cnn", "small_resnet", "resnet9", "resnet18", "resnet34", "resnet50", "vgg16"
        (with batch-norm), "densenet121", "inception_v3", or what makes a new nn.Module, a class
        or a function (of the keywords ``input_shape``, ``in_channels``, ``n_features``,
        ``n_classes``, ``num_classes`` it is given those it names). The module maps normalised
        inputs to logits of shape (n, n_classes), without a softmax. "auto": "mlp" for (n, d),
        "small_cnn" for images with a side under 16 pixels, "small_resnet" for larger ones. To go
        on from trained weights: what `from_torch` returns, or an nn.Module that takes inputs as
        they are; each fit starts from a copy.
    max_epochs : int, default=30
        Passes over the data. More fit the training data better and take longer in proportion; 30
        are enough for small images; the authors' package takes 150 on CIFAR-10.
    lr : float, default=0.1
        Peak learning rate of SGD. Larger is faster until training diverges, which is an error;
        0.1 is the paper's for CIFAR-10, 0.01 for D_rand (Table 3).
    batch_size : int, default=128
        Samples of a training step, as in the paper; predictions take 256 whatever it is. Larger
        needs more memory, and a larger ``lr``.
    momentum : float, default=0.9
        Share of the last step of SGD that is taken again, in [0, 1). Larger averages over more
        steps.
    weight_decay : float, default=5e-4
        Share of each weight that is added to its gradient (L2 penalty), as in the paper. Larger
        keeps weights smaller.
    label_smoothing : float, default=0.0
        Share of each label, in [0, 1), that the loss spreads evenly over all classes. Larger
        gives less confident networks; 0, as in the paper, none.
    class_weight : dict, "balanced" or None, default=None
        Weight of every class in the loss, by label: 1 if it is not named. Labels that are no
        class may be named if all classes are. It multiplies ``sample_weight``, and 0 leaves a
        class out of the training. Only ratios count: in `fit` to the mean over the samples, in
        `partial_fit` to that over the classes. "balanced" gives all classes the same total.
    lr_schedule : {"one-cycle", "step", "constant"}, default="one-cycle"
        "one-cycle" goes up to lr over the first quarter of the steps and down to zero, best in few
        epochs; "step" divides lr by 10 after one third and two thirds of the epochs, as the
        authors' package does after 50 and 100 of 150 (the paper prints neither).
    augmentation : {"none", "flip-crop", "paper"}, default="none"
        For images. "flip-crop": random crop after padding by an eighth of the side, and flip.
        "paper": also colour jitter 0.25 and rotation by 2 degrees.
    early_stopping : bool, default=False
        Whether to set aside ``validation_fraction`` of the samples, score them after each epoch,
        keep the weights of the best epoch and stop when it does not improve. Under "one-cycle"
        the last epochs are usually the best, so give it patience, or take "constant".
    validation_fraction : float, default=0.1
        Share of the samples, in (0, 1), set aside if ``early_stopping``, the same of every class.
        Larger gives surer scores and leaves less to train on.
    n_iter_no_change : int, default=10
        ``early_stopping`` ends the training after more epochs than that without an improvement.
        Larger waits longer.
    tol : float, default=1e-4
        What counts as an improvement of the score for ``n_iter_no_change``. Larger stops earlier.
    bounds : "auto", None or (low, high), default="auto"
        Valid range, in input units: two numbers, or arrays with one for each channel (feature),
        such as ``(-mean / std, (1 - mean) / std)`` for images that were normalised by channel.
        "auto": [0, 1] for images, unbounded for (n, d).
    channels : {"auto", "first", "last"}, default="auto"
        Which axis of images holds the channels. "auto" takes (n, C, H, W), but refuses what looks
        like (n, H, W, C): a second axis longer than 4 before a last one of 4 or less. "first"
        takes these as well; "last" takes (n, H, W, C). The network gets (n, C, H, W) in any case,
        and examples and constructed sets come in the layout of X.
    warm_start : bool, default=False
        Whether `fit` goes on from the weights and normalisation of the last, with its classes.
    callbacks : list of skorch callbacks, default=None
        Passed through to the skorch net, each alone or as (name, callback). An LRScheduler needs
        ``lr_schedule="constant"``. One that raises KeyboardInterrupt at the end of an epoch
        (as EarlyStopping does) ends the training; Ctrl-C goes on to the caller.
    precision : {"fp32", "bf16"}, default="fp32"
        Arithmetic of the training; features are computed in fp32, predictions too (of tables, by
        named networks, in float64). "bf16" (autocast) is faster where the hardware has it.
    device : str or torch.device, default="auto"
        Where to compute. "auto" takes CUDA where there is one, else the CPU.
    random_state : int, RandomState or None, default=None
        Seed of initial weights, order, augmentation and noise. An int gives the same bits again
        on the same machine; None draws the seed from NumPy's global generator.
    verbose : int, default=1
        Whether work of more than two seconds shows a progress bar; 0 never.

    Attributes
    ----------
    net_ : skorch.NeuralNetClassifier
        The trained net. ``net_.module_(x)`` gives logits for a tensor x in input units. It is in
        eval mode: the form for torch.export, ONNX, captum and your own gradients.
    classes_ : ndarray of shape (n_classes,)
        All labels, sorted.
    input_shape_ : tuple
        Shape of one sample.
    n_features_in_ : int
        Number of features, for (n, d) input.
    feature_names_in_ : ndarray of str
        Names of the columns, for data frames.
    history_ : list of dict
        One entry per epoch, with "train_loss", "dur" (seconds), in adversarial training
        "attack_steps", and with ``early_stopping`` "valid_loss", "valid_acc" and "valid_score".
    validation_scores_ : list of float or None
        With ``early_stopping``, the accuracy of each epoch on the samples set aside, weighted; in
        adversarial training that under the training attack.
    best_validation_score_ : float or None
        The score of the weights that were kept; None also if their attack has given none yet.

    Notes
    -----
    Where torch.distributed is initialised (torchrun), `fit` and `partial_fit` train data-parallel:
    every process is given the whole data set and works on its share of each batch, so that
    ``batch_size`` is that of all processes together. Order and noise are those of one process.
    Batch-norm normalises each share by itself; its running statistics are averaged over the
    processes after every step.

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
        "network": [str, callable, TorchClassifier],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, 1e30, closed="right")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [Interval(Real, 0, 1e30, closed="both")],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "lr_schedule": [StrOptions(set(SCHEDULES))],
        "augmentation": [StrOptions(set(AUGMENTATIONS))],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "bounds": [StrOptions({"auto"}), "array-like", None],
        "channels": [StrOptions(set(CHANNELS))],
        "warm_start": ["boolean"],
        "callbacks": [list, None],
        "precision": [StrOptions({"fp32", "bf16"})],
        "device": [str, torch.device],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        network: Network = "auto",
        *,
        max_epochs: int = 30,
        lr: float = 0.1,
        batch_size: int = 128,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        label_smoothing: float = 0.0,
        class_weight: dict | str | None = None,
        lr_schedule: str = "one-cycle",
        augmentation: str = "none",
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        bounds: Bounds = "auto",
        channels: str = "auto",
        warm_start: bool = False,
        callbacks: list | None = None,
        precision: str = "fp32",
        device: Device = "auto",
        random_state: RandomState = None,
        verbose: int = 1,
    ) -> None:
        self.network = network
        self.max_epochs = max_epochs
        self.lr = lr
        self.batch_size = batch_size
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.label_smoothing = label_smoothing
        self.class_weight = class_weight
        self.lr_schedule = lr_schedule
        self.augmentation = augmentation
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.bounds = bounds
        self.channels = channels
        self.warm_start = warm_start
        self.callbacks = callbacks
        self.precision = precision
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: Inputs, y: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train on (X, y).

        Parameters
        ----------
        X : array-like of shape (n, d) or (n, C, H, W), ConstructedDataset or torch Dataset
            Images are floats in [0, 1] or uint8 in 0..255. A `ConstructedDataset` and a torch
            Dataset of (input, label) items carry their own labels.
        y : array-like of shape (n,), default=None
            Labels of any type. For a `ConstructedDataset` either None or the labels that it was
            constructed from.
        sample_weight : array-like of shape (n,), default=None
            Factors of the samples' losses, at least 0; only their ratios count. A weight of 0
            leaves a sample out of the training, but not its label out of ``classes_``.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For unusable X, y or parameters, and when training diverges. Then, and when it is
            interrupted, the classifier stays as it was.
        """
        with draft_of(self) as draft, default_modes():
            draft._fit(X, y, sample_weight)
        return self

    def _fit(self, X, y, sample_weight):
        ranks, keep = Ranks(), self.warm_start and hasattr(self, "net_")
        state = network_state(self.net_.module_, settings=False) if keep else None
        seed = ranks.begin(self, goes_on=keep)
        with ranks.preparing():
            data = self._checked_data(X, y, sample_weight, reset=not keep)
            if self.early_stopping:
                data = data.with_validation(self.validation_fraction, seed)
            steps = int(self.max_epochs) * n_batches(len(data), self.batch_size)
            schedule = make_schedule(self.lr_schedule, steps, self.callbacks or [])
            callbacks = self._callbacks(steps, schedule)
            net = make_net(self, input_statistics(data), self.max_epochs, seed, callbacks)
            initialize(net, data, state)
        ranks.check_same(self, data, net, goes_on=keep)
        net.partial_fit(data, None)
        self.net_ = net
        best = dict(net.callbacks_).get(OURS + "best_epoch")
        self.validation_scores_ = best and best.scores_
        self.best_validation_score_ = best and best.kept_score

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self,
        X: Inputs,
        y: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train for one epoch at constant lr; call it repeatedly for data that come in parts.

        Parameters
        ----------
        X, y
            As in `fit`.
        classes : array-like, default=None
            All labels that will ever occur; needed on the first call if y lacks some.
        sample_weight
            As in `fit`.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            As in `fit`, for another ``network`` than that of the last fit, and with
            ``early_stopping`` or ``class_weight="balanced"``, which need all the data.
        """
        self._validate_params()  # which scikit-learn leaves out once there is a fit
        with draft_of(self) as draft, default_modes():
            draft._partial_fit(X, y, classes, sample_weight)
        return self

    def _partial_fit(self, X, y, classes, sample_weight):
        ranks, first = Ranks(), not hasattr(self, "net_")
        seed = ranks.begin(self, goes_on=not first, draws=first)
        with ranks.preparing():
            refuse_for_parts(self)
            data = self._checked_data(
                X, y, sample_weight, reset=first, classes=classes, whole=False
            )
            callbacks = self._callbacks(n_batches(len(data), self.batch_size), Callback())
            if first:
                net = make_net(self, input_statistics(data), 1, seed, callbacks)
                initialize(net, data)
            else:
                net = net_to_go_on_with(self)
            set_for_one_epoch(net, self, callbacks, data)
        ranks.check_same(self, data, net, goes_on=not first)
        net.partial_fit(data, None)
        self.net_ = net
        if first:
            self.validation_scores_ = self.best_validation_score_ = None

    @property
    def history_(self):  # noqa: D102, see the Attributes of the class
        check_is_fitted(self, "net_")
        return list(self.net_.history)

    def _validate_params(self):
        if Ranks().size == 1:  # else when all ranks can be told, see `Ranks.begin`
            self._check_params()

    def _check_params(self):
        refuse_estimator_as_network(self.network, type(self).__name__)
        super()._validate_params()

    @property
    def module_(self):
        """The torch network; it gives logits for a tensor in input units."""
        check_is_fitted(self, "net_")
        return self.net_.module_

    def _computes_in_float64(self, X):
        # Small enough for it, and a row's result does then not depend on its batch.
        return X.ndim == 2 and isinstance(self.network, str)

    def _checked_data(self, X, y, sample_weight, **how):
        check_network_name(self.network)
        validate_bounds(self.bounds, type(self).__name__)
        resolve_device(self.device)
        check_callbacks(self.callbacks or [], self.early_stopping)
        return check_training_data(self, X, y, sample_weight, **how)

    def _callbacks(self, n_steps, schedule):
        best = [(OURS + "best_epoch", BestEpoch(self.n_iter_no_change, self.tol))]
        progress = Progress(type(self).__name__, n_steps, self.verbose)
        own = [(OURS + "schedule", schedule), (OURS + "progress", progress)]
        return [*(best if self.early_stopping else []), *own, *(self.callbacks or [])]

    def _net_class(self):
        return TrainingNet, {}

    def __getstate__(self):
        state = super().__getstate__()
        if "net_" in state:
            state = {**state, "net_": on_device(state["net_"], "cpu")}
        return state

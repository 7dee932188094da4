"""AdversarialClassifier: perturbs each batch before the training step."""

from numbers import Integral, Real

from advfeat.classifiers._callbacks import OURS
from advfeat.classifiers._nets import AdversarialNet
from advfeat.classifiers._overfitting import OverfittingGuard
from advfeat.classifiers._standard import StandardClassifier
from advfeat.optim import useful_radius
from advfeat.optim._balls import crossing_step
from advfeat.utils._bounds import resolve_bounds
from advfeat.utils._norms import NORM_CONSTRAINT
from advfeat.utils._rounding import warn_of_eps
from advfeat.utils._sklearn import Interval
from advfeat.utils._typing import Bounds, Device, Network, RandomState


class AdversarialClassifier(StandardClassifier):
    """Classifier trained against an L2 or L-infinity adversary.

    It differs from `StandardClassifier` only by perturbing each batch before the training step.

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
    norm : {2, numpy.inf}, default=2
        Norm in which perturbations are measured: the paper's, or the largest change of a value.
    eps : float, default=0.5
        Radius of the perturbations, in input units; the paper's for CIFAR-10. Larger gives more
        robustness and less accuracy; 0 is ordinary training.
    step_size : float, default=None
        Length of an attack step, in input units; 2.5 eps / n_steps by default, so that all steps
        together can cross the ball.
    n_steps : int, default=7
        Attack steps for each batch, as in the paper. More find stronger perturbations; a training
        step costs about 2 n_steps / 3 + 1 times that of ordinary training. On digits 2 or 3 steps
        gave the same robustness in L2 as 7. With 3 or fewer, training watches for catastrophic
        overfitting after each epoch; should it come, it takes the epoch back, warns and goes on
        with 7 steps.
    random_start : bool, default=False
        Whether the attack starts at a random point of the ball instead of at the sample.
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
    Where torch.distributed is initialised it trains data-parallel, see `StandardClassifier`.

    References
    ----------
    Ilyas et al. 2019, eq. 4, Appendix C.3 and Table 4 (norm 2, eps 0.5, 7 steps for CIFAR-10);
    Madry et al. 2018.

    Examples
    --------
    >>> from advfeat import AdversarialClassifier, robust_accuracy_score
    >>> from advfeat.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> clf = AdversarialClassifier(eps=0.5, max_epochs=3, random_state=0)
    >>> clf = clf.fit(X[:1000], y[:1000])
    >>> bool(robust_accuracy_score(clf, X[1000:1200], y[1000:1200], norm=2, eps=0.5) < 1)
    True
    """

    _parameter_constraints: dict = {
        **StandardClassifier._parameter_constraints,
        "norm": NORM_CONSTRAINT,
        "eps": [Interval(Real, 0, None, closed="left")],
        "step_size": [Interval(Real, 0, None, closed="neither"), None],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "random_start": ["boolean"],
    }

    def __init__(
        self,
        network: Network = "auto",
        *,
        norm: float = 2,
        eps: float = 0.5,
        step_size: float | None = None,
        n_steps: int = 7,
        random_start: bool = False,
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
        super().__init__(
            network,
            max_epochs=max_epochs,
            lr=lr,
            batch_size=batch_size,
            momentum=momentum,
            weight_decay=weight_decay,
            label_smoothing=label_smoothing,
            class_weight=class_weight,
            lr_schedule=lr_schedule,
            augmentation=augmentation,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            tol=tol,
            bounds=bounds,
            channels=channels,
            warm_start=warm_start,
            callbacks=callbacks,
            precision=precision,
            device=device,
            random_state=random_state,
            verbose=verbose,
        )
        self.norm = norm
        self.eps = eps
        self.step_size = step_size
        self.n_steps = n_steps
        self.random_start = random_start

    def _checked_data(self, X, y, sample_weight, **how):
        data = super()._checked_data(X, y, sample_weight, **how)
        warn_of_eps(data.source, self.norm, self.eps)
        return data

    def _net_class(self):
        bounds = resolve_bounds(self.bounds, self.input_shape_)
        eps = useful_radius(self.norm, self.eps, bounds, self.input_shape_)
        step_size = self.step_size
        step_size = crossing_step(eps, self.n_steps) if step_size is None else step_size
        attack = {
            "norm": self.norm,
            "eps": eps,
            "step_size": step_size,
            "n_steps": self.n_steps,
            "random_start": self.random_start,
            "bounds": bounds,
            "raised": False,  # by the guard, which takes more steps
        }
        return AdversarialNet, {"attack": attack}

    def _callbacks(self, n_steps, schedule):
        return [(OURS + "guard", OverfittingGuard()), *super()._callbacks(n_steps, schedule)]

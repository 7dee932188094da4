"""AdversarialClassifier: perturbs each batch before the training step."""

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import torch

from advfeat.classifiers._callbacks import OURS
from advfeat.classifiers._nets import AdversarialNet
from advfeat.classifiers._overfitting import OverfittingGuard
from advfeat.classifiers._standard import StandardClassifier
from advfeat.optim import useful_radius
from advfeat.optim._balls import crossing_step
from advfeat.utils._bounds import resolve_bounds
from advfeat.utils._norms import NORM_CONSTRAINT
from advfeat.utils._rounding import warn_of_rounding
from advfeat.utils._sklearn import Interval
from advfeat.utils._typing import Bounds, Device, RandomState


class AdversarialClassifier(StandardClassifier):
    """Classifier trained against an L2 or L-infinity adversary.

    It differs from `StandardClassifier` only by perturbing each batch before the training step.

    Parameters
    ----------
    network : str or callable, default="auto"
        See `StandardClassifier`, also for the parameters that are not listed here.
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
        gave the same robustness in L2 as 7 (benchmarks/results/digits/few-steps). With 3 or fewer,
        training watches for catastrophic overfitting after each epoch; should it come, it takes
        the epoch back, warns and goes on with 7 steps.
    random_start : bool, default=False
        Whether the attack starts at a random point of the ball instead of at the sample.

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
        network: str | Callable[..., torch.nn.Module] = "auto",
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
        class_weight: Any = None,
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

    def _training_data(self, X, y, sample_weight, **how):
        data = super()._training_data(X, y, sample_weight, **how)
        warn_of_rounding(data.source, self.norm, self.eps)
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

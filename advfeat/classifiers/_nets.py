"""The skorch nets behind the classifiers: the loss and the training step."""

import contextlib
import copy

import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from skorch import NeuralNetClassifier
from torch import nn

from advfeat.classifiers._callbacks import OURS, smaller
from advfeat.classifiers._captured import CapturedStep, repeats
from advfeat.classifiers._distributed import Ranks
from advfeat.classifiers._interrupts import (
    TrainingEnded,
    marked_interrupts,
    raised_on_purpose,
)
from advfeat.classifiers._overfitting import MAX_GUARDED_STEPS, raised
from advfeat.classifiers._training_batches import BatchIterator
from advfeat.classifiers._training_data import ArrayDataset
from advfeat.optim import (
    AttackedNetwork,
    cross_entropy,
    into_box,
    make_ball,
    projected_gradient,
)
from advfeat.optim._network_state import to_device
from advfeat.utils._device import autocast
from advfeat.utils._logits import usable
from advfeat.utils._random import draws_in_training, isolated_torch_seed, make_generator
from advfeat.utils._warnings import warn_caller

_NO_DRAWS = "skorch.", "advfeat.", "builtins"  # modules whose code draws nothing
_N_LOOKED_AT = 64  # samples, once the training has ended


class TrainingNet(NeuralNetClassifier):
    """skorch net with sliced batches, sample weights, a fixed seed and data-parallel steps.

    It trains on an `ArrayDataset`, and predicts through skorch's own batches, too.
    """

    def __init__(
        self, *args, seed=0, augmentation="none", label_smoothing=0.0, precision="fp32", **kwargs
    ):
        super().__init__(*args, **kwargs)
        self.seed = seed
        self.augmentation = augmentation
        self.label_smoothing = label_smoothing
        self.precision = precision

    _captured = None  # the training step, in an epoch on a GPU
    dropped_from_copies: tuple[str, ...] = ("_captured",)  # of what trains, as a copy does not

    def initialize_module(self):
        """Build the module, with all that it holds on the device."""
        super().initialize_module()
        to_device(self.module_, self.device)
        return self

    def __getstate__(self):
        """State with plain tensors, of a net that is on the CPU.

        skorch puts pickles into it, for the sake of devices. Tools that send the classes of a
        script or notebook along, as joblib does, would not see them in there.
        """
        state = self.__dict__.copy() if self.device == "cpu" else super().__getstate__()
        return {**state, **dict.fromkeys(self.dropped_from_copies)}

    def __deepcopy__(self, memo):
        """Copy a net by skorch's pickles: layers may hold tensors that cannot be copied."""
        state = {**super().__getstate__(), **dict.fromkeys(self.dropped_from_copies)}
        memo[id(self)] = twin = type(self).__new__(type(self))
        twin.__setstate__(copy.deepcopy(state, memo))
        return twin

    def __setstate__(self, state):
        if "__cuda_dependent_attributes__" in state:
            super().__setstate__(state)
        else:
            self.__dict__.update(state)

    def take_settings(self, settings):
        """Take what an estimator's parameters decide of its kind of net alone: nothing here."""

    def get_split_datasets(self, X, y=None, **fit_params):
        """Give the training and the validation set."""
        return X, X.validation

    def get_iterator(self, dataset, training=False):
        """Batches of a data set."""
        if not isinstance(dataset, ArrayDataset):
            return super().get_iterator(dataset, training=training)
        return BatchIterator(
            dataset,
            batch_size=self.batch_size,
            training=training,
            seed=self.seed,
            first_epoch=len(self.history),
            augmentation=self.augmentation,
            device=self.device,
        )

    def notify(self, method_name, **cb_kwargs):
        """Call the callbacks; where one ends the training, raise `TrainingEnded`."""
        ended = False
        try:
            super().notify(method_name, **cb_kwargs)
        except KeyboardInterrupt as error:
            if method_name != "on_epoch_end" or not raised_on_purpose(error):
                raise
            ended = True
        if method_name == "on_epoch_end":
            best = dict(self.callbacks_).get(OURS + "best_epoch")
            if self.ranks_.any(ended or (best is not None and best.patience_is_spent)):
                raise TrainingEnded

    def fit(self, X, y=None, **fit_params):
        """Refuse to begin anew what the classifier has trained."""
        _refuse_foreign(X)
        return super().fit(X, y, **fit_params)

    def partial_fit(self, X, y=None, classes=None, **fit_params):
        """Train; unlike skorch's, let KeyboardInterrupt go on to the caller."""
        _refuse_foreign(X)
        self.ranks_ = Ranks()
        with (
            marked_interrupts(),
            self._own_draws(),
        ):
            self.notify("on_train_begin", X=X, y=y)
            self._follow_a_new_optimizer(X, y)
            try:
                with self.ranks_.training(self):
                    self.fit_loop(X, y, **fit_params)
            except TrainingEnded:
                pass
            finally:
                self._set_training(False)  # for callbacks and whoever calls the module
            self.notify("on_train_end", X=X, y=y)
            self._check_outcome(X)
            for weight in self.module_.parameters():
                weight.grad = None  # whoever takes gradients of the network would add to them
        return self

    def _follow_a_new_optimizer(self, X, y):
        """Let schedules begin anew where a later callback has built the network anew."""
        for _, callback in self.callbacks_:
            schedule = getattr(callback, "lr_scheduler_", None)
            if getattr(schedule, "optimizer", self.optimizer_) is not self.optimizer_:
                callback.on_train_begin(self, X=X, y=y)

    def _check_outcome(self, data):
        """Refuse what the last steps, whose losses nobody has seen, have made of the network."""
        x = data.inputs(slice(0, _N_LOOKED_AT), self.device)
        with torch.no_grad():
            if not usable(self.infer(x)).all():
                raise ValueError(
                    "Training diverged: in the end the network returns logits that are not "
                    f"finite. {smaller(self)}"
                )

    def _set_training(self, training=True):
        """Set the mode of all layers; mostly they have it, and looking costs less than setting."""
        if not all(_in_mode(layer, training) for layer in self.module_.modules()):
            super()._set_training(training)

    def _own_draws(self):
        """Context in which torch's default generators are this training's own, if it needs them.

        In other threads trainings that need them, too, wait; all others go on.
        """
        if self._has_foreign_callbacks or draws_in_training(self.module_):
            rank = [self.ranks_.rank] if self.ranks_.rank else []  # masks of its own
            return isolated_torch_seed(self.device, self.seed, len(self.history), *rank)
        return contextlib.nullcontext()

    @property
    def _has_foreign_callbacks(self):
        return any(_has_foreign_code(callback) for _, callback in self.callbacks_)

    def infer(self, x, **fit_params):
        """Logits, in the precision asked for."""
        with autocast(self.device, self.precision):
            return super().infer(x, **fit_params).float()

    def train_step_single(self, batch, **fit_params):
        """Forward and backward pass for this process's share of a batch."""
        n = len(batch.weight)
        share = self.ranks_.share(n)
        x = self.step_inputs(batch, share)
        self._set_training(True)
        inputs = x, batch[1][share], batch.weight[share]
        if self._captured is None:
            loss, logits = self._forward_and_backward(*inputs, n)
        else:
            loss, logits = self._captured(*inputs)
        loss, logits = self.ranks_.joined(self.module_, loss, logits, n)
        return {"loss": loss, "y_pred": logits}

    def _forward_and_backward(self, x, y, weight, n=None):
        with autocast(self.device, self.precision):
            logits = (self.ranks_.module or self.module_)(x).float()
        loss = self._loss(logits, y, weight)
        if n is not None:
            loss = self.ranks_.scaled(loss, len(x), n)
        if not loss.requires_grad:
            raise ValueError(
                "Nothing is left to train: a callback has set requires_grad=False on all "
                "parameters of the network. Leave some trainable, such as the last layer's."
            )
        loss.backward()
        return loss.detach(), logits.detach()  # what is let go of leaves no graph behind

    def run_single_epoch(self, iterator, *args, **kwargs):
        """One epoch, whose steps are replayed where possible."""
        on_gpu = torch.device(self.device).type == "cuda"
        as_it_was = not any(_acts_between_batches(callback) for _, callback in self.callbacks_)
        if on_gpu and as_it_was and self.ranks_.size == 1 and repeats(self.module_):
            self._captured = CapturedStep(self._forward_and_backward, self.module_)
        try:
            super().run_single_epoch(iterator, *args, **kwargs)
        finally:
            if self._captured is not None:
                self._captured.release()
                self._captured = None

    def validation_step(self, batch, **fit_params):
        """Loss and logits of samples that were set aside; every process works on all of them."""
        x = self.step_inputs(batch, slice(None), validation=True)
        self._set_training(False)
        with torch.no_grad():
            logits = self.infer(x)
            return {"loss": self._loss(logits, batch[1], batch.weight), "y_pred": logits}

    def step_inputs(self, batch, share, validation=False):
        """Give what a step computes with: the inputs of a batch, or part of them."""
        return batch[0][share]

    def _loss(self, logits, y, weight):
        losses = F.cross_entropy(logits, y, reduction="none", label_smoothing=self.label_smoothing)
        return (losses * weight).mean()


def _refuse_foreign(data):
    if not isinstance(data, ArrayDataset):
        raise TypeError(
            "The net of a classifier is trained by the classifier alone, which knows the labels, "
            "the weights and the attack. Use the classifier's fit or partial_fit instead."
        )


def _has_foreign_code(callback):
    """Whether a callback is, or calls, code from elsewhere, which may draw and change anything."""
    kwargs = getattr(callback, "kwargs", None)
    parts = [*vars(callback).values(), *(kwargs.values() if isinstance(kwargs, dict) else ())]
    code = [part for part in parts if callable(part) and not isinstance(part, type)]
    return any(
        not (getattr(part, "__module__", None) or "").startswith(_NO_DRAWS)
        for part in (type(callback), *code)
    )


def _acts_between_batches(callback):
    """Whether foreign code may change the training within an epoch, which replays do not see."""
    kinds = "on_batch_begin", "on_batch_end", "on_grad_computed"
    hooks = [getattr(type(callback), kind) for kind in kinds]
    return any(
        not (getattr(hook, "__module__", None) or "").startswith(_NO_DRAWS) for hook in hooks
    )


def _in_mode(layer, training):
    """Whether setting the mode would change nothing; a `train` of the layer's own may do more."""
    plain = getattr(layer.train, "__func__", None) is nn.Module.train
    return plain and layer.training == training


class AdversarialNet(TrainingNet):
    """Perturbs each batch before the training step (Ilyas et al. 2019, eq. 4 and C.3)."""

    attacked = _last_attack = None  # but while it trains
    dropped_from_copies = "_captured", "attacked", "_last_attack"

    def __init__(self, *args, attack=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.attack = attack

    def take_settings(self, settings):
        """Take the attack of the estimator's parameters, with as many steps as the guard has."""
        attack = settings["attack"]
        keep = self.attack["raised"] and attack["n_steps"] <= MAX_GUARDED_STEPS
        self.attack = raised(attack) if keep else attack

    def partial_fit(self, X, y=None, classes=None, **fit_params):
        """Train, then let go of what the attacks needed."""
        try:
            return super().partial_fit(X, y, classes, **fit_params)
        finally:
            self.attacked = self._last_attack = None

    def run_single_epoch(self, iterator, training, *args, **kwargs):
        """One epoch, on the network as it is then."""
        if iterator is None:
            return
        self.retrace(anew=training)
        super().run_single_epoch(iterator, training, *args, **kwargs)
        if training:
            self._warn_unless_moved()

    def retrace(self, anew=False):
        """Bring what is attacked up to date, whatever callbacks have made of the network."""
        self._set_training(False)
        if anew or self._has_foreign_callbacks:
            self.attacked = AttackedNetwork(
                self.module_, device=self.device, precision=self.precision
            )
        self.attacked.refresh()

    def _warn_unless_moved(self):
        start, found = self._last_attack
        if self.attack["eps"] == 0 or len(self.history) > 1:
            return
        start = into_box(start, self.attack["bounds"])
        if (found - start).abs().max() <= 1e-6 * self.attack["eps"]:
            warn_caller(
                "The attack moved no sample of the last batch of the first epoch, and training "
                "goes on as if without an adversary. The gradients of the network are zero (look "
                "for rounding or other steps in its forward), or eps is lost beside large inputs.",
                ConvergenceWarning,
            )

    def step_inputs(self, batch, share, validation=False):
        """Perturbed inputs."""
        x, y = batch
        start = None
        if self.attack["random_start"]:
            # In validation the same noise in every epoch, so that epochs can be compared.
            epoch = 0 if validation else len(self.history)
            step = len(self.history[-1, "batches"])
            generator = make_generator(x.device, self.seed, epoch, 2, step)
            noise = torch.randn(
                len(x), x[0].numel() + 2, device=x.device, dtype=x.dtype, generator=generator
            )
            start = (x + self._ball.sample(noise, like=x))[share]
        self._set_training(False)  # the attack must not move batch-norm statistics
        self.attacked.refresh()
        found = self.perturb(self.attacked, x[share], y[share], start=start)
        self._last_attack = x[share] if start is None else start, found
        return found

    def perturb(self, network, x, y, *, start=None, **changes):
        """Attack a batch as in training, or with some settings changed."""
        attack = {**self.attack, **changes}
        return projected_gradient(
            network,
            x,
            y,
            cross_entropy,
            ball=self._ball,
            bounds=attack["bounds"],
            step_size=attack["step_size"],
            n_steps=attack["n_steps"],
            start=start,
        )

    @property
    def _ball(self):
        return make_ball(self.attack["norm"], self.attack["eps"])

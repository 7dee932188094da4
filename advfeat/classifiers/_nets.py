"""The skorch nets behind the classifiers: batches, weighted loss, schedules, the training step."""

import contextlib
import math

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, LRScheduler
from skorch.utils import to_device
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset

from advfeat.classifiers._augmentation import augment
from advfeat.classifiers._interrupts import (
    TrainingEnded,
    marked_interrupts,
    raised_on_purpose,
)
from advfeat.optim import AttackedNetwork, cross_entropy, make_ball, projected_gradient
from advfeat.utils._checks import take_batch
from advfeat.utils._device import autocast, on_accelerator
from advfeat.utils._progress import progress_bar
from advfeat.utils._random import (
    draws_in_training,
    isolated_torch_seed,
    make_generator,
    make_rng,
)

SCHEDULES = ("one-cycle", "step", "constant")


class ArrayDataset(Dataset):
    """Arrays as a torch Dataset; `BatchIterator` slices them without visiting single samples.

    Parameters
    ----------
    X : ndarray of shape (n, ...), float32 or uint8
    y : ndarray of shape (n,), int64
        Class indices.
    sample_weight : ndarray of shape (n,), float32
        With mean 1.
    """

    def __init__(self, X, y, sample_weight):
        self.X, self.y, self.sample_weight = X, y, sample_weight

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i], self.y[i]


class BatchIterator:
    """Shuffled, augmented batches on the device; every pass has its own random order."""

    def __init__(self, dataset, *, batch_size, seed, first_epoch, augmentation, device):
        self.dataset = dataset
        self.X = on_accelerator(dataset.X, device)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = first_epoch
        self.augmentation = augmentation
        self.device = device

    def __len__(self):
        return n_batches(len(self.dataset), self.batch_size)

    def __iter__(self):
        epoch, self.epoch = self.epoch, self.epoch + 1
        data = self.dataset
        order = make_rng(self.seed, epoch, 0).permutation(len(data))
        generator = make_generator(self.device, self.seed, epoch, 1)
        # A last batch of one sample has no batch-norm statistics; it joins the one before.
        cuts = [i * self.batch_size for i in range(len(self))] + [len(data)]
        for start, stop in zip(cuts[:-1], cuts[1:], strict=True):
            rows = np.sort(order[start:stop])  # reading a memory map in order is faster
            x = augment(take_batch(self.X, rows, self.device), self.augmentation, generator)
            y = torch.from_numpy(data.y[rows]).to(self.device)
            weight = torch.from_numpy(data.sample_weight[rows]).to(self.device)
            yield x, (y, weight)


def n_batches(n, batch_size):
    """Batches per epoch, where a last batch of one sample joins the one before."""
    full, rest = divmod(n, batch_size)
    return max(1, full + (rest > 1))


class TrainingNet(NeuralNetClassifier):
    """skorch net with sliced batches, sample weights and a fixed seed."""

    def __init__(self, *args, seed=0, augmentation="none", precision="fp32", **kwargs):
        super().__init__(*args, **kwargs)
        self.seed = seed
        self.augmentation = augmentation
        self.precision = precision

    def get_iterator(self, dataset, training=False):
        """Batches of an `ArrayDataset`; anything else goes through skorch's own iterators."""
        if not isinstance(dataset, ArrayDataset):
            return super().get_iterator(dataset, training=training)
        return BatchIterator(
            dataset,
            batch_size=self.batch_size,
            seed=self.seed,
            first_epoch=len(self.history),
            augmentation=self.augmentation,
            device=self.device,
        )

    # skorch's partial_fit takes every KeyboardInterrupt for the end of the training.

    def notify(self, method_name, **cb_kwargs):
        """Call the callbacks; one that ends the training raises `TrainingEnded`."""
        try:
            super().notify(method_name, **cb_kwargs)
        except KeyboardInterrupt as error:
            if method_name == "on_epoch_end" and raised_on_purpose(error):
                raise TrainingEnded from error
            raise

    def partial_fit(self, X, y=None, classes=None, **fit_params):
        """Train; unlike skorch's, let KeyboardInterrupt go on to the caller."""
        if not self.initialized_:
            self.initialize()
        with marked_interrupts(), self._own_draws():
            self.notify("on_train_begin", X=X, y=y)
            try:
                with contextlib.suppress(TrainingEnded):
                    self.fit_loop(X, y, **fit_params)
            finally:
                self._set_training(False)  # for callbacks and whoever calls the module
            self.notify("on_train_end", X=X, y=y)
        return self

    def _own_draws(self):
        """Context in which torch's default generators are this training's own, if it needs them.

        In other threads trainings that need them, too, wait; all others go on.
        """
        foreign = any(
            not type(callback).__module__.startswith(("skorch.", "advfeat."))
            for _, callback in self.callbacks_
        )
        if foreign or draws_in_training(self.module_):
            return isolated_torch_seed(self.device, self.seed, len(self.history))
        return contextlib.nullcontext()

    def infer(self, x, **fit_params):
        """Logits, in the precision asked for."""
        with autocast(self.device, self.precision):
            return super().infer(x, **fit_params).float()

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        """Cross-entropy, weighted by the sample weights."""
        if not isinstance(y_true, (tuple, list)):
            return super().get_loss(y_pred, y_true, *args, **kwargs)
        y, weight = y_true
        return (cross_entropy(y_pred, y) * weight).mean()


class AdversarialNet(TrainingNet):
    """Perturbs each batch before the training step (Ilyas et al. 2019, eq. 4 and C.3)."""

    def __init__(self, *args, attack=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.attack = attack

    def run_single_epoch(self, *args, **kwargs):
        """One epoch; the network is traced anew, since callbacks may have changed it."""
        self._set_training(False)
        self._attacked = AttackedNetwork(
            self.module_, device=self.device, precision=self.precision
        )
        try:
            super().run_single_epoch(*args, **kwargs)
        finally:
            del self._attacked

    def train_step_single(self, batch, **fit_params):
        """One training step on the perturbed batch."""
        x, y_true = batch
        start = None
        if self.attack["random_start"]:
            step = len(self.history[-1, "batches"])
            generator = make_generator(x.device, self.seed, len(self.history), 2, step)
            noise = torch.randn(len(x), x[0].numel() + 2, device=x.device, generator=generator)
            start = x + self._ball.sample(noise, like=x)
        self._set_training(False)  # the attack must not move batch-norm statistics
        self._attacked.refresh()
        x = self.perturb(self._attacked, x, to_device(y_true, self.device)[0], start=start)
        return super().train_step_single((x, y_true), **fit_params)

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


class Progress(Callback):
    """One bar for the whole training, with ETA and the last epoch's loss."""

    def __init__(self, desc, n_steps, verbose):
        self.desc = desc
        self.n_steps = n_steps
        self.verbose = verbose

    def on_train_begin(self, net, **kwargs):
        """Open the bar."""
        self.bar_ = progress_bar(
            total=self.n_steps, desc=self.desc, unit="batch", verbose=self.verbose
        )

    def on_batch_end(self, net, training=True, **kwargs):
        """Advance by one batch."""
        self.bar_.update()

    def on_epoch_end(self, net, **kwargs):
        """Show the loss; stop with a clear message once it is no number."""
        loss = net.history[-1, "train_loss"]
        self.bar_.set_postfix(loss=f"{loss:.3f}", refresh=False)
        if not math.isfinite(loss):
            self.bar_.close()
            raise ValueError(
                f"Training diverged: the mean loss of epoch {len(net.history)} is {loss}. "
                f"Use a smaller lr (got {net.lr:g}) or check the scale of X."
            )

    def on_train_end(self, net, **kwargs):
        """Close the bar and drop it, so that the net can be pickled."""
        self.bar_.close()
        del self.bar_


def make_schedule(kind, n_steps):
    """Skorch callback that sets the learning rate after each batch.

    "one-cycle": up to lr over the first quarter and down to zero, as half cosines;
    "step": a tenth after one third and again after two thirds of the steps, as in the paper's
    epochs 50 and 100 of 150; "constant".
    """
    return LRScheduler(
        policy=LambdaLR, lr_lambda=_Factor(kind, n_steps), step_every="batch", monitor=None
    )


class _Factor:
    """Learning-rate factor at a step; a class, because skorch nets are pickled."""

    def __init__(self, kind, n_steps):
        self.kind = kind
        self.n_steps = n_steps

    def __call__(self, step):
        done = min(1.0, step / self.n_steps)
        if self.kind == "constant":
            return 1.0
        if self.kind == "step":
            return 0.1 ** int(3 * done) if done < 1 else 0.01
        if done < 0.25:
            return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * done / 0.25))
        return 0.5 * (1 + math.cos(math.pi * (done - 0.25) / 0.75))

"""skorch callbacks of the classifiers: learning rate, progress, best epoch on held-out samples."""

import math

from skorch.callbacks import BatchScoring, Callback, EpochScoring, LRScheduler
from torch.optim.lr_scheduler import ConstantLR, LambdaLR

from advfeat.optim._network_state import network_state, set_network_state
from advfeat.utils._progress import progress_bar

OURS = "advfeat_"  # how the names of our callbacks begin, which a user's must not be
SCHEDULES = ("one-cycle", "step", "constant")


class Progress(Callback):
    """One bar for the whole training, with ETA and the last epoch's loss."""

    def __init__(self, desc, n_steps, verbose):
        self.desc = desc
        self.n_steps = n_steps
        self.verbose = verbose

    def __getstate__(self):
        # Other callbacks may copy or pickle the net, and a bar holds a file.
        return {name: value for name, value in vars(self).items() if name != "bar_"}

    def on_train_begin(self, net, **kwargs):
        """Open the bar."""
        self.bar_ = progress_bar(
            total=self.n_steps,
            desc=self.desc,
            unit="batch",
            verbose=self.verbose and net.ranks_.rank == 0,
        )

    def on_batch_end(self, net, training=True, **kwargs):
        """Advance by one batch of the training."""
        if training:
            self.bar_.update()

    def on_epoch_end(self, net, **kwargs):
        """Show the loss; stop with a clear message once it is no number."""
        loss = net.history[-1, "train_loss"]
        self.bar_.set_postfix(loss=f"{loss:.3f}", refresh=False)
        if not math.isfinite(loss):
            self.bar_.close()
            hint = smaller(net)
            if net.label_smoothing:  # a share of the loss falls to every class
                hint = (
                    "If the network masks classes (-inf), use label_smoothing=0. Or else: " + hint
                )
            raise ValueError(
                f"Training diverged: the mean loss of epoch {len(net.history)} is {loss}. {hint}"
            )

    def on_train_end(self, net, **kwargs):
        """Close the bar and drop it."""
        self.bar_.close()
        del self.bar_


def smaller(net):
    """Say what may be too large, where training diverges."""
    tried = {"lr": net.lr, "weight_decay": net.optimizer_.param_groups[0]["weight_decay"]}
    tried["eps"] = getattr(net, "attack", {}).get("eps", 0)
    *most, last = [f"{name} (got {value:g})" for name, value in tried.items() if value]
    return f"Use a smaller {', '.join(most)}{' or ' * bool(most)}{last}, or check the scale of X."


def check_callbacks(callbacks, held_out):
    """Raise a ValueError for what is no skorch callback, has a name of ours or could do nothing.

    Parameters
    ----------
    callbacks : list
    held_out : bool
        Whether samples are held out, of which skorch computes "valid_loss".
    """
    for given in callbacks:
        name, callback = (
            given if isinstance(given, (tuple, list)) and len(given) == 2 else ("", given)
        )
        if isinstance(name, str) and name.startswith(OURS):
            raise ValueError(f"Names of callbacks must not begin with {OURS!r}. Got {name!r}.")
        if not _is_a(Callback, callback):
            raise ValueError(
                "callbacks must hold skorch callbacks, or pairs of a name and one. Got "
                f"{given!r}; for a schedule of torch see skorch.callbacks.LRScheduler."
            )
    given = [one[-1] if isinstance(one, (tuple, list)) else one for one in callbacks]
    made = [_made(callback) for callback in given]
    for callback in made:
        if not held_out:
            _refuse_without_validation(callback)
        _refuse_unknown_monitor(callback, made, held_out)


def _made(callback):
    """Return a callback as it is, and what skorch will make of a class of them."""
    ours = isinstance(callback, type) and callback.__module__.startswith("skorch.")
    try:
        return callback() if ours else callback
    except TypeError:  # it needs arguments, which skorch will say
        return callback


def _refuse_without_validation(callback):
    if type(callback) in (EpochScoring, BatchScoring) and not callback.on_train:
        raise ValueError(
            f"{type(callback).__name__} scores held-out samples, and without early_stopping=True "
            "there are none. Use that, or on_train=True."
        )


def _refuse_unknown_monitor(callback, others, held_out):
    """Raise a ValueError for a monitor that nobody writes into the history."""
    monitor = getattr(callback, "monitor", None)
    # A callback of the user's may record it, of samples that it has itself.
    kinds = [other if isinstance(other, type) else type(other) for other in others]
    measured = any(not kind.__module__.startswith("skorch.") for kind in kinds)
    looks = not isinstance(callback, LRScheduler) or "ReduceLROnPlateau" in str(callback.policy)
    if not looks or measured or not isinstance(monitor, str):
        return
    name, known = type(callback).__name__, {"train_loss", "dur", "epoch"}
    known |= {"valid_loss", "valid_acc", "valid_score"} if held_out else set()
    known |= {getattr(other, "event_name", None) for other in others}
    known |= {_scored(other) for other in others if hasattr(other, "scoring")}
    plain = monitor.removesuffix("_best")
    if plain in known or monitor in known:
        return
    if not held_out and plain.startswith("valid_"):
        raise ValueError(
            f"{name} monitors {monitor!r}, which is measured on held-out samples, and without "
            "early_stopping=True there are none. Use that, or "
            f"monitor={'train_loss' + monitor.removeprefix(plain)!r}."
        )
    raise ValueError(
        f"{name} monitors {monitor!r}, which nothing measures. There are: "
        f"{', '.join(sorted(filter(None, known)))}."
    )


def _scored(callback):
    """Name under which a scoring of skorch's writes into the history."""
    scoring = getattr(callback.scoring, "func", callback.scoring)  # of a partial
    scoring = getattr(scoring, "_score_func", scoring)  # of a scorer of scikit-learn
    usual = scoring if isinstance(scoring, str) else getattr(scoring, "__name__", "score")
    return callback.name or usual


def _is_a(kind, value):
    """Whether a value is of a kind, or a class of that kind, of which skorch makes one."""
    return isinstance(value, kind) or (isinstance(value, type) and issubclass(value, kind))


def make_schedule(kind, n_steps, callbacks=()):
    """Skorch callback that sets the learning rate after each batch.

    "one-cycle": up to lr over the first quarter and down to zero, as half cosines;
    "step": a tenth after one third and again after two thirds of the steps, as in the authors'
    package after epochs 50 and 100 of 150; "constant".

    Raises
    ------
    ValueError
        If another schedule is among the user's callbacks: both would set the rate in turns.
    """
    others = [given[-1] if isinstance(given, (tuple, list)) else given for given in callbacks]
    if kind != "constant" and any(_is_a(LRScheduler, other) for other in others):
        raise ValueError(
            f"callbacks hold an LRScheduler, beside which lr_schedule={kind!r} would set the "
            "learning rate in turns. Use lr_schedule='constant', or leave the callback out."
        )
    every_batch = {"step_every": "batch", "monitor": None}
    if kind == "constant":  # it leaves the rate to whoever else sets it, such as a user's callback
        return LRScheduler(policy=ConstantLR, factor=1.0, total_iters=0, **every_batch)
    return LRScheduler(policy=LambdaLR, lr_lambda=_Factor(kind, n_steps), **every_batch)


class _Factor:
    """Learning-rate factor at a step; a class, because skorch nets are pickled."""

    def __init__(self, kind, n_steps):
        self.kind = kind
        self.n_steps = n_steps

    def __call__(self, step):
        done = min(1.0, step / self.n_steps)
        if self.kind == "step":
            return 0.1 ** int(3 * done) if done < 1 else 0.01
        if done < 0.25:
            return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * done / 0.25))
        return 0.5 * (1 + math.cos(math.pi * (done - 0.25) / 0.75))


class BestEpoch(Callback):
    """Score each epoch on the samples set aside, keep the best weights, say when to stop.

    As in scikit-learn's MLPClassifier the score is the accuracy; where batches are perturbed, that
    under the attack of the training.

    Parameters
    ----------
    n_iter_no_change : int
        Epochs without an improvement that are borne.
    tol : float
        By how much a score must rise to be an improvement.
    """

    def __init__(self, n_iter_no_change, tol):
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol

    def on_train_begin(self, net, **kwargs):
        """Forget earlier trainings."""
        self.scores_ = []
        self._forget(net)

    def _forget(self, net):
        self.best_score_, self.misses_, self.weights_ = -math.inf, 0, None
        self.attack_ = getattr(net, "attack", None)

    @property
    def kept_score(self):
        """Score of the weights that are kept; None if the guard has just changed the attack."""
        return self.best_score_ if math.isfinite(self.best_score_) else None

    @property
    def patience_is_spent(self):
        """Whether the score has not improved for too many epochs."""
        return self.misses_ > self.n_iter_no_change

    def on_epoch_begin(self, net, **kwargs):
        """Begin to count."""
        self.hits_ = self.total_ = 0.0

    def on_batch_end(self, net, batch=None, training=True, y_pred=None, **kwargs):
        """Count a batch of the validation."""
        if not training:
            hit = y_pred.argmax(1) == batch[1]
            self.hits_ += float((hit * batch.weight).sum())
            self.total_ += float(batch.weight.sum())

    def on_epoch_end(self, net, **kwargs):
        """Record the score; keep the weights if it is the best."""
        score = net.ranks_.agreed(self.hits_ / self.total_)
        self.scores_.append(score)
        if getattr(net, "attack", None) != self.attack_:
            self._forget(net)  # the guard took the epoch back; the scores of its attack are void
            score = -math.inf
        self.misses_ = 0 if score >= self.best_score_ + self.tol else self.misses_ + 1
        best = score > self.best_score_
        if best:
            self.best_score_ = score
            self.weights_ = network_state(net.module_)
        net.history.record("valid_score", self.scores_[-1])
        net.history.record("valid_score_best", best)

    def on_train_end(self, net, **kwargs):
        """Go back to the best weights, and drop the copy, so that the net can be pickled."""
        if self.weights_ is not None:
            set_network_state(net.module_, self.weights_)
        self.weights_ = None

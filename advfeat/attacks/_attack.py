"""The attack itself: an estimator and its data made ready, and the job on one batch."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from advfeat.attacks._attackable import Attackable, attackable_view
from advfeat.datasets._torch_data import unpack_data
from advfeat.optim import (
    FrozenNetwork,
    HalfCosine,
    L2Ball,
    LinfBall,
    cross_entropy,
    cw_margin,
    make_ball,
    projected_gradient,
    targeted_margin,
    useful_radius,
)
from advfeat.optim._balls import random_points
from advfeat.utils._checks import batch_tensor
from advfeat.utils._labels import encode_labels
from advfeat.utils._lazy import SelectedRows
from advfeat.utils._logits import classified_as
from advfeat.utils._random import draw_seed

_MAX_TARGETS = 9  # wrong classes tried one by one, as in AutoAttack's targeted runs


@dataclass(frozen=True, eq=False)
class AttackTarget:
    """A fitted estimator and the data on which it is attacked, checked.

    Parameters
    ----------
    view : Attackable
    judge : FrozenNetwork
        The network in fp32.
    labels : ndarray of shape (n,), int64
        Positions of the true labels among the classes; -1 for labels that are not among them.
    """

    view: Attackable
    judge: FrozenNetwork
    labels: np.ndarray

    @classmethod
    def of(cls, estimator, X, y, precision, bounds):
        """Check everything; raises as `unpack_data`, `attackable` and `encode_labels` do."""
        X, y = unpack_data(estimator, X, y)
        view = attackable_view(estimator, X, precision, bounds)
        judge = view.network.verify(view.X).in_fp32(view.X)
        return cls(view, judge, encode_labels(y, view.classes, len(view.X), unknown="mark"))

    def plan(self, settings, rows=None, *, keeps_examples=True):
        """Return what `run_batches` and `iter_batches` need to attack.

        Parameters
        ----------
        settings : dict
            All keywords of `adversarial_examples`.
        rows : ndarray of int, optional
            Rows to attack; all by default.
        keeps_examples : bool, default=True
            Whether the examples are handed back, or only whether each fools.
        """
        eps, n_steps, step_size = (settings[name] for name in ("eps", "n_steps", "step_size"))
        n_restarts = settings["n_restarts"] if settings["random_start"] else 1  # else all alike
        X, labels = self.view.X, self.labels
        if rows is not None:
            X, labels = SelectedRows(X, rows), labels[rows]
        norm, bounds = settings["norm"], self.view.bounds
        radius = useful_radius(norm, eps, bounds, self.view.X.shape[1:])
        job = Attack(
            network=self.view.network,
            judge=self.judge,
            bounds=bounds,
            ball=make_ball(norm, radius),
            runs=_runs(len(self.view.classes), n_restarts) if eps > 0 else (),
            step_size=HalfCosine(radius if step_size is None else step_size, n_steps),
            n_steps=n_steps,
            seed=draw_seed(settings["random_state"]) if settings["random_start"] else None,
            keeps_examples=keeps_examples,
        )
        run = {name: settings[name] for name in ("batch_size", "n_jobs", "verbose")}
        return {"job": job, "columns": (X, labels), "desc": f"attack eps={eps:g}", **run}


@dataclass(frozen=True, eq=False, kw_only=True)
class Attack:
    """The job of finding the strongest example for each sample of a batch.

    Parameters
    ----------
    network : FrozenNetwork
        The one attacked.
    judge : FrozenNetwork
        The same in fp32, which has the last word.
    bounds : (low, high) or None
    ball : L2Ball or LinfBall
        The feasible perturbations.
    runs : tuple of (loss, rank of the target class or None)
        In the order in which they are tried on the samples that still withstand.
    step_size : callable
    n_steps : int
        Number of gradient steps.
    seed : int or None
        Of the random starts; None starts at the sample.
    keeps_examples : bool
        Whether the examples are handed back, or only what they do.
    """

    network: FrozenNetwork
    judge: FrozenNetwork
    bounds: tuple | None
    ball: L2Ball | LinfBall
    runs: tuple
    step_size: Callable
    n_steps: int
    seed: int | None
    keeps_examples: bool

    def __call__(self, begin, X, labels):
        """Return the examples if they are kept, and whether each is misclassified."""
        x = batch_tensor(X, self.network.device)
        y = torch.from_numpy(np.array(labels)).to(x.device)
        unknown = y < 0  # a label that is never predicted: there is nothing to attack
        y = y.clamp(min=0)
        best = x.clone()
        with torch.no_grad():
            logits = self.judge(x)
        margin, fooled = _judge(logits, y)
        fooled |= unknown
        order = _by_likelihood(logits, y)
        for run, (loss, rank) in enumerate(self.runs):
            rows = torch.nonzero(~fooled).flatten()
            if len(rows) == 0:
                break
            xs, ys = x[rows], y[rows]
            target = ys if rank is None else torch.stack([order[rows, rank], ys], 1)
            found = projected_gradient(
                self.network,
                xs,
                target,
                loss,
                ball=self.ball,
                bounds=self.bounds,
                step_size=self.step_size,
                n_steps=self.n_steps,
                start=None
                if self.seed is None
                else random_points(self.ball, x, (self.seed, run), begin, rows),
                keep="best",
                # Logits that are no numbers are misclassified, as for `_judge`.
                is_better=lambda logits, t, ys=ys: ~(cw_margin(logits, ys) <= 0),
                until_better=not self.keeps_examples and self.network is self.judge,
            )
            with torch.no_grad():
                found_margin, found_fools = _judge(self.judge(found), ys)
            better = found_fools | (found_margin > margin[rows])
            best[rows[better]] = found[better]
            margin[rows[better]] = found_margin[better]
            fooled[rows] = found_fools
        examples = (best.cpu().numpy(),) if self.keeps_examples else ()
        return *examples, fooled.cpu().numpy()


def _runs(n_classes, n_restarts):
    """(loss, rank of the target class or None) of each run, in order."""
    untargeted = (cw_margin, None), (cross_entropy, None)
    if n_classes == 2:
        return untargeted * n_restarts
    targets = [(targeted_margin, rank) for rank in range(min(n_classes - 1, _MAX_TARGETS))]
    return (*untargeted, *targets) * n_restarts


def _judge(logits, y):
    """Margin of each sample, infinite where it is no number, and whether it is misclassified."""
    margin = torch.nan_to_num(cw_margin(logits, y), nan=torch.inf)
    return margin, ~classified_as(logits, y)


def _by_likelihood(logits, y):
    """Wrong classes of each sample, most likely first; the true class comes last."""
    return logits.scatter(1, y[:, None], -torch.inf).argsort(1, descending=True)

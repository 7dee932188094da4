"""Adversarial examples for a fitted estimator: the strongest found for each sample."""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import torch

from advfeat.attacks._attackable import attackable, only_given
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
from advfeat.utils._batches import run_batches
from advfeat.utils._checks import batch_tensor
from advfeat.utils._labels import encode_labels
from advfeat.utils._norms import NORM_CONSTRAINT
from advfeat.utils._random import draw_seed, normal_rows
from advfeat.utils._sklearn import Interval, StrOptions, validate_params

_MAX_TARGETS = 9  # wrong classes tried one by one, as in AutoAttack's targeted runs

ATTACK_CONSTRAINTS = {
    "norm": NORM_CONSTRAINT,
    "eps": [Interval(Real, 0, None, closed="left")],
    "step_size": [Interval(Real, 0, None, closed="neither"), None],
    "n_steps": [Interval(Integral, 1, None, closed="left")],
    "random_start": ["boolean"],
    "n_restarts": [Interval(Integral, 1, None, closed="left")],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "n_jobs": [Integral, None],
    "bounds": [StrOptions({"auto"}), "array-like", None],
    "precision": [StrOptions({"fp32", "bf16"})],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}


@validate_params(ATTACK_CONSTRAINTS, prefer_skip_nested_validation=True)
def adversarial_examples(
    estimator,
    X,
    y,
    *,
    norm,
    eps,
    n_steps=20,
    step_size=None,
    random_start=True,
    n_restarts=1,
    batch_size=256,
    n_jobs=None,
    bounds="auto",
    precision="fp32",
    random_state=0,
    verbose=1,
):
    """Perturb each sample, within eps, so that the estimator misclassifies it.

    Each restart runs projected gradient ascent on the margin to the nearest other class, then on
    the margin to each of the nine most likely wrong classes in turn (for two classes: on the
    cross-entropy); samples already misclassified drop out. Steps get shorter as a half cosine.
    Whether an example fools the network is judged in fp32 on the final example.

    Parameters
    ----------
    estimator : fitted classifier
        advfeat classifier, skorch net, linear scikit-learn classifier, or a Pipeline that ends
        in one, which is attacked at its last step: eps and the examples are then in the units
        that the earlier steps' ``transform`` returns.
    X : array-like of shape (n, d) or (n, C, H, W)
    y : array-like of shape (n,)
        True labels. A label that the estimator does not know (a fold of a cross-validation may
        have one that the training had not) counts as misclassified, as in scikit-learn's
        accuracy.
    norm : {2, numpy.inf}
    eps : float
        Radius, in input units.
    n_steps : int, default=20
        Steps of each run.
    step_size : float, default=None
        Length of the first step, in input units; eps by default.
    random_start : bool, default=True
        Whether runs start at a random point of the ball.
    n_restarts : int, default=1
    batch_size : int, default=256
    n_jobs : int, default=None
        Batches run in parallel through joblib; the result does not depend on it.
    bounds : "auto", None or (low, high), default="auto"
        Valid range of the inputs, for estimators that have no bounds of their own (skorch nets,
        scikit-learn's): two numbers, or arrays with one for each channel (feature). "auto":
        [0, 1] for images, unbounded for (n, d); an advfeat classifier's own.
    precision : {"fp32", "bf16"}, default="fp32"
    random_state : int, RandomState or None, default=0
    verbose : int, default=1

    Returns
    -------
    X_adv : ndarray like X, float32
        Misclassified where an example was found; elsewhere the sample itself if it is already
        misclassified, or the example with the largest margin loss.
    fooled : ndarray of shape (n,), bool
        Whether the estimator misclassifies ``X_adv``.

    References
    ----------
    Madry et al. 2018; Carlini and Wagner 2017; Ilyas et al. 2019, Appendix D.2.

    Examples
    --------
    >>> from advfeat import StandardClassifier, adversarial_examples
    >>> from advfeat.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> clf = StandardClassifier(max_epochs=3, random_state=0).fit(X[:1000], y[:1000])
    >>> X_adv, fooled = adversarial_examples(clf, X[1000:1100], y[1000:1100], norm=2, eps=0.5)
    >>> bool(abs(X_adv - X[1000:1100]).max() <= 0.5)
    True
    """
    view = attackable(estimator, X, precision, **only_given(bounds))
    network = judge = view.network.verify(view.X)
    if precision != "fp32":
        judge = attackable(estimator, X, **only_given(bounds)).network.verify(view.X)
    labels = encode_labels(y, view.classes, len(view.X), unknown="mark")
    radius = useful_radius(norm, eps, view.bounds, view.X.shape[1:])
    job = Attack(
        network=network,
        judge=judge,
        bounds=view.bounds,
        ball=make_ball(norm, radius),
        runs=_runs(len(view.classes), n_restarts) if eps > 0 else (),
        step_size=HalfCosine(radius if step_size is None else step_size, n_steps),
        n_steps=n_steps,
        seed=draw_seed(random_state) if random_start else None,
    )
    return run_batches(
        job,
        (view.X, labels),
        batch_size=batch_size,
        n_jobs=n_jobs,
        desc=f"attack eps={eps:g}",
        verbose=verbose,
    )


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
    runs : tuple of (loss, rank of the target class or None)
        In the order in which they are tried on the samples that still withstand.
    step_size : callable
    n_steps : int
    seed : int or None
        Of the random starts; None starts at the sample.
    """

    network: FrozenNetwork
    judge: FrozenNetwork
    bounds: tuple | None
    ball: L2Ball | LinfBall
    runs: tuple
    step_size: Callable
    n_steps: int
    seed: int | None

    def __call__(self, begin, X, labels):
        """Return the examples, and whether each is misclassified."""
        x = batch_tensor(X, self.network.device)
        y = torch.from_numpy(np.array(labels)).to(x.device)
        unknown = y < 0  # a label that is never predicted: there is nothing to attack
        y = y.clamp(min=0)
        best = x.clone()
        margin, fooled = _judge(self.judge, x, y)
        fooled |= unknown
        order = _by_likelihood(self.judge, x, y)
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
                start=self._start(run, begin, x, rows),
                keep="best",
                is_better=lambda logits, t, ys=ys: cw_margin(logits, ys) > 0,
            )
            found_margin, found_fools = _judge(self.judge, found, ys)
            better = found_fools | (found_margin > margin[rows])
            best[rows[better]] = found[better]
            margin[rows[better]] = found_margin[better]
            fooled[rows] = found_fools
        return best.cpu().numpy(), fooled.cpu().numpy()

    def _start(self, run, begin, x, rows):
        """Random points of the ball around the given rows of the batch; None for themselves."""
        if self.seed is None:
            return None
        noise = normal_rows((self.seed, run), begin, begin + len(x), x[0].numel() + 2)
        noise = torch.from_numpy(noise).to(x.device)[rows]
        return x[rows] + self.ball.sample(noise, like=x[rows])


def _runs(n_classes, n_restarts):
    """(loss, rank of the target class or None) of each run, in order."""
    if n_classes == 2:
        return ((cw_margin, None), (cross_entropy, None)) * n_restarts
    targets = [(targeted_margin, rank) for rank in range(min(n_classes - 1, _MAX_TARGETS))]
    return ((cw_margin, None), *targets) * n_restarts


def _judge(network, x, y):
    """Margin of each sample, and whether it is misclassified: ties as `predict` breaks them."""
    with torch.no_grad():
        logits = network(x)
    # Logits that are no numbers count as misclassified.
    margin = torch.nan_to_num(cw_margin(logits, y), nan=torch.inf)
    return margin, (logits.argmax(1) != y) | (margin > 0)


def _by_likelihood(network, x, y):
    """Wrong classes of each sample, most likely first; the true class comes last."""
    with torch.no_grad():
        logits = network(x).scatter(1, y[:, None], -torch.inf)
    return logits.argsort(1, descending=True)

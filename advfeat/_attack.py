"""Adversarial examples for a fitted estimator: the strongest found for each sample."""

from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, Options, StrOptions, validate_params

from advfeat._attackable import attackable
from advfeat.optim import (
    HalfCosine,
    cross_entropy,
    cw_margin,
    make_ball,
    projected_gradient,
    targeted_margin,
)
from advfeat.utils._checks import take_batch
from advfeat.utils._progress import progress_bar
from advfeat.utils._random import draw_seed, normal_rows

_MAX_TARGETS = 9  # wrong classes tried one by one, as in AutoAttack's targeted runs

ATTACK_CONSTRAINTS = {
    "norm": [Options(Real, {2, np.inf})],
    "eps": [Interval(Real, 0, None, closed="left")],
    "step_size": [Interval(Real, 0, None, closed="neither"), None],
    "n_steps": [Interval(Integral, 1, None, closed="left")],
    "random_start": ["boolean"],
    "n_restarts": [Interval(Integral, 1, None, closed="left")],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
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
        in one (attacked at its last step).
    X : array-like of shape (n, d) or (n, C, H, W)
    y : array-like of shape (n,)
        True labels.
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
    view = attackable(estimator, X, precision)
    judge = view.network if precision == "fp32" else attackable(estimator, X).network
    labels = encode_labels(y, view.classes, len(view.X))
    ball = make_ball(norm, eps)
    seed = draw_seed(random_state)
    runs = _runs(len(view.classes), n_restarts)
    steps = HalfCosine(eps if step_size is None else step_size, n_steps)
    device = view.network.device

    def attack_batch(start, stop):
        x = take_batch(view.X, slice(start, stop), device)
        y_batch = torch.from_numpy(labels[start:stop]).to(device)
        best, margin = x.clone(), _margin(judge, x, y_batch)
        order = _by_likelihood(judge, x, y_batch)
        for run, (loss, rank) in enumerate(runs):
            rows = torch.nonzero(margin <= 0).flatten()
            if len(rows) == 0 or eps == 0:
                break
            xs, ys = x[rows], y_batch[rows]
            target = ys if rank is None else torch.stack([order[rows, rank], ys], 1)
            init = None
            if random_start:
                noise = normal_rows((seed, run), start, stop, xs[0].numel() + 2)
                init = xs + ball.sample(torch.from_numpy(noise).to(device)[rows], like=xs)
            found = projected_gradient(
                view.network,
                xs,
                target,
                loss,
                ball=ball,
                bounds=view.bounds,
                step_size=steps,
                n_steps=n_steps,
                start=init,
                keep="best",
                is_better=lambda logits, t, ys=ys: cw_margin(logits, ys) > 0,
            )
            found_margin = _margin(judge, found, ys)
            better = found_margin > margin[rows]
            best[rows[better]] = found[better]
            margin[rows[better]] = found_margin[better]
        return best.cpu().numpy(), (margin > 0).cpu().numpy()

    parts = []
    with progress_bar(
        total=len(view.X), desc=f"attack eps={eps:g}", unit="sample", verbose=verbose
    ) as bar:
        for start in range(0, len(view.X), batch_size):
            stop = min(start + batch_size, len(view.X))
            parts.append(attack_batch(start, stop))
            bar.update(stop - start)
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def encode_labels(y, classes, n):
    """Positions of the labels y in classes, as an int64 array of length n.

    Raises
    ------
    ValueError
        If the length differs or a label is unknown.
    """
    y = np.asarray(y)
    if y.shape != (n,):
        raise ValueError(f"y must have shape ({n},), one label per sample. Got {y.shape}.")
    index = np.searchsorted(classes, y).clip(0, len(classes) - 1)
    unknown = classes[index] != y
    if np.any(unknown):
        raise ValueError(
            f"y contains labels that are not among the classes {classes}: {np.unique(y[unknown])}."
        )
    return index.astype(np.int64)


def _runs(n_classes, n_restarts):
    """(loss, rank of the target class or None) of each run, in order."""
    if n_classes == 2:
        return [(cw_margin, None), (cross_entropy, None)] * n_restarts
    targets = [(targeted_margin, rank) for rank in range(min(n_classes - 1, _MAX_TARGETS))]
    return [(cw_margin, None), *targets] * n_restarts


def _margin(network, x, y):
    with torch.no_grad():
        margin = cw_margin(network(x), y)
    # Not a number counts as misclassified, as it does for argmax-based accuracy.
    return torch.nan_to_num(margin, nan=torch.inf)


def _by_likelihood(network, x, y):
    """Wrong classes of each sample, most likely first; the true class comes last."""
    with torch.no_grad():
        logits = network(x).scatter(1, y[:, None], -torch.inf)
    return logits.argsort(1, descending=True)

"""Whether attacks along the gradient can say anything of a network, tried on a few samples."""

import numpy as np
import torch

from advfeat.exceptions import EvaluationWarning
from advfeat.optim import (
    HalfCosine,
    LinfBall,
    cw_margin,
    feature_value,
    into_box,
    make_ball,
    projected_gradient,
    useful_radius,
)
from advfeat.utils._checks import take_batch
from advfeat.utils._device import default_modes
from advfeat.utils._logits import classified_as
from advfeat.utils._random import make_rng
from advfeat.utils._rounding import warn_of_eps
from advfeat.utils._warnings import warn_caller

_N_SAMPLES = 64
_N_PROBES = 8
_N_QUERIES = 200  # of the random search
_N_STEPS = 20  # along the gradient, on what it finds
_SHARE = 0.05  # of the samples from which a warning is due
_AT_LEAST = 3  # samples

_ADVICE = (
    "What is measured may be wrong (robustness too high), see "
    "advfeat.exceptions.EvaluationWarning."
)
_WHY = "(are inputs rounded, is a softmax inside saturated, or a root taken of zero?)"


@default_modes()
def warn_if_blind(target, norm, eps):
    """Warn, before the attack, if the gradient of a network is zero or random, or steps get lost.

    It costs a step of the attack on 64 samples.

    Parameters
    ----------
    target : AttackTarget
    norm : {2, numpy.inf}
    eps : float
        Radius; nothing is checked at zero.

    Returns
    -------
    bool
        Whether something was found.
    """
    network, X = target.judge, target.view.X
    if eps == 0 or len(X) == 0:
        return False
    warn_of_eps(X, norm, eps)
    if _warn_if_random(network):
        return True
    network.require_gradient(X)
    x, y = _samples(target, _some_of(np.arange(len(X))))
    with torch.no_grad():
        logits = network(x)
        constant = (logits == logits[:1]).all()  # or one sample, or copies of one
        if constant:
            constant = (network(_elsewhere(x, target.view.bounds)) == logits[:1]).all()
    if constant:
        return False  # a constant, such as a linear model under a strong penalty, is robust indeed
    right = (y >= 0) & classified_as(logits, y)  # no numbers say no class, as in the attack
    if not right.any():
        return False  # nothing to attack; not every network takes an empty batch
    x, y = x[right], y[right]
    ball = make_ball(norm, eps)
    stuck = _without_direction(lambda z: cw_margin(network(z), y), x, ball)
    found = _many(stuck, len(x))
    if found:
        _warn(
            f"The gradient is exactly zero, or no number, for {stuck} of {len(x)} correctly "
            f"classified samples: nothing leads an attack {_WHY}."
        )
    return found


@default_modes()
def warn_if_features_blind(network, X, columns, norm, eps):
    """Warn, before features are searched one by one, as `warn_if_blind` does before an attack.

    It costs a step of the search on 64 pairs of a sample and a feature.

    Parameters
    ----------
    network : FrozenNetwork
        In fp32, verified.
    X : array of shape (n, ...)
    columns : ndarray of int
        Features that are not constant: others have no usefulness.
    norm : {2, numpy.inf}
    eps : float
        Radius; nothing is checked at zero.
    """
    if eps == 0 or len(X) == 0:
        return
    if _warn_if_random(network):
        return
    network.require_gradient(X)
    if len(columns) == 0:
        return
    rows = np.resize(_some_of(np.arange(len(X))), _N_SAMPLES)
    x = take_batch(X, rows, network.device)
    some = np.stack([make_rng(0).choice(columns, len(rows)), np.ones(len(rows))], 1)
    pairs = torch.from_numpy(some.astype(np.float32)).to(x.device)
    stuck = _without_direction(
        lambda z: feature_value(network.inversion_features(z), pairs), x, make_ball(norm, eps)
    )
    if _many(stuck, len(rows)):
        _warn(
            f"The features' gradient is exactly zero, or no number, for {stuck} of {len(rows)} "
            f"pairs of a sample and a feature: nothing leads the search {_WHY}."
        )


def _warn_if_random(network):
    if network.random:
        _warn(
            "The network is random: its logits for one input differ from call to call, so that "
            "an attack follows one draw and is judged by another, and results cannot be repeated. "
            "Average several draws inside the network."
        )
    return network.random


@default_modes()
def warn_if_beaten(target, norm, eps, withstands):
    """Warn, after the attack, if a short random search fools what withstood it.

    Samples that a short gradient attack fools as well do not count: there the gradient leads, and
    the first attack was only too weak. It costs 200 forward passes on 64 samples.

    Parameters
    ----------
    target : AttackTarget
    norm : {2, numpy.inf}
    eps : float
    withstands : ndarray of shape (n,), bool
    """
    rows = _some_of(np.flatnonzero(withstands))
    if eps == 0 or len(rows) == 0:
        return
    x, y = _samples(target, rows)
    network, bounds = target.judge, target.view.bounds
    ball = make_ball(norm, useful_radius(norm, eps, bounds, x.shape[1:]))
    beaten = _search(network, x, y, ball, bounds)
    if _many(int(beaten.sum()), len(rows)):
        beaten = int((~_follow(network, x[beaten], y[beaten], ball, bounds)).sum())
        if _many(beaten, len(rows)):
            _warn(
                f"Random search, without gradients, fools the network for {beaten} of {len(rows)} "
                "samples that withstand the attack: the gradient misleads, or it needs more steps."
            )


def _some_of(rows):
    """At most 64 of the rows, evenly spaced: data that are sorted by class give all classes."""
    n = len(rows)
    return rows[np.linspace(0, n - 1, min(n, _N_SAMPLES)).astype(int)]


def _samples(target, rows):
    x = take_batch(target.view.X, rows, target.judge.device)
    return x, torch.from_numpy(np.array(target.labels[rows])).to(x.device)


def _many(n, n_samples):
    return n >= min(_AT_LEAST, n_samples) and n > _SHARE * n_samples


def _elsewhere(x, bounds):
    """Draw a few other inputs, to tell a constant network from a single sample."""
    draw = torch.Generator(device="cpu").manual_seed(0)
    shape = (_N_PROBES, *x.shape[1:])
    noise = torch.randn(shape, generator=draw, device="cpu", dtype=torch.float32).to(x)
    return into_box(x[:1] + (1 + x[:1].abs()) * noise, bounds)


def _without_direction(value_of, x, ball):
    """Count samples of whose value the gradient gives no direction to step in."""
    with torch.enable_grad():
        z = x.clone().requires_grad_(True)
        value = value_of(z).sum()
        gradient = None
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value, z, allow_unused=True)
    if gradient is None:
        return 0  # the attack says so itself
    return int((ball.direction(gradient).flatten(1) == 0).all(1).sum())


def _follow(network, x, y, ball, bounds):
    """Whether each sample is fooled by steps along the gradient."""
    found = projected_gradient(
        network, x, y, cw_margin, ball=ball, bounds=bounds,
        step_size=HalfCosine(ball.eps, _N_STEPS), n_steps=_N_STEPS, keep="best",
        is_better=lambda logits, y: ~(cw_margin(logits, y) <= 0),
    )  # fmt: skip
    with torch.no_grad():
        return ~(cw_margin(network(found), y) <= 0)  # no numbers count as misclassified


def _search(network, x, y, ball, bounds):
    """Whether each sample is fooled by squares of random sign, kept where the margin grows.

    A short form of the Square Attack (Andriushchenko et al. 2020); in tables the "squares" are
    sets of features. All draws are made on the CPU, for every device.
    """
    draw = torch.Generator(device="cpu").manual_seed(0)
    reach = 2 * ball.eps if isinstance(ball, LinfBall) else ball.eps  # to its other side

    def moved(z, patches):
        delta = z - x + reach * ball.direction(patches)
        return into_box(x + ball.project(delta), bounds)

    with torch.no_grad():
        z = moved(x, _patches(x, 1.0, draw))
        margin = cw_margin(network(z), y)
        for i in range(_N_QUERIES):
            share = 0.02 + 0.5 * (1 - i / _N_QUERIES) ** 1.5
            tried = moved(z, _patches(x, share, draw))
            value = cw_margin(network(tried), y)
            better = (value > margin) | value.isnan()
            z[better], margin[better] = tried[better], value[better]
    return ~(margin <= 0)


def _patches(x, share, draw):
    """One square of random sign in each image, of a share of its area; zero elsewhere."""

    def signs(*shape):
        return (2 * torch.randint(2, shape, generator=draw, device="cpu") - 1).to(x)

    if x.ndim == 2:
        features = torch.rand(x.shape, generator=draw, device="cpu", dtype=torch.float32) < share
        return features.to(x.device) * signs(*x.shape)
    n, channels, *sides = x.shape
    rows, columns = (_stretch(n, side, share**0.5, draw).to(x.device) for side in sides)
    return rows[:, None, :, None] * columns[:, None, None, :] * signs(n, channels, 1, 1)


def _stretch(n, length, share, draw):
    """Mark a random stretch of each of n rows."""
    size = max(1, round(share * length))
    begin = torch.randint(length - size + 1, (n, 1), generator=draw, device="cpu")
    place = torch.arange(length, device="cpu")
    return (place >= begin) & (place < begin + size)


def _warn(message):
    warn_caller(f"{message} {_ADVICE}", EvaluationWarning)

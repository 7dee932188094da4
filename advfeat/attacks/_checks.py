"""Whether attacks along the gradient can say anything of a network, tried on a few samples."""

import warnings

import numpy as np
import torch

from advfeat.exceptions import EvaluationWarning
from advfeat.optim import HalfCosine, cw_margin, make_ball, projected_gradient, useful_radius
from advfeat.utils._checks import batch_tensor
from advfeat.utils._device import own_modes
from advfeat.utils._random import normal_rows

_N_SAMPLES = 64
_N_TRIES = 10  # steps of the attack, and random points, that are compared
_SHARE = 0.05  # of the samples from which a warning is due
_AT_LEAST = 3  # samples

_ADVICE = "The robustness measured may be too high, see advfeat.exceptions.EvaluationWarning."


@own_modes()
def warn_if_misleading(target, norm, eps):
    """Warn if the gradient of a network is zero, worse than noise, or random.

    It costs about as much as a weak attack on 64 samples.

    Parameters
    ----------
    target : AttackTarget
    norm : {2, numpy.inf}
    eps : float
        Radius; nothing is checked at zero.
    """
    network, X = target.judge, target.view.X
    if eps == 0 or len(X) == 0:
        return
    if network.random:
        _warn(
            "The network is random: its logits for one input differ from call to call, so that "
            "an attack follows one draw and is judged by another, and results cannot be repeated. "
            "Average several draws inside the network."
        )
        return
    x = batch_tensor(X[:_N_SAMPLES], network.device)
    y = torch.from_numpy(np.array(target.labels[:_N_SAMPLES])).to(x.device)
    with torch.no_grad():
        logits = network(x)
    if (logits == logits[:1]).all():
        return  # a constant, such as a linear model under a strong penalty, is robust indeed
    right = (y >= 0) & (logits.argmax(1) == y)
    x, y = x[right], y[right]
    if _many(stuck := _without_gradient(network, x, y), len(x)):
        _warn(
            f"The gradient is exactly zero for {stuck} of {len(x)} correctly classified samples: "
            "nothing leads an attack (are inputs rounded, or is a softmax inside saturated?)."
        )
        return
    missed = _missed(network, x, y, norm, eps, target.view.bounds)
    if _many(missed, len(x)):
        _warn(
            f"Random noise of the same size fools the network for {missed} of {len(x)} samples "
            "that withstand steps along the gradient: the gradient misleads."
        )


def _many(n, n_samples):
    return n >= min(_AT_LEAST, n_samples) and n > _SHARE * n_samples


def _without_gradient(network, x, y):
    with torch.enable_grad():
        z = x.clone().requires_grad_(True)
        value = cw_margin(network(z), y).sum()
        gradient = None
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value, z, allow_unused=True)
    if gradient is None:
        return 0  # the attack says so itself
    return int((gradient.flatten(1) == 0).all(1).sum())


def _missed(network, x, y, norm, eps, bounds):
    """Count the samples that noise of the ball fools, but a short attack does not."""
    if len(x) == 0:
        return 0
    radius = useful_radius(norm, eps, bounds, x.shape[1:])
    ball = make_ball(norm, radius)
    found = projected_gradient(
        network, x, y, cw_margin, ball=ball, bounds=bounds,
        step_size=HalfCosine(radius, _N_TRIES), n_steps=_N_TRIES, keep="best",
    )  # fmt: skip
    with torch.no_grad():
        withstands = cw_margin(network(found), y) <= 0
        fooled = torch.zeros_like(withstands)
        for i in range(_N_TRIES):
            noise = normal_rows((0, i), 0, len(x), x[0].numel() + 2)
            start = x + ball.sample(torch.from_numpy(noise).to(x.device), like=x)
            point = projected_gradient(
                network, x, y, cw_margin, ball=ball, bounds=bounds, step_size=0.0, n_steps=0,
                start=start,
            )  # fmt: skip
            fooled |= cw_margin(network(point), y) > 0
    return int((withstands & fooled).sum())


def _warn(message):
    warnings.warn(f"{message} {_ADVICE}", EvaluationWarning, stacklevel=5)

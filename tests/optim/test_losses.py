"""The losses: closed forms, other libraries, and the direction that each pushes."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp

from advfeat.optim import (
    cross_entropy,
    cw_margin,
    feature_distance,
    feature_value,
    targeted_cross_entropy,
    targeted_margin,
)

SEEDS = st.integers(0, 2**31 - 1)


def draw(seed, n=6, n_classes=4):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, n_classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(n_classes, (n,), generator=generator)


def gradient(loss, output, target):
    output = output.clone().requires_grad_(True)
    return torch.autograd.grad(loss(output, target).sum(), output)[0]


@given(seed=SEEDS)
def test_cross_entropy(seed):
    logits, y = draw(seed)
    expected = logsumexp(logits, axis=1) - logits.numpy()[np.arange(6), y]
    np.testing.assert_allclose(cross_entropy(logits, y), expected, rtol=1e-9)
    np.testing.assert_allclose(targeted_cross_entropy(logits, y), -expected, rtol=1e-9)
    one_hot = torch.nn.functional.one_hot(y, 4)
    torch.testing.assert_close(gradient(cross_entropy, logits, y), logits.softmax(1) - one_hot)


@given(seed=SEEDS, n_classes=st.integers(2, 5))
def test_cw_margin(seed, n_classes):
    logits, y = draw(seed, n_classes=n_classes)
    expected = [max(np.delete(row, i)) - row[i] for row, i in zip(logits.numpy(), y, strict=True)]
    np.testing.assert_allclose(cw_margin(logits, y), expected)
    assert torch.equal(cw_margin(logits, y) > 0, logits.argmax(1) != y)
    slope = gradient(cw_margin, logits, y)
    assert (slope.gather(1, y[:, None]) == -1).all()
    runner_up = logits.scatter(1, y[:, None], -torch.inf).argmax(1)
    assert (slope.gather(1, runner_up[:, None]) == 1).all()
    assert (slope != 0).sum() == 2 * len(y)


@given(seed=SEEDS)
def test_targeted_margin(seed):
    logits, y = draw(seed)
    wanted = (y + 1) % 4
    pairs = torch.stack([wanted, y], 1)
    rows = torch.arange(len(y))
    torch.testing.assert_close(
        targeted_margin(logits, pairs), logits[rows, wanted] - logits[rows, y]
    )
    slope = gradient(targeted_margin, logits, pairs)
    assert (slope[rows, wanted] == 1).all()
    assert (slope[rows, y] == -1).all()
    # The margin to the nearest class is the largest of the targeted ones.
    targeted = [targeted_margin(logits, torch.stack([(y + k) % 4, y], 1)) for k in (1, 2, 3)]
    torch.testing.assert_close(torch.stack(targeted).amax(0), cw_margin(logits, y))


@given(seed=SEEDS)
def test_feature_distance(seed):
    features, _ = draw(seed)
    target = draw(seed + 1)[0]
    expected = -(np.linalg.norm(features - target, axis=1) ** 2)
    np.testing.assert_allclose(feature_distance(features, target), expected)
    torch.testing.assert_close(
        gradient(feature_distance, features, target), 2 * (target - features)
    )


@given(seed=SEEDS)
def test_feature_value(seed):
    features, index = draw(seed)
    sign = torch.tensor([1.0, -1.0] * 3)
    pairs = torch.stack([index.float(), sign], 1)
    rows = torch.arange(6)
    torch.testing.assert_close(feature_value(features, pairs), features[rows, index] * sign)
    expected = torch.zeros(6, 4, dtype=torch.float64)
    expected[rows, index] = sign.double()
    torch.testing.assert_close(gradient(feature_value, features, pairs), expected)


def test_one_value_per_sample_that_does_not_depend_on_the_others():
    logits, y = draw(0)
    target = torch.stack([y, (y + 1) % 4], 1)
    for loss, wanted in [
        (cross_entropy, y),
        (targeted_cross_entropy, y),
        (cw_margin, y),
        (targeted_margin, target),
        (feature_distance, logits + 1),
        (feature_value, torch.stack([y, torch.ones_like(y)], 1)),
    ]:
        together = loss(logits, wanted)
        alone = [loss(logits[i : i + 1], wanted[i : i + 1]) for i in range(6)]
        assert together.shape == (6,)
        torch.testing.assert_close(together, torch.cat(alone))


def test_margin_and_cross_entropy_agree_with_torchattacks():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # raised while it is imported
        torchattacks = pytest.importorskip("torchattacks")
    # Its hinge takes non-negative outputs: it masks the true class with zero.
    logits, y = draw(0)
    logits = logits.abs()
    attack = torchattacks.CW(torch.nn.Linear(4, 4))
    hinge = attack.f(logits, y)  # max(true - best other, 0)
    torch.testing.assert_close(hinge, (-cw_margin(logits, y)).clamp_min(0))

"""Steps, schedules, momentum and units of the loop."""

import numpy as np
import pytest
import torch
from ascending import (
    BOX,
    NORMS,
    SEEDS,
    Recorder,
    ascend,
    distance,
    normal,
    small_net,
    uniform,
    value,
)
from hypothesis import given
from hypothesis import strategies as st

from advfeat.optim import (
    HalfCosine,
    cross_entropy,
    feature_distance,
)


def test_steps_follow_the_schedule_and_their_length():
    lengths = []

    def step_size(step):
        lengths.append(step)
        return 0.1 * (step + 1)

    network = Recorder(small_net(0))
    x = uniform(0, 4, 12)
    ascend(network, x, eps=np.inf, step_size=step_size, n_steps=3, keep="best")
    assert lengths == [0, 1, 2]
    for step, (before, after) in enumerate(zip(network.seen, network.seen[1:], strict=False)):
        torch.testing.assert_close(distance(after, before, 2), torch.full((4,), 0.1 * (step + 1)))


@pytest.mark.parametrize("n_steps", [1, 2, 7, 100])
def test_half_cosine(n_steps):
    lengths = [HalfCosine(0.4, n_steps)(step) for step in range(n_steps)]
    assert lengths[0] == 0.4
    assert all(before > after > 0 for before, after in zip(lengths, lengths[1:], strict=False))
    # The cosines of all steps but the first cancel.
    assert sum(lengths) == pytest.approx(0.4 * (n_steps + 1) / 2)


def test_shrinking_steps_settle_where_constant_ones_go_back_and_forth():
    x = torch.zeros(1, 2)
    goal = torch.tensor([[0.3, 0.2]])

    def remaining(step_size):
        found = ascend(
            lambda z: z, x, feature_distance, target=goal, eps=np.inf, step_size=step_size,
            n_steps=50,
        )  # fmt: skip
        return distance(found, goal, 2).item()

    assert remaining(HalfCosine(0.1, 50)) < 1e-3 < 0.01 < remaining(0.1)


def test_momentum_is_the_heavy_ball():
    """Against the recursion written out, on a linear value: every direction is the same."""
    x, w = uniform(0, 3, 5), normal(1, 5)
    z = ascend(lambda v: v @ w[:, None], x, eps=np.inf, n_steps=4, step_size=0.1, momentum=0.5)
    steps = sum(0.1 * sum(0.5**i for i in range(n)) for n in range(1, 5))
    torch.testing.assert_close(z, x + steps * w / torch.linalg.vector_norm(w))


@pytest.mark.parametrize("norm", NORMS)
@given(seed=SEEDS, power=st.integers(-80, 80))
def test_the_loop_does_not_depend_on_the_unit(norm, seed, power):
    unit = 2.0**power
    net, x = small_net(seed), normal(seed + 1, 5, 12)
    y = torch.arange(5) % 3
    expected = ascend(net, x, cross_entropy, norm=norm, target=y, n_steps=4, momentum=0.5)
    actual = ascend(
        lambda z: net(z / unit), unit * x, cross_entropy,
        norm=norm, eps=0.5 * unit, target=y, n_steps=4, momentum=0.5,
    )  # fmt: skip
    torch.testing.assert_close(actual / unit, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("size", [1e22, 1e38, 1e300])
@pytest.mark.parametrize("bounds", [None, BOX])
def test_huge_steps_and_radii_still_climb(norm, size, bounds):
    weight, x = torch.tensor([[1.0, -2.0, 0.5]]), uniform(0, 4, 3)
    found = ascend(
        lambda z: z @ weight.T, x, norm=norm, eps=size, step_size=size, n_steps=3, bounds=bounds
    )
    assert torch.isfinite(found).all()
    if bounds is None:
        assert (value(found @ weight.T, None) > 1e21).all()
    else:
        assert torch.equal(found, torch.tensor([[1.0, 0.0, 1.0]]).expand(4, 3))


def test_a_schedule_without_steps_is_refused():
    with pytest.raises(ValueError, match="n_steps must be at least 1. Got 0"):
        HalfCosine(1.0, 0)

"""L2Ball and LinfBall: steepest direction, nearest projection, uniform samples."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import minimize

from advfeat.optim import (
    HalfCosine,
    L2Ball,
    LinfBall,
    make_ball,
    projected_gradient,
    row_norms,
    useful_radius,
)

SEEDS = st.integers(0, 2**31 - 1)
NORMS = [2, np.inf]
DUAL = {2: 2, np.inf: 1}


def normal(seed, *shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def length(delta, norm):
    return torch.linalg.vector_norm(delta.flatten(1), ord=norm, dim=1)


def test_make_ball():
    assert isinstance(make_ball(2, 0.5), L2Ball)
    assert isinstance(make_ball(np.inf, 0.5), LinfBall)
    assert isinstance(make_ball(float("inf"), 0.5), LinfBall)
    assert make_ball(2, 0.5).eps == 0.5


@pytest.mark.parametrize("norm", NORMS)
@given(seed=SEEDS, scale=st.sampled_from([1e-3, 1, 1e3]))
def test_projection_is_nearest_inside_and_idempotent(norm, seed, scale):
    eps = 0.7 * scale
    ball = make_ball(norm, eps)
    delta = scale * normal(seed, 6, 2, 3)
    nearest = ball.project(delta)
    assert (length(nearest, norm) <= eps * (1 + 1e-6)).all()
    torch.testing.assert_close(ball.project(nearest), nearest)
    inside = 0.1 * delta / length(delta, norm).amax()
    assert torch.equal(ball.project(eps * inside), eps * inside)
    # p is nearest to v in a convex set if and only if (v - p).(u - p) <= 0 for all u in the set.
    others = ball.sample(normal(seed + 1, 500, 8), like=normal(0, 500, 2, 3)).flatten(1)
    for v, p in zip(delta.flatten(1), nearest.flatten(1), strict=True):
        assert ((others - p) @ (v - p)).max() <= 1e-5 * scale**2


def test_projection_onto_the_l2_ball_agrees_with_scipy():
    delta = normal(0, 4, dtype=torch.float64)
    nearest = minimize(
        lambda p: np.sum((p - delta.numpy()) ** 2),
        np.zeros(4),
        constraints={"type": "ineq", "fun": lambda p: 0.25 - p @ p},
        tol=1e-12,
    ).x
    np.testing.assert_allclose(L2Ball(0.5).project(delta[None])[0], nearest, atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_no_radius_and_no_limit(norm):
    delta = 1e6 * normal(0, 5, 3)
    delta[0] = 0
    assert torch.equal(make_ball(norm, 0).project(delta), torch.zeros(5, 3))
    assert torch.equal(make_ball(norm, np.inf).project(delta), delta)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-41, 1e-25, 1.0, 1e30])
def test_direction_is_the_steepest_of_norm_one(norm, scale):
    # The largest inner product with a vector of norm 1 is the dual norm.
    gradient = scale * normal(0, 5, 2, 3)
    direction = make_ball(norm, 0.3).direction(gradient)
    assert direction.shape == gradient.shape
    torch.testing.assert_close(length(direction, norm), torch.ones(5))
    gain = (direction.double() * gradient.double()).flatten(1).sum(1)
    expected = length(gradient.double(), DUAL[norm])
    torch.testing.assert_close(gain, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_unusable_gradients_give_no_direction_and_spare_other_samples(norm):
    gradient = normal(0, 5, 4)
    gradient[0] = 0
    gradient[1] = torch.nan
    gradient[2] = torch.inf
    gradient[3] = -torch.inf
    direction = make_ball(norm, 0.3).direction(gradient)
    assert torch.equal(direction[:4], torch.zeros(4, 4))
    torch.testing.assert_close(length(direction[4:], norm), torch.ones(1))
    partly = normal(0, 1, 4)
    partly[0, 1] = torch.nan
    assert torch.isfinite(make_ball(norm, 0.3).direction(partly)).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_type_layout_and_device_stay(norm, dtype, device):
    ball = make_ball(norm, 0.3)
    x = normal(0, 4, 3, 5, 5, dtype=dtype).to(device, memory_format=torch.channels_last)
    for result in (ball.direction(x), ball.project(x)):
        assert (result.dtype, result.device, result.shape) == (dtype, x.device, x.shape)
    torch.testing.assert_close(ball.project(x), ball.project(x.contiguous()))
    torch.testing.assert_close(ball.direction(x), ball.direction(x.contiguous()))


@pytest.mark.parametrize("d", [1, 2, 7, 50])
def test_samples_of_the_l2_ball_are_uniform(d):
    n, eps = 4000, 0.5
    points = L2Ball(eps).sample(normal(d, n, d + 2), like=torch.empty(n, d))
    radius = length(points, 2).double().numpy() / eps
    assert abs(radius.mean() - d / (d + 1)) < 4 * radius.std() / np.sqrt(n)
    # P(radius <= r) = r^d
    assert stats.kstest(radius**d, "uniform").pvalue > 1e-3
    assert stats.kstest(points[:, 0], -points[:, 0]).pvalue > 1e-3
    correlation = points.T.double() @ points.double() / n * (d + 2) / eps**2
    np.testing.assert_allclose(correlation, np.eye(d), atol=0.12)


def test_samples_of_the_linf_ball_are_uniform():
    points = LinfBall(0.5).sample(normal(0, 4000, 8), like=torch.empty(4000, 2, 3))
    assert points.shape == (4000, 2, 3)
    for column in points.flatten(1).T:
        assert stats.kstest(column, "uniform", args=(-0.5, 1)).pvalue > 1e-3
    np.testing.assert_allclose(np.corrcoef(points.flatten(1).T), np.eye(6), atol=0.06)


POWERS = st.integers(-95, 95)  # of two: in such units every float32 is scaled without rounding


@pytest.mark.parametrize("norm", NORMS)
@given(seed=SEEDS, power=POWERS, eps=st.sampled_from([0.1, 1, 30]))
def test_projection_does_not_depend_on_the_unit(norm, seed, power, eps):
    delta, unit = normal(seed, 4, 6), 2.0**power
    expected = unit * make_ball(norm, eps).project(delta)
    actual = make_ball(norm, unit * eps).project(unit * delta)
    torch.testing.assert_close(actual / unit, expected / unit, rtol=1e-6, atol=0)


@pytest.mark.parametrize("norm", NORMS)
@given(seed=SEEDS, power=POWERS)
def test_directions_do_not_depend_on_the_unit(norm, seed, power):
    gradient, ball = normal(seed, 4, 6), make_ball(norm, 1)
    torch.testing.assert_close(ball.direction(2.0**power * gradient), ball.direction(gradient))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [1e22, 1e30, 1e38, 1e300])
def test_radii_out_of_range_of_float32_move_far_and_stay_finite(norm, eps):
    ball = make_ball(norm, eps)
    for delta in (1e20 * normal(0, 3, 5), ball.sample(normal(1, 3, 7), like=normal(0, 3, 5))):
        projected = ball.project(delta)
        assert torch.isfinite(projected).all()
        assert (length(projected.double(), norm) > 1e19).all()


@given(seed=SEEDS, power=POWERS)
def test_norms_neither_overflow_nor_vanish(seed, power):
    values = normal(seed, 3, 2, 4)
    expected = 2.0**power * np.linalg.norm(values.flatten(1).double(), axis=1)
    np.testing.assert_allclose(row_norms(2.0**power * values), expected, rtol=1e-6)


def test_useful_radius():
    assert useful_radius(2, 0.5, (0, 1), (3, 2, 2)) == 0.5
    assert useful_radius(2, 1e30, (0, 1), (3, 2, 2)) == pytest.approx(12**0.5)
    assert useful_radius(np.inf, 1e30, (-1.0, 1.0), (3, 2, 2)) == 2
    assert useful_radius(2, 5, None, (4,)) == 5
    assert np.isfinite(np.float32(useful_radius(2, 1e300, None, (4,))))
    low, high = np.zeros((2, 1, 1), np.float32), np.array([1, 3], np.float32).reshape(2, 1, 1)
    assert useful_radius(np.inf, 9, (low, high), (2, 4, 4)) == 3
    assert useful_radius(2, 99, (low, high), (2, 4, 4)) == pytest.approx((16 + 144) ** 0.5)


@pytest.mark.parametrize("norm", [2, np.inf])
def test_radii_and_steps_of_low_precision_count_as_what_they_are(norm):
    x, settings = torch.zeros(2, 5), {"n_steps": 9, "bounds": None}

    def found(kind):
        eps, step = kind(np.float16(0.2)), kind(np.float16(0.07))
        ball = make_ball(norm, useful_radius(norm, eps, None, (5,)))
        for length in (step, HalfCosine(step, 9)):
            yield projected_gradient(
                lambda z: z, x, x, lambda out, _: (out**2 + out).sum(1),
                ball=ball, step_size=length, **settings,
            )  # fmt: skip

    for a, b in zip(found(np.float16), found(float), strict=True):
        assert torch.equal(a, b)

"""projected_gradient: optima in closed form, feasibility, best iterates, odd gradients."""

import warnings

import numpy as np
import pytest
import torch
from ascending import BOX, NORMS, SEEDS, Recorder, ascend, distance, normal, small_net, uniform
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from advfeat.optim import (
    L2Ball,
    LinfBall,
    cross_entropy,
    cw_margin,
    feature_distance,
    into_box,
    make_ball,
    projected_gradient,
)


@given(seed=SEEDS)
@settings(max_examples=20)
def test_linear_network_optimum_in_closed_form(seed):
    w, x = normal(seed, 5), normal(seed + 1, 4, 5)
    linear = lambda z: z @ w[:, None]  # noqa: E731
    found = ascend(linear, x)
    torch.testing.assert_close(found, x + 0.5 * w / w.norm())
    # Any start leads to the same optimum.
    found = ascend(linear, x, start=x + normal(seed + 2, 4, 5), n_steps=30, step_size=0.5)
    torch.testing.assert_close(found, x + 0.5 * w / w.norm(), atol=1e-4, rtol=0)
    found = ascend(linear, x, norm=np.inf, eps=0.25)
    torch.testing.assert_close(found, x + 0.25 * w.sign())


@given(seed=SEEDS)
@settings(max_examples=20)
def test_linear_network_optimum_in_the_box(seed):
    w, x = normal(seed, 8), uniform(seed + 1, 1, 8)
    x[0, :2] = torch.tensor([0.0, 1.0])  # saturated
    linear = lambda z: z @ w[:, None]  # noqa: E731
    found = ascend(linear, x, norm=np.inf, eps=0.25, bounds=BOX)
    torch.testing.assert_close(found, (x + 0.25 * w.sign()).clamp(*BOX))

    def optimum(stretch):  # best perturbation for a given multiplier of the norm constraint
        return (x + stretch * w).clamp(*BOX) - x

    corner = optimum(1e6)
    delta = corner
    if corner.norm() > 0.5:
        delta = optimum(brentq(lambda t: float(optimum(t).norm()) - 0.5, 0, 1e6))
    # Projecting onto the ball, then onto the box, leaves a gap that shrinks with the step.
    found = ascend(linear, x, eps=0.5, step_size=0.02, n_steps=100, bounds=BOX)
    gain, highest = ((move @ w).item() for move in (found - x, delta))
    assert 0.97 * highest <= gain <= highest + 1e-5


def test_inversion_of_an_invertible_linear_map_recovers_the_input():
    matrix = torch.linalg.qr(normal(0, 6, 6))[0] * torch.linspace(0.5, 2, 6)
    x = uniform(1, 5, 6)
    found = projected_gradient(
        lambda z: z @ matrix,
        x,
        x @ matrix,
        feature_distance,
        ball=L2Ball(np.inf),
        bounds=BOX,
        step_size=lambda step: 0.3 * 0.97**step,
        n_steps=400,
        start=uniform(2, 5, 6),
    )
    torch.testing.assert_close(found, x, atol=1e-3, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("keep", ["last", "best"])
@given(seed=SEEDS, eps=st.sampled_from([0, 1e-3, 0.1, 0.5, 3.0]), n_steps=st.integers(0, 4))
@settings(max_examples=25)
def test_result_is_in_the_ball_and_in_the_box(norm, keep, seed, eps, n_steps):
    x = uniform(seed, 6, 3, 2, 2)
    x[0], x[1], x[2, 0] = 0, 1, 0
    y = torch.randint(3, (6,), generator=torch.Generator().manual_seed(seed))
    start = [None, x + normal(seed, 6, 3, 2, 2)][seed % 2]  # also far out of ball and box
    found = ascend(
        small_net(seed), x, cross_entropy, target=y, norm=norm, eps=eps, n_steps=n_steps,
        step_size=0.3, bounds=BOX, start=start, keep=keep,
    )  # fmt: skip
    assert found.shape == x.shape
    assert found.min() >= 0
    assert found.max() <= 1
    assert (distance(found, x, norm) <= eps + 1e-6).all()


@pytest.mark.parametrize("keep", ["last", "best"])
@pytest.mark.parametrize("n_steps", [0, 1, 5])
def test_inputs_that_leave_the_box_by_rounding_come_back(keep, n_steps):
    x = torch.tensor([[-3e-8, 1 + 1e-7, 0.5]])
    found = ascend(lambda z: -z.square(), x, bounds=BOX, keep=keep, n_steps=n_steps)
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize("norm", NORMS)
def test_saturated_pixels_can_return(norm):
    x = torch.tensor([[0.0, 1.0]])
    found = ascend(lambda z: z @ torch.tensor([[1.0], [-1.0]]), x, norm=norm, bounds=BOX)
    step = 0.5 if norm == np.inf else 0.5 / 2**0.5
    torch.testing.assert_close(found, torch.tensor([[step, 1 - step]]))


@pytest.mark.parametrize("norm", NORMS)
def test_radius_zero_and_no_steps(norm):
    x = uniform(0, 4, 12)
    found = ascend(small_net(0), x, norm=norm, eps=0, step_size=1.0, bounds=BOX)
    torch.testing.assert_close(found, x)
    for keep in ("last", "best"):
        found = ascend(small_net(0), x, norm=norm, n_steps=0, step_size=0.1, keep=keep)
        assert torch.equal(found, x)


@given(seed=SEEDS)
@settings(max_examples=20)
def test_best_is_never_worse_than_any_iterate(seed):
    x, frequencies = uniform(seed, 6, 4), 20 * normal(seed, 4, 1)
    network = Recorder(lambda z: torch.sin(z @ frequencies))  # steps overshoot
    best = ascend(network, x, n_steps=7, keep="best", bounds=BOX)
    found = network.network(best)[:, 0]
    values = torch.stack([network.network(z)[:, 0] for z in network.seen])
    torch.testing.assert_close(found, values.amax(0))
    assert len(network.seen) == 8  # one forward pass per step and one for the last iterate


def test_best_prefers_iterates_that_are_better_by_the_given_rule():
    # The iterates are x, x + 1, x + 2, x + 3. The value rises; only those in (1, 2.5) are good.
    x = torch.tensor([[0.0], [1.25], [5.0]])

    def good(output, target):
        return (output[:, 0] > 1) & (output[:, 0] < 2.5)

    found = ascend(
        lambda z: z, x, eps=np.inf, step_size=1.0, n_steps=3, keep="best", is_better=good
    )
    # The best of the good ones, or the best of all where none is good.
    torch.testing.assert_close(found, torch.tensor([[2.0], [2.25], [8.0]]))


@pytest.mark.parametrize(("last", "n_forward"), [(1.25, 2), (0.0, 3), (-9.0, 5)])
def test_it_can_end_when_every_sample_has_had_a_good_iterate(last, n_forward):
    network = Recorder(lambda z: z)
    x = torch.tensor([[0.25], [last]])
    found = ascend(
        network, x, eps=np.inf, step_size=1.0, n_steps=4, keep="best",
        is_better=lambda output, target: (output[:, 0] > 1) & (output[:, 0] < 2.5),
        until_better=True,
    )  # fmt: skip
    assert len(network.seen) == n_forward  # those of the sample that takes longest
    assert 1 < found[0] < 2.5


def test_a_good_iterate_is_kept_even_with_a_value_that_is_not_a_number():
    def network(z):
        return torch.where(z > 0.5, torch.nan, z)

    found = ascend(
        network, torch.zeros(1, 1), step_size=0.3, eps=1.0, n_steps=3, keep="best",
        is_better=lambda output, target: torch.isnan(output[:, 0]),
    )  # fmt: skip
    assert found.item() == pytest.approx(0.6)


def test_values_that_are_not_numbers_are_never_best():
    def network(z):
        return torch.where(z > 0.5, torch.nan, z - 10)

    x = torch.tensor([[0.0], [0.3], [0.7]])
    found = ascend(network, x, step_size=0.2, eps=1.0, n_steps=5, keep="best")
    torch.testing.assert_close(found, torch.tensor([[0.4], [0.5], [0.7]]))


@pytest.mark.parametrize("keep", ["last", "best"])
@pytest.mark.parametrize("norm", NORMS)
def test_gradients_that_are_zero_or_no_number_leave_a_sample_where_it_is(norm, keep):
    def network(z):
        factor = torch.tensor([[0.0], [torch.nan], [torch.inf], [1.0]])
        return (z * factor).sum(1, keepdim=True)

    x = uniform(0, 4, 3)
    found = ascend(network, x, norm=norm, keep=keep)
    assert torch.equal(found[:3], x[:3])
    step = 0.5 if norm == np.inf else 0.5 / 3**0.5
    torch.testing.assert_close(found[3], x[3] + step)


def test_samples_do_not_depend_on_their_batch():
    net, x, y = small_net(0), uniform(0, 5, 12), torch.tensor([0, 1, 2, 0, 1])
    options = {"bounds": BOX, "keep": "best", "eps": 0.3}
    together = ascend(net, x, cross_entropy, target=y, **options)
    alone = [
        ascend(net, x[i : i + 1], cross_entropy, target=y[i : i + 1], **options) for i in range(5)
    ]
    torch.testing.assert_close(together, torch.cat(alone))


def test_nothing_else_changes(device):
    net = small_net(0).to(device).requires_grad_(True)
    x = uniform(0, 4, 12).to(device)
    start = uniform(1, 4, 12).to(device)
    x_before, start_before = x.clone(), start.clone()
    for keep in ("last", "best"):
        found = ascend(net, x, start=start, bounds=BOX, keep=keep)
        assert not found.requires_grad
        assert found.device == x.device
    assert torch.equal(x, x_before)
    assert torch.equal(start, start_before)
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("keep", ["last", "best"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_type_of_the_input_stays(keep, dtype):
    found = ascend(small_net(0).to(dtype), uniform(0, 4, 12).to(dtype), keep=keep, bounds=BOX)
    assert found.dtype == dtype


def test_bounds_of_more_digits_do_not_change_the_type_of_the_input():
    x, bounds = uniform(0, 4, 12), (np.full(12, 0.1), np.full(12, 0.9))  # float64
    for z in (x, x.double()):
        net = small_net(0).to(z.dtype)
        assert ascend(net, z, bounds=bounds).dtype == into_box(z, bounds).dtype == z.dtype


def test_of_equal_iterates_the_first_is_best():
    x = torch.tensor([[-0.5], [0.25]])  # a step of 1 leads the first to 0.5
    found = ascend(lambda z: -z.abs(), x, eps=9.0, step_size=1.0, n_steps=1, keep="best")
    assert torch.equal(found, x)


def test_it_runs_where_gradients_are_switched_off():
    net, x = small_net(0), uniform(0, 4, 12)
    with torch.no_grad():
        inside = ascend(net, x, keep="best")
        assert not torch.is_grad_enabled()
    assert torch.equal(inside, ascend(net, x, keep="best"))


@pytest.mark.parametrize("norm", NORMS)
def test_iterates_agree_with_foolbox(norm):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # raised while it is imported
        foolbox = pytest.importorskip("foolbox")
    net, x = small_net(3).eval(), uniform(0, 20, 3, 2, 2)
    y = torch.arange(20) % 3
    model = foolbox.PyTorchModel(net, bounds=BOX, device="cpu")
    attack_class = foolbox.attacks.LinfPGD if norm == np.inf else foolbox.attacks.L2PGD
    attack = attack_class(abs_stepsize=0.05, steps=10, random_start=False)
    expected, _, _ = attack(model, x, y, epsilons=0.3)
    found = ascend(
        net, x, cross_entropy, target=y, norm=norm, eps=0.3, step_size=0.05, n_steps=10, bounds=BOX
    )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_attack_on_a_network_finds_what_a_grid_search_finds():
    # Two inputs: the ball can be searched exhaustively.
    net = small_net(5, d=2)
    x, y = normal(0, 30, 2), torch.arange(30) % 3
    angle, radius = torch.meshgrid(
        torch.linspace(0, 2 * torch.pi, 73), torch.linspace(0, 0.5, 26), indexing="ij"
    )
    grid = torch.stack([radius * angle.cos(), radius * angle.sin()], -1).reshape(-1, 2)
    everywhere = cw_margin(net((x[:, None] + grid).reshape(-1, 2)), y.repeat_interleave(len(grid)))
    highest = everywhere.view(30, -1).amax(1)
    starts = [x + L2Ball(0.5).sample(normal(seed, 30, 4), like=x) for seed in range(5)]
    runs = [ascend(net, x, cw_margin, target=y, start=start, keep="best") for start in starts]
    found = torch.stack([cw_margin(net(z), y) for z in runs]).amax(0)
    torch.testing.assert_close(found, highest, atol=0.01, rtol=0)


def test_linf_ball_without_limit():
    found = ascend(lambda z: z, torch.zeros(2, 1), norm=np.inf, eps=np.inf, step_size=1.0)
    assert torch.equal(found, torch.full((2, 1), 20.0))
    assert isinstance(make_ball(np.inf, np.inf), LinfBall)


@pytest.mark.parametrize(
    "network",
    [
        lambda z: torch.zeros(len(z), 1),
        lambda z: z.detach(),
        lambda z: torch.ones(1, 2, requires_grad=True).expand(len(z), 2),
    ],
    ids=["constant", "detached", "of weights alone"],
)
def test_a_network_without_a_gradient_to_its_input_is_an_error(network):
    # Zero gradients would pass for robustness.
    with pytest.raises(ValueError, match="gradient with respect to its input"):
        ascend(network, uniform(0, 2, 3), n_steps=1)


def test_an_unknown_iterate_is_refused():
    x = torch.zeros(1, 4)
    with pytest.raises(ValueError, match="keep must be 'last' or 'best'. Got 'bset'"):
        projected_gradient(
            lambda z: z, x, x, lambda output, target: output.sum(1),
            ball=L2Ball(1.0), step_size=0.5, n_steps=5, keep="bset",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step_size": float("nan")}, "step_size must be a number of at least 0. Got nan"),
        ({"step_size": -0.1}, "step_size must be a number of at least 0"),
        ({"n_steps": -1}, "n_steps must be at least 0"),
        ({"momentum": 1.0}, "momentum must be at least 0 and below 1"),
        ({"bounds": (1.0, 0.0)}, "low nowhere above high"),
        ({"bounds": (0.0, np.array([1.0, -1.0, 1.0]))}, "low nowhere above high"),
        ({"bounds": (torch.ones(3), torch.zeros(3))}, "low nowhere above high"),
        ({"bounds": (0.0, None)}, "infinite for none"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ascend(lambda z: z, torch.zeros(2, 3), **settings)


def test_inputs_that_have_no_gradient_are_refused():
    with pytest.raises(ValueError, match="x must be of floating point.*torch.int64"):
        ascend(lambda z: z, torch.zeros(2, 3, dtype=torch.int64))


@pytest.mark.parametrize(
    "sides",
    [
        (0, np.ones(3)),
        (np.zeros(3), 1),
        (0.0, torch.ones(3)),
        (torch.zeros(3, dtype=torch.bfloat16), 1),
        (torch.zeros(3), torch.ones(3).requires_grad_()),
    ],
)
def test_a_bound_may_be_a_number_beside_an_array(sides):
    z = torch.tensor([[-1.0, 0.5, 2.0]])
    assert torch.equal(into_box(z, sides), z.clamp(0, 1))
    found = ascend(lambda z: z, z, bounds=sides, eps=np.inf, step_size=1.0)
    assert torch.equal(found, torch.tensor([[1.0, 0.5, 1.0]]))


def test_inference_mode_changes_nothing():
    network, x, target = small_net(0), uniform(0, 4, 12), torch.zeros(4)
    wanted = ascend(network, x, target=target, start=x + 0.1)
    with torch.inference_mode():
        made = x.clone(), target.clone(), x + 0.1
        assert torch.equal(ascend(network, x, target=target, start=x + 0.1), wanted)
    found = ascend(network, made[0], target=made[1], start=made[2])
    assert torch.equal(found, wanted)

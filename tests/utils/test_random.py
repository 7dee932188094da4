"""Seeds and noise: determined by their key alone, and no global generator is touched."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from advfeat.utils._random import (
    draw_seed,
    isolated_torch_seed,
    make_generator,
    make_rng,
    normal_rows,
)

KEYS = [(0,), (1,), (0, 0), (1, 0), (0, 1), (1, 0, 0), (1, 1), (2**31 - 2, 3)]


def test_draw_seed():
    assert draw_seed(5) == draw_seed(5) == draw_seed(np.random.RandomState(5))
    assert draw_seed(5) != draw_seed(6)
    state = np.random.RandomState(5)
    assert draw_seed(state) != draw_seed(state)
    assert isinstance(draw_seed(None), int)
    for wrong in ("5", 1.5):
        with pytest.raises(ValueError, match="cannot be used to seed"):
            draw_seed(wrong)


def test_every_key_has_its_own_stream():
    streams = [
        lambda key: make_rng(*key).integers(2**62),
        lambda key: int(torch.randint(2**62, (), generator=make_generator("cpu", *key))),
        lambda key: float(normal_rows(key, 0, 1, 1)[0, 0]),
    ]
    for first in streams:
        assert len({first(key) for key in KEYS}) == len(KEYS)
        assert [first(key) for key in KEYS] == [first(key) for key in KEYS]


def test_generators_live_on_their_device(device):
    generator = make_generator(device, 3, 1)
    assert generator.device.type == device
    torch.rand(2, device=device, generator=generator)


@given(
    width=st.integers(1, 5),
    cuts=st.lists(st.integers(1, 1199), max_size=8, unique=True),
    begin=st.integers(0, 600),
)
def test_rows_do_not_depend_on_how_they_are_cut(width, cuts, begin):
    key, whole = (7, 2), normal_rows((7, 2), 0, 1200, width)
    edges = [0, *sorted(cuts), 1200]
    parts = [normal_rows(key, a, b, width) for a, b in zip(edges, edges[1:], strict=False)]
    assert whole.shape == (1200, width)
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(normal_rows(key, begin, begin + 1, width)[0], whole[begin])


def test_rows_are_independent_standard_normals():
    rows = normal_rows((0,), 0, 3000, 4)
    assert rows.dtype == np.float32
    for column in rows.T:
        assert stats.kstest(column, "norm").pvalue > 1e-3
    np.testing.assert_allclose(np.corrcoef(rows.T), np.eye(4), atol=0.06)
    lagged = [np.corrcoef(rows[k:, 0], rows[:-k, 0])[0, 1] for k in (1, 2, 16, 256)]
    np.testing.assert_allclose(lagged, 0, atol=0.08)
    assert len(np.unique(rows)) > 0.999 * rows.size


def state_of(device):
    return torch.cuda.get_rng_state() if device == "cuda" else torch.get_rng_state()


def test_isolated_seed_restores_the_global_state(device):
    before = torch.get_rng_state(), state_of(device)
    numpy_before = np.random.get_state()[1].copy()
    with isolated_torch_seed(device, 1, 2):
        torch.rand(3, device=device)
        torch.nn.Linear(2, 2)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.equal(state_of(device), before[1])
    with pytest.raises(KeyError), isolated_torch_seed(device, 1, 2):
        torch.rand(3, device=device)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.equal(state_of(device), before[1])
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)


def test_isolated_seed_determines_the_draws(device):
    def draw(*key):
        with isolated_torch_seed(device, *key):
            return torch.rand(4, device=device).tolist(), torch.rand(4).tolist()

    assert draw(1, 2) == draw(1, 2)
    assert draw(1, 2) != draw(1, 3)
    assert draw(1) != draw(1, 0)
    with torch.random.fork_rng():
        torch.manual_seed(123)
        assert draw(1, 2) == draw(1, 2)


def test_nothing_touches_the_global_states():
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    draw_seed(0)
    make_rng(1).random()
    torch.rand(2, generator=make_generator("cpu", 1))
    normal_rows((1,), 0, 10, 3)
    assert torch.equal(torch.get_rng_state(), torch_before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)

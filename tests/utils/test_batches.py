"""The batch runner: what a job gets, where it runs, in what order its parts are put together."""

import pickle
from dataclasses import dataclass

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from advfeat.utils._batches import Forward, iter_batches, run_batches


@dataclass(frozen=True, eq=False)
class Sums:
    """The position, the sum of each row and its label."""

    factor: float

    def __call__(self, begin, X, y):
        position = begin + np.arange(len(X))
        return position, self.factor * X.sum(1), y


@pytest.fixture
def columns():
    rng = np.random.default_rng(0)
    return rng.normal(size=(23, 3)), rng.integers(5, size=23)


@pytest.mark.parametrize("batch_size", [1, 4, 23, 100])
@pytest.mark.parametrize("n_jobs", [1, None, 2])
def test_parts_are_joined_in_the_order_of_the_rows(columns, batch_size, n_jobs):
    with joblib.parallel_config("threading"):
        found = run_batches(Sums(2.0), columns, batch_size=batch_size, n_jobs=n_jobs)
    X, y = columns
    for a, b in zip(found, (np.arange(23), 2 * X.sum(1), y), strict=True):
        assert_array_equal(a, b)
        assert a.dtype == b.dtype


def test_batches_that_are_done_are_skipped(columns):
    parts = dict(
        iter_batches(Sums(1.0), columns, batch_size=5, skip=lambda begin: begin in (0, 15))
    )
    assert sorted(parts) == [5, 10, 20]
    assert_array_equal(parts[20][0], [20, 21, 22])


def test_parts_come_as_they_are_done_and_rows_are_cut_when_needed(columns):
    class Column:
        cuts = []

        def __len__(self):
            return 23

        def __getitem__(self, rows):
            self.cuts.append(rows.start)
            return columns[0][rows]

    parts = iter_batches(Sums(1.0), (Column(), columns[1]), batch_size=5)
    assert next(parts)[0] == 0
    assert Column.cuts == [0]


def test_a_task_carries_its_own_rows_only():
    X, y = np.zeros((10000, 50)), np.zeros(10000)
    sizes = []

    class Weighed(Sums):
        def __call__(self, begin, X, y):
            sizes.append(len(pickle.dumps(Sums(self.factor))) + len(pickle.dumps((X, y))))
            return super().__call__(begin, X, y)

    run_batches(Weighed(1.0), (X, y), batch_size=100)
    assert len(sizes) == 100
    assert sum(sizes) < 1.02 * (X.nbytes + y.nbytes)


def test_forward_keeps_the_dtype_and_scales_images():
    job = Forward(lambda x: 2 * x, torch.device("cpu"), torch.float64)
    (found,) = job(0, np.full((2, 1, 2, 2), 255, dtype=np.uint8))
    assert found.dtype == np.float64
    assert_array_equal(found, np.full((2, 1, 2, 2), 2.0))


def test_an_error_in_a_batch_reaches_the_caller(columns):
    def job(begin, X, y):
        if begin == 10:
            raise RuntimeError("the third batch")
        return (X,)

    with joblib.parallel_config("threading"):
        for n_jobs in (1, 2):
            with pytest.raises(RuntimeError, match="the third batch"):
                run_batches(job, columns, batch_size=5, n_jobs=n_jobs)

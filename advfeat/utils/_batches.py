"""The one place where work is done batch by batch, in parallel if asked, with a progress bar.

A *job* is the work on one batch: a small frozen dataclass that holds the network and the settings
but none of the data. It is called as ``job(begin, *rows)``, where ``rows`` are the batch's rows of
each column (X, labels, starts, ...) and ``begin`` is the position of the first one in the data
set, which is what its noise is drawn from; it returns a tuple of arrays with one row per sample.
So a task carries its own rows to a worker and no others.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch

from advfeat.utils._checks import batch_tensor
from advfeat.utils._device import autocast
from advfeat.utils._progress import progress_bar
from advfeat.utils._workers import run_tasks

# Rows that a prediction takes at once. It does not follow a classifier's batch_size, which is that
# of training: predictions need less memory, and changing it must not change them by rounding.
PREDICTION_BATCH = 256


def iter_batches(job, columns, *, batch_size, n_jobs=1, desc=None, verbose=0, skip=None):
    """Yield ``(begin, part)`` for every batch, as soon as it is done.

    Batches are cut here and noise is drawn from positions, so the parts do not depend on
    ``n_jobs`` nor on the backend; only their order does.

    Parameters
    ----------
    job : callable
        See the module. Picklable if it is to run in other processes.
    columns : tuple of sequences
        Each has one row per sample and is cut by ``column[begin:stop]`` when its turn comes.
    batch_size : int
        Rows of a batch.
    n_jobs : int or None, default=1
        1 works in this process. Everything else goes to joblib's backend: None is one job, or
        what ``joblib.parallel_config`` says.
    desc : str, optional
        Of the progress bar.
    verbose : int, default=0
    skip : callable, optional
        ``skip(begin)`` says whether the batch that begins there is already done.

    Yields
    ------
    begin : int
    part : tuple of ndarray
    """
    n, batch_size = len(columns[0]), int(batch_size)  # small integers of NumPy overflow
    begins = [i for i in range(0, n, batch_size) if skip is None or not skip(i)]

    def cut(begin):
        return tuple(column[begin : begin + batch_size] for column in columns)

    sizes = {begin: min(batch_size, n - begin) for begin in begins}
    with (
        progress_bar(total=n, desc=desc, unit="sample", verbose=verbose) as bar,
        closing(run_tasks(job, begins, cut, n_jobs)) as results,
    ):
        bar.update(n - sum(sizes.values()))
        for begin, part in results:
            bar.update(sizes[begin])
            yield begin, part


def run_batches(job, columns, **settings):
    """Join the parts of all batches; everything as in `iter_batches`.

    Returns
    -------
    tuple of ndarray
        One row per sample each.
    """
    n, whole = len(columns[0]), None
    with closing(iter_batches(job, columns, **settings)) as parts:
        for begin, part in parts:
            if whole is None:
                whole = tuple(np.empty((n, *rows.shape[1:]), rows.dtype) for rows in part)
            for target, rows in zip(whole, part, strict=True):
                target[begin : begin + len(rows)] = rows
    return whole


@dataclass(frozen=True, eq=False)
class Forward:
    """The job of applying a network, without gradients.

    Parameters
    ----------
    function : callable
        From a batch of inputs in input units to a tensor with one row for each.
    device : torch.device
        Where it computes.
    dtype : torch.dtype
        In which to compute.
    """

    function: Callable
    device: torch.device
    dtype: torch.dtype = torch.float32

    def __call__(self, begin, X):
        """Apply the network to rows X."""
        with torch.no_grad(), autocast(self.device, "fp32"):
            found = self.function(batch_tensor(X, self.device).to(self.dtype)).detach()
            # Half precision of a network's own is no dtype of NumPy's.
            found = found if found.dtype == torch.float64 else found.float()
            return (found.cpu().numpy(),)

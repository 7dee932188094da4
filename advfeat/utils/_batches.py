"""Work on a data set batch by batch, in parallel if asked, with a progress bar."""

import numpy as np
from joblib import Parallel, delayed

from advfeat.utils._progress import progress_bar


def run_batches(work, n, *, batch_size, n_jobs, desc, verbose):
    """Run ``work(start, stop)`` over batches; join the arrays that it returns.

    Batches are cut here and all randomness is drawn before, so the result does not depend on
    ``n_jobs``.

    Parameters
    ----------
    work : picklable callable
        Returns a tuple of arrays with one row per sample.
    n : int
        Number of samples.
    batch_size, n_jobs : int
        As in the public functions; ``n_jobs`` goes to joblib.
    desc : str
        Of the bar.
    verbose : int

    Returns
    -------
    tuple of ndarray
    """
    parallel = Parallel(n_jobs=n_jobs, return_as="generator")
    tasks = (delayed(work)(i, min(i + batch_size, n)) for i in range(0, n, batch_size))
    parts = []
    with progress_bar(total=n, desc=desc, unit="sample", verbose=verbose) as bar:
        for part in parallel(tasks):
            parts.append(part)
            bar.update(len(part[0]))
    return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))

"""Work on a data set batch by batch, in parallel if asked, with a progress bar."""

import numpy as np
from joblib import Parallel, delayed

from advfeat.utils._progress import progress_bar


def run_batches(work, n, *, batch_size, n_jobs, desc, verbose, shards=None):
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
    shards : Shards, optional
        Where finished batches are kept, and those of an earlier run are found.

    Returns
    -------
    tuple of ndarray
    """
    cuts = [(i, min(i + batch_size, n)) for i in range(0, n, batch_size)]
    parts = {begin: None for begin, _ in cuts}
    open_cuts = [cut for cut in cuts if shards is None or not shards.holds(cut[0])]
    parallel = Parallel(n_jobs=n_jobs, return_as="generator")
    found = parallel(delayed(work)(*cut) for cut in open_cuts)
    with progress_bar(total=n, desc=desc, unit="sample", verbose=verbose) as bar:
        bar.update(n - sum(stop - begin for begin, stop in open_cuts))
        for (begin, stop), part in zip(open_cuts, found, strict=True):
            if shards is None:
                parts[begin] = part
            else:
                shards.put(begin, part)
            bar.update(stop - begin)
    if shards is not None:
        parts = {begin: shards.get(begin) for begin in parts}
    return tuple(np.concatenate(columns) for columns in zip(*parts.values(), strict=True))

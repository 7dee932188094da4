"""Progress bars: silent for short work, with an ETA for long work."""

from tqdm.auto import tqdm


def progress_bar(*, total, desc, unit, verbose):
    """Make a tqdm bar on stderr; it appears only once the work has taken two seconds."""
    return tqdm(
        total=total, desc=desc, unit=unit, delay=2, disable=not verbose, dynamic_ncols=True
    )

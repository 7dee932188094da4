"""Progress bars: silent for short work, with an ETA for long work."""

import sys
import threading
import weakref

from tqdm.auto import tqdm


class _Bar(tqdm):
    """Bars with a lock of their own: tqdm's would settle how processes are started."""

    _instances: weakref.WeakSet = weakref.WeakSet()  # which the lock is for


_Bar.set_lock(threading.RLock())


def progress_bar(*, total, desc, unit, verbose):
    """Make a tqdm bar on stderr; it appears only once the work has taken two seconds."""
    silent = not verbose or sys.stderr is None  # which pythonw, for one, does not have
    return _Bar(total=total, desc=desc, unit=unit, delay=2, disable=silent, dynamic_ncols=True)

"""Memory of a process that computes for hours on a CPU."""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


def keep_freed_memory():
    """Make glibc keep freed blocks for the next step, and say whether it does.

    By default it gives large blocks back to the system after every step and takes them anew, page
    by page: up to a third of the time of training a ResNet. Elsewhere nothing is changed.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_M_MMAP_MAX, 0) and libc.mallopt(_M_TRIM_THRESHOLD, -1))

"""Waiting, for a bounded time, for what other threads or processes do."""

import time


def wait_for(condition, seconds=120):
    """Return as soon as the condition holds; fail if it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it did not happen within {seconds} seconds"
        time.sleep(0.01)

"""Kinds of arguments that the command lines share."""

import argparse
import math


def positive(text):
    """Return a number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text}")
    return value


def minutes(text):
    """Return a length of time: a number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"expected a number of minutes, at least 0, got {text}")
    return value

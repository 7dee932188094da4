"""Kinds of arguments that the command lines share."""

import argparse


def positive(text):
    """Return a number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text}")
    return value

"""Jobs for workers: some die on the way."""

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(frozen=True, eq=False)
class Sums:
    """Sum of each row; weighs as much as a network."""

    weights: np.ndarray

    def __call__(self, begin, X):
        return (X.sum((1, 2)),)


@dataclass(frozen=True, eq=False)
class Killing:
    """Kills its worker at row 30, either once or always; other batches take a moment."""

    marker: Path
    always: bool = False

    def __call__(self, begin, X):
        if begin == 30 and (self.always or not self.marker.exists()):
            self.marker.touch()
            time.sleep(0.5)  # the others that have begun are done
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.05)
        return (2 * X,)


def failing(begin, X):
    if begin == 20:
        raise ArithmeticError("no such number")
    return (X,)


@dataclass(frozen=True, eq=False)
class Counting:
    """Counts the files of rows that joblib keeps in a folder."""

    folder: Path

    def __call__(self, begin, X):
        files = [path for path in self.folder.rglob("*.pkl") if path.is_file()]
        return (np.full(len(X), len(files)),)


def process_of(begin, X):
    """Which process works on a task; long enough for each to get some."""
    time.sleep(0.05)
    return (np.full(len(X), os.getpid()),)


@dataclass(frozen=True, eq=False)
class Parting:
    """Rows of a batch, which kill the worker that hands them over: always, or up to a file."""

    X: np.ndarray
    parent: int
    marker: Path
    always: bool

    def __reduce__(self):
        if os.getpid() != self.parent and (self.always or not self.marker.exists()):
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return np.array, (self.X,)


@dataclass(frozen=True, eq=False)
class KillingLater:
    """Kills its worker as that hands over the batch at row 30, either once or always."""

    marker: Path
    always: bool = False
    parent: int = field(default_factory=os.getpid)

    def __call__(self, begin, X):
        if begin != 30:
            return (2 * X,)
        if self.marker.exists():
            time.sleep(3)  # it is seen that the batch is done again
        return (Parting(2 * X, self.parent, self.marker, self.always),)


def late(begin, X):
    """Work that itself runs out of time."""
    raise TimeoutError("the network took too long")

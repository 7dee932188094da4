"""Jobs for workers: some die on the way."""

import os
import signal
import time
from dataclasses import dataclass
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

"""Types that the signatures of several packages share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeAlias, Union

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin
from torch import nn
from torch.utils.data import Dataset

# Arrays, memory maps, tensors, data frames; or a map-style torch Dataset.
Inputs: TypeAlias = Union[ArrayLike, Dataset]  # noqa: UP007, evaluated on Python 3.10 as well
RandomState: TypeAlias = Union[int, np.random.RandomState, None]  # noqa: UP007
Bounds: TypeAlias = Union[str, tuple[ArrayLike, ArrayLike], None]  # noqa: UP007
# Resolved: numbers, or arrays that are broadcastable to one sample.
Box: TypeAlias = Union[tuple[ArrayLike, ArrayLike], None]  # noqa: UP007
Device: TypeAlias = Union[str, torch.device]  # noqa: UP007
# A name, an nn.Module or what makes one, or a classifier of `from_torch`.
Network: TypeAlias = Union[str, Callable[..., nn.Module], ClassifierMixin]  # noqa: UP007
PathOrStr: TypeAlias = Union[str, os.PathLike]  # noqa: UP007

"""Types that the signatures of several packages share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin
from torch import nn
from torch.utils.data import Dataset

# Arrays, memory maps, tensors, data frames; or a map-style torch Dataset.
Inputs: TypeAlias = ArrayLike | Dataset
RandomState: TypeAlias = int | np.random.RandomState | None
Bounds: TypeAlias = str | tuple[ArrayLike, ArrayLike] | None
# Resolved: numbers, or arrays that are broadcastable to one sample.
Box: TypeAlias = tuple[ArrayLike, ArrayLike] | None
Device: TypeAlias = str | torch.device
# A name, an nn.Module or what makes one, or a classifier of `from_torch`.
Network: TypeAlias = str | Callable[..., nn.Module] | ClassifierMixin
PathOrStr: TypeAlias = str | os.PathLike

"""Data-parallel training: the processes of torch.distributed share every batch."""

import contextlib
import re
from numbers import Real

import numpy as np
import torch
import torch.distributed as dist
from skorch.callbacks import LRScheduler, ParamMapper
from torch.nn.parallel import DistributedDataParallel

from advfeat.classifiers._user_modules import name_of
from advfeat.utils._arrays import as_array
from advfeat.utils._errors import first_line
from advfeat.utils._fingerprint import fingerprint
from advfeat.utils._random import draw_seed

# Parameters that may differ: the first rank's seed is taken, networks are compared as built, and
# callbacks of one rank may log; those that set rates or freeze weights are compared.
_FREE = {"network", "device", "verbose", "random_state", "callbacks"}
_TRAINING = LRScheduler, ParamMapper


class Ranks:
    """The processes that train together: one, unless torch.distributed is initialised.

    Every rank cuts the same batches with the same noise from the same data, as one process would,
    and works on its share of each. Gradients are averaged by DistributedDataParallel.
    """

    def __init__(self):
        together = dist.is_available() and dist.is_initialized()
        self.size = dist.get_world_size() if together else 1
        self.rank = dist.get_rank() if together else 0
        self.module = None

    def __getstate__(self):
        return {**vars(self), "module": None}

    @contextlib.contextmanager
    def training(self, net):
        """Hold what several processes call in training steps in place of the net's module."""
        if self.size > 1:
            unused = not getattr(net, "uses_all_parameters_", True)
            self.module = DistributedDataParallel(net.module_, find_unused_parameters=unused)
        try:
            yield
        finally:
            self.module = None

    def share(self, n):
        """Part of a batch of n samples that this rank works on.

        A batch too small to give each rank two samples is not shared: all work on all of it.
        """
        if self.size == 1 or n < 2 * self.size:
            return slice(0, n)
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def scaled(self, loss, n_share, n):
        """Mean loss of a share, such that the mean over the ranks is that of the batch."""
        return loss if n_share == n else loss * (n_share * self.size / n)

    def joined(self, module, loss, logits, n):
        """Loss and logits of the whole batch; running statistics become the ranks' mean."""
        if self.size == 1:
            return loss, logits
        loss = loss.detach()
        means = [loss, *(b for b in module.buffers() if b.is_floating_point())]
        flat = torch.cat([tensor.reshape(-1).float() for tensor in means])
        dist.all_reduce(flat)
        flat = flat / self.size
        for tensor, mean in zip(means, flat.split([t.numel() for t in means]), strict=True):
            tensor.copy_(mean.view_as(tensor))
        if len(logits) < n:
            whole = logits.new_zeros(n, logits.shape[1])
            whole[self.share(n)] = logits.detach()
            dist.all_reduce(whole)
            logits = whole
        return loss, logits

    def agreed(self, value):
        """Give all ranks the first one's value."""
        return self._all(value)[0] if self.size > 1 else value

    def begin(self, estimator, goes_on, draws=True):
        """Check the parameters, and give the first rank's seed for the training.

        Parameters
        ----------
        estimator : StandardClassifier
        goes_on : bool
            Whether it begins with what an earlier training has left.
        draws : bool, default=True
            Whether it needs a new seed; else None is given.

        Raises
        ------
        ValueError
            For parameters that one of the ranks refuses, or if some were trained and some not.
        """
        with self.preparing():
            if self.size > 1:
                estimator._check_params()
            seed = draw_seed(estimator.random_state) if draws else None
        found = self._all((seed, goes_on)) if self.size > 1 else [(seed, goes_on)]
        if len({trained for _, trained in found}) > 1:
            raise ValueError(
                "Some of the processes that train together go on from an earlier training, and "
                "some do not: fit, or load, the classifier on all of them."
            )
        return found[0][0]

    def any(self, flag):
        """Whether the flag is true on some rank."""
        return any(self._all(bool(flag))) if self.size > 1 else flag

    @contextlib.contextmanager
    def preparing(self):
        """Raise on every rank what one rank raises before the training: no other waits for it."""
        failure = None
        try:
            yield
        except Exception as error:
            failure = error
        if self.size > 1:
            told = self._all(failure and f"{type(failure).__name__}: {first_line(failure)}")
            if failure is None and any(told):
                rank = next(i for i, text in enumerate(told) if text)
                raise ValueError(
                    f"Rank {rank} of the {self.size} processes that train together could not "
                    f"begin. {told[rank]}"
                )
        if failure is not None:
            raise failure

    def check_same(self, estimator, data, net, goes_on):
        """Raise a ValueError on every rank unless all have the same data, settings and network.

        Parameters
        ----------
        estimator : StandardClassifier
        data : ArrayDataset
        net : TrainingNet
            Ready to be trained.
        goes_on : bool
            Whether it was trained before, so that its weights and momentum must be the same too;
            new weights, which a network may draw from elsewhere, are those of the first rank.
        """
        if self.size == 1:
            return
        with self.preparing():
            own = _decisive(estimator, data, net, goes_on)
        found = self._all(own)
        names = dict.fromkeys(name for each in found for name in each)
        different = [
            name for name in names if any(each.get(name) != own.get(name) for each in found)
        ]
        if different:
            raise ValueError(
                f"The {self.size} processes that train together must have the same data and "
                f"parameters. They differ in: {', '.join(different)}. Give every rank the whole "
                "data set (each works on its share of every batch), in the same order."
            )

    def _all(self, value):
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values


def _decisive(estimator, data, net, goes_on):
    """Gather what all ranks must have alike, by name."""
    parts = {
        "X": (data.source,) if data.rows is None else (data.source, data.rows),
        "y": (data.y,),
        "sample_weight": (data.sample_weight,),
    }
    own = {name: [fingerprint(array) for array in arrays] for name, arrays in parts.items()}
    settings = estimator.get_params(deep=False)
    own |= {name: _told(value) for name, value in settings.items() if name not in _FREE}
    own |= {
        "class": type(estimator).__name__,
        "classes": repr(estimator.classes_.tolist()),
        "callbacks": [name_of(type(c)) for _, c in net.callbacks_ if isinstance(c, _TRAINING)],
        "network": [(n, tuple(p.shape)) for n, p in net.module_.named_parameters()],
        "attack": _told(getattr(net, "attack", None)),
        "earlier training": None,
    }
    if goes_on:
        momenta = [s.get("momentum_buffer") for s in net.optimizer_.state.values()]
        held = [*net.module_.parameters(), *(m for m in momenta if m is not None)]
        weights = [fingerprint(as_array(tensor)) for tensor in held]
        own["earlier training"] = [net.seed, len(net.history), weights]
    return own


def _told(value):
    """Text of a setting, the same for equal ones; of arrays, such as bounds, of all values."""
    if isinstance(value, dict):
        return repr(sorted((_told(name), _told(part)) for name, part in value.items()))
    if isinstance(value, (list, tuple)):
        return repr([_told(part) for part in value])
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return fingerprint(as_array(value))
    if isinstance(value, Real):
        return repr(float(value))
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))

"""Training batches: cut from the data set, augmented, on the device."""

import numpy as np
import torch

from advfeat.classifiers._augmentation import augment
from advfeat.utils._random import make_generator, make_rng


class TrainingBatch(tuple):
    """(x, y), as skorch and its callbacks expect a batch, with the sample weights besides."""

    def __new__(cls, x, y, weight):
        batch = super().__new__(cls, (x, y))
        batch.weight = weight
        return batch


class BatchIterator:
    """Batches on the device.

    Those for training are shuffled, every pass in its own random order, and augmented.
    """

    def __init__(self, dataset, *, batch_size, training, seed, first_epoch, augmentation, device):
        self.dataset = dataset
        source = dataset.source
        self.source = dataset.source_on(device) if isinstance(source, np.ndarray) else None
        self.batch_size = batch_size
        self.training = training
        self.seed = seed
        self.epoch = first_epoch
        self.augmentation = augmentation
        self.device = device

    def __len__(self):
        return n_batches(len(self.dataset), self.batch_size)

    def __iter__(self):
        epoch, self.epoch = self.epoch, self.epoch + 1
        data = self.dataset
        order = np.arange(len(data))
        if self.training:
            order = make_rng(self.seed, epoch, 0).permutation(len(data))
            generator = make_generator(self.device, self.seed, epoch, 1)
        # A last batch of one sample has no batch-norm statistics; it joins the one before.
        cuts = [i * self.batch_size for i in range(len(self))] + [len(data)]
        for start, stop in zip(cuts[:-1], cuts[1:], strict=True):
            positions = np.sort(order[start:stop])  # reading a memory map in order is faster
            x = data.inputs(positions, self.device, self.source)
            if self.training:
                x = augment(x, self.augmentation, generator)
            y = torch.from_numpy(data.y[positions]).to(self.device)
            weight = torch.from_numpy(data.sample_weight[positions]).to(self.device)
            yield TrainingBatch(x, y, weight)


def n_batches(n, batch_size):
    """Batches per epoch, where a last batch of one sample joins the one before."""
    full, rest = divmod(n, int(batch_size))  # small integers of NumPy overflow
    return max(1, full + (rest > 1))

"""Training and evaluation mode of the layers, step by step."""

import numpy as np
import pytest
from skorch.callbacks import Callback
from torch import nn

from advfeat import AdversarialClassifier, StandardClassifier


class Gate(nn.Module):
    """Counts on `train` being called, as layers do that merge weights or switch noise on."""

    def __init__(self):
        super().__init__()
        self.open = False
        self.seen = set()

    def train(self, mode=True):
        self.open = mode
        return super().train(mode)

    def forward(self, x):
        self.seen.add((self.training, self.open))
        return x


def the(kind, module):
    """The one layer of a kind."""
    (layer,) = (layer for layer in module.modules() if isinstance(layer, kind))
    return layer


@pytest.mark.parametrize("kind", [StandardClassifier, AdversarialClassifier])
def test_modes_are_set_at_every_step(kind):
    """Whatever callbacks and layers do to the modes between the steps."""
    X = np.random.default_rng(0).random((60, 1, 8, 8), dtype=np.float32)
    y = np.arange(60) % 3

    class Meddling(Callback):
        def on_batch_end(self, net, training=False, **kwargs):
            norm = the(nn.BatchNorm1d, net.module_).eval()
            seen.append(norm.num_batches_tracked.item())

    seen = []

    def network(input_shape, n_classes):
        return nn.Sequential(nn.Flatten(), Gate(), nn.BatchNorm1d(64), nn.Linear(64, n_classes))

    clf = kind(
        network, max_epochs=2, batch_size=20, callbacks=[Meddling()], bounds=(0, 1),
        random_state=0, verbose=0,
    ).fit(X, y)  # fmt: skip
    assert seen == [1, 2, 3, 4, 5, 6]
    clf.predict(X)
    assert the(Gate, clf.module_).seen == {(True, True), (False, False)}

"""Training and evaluation mode of the layers, step by step."""

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from torch import nn

from advfeat import AdversarialClassifier, StandardClassifier, from_torch, load, save


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


class Merged(nn.Linear):
    """A low-rank update of the weight, which eval mode adds to it and training mode takes away."""

    def __init__(self):
        super().__init__(4, 3)
        self.weight.requires_grad_(False)
        self.bias.requires_grad_(False)
        self.a, self.b = nn.Parameter(torch.randn(3, 1)), nn.Parameter(torch.randn(1, 4))
        self.merged = False

    def train(self, mode=True):
        super().train(mode)
        if self.merged is mode:
            self.weight.data += (-1 if mode else 1) * (self.a @ self.b).detach()
            self.merged = not mode
        return self

    def forward(self, x):
        logits = super().forward(x)
        return logits if self.merged else logits + x @ (self.a @ self.b).T


@pytest.mark.parametrize("mode", [True, False])
def test_weights_that_eval_mode_merges(mode, tmp_path):
    X = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    y = np.arange(30) % 3
    torch.manual_seed(0)
    module = Merged().train(mode)
    expected = module(torch.from_numpy(X)).detach()
    clf = from_torch(module, classes=range(3), input_shape=(4,))
    np.testing.assert_allclose(clf.decision_function(X), expected, atol=1e-5)
    save(clf, tmp_path / "a.safetensors")
    again = load(tmp_path / "a.safetensors", network=Merged().train(mode))
    assert np.array_equal(again.decision_function(X), clf.decision_function(X))
    # Only what is not merged has a gradient.
    settings = {"max_epochs": 3, "random_state": 0, "verbose": 0}
    fitted = StandardClassifier(module, **settings).fit(X, y)
    assert not np.allclose(fitted.decision_function(X), expected, atol=1e-3)
    np.testing.assert_allclose(module.train(mode)(torch.from_numpy(X)).detach(), expected)

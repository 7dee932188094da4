"""What a call holds in memory beside its data, as tracemalloc sees it: NumPy's arrays."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from torch import nn

from advfeat import RobustFeatureInverter, from_torch, transfer_rate
from advfeat.attacks import attackable

N, N_CLASSES = 20_000, 500


@pytest.fixture
def many_classes():
    """A classifier whose logits take much more than its data: 40 MB."""
    network = nn.Linear(4, N_CLASSES)
    return from_torch(network, classes=range(N_CLASSES), input_shape=(4,), bounds=None)


def peak_of(call):
    """What the call returns, and the most bytes that it held."""
    tracemalloc.start()
    try:
        return call(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_predictions_and_scores_do_not_hold_all_logits(many_classes):
    X = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
    with torch.no_grad():
        y = many_classes.module_(torch.from_numpy(X)).argmax(1).numpy()
    said, held = peak_of(lambda: many_classes.predict(X))
    np.testing.assert_array_equal(said, y)
    assert held < 4e6
    score, held = peak_of(lambda: many_classes.score(X, y))
    assert score == 1
    assert held < 4e6


def test_transfers_do_not_hold_all_logits(many_classes):
    X = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
    y = many_classes.predict(X)
    settings = {"norm": 2, "eps": 0.0, "n_steps": 1, "verbose": 0}
    rate, held = peak_of(lambda: transfer_rate(many_classes, many_classes, X, y, **settings))
    assert np.isnan(rate)
    assert held < 8e6


def test_a_pipeline_is_attacked_on_bytes_without_a_second_copy_of_them():
    X = np.random.default_rng(0).integers(0, 256, (12_000, 3, 16, 16), dtype=np.uint8)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 256, 2))
    source = from_torch(network, classes=[0, 1], input_shape=(3, 16, 16))
    inverter = RobustFeatureInverter(source, n_steps=1, verbose=0)
    inverter.fit(X[:10], np.arange(10) % 2)
    view, held = peak_of(lambda: attackable(make_pipeline(inverter, source), X))
    assert not view.moved
    assert held < (4 + 2) * X.nbytes  # images in [0, 1], and parts


@pytest.mark.long  # it starts an interpreter
def test_an_import_does_without_torchvision():
    """Which takes a second and 150 MB, also in each worker."""
    code = "import sys, advfeat, advfeat.datasets; print('torchvision' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"

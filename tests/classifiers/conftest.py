"""Fixtures that the tests of this folder share."""

import copy

import pytest
import torch
from torch import nn

from advfeat import (
    from_torch,
    save,
)


@pytest.fixture(scope="module")
def trained(digits):
    """Network trained by a plain torch loop on normalised images, its mean and its std."""
    X, y, _, _ = digits
    mean, std = float(X.mean()), float(X.std())
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2),
        nn.Linear(288, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip
    x, labels = torch.from_numpy((X - mean) / std).float(), torch.from_numpy(y)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(30):
        for rows in torch.randperm(len(x)).split(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), labels[rows]).backward()
            optimizer.step()
    return net, mean, std


@pytest.fixture(scope="module")
def clf(trained):
    net, mean, std = trained
    return from_torch(net, mean=mean, std=std, classes=range(10), input_shape=(1, 8, 8))


@pytest.fixture
def unchanged(trained):
    """Fails if the test changes the network in any way."""
    net, _, _ = trained
    before = copy.deepcopy(net.state_dict())
    modes = [layer.training for layer in net.modules()]
    yield net
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert [layer.training for layer in net.modules()] == modes
    assert all(p.requires_grad and p.grad is not None for p in net.parameters())
    for layer in net.modules():
        assert not layer._forward_hooks and not layer._forward_pre_hooks


@pytest.fixture
def path(tmp_path):
    return tmp_path / "source.safetensors"


@pytest.fixture
def kept(standard, path):
    save(standard, path)
    return path

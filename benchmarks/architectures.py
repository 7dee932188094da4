"""Small relatives of the paper's architectures, for CPUs, from torchvision's parts.

All have batch-norm, which is held fixed when architectures are compared.
"""

from torch import nn
from torchvision.models import DenseNet, vgg
from torchvision.models.googlenet import BasicConv2d, Inception


def small_vgg(in_channels, n_classes):
    """VGG with four convolutions."""
    layers = vgg.make_layers([32, "M", 64, "M", 128, 128, "M"], batch_norm=True)
    layers[0] = nn.Conv2d(in_channels, 32, 3, padding=1)
    return nn.Sequential(layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, n_classes))


def small_densenet(input_shape, n_classes):
    """DenseNet with three blocks of three layers."""
    net = DenseNet(
        growth_rate=16,
        block_config=(3, 3, 3),
        num_init_features=32,
        bn_size=2,
        num_classes=n_classes,
    )
    channels, height, _ = input_shape
    stride = 1 if height < 16 else 2
    net.features.conv0 = nn.Conv2d(channels, 32, 3, stride, padding=1, bias=False)
    net.features.pool0 = nn.Identity()
    return net


def small_inception(input_shape, n_classes):
    """GoogLeNet with three inception blocks."""
    channels, height, _ = input_shape
    stride = 1 if height < 16 else 2
    return nn.Sequential(
        BasicConv2d(channels, 32, kernel_size=3, stride=stride, padding=1),
        Inception(32, 16, 16, 32, 8, 16, 16),
        nn.MaxPool2d(2),
        Inception(80, 32, 32, 64, 8, 16, 16),
        nn.MaxPool2d(2),
        Inception(128, 48, 48, 96, 16, 32, 32),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(208, n_classes),
    )

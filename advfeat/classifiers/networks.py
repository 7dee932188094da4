"""Architectures, from torchvision where it has them, adapted to small images.

Every network is wrapped in `Network`, which takes inputs in input units (images in [0, 1]) and
normalises them itself, so that ``eps`` keeps its meaning. torchvision is imported where it is
needed: it takes longer to import than all else here.
"""

import difflib
import math

import torch
from torch import nn

from advfeat.classifiers._user_modules import (
    build_body,
    check_logits,
    gradients_of,
    name_of,
)
from advfeat.optim._copying import copy_network, make_picklable
from advfeat.utils._random import draws_given_back

_SMALL = 96  # images with a shorter side than this get a stem without downsampling


class Network(nn.Module):
    """Input normalisation followed by an architecture; returns logits.

    Parameters
    ----------
    body : nn.Module
        Maps normalised inputs to logits of shape (n, n_classes).
    mean, std : tensor, broadcastable to one sample
        What the inputs are normalised by, in input units.
    order : tensor of shape (n_classes,), optional
        The body's output for each class, where they are in another order.
    """

    def __init__(self, body, mean, std, order=None):
        super().__init__()
        make_picklable(body)
        self.body = body
        self.register_buffer("order", order)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x):
        """Logits of shape (n, n_classes) for x in input units."""
        logits = self.body((x - self.mean) / self.std)
        return logits if self.order is None else logits[:, self.order]


def build_network(network, input_shape, n_classes, mean, std, order=None):
    """Build an untrained network for samples of the given shape.

    Parameters
    ----------
    network : str, nn.Module class, function or nn.Module
        A name of `NETWORKS`, "auto", or what `build_body` takes.
    input_shape : tuple
        (d,) or (C, H, W).
    n_classes : int
        Number of logits.
    mean, std, order
        See `Network`.

    Returns
    -------
    Network

    Raises
    ------
    ValueError
        If the name is unknown, or the network does not fit the data.
    """
    if isinstance(network, str):
        body = _build_named(network, input_shape, n_classes)
    else:
        body = build_body(network, input_shape, n_classes)
    module = Network(body, mean, std, order)
    _check_logits(module, network, input_shape, n_classes)
    return module


def check_network_name(network):
    """Raise a ValueError that suggests the nearest name unless the network is known."""
    if not isinstance(network, str):
        return
    names = ["auto", *NETWORKS]
    if network not in names:
        near = difflib.get_close_matches(network.lower(), names, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"The 'network' parameter must be one of {names} or an nn.Module class. "
            f"Got {network!r} instead; did you mean {near!r}?"
        )


def resolve_name(name, input_shape):
    """Name of the network that "auto" stands for; every other name as it is."""
    if name != "auto":
        return name
    if len(input_shape) == 1:
        return "mlp"
    return "small_cnn" if min(input_shape[1:]) < 16 else "small_resnet"


def _build_named(name, input_shape, n_classes):
    check_network_name(name)
    name = resolve_name(name, input_shape)
    if len(input_shape) == 1 and name != "mlp":
        raise ValueError(
            f"network={name!r} needs images of shape (n, C, H, W), got (n, {input_shape[0]}). "
            "Reshape X, or use network='mlp'."
        )
    # Faster on CPUs and GPUs. Modules from elsewhere stay as they are: theirs may rely on strides.
    return NETWORKS[name](input_shape, n_classes).to(memory_format=torch.channels_last)


def _check_logits(module, network, input_shape, n_classes):
    what = f"network={name_of(network)}"
    check_logits(module, input_shape, n_classes, what)
    if not any(weight.requires_grad for weight in module.parameters()):
        raise ValueError(f"{what} has no parameter to train: none requires a gradient.")


def check_trainable(module, network, *, input_shape, n_classes, n, device, needs_gradient):
    """Raise a ValueError unless a copy of the module makes a training step on n samples.

    Parameters
    ----------
    module : nn.Module
        Initialised; it stays as it is.
    network : str or callable
        As the user named it.
    input_shape : tuple
        (d,) or (C, H, W).
    n_classes, n : int
        Number of logits, and of samples in the smallest batch.
    device : str or torch.device
        Where the module is.
    needs_gradient : bool
        Whether the input has to get a gradient, as in adversarial training.

    Returns
    -------
    bool
        Whether all parameters get a gradient.
    """
    what = f"network={name_of(network)}"
    device = torch.device(device)
    trial = copy_network(module).train()  # batch-norm statistics stay as they are
    x = torch.zeros(n, *input_shape, device=device, dtype=torch.float32, requires_grad=True)
    try:
        with draws_given_back(device):  # of dropout
            output = trial(x.clone())
    except Exception as error:  # whatever the network's own code raises
        hint = ""
        if n == 1:
            hint = " Batch-norm cannot train on batches of one sample: use a larger batch_size."
        raise ValueError(
            f"{what} failed in training mode on {n} sample(s) of shape "
            f"{tuple(input_shape)}: {error}{hint}"
        ) from error
    if not isinstance(output, torch.Tensor) or output.shape != (n, n_classes):
        found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise ValueError(
            f"In training mode {what} must return logits of shape "
            f"(n, {n_classes}), as a tensor. For {n} sample(s) it returned {found}; switch "
            "further outputs off (aux_logits=False in torchvision)."
        )
    trained = [parameter for parameter in trial.parameters() if parameter.requires_grad]
    gradients = gradients_of(output, [x, *trained], what)
    if all(gradient is None for gradient in gradients[1:]):
        raise ValueError(f"{what} cannot be trained: its logits have no gradient.")
    if needs_gradient:  # as attacks take it, in eval mode
        gradients_of(trial.eval()(x.clone()), [x], what)
    if needs_gradient and gradients[0] is None:
        raise ValueError(
            f"{what} passes no gradient to its input, which adversarial "
            "training needs. Look for detach(), no_grad() or integer steps in its forward, or use "
            "StandardClassifier."
        )
    return all(gradient is not None for gradient in gradients[1:])


def _mlp(input_shape, n_classes):
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(input_shape), 128),
        nn.ReLU(),
        nn.Linear(128, 128),
        nn.ReLU(),
        nn.Linear(128, n_classes),
    )


def _small_cnn(input_shape, n_classes):
    """Three convolutions and global pooling, for images such as 8x8 digits."""
    layers, channels = [], input_shape[0]
    for width in (16, 32, 32):
        layers += _convolution(channels, width)
        channels = width
    return nn.Sequential(*layers, *_head(channels, n_classes))


def _small_resnet(input_shape, n_classes):
    """Three residual blocks, each behind a pooling: a ResNet for CPUs.

    About 13 million multiply-adds at 32x32. Wide layers at low resolution use a CPU far better
    than narrow ones at full resolution.
    """
    layers, channels = [*_convolution(input_shape[0], 32)], 32
    for width in (32, 64, 128):
        layers += [_halve(), _residual(channels, width)]
        channels = width
    return nn.Sequential(*layers, *_head(channels, n_classes))


def _resnet9(input_shape, n_classes):
    """Two residual blocks between convolutions that double the width (DAWNBench's ResNet-9).

    95 million multiply-adds at 32x32 (0.19 GFLOP), a sixth of ResNet-18's: CIFAR-10 at full size
    in a night on a CPU.
    """
    return nn.Sequential(
        *_convolution(input_shape[0], 32),
        *_convolution(32, 64),
        _halve(),
        _residual(64, 64),
        *_convolution(64, 128),
        _halve(),
        *_convolution(128, 256),
        _halve(),
        _residual(256, 256),
        *_head(256, n_classes),
    )


def _convolution(channels, width):
    """3x3 convolution, batch-norm, ReLU."""
    convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(width), nn.ReLU()


def _residual(channels, width):
    from torchvision.models.resnet import BasicBlock

    shortcut = None
    if channels != width:
        shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))
    return BasicBlock(channels, width, 1, shortcut)


def _halve():
    """Halve the resolution so that every pixel gets the same share of the gradient.

    A strided convolution gives its four pixel parities unequal shares, and an inversion paints
    them as a checkerboard; a maximum gives all to the first pixel where pixels are equal.
    """
    return nn.AvgPool2d(2, ceil_mode=True)


def _head(channels, n_classes):
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, n_classes)


def _is_small(input_shape):
    return min(input_shape[1:]) < _SMALL


def _resnet(name):
    def make(input_shape, n_classes):
        from torchvision import models

        net = getattr(models, name)(num_classes=n_classes)
        if _is_small(input_shape):
            net.conv1 = nn.Conv2d(input_shape[0], 64, 3, padding=1, bias=False)
            net.maxpool = nn.Identity()
        else:
            net.conv1 = nn.Conv2d(input_shape[0], 64, 7, 2, 3, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
        return net

    return make


def _vgg16(input_shape, n_classes):
    from torchvision.models import vgg

    layers = vgg.make_layers(vgg.cfgs["D"], batch_norm=True)
    layers[0] = nn.Conv2d(input_shape[0], 64, 3, padding=1)
    if not _is_small(input_shape):
        return vgg.VGG(layers, num_classes=n_classes)
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    # The five poolings shrink 32 pixels to one; smaller images keep only those that fit.
    keep = min(input_shape[1:]).bit_length() - 1
    pools = [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    for i in pools[keep:]:
        layers[i] = nn.Identity()
    return nn.Sequential(layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, n_classes))


def _densenet121(input_shape, n_classes):
    from torchvision import models

    net = models.densenet121(num_classes=n_classes)
    if _is_small(input_shape):
        net.features.conv0 = nn.Conv2d(input_shape[0], 64, 3, padding=1, bias=False)
        net.features.pool0 = nn.Identity()
    else:
        net.features.conv0 = nn.Conv2d(input_shape[0], 64, 7, 2, 3, bias=False)
    nn.init.kaiming_normal_(net.features.conv0.weight)
    return net


def _inception_v3(input_shape, n_classes):
    from torchvision import models

    net = models.inception_v3(num_classes=n_classes, aux_logits=False, init_weights=False)
    stem = net.Conv2d_1a_3x3
    small = _is_small(input_shape)
    if small:
        net.maxpool1, net.maxpool2 = nn.Identity(), nn.Identity()
        for block in (net.Conv2d_2a_3x3, net.Conv2d_4a_3x3):
            block.conv.padding = (1, 1)
    stem.conv = nn.Conv2d(
        input_shape[0], 32, 3, stride=1 if small else 2, padding=1 if small else 0, bias=False
    )
    return net


NETWORKS = {
    "mlp": _mlp,
    "small_cnn": _small_cnn,
    "small_resnet": _small_resnet,
    "resnet9": _resnet9,
    "resnet18": _resnet("resnet18"),
    "resnet34": _resnet("resnet34"),
    "resnet50": _resnet("resnet50"),
    "vgg16": _vgg16,
    "densenet121": _densenet121,
    "inception_v3": _inception_v3,
}

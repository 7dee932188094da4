"""Random augmentation of a whole batch on its device; each image gets its own draw.

torchvision's transforms draw once per call, so on a batch they would move all images alike.
"""

import math

import torch
import torch.nn.functional as F

AUGMENTATIONS = ("none", "flip-crop", "paper")


def augment(x, kind, generator):
    """Augment a batch of images in [0, 1].

    Parameters
    ----------
    x : tensor of shape (n, C, H, W)
        Images in [0, 1].
    kind : {"none", "flip-crop", "paper"}
        "flip-crop": random crop after padding by an eighth of the side (4 pixels at 32), and
        horizontal flip. "paper": also colour jitter of 0.25 and rotation by up to 2 degrees.
    generator : torch.Generator
        On the device of x.

    Returns
    -------
    tensor of shape (n, C, H, W)
    """
    if kind == "none":
        return x
    x = _flip(_crop(x, generator), generator)
    if kind == "paper":
        x = _rotate(_jitter(x, generator, 0.25), generator, degrees=2)
    return x


def _uniform(x, generator, low, high):
    u = torch.rand(len(x), device=x.device, dtype=x.dtype, generator=generator)
    return (low + (high - low) * u).view(-1, 1, 1, 1)


def _crop(x, generator):
    n, _, height, width = x.shape
    padding = max(1, min(height, width) // 8)
    padded = F.pad(x, (padding,) * 4)
    top, left = torch.randint(2 * padding + 1, (2, n, 1), device=x.device, generator=generator)
    rows = top + torch.arange(height, device=x.device)
    columns = left + torch.arange(width, device=x.device)
    samples = torch.arange(n, device=x.device)
    # Indices around the channel slice put the channels last; move them back.
    cropped = padded[samples[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return cropped.permute(0, 3, 1, 2).contiguous()


def _flip(x, generator):
    return torch.where(_uniform(x, generator, 0, 1) < 0.5, x.flip(3), x)


def _jitter(x, generator, strength):
    """Brightness, contrast and, for colour images, saturation."""
    low, high = 1 - strength, 1 + strength
    x = (x * _uniform(x, generator, low, high)).clamp(0, 1)
    mean = _grey(x).mean((1, 2, 3), keepdim=True)
    x = (mean + (x - mean) * _uniform(x, generator, low, high)).clamp(0, 1)
    if x.shape[1] == 3:
        grey = _grey(x)
        x = (grey + (x - grey) * _uniform(x, generator, low, high)).clamp(0, 1)
    return x


def _grey(x):
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    weights = x.new_tensor([0.299, 0.587, 0.114])  # ITU-R BT.601
    return (x * weights.view(1, 3, 1, 1)).sum(1, keepdim=True)


def _rotate(x, generator, degrees):
    limit = math.radians(degrees)
    angle = _uniform(x, generator, -limit, limit).flatten()
    ratio = x.shape[3] / x.shape[2]  # affine_grid works in coordinates from -1 to 1
    zero = torch.zeros_like(angle)
    theta = torch.stack(
        [
            torch.stack([angle.cos(), -angle.sin() / ratio, zero], 1),
            torch.stack([angle.sin() * ratio, angle.cos(), zero], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False).clamp(0, 1)

"""What the loop maximises: one value per sample, from the network's output and a target.

All of them are written so that larger is better for whoever moves the input.
"""

import torch
import torch.nn.functional as F


def cross_entropy(logits, y):
    """Cross-entropy against the true class: untargeted attack and adversarial training."""
    return F.cross_entropy(logits, y, reduction="none")


def targeted_cross_entropy(logits, target):
    """Minus the cross-entropy against a target class (Ilyas et al. 2019, eq. 7)."""
    return -F.cross_entropy(logits, target, reduction="none")


def cw_margin(logits, y):
    """Largest other logit minus the true one; positive means misclassified (Carlini-Wagner)."""
    true = logits.gather(1, y[:, None])
    other = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    return other - true[:, 0]


def targeted_margin(logits, target):
    """Logit of one class minus another's; ``target`` holds the pairs (wanted, true), (n, 2)."""
    wanted, true = logits.gather(1, target).unbind(1)
    return wanted - true


def feature_distance(features, target):
    """Minus the squared distance of penultimate features (Ilyas et al. 2019, eq. 6)."""
    return -(features - target).flatten(1).square().sum(1)


def feature_value(features, target):
    """Signed value of one feature each; ``target`` holds the pairs (index, sign), (n, 2)."""
    return features.gather(1, target[:, :1].long())[:, 0] * target[:, 1]

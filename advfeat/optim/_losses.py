"""What the loop maximises: one value per sample, from the network's output and a target.

All of them are written so that larger is better for whoever moves the input.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy against the true class: untargeted attack and adversarial training.

    Parameters
    ----------
    logits : tensor of shape (n, n_classes)
        Output of the network.
    y : tensor of shape (n,), int64
        Positions of the true classes.

    Returns
    -------
    tensor of shape (n,)

    Examples
    --------
    >>> import torch
    >>> from advfeat.optim import cross_entropy
    >>> cross_entropy(torch.tensor([[3.0, 0.0], [3.0, 0.0]]), torch.tensor([0, 1]))
    tensor([0.0486, 3.0486])
    """
    return F.cross_entropy(logits, y, reduction="none")


def targeted_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Minus the cross-entropy against a target class (Ilyas et al. 2019, eq. 7).

    Parameters
    ----------
    logits : tensor of shape (n, n_classes)
        Output of the network.
    target : tensor of shape (n,), int64
        Positions of the classes to reach.

    Returns
    -------
    tensor of shape (n,)

    Examples
    --------
    >>> import torch
    >>> from advfeat.optim import targeted_cross_entropy
    >>> targeted_cross_entropy(torch.tensor([[3.0, 0.0]]), torch.tensor([1]))
    tensor([-3.0486])
    """
    return -F.cross_entropy(logits, target, reduction="none")


def cw_margin(logits: Tensor, y: Tensor) -> Tensor:
    """Largest other logit minus the true one; positive means misclassified (Carlini-Wagner).

    Parameters
    ----------
    logits : tensor of shape (n, n_classes)
        Output of the network.
    y : tensor of shape (n,), int64
        Positions of the true classes.

    Returns
    -------
    tensor of shape (n,)

    Examples
    --------
    >>> import torch
    >>> from advfeat.optim import cw_margin
    >>> cw_margin(torch.tensor([[3.0, 0.0, 1.0]]), torch.tensor([0]))
    tensor([-2.])
    """
    true = logits.gather(1, y[:, None])
    other = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    return other - true[:, 0]


def targeted_margin(logits: Tensor, target: Tensor) -> Tensor:
    """Logit of one class minus another's.

    Parameters
    ----------
    logits : tensor of shape (n, n_classes)
        Output of the network.
    target : tensor of shape (n, 2), int64
        The pairs (wanted, true) of positions of classes.

    Returns
    -------
    tensor of shape (n,)

    Examples
    --------
    >>> import torch
    >>> from advfeat.optim import targeted_margin
    >>> targeted_margin(torch.tensor([[3.0, 0.0, 1.0]]), torch.tensor([[2, 0]]))
    tensor([-2.])
    """
    wanted, true = logits.gather(1, target).unbind(1)
    return wanted - true


def feature_distance(features: Tensor, target: Tensor) -> Tensor:
    """Minus the squared distance of penultimate features (Ilyas et al. 2019, eq. 6).

    Parameters
    ----------
    features, target : tensor of shape (n, n_features)
        The features, and those to be matched.

    Returns
    -------
    tensor of shape (n,)

    Examples
    --------
    >>> import torch
    >>> from advfeat.optim import feature_distance
    >>> feature_distance(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2))
    tensor([-25.])
    """
    return -(features - target).flatten(1).square().sum(1)


def feature_value(features: Tensor, target: Tensor) -> Tensor:
    """Signed value of one feature each.

    Parameters
    ----------
    features : tensor of shape (n, n_features)
        Penultimate features.
    target : tensor of shape (n, 2)
        The pairs (index of the feature, sign).

    Returns
    -------
    tensor of shape (n,)

    Examples
    --------
    >>> import torch
    >>> from advfeat.optim import feature_value
    >>> feature_value(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, -1.0]]))
    tensor([-4.])
    """
    return features.gather(1, target[:, :1].long())[:, 0] * target[:, 1]

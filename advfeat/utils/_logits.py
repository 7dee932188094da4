"""What logits say, alike in predictions, scores, attacks and constructions."""

import math


def usable(logits):
    """Tell which rows give probabilities: some class may be masked by -inf, not all of them.

    Parameters
    ----------
    logits : tensor or ndarray of shape (n, n_classes)

    Returns
    -------
    tensor or ndarray of shape (n,), bool
    """
    return (logits < math.inf).all(1) & (logits > -math.inf).any(1)


def classified_as(logits, y):
    """Tell which rows say a class, as `predict` does; unusable ones say none.

    Parameters
    ----------
    logits : tensor or ndarray of shape (n, n_classes)
    y : tensor or ndarray of shape (n,), int
        Positions of the classes.

    Returns
    -------
    tensor or ndarray of shape (n,), bool
    """
    return usable(logits) & (logits.argmax(1) == y)

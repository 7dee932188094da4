"""Warnings and errors of this package."""


class EvaluationWarning(UserWarning):
    """A robustness that is measured may be larger than it is: the attack could be misled.

    Raised by attacks and robust scores if, on some of the samples,

    - the gradient is zero (rounded or quantised inputs, a saturated softmax inside the network) or
      no number (a root of zero);
    - a short random search, without gradients, fools the network where the attack does not;
    - the network is random: its output for one input differs from call to call.

    Gradients say little of such a network. Attack a version of it with a useful gradient (a
    straight-through estimator, logits before the softmax, an average over draws), or use an
    attack without gradients.

    References
    ----------
    Athalye et al. 2018 (obfuscated gradients); Carlini et al. 2019 (on evaluating robustness);
    the checks are those of AutoAttack, Croce and Hein 2020.
    """


class BatchError(RuntimeError, ValueError):
    """The work on one batch failed, most often as the network does not take its rows.

    The message names the rows and the error. Batches that were finished before are in the store,
    if there is one.
    """


class WorkersLostError(RuntimeError):
    """Workers were lost again and again, or the whole cluster was.

    Most often a batch takes more memory than they have: use fewer workers at a time. Batches that
    were finished before are in the store, if there is one, and the same call goes on from them.
    (A smaller ``batch_size`` helps as well, but begins the set anew.)
    """

"""Warnings and errors of this package."""


class EvaluationWarning(UserWarning):
    """What is measured under attack may be wrong, robustness too high: the attack could be misled.

    Raised by attacks, robust scores, `transfer_rate` and `robust_feature_usefulness` if, on some
    of the samples,

    - the gradient is zero (rounded or quantised inputs, a saturated softmax inside the network) or
      no number (a root of zero);
    - a short random search, without gradients, fools the network where the attack does not (of
      attacks and robust scores only);
    - the network is random: its output for one input differs from call to call.

    Gradients say little of such a network. Attack a version of it with a useful gradient (a
    straight-through estimator, logits before the softmax, an average over draws), or use an
    attack without gradients.

    References
    ----------
    Athalye et al. 2018 (obfuscated gradients); Carlini et al. 2019 (on evaluating robustness);
    the checks are those of AutoAttack, Croce and Hein 2020.

    Examples
    --------
    A network that rounds its inputs; in a script the warning is an error here:

    >>> import warnings
    >>> import torch
    >>> from advfeat import from_torch, robust_accuracy_score
    >>> from advfeat.exceptions import EvaluationWarning
    >>> class Rounded(torch.nn.Linear):
    ...     def forward(self, x):
    ...         return super().forward(x.round())
    >>> clf = from_torch(Rounded(4, 2), classes=[0, 1], input_shape=(4,))
    >>> X = torch.linspace(0, 1, 32).reshape(8, 4)
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", EvaluationWarning)
    ...     try:
    ...         robust_accuracy_score(clf, X, clf.predict(X), norm=2, eps=0.1)
    ...     except EvaluationWarning as warning:
    ...         print(str(warning)[:28])
    The gradient is exactly zero
    """


class BatchError(RuntimeError, ValueError):
    """The work on one batch failed, most often as the network does not take its rows.

    The message names the rows and the error. Batches that were finished before are in the store,
    if there is one.

    Examples
    --------
    >>> import torch
    >>> from advfeat import from_torch
    >>> from advfeat.exceptions import BatchError
    >>> class Failing(torch.nn.Linear):
    ...     def forward(self, x):
    ...         if len(x) > 2:
    ...             raise RuntimeError("three at once")
    ...         return super().forward(x)
    >>> clf = from_torch(Failing(4, 2), classes=[0, 1], input_shape=(4,))
    >>> try:
    ...     clf.predict(torch.zeros(3, 4))
    ... except BatchError as error:
    ...     print(error)
    The work on rows 0 to 2 failed: RuntimeError: three at once
    """


class WorkersLostError(RuntimeError):
    """Workers were lost again and again, or the whole cluster was.

    Most often a batch takes more memory than they have: use fewer workers at a time. Batches that
    were finished before are in the store, if there is one, and the same call goes on from them.
    (A smaller ``batch_size`` helps as well, but begins the set anew.)

    Examples
    --------
    >>> from advfeat.exceptions import WorkersLostError
    >>> issubclass(WorkersLostError, RuntimeError)  # so ``except RuntimeError`` takes it too
    True
    """

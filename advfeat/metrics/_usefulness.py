"""The paper's own quantities: how useful a feature is, and how much of that is robust."""

import numpy as np
import torch
from sklearn.utils._param_validation import validate_params

from advfeat.attacks._adversarial_examples import ATTACK_CONSTRAINTS
from advfeat.attacks._attackable import attackable
from advfeat.optim import HalfCosine, feature_value, make_ball, projected_gradient
from advfeat.utils._checks import encode_labels, take_batch
from advfeat.utils._progress import progress_bar
from advfeat.utils._random import draw_seed, normal_rows


def feature_usefulness(estimator, X, y, *, batch_size=256):
    """Measure the usefulness rho of every penultimate feature, one class against the rest.

    With f standardised to mean 0 and variance 1 on X, and y_c = +1 for class c, -1 otherwise,
    rho = E[y_c f(x)]. A negative value says that -f is useful.

    Parameters
    ----------
    estimator : fitted classifier
        See `adversarial_examples`.
    X : array-like of shape (n, d) or (n, C, H, W)
    y : array-like of shape (n,)
    batch_size : int, default=256

    Returns
    -------
    rho : ndarray of shape (n_classes, n_hidden)
        Rows in the order of the classes; NaN for features that are constant on X.

    References
    ----------
    Ilyas et al. 2019, eq. 1.

    Examples
    --------
    >>> from advfeat import StandardClassifier, feature_usefulness
    >>> from advfeat.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> clf = StandardClassifier(max_epochs=3, random_state=0).fit(X[:1000], y[:1000])
    >>> feature_usefulness(clf, X[1000:], y[1000:]).shape
    (10, 32)
    """
    view = _view(estimator, X, "fp32")
    sign = _signs(y, view)
    features = _features(view, batch_size)
    mean, std = _standardise(features)
    return sign @ ((features - mean) / std) / len(features)


@validate_params(ATTACK_CONSTRAINTS, prefer_skip_nested_validation=True)
def robust_feature_usefulness(
    estimator,
    X,
    y,
    *,
    norm,
    eps,
    n_steps=20,
    step_size=None,
    random_start=False,
    n_restarts=1,
    batch_size=256,
    precision="fp32",
    random_state=0,
    verbose=1,
):
    """Measure the robust usefulness gamma of every penultimate feature, one class to the rest.

    gamma = E[inf over the ball of y_c f(x + delta)], with f standardised as in
    `feature_usefulness`. The infimum is found by projected gradient on each feature alone, so
    the value is an upper bound. Where rho is negative, -f is the useful feature and is measured
    instead.

    Parameters
    ----------
    estimator : fitted classifier
        See `adversarial_examples`.
    X : array-like of shape (n, d) or (n, C, H, W)
    y : array-like of shape (n,)
    norm : {2, numpy.inf}
    eps : float
        Radius, in input units.
    n_steps, step_size, random_start, n_restarts, batch_size, precision, random_state, verbose
        As in `adversarial_examples`.

    Returns
    -------
    gamma : ndarray of shape (n_classes, n_hidden)
        Robust usefulness of f where rho >= 0 and of -f where rho < 0, so that it is at most
        |rho|; NaN for features that are constant on X. A useful feature is robust if
        gamma > 0.

    References
    ----------
    Ilyas et al. 2019, eq. 2.

    Examples
    --------
    >>> from advfeat import StandardClassifier, robust_feature_usefulness
    >>> from advfeat.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> clf = StandardClassifier(max_epochs=3, random_state=0).fit(X[:1000], y[:1000])
    >>> gamma = robust_feature_usefulness(
    ...     clf, X[1000:1050], y[1000:1050], norm=2, eps=0.25, n_steps=3
    ... )
    >>> gamma.shape
    (10, 32)
    """
    view = _view(estimator, X, precision)
    sign = _signs(y, view)
    features = _features(view, batch_size)
    mean, std = _standardise(features)
    lowest, highest = features.copy(), features.copy()
    search = _ExtremeSearch(
        view,
        make_ball(norm, eps),
        HalfCosine(eps if step_size is None else step_size, n_steps),
        n_steps,
        draw_seed(random_state) if random_start else None,
    )
    n, n_hidden = features.shape
    with progress_bar(
        total=2 * n_hidden * n_restarts, desc="usefulness", unit="feature", verbose=verbose
    ) as bar:
        for j in range(n_hidden):
            for restart in range(n_restarts):
                for value, side in ((lowest, -1.0), (highest, 1.0)):
                    found = np.concatenate(
                        [
                            search(j, side, restart, i, min(i + batch_size, n))
                            for i in range(0, n, batch_size)
                        ]
                    )
                    best = np.minimum if side < 0 else np.maximum
                    value[:, j] = best(value[:, j], found)
                    bar.update()
    low, high = (lowest - mean) / std, (highest - mean) / std
    positive, negative = sign > 0, sign < 0
    # inf of y_c f is the lowest f inside the class and minus the highest f outside of it.
    of_f = (positive @ low - negative @ high) / n
    of_minus_f = (negative @ low - positive @ high) / n
    rho = sign @ ((features - mean) / std) / n
    return np.where(rho >= 0, of_f, of_minus_f)


class _ExtremeSearch:
    """Largest value of side * feature j within the ball, for a batch of samples."""

    def __init__(self, view, ball, step_size, n_steps, seed):
        self.view = view
        self.ball = ball
        self.step_size = step_size
        self.n_steps = n_steps
        self.seed = seed

    def __call__(self, j, side, restart, begin, stop):
        network = self.view.network
        x = take_batch(self.view.X, slice(begin, stop), network.device)
        target = torch.tensor([[j, side]], device=x.device).expand(len(x), 2)
        start = None
        if self.seed is not None:
            noise = normal_rows((self.seed, restart), begin, stop, x[0].numel() + 2)
            start = x + self.ball.sample(torch.from_numpy(noise).to(x.device), like=x)
        found = projected_gradient(
            network.inversion_features,
            x,
            target,
            feature_value,
            ball=self.ball,
            bounds=self.view.bounds,
            step_size=self.step_size,
            n_steps=self.n_steps,
            start=start,
            keep="best",
        )
        with torch.no_grad():
            return network.features(found)[:, j].cpu().numpy()


def _view(estimator, X, precision):
    view = attackable(estimator, X, precision)
    if not view.network.has_features:
        raise ValueError(
            "Usefulness is measured on penultimate features, but the network has no linear "
            "layer. Use a network that ends in nn.Linear."
        )
    return view


def _features(view, batch_size):
    device = view.network.device
    with torch.no_grad():
        return np.concatenate(
            [
                view.network.features(take_batch(view.X, slice(i, i + batch_size), device))
                .cpu()
                .numpy()
                .astype(np.float64)
                for i in range(0, len(view.X), batch_size)
            ]
        )


def _signs(y, view):
    """y_c for every class: (n_classes, n) of +1 and -1."""
    index = encode_labels(y, view.classes, len(view.X))
    return np.where(np.arange(len(view.classes))[:, None] == index, 1.0, -1.0)


def _standardise(features):
    mean, std = features.mean(0), features.std(0)
    constant = std <= 1e-6 * np.maximum(np.abs(mean), 1e-30)
    return mean, np.where(constant, np.nan, std)

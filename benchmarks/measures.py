"""What is measured of classifiers and of constructed sets."""

import copy
import sys

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from advfeat import robust_accuracy_curve
from advfeat.utils._random import draws_given_back

LEAK_C = 0.01  # inverse penalty of the linear model on the robust source's features
VERBOSE = int(sys.stderr.isatty())  # progress bars for people only


def batches(classifier):
    """Give the batches that fill a GPU; on a CPU the library's default. Results are the same."""
    on_gpu = torch.device(classifier.net_.device).type == "cuda"
    return {"batch_size": 1024} if on_gpu else {}


def accuracy_curve(classifier, X, y, eps_values, attack):
    """Accuracy, under the key 0, and robust accuracy at each eps."""
    eps_values = (0.0, *eps_values)
    curve = robust_accuracy_curve(
        classifier, X, y, eps_values=eps_values, verbose=VERBOSE, **batches(classifier), **attack
    )
    return dict(zip(eps_values, curve.tolist(), strict=True))


def withstand_autoattack(classifier, X, y, eps, norm="L2", adapt=None):
    """Whether each sample is classified correctly, also under AutoAttack.

    ``adapt`` may change the attack's settings, for a trial.
    """
    if not len(X):
        return np.ones(0, dtype=bool)
    network = copy.deepcopy(classifier.net_.module_).eval().requires_grad_(False)
    device = torch.device(classifier.net_.device)
    labels = torch.from_numpy(np.searchsorted(classifier.classes_, y)).to(device)
    images = torch.from_numpy(as_floats(X)).to(device)
    attack = _autoattack(network, device, len(classifier.classes_), norm, eps)
    if adapt:
        adapt(attack)
    with draws_given_back(device):  # it seeds torch
        found, _ = attack.run_standard_evaluation(images, labels)
    with torch.no_grad():
        return (network(found).argmax(1) == labels).cpu().numpy()


def _autoattack(network, device, n_classes, norm, eps):
    """AutoAttack's standard version; with two or three classes, APGD-CE, FAB and Square alone.

    Of the authors' own code: torchattacks' version takes 10 steps where they take 100, and in L2
    the first image's step for all.
    """
    from pyautoattack import AutoAttack

    settings = {"norm": norm, "eps": eps, "seed": 0, "device": device}
    if n_classes < 4:  # for which the targeted loss of APGD-T is not defined
        return AutoAttack(
            network, version="custom", attacks=["apgd-ce", "fab", "square"], **settings
        )
    attack = AutoAttack(network, version="standard", **settings)
    for part in (attack.apgd_targeted, attack.fab):
        part.n_target_classes = min(9, n_classes - 1)
    return attack


def accuracy_of_robust_features(robust, X, y, X_test, y_test, C=LEAK_C):
    """Accuracy of a logistic regression on the robust source's features, trained on (X, y).

    On a constructed set it says how much of the original labels these features alone tell. Not
    each of them is robust: see the table "usefulness".
    """
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=2000))
    linear.fit(robust.features(X), y)
    return linear.score(robust.features(X_test), y_test)


def inverted_set(X_r, X, y, begun, standard, robust):
    """Distances of an inverted set, and what both sources say of it.

    ``begun``: rows of X from which the inversion started, or None.
    """
    found = {"mean distance to x": mean_distance(X_r, X)}
    if begun is not None:
        found["mean distance to the start"] = mean_distance(X_r, X[begun])
    for name, source in (("standard", standard), ("robust", robust)):
        said = source.predict(X_r)
        found[f"share, {name} source says y"] = float(np.mean(said == y))
        if begun is not None:
            found[f"share, {name} source says the start's label"] = float(
                np.mean(said == y[begun])
            )
    return found


def relabelled_set(data, X, standard, robust):
    """Distance of a relabelled set, and what both sources say of it."""
    found = {"mean distance to x": mean_distance(data.X, X)}
    for name, source in (("standard", standard), ("robust", robust)):
        said = source.predict(data.X)
        found[f"share, {name} source says the target"] = float(np.mean(said == data.y))
        found[f"share, {name} source says the true label"] = float(np.mean(said == data.y_source))
    return found


def mean_distance(A, B, rows=1024):
    """Mean Euclidean distance of two sets of images, sample by sample."""
    parts = (slice(i, i + rows) for i in range(0, len(A), rows))
    gaps = (as_floats(A[part]) - as_floats(B[part]) for part in parts)
    return float(
        np.concatenate([np.linalg.norm(gap.reshape(len(gap), -1), axis=1) for gap in gaps]).mean()
    )


def some_of(n, *arrays):
    """Give the same n random rows of each array, in order; all of them if None.

    Image folders come sorted by class, so that the first rows would be those of one class.
    """
    if n is None or n >= len(arrays[0]):
        return arrays
    rows = np.sort(np.random.default_rng(0).permutation(len(arrays[0]))[:n])
    return tuple(array[rows] for array in arrays)


def as_floats(X):
    """Images in [0, 1], as networks see them."""
    X = np.asarray(X)
    return X.astype(np.float32) / 255 if X.dtype == np.uint8 else X.astype(np.float32)

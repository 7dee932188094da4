"""What relabelled sets teach without any feature in their perturbations."""

import numpy as np

from experiment import LEAK, seed_of
from measures import as_floats
from tables._table import Claim, Table, bars_of

_SETS = ("D_rand", "D_other", "D_det")
_PATTERN = "fixed pattern for each class"
_NOISE = "random perturbations"
_LEFT = f"{_PATTERN}, true labels left alone"
_FEATURELESS = (
    *((name, _PATTERN) for name in _SETS),
    ("D_rand", _LEFT),
    *((name, _NOISE) for name in _SETS),
)
_OTHER_C = (1.0, 100.0)


def _row(name, kind):
    return f"{name}, {kind}"


def _targets(name, y, n_classes, rng):
    if name == "D_det":
        return (y + 1) % n_classes
    if name == "D_other":
        return (y + rng.integers(1, n_classes, len(y))) % n_classes
    return rng.integers(n_classes, size=len(y))


def _perturb(X, y, name, kind, eps, n_classes, seed):
    """Images and labels without features: the perturbations are noise, or patterns of noise.

    An attack moves samples whose target is their own label, too: so do all kinds but the one that
    leaves these alone.
    """
    rng = np.random.default_rng(seed)
    target = _targets(name, y, n_classes, rng)
    shape = X.shape[1:]
    noise = rng.normal(size=(len(X) if kind == _NOISE else n_classes, *shape))
    noise = noise if kind == _NOISE else noise[target]
    noise *= eps / np.linalg.norm(noise.reshape(len(noise), -1), axis=1).reshape(
        -1, *[1] * len(shape)
    )
    if kind == _LEFT:
        noise[target == y] = 0
    return np.clip(as_floats(X) + noise.astype(np.float32), 0, 1), target


def _taught(experiment, name, kind, eps):
    """Accuracy on the original test set after plain training on such a set."""
    classes = np.unique(experiment.y)
    seed = seed_of(experiment.seed, 50 + _SETS.index(name), int(kind != _NOISE))
    unfitted = experiment.unfitted(name)

    def fit():
        index = np.searchsorted(classes, experiment.y)
        X, target = _perturb(experiment.X, index, name, kind, eps, len(classes), seed)
        clf = unfitted.set_params(callbacks=None).fit(X, classes[target])
        return clf.score(experiment.X_test, experiment.y_test)

    return experiment.stage(
        "leakage",
        f"train on {name} with {kind}",
        (experiment.classifier_key(name), experiment.test_key, kind, eps, seed),
        fit,
    )


def _measure(experiment):
    eps = experiment.preset.relabelling.eps
    records = []
    for name in (*_SETS, *experiment.preset.more_sets):
        records += experiment.records(name)[:1] + experiment.leak_records(name)
        for C in _OTHER_C:
            records += experiment.leak_records(name, C)
    for name, kind in _FEATURELESS:
        found = _taught(experiment, name, kind, eps)
        records.append(experiment.record(_row(name, kind), "accuracy", found))
    return records


TABLE = Table(
    name="leakage",
    title="What relabelled sets teach without features, and by the robust source's features",
    measure=_measure,
    draw=bars_of("leakage", "accuracy", LEAK),
    main=("accuracy", LEAK, *(f"{LEAK}, C {C:g}" for C in _OTHER_C)),
    sets=("standard", "adversarial", "D_rand", "D_det"),
    claims=(
        Claim(
            "D_rand teaches by patterns that hold no feature (not in the paper)",
            (_row("D_rand", _PATTERN), "accuracy", None),
            "chance",
        ),
        Claim(
            "D_rand teaches by such patterns if true labels are left alone (not in the paper)",
            (_row("D_rand", _LEFT), "accuracy", None),
            "chance",
        ),
        Claim(
            "D_other teaches more than such patterns do (not in the paper)",
            ("D_other", "accuracy", None),
            (_row("D_other", _PATTERN), "accuracy", None),
        ),
    ),
    note=(
        "Not in the paper. A random target is the true label for one sample in C. Does that alone "
        "teach the true labels? Here the perturbations hold no feature: one fixed random pattern "
        "for each class, or noise drawn anew for each image, both of the length eps of the "
        "relabelled sets before they are clipped to [0, 1] (which shortens those of digits most, "
        "whose pixels are often 0), and both on all images, as the attack behind D_rand moves "
        "all. In one more row images whose target is their true label are left alone, so that "
        "they, and no others, carry no pattern, like the test images. In D_other and D_det no "
        "label is the true one. The column of the robust source's features is a linear model on "
        "them; with a weaker penalty (a larger C) it learns other figures, so "
        "what the source's features would teach is known only as well as these agree."
    ),
)

"""The paper's comparison for one seed: sources, constructed sets, classifiers, evaluation."""

from dataclasses import asdict

import joblib
import numpy as np
from sklearn.frozen import FrozenEstimator

from advfeat import (
    AdversarialClassifier,
    NonRobustRelabeler,
    RobustFeatureInverter,
    StandardClassifier,
    robust_accuracy_score,
)

SOURCES = ("standard", "adversarial")
SETS = {  # name: (source, constructor)
    "D_R": ("adversarial", "invert"),
    "D_NR": ("standard", "invert"),
    "D_rand": ("standard", "random"),
    "D_det": ("standard", "deterministic"),
}
N_STAGES = 2 * len(SOURCES) + 3 * len(SETS)


def compare(preset, data, seed, stages, device="auto"):
    """Train, construct, train again, evaluate on the untouched test set.

    Parameters
    ----------
    preset : Preset
    data : tuple (X, y, X_test, y_test)
    seed : int
    stages : Stages
    device : str

    Returns
    -------
    records : list of dict
        One per measured value: seed, trained_on, metric, eps, value.
    sets : dict of name to constructed set
    classifiers : dict of name to fitted classifier
    """
    X, y, X_test, y_test = data
    decided_by = (asdict(preset), joblib.hash((X, y)), seed)
    test_key = joblib.hash((X_test, y_test))
    classifiers, sets, records = {}, {}, []

    def record(name, metric, value, eps=None):
        records.append(
            {"seed": seed, "trained_on": name, "metric": metric, "eps": eps, "value": value}
        )

    def evaluate(name):
        scores = stages.get(
            f"seed {seed} evaluate {name}",
            (decided_by, test_key),
            lambda: _scores(preset, classifiers[name], X_test, y_test),
        )
        record(name, "accuracy", scores["accuracy"])
        for eps in preset.test_eps:
            record(name, "robust accuracy", scores[eps], eps)

    for position, name in enumerate(SOURCES):
        classifiers[name] = stages.get(
            f"seed {seed} train {name}",
            decided_by,
            lambda name=name, position=position: _classifier(
                preset, name, _seed(seed, position), device
            ).fit(X, y),
        )
        evaluate(name)

    for position, (name, (source, how)) in enumerate(SETS.items(), start=len(SOURCES)):
        sets[name], diagnostics = stages.get(
            f"seed {seed} construct {name}",
            decided_by,
            lambda source=source, how=how, position=position: _construct(
                preset, classifiers[source], how, X, y, _seed(seed, 10 + position)
            ),
        )
        for metric, value in diagnostics.items():
            record(name, metric, value)
        classifiers[name] = stages.get(
            f"seed {seed} train on {name}",
            decided_by,
            lambda name=name, position=position: _classifier(
                preset, name, _seed(seed, position), device
            ).fit(sets[name], y),
        )
        evaluate(name)
    return records, sets, classifiers


def _seed(seed, position):
    """Every source, construction and classifier has a seed of its own."""
    return int(np.random.SeedSequence((seed, position)).generate_state(1)[0] >> 1)


def _classifier(preset, name, seed, device):
    common = dict(
        network=preset.network,
        lr=preset.lr,
        lr_schedule=preset.lr_schedule,
        batch_size=preset.batch_size,
        augmentation=preset.augmentation,
        precision=preset.precision,
        device=device,
        random_state=seed,
    )
    if name == "adversarial":
        return AdversarialClassifier(
            eps=preset.train_eps,
            n_steps=preset.train_steps,
            max_epochs=preset.adversarial_epochs,
            **common,
        )
    if name == "D_rand":
        common.update(lr=preset.lr_relabelled)
    if name == "D_det":  # the paper trains on it without augmentation (Table 3)
        common.update(augmentation="none")
    relabelled = name in ("D_rand", "D_det")
    epochs = preset.epochs_relabelled if relabelled else preset.epochs
    return StandardClassifier(max_epochs=epochs, **common)


def _construct(preset, source, how, X, y, seed):
    source = FrozenEstimator(source)
    common = dict(random_state=seed, precision=preset.precision)
    if how == "invert":
        constructor = RobustFeatureInverter(
            source,
            solver=preset.inversion_solver,
            n_steps=preset.inversion_steps,
            step_size=preset.inversion_step_size,
            **common,
        )
        X_r = constructor.fit_transform(X, y)
        return X_r, {"median residual": float(np.median(constructor.residual_))}
    constructor = NonRobustRelabeler(
        source, target=how, eps=preset.relabel_eps, n_steps=preset.relabel_steps, **common
    )
    data = constructor.fit_transform(X, y)
    return data, {"success rate": constructor.success_rate_}


def _scores(preset, classifier, X_test, y_test):
    scores = {"accuracy": float(classifier.score(X_test, y_test))}
    for eps in preset.test_eps:
        scores[eps] = robust_accuracy_score(
            classifier, X_test, y_test, norm=2, eps=eps, n_steps=preset.attack_steps
        )
    return scores

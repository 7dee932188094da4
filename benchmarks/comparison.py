"""The paper's comparison for one seed: sources, constructed sets, classifiers, evaluation."""

import joblib
import numpy as np
from sklearn.frozen import FrozenEstimator

from advfeat import (
    AdversarialClassifier,
    NonRobustRelabeler,
    RobustFeatureInverter,
    StandardClassifier,
    robust_accuracy_curve,
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
    """
    X, y, X_test, y_test = data
    data_key, test_key = joblib.hash((X, y)), joblib.hash((X_test, y_test))
    classifiers, sets, keys, records = {}, {}, {}, []

    def record(name, metric, value, eps=None):
        records.append(
            {"seed": seed, "trained_on": name, "metric": metric, "eps": eps, "value": value}
        )

    def train(name, position, X, set_key):
        unfitted = _classifier(preset, name, _seed(seed, position), device)
        keys[name] = (_settings(unfitted), set_key)
        classifiers[name] = stages.get(
            f"seed {seed} train {name}", keys[name], lambda: unfitted.fit(X, y)
        )

    def evaluate(name):
        attack = {"norm": 2, "n_steps": preset.attack_steps}
        scores = stages.get(
            f"seed {seed} evaluate {name}",
            (keys[name], test_key, preset.test_eps, attack),
            lambda: _scores(classifiers[name], X_test, y_test, preset.test_eps, attack),
        )
        for eps, value in scores.items():
            record(name, "robust accuracy" if eps else "accuracy", value, eps or None)

    for position, name in enumerate(SOURCES):
        train(name, position, X, data_key)
        evaluate(name)
    for position, (name, (source, how)) in enumerate(SETS.items(), start=len(SOURCES)):
        constructor = _constructor(preset, how, _seed(seed, 10 + position))
        set_key = (_settings(constructor), keys[source])
        sets[name], diagnostics = stages.get(
            f"seed {seed} construct {name}",
            set_key,
            lambda constructor=constructor, source=source: _construct(
                constructor, classifiers[source], X, y
            ),
        )
        for metric, value in diagnostics.items():
            record(name, metric, value)
        train(name, position, sets[name], set_key)
        evaluate(name)
    return records, sets


def _settings(estimator):
    """Return what decides a result: class and parameters, not where it was computed."""
    params = estimator.get_params(deep=False)
    return type(estimator).__name__, {
        name: value
        for name, value in params.items()
        if name not in ("device", "n_jobs", "verbose")
    }


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


def _constructor(preset, how, seed):
    common = dict(random_state=seed, precision=preset.precision)
    if how == "invert":
        return RobustFeatureInverter(
            solver=preset.inversion_solver,
            n_steps=preset.inversion_steps,
            step_size=preset.inversion_step_size,
            **common,
        )
    return NonRobustRelabeler(
        target=how, eps=preset.relabel_eps, n_steps=preset.relabel_steps, **common
    )


def _construct(constructor, source, X, y):
    constructor.set_params(estimator=FrozenEstimator(source))
    constructed = constructor.fit_transform(X, y)
    if isinstance(constructor, RobustFeatureInverter):
        return constructed, {"median residual": float(np.median(constructor.residual_))}
    return constructed, {"success rate": constructor.success_rate_}


def _scores(classifier, X_test, y_test, test_eps, attack):
    """Accuracy, under the key 0, and robust accuracy at each eps."""
    eps_values = (0.0, *test_eps)
    curve = robust_accuracy_curve(classifier, X_test, y_test, eps_values=eps_values, **attack)
    return dict(zip(eps_values, curve.tolist(), strict=True))

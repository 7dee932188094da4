"""One seed of the paper's experiments: sources, constructed sets, classifiers, evaluation.

Everything is a stage: computed once, kept on disk, shared by all tables.
"""

import dataclasses
import inspect
import weakref
import zlib

import joblib
import numpy as np

import measures
import resuming
from advfeat import (
    AdversarialClassifier,
    NonRobustRelabeler,
    RobustFeatureInverter,
    StandardClassifier,
)
from making import TestAccuracy, construct_inverted, construct_relabelled, construct_rows
from measures import VERBOSE, accuracy_curve, some_of
from presets import network_name
from sets import POSITIONS, SETS
from stages import Elsewhere, Planned

LEAK = "accuracy, robust source's features"
_HASHES = []  # weak references to arrays, and their hash


class Experiment:
    """The experiments of one seed on one data set.

    Parameters
    ----------
    preset : Preset
    data : tuple (X, y, X_test, y_test)
    seed : int
    stages : Stages
    device : str
    class_names : sequence of str, default=None
        To be written under images.
    """

    def __init__(self, preset, data, seed, stages, device="auto", class_names=None):
        self.preset, self.seed, self.stages, self.device = preset, seed, stages, device
        self.X, self.y, self.X_test, self.y_test = data
        self.class_names = class_names

    def variant(self, **changes):
        """Give the same experiment with other settings of the preset."""
        data = self.X, self.y, self.X_test, self.y_test
        return self._like(dataclasses.replace(self.preset, **changes), data)

    def part(self, n_train, n_test):
        """Give the same experiment on some random samples only; on all of them if None."""
        data = *some_of(n_train, self.X, self.y), *some_of(n_test, self.X_test, self.y_test)
        return self._like(self.preset, data)

    def _like(self, preset, data):
        return Experiment(preset, data, self.seed, self.stages, self.device, self.class_names)

    @property
    def data_key(self):
        """Fingerprint of the training data."""
        return _hash(self.X, self.y)

    @property
    def test_key(self):
        """Fingerprint of the test data."""
        return _hash(self.X_test, self.y_test)

    @property
    def attack(self):
        """Settings of the attack behind every robust accuracy."""
        attack = {"norm": 2, "n_steps": self.preset.attack_steps}
        if self.preset.attack_precision != "fp32":  # the default
            attack["precision"] = self.preset.attack_precision
        return attack

    def classifier(self, name, network=None):
        """Classifier trained on a set of `SETS`, or on D: one of `SOURCES` or `SECOND`.

        ``network`` replaces the preset's architecture.
        """
        unfitted = self.unfitted(name, network)
        if name not in SETS:
            return self.stage(
                "train",
                f"train {name}{_with(network)}",
                self.classifier_key(name, network),
                lambda folder: resuming.trained(unfitted, self.X, self.y, folder),
                network=unfitted.network,
                in_parts=True,
            )
        return self.stage(
            "train",
            f"train on {name}{_with(network)}",
            self.classifier_key(name, network),
            lambda folder, made: resuming.trained(unfitted, made["set"], self.y, folder),
            needs=[lambda: self.constructed(name)],
            network=unfitted.network,
            in_parts=True,
        )

    def constructed(self, name):
        """Give a set of `SETS`, as dict: "set" and what the constructor said of it."""
        recipe = SETS[name]
        constructor = self.constructor(name)

        def construct(folder, source):
            constructor.set_params(store=folder)
            if recipe.relabelled:
                return construct_relabelled(constructor, source, self.X, self.y)
            return construct_inverted(constructor, source, self.X, self.y, self.starts(name))

        return self.stage(
            "relabel" if recipe.relabelled else "invert",
            f"construct {name}",
            self.set_key(name),
            construct,
            needs=[lambda: self.classifier(recipe.source)],
            in_parts=True,
        )

    def images(self, name, rows):
        """Give some rows of a constructed set, for pictures; constructed alone if it is not here.

        `Elsewhere` if that cannot be: the source is not here either, or the set is from noise.
        """
        constructed = self.constructed(name)
        if not isinstance(constructed, Planned):
            return constructed["set"][rows]
        source = self.classifier(SETS[name].source)
        alone = isinstance(constructed, Elsewhere) and not isinstance(source, Planned)
        if not alone or SETS[name].init == "noise":
            return constructed
        starts = None if SETS[name].relabelled else self.starts(name)
        return construct_rows(self.constructor(name), source, self.X, self.y, rows, starts)

    def starts(self, name, n=None):
        """Rows from which an inversion starts: another image for each; None for noise."""
        if SETS[name].init == "noise":
            return None
        n = n or len(self.X)
        other = np.random.default_rng(seed_of(self.seed, 10 + POSITIONS[name])).integers(
            max(1, n - 1), size=n
        )
        return (np.arange(n) + 1 + other) % n

    def scores(self, name, network=None):
        """Accuracy on the test set, under the key 0, and robust accuracy at each eps."""
        return self.stage(
            "measure",
            f"evaluate {name}{_with(network)}",
            (self.classifier_key(name, network), self.test_key, self.preset.test_eps, self.attack),
            self.evaluated,
            needs=[lambda: self.classifier(name, network)],
            in_parts=True,
        )

    def evaluated(self, folder, classifier):
        """Accuracy and robust accuracies of a classifier on the test set; see `resuming`."""
        eps_values = self.preset.test_eps
        return resuming.evaluated(
            classifier, self.X_test, self.y_test, eps_values, self.attack, folder
        )

    def records(self, name, network=None, row=None):
        """`scores` as records: one dict per measured value."""
        return self.score_records(row or name, self.scores(name, network), self.preset.test_eps)

    def score_records(self, row, scores, eps_values):
        """Give what `measures.accuracy_curve` found as records."""
        return [
            self.record(row, "robust accuracy" if eps else "accuracy", scores[eps], eps)
            for eps in (0.0, *eps_values)
        ]

    def autoattack_records(self, name, network=None, row=None):
        """AutoAttack and this library's attack on the same few test images, as records."""
        n, eps_values = self.preset.autoattack_samples, self.preset.test_eps
        X, y = some_of(n, self.X_test, self.y_test)
        found = self.stage(
            "measure",
            f"autoattack {name}{_with(network)}",
            (
                "AutoAttack of its authors",
                self.classifier_key(name, network),
                self.test_key,
                n,
                eps_values,
                self.attack,
            ),
            lambda folder, classifier: {
                "AutoAttack": resuming.autoattack_curve(classifier, X, y, eps_values, folder),
                "this library": accuracy_curve(classifier, X, y, eps_values, self.attack),
            },
            needs=[lambda: self.classifier(name, network)],
            in_parts=True,
        )
        return [
            self.record(
                row or name, f"robust accuracy, {attack}, n = {len(X)}", found[attack][eps], eps
            )
            for eps in eps_values
            for attack in ("AutoAttack", "this library")
        ]

    def set_records(self, name):
        """`said_of` as records."""
        said = self.said_of(name)
        return [self.record(name, metric, said[metric]) for metric in said]

    def said_of(self, name):
        """Give what the constructor and both sources say of a set, and how far it was moved."""
        recipe = SETS[name]

        def diagnose(constructed, standard, robust):
            data = constructed["set"]
            said = {name: value for name, value in constructed.items() if name != "set"}
            if recipe.relabelled:
                return {**said, **measures.relabelled_set(data, self.X, standard, robust)}
            begun = self.starts(name)
            return {
                **said,
                **measures.inverted_set(data, self.X, self.y, begun, standard, robust),
            }

        return self.stage(
            "measure",
            f"diagnose {name}",
            ("set", self.set_key(name), *map(self.classifier_key, ("standard", "adversarial"))),
            diagnose,
            needs=[
                lambda: self.constructed(name),
                lambda: self.classifier("standard"),
                lambda: self.classifier("adversarial"),
            ],
        )

    def leak_records(self, name, C=None):
        """Give what a linear model on the robust source's features learns of a set.

        ``C`` is that of another logistic regression than the usual one.
        """
        other = {} if C is None else {"C": C}

        def teach(robust, constructed):
            data = constructed["set"]
            X, y = (data.X, data.y) if SETS[name].relabelled else (data, self.y)
            test = self.X_test, self.y_test
            return measures.accuracy_of_robust_features(robust, X, y, *test, **other)

        found = self.stage(
            "measure",
            f"leak of {name}" + (f", C {C:g}" if other else ""),
            (
                "leak",
                self.set_key(name),
                self.classifier_key("adversarial"),
                self.test_key,
                *other.items(),
            ),
            teach,
            needs=[lambda: self.classifier("adversarial"), lambda: self.constructed(name)],
        )
        return [self.record(name, LEAK + (f", C {C:g}" if other else ""), found)]

    def record(self, row, metric, value, eps=None):
        """One measured value; None where there is none."""
        if isinstance(value, float) and np.isnan(value):
            value = None
        return {
            "seed": self.seed,
            "row": row,
            "metric": metric,
            "eps": eps or None,
            "value": value,
        }

    def stage(self, kind, title, key, compute, needs=(), network=None, in_parts=False):
        """Return the value of a stage of this seed."""
        title = f"{title}, seed {self.seed}"
        return self.stages.get(kind, title, key, compute, needs, network, in_parts)

    def constructor(self, name):
        """Unfitted constructor of a set; its source, and its starts, are still missing."""
        preset, recipe = self.preset, SETS[name]
        common = dict(
            random_state=seed_of(self.seed, 10 + POSITIONS[name]),
            precision=preset.precision,
            verbose=VERBOSE,
        )
        if not recipe.relabelled:
            how = preset.inversion
            return RobustFeatureInverter(
                init=recipe.init,
                solver=how.solver,
                n_steps=how.noise_steps if recipe.init == "noise" else how.n_steps,
                step_size=how.step_size,
                momentum=how.momentum,
                **common,
            )
        return self.relabeler(recipe.how, recipe.eps, **common)

    def relabeler(self, target, eps=None, **common):
        """Unfitted relabeler with the preset's attack, or with its steps at another eps."""
        how = self.preset.relabelling
        return NonRobustRelabeler(
            target=target,
            eps=how.eps if eps is None else eps,
            n_steps=how.n_steps,
            step_size=how.step_size if eps is None else None,
            **common,
        )

    def classifier_key(self, name, network=None):
        """Everything that decides a classifier."""
        data = self.set_key(name) if name in SETS else self.data_key
        followed_on = self.test_key if _is_followed(name, network) else None
        return settings_of(self.unfitted(name, network)), data, followed_on

    def set_key(self, name):
        """Everything that decides a constructed set."""
        return settings_of(self.constructor(name)), self.classifier_key(SETS[name].source)

    def unfitted(self, name, network=None, row=None):
        """Untrained classifier with the training of a source or set; its seed hangs on all."""
        preset = self.preset
        row = row or preset.training_of(name)
        common = dict(
            network=network or preset.network,
            max_epochs=row.epochs,
            lr=row.lr,
            lr_schedule=row.lr_schedule,
            batch_size=row.batch_size,
            augmentation=row.augmentation,
            momentum=row.momentum,
            weight_decay=row.weight_decay,
            precision=preset.precision,
            device=self.device,
            verbose=VERBOSE,
            random_state=seed_of(self.seed, POSITIONS[name], _number(network)),
        )
        if name == "adversarial":
            attack = preset.adversary
            return AdversarialClassifier(
                eps=attack.eps, n_steps=attack.n_steps, step_size=attack.step_size, **common
            )
        if _is_followed(name, network):
            common.update(callbacks=[TestAccuracy(self.X_test, self.y_test, np.unique(self.y))])
        return StandardClassifier(**common)


def _hash(*arrays):
    """Hash data; the same arrays once, however many tables and seeds ask."""
    for known, found in _HASHES:
        if all(reference() is array for reference, array in zip(known, arrays, strict=True)):
            return found
    found = joblib.hash(arrays)
    _HASHES.append(([weakref.ref(array) for array in arrays], found))
    return found


def settings_of(estimator):
    """Return what decides a result: class and parameters, not where it was computed.

    Parameters at their default are left out, so that a new one does not make all stages new.
    Other defaults are other code: they raise the number of the kind of work.
    """
    known = inspect.signature(type(estimator)).parameters
    params = {
        name: network_name(value) if name == "network" else value
        for name, value in estimator.get_params(deep=False).items()
        if name not in ("callbacks", "device", "n_jobs", "store", "verbose")
    }
    return type(estimator).__name__, {
        name: value for name, value in params.items() if value != known[name].default
    }


def seed_of(seed, position, *more):
    """Every source, construction and classifier has a seed of its own."""
    parts = (seed, position, *(part for part in more if part is not None))
    return int(np.random.SeedSequence(parts).generate_state(1)[0] >> 1)


def _is_followed(name, network):
    """Whether the test accuracy of every epoch is kept (Figure 10)."""
    return network is None and name in SETS and SETS[name].relabelled


def _number(network):
    if network is None:
        return None
    return zlib.crc32(network_name(network).encode())


def _with(network):
    return "" if network is None else f" with {network_name(network)}"

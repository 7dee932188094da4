"""One seed of the paper's experiments: sources, constructed sets, classifiers, evaluation.

Everything is a stage: computed once, kept on disk, shared by all tables.
"""

import dataclasses
import functools
import zlib
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from skorch.callbacks import Callback

import architectures
from advfeat import (
    AdversarialClassifier,
    NonRobustRelabeler,
    RobustFeatureInverter,
    StandardClassifier,
    robust_accuracy_curve,
)

SOURCES = ("standard", "adversarial")  # trained on D itself
SECOND = "standard, second"  # as "standard", with another seed


@dataclass(frozen=True)
class SetRecipe:
    """How a set is constructed."""

    source: str
    how: str  # "invert", or the relabeler's target
    init: str = "sample"


SETS = {
    "D_R": SetRecipe("adversarial", "invert"),
    "D_NR": SetRecipe("standard", "invert"),
    "D_rand": SetRecipe("standard", "random"),
    "D_det": SetRecipe("standard", "deterministic"),
    "D_R from noise": SetRecipe("adversarial", "invert", "noise"),
    "D_NR from noise": SetRecipe("standard", "invert", "noise"),
    "D_rand, robust source": SetRecipe("adversarial", "random"),
    "D_det, robust source": SetRecipe("adversarial", "deterministic"),
}
_POSITIONS = {name: i for i, name in enumerate((*SOURCES, *SETS, SECOND))}


class Experiment:
    """The experiments of one seed on one data set.

    Parameters
    ----------
    preset : Preset
    data : tuple (X, y, X_test, y_test)
    seed : int
    stages : Stages
    device : str
    """

    def __init__(self, preset, data, seed, stages, device="auto"):
        self.preset, self.seed, self.stages, self.device = preset, seed, stages, device
        self.X, self.y, self.X_test, self.y_test = data

    def variant(self, **changes):
        """Give the same experiment with other settings of the preset."""
        preset = dataclasses.replace(self.preset, **changes)
        data = self.X, self.y, self.X_test, self.y_test
        other = Experiment(preset, data, self.seed, self.stages, self.device)
        other.data_key, other.test_key = self.data_key, self.test_key
        return other

    def part(self, n_train, n_test):
        """Give the same experiment on some random samples only; on all of them if None."""
        data = *some_of(n_train, self.X, self.y), *some_of(n_test, self.X_test, self.y_test)
        return Experiment(self.preset, data, self.seed, self.stages, self.device)

    @functools.cached_property
    def data_key(self):
        """Fingerprint of the training data."""
        return joblib.hash((self.X, self.y))

    @functools.cached_property
    def test_key(self):
        """Fingerprint of the test data."""
        return joblib.hash((self.X_test, self.y_test))

    @property
    def attack(self):
        """Settings of the attack behind every robust accuracy."""
        return {"norm": 2, "n_steps": self.preset.attack_steps}

    def classifier(self, name, network=None):
        """Classifier trained on a set of `SETS`, or on D: one of `SOURCES` or `SECOND`.

        ``network`` replaces the preset's architecture.
        """
        unfitted = self._unfitted(name, network)
        if name not in SETS:
            return self.stage(
                f"train {name}{_with(network)}",
                self.classifier_key(name, network),
                lambda: unfitted.fit(self.X, self.y),
            )
        return self.stage(
            f"train on {name}{_with(network)}",
            self.classifier_key(name, network),
            lambda constructed: unfitted.fit(constructed["set"], self.y),
            needs=[lambda: self.constructed(name)],
        )

    def constructed(self, name):
        """Give a set of `SETS`, as dict: "set" and what the constructor said of it."""
        source = SETS[name].source
        return self.stage(
            f"construct {name}",
            self.set_key(name),
            lambda classifier: _construct(self.constructor(name), classifier, self.X, self.y),
            needs=[lambda: self.classifier(source)],
        )

    def scores(self, name, network=None):
        """Accuracy on the test set, under the key 0, and robust accuracy at each eps."""
        return self.stage(
            f"evaluate {name}{_with(network)}",
            (self.classifier_key(name, network), self.test_key, self.preset.test_eps, self.attack),
            lambda classifier: accuracy_curve(
                classifier, self.X_test, self.y_test, self.preset.test_eps, self.attack
            ),
            needs=[lambda: self.classifier(name, network)],
        )

    def records(self, name, network=None, row=None):
        """`scores` as records: one dict per measured value."""
        scores = self.scores(name, network)
        return [
            self.record(row or name, "robust accuracy" if eps else "accuracy", scores[eps], eps)
            for eps in (0.0, *self.preset.test_eps)
        ]

    def autoattack_records(self, name, network=None, row=None):
        """AutoAttack and this library's attack on the same few test images, as records."""
        n, eps_values = self.preset.other_samples, self.preset.test_eps
        X, y = some_of(n, self.X_test, self.y_test)
        found = self.stage(
            f"autoattack {name}{_with(network)}",
            (self.classifier_key(name, network), self.test_key, n, eps_values, self.attack),
            lambda classifier: {
                "AutoAttack": autoattack_curve(classifier, X, y, eps_values),
                "this library": accuracy_curve(classifier, X, y, eps_values, self.attack),
            },
            needs=[lambda: self.classifier(name, network)],
        )
        return [
            self.record(
                row or name, f"robust accuracy, {attack}, n = {len(X)}", found[attack][eps], eps
            )
            for eps in eps_values
            for attack in ("AutoAttack", "this library")
        ]

    def diagnostics(self, name):
        """Give what the constructor said of a set."""
        metrics = (
            ("median residual", "mean residual", "mean distance moved")
            if SETS[name].how == "invert"
            else ("success rate",)
        )
        found = self.stage(
            f"diagnose {name}",
            ("diagnostics", self.set_key(name)),
            lambda constructed: {metric: constructed[metric] for metric in metrics},
            needs=[lambda: self.constructed(name)],
        )
        return {metric: found[metric] for metric in metrics}

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

    def stage(self, title, key, compute, needs=()):
        """Return the value of a stage of this seed; new code of this file makes it anew."""
        return self.stages.get(f"{title}, seed {self.seed}", (key, _code()), compute, needs)

    def constructor(self, name):
        """Unfitted constructor of a set; its source is still missing."""
        preset, recipe = self.preset, SETS[name]
        common = dict(
            random_state=seed_of(self.seed, 10 + _POSITIONS[name]), precision=preset.precision
        )
        if recipe.how == "invert":
            from_noise = recipe.init == "noise"
            return RobustFeatureInverter(
                init=recipe.init,
                solver=preset.inversion_solver,
                n_steps=preset.noise_steps if from_noise else preset.inversion_steps,
                step_size=preset.inversion_step_size,
                momentum=preset.inversion_momentum,
                **common,
            )
        return NonRobustRelabeler(
            target=recipe.how, eps=preset.relabel_eps, n_steps=preset.relabel_steps, **common
        )

    def classifier_key(self, name, network=None):
        """Everything that decides a classifier."""
        data = self.set_key(name) if name in SETS else self.data_key
        followed_on = self.test_key if _is_followed(name, network) else None
        return settings_of(self._unfitted(name, network)), data, followed_on

    def set_key(self, name):
        """Everything that decides a constructed set."""
        return settings_of(self.constructor(name)), self.classifier_key(SETS[name].source)

    def _unfitted(self, name, network):
        preset = self.preset
        recipe = SETS.get(name)
        relabelled = recipe is not None and recipe.how != "invert"
        common = dict(
            network=network or preset.network,
            lr=preset.lr,
            lr_schedule=preset.lr_schedule,
            batch_size=preset.batch_size,
            augmentation=preset.augmentation,
            precision=preset.precision,
            device=self.device,
            random_state=seed_of(self.seed, _POSITIONS[name], _number(network)),
        )
        if name == "adversarial":
            return AdversarialClassifier(
                eps=preset.train_eps,
                n_steps=preset.train_steps,
                max_epochs=preset.adversarial_epochs,
                **common,
            )
        if recipe is not None and recipe.how == "random":
            common.update(lr=preset.lr_relabelled)
        if recipe is not None and recipe.how == "deterministic":
            common.update(augmentation="none")  # as in the paper (Table 3)
        if _is_followed(name, network):
            common.update(callbacks=[TestAccuracy(self.X_test, self.y_test)])
        epochs = preset.epochs_relabelled if relabelled else preset.epochs
        return StandardClassifier(max_epochs=epochs, **common)


class TestAccuracy(Callback):
    """Keeps the accuracy on the test set after each epoch; it decides nothing."""

    __test__ = False  # for pytest

    def __init__(self, X, y):
        self.data = X, y

    def on_epoch_end(self, net, **kwargs):
        """Predict the test set."""
        X, y = self.data
        labels = np.searchsorted(np.unique(y), y)
        found = net.forward(as_floats(X)).argmax(1).cpu().numpy()
        net.history.record("test_accuracy", float(np.mean(found == labels)))

    def on_train_end(self, net, **kwargs):
        """Let go of the data, so that they are not kept with the classifier."""
        self.data = None


def accuracy_curve(classifier, X, y, eps_values, attack):
    """Accuracy, under the key 0, and robust accuracy at each eps."""
    eps_values = (0.0, *eps_values)
    curve = robust_accuracy_curve(classifier, X, y, eps_values=eps_values, **attack)
    return dict(zip(eps_values, curve.tolist(), strict=True))


def autoattack_curve(classifier, X, y, eps_values):
    """Share that withstands AutoAttack (torchattacks) at each eps, in L2."""
    import torchattacks

    network = classifier.net_.module_.eval()
    device = next(network.parameters()).device
    labels = torch.from_numpy(np.searchsorted(classifier.classes_, y)).to(device)
    images = torch.from_numpy(as_floats(X)).to(device)
    with torch.no_grad():
        alive = network(images).argmax(1) == labels
    curve = {}
    for eps in sorted(eps_values):  # who falls at a small eps falls at every larger one
        rows = torch.nonzero(alive).flatten()
        if len(rows):
            attack = torchattacks.AutoAttack(
                network, norm="L2", eps=eps, n_classes=len(classifier.classes_), seed=0
            )
            found = attack(images[rows], labels[rows])
            with torch.no_grad():
                alive[rows] = network(found).argmax(1) == labels[rows]
        curve[eps] = float(alive.float().mean())
    return curve


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


def settings_of(estimator):
    """Return what decides a result: class and parameters, not where it was computed."""
    params = estimator.get_params(deep=False)
    network = params.get("network")
    if callable(network):
        params["network"] = network.__name__
    return type(estimator).__name__, {
        name: value
        for name, value in params.items()
        if name not in ("callbacks", "device", "n_jobs", "verbose")
    }


def seed_of(seed, position, *more):
    """Every source, construction and classifier has a seed of its own."""
    parts = (seed, position, *(part for part in more if part is not None))
    return int(np.random.SeedSequence(parts).generate_state(1)[0] >> 1)


def _is_followed(name, network):
    """Whether the test accuracy of every epoch is kept (Figure 10)."""
    return network is None and name in SETS and SETS[name].how != "invert"


@functools.cache
def _code():
    """Hash of what decides a result besides the library: this file and the networks."""
    files = (__file__, architectures.__file__)
    return joblib.hash([Path(file).read_bytes() for file in files])


def _number(network):
    if network is None:
        return None
    return zlib.crc32(getattr(network, "__name__", network).encode())


def _with(network):
    return "" if network is None else f" with {getattr(network, '__name__', network)}"


def _construct(constructor, source, X, y):
    constructor.set_params(estimator=FrozenEstimator(source))
    found = {"set": constructor.fit_transform(X, y)}
    if isinstance(constructor, RobustFeatureInverter):
        found["median residual"] = float(np.median(constructor.residual_))
        found["mean residual"] = float(np.mean(constructor.residual_))
        found["mean distance moved"] = float(np.mean(constructor.distance_))
    else:
        found["success rate"] = constructor.success_rate_
    return found

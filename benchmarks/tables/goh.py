"""Goh's robust-feature leak: a linear model on linear features whose robustness is certified.

Gabriel Goh, "Robust Feature Leakage", in "A Discussion of 'Adversarial Examples Are Not Bugs, They
Are Features'", Distill 2019.
"""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from advfeat import AdversarialClassifier
from experiment import seed_of, settings_of
from measures import VERBOSE, as_floats
from tables._table import Claim, Table, bars_of

_SETS = ("D_rand", "D_other", "D_det")
_EPS = 0.25
_MODEL = "the robust linear model itself, on D"
_LEAK = "accuracy, certified linear features"
_STATIC = "share, predictions certified at L2 0.25"
_USEFUL = "certified features, gamma > 0 at L2 0.25"
_TRAINED = "L2 eps of its training"


def linear(input_shape, n_classes):
    """One linear layer on the pixels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(input_shape)), n_classes))


def _weights(classifier, shape):
    """Weights (n_classes, d) and intercepts of a network that is affine in its input."""
    network = classifier.net_.module_.eval()
    d = int(np.prod(shape))
    with torch.no_grad():
        device = next(network.parameters()).device
        origin = network(torch.zeros(1, *shape, device=device))
        ends = network(torch.eye(d, device=device).reshape(d, *shape))
    return (ends - origin).T.cpu().numpy(), origin[0].cpu().numpy()


def _static(W, b, X, eps):
    """Share of the predictions that no L2 perturbation changes, exactly."""
    logits = X @ W.T + b
    top = logits.argmax(1)
    gap = logits[np.arange(len(X)), top][:, None] - logits
    size = np.linalg.norm(W[top][:, None] - W[None], axis=2)
    distance = np.where(size > 0, gap / np.where(size > 0, size, 1), np.inf)
    return float(np.mean(distance.min(1) > eps))


def _stay_useful(W, b, X, y, eps):
    """Whether each feature stays useful under every L2 perturbation, exactly: gamma > 0.

    Feature i is w_i x for class i against the rest, standardised on X; an L2 perturbation changes
    it by at most eps ||w_i||.
    """
    logits = X @ W.T + b
    mean, std = logits.mean(0), logits.std(0)
    sign = np.where(np.arange(len(W))[:, None] == y, 1.0, -1.0)
    rho = np.array([sign[i] @ (logits[:, i] - mean[i]) for i in range(len(W))]) / (len(X) * std)
    return np.abs(rho) > eps * np.linalg.norm(W, axis=1) / std


def _model(experiment):
    preset = experiment.preset
    row = preset.training["adversarial"]
    clf = AdversarialClassifier(
        linear,
        eps=preset.adversary.eps,
        n_steps=preset.adversary.n_steps,
        step_size=preset.adversary.step_size,
        max_epochs=row.epochs,
        lr=0.01,
        batch_size=row.batch_size,
        device=experiment.device,
        random_state=seed_of(experiment.seed, 60),
        verbose=VERBOSE,
    )
    key = ("goh", settings_of(clf), experiment.data_key)
    fit = lambda: clf.fit(experiment.X, experiment.y)  # noqa: E731
    title = "train a robust linear model"
    return key, lambda: experiment.stage("goh", title, key, fit, network=linear)


def _flat(X):
    X = as_floats(X)
    return X.reshape(len(X), -1)


def _measure(experiment):
    key, model = _model(experiment)
    shape = experiment.X.shape[1:]

    def certified(robust):
        """Weights and intercepts, and which features count, by the training images."""
        W, b = _weights(robust, shape)
        index = np.searchsorted(robust.classes_, experiment.y)
        return W, b, _stay_useful(W, b, _flat(experiment.X), index, _EPS)

    def certify(robust):
        W, b, useful = certified(robust)
        return {
            "accuracy": robust.score(experiment.X_test, experiment.y_test),
            _TRAINED: experiment.preset.adversary.eps,
            _STATIC: _static(W, b, _flat(experiment.X_test), _EPS),
            _USEFUL: int(useful.sum()),
        }

    found = experiment.stage(
        "goh", "certify the linear model", (key, experiment.test_key), certify, needs=[model]
    )
    records = [experiment.record(_MODEL, metric, found[metric]) for metric in found]
    for name in _SETS:

        def leak(robust, constructed):
            W, b, useful = certified(robust)
            if not useful.any():
                return float("nan")  # nothing to learn from
            data = constructed["set"]
            clf = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
            clf.fit((_flat(data.X) @ W.T + b)[:, useful], data.y)
            return clf.score((_flat(experiment.X_test) @ W.T + b)[:, useful], experiment.y_test)

        score = experiment.stage(
            "goh",
            f"leak of {name} in linear features",
            (key, experiment.set_key(name), experiment.test_key),
            leak,
            needs=[model, lambda name=name: experiment.constructed(name)],
        )
        records += experiment.records(name)[:1]
        records.append(experiment.record(name, _LEAK, score))
    return records


TABLE = Table(
    name="goh",
    title="Robust feature leakage in linear features (Goh, Distill 2019)",
    measure=_measure,
    draw=bars_of("goh", "accuracy", _LEAK),
    main=("accuracy", _LEAK, _TRAINED, _STATIC, _USEFUL),
    paper={("D_rand", _LEAK, None): 23.5, ("D_det", _LEAK, None): 6.81},
    figures_of="Goh's",
    claims=(
        Claim(
            "certified linear features teach more than chance of D_rand (Goh)",
            ("D_rand", _LEAK, None),
            "chance",
        ),
        Claim(
            "D_other teaches more than certified linear features would",
            ("D_other", "accuracy", None),
            ("D_other", _LEAK, None),
            above_chance=True,
            one_sided=True,
        ),
    ),
    sets=("standard", "D_rand", "D_det"),
    note=(
        'Gabriel Goh, "Robust Feature Leakage" (Distill 2019), on CIFAR-10. The features are '
        "outputs of an adversarially trained linear model, which has one for each class: those "
        "of which it is certified in closed form, on the training images, that they stay useful "
        "for their class at L2 0.25. He showed that robust features explain part of D_rand and "
        "nothing of D_det."
    ),
)

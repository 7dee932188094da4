"""Section 2: usefulness rho and robust usefulness gamma of every penultimate feature."""

import numpy as np

from advfeat import feature_usefulness, robust_feature_usefulness
from measures import VERBOSE, some_of
from tables._table import Claim, Table, rows_of

_ROWS = ("standard", "adversarial", "D_R")


def _measure(experiment):
    preset = experiment.preset
    n, eps, n_steps = preset.usefulness_samples, preset.test_eps[0], preset.usefulness_steps
    X, y = some_of(n, experiment.X_test, experiment.y_test)
    records = []
    for row in _ROWS:

        def measure(classifier):
            # Class and sign are chosen on training images: on few test images the best of many
            # classes looks useful by chance.
            chosen = feature_usefulness(classifier, experiment.X, experiment.y)
            rho = feature_usefulness(classifier, X, y)
            gamma = robust_feature_usefulness(
                classifier, X, y, norm=2, eps=eps, n_steps=n_steps, verbose=VERBOSE
            )
            used = np.flatnonzero(~(np.isnan(chosen) | np.isnan(rho)).any(0))  # no constants
            best = np.abs(chosen[:, used]).argmax(0)
            sign = np.sign(chosen[best, used])
            useful = sign * rho[best, used]
            # gamma is that of the sign that is useful on the test images. Where this is not the
            # chosen one, the chosen one's gamma is at most its rho, which is below zero.
            robust = np.where(useful >= 0, gamma[best, used], useful)
            return useful.tolist(), robust.tolist()

        found = experiment.stage(
            "usefulness",
            f"usefulness of {row}",
            (
                experiment.classifier_key(row),
                experiment.data_key,
                experiment.test_key,
                n,
                eps,
                n_steps,
            ),
            measure,
            needs=[lambda row=row: experiment.classifier(row)],
        )
        rho, gamma = found[0], found[1]
        for metric, numbers, radius in (("rho", rho, None), ("gamma", gamma, eps)):
            records += [
                {**experiment.record(row, metric, value, radius), "at": feature}
                for feature, value in enumerate(numbers)
            ]
        numbers = _numbers(rho, gamma, eps)
        records += [experiment.record(row, "test images", len(X))] * bool(numbers)
        for metric, value, radius in numbers:
            records.append(experiment.record(row, metric, value, radius))
    return records


def _numbers(rho, gamma, eps):
    rho, gamma = np.array(list(rho)), np.array(list(gamma))
    if not len(rho):
        return []
    return [
        ("features", len(rho), None),
        ("mean rho", float(rho.mean()), None),
        ("mean gamma", float(gamma.mean()), eps),
        ("share with gamma > 0", float(np.mean(gamma > 0)), eps),
    ]


def _draw(records, experiment):
    import matplotlib.pyplot as plt

    eps = experiment.preset.test_eps[0]
    rows = rows_of(records)
    if not rows:
        return {"usefulness": None}
    figure, axes = plt.subplots(
        1,
        len(rows),
        figsize=(9.5, 3.7),
        sharex=True,
        sharey=True,
        layout="constrained",
        squeeze=False,
    )
    axes = axes[0]
    pooled = [r["value"] for r in records if r["metric"] in ("rho", "gamma")]
    bins = np.linspace(min(pooled), max(pooled), 31)
    for ax, row in zip(axes, rows, strict=True):
        for metric, label in (("rho", "usefulness rho"), ("gamma", f"gamma, L2 {eps:g}")):
            numbers = [r["value"] for r in records if (r["row"], r["metric"]) == (row, metric)]
            ax.hist(numbers, bins, alpha=0.6, label=label, weights=_shares(numbers))
        ax.axvline(0, color="0.3", linewidth=0.8)
        ax.set_title(row)
        ax.set_xlabel("rho and gamma of a feature")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("share of the features, %")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    return {"usefulness": figure}


def _shares(numbers):
    return np.full(len(numbers), 100 / max(1, len(numbers)))


TABLE = Table(
    name="usefulness",
    title="Usefulness and robust usefulness of the penultimate features (Section 2, eq. 1 and 2)",
    measure=_measure,
    draw=_draw,
    main=("mean rho", "mean gamma", "share with gamma > 0", "features", "test images"),
    counted="features",
    sets=("standard", "adversarial", "D_R"),
    claims=(
        Claim(
            "adversarial training has more robustly useful features than plain training "
            "(not measured in the paper)",
            ("adversarial", "share with gamma > 0", 0.25),
            ("standard", "share with gamma > 0", 0.25),
        ),
    ),
    note=(
        "The definitions behind the paper, which it never measures. Each feature is counted with "
        "the class for which |rho| is largest on the training images, and with the sign that "
        "makes it positive there; rho and gamma are then those on test images, with the feature "
        "standardised to mean 0 and variance 1 on the same test images. Features that are "
        "constant are left out. gamma is an upper bound, by projected gradient on each feature "
        "alone."
    ),
)

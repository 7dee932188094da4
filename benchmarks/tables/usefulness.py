"""Section 2: usefulness rho and robust usefulness gamma of every penultimate feature."""

import numpy as np

from advfeat import feature_usefulness, robust_feature_usefulness
from experiment import some_of
from tables._table import Table, rows_of

_ROWS = ("standard", "adversarial", "D_R")
_STEPS = 10


def _measure(experiment):
    n, eps = experiment.preset.other_samples, experiment.preset.test_eps[0]
    X, y = some_of(n, experiment.X_test, experiment.y_test)
    records = []
    for row in _ROWS:

        def measure(classifier):
            rho = np.abs(feature_usefulness(classifier, X, y))
            gamma = robust_feature_usefulness(classifier, X, y, norm=2, eps=eps, n_steps=_STEPS)
            used = ~np.isnan(rho).any(0)  # a feature that is constant is none
            best = rho[:, used].argmax(0)
            each = np.arange(used.sum())
            return rho[:, used][best, each].tolist(), gamma[:, used][best, each].tolist()

        found = experiment.stage(
            f"usefulness of {row}",
            (
                "usefulness",
                experiment.classifier_key(row),
                experiment.test_key,
                n,
                eps,
                _STEPS,
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
        for metric, value, radius in _summary(rho, gamma, eps):
            records.append(experiment.record(row, metric, value, radius))
    return records


def _summary(rho, gamma, eps):
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
    figure, axes = plt.subplots(
        1, len(rows), figsize=(9.5, 3.4), sharex=True, sharey=True, layout="constrained"
    )
    pooled = [r["value"] for r in records if r["metric"] in ("rho", "gamma")]
    bins = np.linspace(min(pooled), max(pooled), 31)
    for ax, row in zip(axes, rows, strict=True):
        for metric, label in (("rho", "usefulness rho"), ("gamma", f"gamma, L2 {eps:g}")):
            numbers = [r["value"] for r in records if (r["row"], r["metric"]) == (row, metric)]
            ax.hist(numbers, bins, alpha=0.6, label=label, weights=_shares(numbers))
        ax.axvline(0, color="0.3", linewidth=0.8)
        ax.set_title(row)
        ax.set_xlabel("best class of each feature")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("share of the features, %")
    axes[0].legend(frameon=False)
    return {"usefulness": figure}


def _shares(numbers):
    return np.full(len(numbers), 100 / max(1, len(numbers)))


TABLE = Table(
    name="usefulness",
    title="Usefulness and robust usefulness of the penultimate features (Section 2, eq. 1 and 2)",
    measure=_measure,
    draw=_draw,
    note=(
        "The definitions behind the paper, which it never measures. Each feature is counted with "
        "the class for which |rho| is largest (sign chosen so that rho > 0); features that are "
        f"constant on the images are left out. gamma is an upper bound, by {_STEPS} steps of "
        "projected gradient on each feature alone."
    ),
)

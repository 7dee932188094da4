"""Figure 3: architectures that learn more from D_det are fooled more by its source's examples."""

import numpy as np

from advfeat import transfer_rate
from experiment import SECOND
from tables._table import Table, rows_of, values


def _name(network):
    return getattr(network, "__name__", network)


def _measure(experiment):
    preset = experiment.preset
    X, y, eps = experiment.X_test, experiment.y_test, preset.relabel_eps
    records = []
    for network in preset.architectures:

        def transfer(source, other):
            return transfer_rate(source, other, X, y, eps=eps, **experiment.attack)

        row = _name(network)
        rate = experiment.stage(
            f"transfer to {row}",
            (
                experiment.classifier_key("standard"),
                experiment.classifier_key(SECOND, network),
                experiment.test_key,
                eps,
                experiment.attack,
            ),
            transfer,
            needs=[
                lambda: experiment.classifier("standard"),
                lambda network=network: experiment.classifier(SECOND, network),
            ],
        )
        records.append(experiment.record(row, "transfer rate", rate, eps))
        for name, metric in ((SECOND, "accuracy"), ("D_det", "accuracy after D_det")):
            accuracy = experiment.stage(
                f"accuracy of {row} on {name}",
                (experiment.classifier_key(name, network), experiment.test_key),
                lambda classifier: float(np.mean(classifier.predict(X) == y)),
                needs=[lambda name=name, network=network: experiment.classifier(name, network)],
            )
            records.append(experiment.record(row, metric, accuracy))
    return records


def _draw(records, experiment):
    import matplotlib.pyplot as plt
    from scipy.stats import pearsonr, spearmanr

    eps = experiment.preset.relabel_eps
    rows = rows_of(records)
    figure, ax = plt.subplots(figsize=(5.5, 4.2), layout="constrained")
    means = []
    for row in rows:
        learned = 100 * values(records, row, "accuracy after D_det")
        transferred = 100 * values(records, row, "transfer rate", eps)
        if not (len(learned) and len(transferred)):
            continue
        spread = [cell.std(ddof=1) if len(cell) > 1 else 0 for cell in (learned, transferred)]
        ax.errorbar(
            learned.mean(), transferred.mean(), xerr=spread[0], yerr=spread[1], fmt="o", capsize=2
        )
        ax.annotate(
            row, (learned.mean(), transferred.mean()), xytext=(5, 5), textcoords="offset points"
        )
        means.append((learned.mean(), transferred.mean()))
    x, y = np.array(means).reshape(-1, 2).T
    title = f"{len(x)} architectures"
    if len(x) and np.ptp(x) and np.ptp(y):
        title += f": r = {pearsonr(x, y)[0]:.2f}, rho = {spearmanr(x, y)[0]:.2f}"
    ax.set_title(title)
    ax.set_xlabel("accuracy on the test set after training on D_det, %")
    ax.set_ylabel(f"transfer of the source's examples, %\n(L2 {eps:g})")
    ax.grid(alpha=0.4)
    ax.margins(0.15)
    ax.spines[["top", "right"]].set_visible(False)
    return {"figure3": figure}


TABLE = Table(
    name="figure3",
    title="Learning from D_det and transfer of adversarial examples (Figure 3)",
    measure=_measure,
    draw=_draw,
    note=(
        "The transfer rate is counted over test images that source and target classify correctly "
        "and on which the source is fooled. Targets are trained on D with another seed than the "
        "source, also where the architecture is the same. The paper prints no figures, only the "
        "plot."
    ),
)

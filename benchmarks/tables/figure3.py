"""Figure 3: architectures that learn more from D_det are fooled more by its source's examples."""

import numpy as np

from advfeat import transfer_rate
from experiment import LEAK
from measures import batches
from presets import PRESETS, network_name
from sets import SECOND
from tables._table import Claim, Table, chance, rows_of, values

_LEARNED = "accuracy after D_det"


def _measure(experiment):
    preset = experiment.preset
    X, y, eps = experiment.X_test, experiment.y_test, preset.relabelling.eps
    networks = preset.architectures

    def transfer(source, *others):
        settings = {**experiment.attack, **batches(source)}
        return transfer_rate(source, others, X, y, eps=eps, **settings).tolist()

    rates = experiment.stage(
        "figure3",
        "transfer to every architecture",
        (
            experiment.classifier_key("standard"),
            [experiment.classifier_key(SECOND, network) for network in networks],
            experiment.test_key,
            eps,
            experiment.attack,
        ),
        transfer,
        needs=[
            lambda: experiment.classifier("standard"),
            *(lambda n=network: experiment.classifier(SECOND, n) for network in networks),
        ],
    )
    records = []
    for i, network in enumerate(networks):
        row = network_name(network)
        records.append(experiment.record(row, "transfer rate", rates[i], eps))
        for name, metric in ((SECOND, "accuracy"), ("D_det", _LEARNED)):
            accuracy = experiment.stage(
                "figure3",
                f"accuracy of {row} on {name}",
                (experiment.classifier_key(name, network), experiment.test_key),
                lambda classifier: float(np.mean(classifier.predict(X) == y)),
                needs=[lambda name=name, network=network: experiment.classifier(name, network)],
            )
            records.append(experiment.record(row, metric, accuracy))
    return records + experiment.leak_records("D_det")


def _points(records):
    """(name, learned, transferred) of each architecture, over the seeds, in per cent."""
    points = []
    eps = next((r["eps"] for r in records if r["metric"] == "transfer rate"), None)
    for row in rows_of(records):
        learned = 100 * values(records, row, _LEARNED)
        transferred = 100 * values(records, row, "transfer rate", eps)
        if len(learned) and len(transferred):
            points.append((row, learned, transferred))
    return points


def _summary(records):
    points = _points(records)
    if not points:
        return ["No architecture was fooled on any image that counts."]
    others = _correlation(points[1:])
    shown = others and others[1] > 0
    return [
        f"Pearson's correlation {_said(points)}; without the source's own architecture "
        f"({points[0][0]}) {_said(points[1:])}. Intervals are Fisher's, over architectures, each "
        "the mean of its seeds. "
        f"The figure's claim, a positive correlation, is {'' if shown else 'not '}shown: the "
        f"latter interval {'lies above' if shown else 'is not above'} zero."
    ]


def _correlation(points):
    """Pearson's correlation and its interval of 95 %; None if there is none."""
    from scipy.stats import pearsonr

    x = [learned.mean() for _, learned, _ in points]
    y = [transferred.mean() for _, _, transferred in points]
    if len(points) < 4 or not np.ptp(x) or not np.ptp(y):
        return None
    found = pearsonr(x, y)
    return found.statistic, *found.confidence_interval()


def _said(points):
    found = _correlation(points)
    if found is None:
        return "cannot be said"
    return "r = {:.2f} (95 % interval {:.2f} to {:.2f}, n = {})".format(*found, len(points))


def _draw(records, experiment):
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.5, 4.2), layout="constrained")
    for row, learned, transferred in _points(records):
        spread = [cell.std(ddof=1) if len(cell) > 1 else 0 for cell in (learned, transferred)]
        ax.errorbar(
            learned.mean(),
            transferred.mean(),
            xerr=spread[0],
            yerr=spread[1],
            fmt="o",
            capsize=2,
            label=row,
        )
    ax.axvline(chance(experiment), color="0.5", linestyle=":", label="chance")
    ax.set_xlabel("accuracy on the test set after training on D_det, %")
    eps = experiment.preset.relabelling.eps
    ax.set_ylabel(f"transfer of the source's examples, %\n(L2 {eps:g})")
    ax.grid(alpha=0.4)
    ax.margins(0.15)
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    return {"figure3": figure}


TABLE = Table(
    name="figure3",
    title="Learning from D_det and transfer of adversarial examples (Figure 3)",
    measure=_measure,
    draw=_draw,
    main=(_LEARNED, "transfer rate", "accuracy", LEAK),
    sets=("standard", "adversarial", "D_det"),
    claims=tuple(
        Claim(f"D_det teaches {name} more than chance", (name, _LEARNED, None), "chance")
        for name in dict.fromkeys(
            network_name(n) for p in PRESETS.values() for n in p.architectures
        )
    ),
    summary=_summary,
    note=(
        "Every architecture learns the D_det of the one source. The transfer rate is counted over "
        "the test images that source and target classify correctly and on which the source is "
        "fooled; the paper does not say over which. Targets are trained on D with another seed "
        "than the source, also where the architecture is the same. The paper prints no figures, "
        "only the plot. The last row is a linear model on the robust source's features, trained "
        "on D_det: what these features alone could teach."
    ),
)

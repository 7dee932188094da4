"""Figure 10: test accuracy by epoch while training on the relabelled sets."""

from experiment import LEAK
from tables import table1
from tables._table import Claim, Table, chance, values

_SETS = table1.SETS
_FIRST, _LAST = "accuracy, first epoch", "accuracy, last epoch"


def _measure(experiment):
    records = []
    for name in _SETS:
        curve = experiment.stage(
            "train",
            f"read the epochs of {name}",
            ("figure 10", experiment.classifier_key(name), experiment.test_key),
            lambda classifier: [epoch["test_accuracy"] for epoch in classifier.history_],
            needs=[lambda name=name: experiment.classifier(name)],
        )
        records += [
            {**experiment.record(name, "accuracy", value), "at": epoch}
            for epoch, value in enumerate(curve, start=1)
        ]
        records.append(experiment.record(name, _FIRST, curve[0]))
        records.append(experiment.record(name, _LAST, curve[-1]))
        records.append(experiment.record(name, "accuracy, highest of any epoch", _highest(curve)))
        records += experiment.leak_records(name)
    return records


def _highest(curve):
    return max(curve, default=curve)  # of no epochs while it is only planned


def _draw(records, experiment):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for ax, names in zip(axes, (_SETS[:3], _SETS[3:]), strict=True):
        for name in names:
            epochs = sorted({r["at"] for r in records if r["row"] == name and r.get("at")})
            seeds = [100 * values(records, name, "accuracy", at=epoch) for epoch in epochs]
            (line,) = ax.plot(epochs, [cell.mean() for cell in seeds], label=name.split(",")[0])
            low, high = [cell.min() for cell in seeds], [cell.max() for cell in seeds]
            ax.fill_between(epochs, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        ax.axhline(chance(experiment), color="0.5", linestyle=":", label="chance")
        ax.set_xlabel("epoch (band: range of the seeds)")
        ax.set_ylim(bottom=0)
        ax.grid(alpha=0.4)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False)
    axes[0].set_title("standard source")
    axes[1].set_title("robust source")
    axes[0].set_ylabel("accuracy on the original test set, %")
    return {"figure10": figure}


TABLE = Table(
    name="figure10",
    title="Test accuracy by epoch on the relabelled sets (Figure 10)",
    measure=_measure,
    draw=_draw,
    main=(_FIRST, _LAST, "accuracy, highest of any epoch", LEAK),
    sets=("standard", "adversarial", "D_rand", "D_det"),
    claims=tuple(
        Claim(
            f"the accuracy of {name}, falls during training",
            (name, _FIRST, None),
            (name, _LAST, None),
        )
        for name in ("D_rand, robust source", "D_det, robust source")
    ),
    note=(
        "Accuracy in the precision of training. Lines are means over the seeds, bands the range. "
        "Tables report the last epoch; the highest of any epoch, which looks at the test set, is "
        "shown for comparison only. " + table1.LEAKS
    ),
)

"""Figure 10: test accuracy by epoch while training on the relabelled sets."""

import numpy as np

from experiment import LEAK
from tables import table1
from tables._table import Claim, Table, chance, values

_SETS = table1.SETS
_MIDDLE, _END = "accuracy, middle third of the epochs", "accuracy, last third"
_LAST, _HIGHEST = "accuracy, last epoch", "accuracy, highest of any epoch"
_COLOURS = {"D_rand": "C0", "D_other": "C1", "D_det": "C2"}


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
        records += [experiment.record(name, *found) for found in _numbers(list(curve))]
        records += experiment.leak_records(name)
    return records


def _numbers(curve):
    if not curve:  # it is only planned
        return []
    third = len(curve) // 3
    return [
        (_MIDDLE, float(np.mean(curve[third : len(curve) - third]))),
        (_END, float(np.mean(curve[-max(1, third) :]))),
        (_LAST, curve[-1]),
        (_HIGHEST, max(curve)),
    ]


def _draw(records, experiment):
    import matplotlib.pyplot as plt

    measured = {r["row"] for r in records if r.get("at")}
    panels = {"standard source": _SETS[:3], "robust source": _SETS[3:]}
    panels = {title: measured.intersection(names) for title, names in panels.items()}
    panels = {title: sorted(names, key=_SETS.index) for title, names in panels.items() if names}
    if not panels:
        return {"figure10": None}
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.5 * len(panels), 3.6), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for ax, (title, names) in zip(axes[0], panels.items(), strict=True):
        for name in names:
            epochs = sorted({r["at"] for r in records if r["row"] == name and r.get("at")})
            seeds = [100 * values(records, name, "accuracy", at=epoch) for epoch in epochs]
            label = name.split(",")[0]
            style = {"label": label, "color": _COLOURS[label]}
            ax.plot(epochs, [cell.mean() for cell in seeds], **style)
            low, high = [cell.min() for cell in seeds], [cell.max() for cell in seeds]
            ax.fill_between(epochs, low, high, color=style["color"], alpha=0.2, linewidth=0)
        ax.axhline(chance(experiment), color="0.5", linestyle=":", label="chance")
        ax.set_xlabel("epoch")
        ax.set_ylim(bottom=0)
        ax.grid(alpha=0.4)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False)
        ax.set_title(title)
    axes[0, 0].set_ylabel("accuracy on the original test set, %")
    return {"figure10": figure}


TABLE = Table(
    name="figure10",
    title="Test accuracy by epoch on the relabelled sets (Figure 10)",
    measure=_measure,
    draw=_draw,
    main=(_MIDDLE, _END, _LAST, _HIGHEST, LEAK),
    sets=("standard", "adversarial", "D_rand", "D_det"),
    claims=tuple(
        Claim(
            f"the accuracy of {name}, falls late in training",
            (name, _MIDDLE, None),
            (name, _END, None),
            of_epochs=True,
        )
        for name in ("D_rand, robust source", "D_det, robust source")
    ),
    note=(
        "Accuracy in the precision of training. Lines are means over the seeds, bands the range. "
        "Epochs of one training rise and fall together by several points, so one seed decides no "
        "claim. "
        "Tables report the last epoch; the highest of any epoch, which looks at the test set, is "
        "shown for comparison only. " + table1.LEAKS
    ),
)

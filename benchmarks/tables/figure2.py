"""Figure 2 and Table 7: plain training on the robust and on the non-robust training set."""

from tables._table import Table, accuracy_bars, construction_records, sample_grid

_SETS = ("D_R", "D_NR", "D_R from noise", "D_NR from noise")
_ROWS = ("standard", "adversarial", *_SETS)

PAPER = {
    (row, "robust accuracy" if eps else "accuracy", eps): value
    for row, figures in {
        "standard": (95.25, 4.49, 0.0),
        "adversarial": (90.83, 82.48, 70.90),
        "D_NR": (87.68, 0.82, 0.0),
        "D_NR from noise": (45.60, 1.50, 0.0),
        "D_R": (85.40, 48.20, 21.85),
        "D_R from noise": (84.10, 48.27, 29.40),
    }.items()
    for eps, value in zip((None, 0.25, 0.5), figures, strict=True)
}


def _measure(experiment):
    records = []
    for row in _ROWS:
        records += experiment.records(row)
        records += experiment.autoattack_records(row)
    return records + construction_records(experiment, _SETS)


def _draw(records, experiment):
    return {
        "accuracy": accuracy_bars(records, experiment, _ROWS),
        "figure2a": sample_grid(experiment, ("D_R", "D_NR")),
        "figure7": sample_grid(experiment, ("D_R from noise", "D_NR from noise")),
    }


TABLE = Table(
    name="figure2",
    title="Robust and non-robust training sets, from images and from noise (Figure 2, Table 7)",
    measure=_measure,
    draw=_draw,
    paper=PAPER,
    note=(
        "AutoAttack (torchattacks' standard version) and this library's attack on the same test "
        "images stand in the columns that name a number of images."
    ),
)

"""Inversion solvers: how close, how far moved, and how good the sets are."""

from presets import Inversion
from tables._table import Table, accuracy_bars

SOLVERS = {
    "paper, 1000 x 0.1": Inversion("paper", 1000, 0.1, 0),
    "momentum 0.7, 200 x 0.15": Inversion("momentum", 200, 0.15, 0, momentum=0.7),
    "momentum 0.9, 200 x 0.05": Inversion("momentum", 200, 0.05, 0, momentum=0.9),
    "momentum 0.9, 100 x 0.2": Inversion("momentum", 100, 0.2, 0, momentum=0.9),
    "decayed, 100 x 0.6": Inversion("decayed", 100, 0.6, 0),
}
_SETS = ("D_R", "D_NR")


def _measure(experiment):
    records = experiment.records("standard")
    for name, inversion in SOLVERS.items():
        run = experiment.variant(inversion=inversion)
        for data in _SETS:
            row = f"{data}: {name}"
            records += run.records(data, row=row)
            records += [{**record, "row": row} for record in run.set_records(data)]
    return records


def _draw(records, experiment):
    return {"solvers": accuracy_bars(records, experiment)}


TABLE = Table(
    name="solvers",
    title="Solvers for the inversion",
    measure=_measure,
    draw=_draw,
    sets=("standard", "adversarial", *_SETS),
    note=(
        "Not in the paper, which takes 1000 steps of constant length 0.1. Residual: ||g(x_r) - "
        "g(x)|| / ||g(x)||. The rows name the solver, whatever the list above says."
    ),
    prepare=lambda experiment: experiment.part(*experiment.preset.n_compared),
)

"""Inversion solvers: how close, how far moved, and how good the sets are."""

from tables._table import Table, accuracy_bars

# name: (solver, steps, step size)
SOLVERS = {
    "paper, 1000 x 0.1": ("paper", 1000, 0.1),
    "decayed, 100 x 0.6": ("decayed", 100, 0.6),
    "momentum, 200 x 0.05": ("momentum", 200, 0.05),
    "momentum, 100 x 0.2": ("momentum", 100, 0.2),
}
_SETS = ("D_R", "D_NR")


def _runs(experiment):
    for name, (solver, n_steps, step_size) in SOLVERS.items():
        yield (
            name,
            experiment.variant(
                inversion_solver=solver, inversion_steps=n_steps, inversion_step_size=step_size
            ),
        )


def _measure(experiment):
    experiment = experiment.part(*experiment.preset.n_compared)
    records = experiment.records("standard")
    for name, run in _runs(experiment):
        for data in _SETS:
            row = f"{data}: {name}"
            records += run.records(data, row=row)
            records += [
                run.record(row, metric, value) for metric, value in run.diagnostics(data).items()
            ]
    return records


def _draw(records, experiment):
    part = experiment.part(*experiment.preset.n_compared)
    return {"solvers": accuracy_bars(records, part)}


TABLE = Table(
    name="solvers",
    title="Solvers for the inversion",
    measure=_measure,
    draw=_draw,
    note=(
        "Not in the paper, which takes 1000 steps of constant length 0.1. Residual: ||g(x_r) - "
        "g(x)|| / ||g(x)||; distance moved: ||x_r - start||. With the preset small on 5,000 "
        "training images."
    ),
)

"""Inversion solvers: how close, how far moved, and how good the sets are."""

from tables._table import Table, accuracy_bars

# name: (solver, steps, step size, momentum)
SOLVERS = {
    "paper, 1000 x 0.1": ("paper", 1000, 0.1, 0.0),
    "momentum 0.7, 200 x 0.15": ("momentum", 200, 0.15, 0.7),
    "momentum 0.9, 200 x 0.05": ("momentum", 200, 0.05, 0.9),
    "momentum 0.9, 100 x 0.2": ("momentum", 100, 0.2, 0.9),
    "decayed, 100 x 0.6": ("decayed", 100, 0.6, 0.0),
}
_SETS = ("D_R", "D_NR")


def _runs(experiment):
    for name, (solver, n_steps, step_size, momentum) in SOLVERS.items():
        yield (
            name,
            experiment.variant(
                inversion_solver=solver,
                inversion_steps=n_steps,
                inversion_step_size=step_size,
                inversion_momentum=momentum,
            ),
        )


def _measure(experiment):
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
    return {"solvers": accuracy_bars(records, experiment)}


TABLE = Table(
    name="solvers",
    title="Solvers for the inversion",
    measure=_measure,
    draw=_draw,
    note=(
        "Not in the paper, which takes 1000 steps of constant length 0.1. Residual: ||g(x_r) - "
        "g(x)|| / ||g(x)||; distance moved: ||x_r - start||. The rows name the solver, whatever "
        "the line above says."
    ),
    prepare=lambda experiment: experiment.part(*experiment.preset.n_compared),
)

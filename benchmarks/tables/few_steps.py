"""Adversarial training with fewer attack steps, at the cost of a few standard epochs."""

from dataclasses import replace

from tables._table import Table, accuracy_bars

_STEPS = (7, 3, 2, 1)


def _measure(experiment):
    records = experiment.records("standard")
    for n_steps in _STEPS:
        run = experiment.variant(
            adversary=replace(experiment.preset.adversary, n_steps=n_steps, step_size=None)
        )
        row = f"adversarial, {n_steps} step{'s' if n_steps > 1 else ''}"
        records += run.records("adversarial", row=row)
        records += run.autoattack_records("adversarial", row=row)
    return records


def _draw(records, experiment):
    return {"few_steps": accuracy_bars(records, experiment)}


TABLE = Table(
    name="few-steps",
    title="Adversarial training with fewer attack steps",
    measure=_measure,
    draw=_draw,
    sets=("standard", "adversarial"),
    note=(
        "Not in the paper, which takes 7 steps of eps / 5. Steps of 2.5 eps / n here, as many as "
        "the row says, whatever the list below says. How long a training takes is measured by "
        "`benchmarks/speed.py`."
    ),
)

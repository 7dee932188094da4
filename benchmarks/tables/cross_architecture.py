"""D_R and D_NR used by other architectures than their source (Section 3.1)."""

from sets import SECOND
from tables._table import Table, accuracy_bars
from tables.figure3 import _name

_N_OTHERS = 2


def _measure(experiment):
    records = []
    for network in experiment.preset.architectures[1 : 1 + _N_OTHERS]:
        for name in (SECOND, "D_R", "D_NR"):
            row = f"{name.split(',')[0]}: {_name(network)}"
            records += experiment.records(name, network, row)
            records += experiment.autoattack_records(name, network, row)
    return records


def _draw(records, experiment):
    return {"cross_architecture": accuracy_bars(records, experiment)}


TABLE = Table(
    name="cross-architecture",
    title="D_R and D_NR used by other architectures than their source (Section 3.1)",
    measure=_measure,
    draw=_draw,
    sets=("standard", "adversarial", "D_R", "D_NR"),
    note=(
        "If the sets only encoded the weights of their source, other architectures would not "
        "inherit its robustness, or the lack of it. The paper says so without figures."
    ),
)

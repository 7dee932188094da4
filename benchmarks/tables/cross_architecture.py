"""D_R and D_NR used by other architectures than their source (Section 3.1)."""

from presets import PRESETS, network_name
from sets import SECOND
from tables._table import Table, accuracy_bars
from tables.figure2 import more_robust

_N_OTHERS = 2


def _others(preset):
    return preset.architectures[1 : 1 + _N_OTHERS]


def _row(name, network):
    return f"{name.split(',')[0]}: {network_name(network)}"


def _measure(experiment):
    records = []
    for network in _others(experiment.preset):
        for name in (SECOND, "D_R", "D_NR"):
            row = _row(name, network)
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
    claims=tuple(
        claim
        for network in dict.fromkeys(n for preset in PRESETS.values() for n in _others(preset))
        for low, text in ((SECOND, "D"), ("D_NR", "D_NR"))
        for claim in more_robust(
            f"{network_name(network)} is more robust after D_R than after {text}",
            _row("D_R", network),
            _row(low, network),
        )
    ),
    note=(
        "If the sets only encoded the weights of their source, other architectures would not "
        "inherit its robustness, or the lack of it. The paper says so without figures."
    ),
)

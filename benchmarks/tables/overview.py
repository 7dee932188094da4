"""The demo: the paper's claims in a few rows (Ilyas et al. 2019, Tables 1 and 7 in short)."""

from experiment import LEAK
from tables import figure2, table1
from tables._table import Table, accuracy_bars, sample_grid

_SETS = ("D_R", "D_NR", "D_rand", "D_other", "D_det")
_ROWS = ("standard", "adversarial", *_SETS)


def _measure(experiment):
    records = []
    for row in _ROWS:
        records += experiment.records(row)
    for row in _SETS[1:]:
        records += experiment.leak_records(row)
    for row in _SETS:
        records += experiment.set_records(row)
    return records


def _draw(records, experiment):
    return {
        "accuracy": accuracy_bars(records, experiment, _ROWS),
        "samples": sample_grid(experiment, _SETS),
    }


TABLE = Table(
    name="overview",
    title="What is left of accuracy and robustness after plain training on each set",
    measure=_measure,
    draw=_draw,
    main=("accuracy", "robust accuracy", LEAK),
    paper={k: v for k, v in {**table1.PAPER, **figure2.PAPER}.items() if k[0] in _ROWS},
    sets=_ROWS,
    prepare=lambda experiment: experiment.variant(test_eps=experiment.preset.overview_eps),
    claims=(*figure2.CLAIMS, *table1.CLAIMS),
    note=(
        "Plain training on every set, adversarial training on D in the second row. " + table1.LEAKS
    ),
)

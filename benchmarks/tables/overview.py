"""The demo: the paper's claims in six rows (Ilyas et al. 2019, Tables 1 and 7 in short)."""

from tables._table import Table, accuracy_bars, construction_records, sample_grid
from tables.figure2 import PAPER as PAPER_7
from tables.table1 import PAPER as PAPER_1

_SETS = ("D_R", "D_NR", "D_rand", "D_det")
_ROWS = ("standard", "adversarial", *_SETS)


def _measure(experiment):
    records = [record for row in _ROWS for record in experiment.records(row)]
    return records + construction_records(experiment, _SETS)


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
    paper={key: value for key, value in {**PAPER_1, **PAPER_7}.items() if key[0] in _ROWS},
    note="Plain training on every set, adversarial training on D in the second row.",
)

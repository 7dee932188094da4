"""Figure 9: samples of D_rand and D_det beside the originals."""

from experiment import LEAK
from tables import table1
from tables._table import Table, sample_grid

_SETS = table1.SETS


def _measure(experiment):
    return [
        record
        for name in _SETS
        for record in (*experiment.set_records(name), *experiment.leak_records(name))
    ]


def _draw(records, experiment):
    return {
        "standard_source": sample_grid(experiment, _SETS[:3], perturbations=True),
        "robust_source": sample_grid(experiment, _SETS[3:], perturbations=True),
    }


TABLE = Table(
    name="figure9",
    title="Samples of the relabelled sets from both sources (Figure 9)",
    measure=_measure,
    draw=_draw,
    main=("success rate", "mean distance to x", LEAK),
    counted="",  # shares of the training images
    sets=("standard", "adversarial", "D_rand", "D_det"),
    trained_on=("standard", "adversarial"),
    note=(
        "Success rate: how often the set's own source says the target. A perturbation's row shows "
        "it around grey, so many times as large as it is. " + table1.LEAKS
    ),
)

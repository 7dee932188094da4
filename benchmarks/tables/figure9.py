"""Figure 9: samples of D_rand and D_det beside the originals."""

from tables._table import Table, sample_grid

_SETS = ("D_rand", "D_det", "D_rand, robust source", "D_det, robust source")


def _measure(experiment):
    return [record for name in _SETS for record in experiment.set_records(name)]


def _draw(records, experiment):
    return {
        "standard_source": sample_grid(experiment, _SETS[:2]),
        "robust_source": sample_grid(experiment, _SETS[2:]),
    }


TABLE = Table(
    name="figure9",
    title="Samples of the relabelled sets from both sources (Figure 9)",
    measure=_measure,
    draw=_draw,
    main=("success rate", "mean distance to x"),
    sets=("standard", "adversarial", "D_rand", "D_det"),
    note="Success rate: how often the set's own source says the target.",
)

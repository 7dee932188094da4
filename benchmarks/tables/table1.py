"""Tables 1 and 9: plain training on images that all look mislabelled."""

from tables._table import Table, accuracy_bars, construction_records, sample_grid

_SETS = ("D_rand", "D_det", "D_rand, robust source", "D_det, robust source")
_ROWS = ("standard", *_SETS)

PAPER = {
    ("standard", "accuracy", None): 95.3,
    ("D_rand", "accuracy", None): 63.3,
    ("D_det", "accuracy", None): 43.7,
    ("D_rand, robust source", "accuracy", None): 25.2,
    ("D_det, robust source", "accuracy", None): 5.8,
}


def _measure(experiment):
    records = [record for row in _ROWS for record in experiment.records(row)]
    return records + construction_records(experiment, _SETS)


def _draw(records, experiment):
    return {
        "accuracy": accuracy_bars(records, experiment, _ROWS),
        "samples": sample_grid(experiment, ("D_rand", "D_det")),
    }


TABLE = Table(
    name="table1",
    title="Relabelled sets from a standard and from a robust source (Tables 1 and 9)",
    measure=_measure,
    draw=_draw,
    paper=PAPER,
    note="The accuracy is that of the last epoch on the original test set, never of the best.",
)

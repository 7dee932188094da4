"""Figure 9: samples of D_rand and D_det beside the originals."""

import numpy as np

from experiment import as_floats
from tables._table import Table, construction_records, sample_grid

_SETS = ("D_rand", "D_det", "D_rand, robust source", "D_det, robust source")


def _measure(experiment):
    records = construction_records(experiment, _SETS)
    for name in _SETS:

        def distance(constructed):
            moved = (constructed["set"].X - as_floats(experiment.X)).reshape(len(experiment.X), -1)
            return float(np.linalg.norm(moved, axis=1).mean())

        value = experiment.stage(
            f"measure {name}",
            ("figure 9", experiment.set_key(name)),
            distance,
            needs=[lambda name=name: experiment.constructed(name)],
        )
        records.append(experiment.record(name, "mean L2 distance moved", value))
    return records


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
)

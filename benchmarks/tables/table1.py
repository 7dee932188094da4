"""Tables 1 and 9: plain training on images that all look mislabelled."""

from experiment import LEAK
from tables._table import Claim, Table, accuracy_bars, sample_grid

_PLAIN = ("D_rand", "D_other", "D_det")
SETS = (*_PLAIN, *(f"{name}, robust source" for name in _PLAIN))

PAPER = {
    ("standard", "accuracy", None): 95.3,
    ("D_rand", "accuracy", None): 63.3,
    ("D_det", "accuracy", None): 43.7,
    ("D_rand, robust source", "accuracy", None): 25.2,
    ("D_det, robust source", "accuracy", None): 5.8,
}
LEAKS = (
    "D_other is made like D_rand, but its random target is never the true class. The last column "
    "is a linear model on the robust source's features, trained on the same set: what it learns "
    "from these features alone. Not each of them is robust by itself (table usefulness). In "
    "D_other and D_det no label is the class that the image shows, so such a model learns to "
    "avoid the true class and falls below chance, unless the perturbations carry robust features, "
    "too. D_other at eps 0.5 is the claim without such a leak; a D_rand of large eps would show "
    "nothing."
)


def _accuracy(row):
    return row, "accuracy", None


CLAIMS = (
    Claim("D_rand teaches more than chance", _accuracy("D_rand"), "chance"),
    Claim("D_det teaches more than chance", _accuracy("D_det"), "chance"),
    *(
        Claim(f"{name} teaches more than chance (not in the paper)", _accuracy(name), "chance")
        for name in ("D_other", "D_det, eps 1")
    ),
    *(
        Claim(
            f"{name} teaches more than the robust source's features would (not in the paper)",
            _accuracy(name),
            (name, LEAK, None),
            above_chance=True,
            one_sided=True,
        )
        for name in ("D_rand", "D_other", "D_other, eps 1", "D_det, eps 1")
    ),
)


def _rows(experiment):
    return ("standard", *SETS, *experiment.preset.more_sets)


def _measure(experiment):
    records = []
    for row in _rows(experiment):
        records += experiment.records(row)
    for row in _rows(experiment)[1:]:
        records += experiment.leak_records(row)
    for row in _rows(experiment)[1:]:
        records += experiment.set_records(row)
    return records


def _draw(records, experiment):
    return {
        "samples": sample_grid(experiment, _PLAIN),
        "accuracy": accuracy_bars(records, experiment, _rows(experiment)),
    }


TABLE = Table(
    name="table1",
    title="Relabelled sets from a standard and from a robust source (Tables 1 and 9)",
    measure=_measure,
    draw=_draw,
    main=("accuracy", LEAK),
    paper=PAPER,
    sets=("standard", "adversarial", "D_rand", "D_det"),
    claims=(
        *CLAIMS,
        *(
            Claim(
                f"{name} teaches more from the standard source than from the robust one",
                _accuracy(name),
                _accuracy(f"{name}, robust source"),
                above_chance=True,
            )
            for name in ("D_rand", "D_det")
        ),
    ),
    note=(
        "The accuracy is that of the last epoch on the original test set, never of the best. "
        + LEAKS
    ),
)

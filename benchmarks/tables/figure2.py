"""Figure 2 and Table 7: plain training on the robust and on the non-robust training set."""

from experiment import LEAK
from tables._table import Claim, Table, accuracy_bars, sample_grid

_SETS = ("D_R", "D_NR", "D_R from noise", "D_NR from noise")
_ROWS = ("standard", "adversarial", *_SETS)

PAPER = {
    (row, "robust accuracy" if eps else "accuracy", eps): value
    for row, figures in {
        "standard": (95.25, 4.49, 0.0),
        "adversarial": (90.83, 82.48, 70.90),
        "D_NR": (87.68, 0.82, 0.0),
        "D_NR from noise": (45.60, 1.50, 0.0),
        "D_R": (85.40, 48.20, 21.85),
        "D_R from noise": (84.10, 48.27, 29.40),
    }.items()
    for eps, value in zip((None, 0.25, 0.5), figures, strict=True)
}


def more_robust(text, high, low):
    """Claims that one row is more robust than another, at both radii of the paper."""
    return tuple(
        Claim(
            f"{text.format(high, low.replace('standard', 'D'))} at L2 {eps:g}",
            (high, "robust accuracy", eps),
            (low, "robust accuracy", eps),
        )
        for eps in (0.25, 0.5)
    )


_MORE_ROBUST = "plain training on {} is more robust than on {}"
CLAIMS = (
    *more_robust(_MORE_ROBUST, "D_R", "standard"),
    *more_robust(_MORE_ROBUST, "D_R", "D_NR"),
    *more_robust(
        "adversarial training is more robust than plain training on D_R", "adversarial", "D_R"
    ),
    Claim(
        "D_NR teaches more than the robust source's features would (not in the paper)",
        ("D_NR", "accuracy", None),
        ("D_NR", LEAK, None),
        one_sided=True,
    ),
)


def _measure(experiment):
    records = []
    for row in _ROWS:
        records += experiment.records(row)
    for row in _SETS:
        records += experiment.set_records(row)
    for row in _SETS[1::2]:
        records += experiment.leak_records(row)
    for row in _ROWS:
        records += experiment.autoattack_records(row)
    return records


def _draw(records, experiment):
    return {
        "figure2a": sample_grid(experiment, ("D_R", "D_NR")),
        "accuracy": accuracy_bars(records, experiment, _ROWS),
        "figure7": sample_grid(experiment, ("D_R from noise", "D_NR from noise")),
    }


TABLE = Table(
    name="figure2",
    title="Robust and non-robust training sets, from images and from noise (Figure 2, Table 7)",
    measure=_measure,
    draw=_draw,
    main=("accuracy", "robust accuracy", LEAK),
    paper=PAPER,
    sets=_ROWS,
    claims=(
        *CLAIMS,
        *more_robust(_MORE_ROBUST, "D_R from noise", "standard"),
        *more_robust(_MORE_ROBUST, "D_R from noise", "D_NR from noise"),
    ),
    note=(
        "Robust source's features: a linear model on them, trained on the same set, where "
        "measured. What it learns of D_NR need not come from non-robust features, though not each "
        "feature of a robust source is robust. AutoAttack, where it was run, is the standard "
        "version of its authors' code, on the same test images as the column beside it."
    ),
)

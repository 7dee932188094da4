"""Does bfloat16 change the results? Training and construction, and the attack, in both."""

from measures import accuracy_curve
from tables._table import Table, accuracy_bars

_ROWS = ("standard", "adversarial", "D_R", "D_NR", "D_rand")
_PRECISIONS = ("fp32", "bf16")
_EPS = (0.25, 0.5, 1.0)


def _measure(experiment):
    records = []
    runs = {precision: experiment.variant(precision=precision) for precision in _PRECISIONS}
    for row in _ROWS:
        for precision, run in runs.items():
            records += run.records(row, row=f"{row}, in {precision}")
        run = runs["fp32"]
        if row not in ("standard", "adversarial"):
            continue
        attack = {**run.attack, "precision": "bf16"}
        scores = run.stage(
            "measure",
            f"evaluate {row} in bf16",
            (run.classifier_key(row), run.test_key, _EPS, attack),
            lambda classifier, attack=attack: accuracy_curve(
                classifier, experiment.X_test, experiment.y_test, _EPS, attack
            ),
            needs=[lambda row=row, run=run: run.classifier(row)],
        )
        records += run.score_records(f"{row} in fp32, attacked in bf16", scores, _EPS)
    return records


def _draw(records, experiment):
    return {"precision": accuracy_bars(records, experiment)}


def _prepare(experiment):
    return experiment.part(*experiment.preset.n_compared).variant(test_eps=_EPS)


TABLE = Table(
    name="precision",
    title="float32 against bfloat16",
    measure=_measure,
    draw=_draw,
    sets=_ROWS,
    note=(
        'Not in the paper. "In bf16": the sources, the sets and the classifiers are made in '
        "bf16; the attack is in fp32, except where the row says otherwise. Examples are always "
        "judged in fp32. A difference that is smaller than the spread over the seeds, or than two "
        "standard errors of the test set, shows nothing."
    ),
    prepare=_prepare,
)

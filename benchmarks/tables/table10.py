"""Table 10: whether models trained on D_det predict the original or the shifted labels."""

import numpy as np

from experiment import LEAK
from tables._table import Claim, Table, bars_of

_ROWS = ("D_det", "D_det, robust source")
_SHIFTED = "accuracy, labels shifted by one"


def _measure(experiment):
    records = []
    for row in _ROWS:

        def score(classifier):
            classes = classifier.classes_
            shifted = classes[(np.searchsorted(classes, experiment.y_test) + 1) % len(classes)]
            found = classifier.predict(experiment.X_test)
            return {
                "accuracy": float(np.mean(found == experiment.y_test)),
                _SHIFTED: float(np.mean(found == shifted)),
            }

        scores = experiment.stage(
            "table10",
            f"evaluate {row} on both labellings",
            ("table 10", experiment.classifier_key(row), experiment.test_key),
            score,
            needs=[lambda row=row: experiment.classifier(row)],
        )
        records += [
            experiment.record(row, metric, scores[metric]) for metric in ("accuracy", _SHIFTED)
        ]
        records += experiment.leak_records(row)
    return records


TABLE = Table(
    name="table10",
    title="D_det models on the test set and on the test set relabelled (y + 1) mod C (Table 10)",
    measure=_measure,
    draw=bars_of("table10", "accuracy", _SHIFTED),
    main=("accuracy", _SHIFTED, LEAK),
    sets=("standard", "adversarial", "D_det"),
    claims=(
        Claim(
            "D_det teaches the original labels rather than the shifted ones",
            ("D_det", "accuracy", None),
            ("D_det", _SHIFTED, None),
            exclusive=True,
        ),
        Claim(
            "D_det from the robust source teaches the shifted labels rather than the original",
            ("D_det, robust source", _SHIFTED, None),
            ("D_det, robust source", "accuracy", None),
            exclusive=True,
        ),
    ),
    paper={
        ("D_det", "accuracy", None): 43.7,
        ("D_det", _SHIFTED, None): 16.2,
        ("D_det, robust source", "accuracy", None): 5.8,
        ("D_det, robust source", _SHIFTED, None): 65.5,
    },
    note=(
        "Both kinds of features are in D_det: the perturbation speaks for the label that the "
        "image carries, the image itself for the class before it. The last column is a linear "
        "model on the robust source's features, trained on the same set."
    ),
)

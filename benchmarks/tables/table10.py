"""Table 10: whether models trained on D_det predict the original or the shifted labels."""

import numpy as np

from tables._table import Table, simple_bars

_ROWS = ("D_det", "D_det, robust source")


def _measure(experiment):
    records = []
    for row in _ROWS:

        def score(classifier):
            classes = classifier.classes_
            shifted = classes[(np.searchsorted(classes, experiment.y_test) + 1) % len(classes)]
            found = classifier.predict(experiment.X_test)
            return {
                "accuracy": float(np.mean(found == experiment.y_test)),
                "accuracy, labels shifted by one": float(np.mean(found == shifted)),
            }

        scores = experiment.stage(
            f"evaluate {row} on both labellings",
            ("table 10", experiment.classifier_key(row), experiment.test_key),
            score,
            needs=[lambda row=row: experiment.classifier(row)],
        )
        records += [
            experiment.record(row, metric, scores[metric])
            for metric in ("accuracy", "accuracy, labels shifted by one")
        ]
    return records


def _draw(records, experiment):
    metrics = [("accuracy", None), ("accuracy, labels shifted by one", None)]
    return {"table10": simple_bars(records, metrics, "accuracy on the test set, %")}


TABLE = Table(
    name="table10",
    title="D_det models on the test set and on the test set relabelled (y + 1) mod C (Table 10)",
    measure=_measure,
    draw=_draw,
    paper={
        ("D_det", "accuracy", None): 43.7,
        ("D_det", "accuracy, labels shifted by one", None): 16.2,
        ("D_det, robust source", "accuracy", None): 5.8,
        ("D_det, robust source", "accuracy, labels shifted by one", None): 65.5,
    },
    note=(
        "Both kinds of features are in D_det: the perturbation speaks for the label that the "
        "image carries, the image itself for the class before it."
    ),
)

"""Table 8: where the robustness of plain training on D_R is lost."""

from sklearn.frozen import FrozenEstimator

from measures import accuracy_curve, some_of
from tables._table import Claim, Table, simple_bars

_EPS = 0.25


def _inverted_test_set(experiment):
    """Images with the robust source's features of the test images."""
    constructor = experiment.constructor("D_R")
    X_test = experiment.X_test
    begun = experiment.starts("D_R", len(X_test))

    def invert(source):
        constructor.set_params(estimator=FrozenEstimator(source))
        constructor.fit(experiment.X, experiment.y)
        return constructor.set_params(init=X_test[begun]).invert(X_test)

    return experiment.stage(
        "table8",
        "construct D_R of the test set",
        ("inverted test set", experiment.set_key("D_R"), experiment.test_key),
        invert,
        needs=[lambda: experiment.classifier("adversarial")],
    )


def _measure(experiment):
    n = len(experiment.X_test)

    def score(classifier, constructed, inverted_test):
        parts = {
            "robust training set": some_of(n, constructed["set"], experiment.y),
            "robust test set": (inverted_test, experiment.y_test),
            "standard test set": (experiment.X_test, experiment.y_test),
        }
        return {
            name: accuracy_curve(classifier, X, y, (_EPS,), experiment.attack)
            for name, (X, y) in parts.items()
        }

    scores = experiment.stage(
        "table8",
        "evaluate D_R on three sets",
        ("table 8", experiment.classifier_key("D_R"), experiment.test_key, experiment.attack),
        score,
        needs=[
            lambda: experiment.classifier("D_R"),
            lambda: experiment.constructed("D_R"),
            lambda: _inverted_test_set(experiment),
        ],
    )
    return [
        record
        for row in ("robust training set", "robust test set", "standard test set")
        for record in experiment.score_records(row, scores[row], (_EPS,))
    ]


def _draw(records, experiment):
    metrics = [("accuracy", None), ("robust accuracy", _EPS)]
    return {"table8": simple_bars(records, metrics, "accuracy, %")}


TABLE = Table(
    name="table8",
    title="Plain training on D_R, evaluated on three sets (Table 8)",
    measure=_measure,
    draw=_draw,
    sets=("adversarial", "D_R"),
    claims=(
        Claim(
            "more robust on D_R's own training images than on those of its test set",
            ("robust training set", "robust accuracy", _EPS),
            ("robust test set", "robust accuracy", _EPS),
        ),
        Claim(
            "more robust on D_R's test set than on the original one",
            ("robust test set", "robust accuracy", _EPS),
            ("standard test set", "robust accuracy", _EPS),
        ),
    ),
    paper={
        ("robust training set", "robust accuracy", _EPS): 77.33,
        ("robust test set", "robust accuracy", _EPS): 62.49,
        ("standard test set", "robust accuracy", _EPS): 48.27,
    },
    note=(
        "The robust training set is what the classifier learned from; the robust test set has the "
        "robust source's features of the test images, each from another test image as its start. "
        "Of the training set as many images are attacked as the test set has. The paper's 48.27 "
        "for the standard test set is Table 7's figure for D_R from noise; from images it is "
        "48.20."
    ),
)

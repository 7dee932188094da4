"""Wallace's control: a model learns from another's unperturbed mistakes.

Eric Wallace, "Learning from Incorrectly Labeled Data", in "A Discussion of 'Adversarial Examples
Are Not Bugs, They Are Features'", Distill 2019.
"""

from dataclasses import replace

import numpy as np

from sets import SECOND
from tables._table import Claim, Table, bars_of

_MISTAKES = "own unperturbed mistakes"


def _measure(experiment):
    X, y = experiment.X, experiment.y
    row = experiment.preset.training["standard"]
    weak = experiment.unfitted("standard", row=replace(row, epochs=experiment.preset.early_epochs))
    again = experiment.unfitted(SECOND)

    def fit():
        found = weak.fit(X, y).predict(X)
        wrong = found != y
        results = {
            "training images": int(wrong.sum()),
            "accuracy of the model that errs": weak.score(experiment.X_test, experiment.y_test),
        }
        if len(np.unique(found[wrong])) > 1:  # else there is nothing to learn
            again.fit(X[wrong], found[wrong])
            results["accuracy"] = again.score(experiment.X_test, experiment.y_test)
        return results

    found = experiment.stage(
        "wallace",
        "learn from own mistakes",
        (
            experiment.preset.early_epochs,
            experiment.classifier_key("standard"),
            experiment.classifier_key(SECOND),
            experiment.test_key,
        ),
        fit,
    )
    records = [experiment.record(_MISTAKES, metric, found[metric]) for metric in found]
    if records:
        epochs = experiment.preset.early_epochs
        records.append(experiment.record(_MISTAKES, "its epochs", epochs))
    return records


TABLE = Table(
    name="wallace",
    title="Learning from a model's own mistakes, unperturbed (Wallace, Distill 2019)",
    measure=_measure,
    draw=bars_of("wallace", "accuracy", "accuracy of the model that errs"),
    main=("accuracy", "accuracy of the model that errs", "its epochs", "training images"),
    sets=("standard",),
    claims=(
        Claim(
            "labels that are all wrong teach more than chance (Wallace)",
            (_MISTAKES, "accuracy", None),
            "chance",
        ),
    ),
    note=(
        'Eric Wallace, "Learning from Incorrectly Labeled Data" (Distill 2019): a model trained '
        "for a few epochs labels the training images that it gets wrong, and a fresh model learns "
        "these images with these labels. He showed that it predicts the test set far above "
        "chance, so that learning from wrong labels needs no adversarial perturbation: it is a "
        "kind of distillation. The fewer the images, the less they can teach."
    ),
)

"""D_det made from slightly robust sources.

Jacob Springer, Melanie Mitchell, Garrett Kenyon, "Adversarial Perturbations Are Not So Weird:
Entanglement of Robust and Non-Robust Features in Neural Network Classifiers", 2021.
"""

from dataclasses import replace

from making import construct_relabelled
from tables._table import Claim, Table, bars_of


def _row(eps):
    return f"source trained at eps {eps:g}"


def _measure(experiment):
    records = []
    for eps in experiment.preset.slight_eps:
        row = _row(eps)
        step = experiment.preset.adversary.step_size
        scale = eps / experiment.preset.adversary.eps
        run = experiment.variant(
            adversary=replace(
                experiment.preset.adversary, eps=eps, step_size=step and step * scale
            )
        )
        source = "adversarial" if eps else "standard"
        name = "D_det, robust source" if eps else "D_det"

        def taught(source, run=run, name=name):
            constructed = construct_relabelled(run.constructor(name), source, run.X, run.y)
            clf = run.unfitted(name).set_params(callbacks=None).fit(constructed["set"], run.y)
            return {
                "accuracy after D_det": clf.score(run.X_test, run.y_test),
                "success rate": constructed["success rate"],
                "accuracy of the source": source.score(run.X_test, run.y_test),
            }

        found = run.stage(
            "springer",
            f"D_det from a source at eps {eps:g}",
            (run.set_key(name), run.classifier_key(name), run.test_key),
            taught,
            needs=[lambda run=run, source=source: run.classifier(source)],
        )
        records += [experiment.record(row, metric, found[metric]) for metric in found]
    return records


TABLE = Table(
    name="springer",
    title="D_det from slightly robust sources (Springer, Mitchell and Kenyon 2021)",
    measure=_measure,
    draw=bars_of("springer", "accuracy after D_det", "accuracy of the source"),
    main=("accuracy after D_det", "success rate", "accuracy of the source"),
    sets=("standard", "adversarial", "D_det"),
    claims=tuple(
        Claim(
            f"D_det teaches more from a source trained at eps {eps:g} than from a standard one",
            (_row(eps), "accuracy after D_det", None),
            (_row(0), "accuracy after D_det", None),
            above_chance=True,
        )
        for eps in (0.1, 0.25)  # slightly robust: Table 1 is about those of the paper's eps
    ),
    note=(
        "Jacob Springer, Melanie Mitchell and Garrett Kenyon, 'Adversarial Perturbations Are Not "
        "So Weird' (2021): features of classifiers that were trained to withstand very small "
        "perturbations transfer better than those of plain training, so a set made from such a "
        "source teaches more, and one made from a very robust source less, since it keeps its "
        "predictions. Beside the accuracy stands the success rate: the share of samples that the "
        "source takes for their new label. Where rows lie below chance, a lower accuracy says "
        "that the new label was learned from the class that the image shows, not what the "
        "perturbations teach."
    ),
)

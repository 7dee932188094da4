"""Perturbations on images of pure noise.

Soichiro Kumano, Hiroshi Kera, Toshihiko Yamasaki, "Theoretical Understanding of Learning from
Adversarial Perturbations", ICLR 2024.
"""

import numpy as np

from experiment import seed_of, settings_of
from making import construct_relabelled
from measures import VERBOSE
from tables._table import Claim, Table, bars_of


def _row(eps):
    return f"noise images, perturbed at eps {eps:g}" if eps else "noise images, as they are"


def _measure(experiment):
    X, y, seed = experiment.X, experiment.y, seed_of(experiment.seed, 70)
    records = []
    for eps in (0.0, *experiment.preset.noise_eps):
        relabeler = experiment.relabeler("random", eps, random_state=seed, verbose=VERBOSE)
        clf = experiment.unfitted("D_rand").set_params(callbacks=None)

        def taught(source, relabeler=relabeler, clf=clf):
            noise = np.random.default_rng(seed).uniform(size=X.shape).astype(np.float32)
            made = construct_relabelled(relabeler, source, noise, y)
            return {
                "accuracy": clf.fit(made["set"], y).score(experiment.X_test, experiment.y_test),
                "success rate": made["success rate"],
            }

        found = experiment.stage(
            "kumano",
            f"learn from noise perturbed at eps {eps:g}",
            (
                settings_of(relabeler),
                settings_of(clf),
                experiment.classifier_key("standard"),
                experiment.test_key,
            ),
            taught,
            needs=[lambda: experiment.classifier("standard")],
        )
        records += [experiment.record(_row(eps), metric, found[metric]) for metric in found]
    return records


TABLE = Table(
    name="kumano",
    title="Learning from perturbations on images of pure noise (Kumano, Kera and Yamasaki 2024)",
    measure=_measure,
    draw=bars_of("kumano", "accuracy"),
    main=("accuracy", "success rate"),
    sets=("standard", "D_rand"),
    claims=tuple(
        Claim(
            f"noise perturbed at eps {eps:g} teaches more than noise as it is (Kumano et al.)",
            (_row(eps), "accuracy", None),
            (_row(0), "accuracy", None),
            above_chance=True,
        )
        for eps in (0.5, 1.0, 2.0)
    ),
    note=(
        "Soichiro Kumano, Hiroshi Kera and Toshihiko Yamasaki, 'Theoretical Understanding of "
        "Learning from Adversarial Perturbations' (ICLR 2024): images of uniform noise, each "
        "perturbed towards a random class and labelled as that class, teach a classifier that "
        "predicts natural images, so perturbations carry the features of their class by "
        "themselves. As many images of noise as the training set has. A source tends to say one "
        "class of all such noise, so that without a perturbation the success rate is that class's "
        "share of the random targets."
    ),
)

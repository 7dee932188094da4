"""Controls for D_R and D_NR: what the distance that images are moved does by itself."""

import numpy as np

from making import construct_inverted
from measures import as_floats, inverted_set, mean_distance
from resuming import trained
from sets import SETS
from tables._table import Table, accuracy_bars
from tables.figure2 import more_robust

_FAR = "D_NR moved as far as D_R"
_NOISE = {  # row: share of D_R's distance, and name in the titles of stages, which are their keys
    "D with noise, as far as D_R": (1.0, "D with noise of that size"),
    "D with noise, half as far": (0.5, "D with half of that noise"),
    "D with noise, a quarter as far": (0.25, "D with a quarter of that noise"),
}
_SHARES = {1.0: "its distance", 0.5: "half its distance", 0.25: "a quarter of its distance"}
_MOVED = "mean distance to the start"
_ROWS = ("standard", "D_R", "D_NR", _FAR, *_NOISE)
_N_TRIED = 256  # images on which the length of the steps is chosen
_N_SCALED = 8  # corrections of the noise's length
_FACTORS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)


def _far_set(experiment):
    """D_NR with longer steps, so that its images end as far from their starts as D_R's."""
    X, y, begun = experiment.X, experiment.y, experiment.starts("D_NR")
    step = experiment.preset.inversion.step_size

    def construct(source, robust):
        target = robust[_MOVED]
        gaps = {}
        for factor in _FACTORS:
            tried = experiment.constructor("D_NR").set_params(step_size=factor * step)
            rows = begun[:_N_TRIED] % min(_N_TRIED, len(X))  # starts among the images tried
            part = X[:_N_TRIED]
            found = construct_inverted(tried, source, part, y[:_N_TRIED], rows)
            gaps[factor] = abs(mean_distance(found["set"], part[rows]) - target)
        best = min(gaps, key=gaps.get)
        constructor = experiment.constructor("D_NR").set_params(step_size=best * step)
        found = construct_inverted(constructor, source, X, y, begun)
        return {**found, "factor of the step size": best}

    key = ("far", experiment.set_key("D_NR"), experiment.set_key("D_R"), _FACTORS, _N_TRIED)
    needs = [lambda: experiment.classifier("standard"), lambda: experiment.said_of("D_R")]
    return key, lambda: experiment.stage("controls", f"construct {_FAR}", key, construct, needs)


def _noisy_set(experiment, row):
    """D with Gaussian noise, by which images move a share of what D_R's were moved on average."""
    share, name = _NOISE[row]

    def construct(robust):
        return {"set": _noisy(experiment.X, share * robust[_MOVED], experiment.seed)}

    key = ("noisy", experiment.set_key("D_R"), _N_SCALED, *([share] if share != 1 else []))
    needs = [lambda: experiment.said_of("D_R")]
    return key, lambda: experiment.stage("controls", f"construct {name}", key, construct, needs)


def _noisy(X, distance, seed):
    """Images with Gaussian noise, clipped, that are moved by a mean distance."""
    noise = np.random.default_rng(seed).normal(size=X.shape).astype(np.float32)
    scale = distance / np.linalg.norm(noise.reshape(len(X), -1), axis=1).mean()
    for _ in range(_N_SCALED):
        noisy = np.clip(as_floats(X) + np.float32(scale) * noise, 0, 1)
        scale *= distance / mean_distance(noisy, X)  # what clipping took away
    return noisy


def _measure(experiment):
    records = []
    for row in _ROWS[:3]:
        records += experiment.records(row)
        if row in SETS:
            records += experiment.set_records(row)
    for row, (set_key, constructed), trained_as, begun in (
        (_FAR, _far_set(experiment), "D_NR", experiment.starts("D_NR")),
        *((row, _noisy_set(experiment, row), "standard", None) for row in _NOISE),
    ):
        unfitted = experiment.unfitted(trained_as)
        _, name = _NOISE.get(row, (None, row))
        key = (set_key, experiment.classifier_key(trained_as))

        def train(folder, made, unfitted=unfitted):
            clf = trained(unfitted, made["set"], experiment.y, folder)
            return experiment.evaluated(folder, clf)

        scores = experiment.stage(
            "controls",
            f"train and evaluate {name}",
            (key, experiment.test_key, experiment.preset.test_eps, experiment.attack),
            train,
            needs=[constructed],
            in_parts=True,
        )

        def diagnose(made, standard, robust, begun=begun):
            said = {name: value for name, value in made.items() if name != "set"}
            X, y = experiment.X, experiment.y
            return {**said, **inverted_set(made["set"], X, y, begun, standard, robust)}

        said = experiment.stage(
            "controls",
            f"diagnose {name}",
            ("said", set_key, *map(experiment.classifier_key, ("standard", "adversarial"))),
            diagnose,
            needs=[
                constructed,
                lambda: experiment.classifier("standard"),
                lambda: experiment.classifier("adversarial"),
            ],
        )
        records += experiment.score_records(row, scores, experiment.preset.test_eps)
        records += [experiment.record(row, metric, said[metric]) for metric in said]
    return records


def _draw(records, experiment):
    return {"controls": accuracy_bars(records, experiment, _ROWS)}


TABLE = Table(
    name="controls",
    title="Controls for D_R: how much of its robustness is the distance moved",
    measure=_measure,
    draw=_draw,
    sets=("standard", "adversarial", "D_R", "D_NR"),
    claims=(
        *more_robust("D_R is more robust than a D_NR that is moved as far", "D_R", _FAR),
        *(
            claim
            for row, (share, _) in _NOISE.items()
            for claim in more_robust(
                f"D_R is more robust than D with noise of {_SHARES[share]}", "D_R", row
            )
        ),
    ),
    note=(
        "Not in the paper. Training on noisy images also makes a network robust. Is it the "
        "distance alone by which images are moved? D_NR is made once more with steps "
        "so long that its images end "
        f"about as far from their starts as D_R's (of {len(_FACTORS)} factors that which comes "
        f"nearest on {_N_TRIED} training images; how far they are moved stands below). And D is "
        "learned with Gaussian noise that moves its images "
        "as far, clipping included, half as far and a quarter: weaker noise costs less accuracy. "
        "The noise of an image is drawn once; D with it is trained for as many epochs as D."
    ),
)

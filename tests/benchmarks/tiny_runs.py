"""Runs of reproduce.py that take seconds, and what they leave behind."""

import csv
import dataclasses
import json

from architectures import small_vgg
from presets import PRESETS, Adversary, Inversion, Relabelling, Training

TINY = dataclasses.replace(
    PRESETS["digits"],
    training=dict.fromkeys(
        PRESETS["digits"].training, Training(0.2, 64, "one-cycle", "none", epochs=1)
    ),
    adversary=Adversary(1.0, 1, 0.2),
    inversion=Inversion("decayed", 2, 0.6, noise_steps=2),
    relabelling=Relabelling(0.5, 2, None),
    attack_steps=1,
    autoattack_samples=5,
    curve_samples=5,
    curve_steps=(1, 2),
    usefulness_samples=20,
    usefulness_steps=1,
    grid_epochs=1,
    grid_sets=("D_R", "D_det"),
    early_epochs=1,
    slight_eps=(0.0, 0.5),
    noise_eps=(2.0,),
    n_compared=(60, 20),
    architectures=("small_cnn", "small_resnet", small_vgg),
)
# Two classes only: AutoAttack, in particular, takes long for many.
CLASSES = (3, 8)


def rows_of(folder):
    with open(folder / "table.csv") as file:
        return list(csv.DictReader(file))


def _check_stages(path):
    """The page alone holds what was measured for it."""
    report = json.loads(path.read_text())
    made = ("train-", "construct-")
    without = [name for name, stage in report["stages"].items() if "value" not in stage]
    assert [name for name in without if not name.startswith(made)] == []
    assert all(report["makers"][stage["maker"]] for stage in report["stages"].values())

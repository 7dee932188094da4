"""The preset "paper" against the tables of the paper, setting by setting."""

import json
import re

import numpy as np
import pytest

from advfeat.datasets import RestrictedImageNet
from differences import differences
from experiment import Experiment
from presets import PRESETS, RESTRICTED_IMAGENET, of_settings
from report import _plain
from sets import SETS
from tables._table import Table

CIFAR, IMAGENET = "CIFAR", "Restricted ImageNet"
PAPER = {CIFAR: PRESETS["paper"], IMAGENET: RESTRICTED_IMAGENET["paper"]}

# Table 2: ImageNet's classes, inclusive.
TABLE_2 = {
    "dog": (151, 268),
    "cat": (281, 285),
    "frog": (30, 32),
    "turtle": (33, 37),
    "bird": (80, 100),
    "primate": (365, 382),
    "fish": (389, 397),
    "crab": (118, 121),
    "insect": (300, 319),
}
# Table 3: learning rate, batch size, drop of the learning rate, augmentation, momentum, decay.
TABLE_3 = {
    ("D_R", CIFAR): (0.1, 128, True, True, 0.9, 5e-4),
    ("D_R", IMAGENET): (0.01, 128, False, True, 0.9, 5e-4),
    ("D_NR", CIFAR): (0.1, 128, True, True, 0.9, 5e-4),
    ("D_rand", CIFAR): (0.01, 128, True, True, 0.9, 5e-4),
    ("D_rand", IMAGENET): (0.01, 256, False, False, 0.9, 5e-4),
    ("D_det", CIFAR): (0.1, 128, True, False, 0.9, 5e-4),
    ("D_det", IMAGENET): (0.05, 256, False, False, 0.9, 5e-4),
}
# Table 4: eps of adversarial training. Appendix C.3: 7 steps of eps / 5.
TABLE_4 = {CIFAR: 0.5, IMAGENET: 3.0}
# Table 5: step size and iterations of the inversion; footnote 11: 10,000 from noise.
TABLE_5 = {CIFAR: (0.1, 1000), IMAGENET: (1.0, 2000)}
# Table 6: eps, step size, iterations of the relabelling.
TABLE_6 = {CIFAR: (0.5, 0.1, 100), IMAGENET: (3.0, 0.1, 100)}


@pytest.mark.parametrize(("name", "data"), TABLE_3)
def test_table_3(name, data):
    row = PAPER[data].training_of(name)
    drop, augmented = row.lr_schedule == "step", row.augmentation == "paper"
    assert row.lr_schedule in ("step", "constant") and row.augmentation in ("paper", "none")
    found = (row.lr, row.batch_size, drop, augmented, row.momentum, row.weight_decay)
    assert found == TABLE_3[name, data]


@pytest.mark.parametrize("data", PAPER)
def test_tables_4_to_6_and_appendix_c(data):
    preset = PAPER[data]
    attack = preset.adversary
    assert (attack.eps, attack.n_steps) == (TABLE_4[data], 7)
    assert attack.step_size == pytest.approx(attack.eps / 5)
    how = preset.inversion
    assert (how.solver, how.step_size, how.n_steps) == ("paper", *TABLE_5[data])
    how = preset.relabelling
    assert (how.eps, how.step_size, how.n_steps) == TABLE_6[data]
    assert preset.network == "resnet50" and preset.n_train is None and preset.n_test is None
    assert preset.precision == "fp32"


def test_from_noise_and_what_the_estimators_get():
    preset = PRESETS["paper"]
    assert preset.inversion.noise_steps == 10_000
    run = Experiment(preset, (None,) * 4, 0, None)
    adversarial = run.unfitted("adversarial")
    assert adversarial.step_size == pytest.approx(0.1) and adversarial.n_steps == 7
    assert run.constructor("D_R from noise").n_steps == 10_000
    assert run.constructor("D_R").n_steps == 1000 and run.constructor("D_R").solver == "paper"
    relabeler = run.constructor("D_det")
    assert (relabeler.eps, relabeler.n_steps, relabeler.step_size) == (0.5, 100, 0.1)
    imagenet = Experiment(RESTRICTED_IMAGENET["paper"], (None,) * 4, 0, None)
    assert imagenet.constructor("D_rand").step_size == 0.1
    assert imagenet.unfitted("D_det").batch_size == 256


def test_table_2(imagenet):
    found = RestrictedImageNet(imagenet, split="val")
    of_class = {}
    for path, target in zip(found.paths, found.targets.tolist(), strict=True):
        of_class.setdefault(found.classes[target], []).append(path)
    sizes = {name.lower(): len(paths) for name, paths in of_class.items()}
    assert sizes == {name: last - first + 1 for name, (first, last) in TABLE_2.items()}


def of(names, **options):
    """A table of these sources and sets."""
    return Table("x", "x", None, None, sets=names, **options)


def test_the_papers_own_settings_differ_in_nothing():
    data = {"label": "CIFAR-10", "original": True, "n_train": 50_000, "n_test": 10_000}
    names = ("standard", "adversarial", *SETS)
    assert differences(PRESETS["paper"], of(names), data) == []
    # A folder of images may have been compressed, whatever its label says.
    (line,) = differences(PRESETS["paper"], of(names), {**data, "original": False})
    assert line.startswith("data: 50,000 training and 10,000 test images of CIFAR-10 (paper")


@pytest.mark.parametrize("preset", ["digits", "small", "cifar"])
def test_every_other_preset_says_in_what_it_differs(preset):
    data = {"label": "other", "original": False, "n_train": 10, "n_test": 5}
    names = ("standard", "adversarial", "D_R", "D_R from noise", "D_rand")
    said = "\n".join(differences(PRESETS[preset], of(names), data))
    assert f"network: {PRESETS[preset].network} (paper: resnet50)" in said
    assert "(paper: 1000 steps of 0.1, gradient of the identity at all units)" in said
    assert "(paper: 10000 steps of 0.1, gradient of the identity at all units)" in said
    assert re.search(r"relabelling: L2 eps 0.5, 30 steps of 0.1( \(eps / 5\))? \(paper: L2", said)
    assert ("adversarial training: L2 eps 1" in said) == (preset == "digits")
    assert "D_rand: lr" in said or "D_rand," in said


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_the_settings_on_a_page_say_the_same_as_their_preset(preset):
    data = {"label": "other", "original": False, "n_train": 10, "n_test": 5}
    names = ("standard", "adversarial", *SETS)
    settings = json.loads(json.dumps(_plain(preset)))
    assert differences(of_settings(settings), of(names), data) == differences(
        preset, of(names), data
    )
    settings["inversion"]["n_steps"] += 1
    assert differences(of_settings(settings), of(names), data) != differences(
        preset, of(names), data
    )


def test_only_what_a_table_uses_is_listed():
    data = {"label": "other", "original": False, "n_train": 10, "n_test": 5}
    said = "\n".join(differences(PRESETS["digits"], of(("standard", "D_rand")), data))
    assert "inversion" not in said and "adversarial" not in said and "relabelling" in said
    table = of(("standard", "D_rand"), trained_on=("standard",))
    said = "\n".join(differences(PRESETS["digits"], table, data))
    assert "training on D:" in said and "D_rand" not in said and "relabelling" in said


def test_nobody_trains_on_d_rand_with_the_rate_that_fails():
    """At lr 0.1 ResNets stay at chance on D_rand; the paper takes 0.01."""
    for name, preset in PRESETS.items():
        if name != "digits":  # another network, chosen on held-out images
            assert preset.training_of("D_rand").lr <= 0.05
            assert preset.training_of("D_other") == preset.training_of("D_rand")


def test_every_step_of_adversarial_training_is_eps_over_5():
    for preset in (*PRESETS.values(), *RESTRICTED_IMAGENET.values()):
        adversary = preset.adversary
        if preset is PRESETS["cifar"]:  # few steps, for time: each is half of eps
            assert (adversary.n_steps, adversary.step_size) == (3, adversary.eps / 2)
            continue
        assert adversary.step_size == pytest.approx(adversary.eps / 5)
        assert adversary.n_steps == 7


def test_the_precision_of_the_attack_is_a_setting_where_it_is_not_the_default():
    """Results that are kept stay valid where it is."""
    data = [np.zeros((4, 1, 8, 8)), np.arange(4), np.zeros((2, 1, 8, 8)), np.arange(2)]
    for name, preset in PRESETS.items():
        attack = Experiment(preset, data, 0, None).attack
        assert attack.get("precision") == {"cifar": "bf16"}.get(name)

"""benchmarks/reproduce.py from data to table, its stages, and what it says of bad input."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

import reproduce
from presets import PRESETS, Preset
from stages import Stages

TINY = dataclasses.replace(
    PRESETS["digits"],
    epochs=1,
    epochs_relabelled=1,
    adversarial_epochs=1,
    train_steps=1,
    inversion_steps=2,
    relabel_steps=2,
    attack_steps=1,
)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(reproduce.PRESETS, "digits", TINY)
    load = reproduce.load_digits

    def load_few(**options):
        X, y = load(**options)
        return X[:150], y[:150]

    monkeypatch.setattr(reproduce, "load_digits", load_few)


@pytest.mark.filterwarnings("ignore:The features were matched poorly")
def test_digits_from_data_to_table_and_again_from_the_stages(tiny, tmp_path, capsys):
    arguments = ["--preset", "digits", "--seeds", "2", "--out", str(tmp_path)]
    reproduce.main(arguments)
    first = capsys.readouterr().out
    assert "[32/32]" in first and "kept" not in first
    assert "L2" in first and "eps 0.5" in first and "chance 0.10" in first
    with open(tmp_path / "table.csv") as file:
        rows = list(csv.DictReader(file))
    for name in ("standard", "adversarial", "D_R", "D_NR", "D_rand", "D_det"):
        mine = [row for row in rows if row["trained_on"] == name]
        assert {row["seed"] for row in mine} == {"0", "1"}
        assert [row["eps"] for row in mine if row["metric"] == "robust accuracy"] == [
            "0.25",
            "0.5",
        ] * 2
    report = json.loads((tmp_path / "results.json").read_text())
    assert report["settings"]["inversion_steps"] == 2
    assert {"torch", "advfeat", "python"} <= set(report["versions"])
    for name in ("samples.png", "accuracy.png", "robustness.png"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 200

    (tmp_path / "stages" / "seed-0-train-standard-x.1.partial").write_bytes(b"half written")
    reproduce.main(arguments)
    again = capsys.readouterr().out
    assert again.count("kept") == 32
    # The time is that of the computation, not of reading it again.
    same = json.loads((tmp_path / "results.json").read_text())
    assert {**same, "versions": None} == {**report, "versions": None}


def test_stages_are_keyed_by_what_decides_them(tmp_path, capsys):
    calls = []

    def compute():
        calls.append(1)
        return len(calls)

    stages = Stages(tmp_path, 3)
    assert stages.get("a", {"eps": 1}, compute) == 1
    assert stages.get("a", {"eps": 1}, compute) == 1
    assert stages.get("a", {"eps": 2}, compute) == 2
    out = capsys.readouterr().out
    assert "[3/3]" in out and out.count("kept") == 1


def test_an_interrupted_stage_leaves_nothing_behind(tmp_path):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Stages(tmp_path, 1).get("a", 1, interrupted)
    assert list(tmp_path.iterdir()) == []
    assert Stages(tmp_path, 1).get("a", 1, lambda: "whole") == "whole"


def test_a_full_disk_is_one_clear_error(tmp_path, monkeypatch):
    import stages

    kept = Stages(tmp_path, 2)
    kept.get("first", 1, lambda: 1)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stages.joblib, "dump", full)
    with pytest.raises(SystemExit, match="No space left.*finished before it are intact"):
        kept.get("second", 1, lambda: 2)
    assert kept.get("first", 1, lambda: 99) == 1


@pytest.mark.filterwarnings("ignore:The features were matched poorly")
def test_image_folder(tmp_path, monkeypatch, capsys):
    rng = np.random.RandomState(0)
    for split, n in (("train", 12), ("test", 6)):
        for label in ("cat", "dog"):
            folder = tmp_path / "pets" / split / label
            folder.mkdir(parents=True)
            for i in range(n):
                pixels = rng.randint(256, size=(16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    small: Preset = dataclasses.replace(TINY, network="small_resnet", n_train=20, n_test=8)
    monkeypatch.setitem(reproduce.PRESETS, "small", small)
    options = ["--preset", "small", "--data", str(tmp_path / "pets"), "--out", str(tmp_path)]
    reproduce.main([*options, "--validate"])
    out = capsys.readouterr().out
    assert "VALIDATION" in out and "16 training and 4 test images" in out


@pytest.mark.parametrize(
    "arguments", [["--data", "nowhere"], ["--preset", "huge"], ["--seeds", "0"]]
)
def test_bad_arguments_end_with_a_message(arguments, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        reproduce.main([*arguments, "--out", str(tmp_path)])
    said = f"{stop.value} {capsys.readouterr().err}"
    assert arguments[1] in said
    assert not (tmp_path / "results.json").exists()

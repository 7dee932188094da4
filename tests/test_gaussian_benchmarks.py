"""The Gaussian figures and the timing, each as one command at a small size."""

import json

import figure4
import figure13
import gaussian_speed
from PIL import Image


def test_figure4(tmp_path, capsys):
    figure4.main(["--samples", "100", "--out", str(tmp_path)])
    with Image.open(tmp_path / "figure4.png") as picture:
        assert min(picture.size) > 500
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    budgets, worst = zip(*[(row[0], float(row[-1])) for row in rows[1:5]], strict=True)
    assert budgets == ("0", "1", "5", "10")
    assert list(worst) == sorted(worst)  # Theorem 3


def test_figure13(tmp_path, capsys):
    figure13.main(["--samples", "100", "--out", str(tmp_path)])
    with Image.open(tmp_path / "figure13.png") as picture:
        assert min(picture.size) > 500
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    attacked = {row[0]: float(row[-1]) for row in rows[1:6]}
    assert attacked.pop("robust") > 0.9
    assert len(attacked) == 4 and max(attacked.values()) < 0.1


def test_gaussian_speed(tmp_path, capsys):
    gaussian_speed.main(["--features", "5", "--repeats", "1", "--out", str(tmp_path)])
    report = json.loads((tmp_path / "gaussian_speed.json").read_text())
    assert [record["data"] for record in report["records"]] == [
        "identity",
        "mixed",
        "spread",
        "rotated",
    ]
    assert all(record["fit_ratio"] > 0 for record in report["records"])
    assert str(tmp_path) not in (tmp_path / "gaussian_speed.json").read_text()

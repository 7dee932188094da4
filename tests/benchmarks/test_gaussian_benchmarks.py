"""The Gaussian figures and the timing, each as one command at a small size."""

import csv
import json

import pytest
from PIL import Image

import gaussian_speed
import reproduce


def run(name, folder):
    reproduce.main([name, "--out", str(folder)])
    with Image.open(folder / name / f"{name}.png") as picture:
        assert min(picture.size) > 300
    with open(folder / name / "table.csv") as file:
        rows = list(csv.DictReader(file))
    return {(row["row"], row["metric"]): float(row["value"]) for row in rows}


@pytest.mark.long
def test_figure4(tmp_path):
    values = run("figure4", tmp_path)
    worst = [values[f"eps {eps}", "smallest cosine for any means"] for eps in (0, 1, 5, 10)]
    assert worst == sorted(worst) and worst[0] < worst[-1]  # Theorem 3


def test_figure13(tmp_path):
    values = run("figure13", tmp_path)
    attacked = {row: value for (row, metric), value in values.items() if "robust" in metric}
    assert attacked.pop("robust Gaussian likelihood") > 0.9
    assert len(attacked) == 4 and max(attacked.values()) < 0.1


def test_gaussian_speed(tmp_path):
    gaussian_speed.main(["--features", "5", "--repeats", "1", "--out", str(tmp_path)])
    report = json.loads((tmp_path / "gaussian_speed.json").read_text())
    kinds = ["identity", "mixed", "spread", "rotated"]
    assert [record["data"] for record in report["records"]] == kinds
    assert all(record["fit_ratio"] > 0 for record in report["records"])
    assert str(tmp_path) not in (tmp_path / "gaussian_speed.json").read_text()
    text = gaussian_speed.page(report)
    assert all(f"| {kind} | 5 |" in text for kind in kinds)
    assert f"{report['settings']['date']}, commit {report['settings']['commit']}" in text

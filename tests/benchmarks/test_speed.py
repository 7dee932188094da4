"""benchmarks/speed.py at its smallest: it runs, and equal work reaches an equal loss."""

import json

import pytest

import speed
import speed_page


@pytest.mark.long
def test_smoke(tmp_path, capsys):
    speed.main(["--smoke", "--device", "cpu", "--out", str(tmp_path)])
    assert "/ advfeat" in capsys.readouterr().out
    report = json.loads((tmp_path / "speed.json").read_text())
    assert str(tmp_path) not in json.dumps(report)
    tasks = {}
    for row in report["rows"]:
        tasks.setdefault(row["task"], {})[row["contender"]] = row
        assert row["ms_min"] <= row["ms"] <= row["ms_max"]
    pgd, measures, inversion, adversarial, standard = tasks.values()
    assert {"advfeat", "tuned loop", "plain torch", "torchattacks", "foolbox", "ART"} <= set(pgd)
    for contenders in (pgd, inversion):
        for row in contenders.values():
            assert row["loss"] == pytest.approx(contenders["advfeat"]["loss"], rel=1e-3)
    assert {"advfeat", "tuned loop", "plain torch"} <= set(adversarial)
    assert set(standard) == {"advfeat", "bare loop"}
    other = {**report, "settings": {**report["settings"], "precision": "bf16"}}
    text = speed_page.page([report, other])
    assert text.count("## small_cnn") == 1 and "--precision bf16`" in text
    row = pgd["torchattacks"]
    low, high = (f"{row[key]:.{2 if row['ms'] >= 1 else 3}f}" for key in ("ms_min", "ms_max"))
    assert f"| {low} to {high} | {row['ratio']:.2f} |" in text
    alone = speed_page.page([report])
    assert len({line.count("|") for line in alone.splitlines() if line.startswith("| L2")}) == 1

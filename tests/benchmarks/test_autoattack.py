"""benchmarks/autoattack.py at its smallest: it runs, and its table says what it measured."""

import json

import numpy as np
import pytest

pytest.importorskip("torchattacks")
import autoattack  # noqa: E402


def test_smoke(tmp_path, capsys):
    autoattack.main(["--smoke", "--out", str(tmp_path)])
    report = json.loads((tmp_path / "autoattack.json").read_text())
    assert [row["norm"] for row in report["rows"]] == ["L2", "Linf"] * 2
    for row in report["rows"]:
        assert 0 <= row["ours"] <= row["clean"] <= 1
        assert 0 <= row["AutoAttack"] <= row["clean"]
    page = (tmp_path / "README.md").read_text()
    assert page.count("\n| ") == 5
    assert str(tmp_path) not in page + json.dumps(report)
    assert "attack standard in L2 0.5" in capsys.readouterr().out
    autoattack.main(["--smoke", "--out", str(tmp_path)])  # all of it is kept
    assert " s\n" not in capsys.readouterr().out
    assert json.loads((tmp_path / "autoattack.json").read_text()) == report


def test_a_part_of_the_models_leaves_the_table_to_the_whole(tmp_path, monkeypatch, capsys):
    """Several processes share the work so."""

    def compare(classifier, X, y, norm, eps, smoke):
        return {
            "eps": eps,
            "clean": 1.0,
            "ours": 0.6,
            "AutoAttack": 0.36 if norm == 2 else 0.6,
            "seconds ours": 1.0,
            "seconds AutoAttack": 10.0 if norm == 2 else 4.0,
            "hardware": {"device": "CPU", "processor": "fast", "threads": 1},
        }

    def curve(classifier, X, y, *, norm, eps_values, verbose):
        return 0.8 * np.exp2(-np.divide(eps_values, 0.4 if norm == 2 else 0.05))

    monkeypatch.setattr(autoattack, "_compare", compare)
    monkeypatch.setattr(autoattack, "robust_accuracy_curve", curve)
    monkeypatch.setattr(autoattack, "MODELS", ("standard", "D_NR"))
    monkeypatch.setattr(autoattack.Experiment, "classifier", lambda self, name: name)
    arguments = ["--samples", "100", "--out", str(tmp_path)]
    for name in ("standard", "D_NR"):
        autoattack.main([*arguments, "--models", name])
        assert not (tmp_path / "README.md").exists()
    assert "| D_NR | Linf | 0.12 | 100.0 | 60.0 | 60.0 | 1.0 | 4.0 |" in capsys.readouterr().out
    monkeypatch.setattr(autoattack, "_compare", None)
    autoattack.main([*arguments])
    page = (tmp_path / "README.md").read_text()
    assert "in 6 of 12 rows; the largest difference is +24.0 points" in page
    assert "Ours took 14 % of AutoAttack's seconds in all, and at most a fifth in 6 of 12" in page
    assert "the largest share is 25 %, 1.0 s for 4.0 s" in page
    assert page.count("| D_NR |") == 8 and "--samples 100` on fast, 1 threads" in page
    rows = json.loads((tmp_path / "autoattack.json").read_text())["rows"]
    halves = {row["norm"]: row["eps"] for row in rows if row["left"] == 0.5}
    assert halves == pytest.approx({"L2": 0.4, "Linf": 0.05}, rel=0.05)  # to the grid's accuracy
    assert all(row["eps"] == float(f"{row['eps']:.1e}") for row in rows)

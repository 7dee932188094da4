"""benchmarks/autoattack.py at its smallest: it runs, and its table says what it measured."""

import json

import pytest

pytest.importorskip("torchattacks")
import autoattack  # noqa: E402


def test_smoke(tmp_path):
    autoattack.main(["--smoke", "--out", str(tmp_path)])
    report = json.loads((tmp_path / "autoattack.json").read_text())
    assert [row["norm"] for row in report["rows"]] == ["L2", "Linf"] * 2
    for row in report["rows"]:
        assert 0 <= row["ours"] <= row["clean"] <= 1
        assert 0 <= row["AutoAttack"] <= row["clean"]
    page = (tmp_path / "README.md").read_text()
    assert page.count("\n| ") == 5
    assert str(tmp_path) not in page + json.dumps(report)

"""The page on networks of one's own: all of its code runs."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "own_network.md"


@pytest.mark.slow
def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    for code in blocks:
        exec(compile(code, str(PAGE), "exec"), namespace)
    assert len(blocks) == 8
    assert namespace["after"] > namespace["before"]

"""The page on scaling out shows what it says."""

import doctest
import pathlib

import pytest

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "scaling.md").read_text()
ON_RAY = "## ray\n"


def run(text):
    test = doctest.DocTestParser().get_doctest(text, {}, "scaling.md", None, None)
    results = doctest.DocTestRunner().run(test)
    assert results.attempted and not results.failed


@pytest.mark.long
def test_page_without_ray():
    pytest.importorskip("distributed")
    before, after = PAGE.split(ON_RAY)
    run(before + after[after.index("\n## ") :])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")
def test_ray():
    pytest.importorskip("ray")
    before, after = PAGE.split(ON_RAY)
    begin = before.index("## Processes")
    run(before[:begin] + after[: after.index("\n## ")])

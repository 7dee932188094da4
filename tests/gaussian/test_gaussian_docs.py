"""The page on the Gaussian theory shows what it says."""

import doctest
import pathlib

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "gaussian.md"


def test_page():
    results = doctest.testfile(str(PAGE), module_relative=False)
    assert results.attempted > 20 and not results.failed

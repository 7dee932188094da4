"""The pages say what runs: every block of Python code, every link between files, every name."""

import contextlib
import doctest
import importlib
import io
import os
import re
import tempfile
import warnings
from pathlib import Path

import pytest

from advfeat import datasets
from advfeat.utils._estimator import SITE

ROOT = Path(__file__).parents[1]
# They train and invert with the default settings, as a reader would: the default tests run them
# on few samples.
SLOW = ("README.md", "docs/index.md", "docs/sources.md")
LONG = ("docs/evaluation.md", "docs/own_network.md", "docs/usefulness.md")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^([`]{3,})python[^\n]*\n(.*?)^\1\s*$", re.M | re.S)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def _name(path):
    return str(path.relative_to(ROOT))


def _blocks(text):
    """(line number, code) of every block of Python."""
    for match in FENCE.finditer(text):
        yield text.count("\n", 0, match.start()) + 2, match.group(2)


def _with_code():
    for path in PAGES:
        if next(_blocks(path.read_text(encoding="utf-8")), None):
            name = _name(path)
            mark = "slow" if name in SLOW else "long" if name in LONG else None
            yield pytest.param(path, id=name, marks=[getattr(pytest.mark, mark)] if mark else [])


def run_page(path):
    """Run the blocks of a page one after the other, in one namespace; count them."""
    namespace, count = {"__name__": "__main__"}, 0
    for line, code in _blocks(path.read_text(encoding="utf-8")):
        count += 1
        if ">>> " in code:
            test = doctest.DocTestParser().get_doctest(code, namespace, path.name, str(path), line)
            output = io.StringIO()
            runner = doctest.DocTestRunner(optionflags=FLAGS)
            runner.run(test, out=output.write, clear_globs=False)
            namespace.update(test.globs)
            assert not runner.failures, output.getvalue()
        else:
            # The line numbers of the page, for the traceback.
            exec(compile("\n" * (line - 1) + code, str(path), "exec"), namespace)  # noqa: S102
    return count


@pytest.mark.parametrize("path", list(_with_code()))
def test_code_runs_and_leaves_the_working_folder_as_it_is(path, tmp_path, monkeypatch):
    here, temporary = tmp_path / "here", tmp_path / "temporary"
    here.mkdir()
    temporary.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")
        assert run_page(path) > 0
    assert not list(here.iterdir())


@pytest.mark.long
@pytest.mark.parametrize("name", SLOW)
def test_code_of_the_long_pages_runs_on_few_samples(name, tmp_path, monkeypatch):
    whole = datasets.load_digits

    def few(**settings):
        return tuple(array[:60] for array in whole(**settings))

    monkeypatch.setattr(datasets, "load_digits", few)
    test_code_runs_and_leaves_the_working_folder_as_it_is(ROOT / name, tmp_path, monkeypatch)


@pytest.mark.parametrize("code", ["raise RuntimeError", ">>> 1 + 1\n3", "1 +"])
def test_wrong_code_is_found(code, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"```python\nx = 1\n```\n\n```python\n{code}\n```\n")
    with pytest.raises((RuntimeError, AssertionError, SyntaxError)):
        run_page(page)


def test_blocks_share_a_namespace(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nx = 1\n```\n\n```python\n>>> x\n1\n>>> y = 2\n```\n```python\ny\n```\n"
    )
    assert run_page(page) == 3


@pytest.mark.parametrize(
    "path",
    [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md"],
    ids=_name,
)
def test_links_lead_somewhere(path):
    text = re.sub(
        r"^([`:]{3,}).*?^\1\s*$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S
    )
    broken = []
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if re.match(r"\w+:", target):
            continue
        found = path.parent / target
        if path.parent.name == "docs" and target.startswith("results/"):
            found = ROOT / "benchmarks" / target  # where conf.py takes these pages from
        if not found.exists():
            broken.append(target)
    assert not broken


def test_every_public_name_is_in_the_reference():
    text = (ROOT / "docs" / "api.rst").read_text(encoding="utf-8")
    listed, module = set(), None
    for line in text.splitlines():
        if line.startswith(".. currentmodule::"):
            module = line.split()[-1]
        elif re.fullmatch(r"   \w+", line):
            listed.add(getattr(importlib.import_module(module), line.strip()))
    missing = [
        f"{package}.{name}"
        for package in ("advfeat", "attacks", "construction", "datasets", "metrics", "optim",
                        "plotting", "gaussian", "classifiers")
        for module in [importlib.import_module(
            package if package == "advfeat" else f"advfeat.{package}")]
        for name in module.__all__
        if callable(getattr(module, name)) and getattr(module, name) not in listed
    ]  # fmt: skip
    assert not missing


def test_the_html_view_links_to_the_site_that_the_metadata_name():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'Documentation = "{SITE}"' in text


def test_pages_are_in_the_contents():
    listed = set()
    for path in PAGES:
        for block in re.findall(r"```\{toctree\}\n(.*?)```", path.read_text("utf-8"), re.S):
            listed.update(block.split())
    pages = {path.stem for path in PAGES if path.parent.name == "docs"}
    assert not pages - listed - {"index"}


EXAMPLES = sorted((ROOT / "examples").glob("*/*.py"))  # others need a launcher


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=_name)
def test_example_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = path.read_text(encoding="utf-8")
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")
        exec(compile(code, str(path), "exec"), {"__name__": "__main__"})  # noqa: S102


def test_examples_are_named_for_the_gallery():
    assert len(EXAMPLES) >= 10
    assert all(path.name.startswith("plot_") for path in EXAMPLES)
    assert all((path.parent / "README.txt").exists() for path in EXAMPLES)


def test_committed_pictures_are_small():
    pictures = (ROOT / "benchmarks" / "results").rglob("*.png")
    assert all(os.path.getsize(path) < 150_000 for path in pictures)

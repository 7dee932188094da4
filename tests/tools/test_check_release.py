"""What is published under a tag agrees with it, and is whole away from the repository."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "check_release.py"
FILES = ["advfeat/_version.py", "CITATION.cff", "CHANGELOG.md", "pyproject.toml", "README.md"]

spec = importlib.util.spec_from_file_location("check_release", SCRIPT)
check_release = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_release)


@pytest.fixture
def release(tmp_path):
    """A copy of the project's files as they would be for the release 1.2.0."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    change(tmp_path, "advfeat/_version.py", r'"[^"]+"$', '"1.2.0"')
    change(
        tmp_path, "CITATION.cff", r"^version: .*$",
        "version: 1.2.0\ndate-released: 2030-01-31\nrepository-code: https://example.org/advfeat",
    )  # fmt: skip
    change(tmp_path, "CHANGELOG.md", r"^## \[.*$", "## [1.2.0] - 2030-01-31")
    change(
        tmp_path, "pyproject.toml", r"^\[project.urls\]$",
        '[project.urls]\nRepository = "https://example.org/advfeat"',
    )  # fmt: skip
    change(tmp_path, "README.md", r"\]\((?!\w+:|#)", "](https://example.org/advfeat/")
    change(tmp_path, "README.md", check_release.UNRELEASED, "see PyPI")
    return tmp_path


def change(root, name, pattern, by):
    text = (root / name).read_text(encoding="utf-8")
    changed = re.sub(pattern, by.replace("\\", r"\\"), text, flags=re.M)
    assert changed != text
    (root / name).write_text(changed, encoding="utf-8")


def test_a_whole_release_has_nothing_against_it(release):
    assert check_release.missing(release, "v1.2.0") == []


@pytest.mark.parametrize(
    ("name", "pattern", "by", "message"),
    [
        ("advfeat/_version.py", "1.2.0", "1.2.1", "The tag is v1.2.0, but .* says 1.2.1"),
        ("advfeat/_version.py", "1.2.0", "1.2.0.dev0", "no version to publish"),
        ("CITATION.cff", "^version: 1.2.0", "version: 1.1.0", "'version: 1.2.0'"),
        ("CITATION.cff", "^date-released.*$", "", "date-released"),
        ("CITATION.cff", "^repository-code.*$", "", "repository-code"),
        ("CHANGELOG.md", "2030-01-31", "soon", "heading"),
        ("pyproject.toml", "^Repository.*$", "", "Repository's address"),
        ("README.md", r"\Z", "\n[more](docs/more.md)\n", "1 links .*docs/more.md"),
        ("README.md", r"\Z", '\n<img src="docs/a.png">\n', "1 links .*docs/a.png"),
        ("README.md", r"\Z", "\n[more]: docs/more.md\n", "1 links .*docs/more.md"),
        ("README.md", r"\Z", "nothing has been released yet", "says that nothing"),
    ],
)
def test_what_does_not_agree_is_told(release, name, pattern, by, message):
    change(release, name, pattern, by)
    found = check_release.missing(release, "v1.2.0")
    assert any(re.search(message, problem) for problem in found), found


def test_the_command_fails_for_another_tag():
    done = subprocess.run(
        [sys.executable, SCRIPT, "v0.0.0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "The tag is v0.0.0" in done.stdout


def test_citation_and_changelog_name_the_version_to_come():
    version = check_release.version_of(ROOT).removesuffix(".dev0")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {version}\n" in citation
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[(Unreleased\] {version}|{version}\] - )", changelog, re.M)


def test_the_workflow_asks_before_it_publishes():
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    assert text.index("check_release.py") < text.index("gh-action-pypi-publish")

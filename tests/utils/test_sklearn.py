"""scikit-learn's private names are imported in one place."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted(
    path
    for folder in ("advfeat", "benchmarks", "examples")
    for path in (ROOT / folder).rglob("*.py")
    if path.name != "_sklearn.py"
)


def _private_imports(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            package, *rest = name.split(".")
            if package == "sklearn" and any(part.startswith("_") for part in rest):
                yield name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_private_import(path):
    assert not list(_private_imports(path.read_text(encoding="utf-8")))


def test_private_imports_are_found():
    text = "from sklearn.base import _fit_context\nimport sklearn.utils._tags\nimport sklearn\n"
    assert list(_private_imports(text)) == ["sklearn.base._fit_context", "sklearn.utils._tags"]

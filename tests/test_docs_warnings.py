"""docs/warnings.md names every warning of the package, once, under its category."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECTION = re.compile(r"^## .*?\n\n`(?:[\w.]+\.)?(\w+Warning)`(.*?)(?=^## |\Z)", re.M | re.S)


def named():
    """Give the words and the category of each line of a table."""
    text = (ROOT / "docs" / "warnings.md").read_text(encoding="utf-8")
    return [
        (words, category)
        for category, section in SECTION.findall(text)
        for words in re.findall(r'^\| "([^"]+)" \|', section, re.M)
    ]


def raised():
    """Give the text and the category of each call that warns, with gaps for what varies."""
    for path in sorted((ROOT / "advfeat").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for call in ast.walk(tree):
            if not isinstance(call, ast.Call):
                continue
            name = ast.unparse(call.func)
            if name not in ("warn_caller", "_warn"):
                continue
            message = call.args[0]
            parts = message.values if isinstance(message, ast.JoinedStr) else [message]
            text = "".join(
                str(part.value) if isinstance(part, ast.Constant) else "..." for part in parts
            )
            if text == "... ...":  # _warn itself, which adds an advice
                continue
            kinds = [ast.unparse(arg) for arg in call.args[1:]] or ["UserWarning"]
            yield text, "EvaluationWarning" if name == "_warn" else kinds[0]


def test_all_warn_at_the_line_of_the_caller():
    for path in sorted((ROOT / "advfeat").rglob("*.py")):
        names = {
            ast.unparse(call.func)
            for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(call, ast.Call)
        }
        assert ("warnings.warn" in names) == (path.name == "_warnings.py"), path


def test_every_warning_is_on_the_page():
    lines, calls = named(), list(raised())
    assert len(lines) == len(calls) > 15
    for text, category in calls:
        found = [(words, kind) for words, kind in lines if words in text]
        assert [kind for _, kind in found] == [category], text

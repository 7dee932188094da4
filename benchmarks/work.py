"""Version numbers of the kinds of work that stages do, and the code that each number stands for.

    python benchmarks/work.py                  # which kinds have other code than was recorded
    python benchmarks/work.py --same           # it still gives the same results: record it
    python benchmarks/work.py --raise train    # it gives other results: raise the number as well,
                                               # and those of all that is made of them

A stage is kept under its kind's number, so that it outlives renamed files and new comments, but
not new results. ``work.json`` holds for each kind its number and a fingerprint of its code: of
the syntax trees, without docstrings, annotations and comments. A test fails when they differ.
"""

import argparse
import ast
import functools
import hashlib
import json
from pathlib import Path

from files import write_text

_ROOT = Path(__file__).resolve().parents[1]
_TABLE = Path(__file__).with_name("work.json")

_EVERYWHERE = ("benchmarks/experiment.py", "benchmarks/making.py", "benchmarks/measures.py")
_TRAINING = ("advfeat.classifiers", "benchmarks/architectures.py", "benchmarks/resuming.py")
# Where the work of each kind begins: modules of the library, with all that they import from it,
# and files of the benchmarks, each by itself. Tables train and construct in stages of their own.
KINDS = {
    "train": (*_EVERYWHERE, *_TRAINING, "benchmarks/tables/figure10.py"),
    "invert": (*_EVERYWHERE, "advfeat.construction._inverter"),
    "relabel": (*_EVERYWHERE, "advfeat.construction._relabeler"),
    "measure": (*_EVERYWHERE, "advfeat.metrics", "benchmarks/resuming.py"),
    "autoattack": (*_EVERYWHERE, "advfeat.metrics", "benchmarks/autoattack.py"),
    **{
        table: (
            *_EVERYWHERE,
            *_TRAINING,
            "advfeat.construction",
            "advfeat.metrics",
            f"benchmarks/tables/{table}.py",
        )
        for table in (
            "controls",
            "figure3",
            "figure8",
            "goh",
            "kumano",
            "leakage",
            "springer",
            "table3",
            "table8",
            "table10",
            "usefulness",
            "wallace",
        )
    },
}
# Sources make sets, and sets train: with one of these everything is made anew.
_CHAIN = {"train", "invert", "relabel"}
# Decide nothing that a stage keeps. Data count by their values.
_APART = ("advfeat.datasets", "advfeat.gaussian", "advfeat.plotting")


@functools.cache
def number(kind):
    """Version number of a kind of work."""
    return _recorded()[kind]["number"]


def changed():
    """Kinds whose code is not what was recorded with their number."""
    known = _recorded()
    return [kind for kind in KINDS if known.get(kind, {}).get("code") != fingerprint(kind)]


def fingerprint(kind):
    """Hash of the code of a kind of work."""
    files = set()
    for begin in KINDS[kind]:
        files |= {_ROOT / begin} if begin.endswith(".py") else _imported(begin)
    digest = hashlib.sha256()
    for code in sorted(_code(path) for path in files):  # by content: names may change
        digest.update(code.encode())
    return digest.hexdigest()[:16]


def _recorded():
    return json.loads(_TABLE.read_text()) if _TABLE.exists() else {}


@functools.cache
def _imported(begin):
    """Files of a module and of everything that it imports from the library."""
    seen, todo = {}, [begin]
    while todo:
        module = todo.pop()
        path = _path(module)
        if module in seen or path is None or module.startswith(_APART):
            continue
        seen[module] = path
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("advfeat."):
                todo += [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
    return frozenset(seen.values())


def _path(module):
    stem = _ROOT.joinpath(*module.split("."))
    found = (path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.exists())
    return next(found, None)


@functools.cache
def _code(path):
    return _text(ast.parse(path.read_text(encoding="utf-8")))


def _text(node):
    """Syntax tree as text that is the same under every version of Python."""
    if isinstance(node, list):
        return "[" + ",".join(map(_text, node)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.Import | ast.ImportFrom):
        return "import"  # where a thing stands decides nothing
    fields = []
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "type_comment", "kind", "ctx"):
            continue
        if name == "body" and isinstance(value, list) and value and _is_docstring(value[0]):
            value = value[1:]
        if value in (None, []) and not isinstance(node, ast.Constant):
            continue  # newer versions have fields that older ones lack
        fields.append(f"{name}={_text(value)}")
    return f"{type(node).__name__}({','.join(fields)})"


def _is_docstring(node):
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def main(arguments=None):
    """Say what changed, or record it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--same", action="store_true", help="record the code as it is")
    parser.add_argument("--raise", dest="higher", nargs="+", choices=KINDS, default=[])
    options = parser.parse_args(arguments)
    if not (options.same or options.higher):
        print("Other code than recorded:", ", ".join(changed()) or "none")
        return
    known, higher = _recorded(), KINDS if _CHAIN & set(options.higher) else options.higher
    table = {
        kind: {
            "number": known.get(kind, {}).get("number", 1) + (kind in higher),
            "code": fingerprint(kind),
        }
        for kind in KINDS
    }
    write_text(_TABLE, json.dumps(table, indent=1) + "\n")
    number.cache_clear()
    print("Recorded:", ", ".join(f"{kind} {entry['number']}" for kind, entry in table.items()))


if __name__ == "__main__":
    main()

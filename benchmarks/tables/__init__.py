"""The paper's tables and figures, and comparisons of settings; one module each, in order."""

import importlib

# id on the command line: module
_MODULES = {
    "overview": "overview",
    "figure2": "figure2",
    "table7": "figure2",
    "table1": "table1",
    "table9": "table1",
    "table8": "table8",
    "table10": "table10",
    "figure3": "figure3",
    "figure4": "figure4",
    "figure8": "figure8",
    "figure9": "figure9",
    "figure10": "figure10",
    "figure11": "figure11",
    "figure12": "figure11",
    "figure13": "figure13",
    "table3": "table3",
    "usefulness": "usefulness",
    "cross-architecture": "cross_architecture",
    "controls": "controls",
}
_COMPARISONS = {"precision": "precision", "solvers": "solvers", "few-steps": "few_steps"}
ALL = tuple(_MODULES)  # what "all" stands for; the comparisons would take as long again
NAMES = (*_MODULES, *_COMPARISONS)


def table(name):
    """Return the `Table` of an id."""
    module = (_MODULES | _COMPARISONS)[name]
    return importlib.import_module(f"tables.{module}").TABLE

"""The paper's tables and figures, one module each; `TABLES` lists them in order."""

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
    "precision": "precision",
    "solvers": "solvers",
    "few-steps": "few_steps",
}
NAMES = tuple(_MODULES)


def table(name):
    """Return the `Table` of an id."""
    return importlib.import_module(f"tables.{_MODULES[name]}").TABLE

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
    "leakage": "leakage",
}
_DEBATE = {"goh": "goh", "wallace": "wallace", "springer": "springer", "kumano": "kumano"}
_COMPARISONS = {"precision": "precision", "solvers": "solvers", "few-steps": "few_steps"}
GROUPS = {
    "all": (*_MODULES, *_DEBATE),  # the comparisons would take as long again
    "debate": tuple(_DEBATE),  # what others found after the paper
}
NAMES = (*_MODULES, *_DEBATE, *_COMPARISONS)


def table(name):
    """Return the `Table` of an id."""
    module = (_MODULES | _DEBATE | _COMPARISONS)[name]
    return importlib.import_module(f"tables.{module}").TABLE


def in_order():
    """Every table once, in order."""
    return list({found.name: found for found in map(table, NAMES)}.values())

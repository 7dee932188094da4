"""Every public name has types, and a description of each parameter."""

import importlib
import inspect
import re

import pytest

PACKAGES = [
    "advfeat",
    "advfeat.attacks",
    "advfeat.classifiers",
    "advfeat.construction",
    "advfeat.datasets",
    "advfeat.gaussian",
    "advfeat.metrics",
    "advfeat.optim",
    "advfeat.plotting",
]
# Names that say all there is to say in their type, everywhere.
SELF_EXPLAINING = {"*", "**kwargs"}


def _public_names():
    seen = {}
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            value = getattr(module, name)
            if callable(value) and id(value) not in seen:
                seen[id(value)] = pytest.param(value, id=f"{package}.{name}")
    return list(seen.values())


def _functions(value):
    """The function, or the public methods of the class that advfeat defines."""
    if not inspect.isclass(value):
        return [value]
    methods = [
        getattr(value, name)
        for name in dir(value)
        if name in ("__init__", "__call__") or not name.startswith("_")
    ]
    return [
        method
        for method in methods
        if callable(method) and (getattr(method, "__module__", None) or "").startswith("advfeat")
    ]


@pytest.mark.parametrize("value", _public_names())
def test_annotated(value):
    missing = []
    for function in _functions(value):
        signature = inspect.signature(function)
        missing += [
            f"{function.__qualname__}({name})"
            for name, parameter in signature.parameters.items()
            if name != "self" and parameter.annotation is parameter.empty
        ]
        if signature.return_annotation is signature.empty:
            missing.append(f"{function.__qualname__} -> ?")
    assert not missing


@pytest.mark.parametrize("value", _public_names())
def test_parameters_described(value):
    documents = [value] if inspect.isclass(value) else []
    documents += [function for function in _functions(value) if function.__doc__]
    missing = []
    for document in documents:
        name = getattr(document, "__qualname__", str(document))
        missing += [f"{name}: {entry}" for entry in _undescribed(inspect.getdoc(document))]
    assert not missing


@pytest.mark.parametrize("value", _public_names())
def test_has_an_example(value):
    # Some names are shown in the example of their counterpart.
    assert re.search(r"^ *>>> |^ *See `\w+`\.$", value.__doc__, re.M)


def _undescribed(doc):
    """Entries of the section Parameters that have a name and a type but no description."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\S[^\n]*\n-+\n|\Z)", doc, re.M | re.S)
    lines = (section.group(1) if section else "").split("\n")
    for line, below in zip(lines, lines[1:], strict=False):
        entry = line and not line.startswith(" ")
        if entry and not below.startswith(" ") and line not in SELF_EXPLAINING:
            yield line


def test_undescribed_parameters_are_found():
    doc = "Do.\n\nParameters\n----------\na : int\nb : int\n    Said.\nc : int\n\nReturns\n---\nd"
    assert list(_undescribed(doc)) == ["a : int", "c : int"]

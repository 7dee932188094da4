"""Every public name has types, and its docstring describes each parameter and result."""

import ast
import importlib
import inspect
import re

import pytest

from advfeat import AdversarialClassifier, StandardClassifier

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
# For whom the repository's files are not there.
OUR_FILES = re.compile(r"\b(benchmarks|docs|examples|tests)/|\b\w+\.md\b")


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


def _documented(value):
    """The class, if it is one, and what `_functions` gives, but for __init__."""
    functions = [function for function in _functions(value) if function.__name__ != "__init__"]
    return [value] * inspect.isclass(value) + functions


@pytest.mark.parametrize("value", _public_names())
def test_parameters_described(value):
    missing = []
    for document in _documented(value):
        missing += [
            f"{document.__qualname__}: {entry}" for entry in _undescribed(inspect.getdoc(document))
        ]
    assert not missing


@pytest.mark.parametrize("value", _public_names())
def test_documented_parameters_are_those_of_the_signature(value):
    wrong = {}
    for document in _documented(value):
        entries = _entries(inspect.getdoc(document), "Parameters")
        found = list(_faults(entries, inspect.signature(document)))
        if found:
            wrong[document.__qualname__] = found
    assert not wrong


@pytest.mark.parametrize("value", _public_names())
def test_results_are_documented(value):
    missing = [
        function.__qualname__
        for function in _documented(value)
        if not inspect.isclass(function)
        and inspect.signature(function).return_annotation not in (None, "None")
        and not _section(inspect.getdoc(function), "Returns")
    ]
    assert not missing


@pytest.mark.parametrize("value", _public_names())
def test_attributes_that_are_properties_are_described_in_one_place(value):
    # numpydoc shows the first sentence of a property's own docstring instead of the class's text.
    names = _entries(value.__doc__, "Attributes") if inspect.isclass(value) else []
    properties = {name: getattr(value, name, None) for name in names}
    assert not [name for name, p in properties.items() if isinstance(p, property) and p.__doc__]


@pytest.mark.parametrize("value", _public_names())
def test_no_docstring_points_at_a_file_of_the_repository(value):
    texts = [inspect.getdoc(document) for document in _documented(value)]
    assert not [found.group() for text in texts for found in OUR_FILES.finditer(text)]


@pytest.mark.parametrize("section", ["Parameters", "Attributes"])
def test_shared_parameters_and_attributes_have_one_text(section):
    standard = _entries(StandardClassifier.__doc__, section)
    adversarial = _entries(AdversarialClassifier.__doc__, section)
    assert len(standard) > 7
    assert {name: adversarial[name] for name in standard} == standard


@pytest.mark.parametrize("value", _public_names())
def test_has_an_example(value):
    # Some names are shown in the example of their counterpart.
    assert re.search(r"^ *>>> |^ *See `\w+`\.$", value.__doc__, re.M)


def _section(doc, name):
    found = re.search(rf"^{name}\n-+\n(.*?)(?=^\S[^\n]*\n-+\n|\Z)", doc, re.M | re.S)
    return found.group(1) if found else ""


def _entries(doc, section):
    """The names of a section, each with its type ("" if there is none) and its description."""
    parts = re.split(r"^(\S.*)\n", _section(inspect.cleandoc(doc), section), flags=re.M)[1:]
    entries = {}
    for head, text in zip(parts[::2], parts[1::2], strict=True):
        names, _, kind = head.partition(" : ")
        entries.update((name, (kind, inspect.cleandoc(text))) for name in names.split(", "))
    return entries


def _faults(entries, signature):
    """In what the section Parameters differs from the signature: names, order and defaults."""
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    parameters = {
        stars.get(parameter.kind, "") + name: parameter
        for name, parameter in signature.parameters.items()
        if name != "self"
    }
    if list(entries) != list(parameters):
        yield f"{list(entries)} instead of {list(parameters)}"
        return
    for name, (kind, text) in entries.items():
        if name.startswith("*") or (not kind and text.startswith("As in ")):  # described there
            continue
        default = parameters[name].default
        said = re.search(r"(?:^|, )(optional|default=(.*))$", kind)
        if (said is None) != (default is inspect.Parameter.empty):
            yield f"{name} : {kind}"
        elif said and said.group(2) and ast.literal_eval(said.group(2)) != default:
            yield f"{name} : {kind}, not {default!r}"


def _undescribed(doc):
    """Entries of the section Parameters that have a name and a type but no description."""
    lines = _section(doc, "Parameters").split("\n")
    for line, below in zip(lines, lines[1:], strict=False):
        entry = line and not line.startswith(" ")
        if entry and not below.startswith(" ") and line not in SELF_EXPLAINING:
            yield line


def test_undescribed_parameters_are_found():
    doc = "Do.\n\nParameters\n----------\na : int\nb : int\n    Said.\nc : int\n\nReturns\n---\nd"
    assert list(_undescribed(doc)) == ["a : int", "c : int"]


@pytest.mark.parametrize(
    ("section", "right"),
    [
        ("a : int\n    Said.\nb, c : int, default=1\n    Said.\n**d\n    Said.", True),
        ("a : int\n    Said.\nb, c\n    As in `f`.\n**d\n    Said.", True),
        ("a : int\n    Said.\nb : int, optional\n    Said.\nc\n    As in `f`.\n**d", True),
        ("a : int\n    Said.\nc, b : int, default=1\n    Said.\n**d\n    Said.", False),
        ("a : int\n    Said.\nb, c : int, default=2\n    Said.\n**d\n    Said.", False),
        ("a : int\n    Said.\nb, c : int\n    Said.\n**d\n    Said.", False),
        ("a : int, optional\n    Said.\nb, c : int, default=1\n    Said.\n**d", False),
        ("a : int\n    Said.\nb, c : int, default=1\n    Said.\nd\n    Said.", False),
        ("a : int\n    Said.\nb, c\n    Said.\n**d\n    Said.", False),
        ("", False),
    ],
)
def test_wrong_parameters_are_found(section, right):
    def function(a, b=1, c=1, **d):
        """Do."""

    doc = f"Do.\n\nParameters\n----------\n{section}\n\nReturns\n-------\nint"
    faults = list(_faults(_entries(doc, "Parameters"), inspect.signature(function)))
    assert (not faults) == right

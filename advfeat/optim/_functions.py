"""Functions and hooks that know the layers of a network, in a copy of it.

A deep copy leaves functions as they are, also those that were made inside the network and lead to
its layers, such as ``self.head = lambda h: self.fc(h)``: the copy would go on with the original.
"""

import copy
import sys
from collections import deque
from functools import partial
from types import CellType, CodeType, FunctionType, MethodType, ModuleType, NoneType
from weakref import ref

import torch
from torch import nn

ORIGINAL = "_torchdynamo_orig_callable"  # attribute of what torch.compile gives
CONTAINERS = dict, list, tuple, set, deque
_LEAVES = str, int, float, NoneType, torch.Tensor  # most members, and hold none
# Objects of Python's own, but for SimpleNamespace and its like, hold no settings of a network.
_NOT_THE_USERS = {"torch", "numpy", *sys.stdlib_module_names} - {
    "types",
    "argparse",
    "collections",
}


class Functions:
    """The functions of a network that lead to its layers, and their like for a copy.

    Parameters
    ----------
    module : nn.Module

    Attributes
    ----------
    memo : dict
        For a deep copy: twins of these functions, still empty, and what is no part of the network:
        objects whose methods are hooks and that know none of its layers watch it for somebody
        else, who finds in them what they have seen.
    """

    def __init__(self, module):
        layers = list(module.modules())
        weights = [t for layer in layers for t in (layer._parameters, layer._buffers)]
        self._own = set(map(id, (*layers, *(t for table in weights for t in table.values()))))
        self._own.discard(id(None))
        hooks = [
            hook for layer in layers for table in _hook_tables(layer) for hook in table.values()
        ]
        held = list(_reached([v for layer in layers for v in _attributes(layer)], self._own, True))
        self._twins, self.memo = [], {}
        for function in (*held, *_reached(hooks, self._own)):
            if isinstance(function, FunctionType) and self._leads(function):
                self._add(function)
        known = set(map(id, held)) | self._own
        for owner in (owner for hook in hooks for owner in _owners(hook)):
            inside = vars(owner) if is_plain_object(owner) else owner
            if id(owner) not in known and not self._leads(inside):
                self.memo[id(owner)] = owner

    def _leads(self, value):
        return any(id(part) in self._own for part in _reached([value], self._own))

    def _add(self, function):
        compiled = getattr(function, ORIGINAL, None)
        if isinstance(compiled, FunctionType):
            # Of torch.compile, whose wrappers a copy does without.
            if id(compiled) not in self.memo:
                self._add(compiled)
            self.memo[id(function)] = self.memo[id(compiled)]
        elif id(function) not in self.memo:
            cells = tuple(CellType() for _ in function.__closure__ or ())
            known = function.__globals__
            if _networks_by_name(function):
                known = dict(known)  # for names that lead into the copy
            twin = FunctionType(function.__code__, known, function.__name__, None, cells)
            self.memo[id(function)] = twin
            self._twins.append((function, twin))

    def fill(self, memo):
        """Let twins, and weak references, lead to the copies, once these have been made.

        Parameters
        ----------
        memo : dict
            Of the deep copy.
        """

        def copied(value):
            known = id(value) in memo or self._leads(value)
            return copy.deepcopy(value, memo) if known else value

        for function, twin in self._twins:
            for cell, given in zip(
                twin.__closure__ or (), function.__closure__ or (), strict=True
            ):
                try:
                    cell.cell_contents = copied(given.cell_contents)
                except ValueError:  # nothing was put into it yet
                    continue
            for name, network in _networks_by_name(function).items():
                twin.__globals__[name] = copied(network)
            twin.__defaults__ = copied(function.__defaults__)
            twin.__kwdefaults__ = copied(function.__kwdefaults__)
            vars(twin).update(copied(vars(function)))
        for layer in [made for made in memo.values() if isinstance(made, nn.Module)]:
            for name, value in vars(layer).items():
                inside = value() if isinstance(value, ref) else None
                if id(inside) in memo and inside is not None:
                    vars(layer)[name] = ref(memo[id(inside)])


def deep_copy(value, module, memo):
    """Deep copy of something that holds a network, with functions that lead into the copy."""
    functions = Functions(module)
    memo = {**memo, **functions.memo}
    made = copy.deepcopy(value, memo)
    functions.fill(memo)
    return made


def _hook_tables(layer):
    return [table for name, table in vars(layer).items() if name.endswith("_hooks") and table]


def members(container, objects=False):
    """Members of a container and of those inside it, and of the user's objects if asked for."""
    queue, seen = [container], set()
    for value in queue:
        if isinstance(value, _LEAVES):
            continue
        value = vars(value) if objects and is_plain_object(value) else value
        if isinstance(value, CONTAINERS) and id(value) not in seen:
            seen.add(id(value))
            queue += value.values() if isinstance(value, dict) else value
    return queue[1:]


def is_plain_object(value):
    """Whether a value is an object of a class of the user's, such as a holder of what was seen."""
    if isinstance(value, (*CONTAINERS, type, nn.Module, FunctionType, MethodType, ModuleType)):
        return False
    where = type(value).__module__.partition(".")[0]
    return where not in _NOT_THE_USERS and hasattr(value, "__dict__")


def _attributes(layer):
    """Values that a layer holds besides its weights, layers and hooks."""
    beside = ("_parameters", "_buffers", "_modules")
    return [v for k, v in vars(layer).items() if k not in beside and not k.endswith("_hooks")]


def _reached(values, own, objects=False):
    """Values, and all that they lead to; what a network consists of is not looked into.

    Objects of the user's are looked into if the layers hold them, and so are copied with them.
    """
    queue, seen = list(values), set()
    for value in queue:
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield value
        if id(value) not in own:
            queue += _parts(value)
            queue += vars(value).values() if objects and is_plain_object(value) else ()


def _parts(value):
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, CONTAINERS):
        return value
    if isinstance(value, MethodType):
        return value.__self__, value.__func__
    if isinstance(value, partial):
        return value.func, value.args, value.keywords
    if isinstance(value, FunctionType):
        cells = [content_of(cell) for cell in value.__closure__ or ()]
        named = _networks_by_name(value).values()
        return *cells, *named, value.__defaults__, value.__kwdefaults__, vars(value)
    return ()


def _networks_by_name(function):
    """Networks and layers that a function finds by their global names, as in a notebook."""
    return named_in(function, nn.Module)


def named_in(function, kinds):
    """Map the global names that a function of Python uses to objects of some classes."""
    if not isinstance(function, FunctionType):
        return {}
    codes, known = [function.__code__], function.__globals__
    for code in codes:
        codes += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    names = {name for code in codes for name in code.co_names}
    return {name: known[name] for name in names if isinstance(known.get(name), kinds)}


def held_by(module):
    """List what layers hold besides weights and hooks, and all that it leads to."""
    layers = list(module.modules())
    return list(_reached([v for layer in layers for v in _attributes(layer)], set(), True))


def content_of(cell):
    """Give what a function's cell holds, None if it is empty."""
    try:
        return cell.cell_contents
    except ValueError:  # nothing was put into it yet
        return None


def _owners(hook):
    """Objects that a hook works on: the one whose method it is, or what a partial was given."""
    if isinstance(hook, MethodType):
        return [hook.__self__]
    if isinstance(hook, partial):
        return [*_owners(hook.func), *hook.args, *hook.keywords.values()]
    return []

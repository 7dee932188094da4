"""A network as a graph of operations (torch.fx), traced so that other threads may go on."""

import contextlib
import linecache
import operator
import os
import sys
import threading
import weakref
from collections import deque

from torch import fx, nn
from torch.fx import _symbolic_trace, graph_module
from torch.nn.modules.module import _has_any_global_hook

from advfeat.optim._functions import is_plain_object, members

# One at a time in a process: torch.fx patches nn.Module while it traces, and two traces that
# overlap would leave it patched. A fork waits for the end of a trace for the same reason.
tracing = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=tracing.acquire, after_in_parent=tracing.release, after_in_child=tracing.release
    )


def trace(module):
    """Trace a network; the graph shares its layers.

    Returns
    -------
    GraphModule or None
        None if the network cannot be traced, or has hooks that a graph would not call.
        ``was_asked`` says whether it may have taken another branch than the network takes, as
        the network may have asked whether a symbol is a tensor.
    """
    root = nn.Sequential(module)  # so that optional arguments keep their defaults
    with tracing:
        tracer, before = _Tracer(), _Process()
        if tracer.passes_over_hooks(module):
            return None
        try:
            with _as_it_was(module):
                graph = tracer.trace(root)
        except Exception:  # foreign code that is run on symbols may raise anything
            return None
        except BaseException:
            before.restore()
            raise
        else:
            traced = Traced(tracer.root, graph)  # of buffers that are no symbols any more
            traced.was_asked = tracer.was_asked
            return traced
        finally:
            # It leads to itself, and to the network. Threads may still be in its calls.
            for name in vars(tracer).keys() - {"thread", "_autowrap_function_ids"}:
                delattr(tracer, name)


class Traced(fx.GraphModule):
    """Graph of a network that leaves nothing behind once nobody has it.

    torch's own waits for a collection of garbage, with the weights, and keeps its source text.
    """

    def recompile(self):
        """Make the code of the graph anew."""
        code = super().recompile()
        self.graph.owning_module = weakref.proxy(self)
        name = type(self).forward.__code__.co_filename
        for texts in (linecache.cache, graph_module._loader.eval_cache):
            texts.pop(name, None)
        del type(self).__call__  # torch's prints where it failed, also what is tried on purpose
        return code


def has_hooks(layer):
    """Whether something is called with a layer, forward or backward."""
    kinds = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    return any(getattr(layer, kind) for kind in kinds)


def is_repeatable(module, device):
    """Whether steps through a traced network may be replayed: replays call no hook."""
    return device.type == "cuda" and not any(map(has_hooks, module.modules()))


@contextlib.contextmanager
def _as_it_was(module):
    """Give all layers their plain attributes back, into which a trace may put its symbols."""
    layers = [(vars(layer), dict(vars(layer))) for layer in module.modules()]
    containers, queue = {}, [(value, False) for _, own in layers for value in own.values()]
    for value, foreign in queue:
        if is_plain_object(value):
            value, foreign = vars(value), True
        kind = next((k for k in (dict, list, deque, set) if isinstance(value, k)), None)
        if kind and id(value) not in containers:
            containers[id(value)] = value, kind(value), foreign
            queue += [(v, foreign) for v in (value.values() if kind is dict else value)]
        elif isinstance(value, tuple):
            queue += [(v, foreign) for v in value]
    try:
        yield
    finally:
        for value, then, foreign in containers.values():
            # Objects that no layer is may serve others, too, who have changed them meanwhile.
            if not foreign or _holds_symbols(value):
                _restore(value, then)
        for value, then in layers:
            _restore(value, then)


def _holds_symbols(value):
    return any(isinstance(member, fx.Proxy) for member in members(value))


def _restore(value, then):
    """Give a list, dict or set its members back; other threads find it usable throughout."""
    if isinstance(value, (list, deque)):
        if len(value) != len(then) or any(map(operator.is_not, value, then)):
            value.clear()
            value.extend(then)
    elif isinstance(value, set):
        value &= then
        value |= then
    else:
        for key in [key for key in value if key not in then]:
            del value[key]
        for key, member in then.items():
            if value.get(key, value) is not member:
                value[key] = member  # not by `update`, with which a Counter adds


class _Process:
    """What torch.fx changes in the process while it traces.

    It puts all back itself, but for an interrupt that strikes just then: nn.Module would lead to
    this tracer from then on, or from the next torch.compile on.
    """

    def __init__(self):
        self.methods = nn.Module.__call__, nn.Module.__getattr__
        self.patcher = getattr(_symbolic_trace, "CURRENT_PATCHER", None)
        own = getattr(_symbolic_trace, "_is_fx_tracing_tls", None)  # newer versions
        self.flag = (_symbolic_trace, "_is_fx_tracing_flag") if own is None else (own, "flag")
        self.traces = getattr(*self.flag, False)

    def restore(self):
        left = getattr(_symbolic_trace, "CURRENT_PATCHER", None)
        if left is not self.patcher:
            for patch in left.patches_made:
                with contextlib.suppress(KeyError):  # is no more there
                    patch.revert()
            _symbolic_trace.CURRENT_PATCHER = self.patcher
        nn.Module.__call__, nn.Module.__getattr__ = self.methods
        setattr(*self.flag, self.traces)


class _Symbol(fx.Proxy):
    """Proxy that notes whether a network may have asked if it is a tensor, which it is not.

    The trace, and so every attack, could go along another branch than the network does. It cannot
    say that it is one: torch's own code would take it for one, too.
    """

    @property  # type: ignore[misc]
    def __class__(self):
        asking = sys._getframe(1)
        foreign = not asking.f_globals.get("__name__", "").startswith(("torch.", "advfeat."))
        code = asking.f_code
        if foreign and ("isinstance" in code.co_names or code.co_name == "is_tensor"):
            self.tracer.was_asked = True
        return type(self)


class _Tracer(fx.Tracer):
    """Tracer that leaves the networks of other threads alone.

    While it traces, nn.Module's ``__call__`` and ``__getattr__`` lead here for the whole process.
    """

    was_asked = False
    proxy_buffer_attributes = True  # else what is computed of buffers becomes a constant

    def __init__(self):
        super().__init__()
        self.thread = threading.get_ident()

    def proxy(self, node):
        """Stand-in of a value."""
        return _Symbol(node, self)

    def passes_over_hooks(self, module):
        """Whether a trace would hand its symbols to hooks, and its graph not call them any more.

        Those of torch's own layers stay: a graph calls the layers.
        """
        if _has_any_global_hook():
            return True
        return any(
            has_hooks(layer) and not self.is_leaf_module(layer, "") for layer in module.modules()
        )

    def call_module(self, m, forward, args, kwargs):
        """Record a call of this thread; run any other."""
        if threading.get_ident() != self.thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr, attr_val, parameter_proxy_cache):
        """Stand-in of a parameter for this thread, the parameter itself for any other."""
        if threading.get_ident() != self.thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

"""Tell Ctrl-C from a callback that ends the training.

skorch's callbacks (EarlyStopping, for one) end a training by raising KeyboardInterrupt, which is
also what Ctrl-C raises. The first gives a finished network, the second half of one.
"""

import contextlib
import dis
import functools
import signal
import threading
import traceback

_SIGNALS = signal.valid_signals()  # slow to ask for


class TrainingEnded(Exception):
    """A callback has ended the training."""


@contextlib.contextmanager
def marked_interrupts():
    """Mark each KeyboardInterrupt that comes from a signal inside the block.

    Yields a list of them, for those that somebody swallows.
    """
    replaced, seen = {}, []
    try:
        if threading.current_thread() is threading.main_thread():  # no other thread gets signals
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):
                    replaced[number] = handler, functools.partial(_call_and_mark, handler, seen)
                    signal.signal(number, replaced[number][1])
        yield seen
    finally:
        for number, (handler, marking) in replaced.items():
            if signal.getsignal(number) is marking:  # else somebody has put another one since
                signal.signal(number, handler)


def _call_and_mark(handler, seen, number, frame):
    try:
        return handler(number, frame)
    except KeyboardInterrupt as error:
        error.from_signal = True
        seen.append(error)
        raise


def raised_on_purpose(error):
    """Whether a ``raise`` in somebody's Python code caused this KeyboardInterrupt, not a signal.

    Two proofs are asked for, as a network that is wrongly taken for finished is worse than a
    training that is wrongly taken for interrupted: nothing in the chain of exceptions was marked,
    and the innermost traceback stands at a ``raise`` that is not reached through a function that
    handles signals now (which a callback may have set, and then not call itself to end the
    training). An exception that comes from outside otherwise (the default handler set after
    `marked_interrupts`, another thread) strikes at any other instruction.
    """
    handlers = _code_of_handlers()
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            if getattr(error, "from_signal", False):
                return False
            frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
            if any(frame.f_code in handlers for frame in frames):  # set by a callback, say
                return False
            if not _stands_at_raise(error.__traceback__):
                return False
        error = error.__cause__ or error.__context__
    return True


def _code_of_handlers():
    """Code of the functions that signals call now, where they are Python's."""
    found = set()
    for number in _SIGNALS:
        handler = signal.getsignal(number)
        while isinstance(handler, functools.partial):
            handler = handler.func
        for kind in (handler, *(vars(base).get("__call__") for base in type(handler).__mro__)):
            found.add(getattr(kind, "__code__", None))
    return found - {None}


def _stands_at_raise(tb):
    if tb is None:
        return False
    while tb.tb_next is not None:
        tb = tb.tb_next
    return dis.opname[tb.tb_frame.f_code.co_code[tb.tb_lasti]] == "RAISE_VARARGS"

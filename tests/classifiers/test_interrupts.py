"""Ctrl-C during training: half a training never passes for a whole one."""

import ctypes
import functools
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, EarlyStopping

from advfeat import AdversarialClassifier, StandardClassifier

HOOKS = [
    "on_train_begin",
    "on_epoch_begin",
    "on_batch_begin",
    "on_grad_computed",
    "on_batch_end",
    "on_epoch_end",
    "on_train_end",
]
QUICK = {"max_epochs": 2, "batch_size": 20, "random_state": 0, "verbose": 0}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.random((60, 4), dtype=np.float32)
    return X, (X[:, 0] > 0.5).astype(int)


class Do(Callback):
    """Call a function in one hook."""

    def __init__(self, hook, action):
        setattr(self, hook, lambda net, **kwargs: action())


def press_ctrl_c():
    signal.raise_signal(signal.SIGINT)


def keyboard_interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("hook", HOOKS)
def test_ctrl_c_in_every_hook(data, hook, method):
    clf = StandardClassifier(**QUICK).fit(*data)
    before = clf.decision_function(data[0])
    clf.set_params(callbacks=[Do(hook, press_ctrl_c)])
    for unfitted in (clf, StandardClassifier(callbacks=[Do(hook, press_ctrl_c)], **QUICK)):
        state = dict(vars(unfitted))
        with pytest.raises(KeyboardInterrupt):
            getattr(unfitted, method)(*data)
        assert vars(unfitted) == state
    np.testing.assert_array_equal(clf.decision_function(data[0]), before)
    assert len(clf.history_) == 2
    assert not clf.net_.module_.training
    pickle.dumps(clf.set_params(callbacks=None).net_.module_)


def wrapped():
    try:
        press_ctrl_c()
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("stopping") from error


def replaced():
    """A handler that was put in place during the training."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        press_ctrl_c()
    finally:
        signal.signal(signal.SIGINT, before)


def from_another_thread():
    """As notebooks and servers stop a computation that does not run in the main thread."""
    number = ctypes.c_ulong(threading.get_ident())
    ctypes.pythonapi.PyThreadState_SetAsyncExc(number, ctypes.py_object(KeyboardInterrupt))
    for _ in range(10**6):
        pass


def another_signal():
    signal.raise_signal(signal.SIGUSR1)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signal")
@pytest.mark.parametrize("action", [wrapped, replaced, from_another_thread, another_signal])
def test_interrupts_in_disguise(data, action):
    def raises(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, raises)
    try:
        clf = StandardClassifier(callbacks=[Do("on_epoch_end", action)], **QUICK)
        with pytest.raises(KeyboardInterrupt):
            clf.fit(*data)
        assert signal.getsignal(signal.SIGUSR1) is raises
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not hasattr(clf, "net_")


def by_a_function():
    keyboard_interrupt()


def after_another_error():
    try:
        {}["x"]
    except KeyError:
        raise KeyboardInterrupt  # noqa: B904


@pytest.mark.parametrize("action", [keyboard_interrupt, by_a_function, after_another_error])
@pytest.mark.parametrize("thread", [False, True])
def test_a_callback_ends_the_training(data, action, thread):
    def fit():
        clf.fit(*data)

    clf = AdversarialClassifier(n_steps=2, callbacks=[Do("on_epoch_end", action)], **QUICK)
    if thread:
        worker = threading.Thread(target=fit)
        worker.start()
        worker.join()
    else:
        fit()
    assert len(clf.history_) == 1
    assert not clf.net_.module_.training


def test_a_graceful_handler_may_leave_the_end_to_a_callback(data):
    """A handler that only takes a note is no interrupt; the callback that reads it ends."""
    pressed = []

    def stop():
        press_ctrl_c()
        if pressed:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        clf = StandardClassifier(callbacks=[Do("on_epoch_end", stop)], **QUICK).fit(*data)
    finally:
        signal.signal(signal.SIGINT, before)
    assert pressed and len(clf.history_) == 1


@pytest.mark.parametrize("load_best", [False, True])
def test_early_stopping_of_skorch(data, load_best):
    stop = EarlyStopping("train_loss", patience=2, threshold=10, load_best=load_best)
    settings = {**QUICK, "lr_schedule": "constant"}
    clf = StandardClassifier(callbacks=[stop], **{**settings, "max_epochs": 9}).fit(*data)
    assert len(clf.history_) == 3
    n_kept = 1 if load_best else 3
    expected = StandardClassifier(**{**settings, "max_epochs": n_kept}).fit(*data)
    np.testing.assert_array_equal(
        clf.decision_function(data[0]), expected.decision_function(data[0])
    )
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class Predicts(Callback):
    """Predict after each epoch, where most of the time is spent here."""

    def on_epoch_end(self, net, **kwargs):
        for _ in range(5):
            net.predict(torch.zeros(50, 4))


def random_lines(n, total):
    return sorted(np.random.default_rng(0).choice(total, n, replace=False) + 1)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_ctrl_c_at_random_lines(data, method):
    """The signal comes at random lines of whatever Python code runs, in the library or below."""
    clf = AdversarialClassifier(n_steps=2, callbacks=[Predicts()], **QUICK).fit(*data)
    before, state = clf.decision_function(data[0]), dict(vars(clf))

    def train(strike):
        count = 0

        def trace(frame, event, arg):
            nonlocal count
            count += event == "line"
            if event == "line" and count == strike:
                press_ctrl_c()
            return trace

        sys.settrace(trace)
        try:
            getattr(clf, method)(*data)
        finally:
            sys.settrace(None)
        return count

    for _ in range(2):  # the first run fills caches, and takes more lines
        total = train(None)
        whole = clf.decision_function(data[0])
        clf.__dict__ = dict(state)
    n_interrupted = 0
    for line in random_lines(12, total - 20):
        try:
            train(line)
        except KeyboardInterrupt:
            n_interrupted += 1
            assert vars(clf) == state, line
        else:  # Python itself drops what strikes in a destructor or in the garbage collector
            np.testing.assert_array_equal(clf.decision_function(data[0]), whole)
            clf.__dict__ = dict(state)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert n_interrupted >= 8
    np.testing.assert_array_equal(clf.decision_function(data[0]), before)


@pytest.mark.slow
def test_ctrl_c_at_random_times():
    """Ctrl-C in a process of its own, at random instants of a training with few steps."""
    code = """
import sys, time, torch
from advfeat import AdversarialClassifier
from advfeat.datasets import load_digits
torch.set_num_threads(1)
X, y = load_digits(return_X_y=True)
print("ready", flush=True)
AdversarialClassifier(n_steps=2, max_epochs=60, verbose=0).fit(X[:300], y[:300])
print("finished", flush=True)
"""
    delays = np.random.default_rng(0).uniform(0, 3, 8)
    for delay in delays:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
        assert "finished" not in out
        assert "KeyboardInterrupt" in err


class SetsAHandler(Callback):
    """Puts a handler of its own in place when the training has begun, as a limit of time does."""

    def __init__(self, handler):
        self.handler = handler

    def on_train_begin(self, net, **kwargs):
        signal.signal(signal.SIGUSR1, self.handler)

    def on_epoch_end(self, net, **kwargs):
        signal.raise_signal(signal.SIGUSR1)


class Stops:
    def __call__(self, number, frame):
        keyboard_interrupt()

    def stop(self, number, frame):
        raise KeyboardInterrupt


class StopsToo(Stops):
    pass


def stops(number, frame):
    raise KeyboardInterrupt


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signal")
@pytest.mark.parametrize(
    "handler", [stops, Stops(), StopsToo(), Stops().stop, functools.partial(stops)]
)
def test_handlers_that_a_callback_sets_interrupt(data, handler):
    before = signal.getsignal(signal.SIGUSR1)
    try:
        clf = StandardClassifier(callbacks=[SetsAHandler(handler)], **QUICK)
        with pytest.raises(KeyboardInterrupt):
            clf.fit(*data)
        assert not hasattr(clf, "net_")
    finally:
        signal.signal(signal.SIGUSR1, before)

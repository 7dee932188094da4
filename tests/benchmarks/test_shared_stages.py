"""Several runs share the stages of one folder."""

import contextlib
import gc
import threading
import time
import weakref

import pytest
from waiting import wait_for

from advfeat.utils._files import Lock
from reproduce import _computed
from stages import BudgetSpentError, Stages


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_waits_for_the_stage_that_another_computes(tmp_path, fails, capsys):
    begun, go_on, found = threading.Event(), threading.Event(), []

    def compute():
        begun.set()
        go_on.wait(60)
        if fails:
            raise ValueError
        return "theirs"

    def other():
        with contextlib.suppress(ValueError):
            Stages(tmp_path).get("train", "a", 1, compute)

    first = threading.Thread(target=other)
    second = threading.Thread(
        target=lambda: found.append(Stages(tmp_path).get("train", "a", 1, lambda: "ours"))
    )
    first.start()
    assert begun.wait(60)
    second.start()
    wait_for(lambda: "waiting" in capsys.readouterr().out)
    go_on.set()
    first.join(60)
    second.join(60)
    assert found == ["ours" if fails else "theirs"]
    assert not list(tmp_path.glob("*.lock"))


class Work:
    """Four sets, each made, learned from and measured, by one of two runs beside each other."""

    def __init__(self, folder, log, together=None, **budget):
        self.stages, self.log, self.together = Stages(folder, **budget), log, together

    def stage(self, title, *needs):
        def compute(*values):
            if self.together is not None:
                self.together.wait(60)  # for the other run to be computing, too
                self.together = None
            self.log.append(title)
            return [title, *values]

        return self.stages.get("train", title, 1, compute, needs)

    def made(self, name):
        return self.stage(f"make {name}", lambda: self.stage("source"))

    def run(self):
        with self.stages.planning() as planned:
            self.measure()
        while not self.stages.compute(planned):
            self.stages.wait()
        return self.measure()

    def measure(self):
        return [
            self.stage(f"measure {name}", lambda name=name: self.made(name)) for name in "abcd"
        ]


def test_runs_that_share_a_folder_compute_at_the_same_time(tmp_path):
    """One computes a set while the other computes another one, and none is computed twice."""
    Work(tmp_path, log := []).stage("source")
    together, found = threading.Barrier(2), []
    runs = [
        threading.Thread(target=lambda: found.append(Work(tmp_path, log, together).run()))
        for _ in range(2)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join(120)
    expected = [[f"measure {name}", [f"make {name}", ["source"]]] for name in "abcd"]
    assert found == [expected, expected]
    assert len(log) == len(set(log)) == 9
    assert not list(tmp_path.glob("*.lock"))


def test_what_is_kept_needs_nothing(tmp_path):
    """Sets that were deleted after they had been measured are not made again."""
    Work(tmp_path, []).run()
    for path in {p for form in ("make-*", "source-*", "*-b-*") for p in tmp_path.glob(form)}:
        path.unlink()
    work = Work(tmp_path, log := [])
    with work.stages.planning() as planned:
        work.measure()
    assert work.stages.left() == list(work.stages.todo.values())
    assert sorted(work.stages.left()) == ["make b", "measure b", "source"]
    assert len(planned) == 9
    work.run()
    assert sorted(log) == ["make b", "measure b", "source"]


def test_a_plan_that_was_computed_holds_nothing(tmp_path):
    class Thing:
        def __call__(self):
            return 1

    stages, thing = Stages(tmp_path), Thing()
    held = weakref.ref(thing)
    with stages.planning() as planned:
        stages.get("train", "a", 1, thing)
    del thing
    assert stages.compute(planned)
    gc.collect()
    assert held() is None and len(planned) == 1 and stages.notes.for_page(planned)["minutes"] >= 0


def test_a_run_that_waits_says_so_and_one_that_ends_names_what_nobody_has(tmp_path, capsys):
    work = Work(tmp_path, [], budget=1)
    with work.stages.planning() as planned:
        work.measure()
    Work(tmp_path, []).made("a")
    assert len(work.stages.left()) == 7

    def compute():
        with pytest.raises(BudgetSpentError):
            work.stages.deadline = time.monotonic() + 1.5
            while not work.stages.compute(planned):
                work.stages.wait()
        return "theirs"

    for name in "bcd":
        Work(tmp_path, []).made(name)
    with contextlib.ExitStack() as others:
        for name in "abcd":
            lock = Lock(
                next(p for p in planned if f"measure-{name}" in p.name).with_suffix(".lock")
            )
            assert lock.acquire()
            others.callback(lock.release)
        compute()
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Waiting")]
    assert told == [
        "Waiting for other runs, which compute: measure a, measure b, measure c, measure d"
    ]


def test_tables_that_wait_for_other_runs_come_last(tmp_path):
    stages, plans = Stages(tmp_path), []
    for name in "abc":
        with stages.planning() as planned:
            stages.get("train", name, 1, lambda: 1)
        plans.append(planned)
    lock = Lock(next(iter(plans[0])).with_suffix(".lock"))
    assert lock.acquire()
    finished = []
    for run, planned in _computed(stages, "abc", plans):
        finished.append(run)
        assert not any(planned.values())
        if run == "c":
            lock.release()  # the other run failed
    assert finished == ["b", "c", "a"]


def test_a_run_takes_over_what_another_has_left(tmp_path):
    """What another run is computing is waited for at the end, and computed if it fails there."""
    begun, go_on = threading.Event(), threading.Event()

    def fail():
        begun.set()
        go_on.wait(60)
        raise ValueError

    def other():
        with contextlib.suppress(ValueError):
            Stages(tmp_path).get("train", "make b", 1, fail)

    first = threading.Thread(target=other)
    first.start()
    assert begun.wait(60)
    work = Work(tmp_path, log := [])
    second = threading.Thread(target=work.run)
    second.start()
    wait_for(lambda: len(log) == 7)  # all but b
    assert not any("b" in title for title in log)
    go_on.set()
    first.join(60)
    second.join(60)
    assert log[-2:] == ["make b", "measure b"] and not work.stages.todo


def test_waiting_for_other_runs_ends_with_the_budget(tmp_path):
    work = Work(tmp_path, [], budget=1)

    def compute():
        with pytest.raises(BudgetSpentError):
            work.stages.deadline = time.monotonic() + 1
            work.run()
        return "theirs"

    assert Stages(tmp_path).get("train", "source", 1, compute) == "theirs"


def test_waiting_ends_with_the_budget(tmp_path):
    def compute():
        with pytest.raises(BudgetSpentError):
            Stages(tmp_path, budget=1e-3).get("train", "a", 1, lambda: "ours")
        return "theirs"

    assert Stages(tmp_path).get("train", "a", 1, compute) == "theirs"

"""Results of long stages, kept on disk under the hash of everything that decides them."""

import contextlib
import functools
import inspect
import json
import os
import time
from pathlib import Path

import joblib

import advfeat

# Parts of the library that no stage uses: a change there invalidates none.
_UNUSED = ("gaussian", "datasets", "plotting")


class BudgetSpentError(Exception):
    """The time given by ``--budget`` is over; all finished stages are kept."""


class Planned:
    """Stands for the value of a stage while the stages are only counted."""

    def __getitem__(self, key):
        return self

    def __iter__(self):
        return iter(())


class Stages:
    """Compute each stage once; a run that was killed goes on after its last finished stage.

    The files are pickles: use only a folder that you wrote yourself.

    Parameters
    ----------
    folder : path
    budget : float or None
        Minutes after which no further stage begins.
    """

    def __init__(self, folder, budget=None):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.deadline = None if budget is None else time.monotonic() + 60 * budget
        self.todo = {}  # file: title of every stage that is still to be computed
        self.finished = {}  # the same for those that are on disk
        self._seen = {}  # the same for all, since planning began
        self._values = {}
        self._n_done = 0
        self._planning = False

    @contextlib.contextmanager
    def planning(self):
        """Only note which stages are asked for, and which of them must be computed.

        Yields the dict of file to title of all stages seen.
        """
        self._planning, self._seen = True, {}
        try:
            yield self._seen
        finally:
            self._planning = False

    def get(self, title, settings, compute, needs=()):
        """Return the stage's value, from disk if it is there.

        Parameters
        ----------
        title : str
            Its first word says what kind of work it is.
        settings : picklable
            Everything that decides the value, the parents' settings included.
        compute : callable
            Gets the values of ``needs``. The source file that it stands in counts as a setting.
        needs : sequence of callables without arguments
            Give the values that ``compute`` works on; called only if it has to run.
        """
        path = self._path(title, settings, compute)
        if self._planning:
            return self._plan(path, title, needs)
        if path in self._values:
            return self._values[path]
        if path.exists():
            value = joblib.load(path)
        else:
            value = self._compute(path, title, compute, needs)
        self._values[path] = value
        return value

    def begin(self):
        """Let go of the values in memory; they stay on disk."""
        self._values.clear()

    def minutes(self, needed):
        """Minutes that the stages took that planning saw, in this run or in earlier ones."""
        return sum(_seconds(path) or 0.0 for path in needed) / 60

    def _path(self, title, settings, compute):
        file = inspect.getsourcefile(inspect.unwrap(compute))
        key = joblib.hash((title, settings, _code_of_the_library(), Path(file).read_bytes()))
        return self.folder / f"{title.replace(' ', '-').replace('/', '-')}-{key}.joblib"

    def _plan(self, path, title, needs):
        first = path not in self._seen
        self._seen[path] = title
        if path.exists():
            self.finished[path] = title
        else:
            self.todo[path] = title
        if first:
            for need in needs:
                need()
        return Planned()

    def _compute(self, path, title, compute, needs):
        values = [need() for need in needs]
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise BudgetSpentError
        begun = time.monotonic()
        value = compute(*values)
        seconds = time.monotonic() - begun
        # A rename is atomic, so a killed run leaves no half-written stage behind.
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            joblib.dump(value, partial, compress=1)
            _about(path).write_text(json.dumps({"title": title, "seconds": seconds}))
            os.replace(partial, path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise SystemExit(
                f"Could not keep the stage '{title}' in {self.folder}: {error}. The stages "
                "finished before it are intact; free some space and start again."
            ) from error
        self.todo.pop(path, None)
        self.finished[path] = title
        self._n_done += 1
        total = self._n_done + len(self.todo)
        eta = f"  (about {self._seconds_left() / 60:.1f} min left)" if self.todo else ""
        print(f"[{self._n_done}/{total}] {title}: {seconds:.1f} s{eta}", flush=True)
        return value

    def _seconds_left(self):
        """Guess from stages of the same kind, or from all."""
        by_kind = {}
        for path, title in self.finished.items():
            if (seconds := _seconds(path)) is not None:
                by_kind.setdefault(title.split()[0], []).append(seconds)
        known = [seconds for values in by_kind.values() for seconds in values]
        typical = {kind: sum(values) / len(values) for kind, values in by_kind.items()}
        return sum(
            typical.get(title.split()[0], sum(known) / len(known)) for title in self.todo.values()
        )


def _about(path):
    return path.with_suffix(".json")


def _seconds(path):
    """Time that a finished stage took, or None."""
    try:
        return json.loads(_about(path).read_text())["seconds"]
    except (OSError, ValueError):
        return None


@functools.cache
def _code_of_the_library():
    """Hash of the sources, so that no stage outlives the code that made it."""
    root = Path(advfeat.__file__).parent
    sources = [
        path
        for path in sorted(root.rglob("*.py"))
        if path.relative_to(root).parts[0] not in _UNUSED
    ]
    return joblib.hash([path.read_bytes() for path in sources])

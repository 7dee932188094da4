"""Results of long stages, kept on disk under the hash of everything that decides them."""

import contextlib
import functools
import shutil
import time
from pathlib import Path

import joblib

import keeping
import noting
import work
from advfeat.utils._files import Lock
from files import make_folder


class BudgetSpentError(Exception):
    """The time given by ``--budget`` is over; all finished stages are kept."""


class BusyError(Exception):
    """Another run is computing a stage, or one that it needs."""


class Planned:
    """Stands for the value of a stage that was not computed."""

    def __getitem__(self, key):
        return self

    def __iter__(self):
        return iter(())


class Elsewhere(Planned):
    """Stands for the value of a stage of which only a page tells that it was computed.

    ``name`` is that of the stage on the page.
    """

    def __init__(self, name):
        self.name = name


class Stages:
    """Compute each stage once; a run that was killed goes on after its last finished stage.

    Runs that share a folder share the work: each computes what no other is computing (`compute`).

    A stage is kept under its settings, its data and the number of its kind of work (`work`), in a
    file without pickles (`keeping`).

    Parameters
    ----------
    folder : path
    budget : float or None
        Minutes after which no further stage begins.
    known : path, optional
        Folder with pages of earlier runs: what they measured is not measured again.
    """

    def __init__(self, folder, budget=None, known=None):
        self.folder = Path(folder)
        make_folder(self.folder)
        self.notes = noting.Notes(known)
        self.deadline = None if budget is None else time.monotonic() + 60 * budget
        self.todo = {}  # file: title of every stage that is still to be computed
        self.finished = {}  # the same for those that are on disk
        self._seen = {}  # file: how to `get` it, None if that is not needed; since planning began
        self._values = {}
        self._n_done = 0
        self._planning = self._required = False
        self._so_far = False  # whether `Planned` stands for what is not kept
        self._waits = True  # for stages that other runs are computing
        self._told = False  # that it waits

    @contextlib.contextmanager
    def planning(self):
        """Only note which stages are asked for, and which of them must be computed.

        Yields a dict whose keys are the files of all stages seen, for `compute` and the like.
        """
        self._planning, self._required, self._seen = True, True, {}
        try:
            yield self._seen
        finally:
            self._planning = False

    @contextlib.contextmanager
    def so_far(self):
        """Compute nothing: give `Planned` for the stages that are not kept."""
        before, self._so_far = self._so_far, True
        try:
            yield
        finally:
            self._so_far = before

    def get(self, kind, title, settings, compute, needs=(), network=None, in_parts=False):
        """Return the stage's value, from disk if it is there.

        Parameters
        ----------
        kind : str
            Kind of work, of `work.KINDS`. Its version number counts as a setting.
        title : str
        settings : picklable
            Everything that decides the value, the parents' settings included.
        compute : callable
            Gets the values of ``needs``.
        needs : sequence of callables without arguments
            Give the values that ``compute`` works on; called only if it has to run.
        network : str or callable, optional
            Of a classifier: a file holds none that is code.
        in_parts : bool, default=False
            Whether ``compute`` gets a folder first, in which it keeps its parts: if it is killed,
            the next run goes on with them.
        """
        path = self._path(kind, title, settings)
        if self._planning:
            call = kind, title, settings, compute, needs, network, in_parts
            return self._plan(path, call)
        if path not in self._values:
            if self._so_far and not self._is_kept(path):
                return Elsewhere(path.stem) if self.notes.is_elsewhere(path) else Planned()
            folder = path.with_suffix(".parts")
            if in_parts:
                compute = functools.partial(compute, folder)
            try:
                value = self._read(path, title, kind, compute, needs, network, in_parts)
            except BudgetSpentError:  # the file is damaged
                if self._so_far:
                    return Planned()
                raise
            if in_parts and folder.exists():
                if keeping.find(path):  # what was computed may lie in the folder
                    value = keeping.kept(path, network)
                shutil.rmtree(folder, ignore_errors=True)
            self._values[path] = value
        return self._values[path]

    def compute(self, planned):
        """Compute the stages that planning saw, but for those that other runs are computing.

        Afterwards ``planned`` holds nothing but the files of those that are finished.

        Returns
        -------
        bool
            Whether all are finished.
        """
        self._waits = False
        try:
            while left := {path: call for path, call in planned.items() if call is not None}:
                for path, call in left.items():
                    with contextlib.suppress(BusyError):
                        if not self._is_kept(path):
                            self.get(*call)
                        self._note_finished(path, call[1])
                        planned[path] = None
                if all(planned[path] is not None for path in left):
                    return False
            return True
        finally:
            self._waits = True

    def wait(self):
        """Give other runs some time for what they are computing."""
        if not self._told:
            print(f"Waiting for other runs, which compute: {', '.join(self.left())}", flush=True)
        self._told = True
        self._check_budget()
        time.sleep(0.5)

    def left(self, planned=None):
        """Titles of the stages that no run has computed yet: all, or what a planning must have."""
        return [
            title
            for path, title in self.todo.items()
            if (planned is None or planned.get(path)) and not self._is_kept(path)
        ]

    def begin(self):
        """Let go of the values in memory; they stay on disk."""
        self._values.clear()

    def _is_kept(self, path):
        return bool(keeping.find(path)) or self.notes.has_value(path)

    def _path(self, kind, title, settings):
        key = joblib.hash((title, settings, kind, work.number(kind)))
        return self.folder / f"{title.replace(' ', '-').replace('/', '-')}-{key}.npz"

    def _read(self, path, title, kind, compute, needs, network, in_parts):
        if file := keeping.find(path):
            try:
                return keeping.kept(path, network)
            except (OSError, MemoryError):  # no fault of the file
                raise
            except Exception as error:  # whatever reading half a file raises
                print(f"The stage file {file.name} is damaged ({error!r:.80}): computed again.")
                self.finished.pop(path, None)
                self.todo[path] = title
        elif self.notes.has_value(path):
            return self.notes.value(path)
        self._check_budget()
        with self._alone(path, title):
            try:
                if keeping.find(path):  # another run was faster
                    value = keeping.kept(path, network)
                    self._note_finished(path, title)
                    return value
            except (OSError, MemoryError):
                raise
            except Exception:  # still the damaged one
                keeping.find(path).unlink()
            values = [need() for need in needs]
            return self._compute(path, title, kind, compute, values, in_parts)

    @contextlib.contextmanager
    def _alone(self, path, title):
        """Hold the right to compute this stage, once no other run does."""
        lock = Lock(path.with_suffix(".lock"))
        if not lock.acquire():
            if not self._waits:
                raise BusyError
            print(f"'{title}' is computed by another run: waiting for it", flush=True)
            while not lock.acquire():
                self._check_budget()
                time.sleep(0.2)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # whoever has opened it meanwhile looks again
                lock.path.unlink()
            lock.release()

    def _plan(self, path, call):
        _, title, _, _, needs, *_ = call
        kept = self._is_kept(path)
        required = self._required and not kept  # what is kept needs nothing
        if kept:
            self.finished[path] = title
        elif required:
            self.todo[path] = title
        if path not in self._seen or (required and self._seen[path] is None):
            self._seen[path] = call if required else None
            before, self._required = self._required, required
            for need in needs:
                need()
            self._required = before
        return Planned()

    def _compute(self, path, title, kind, compute, values, in_parts):
        self._check_budget()
        earlier = noting.note_begun(path) if in_parts else 0.0
        begun = time.monotonic()
        value = compute(*values)
        seconds = earlier + time.monotonic() - begun
        try:
            noting.note(path, title, kind, seconds)
            keeping.keep(path, value)
            noting.note_ended(path)
        except OSError as error:
            raise SystemExit(
                f"Could not keep the stage '{title}' in {self.folder}: {error}. The stages "
                "finished before it are intact; free some space and start again."
            ) from error
        self._note_finished(path, title)
        self._n_done += 1
        total = self._n_done + len(self.todo)
        eta = f"  (about {self._seconds_left() / 60:.1f} min left)" if self.todo else ""
        print(f"[{self._n_done}/{total}] {title}: {seconds:.1f} s{eta}", flush=True)
        return value

    def _note_finished(self, path, title):
        self.todo.pop(path, None)
        self.finished[path] = title

    def _check_budget(self):
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise BudgetSpentError

    def _seconds_left(self):
        """Guess from stages whose titles begin alike, or from all."""
        by_word = {}
        for path, title in self.finished.items():
            if (seconds := self.notes.about(path).get("seconds")) is not None:
                by_word.setdefault(title.split()[0], []).append(seconds)
        known = [seconds for values in by_word.values() for seconds in values] or [0.0]
        typical = {word: sum(values) / len(values) for word, values in by_word.items()}
        return sum(
            typical.get(title.split()[0], sum(known) / len(known)) for title in self.todo.values()
        )

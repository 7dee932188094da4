"""Results of long stages, kept on disk under the hash of everything that decides them."""

import functools
import os
import time
from pathlib import Path

import joblib

import advfeat


class Stages:
    """Compute each stage once; a run that was killed goes on after its last finished stage.

    The files are pickles: use only a folder that you wrote yourself.

    Parameters
    ----------
    folder : path
    n_total : int
        Number of stages of the run, for the progress line.
    """

    def __init__(self, folder, n_total):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.n_total = n_total
        self.n_done = 0
        self.n_computed = 0
        self.seconds = 0.0  # spent on the stages that were computed
        self.seconds_kept = 0.0  # once spent on those that were kept

    def path(self, title, settings):
        """File of a stage."""
        key = joblib.hash((title, settings, code_fingerprint()))
        return self.folder / f"{title.replace(' ', '-')}-{key}.joblib"

    def get(self, title, settings, compute):
        """Return the stage's value, from disk if it is there.

        Parameters
        ----------
        title : str
        settings : picklable
            Everything that decides the value, the parents' settings included.
        compute : callable without arguments
        """
        path = self.path(title, settings)
        begun = time.monotonic()
        kept = path.exists()
        if kept:
            value, seconds = joblib.load(path)
        else:
            value = compute()
            seconds = time.monotonic() - begun
            # A rename is atomic, so a killed run leaves no half-written stage behind.
            partial = path.with_suffix(f".{os.getpid()}.partial")
            try:
                joblib.dump((value, seconds), partial, compress=1)
                os.replace(partial, path)
            except OSError as error:
                partial.unlink(missing_ok=True)
                raise SystemExit(
                    f"Could not keep the stage '{title}' in {self.folder}: {error}. The stages "
                    "finished before it are intact; free some space and start again."
                ) from error
        self.n_done += 1
        took = "kept"
        if kept:
            self.seconds_kept += seconds
        else:
            self.n_computed += 1
            self.seconds += seconds
            took = f"{seconds:.1f} s"
        left = self.seconds / max(1, self.n_computed) * (self.n_total - self.n_done)
        eta = f"  (about {left / 60:.1f} min left)" if left else ""
        print(f"[{self.n_done}/{self.n_total}] {title}: {took}{eta}", flush=True)
        return value


@functools.cache
def code_fingerprint():
    """Hash of the sources, so that no stage outlives the code that made it."""
    sources = sorted(Path(advfeat.__file__).parent.rglob("*.py"))
    sources.append(Path(__file__).with_name("comparison.py"))
    return joblib.hash([path.read_bytes() for path in sources])

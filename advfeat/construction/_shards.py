"""Results of batches, kept in a folder so that a run that was killed goes on where it stopped."""

import json
import os
from pathlib import Path

import numpy as np


class Shards:
    """One npz file for each batch, and a manifest of what decides their content.

    Files appear by an atomic rename, so nothing half-written is ever read; npz files and the
    manifest hold no pickles.

    Parameters
    ----------
    folder : path
        Made if missing.
    manifest : dict of str to int, float, str, list or None
        Everything that decides the content.

    Raises
    ------
    ValueError
        If the folder holds another construction, or other files.
    """

    def __init__(self, folder, manifest):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "manifest.json"
        manifest = json.loads(json.dumps(manifest))  # as it is read again
        if path.exists():
            kept = json.loads(path.read_text())
            differing = [k for k in {**kept, **manifest} if kept.get(k) != manifest.get(k)]
            if differing:
                raise ValueError(
                    f"store={str(folder)!r} holds another construction: it differs in "
                    f"{', '.join(differing)}. Choose an empty folder, or delete this one."
                )
        elif any(self.folder.iterdir()):
            raise ValueError(
                f"store={str(folder)!r} must be an empty or a new folder, or one that holds this "
                "construction. It holds other files."
            )
        else:
            self._write(path, lambda file: file.write(json.dumps(manifest, indent=1).encode()))

    def holds(self, begin):
        """Whether the batch that begins at this row is there."""
        return self._path(begin).exists()

    def put(self, begin, part):
        """Keep the arrays of one batch."""
        self._write(self._path(begin), lambda file: np.savez(file, *part))

    def get(self, begin):
        """Return the arrays of one batch."""
        with np.load(self._path(begin), allow_pickle=False) as arrays:
            return tuple(arrays[f"arr_{i}"] for i in range(len(arrays.files)))

    def _path(self, begin):
        return self.folder / f"rows-{begin:09d}.npz"

    def _write(self, path, write):
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            with open(partial, "wb") as file:
                write(file)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

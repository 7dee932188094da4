"""Files that are there only when they are whole, whoever else writes into the same folder."""

import contextlib
import functools
import json
import os
import time
import uuid

_LEFT_OVER = 3600  # seconds without a write after which nobody is writing any more


@contextlib.contextmanager
def whole_file(path):
    """Give a path of its own beside ``path``; what is written there takes its place at the end.

    After an error or an interrupt nothing is left, and ``path`` is as it was.
    """
    partial = path.with_name(f"{path.stem}.{uuid.uuid4().hex}.partial")
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())  # else a power cut may leave the name without the bytes
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path, text):
    """Write a text file in one go."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


@functools.cache
def _tell(line):
    """Print a line once."""
    print(line, flush=True)


def read_json(path):
    """Object in a JSON file; an empty one, and a line that says so, if the file is broken."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        _tell(f"Ignored: {path}, which cannot be read ({error}).")
        return {}
    if not isinstance(found, dict):
        _tell(f"Ignored: {path}, which holds no JSON object.")
        return {}
    return found


def make_folder(folder):
    """Create a folder, check that files can be written there, and remove what kills left."""
    probe = folder / f"{uuid.uuid4().hex}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SystemExit(
            f"Cannot write into the folder '{folder}': {error.strerror}. Name another with --out "
            "or --stages, or change its permissions."
        ) from error
    for path in folder.glob("*.partial"):
        with contextlib.suppress(OSError):  # another process may have been faster
            if time.time() - path.stat().st_mtime > _LEFT_OVER:
                path.unlink()

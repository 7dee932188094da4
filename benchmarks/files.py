"""Text and JSON files that are whole or not there, and folders to write them into."""

import functools
import json
import uuid

from advfeat.utils._files import remove_left_over, writing


def write_text(path, text):
    """Write a text file in one go."""
    with writing(path) as file:
        file.write(text.encode())


@functools.cache
def _tell(line):
    """Print a line once."""
    print(line, flush=True)


def read_json(path):
    """Object in a JSON file; an empty one, and a line that says so, if the file is broken."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
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
    remove_left_over(folder)

"""What is noted of finished stages: in a file beside each, and in the results.json of pages.

A page notes for every stage behind it who made it, and the value of those that hold numbers alone,
not of sets and networks. So pages can be made again, and added to, where nothing else is left.
"""

import contextlib
import json
import time
from pathlib import Path

import torch

import keeping
import provenance
import work
from files import read_json, write_text

_MAKER = ("commit", "date", "processor", "threads", "versions")


class Notes:
    """Of the stages of one folder, and of the pages of earlier runs.

    Parameters
    ----------
    known : path, optional
        Folder with pages, of this machine or another.

    Raises
    ------
    ValueError
        If there is no page in it that names its stages.
    """

    def __init__(self, known=None):
        self._of_pages = {}
        for page in sorted(Path(known).glob("*/results.json")) if known else ():
            report = read_json(page)
            with contextlib.suppress(AttributeError, IndexError, KeyError, TypeError):
                for name, stage in report["stages"].items():
                    about = {"seconds": None, **stage, **report["makers"][stage["maker"]]}
                    if "value" not in self._of_pages.get(name, {}):
                        self._of_pages[name] = about
        if known and not self._of_pages:
            raise ValueError(
                f"expected pages of reproduce.py in '{known}', each with a results.json that "
                "names its stages; got none. Name the folder above those pages, or leave it out."
            )

    def has_value(self, path):
        """Whether a page holds the value of a stage."""
        return "value" in self._of_pages.get(path.stem, {})

    def value(self, path):
        """Value of a stage, from a page."""
        return keeping.of_plain(self._of_pages[path.stem]["value"])

    def is_elsewhere(self, path):
        """Whether a stage was made, but only a page tells of it."""
        return path.stem in self._of_pages and not keeping.find(path)

    def about(self, path):
        """Tell what is known of a finished stage; nothing if its file is missing or broken."""
        if self.is_elsewhere(path):
            return self._of_pages[path.stem]
        beside = _beside(path)
        about = read_json(beside) if beside.exists() else {}
        return about if isinstance(about.get("seconds"), int | float) else {}

    def for_page(self, paths):
        """Give what a page says of the stages behind it."""
        found = {path: about for path in paths if (about := self.about(path))}
        makers, stages = [], {}
        for path, about in found.items():
            maker = {name: about.get(name) for name in _MAKER}
            if maker not in makers:
                makers.append(maker)
            seconds = about["seconds"]
            stage = {"maker": makers.index(maker), "seconds": seconds and round(seconds, 1)}
            if not self.is_elsewhere(path):
                stage |= keeping.plain_value(path)
            elif "value" in about:
                stage["value"] = about["value"]
            stages[path.stem] = stage
        seconds = [stage["seconds"] for stage in stages.values()]
        return {
            "minutes": round(sum(one or 0.0 for one in seconds) / 60, 1),
            "untimed": sum(one is None for one in seconds),
            "commits": _counted(found, paths, "commit"),
            "threads": _counted(found, paths, "threads"),
            "processors": _counted(found, paths, "processor"),
            "makers": makers,
            "stages": stages,
        }


def _counted(found, paths, key):
    """Count stages by what is noted of them, such as the commit."""
    noted = [str(found.get(path, {}).get(key)) for path in paths]
    return {value: noted.count(value) for value in dict.fromkeys(noted)}


def note(path, title, kind, seconds):
    """Note who makes a stage, and in how many seconds."""
    about = {
        "title": title,
        "kind": kind,
        "number": work.number(kind),
        "seconds": seconds,
        "date": provenance.today(),
        "commit": provenance.commit(),
        "processor": provenance.processor(),
        "threads": torch.get_num_threads(),
        "versions": provenance.versions(),
    }
    write_text(_beside(path), json.dumps(about))


def note_begun(path):
    """Note that a run begins, and tell how many seconds of earlier ones its parts keep.

    A run that was killed says nothing itself: it lasted until it wrote its latest part.
    """
    parts = list(path.with_suffix(".parts").glob("*"))
    earlier = 0.0
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if parts:
            noted = json.loads(_runs(path).read_text())
            latest = max(part.stat().st_mtime for part in parts)
            earlier = noted["earlier"] + max(0.0, latest - noted["begun"])
    with contextlib.suppress(OSError):  # a full disk is told where the parts are written
        write_text(_runs(path), json.dumps({"begun": time.time(), "earlier": earlier}))
    return earlier


def note_ended(path):
    """Remove the note of `note_begun`."""
    _runs(path).unlink(missing_ok=True)


def _beside(path):
    return path.with_suffix(".json")


def _runs(path):
    return path.with_suffix(".begun")

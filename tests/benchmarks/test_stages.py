"""Stages: kept under what decides them, and whole or not there."""

import json
import os
import signal
import time

import numpy as np
import pytest

import files
import keeping
import provenance
import work
from advfeat import StandardClassifier
from advfeat.utils._files import writing
from architectures import small_vgg
from stages import Stages


def test_stages_are_keyed_by_what_decides_them(tmp_path, monkeypatch):
    calls = []

    def compute():
        calls.append(1)
        return len(calls)

    stages = Stages(tmp_path)
    assert stages.get("train", "train a", {"eps": 1}, compute) == 1
    assert stages.get("train", "train a", {"eps": 1}, compute) == 1
    assert stages.get("train", "train a", {"eps": 2}, compute) == 2
    assert Stages(tmp_path).get("train", "train a", {"eps": 1}, compute) == 1
    monkeypatch.setattr(work, "number", lambda kind: 9)
    assert Stages(tmp_path).get("train", "train a", {"eps": 1}, compute) == 3


def test_a_stage_says_what_made_it(tmp_path):
    stages = Stages(tmp_path)
    stages.get("train", "train a", 1, lambda: 1)
    (about,) = (json.loads(path.read_text()) for path in tmp_path.glob("*.json"))
    assert about["number"] == work.number("train") and about["kind"] == "train"
    assert about["versions"]["torch"] and about["threads"] >= 1 and about["date"] >= "2019"
    with stages.planning() as seen:
        stages.get("train", "train a", 1, lambda: 1)
    said = stages.notes.for_page(seen)
    assert said["commits"] == {str(about["commit"]): 1}
    assert said["threads"] == {str(about["threads"]): 1}


def test_needs_are_asked_for_only_if_the_stage_must_run(tmp_path):
    stages = Stages(tmp_path)
    assert stages.get("train", "train b", 1, lambda a: a + 1, needs=[lambda: 1]) == 2

    def unexpected():
        raise AssertionError

    again = Stages(tmp_path).get("train", "train b", 1, lambda a: a + 1, needs=[unexpected])
    assert again == 2


@pytest.mark.parametrize("damage", [b"", b"PK", b"\x80 no zip file", None])
def test_a_damaged_stage_is_computed_again_and_said(tmp_path, capsys, damage):
    Stages(tmp_path).get("train", "train a", 1, lambda: list(range(1000)))
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(path.read_bytes()[:50] if damage is None else damage)
    assert Stages(tmp_path).get("train", "train a", 1, lambda: "new") == "new"
    assert f"{path.name} is damaged" in capsys.readouterr().out
    assert Stages(tmp_path).get("train", "train a", 1, lambda: "newer") == "new"


@pytest.mark.parametrize("text", ["[]", "{}", "", "nonsense", '{"seconds": "long"}', "\xe9"])
def test_broken_files_beside_stages_are_ignored(tmp_path, text):
    stages = Stages(tmp_path)
    stages.get("train", "train a", 1, lambda: 1)
    (beside,) = tmp_path.glob("*.json")
    beside.write_text(text, encoding="latin-1")
    with stages.planning() as seen:
        stages.get("train", "train a", 1, lambda: 1)
    said = stages.notes.for_page(seen)
    assert said["minutes"] == 0 and said["commits"] == {"None": 1}
    stages.todo["other"] = "train other"
    assert stages._seconds_left() == 0
    assert stages.get("train", "train b", 1, lambda: 5) == 5


@pytest.mark.parametrize("where", ["compute", "write"])
def test_an_interrupted_stage_leaves_nothing_behind(tmp_path, monkeypatch, where):
    def array():
        return np.zeros(3)

    def interrupted(*args, **kwargs):
        if where == "write":
            args[0].write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if where == "write":
            patch.setattr(np.lib.format, "write_array", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Stages(tmp_path).get("train", "a", 1, interrupted if where == "compute" else array)
    assert not list(tmp_path.glob("*.npz")) and not list(tmp_path.glob("*.partial"))
    assert Stages(tmp_path).get("train", "a", 1, lambda: "whole") == "whole"


def test_a_training_interrupted_while_its_guard_attacks_is_not_kept(tmp_path, monkeypatch, digits):
    from advfeat import AdversarialClassifier
    from advfeat.classifiers import _overfitting

    def press_ctrl_c(*args, **kwargs):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(_overfitting.OverfittingGuard, "_accuracies", press_ctrl_c)
    clf = AdversarialClassifier(n_steps=2, max_epochs=2, verbose=0)
    with pytest.raises(KeyboardInterrupt):
        Stages(tmp_path).get("train", "adversarial", 1, lambda: clf.fit(digits[0], digits[1]))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_clear_error(tmp_path, monkeypatch):
    kept = Stages(tmp_path)
    kept.get("train", "first", 1, lambda: 1)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keeping, "keep", full)
    with pytest.raises(SystemExit, match="No space left.*finished before it are intact"):
        kept.get("train", "second", 1, lambda: 2)
    assert kept.get("train", "first", 1, lambda: 99) == 1


def test_two_writers_of_one_file_do_not_meet(tmp_path, monkeypatch):
    """Two containers have the same process id."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    path = tmp_path / "results.json"
    with writing(path) as one:
        one.write(b"a")
        files.write_text(path, "b")
    assert path.read_text() == "a"
    assert os.listdir(tmp_path) == ["results.json"]


def test_left_overs_are_removed_but_not_what_is_being_written(tmp_path):
    old, fresh = tmp_path / "old.partial", tmp_path / "fresh.partial"
    for path in (old, fresh):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    Stages(tmp_path)
    assert fresh.exists() and not old.exists()


def test_folders_that_cannot_be_written_are_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="Cannot write into the folder .*file/stages"):
        Stages(tmp_path / "file" / "stages")

    def refused(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.touch", refused)
    with pytest.raises(SystemExit, match=f"'{tmp_path}': Permission denied. Name another"):
        Stages(tmp_path)


def test_values_survive_the_disk(tmp_path):
    value = {"a": [1.5, None], "b": (1, 2)}
    Stages(tmp_path).get("train", "a", 1, lambda: value)
    assert Stages(tmp_path).get("train", "a", 1, list) == value


def test_classifiers_are_files_of_the_library(tmp_path, digits, capsys):
    X, y = digits[0][:100], digits[1][:100]
    clf = StandardClassifier(small_vgg, max_epochs=1, random_state=0)

    def get(stages, compute=lambda: clf.fit(X, y)):
        return stages.get("train", "at 0.5", 1, compute, network=small_vgg)

    get(Stages(tmp_path))
    (path,) = tmp_path.glob("*.safetensors")
    again = Stages(tmp_path)
    with again.planning():
        get(again)
    assert list(again.todo) == [] and len(again.finished) == 1
    assert np.array_equal(get(again).predict_proba(X), clf.predict_proba(X))
    path.write_bytes(path.read_bytes()[:-1])
    get(Stages(tmp_path))
    assert f"{path.name} is damaged" in capsys.readouterr().out
    assert np.array_equal(get(Stages(tmp_path), list).predict_proba(X), clf.predict_proba(X))


def test_the_seconds_of_a_stage_in_parts_are_those_of_all_its_runs(tmp_path):
    def killed(folder):
        folder.mkdir(exist_ok=True)
        time.sleep(0.2)
        (folder / f"part {time.monotonic_ns()}").touch()
        time.sleep(0.5)  # of this nothing is kept
        raise KeyboardInterrupt

    def compute(folder):
        assert len(list(folder.iterdir())) == 2
        time.sleep(0.1)
        return 1

    how = {"kind": "invert", "title": "construct a", "settings": 1, "in_parts": True}
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            Stages(tmp_path).get(compute=killed, **how)
    assert Stages(tmp_path).get(compute=compute, **how) == 1
    (about,) = (json.loads(path.read_text()) for path in tmp_path.glob("*.json"))
    assert 0.45 < about["seconds"] < 1.4
    assert not list(tmp_path.glob("*.begun"))


@pytest.mark.parametrize("noted", ["", "[]", "{}", '{"begun": "x", "earlier": 0}'])
def test_a_broken_note_of_earlier_runs_stops_nothing(tmp_path, noted):
    def killed(folder):
        folder.mkdir()
        (folder / "part").touch()
        raise KeyboardInterrupt

    how = {"kind": "invert", "title": "construct a", "settings": 1, "in_parts": True}
    with pytest.raises(KeyboardInterrupt):
        Stages(tmp_path).get(compute=killed, **how)
    (note,) = tmp_path.glob("*.begun")
    note.write_text(noted)
    assert Stages(tmp_path).get(compute=lambda folder: 1, **how) == 1


def test_what_another_table_needs_is_not_left_of_one_that_has_all(tmp_path):
    stages = Stages(tmp_path)

    def source():
        return stages.get("train", "source", 1, lambda: 1)

    def measured(name):
        return stages.get("measure", name, 1, lambda value: value, needs=[source])

    measured("a")
    next(tmp_path.glob("source-*.json")).unlink()
    next(tmp_path.glob("source-*.npz")).unlink()
    stages = Stages(tmp_path)
    with stages.planning() as one:
        measured("a")
    with stages.planning() as other:
        measured("b")
    assert stages.left() == stages.left(other) == ["b", "source"]
    assert stages.left(one) == []


@pytest.mark.parametrize(("folder", "sign"), [("repo", ""), ("elsewhere", "+")])
def test_a_commit_says_whether_the_library_is_its_own(folder, sign, monkeypatch, tmp_path):
    answers = {"HEAD": "0123456789", "--show-toplevel": str(tmp_path / "repo")}
    monkeypatch.setattr(provenance, "_git", lambda *arguments: answers.get(arguments[-1], ""))
    library = tmp_path / folder / "advfeat" / "__init__.py"
    monkeypatch.setattr(provenance.advfeat, "__file__", str(library))
    assert provenance.commit.__wrapped__() == f"0123456789{sign}"

"""Runs of reproduce.py that go on from known results and from sets that are gone."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.utils import Bunch
from tiny_runs import rows_of

import reproduce

pytestmark = [
    pytest.mark.filterwarnings("ignore:The features were matched poorly"),
    pytest.mark.filterwarnings("ignore:The source takes only"),
    # torchattacks 3.5.1 and one epoch of training.
    pytest.mark.filterwarnings("ignore:Catastrophic overfitting"),
]


@pytest.mark.long
def test_pages_of_earlier_runs_are_added_to_where_nothing_else_is_left(tiny, tmp_path, capsys):
    """Their measurements, pictures and makers count on; sets and networks are not made again."""
    first, second = tmp_path / "first", tmp_path / "second"
    reproduce.main(["--out", str(first)])
    shutil.rmtree(first / "stages")
    before = json.loads((first / "overview" / "results.json").read_text())
    capsys.readouterr()
    reproduce.main(["--seeds", "2", "--out", str(second), "--known", str(first)])
    assert "28 stages to compute" in capsys.readouterr().out
    after = json.loads((second / "overview" / "results.json").read_text())
    assert [r for r in after["records"] if r["seed"] == 0] == before["records"]
    assert {r["seed"] for r in after["records"]} == {0, 1}
    assert sum(after["commits"].values()) == len(after["stages"]) == 56
    assert before["stages"].items() <= after["stages"].items()
    assert after["pictures"] == ["accuracy.png", "samples.png"]
    pictures = [(folder / "overview" / "samples.png").read_bytes() for folder in (first, second)]
    assert pictures[0] == pictures[1]  # the sets of the first seed are gone

    reproduce.main(["--out", str(tmp_path / "third"), "--known", str(second), "--budget", "0"])
    third = json.loads((tmp_path / "third" / "overview" / "results.json").read_text())
    assert {**third, "versions": None} == {**before, "versions": None}


@pytest.mark.long
def test_pictures_of_sets_that_are_gone_are_made_again_from_the_sources(tiny, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    reproduce.main(["--out", str(first)])
    picture = np.asarray(Image.open(first / "overview" / "samples.png").convert("RGB"), float)
    (first / "overview" / "samples.png").unlink()
    kept = [path for path in (first / "stages").glob("construct-*") if path.suffix != ".json"]
    assert len(kept) == 5
    for path in kept:
        path.unlink()
    stages = str(first / "stages")
    reproduce.main(["--out", str(second), "--known", str(first), "--stages", stages])
    assert not set(kept) & set((first / "stages").iterdir())
    again = np.asarray(Image.open(second / "overview" / "samples.png").convert("RGB"), float)
    assert again.shape == picture.shape and np.abs(again - picture).mean() < 0.1


@pytest.mark.long
def test_controls_need_the_distance_of_d_r_but_not_its_images(tiny, tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    reproduce.main(["--out", str(first)])
    distance = [
        row["value"]
        for row in rows_of(first / "overview")
        if (row["row"], row["metric"]) == ("D_R", "mean distance to the start")
    ]
    for path in (first / "stages").glob("construct-D_*R,*"):
        path.unlink()
    capsys.readouterr()
    known = ["--known", str(first), "--stages", str(first / "stages")]
    reproduce.main(["controls", "--out", str(second), *known])
    made = re.findall(r"\] (.*): [0-9.]+ s", capsys.readouterr().out)
    assert "construct D with noise of that size, seed 0" in made
    assert not [title for title in made if title.startswith(("construct D_R,", "construct D_NR,"))]
    moved = [
        row["value"]
        for row in rows_of(second / "controls")
        if (row["row"], row["metric"]) == ("D with noise, as far as D_R", "mean distance to x")
    ]
    assert float(moved[0]) == pytest.approx(float(distance[0]), rel=0.01)


@pytest.mark.parametrize("what", ["missing", "empty", "broken", "older", "no maker"])
def test_a_folder_without_known_pages_is_an_error(what, tmp_path, capsys):
    texts = {
        "broken": "{",
        "older": '{"records": []}',
        "no maker": '{"stages": {"a": {"maker": 3}}, "makers": []}',
    }
    known = tmp_path / "known"
    if what != "missing":
        (known / "overview").mkdir(parents=True)
    if what in texts:
        (known / "overview" / "results.json").write_text(texts[what])
    with pytest.raises(SystemExit, match=r"--known: expected pages of reproduce.py in .*known'"):
        reproduce.main(["--out", str(tmp_path / "out"), "--known", str(known)])


@pytest.mark.long
def test_known_pictures_stand_beside_their_own_sets_only(tiny, tmp_path, monkeypatch):
    """Not beside the same numbers of other data."""
    old, new, stages = tmp_path / "old", tmp_path / "new", str(tmp_path / "stages")
    with monkeypatch.context() as patched:  # a page of other data
        load = reproduce.load_digits
        patched.setattr(
            reproduce,
            "load_digits",
            lambda **how: (lambda found: Bunch(**{**found, "data": 1 - found.data}))(load(**how)),
        )
        reproduce.main(["figure9", "--out", str(old)])
    shutil.rmtree(old / "stages")
    reproduce._load_once.cache_clear()
    reproduce.main(["table1", "--out", str(old), "--stages", stages])
    reproduce.main(["figure9", "--out", str(new), "--known", str(old), "--budget", "0"])
    report = json.loads((new / "figure9" / "results.json").read_text())
    pictures = {name: (new / "figure9" / name).read_bytes() for name in report["pictures"]}
    assert all((old / "figure9" / name).read_bytes() != found for name, found in pictures.items())


@pytest.mark.long
def test_a_run_that_was_killed_goes_on_with_known_values(tiny, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    reproduce.main(["overview", "--out", str(first)])
    report = json.loads((first / "overview" / "results.json").read_text())
    (stem,) = (stem for stem in report["stages"] if stem.startswith("evaluate-D_R"))
    shutil.rmtree(first / "stages")
    (second / "stages" / f"{stem}.parts").mkdir(parents=True)  # what a kill leaves
    reproduce.main(["overview", "--out", str(second), "--known", str(first)])
    again = json.loads((second / "overview" / "results.json").read_text())
    assert again["records"] == report["records"]
    assert not (second / "stages" / f"{stem}.parts").exists()


@pytest.mark.long
@pytest.mark.parametrize("n_bytes", [0, 100])
def test_a_damaged_set_that_nobody_needs_prevents_no_page(tiny, tmp_path, n_bytes, capsys):
    reproduce.main(["overview", "--out", str(tmp_path)])
    page = tmp_path / "overview" / "README.md"
    page.unlink()
    (made,) = (tmp_path / "stages").glob("construct-D_NR*.npz")
    made.write_bytes(made.read_bytes()[:n_bytes])
    reproduce.main(["overview", "--out", str(tmp_path)])
    assert page.exists()
    assert f"The stage file {made.name} is damaged" in capsys.readouterr().out

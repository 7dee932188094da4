"""benchmarks/reproduce.py from data to table, its stages, and what it says of bad input."""

import errno
import json
import re

import joblib
import numpy as np
import pytest
from PIL import Image
from tiny_runs import TINY, _check_stages, rows_of

import experiment
import making
import reproduce
import tables
from advfeat.utils._store import Store
from presets import Inversion
from stages import Planned, Stages
from tables import figure8, solvers, table3
from tables._table import sample_grid, simple_bars

pytestmark = [
    pytest.mark.filterwarnings("ignore:The features were matched poorly"),
    pytest.mark.filterwarnings("ignore:The source takes only"),
    # torchattacks 3.5.1 and one epoch of training.
    pytest.mark.filterwarnings("ignore:Catastrophic overfitting"),
]


@pytest.mark.long
def test_overview_from_data_to_page_and_again_from_the_stages(tiny, tmp_path, capsys):
    arguments = ["--preset", "digits", "--seeds", "2", "--out", str(tmp_path)]
    reproduce.main(arguments)
    first = capsys.readouterr().out
    assert "56 stages to compute, 0 kept" in first and "[56/56]" in first
    assert "L2 0.5" in first and "2 seeds, mean ± standard deviation" in first
    folder = tmp_path / "overview"
    rows = rows_of(folder)
    for name in ("standard", "adversarial", "D_R", "D_NR", "D_rand", "D_det"):
        mine = [row for row in rows if row["row"] == name]
        assert {row["seed"] for row in mine} == {"0", "1"}
        assert [r["eps"] for r in mine if r["metric"] == "robust accuracy"] == ["0.5"] * 2
    report = json.loads((folder / "results.json").read_text())
    assert report["settings"]["inversion"]["n_steps"] == 2 and report["seeds"] == 2
    assert {"torch", "pyautoattack", "advfeat", "python"} <= set(report["versions"])
    assert {"commit", "commits", "date"} <= set(report)
    assert report["hardware"]["processor"] and sum(report["commits"].values()) == 56
    page = (folder / "README.md").read_text()
    assert "(95.25) |" in page  # the paper's
    assert re.search(r"chance 5\d.\d %", page)  # the larger class's share
    for name in ("samples.png", "accuracy.png"):
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 200
        assert f"({name})" in page
    assert str(tmp_path) not in page + (folder / "results.json").read_text()

    (tmp_path / "stages" / "train-standard-x.1.partial").write_bytes(b"half written")
    reproduce.main(arguments)
    again = capsys.readouterr().out
    assert "0 stages to compute, 56 kept" in again and "[" not in again.split("Written")[0]
    # The time is that of the computation, not of reading it again.
    same = json.loads((folder / "results.json").read_text())
    assert {**same, "versions": None} == {**report, "versions": None}


@pytest.mark.slow  # half a minute
def test_all_tables_share_their_stages(tiny, quick_autoattack, tmp_path, capsys, monkeypatch):
    few = {"lr": [0.1, 0.05], "batch_size": [64], "lr_schedule": ["step"]}
    monkeypatch.setattr(table3, "_GRID", few)
    monkeypatch.setattr(solvers, "SOLVERS", {"paper, 2 x 0.1": Inversion("paper", 2, 0.1, 0)})
    monkeypatch.setattr(figure8, "_CW_STEPS", 2)
    comparisons = set(tables.NAMES) - set(tables.GROUPS["all"])
    reproduce.main(["all", *comparisons, "--out", str(tmp_path)])
    out = capsys.readouterr().out
    assert "Left out: figure11" in out
    titles = re.findall(r"\] (.*): [0-9.]+ s", out)
    assert len(titles) > 100
    names = {table.name for table in map(tables.table, tables.NAMES)} - {"figure11"}
    for name in names:
        rows = rows_of(tmp_path / name)
        assert rows and all(np.isfinite(float(row["value"])) for row in rows if row["value"])
        pictures = list((tmp_path / name).glob("*.png"))
        page = (tmp_path / name / "README.md").read_text()
        assert pictures and all(f"({picture.name})" in page for picture in pictures)
        assert json.loads((tmp_path / name / "results.json").read_text())["table"] == name
    index = (tmp_path / "README.md").read_text()
    assert all(f"({name}/README.md)" in index for name in names)
    page = (tmp_path / "solvers" / "README.md").read_text()
    assert "60 training and 20 test images" in page  # its own number, not the preset's
    report = json.loads((tmp_path / "precision" / "results.json").read_text())
    assert report["settings"]["test_eps"] == [0.25, 0.5, 1.0]
    for table in tables.in_order():
        if table.name in names and table.needs_images:
            _check_page(tmp_path / table.name / "README.md", table)
            _check_stages(tmp_path / table.name / "results.json")

    # Of every table a page can be made while some of its stages, any of them, are missing.
    whole = {name: rows_of(tmp_path / name) for name in names}
    rng = np.random.default_rng(0)
    for path in sorted((tmp_path / "stages").glob("*.json")):
        if rng.uniform() < 0.4:
            for file in (tmp_path / "stages").glob(f"{path.stem}.*"):
                file.unlink()
    for name in names:
        (tmp_path / name / "results.json").unlink()
    reproduce.main(["all", *comparisons, "--budget", "0", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    n_unfinished = 0
    for name in names:
        report = tmp_path / name / "results.json"
        if not report.exists():
            assert f"{name}: nothing is measured yet" in out
            continue
        left = json.loads(report.read_text())["left"]
        n_unfinished += bool(left)
        rows = rows_of(tmp_path / name)
        assert [row for row in rows if row not in whole[name]] == [], name
        assert (len(rows) < len(whole[name])) == bool(left), name
        page = (tmp_path / name / "README.md").read_text()
        assert ("**Not finished:**" in page) == bool(left)
    assert n_unfinished > 10


def _check_page(path, table):
    """The comparison comes first, in few columns; what differs from the paper is listed."""
    page = path.read_text()
    assert page.index("|  |") < page.index("![") < page.index("## Settings")
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert all(line.count("|") <= 8 for line in rows)
    if table.sets:
        assert "network: small_cnn (paper: resnet50)" in page


def test_a_page_by_hand_is_not_overwritten(tiny, tmp_path):
    (tmp_path / "README.md").write_text("# Results\n")
    reproduce.main(["figure4", "--out", str(tmp_path)])
    assert (tmp_path / "README.md").read_text() == "# Results\n"


@pytest.mark.long
def test_shared_stages_are_computed_once(tiny, tmp_path, capsys):
    reproduce.main(["table1", "table10", "figure9", "figure10", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    for title in ("train standard", "train on D_det", "construct D_rand"):
        assert out.count(f"] {title}, seed 0:") == 1


def test_budget_stops_between_stages_and_says_what_is_left(tiny, tmp_path, capsys):
    arguments = ["table10", "--out", str(tmp_path)]
    reproduce.main([*arguments, "--budget", "0"])
    out = capsys.readouterr().out
    assert "10 stages to compute" in out
    assert "budget of 0 minutes is spent" in out and "Left are 10 stages" in out
    assert "train standard, seed 0" in out and not (tmp_path / "table10").exists()
    assert "table10: nothing is measured yet" in out
    reproduce.main([*arguments, "--budget", "10"])
    assert "is spent" not in capsys.readouterr().out and (tmp_path / "table10").exists()


def test_no_table_fails_where_nothing_is_measured(tiny, tmp_path, capsys):
    """One that did took the pages of those after it along."""
    found = [tables.table(name) for name in tables.NAMES]
    names = sorted({table.name for table in found if table.needs_images and not table.load})
    reproduce.main([*names, "--out", str(tmp_path), "--budget", "0"])
    said = re.findall("(.*): nothing is measured yet", capsys.readouterr().out)
    assert sorted(said) == names
    assert not list(tmp_path.glob("*/README.md"))


def test_a_broken_page_is_no_finished_one(tiny, tmp_path, capsys):
    arguments = ["table10", "--out", str(tmp_path)]
    reproduce.main(arguments)
    page = (tmp_path / "table10" / "results.json").read_text()
    _forget(tmp_path, "leak-of-D_det,-seed-0")
    for broken in ("", page[:99]):
        (tmp_path / "table10" / "results.json").write_text(broken)
        reproduce.main([*arguments, "--budget", "0"])
        assert "is left as it is" not in capsys.readouterr().out
        assert json.loads((tmp_path / "table10" / "results.json").read_text())["left"]


def _forget(folder, *titles):
    for title in titles:
        (path,) = (folder / "stages").glob(f"{title}-*.json")
        for file in (folder / "stages").glob(f"{path.stem}.*"):
            file.unlink()


@pytest.mark.long
def test_budget_leaves_pages_of_what_there_is(tiny, tmp_path, capsys):
    """Rows of which something is measured, marked as not finished, until they are."""
    arguments = ["overview", "--seeds", "2", "--out", str(tmp_path)]
    reproduce.main(arguments)
    folder, index = tmp_path / "overview", tmp_path / "README.md"
    whole = rows_of(folder)
    page = (folder / "README.md").read_text()
    assert "ot finished" not in page + index.read_text()

    missing = {("D_R", "0"), ("D_R", "1"), ("adversarial", "0"), ("adversarial", "1")}
    missing.add(("D_other", "1"))
    _forget(tmp_path, *(f"evaluate-{row},-seed-{seed}" for row, seed in missing))
    reproduce.main([*arguments, "--budget", "0"])
    assert (
        "overview: the finished page that lies there is left as it is" in capsys.readouterr().out
    )
    assert (folder / "README.md").read_text() == page

    (folder / "results.json").unlink()
    reproduce.main([*arguments, "--budget", "0"])
    assert [row for row in whole if row not in rows_of(folder)] == [
        row
        for row in whole
        if (row["row"], row["seed"]) in missing
        and row["metric"] in ("accuracy", "robust accuracy")
    ]
    so_far = (folder / "README.md").read_text()
    assert "**Not finished:** 5 stages are still to be computed" in so_far
    assert "(not finished)" in index.read_text() and "plain training on D_R" not in so_far
    assert "(samples.png)" in so_far and "(accuracy.png)" in so_far
    left = json.loads((folder / "results.json").read_text())["left"]
    assert sorted(left) == sorted(f"evaluate {row}, seed {seed}" for row, seed in missing)

    reproduce.main(arguments)
    assert _untimed((folder / "README.md").read_text()) == _untimed(page)
    assert rows_of(folder) == whole and "ot finished" not in index.read_text()


def _untimed(page):
    return re.sub(r"[\d.]+ minutes", "some minutes", page)


@pytest.mark.parametrize("name", ["D_R", "D_R from noise", "D_other"])
def test_a_construction_that_was_killed_goes_on_where_it_was(name, tmp_path, monkeypatch, digits):
    X, y, X_test, y_test = digits
    data = X[:100], y[:100], X_test[:20], y_test[:20]
    monkeypatch.setattr(making, "batches", lambda source: {"batch_size": 16})
    whole = experiment.Experiment(TINY, data, 0, Stages(tmp_path / "whole")).constructed(name)
    put, n_put = Store.put, []

    def press_ctrl_c(store, begin, part):
        if len(n_put) == 3:
            raise KeyboardInterrupt
        n_put.append(begin)
        put(store, begin, part)

    folder = tmp_path / "stages"
    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", press_ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            experiment.Experiment(TINY, data, 0, Stages(folder)).constructed(name)
    assert len(list(folder.glob("*.parts"))) == 1
    monkeypatch.setattr(Store, "put", lambda *args: n_put.append(args[1]) or put(*args))
    found = experiment.Experiment(TINY, data, 0, Stages(folder)).constructed(name)
    assert n_put == list(range(0, 100, 16))  # each batch once
    assert not list(folder.glob("*.parts"))
    kept = experiment.Experiment(TINY, data, 0, Stages(folder)).constructed(name)
    for other in (found, kept):
        assert joblib.hash(_plain(other)) == joblib.hash(_plain(whole))


def _plain(constructed):
    """What a constructor gives, as values and arrays."""
    found = dict(constructed)
    data = found.pop("set")
    parts = {"X": data} if isinstance(data, np.ndarray) else vars(data)
    return {**found, **{name: np.array(value) for name, value in parts.items()}}


@pytest.mark.parametrize(
    ("module", "table", "extra"),
    [("matplotlib", "table10", "plots"), ("pyautoattack", "figure8", "bench")],
)
def test_missing_packages_are_found_before_the_work(
    tiny, tmp_path, monkeypatch, module, table, extra
):
    monkeypatch.setattr(reproduce, "find_spec", lambda name: None if name == module else True)
    with pytest.raises(SystemExit, match=rf'{module} is missing.* pip install ".\[{extra}\]"'):
        reproduce.main([table, "--out", str(tmp_path)])
    assert not list((tmp_path / "stages").glob("*.json"))


@pytest.mark.long
def test_a_finished_page_of_other_data_does_not_count(tiny, tmp_path, capsys):
    arguments = ["overview", "--out", str(tmp_path), "--stages", str(tmp_path / "stages")]
    reproduce.main(arguments)
    _forget(tmp_path, "evaluate-D_R,-seed-0")
    reproduce.main([*arguments, "--budget", "0", "--label", "other\n data"])
    assert "is left as it is" not in capsys.readouterr().out
    page = (tmp_path / "overview" / "README.md").read_text()
    assert "**Not finished:**" in page and "other data;" in page


def test_a_page_that_cannot_be_written_is_told(tiny, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(reproduce, "write", full)
    with pytest.raises(SystemExit, match="cannot be written: No space left.*kept in the stages"):
        reproduce.main(["table10", "--out", str(tmp_path)])


def test_pictures_of_nothing_are_not_drawn(digits):
    class Experiment:
        X, y = digits[0][:40], digits[1][:40]
        class_names = None

        def images(self, name, rows):
            return Planned()

    assert simple_bars([], [("accuracy", None)], "accuracy, %") is None
    assert sample_grid(Experiment(), ["D_R", "D_NR"]) is None


def test_the_list_names_every_table_and_group(capsys):
    reproduce.main(["--list"])
    named = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert named == [*tables.NAMES, "debate", "all"]
    assert set(tables.GROUPS) == {"debate", "all"}

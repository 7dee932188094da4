"""benchmarks/reproduce.py from data to table, its stages, and what it says of bad input."""

import copy
import csv
import dataclasses
import json
import re
import shutil

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.utils import Bunch

import experiment
import making
import measures
import reproduce
import tables
from advfeat import StandardClassifier
from advfeat.optim import cross_entropy
from advfeat.utils._store import Store
from architectures import small_vgg
from making import TestAccuracy
from presets import PRESETS, RESTRICTED_IMAGENET, Adversary, Inversion, Relabelling, Training
from resuming import autoattack_curve
from stages import Stages
from tables import figure8, solvers, table3

TINY = dataclasses.replace(
    PRESETS["digits"],
    training=dict.fromkeys(
        PRESETS["digits"].training, Training(0.2, 64, "one-cycle", "none", epochs=1)
    ),
    adversary=Adversary(1.0, 1, 0.2),
    inversion=Inversion("decayed", 2, 0.6, noise_steps=2),
    relabelling=Relabelling(0.5, 2, None),
    attack_steps=1,
    autoattack_samples=5,
    curve_samples=5,
    curve_steps=(1, 2),
    usefulness_samples=20,
    usefulness_steps=1,
    grid_epochs=1,
    grid_sets=("D_R", "D_det"),
    early_epochs=1,
    slight_eps=(0.0, 0.5),
    noise_eps=(2.0,),
    n_compared=(60, 20),
    architectures=("small_cnn", "small_resnet", small_vgg),
)
# Two classes only: AutoAttack, in particular, takes long for many.
CLASSES = (3, 8)

pytestmark = [
    pytest.mark.filterwarnings("ignore:The features were matched poorly"),
    pytest.mark.filterwarnings("ignore:The source takes only"),
    # torchattacks 3.5.1 and one epoch of training.
    pytest.mark.filterwarnings("ignore:Catastrophic overfitting"),
]


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(reproduce.PRESETS, "digits", TINY)
    load = reproduce.load_digits

    def load_few(**options):
        data = load(**options)
        rows = np.flatnonzero(np.isin(data.target, CLASSES))[:100]
        names = [f"digit {name}" for name in CLASSES]
        return Bunch(data=data.data[rows], target=data.target[rows], target_names=names)

    monkeypatch.setattr(reproduce, "load_digits", load_few)
    reproduce._load_once.cache_clear()
    yield
    reproduce._load_once.cache_clear()


@pytest.fixture
def quick_autoattack(monkeypatch):
    """AutoAttack itself is tested as a slow test."""
    monkeypatch.setattr(
        measures, "withstand_autoattack", lambda classifier, X, y, eps: np.arange(len(X)) % 2 == 0
    )


def rows_of(folder):
    with open(folder / "table.csv") as file:
        return list(csv.DictReader(file))


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


def _check_stages(path):
    """The page alone holds what was measured for it."""
    report = json.loads(path.read_text())
    made = ("train-", "construct-")
    without = [name for name, stage in report["stages"].items() if "value" not in stage]
    assert [name for name in without if not name.startswith(made)] == []
    assert all(report["makers"][stage["maker"]] for stage in report["stages"].values())


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


def test_parameters_at_their_default_are_no_settings():
    """Else every new parameter of an estimator would make all stages new."""
    kind, settings = experiment.settings_of(StandardClassifier("mlp", lr=0.1, max_epochs=3))
    assert (kind, settings) == ("StandardClassifier", {"network": "mlp", "max_epochs": 3})
    other = experiment.settings_of(StandardClassifier(small_vgg, device="cpu", verbose=0))
    assert other == ("StandardClassifier", {"network": "small_vgg"})


def test_figure10_follows_the_test_images_that_it_reports(tmp_path):
    data = [np.zeros((4, 1, 8, 8)), np.arange(4), np.zeros((2, 1, 8, 8)), np.arange(2)]
    run = experiment.Experiment(TINY, data, 0, Stages(tmp_path))
    other = experiment.Experiment(TINY, [*data[:2], data[2] + 1, data[3]], 0, Stages(tmp_path))
    assert run.classifier_key("D_det") != other.classifier_key("D_det")
    assert run.classifier_key("D_R") == other.classifier_key("D_R")


def test_data_are_hashed_once_for_all_tables_and_seeds(tiny, tmp_path, monkeypatch):
    """Not the parts that some tables take, of their own size."""
    hashed, usual = [], joblib.hash

    def note(value, *options):
        if isinstance(value[0], np.ndarray):
            hashed.append(len(value[0]))
        return usual(value, *options)

    monkeypatch.setattr(joblib, "hash", note)
    tables = ["table1", "table10", "figure10"]
    reproduce.main([*tables, "--seeds", "2", "--budget", "0", "--out", str(tmp_path)])
    assert hashed == [100, 89]  # training data, test data


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
    assert (folder / "README.md").read_text() == page and rows_of(folder) == whole
    assert "ot finished" not in index.read_text()


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


def test_restricted_imagenet_from_a_folder_to_the_page(
    tiny, imagenet, tmp_path, capsys, monkeypatch
):
    """A small generated folder in the layout of ILSVRC2012."""
    usual = RESTRICTED_IMAGENET["digits"]
    tiny_one = dataclasses.replace(
        TINY, n_train=90, n_test=18, test_eps=usual.test_eps, image_size=8
    )
    monkeypatch.setitem(RESTRICTED_IMAGENET, "digits", tiny_one)
    out = tmp_path / "out"
    arguments = ["figure11", "--imagenet", str(imagenet), "--out", str(out)]
    reproduce.main(arguments)
    rows = rows_of(out / "figure11")
    assert {row["eps"] for row in rows if row["metric"] == "robust accuracy"} == {"1.5", "3.0"}
    page = (out / "figure11" / "README.md").read_text()
    assert "all images of the classes of Table 2" in page
    assert {row["row"] for row in rows} >= {"standard", "D_R", "D_NR", "D_rand", "D_det"}
    assert (out / "figure11" / "figure11.png").exists()
    assert (out / "figure11" / "figure12.png").exists()
    capsys.readouterr()
    reproduce.main(arguments)
    assert "0 stages to compute" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="Could not load the data"):
        reproduce.main(["figure11", "--imagenet", str(tmp_path / "no"), "--out", str(out)])
    with pytest.raises(SystemExit, match="needs --imagenet FOLDER"):
        reproduce.main(["figure12", "--out", str(out)])


@pytest.mark.slow
def test_autoattack_agrees_with_this_library(standard, digits, tmp_path):
    _, _, X, y = digits
    eps_values = (0.25, 0.5)
    found = autoattack_curve(standard, X[:60], y[:60], eps_values, tmp_path)
    ours = measures.accuracy_curve(standard, X[:60], y[:60], eps_values, {"norm": 2})
    for eps in eps_values:
        assert found[eps] == pytest.approx(ours[eps], abs=0.05)
    assert found[0.5] < found[0.25] < 1


def test_parts_of_sorted_data_hold_every_class():
    X, y = np.arange(1000), np.repeat(np.arange(10), 100)
    part, labels = measures.some_of(60, X, y)
    assert len(part) == 60 and set(labels) == set(range(10)) and np.array_equal(y[part], labels)
    assert measures.some_of(None, X)[0] is X


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_images_of_either_type_are_measured_alike(dtype, standard, digits):
    _, _, X, y = digits
    images = (X * 255).astype(np.uint8)
    images = images if dtype == np.uint8 else images.astype(np.float32) / 255
    follow, net = TestAccuracy(images, y, np.unique(y)), copy.deepcopy(standard.net_)
    follow.on_epoch_end(net)
    assert net.history[-1, "test_accuracy"] == standard.score(images, y) > 0.9
    grid, size = (1, 2), 0.1
    alive = figure8._withstand(standard, images, y, cross_entropy, grid, size)
    assert alive.mean() > 0.8


def test_image_folder(tmp_path, monkeypatch, capsys):
    rng = np.random.RandomState(0)
    for split, n in (("train", 12), ("test", 6)):
        for label in ("cat", "dog"):
            folder = tmp_path / "pets" / split / label
            folder.mkdir(parents=True)
            for i in range(n):
                pixels = rng.randint(256, size=(16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    small = dataclasses.replace(TINY, network="small_resnet", n_train=20, n_test=8)
    monkeypatch.setitem(reproduce.PRESETS, "small", small)
    options = ["--preset", "small", "--data", str(tmp_path / "pets"), "--out", str(tmp_path)]
    reproduce.main([*options, "--validate"])
    out = capsys.readouterr().out
    assert "VALIDATION" in out
    page = (tmp_path / "overview" / "README.md").read_text()
    assert "16 training and 4 test images" in page


def test_the_original_cifar10_by_name(monkeypatch, tmp_path):
    asked = []

    def fetch(root, split, download):
        asked.append((root, split, download))
        n = {"train": 60, "test": 30}[split]
        X = np.full((n, 3, 32, 32), 7, np.uint8)
        return Bunch(data=X, target=np.arange(n) % 10, target_names=np.array(list("abcdefghij")))

    monkeypatch.setattr(reproduce, "fetch_cifar10", fetch)
    reproduce._load_once.cache_clear()
    options = reproduce._parse(["--preset", "cifar", "--data", "cifar10", "--cache", "here"])
    (X, y, X_test, y_test), label, names = reproduce._load(options, PRESETS["cifar"])
    assert len(X) == 60 and len(X_test) == 30 and label == "CIFAR-10" and names == [*"abcdefghij"]
    assert asked == [(options.cache, "train", True), (options.cache, "test", True)]
    few = dataclasses.replace(PRESETS["small"], n_train=20, n_test=10)
    (X, y, *_), _, _ = reproduce._load(options, few)
    assert len(X) == len(y) == 20
    reproduce._load_once.cache_clear()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--data", "nowhere"],
        ["--preset", "huge"],
        ["--seeds", "0"],
        ["--preset", "small"],
        ["table99", "table99. There are: overview, figure2"],
        ["--network", "nonsense"],
        ["--device", "nonsense"],
        ["--device", "cuda:99"],
    ],
)
def test_bad_arguments_end_with_a_message(arguments, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        reproduce.main([*arguments, "--out", str(tmp_path)])
    said = f"{stop.value} {capsys.readouterr().err}"
    assert arguments[1] in said
    assert not (tmp_path / "results.json").exists()


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


def test_test_accuracy_takes_the_classes_of_the_training():
    """Of which the test set may lack some."""

    class Net:
        device, history = "cpu", type("H", (), {"record": lambda self, *a: seen.append(a)})()
        module_ = torch.nn.Identity()

        def infer(self, x):
            return torch.eye(3)[torch.full((len(x),), 2)]

    seen = []
    follower = TestAccuracy(
        np.zeros((4, 1, 2, 2), "f"), np.array(["a", "c", "c", "c"]), list("abc")
    )
    follower.on_epoch_end(Net())
    assert seen == [("test_accuracy", 0.75)]


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

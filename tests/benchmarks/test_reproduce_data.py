"""The data and arguments of reproduce.py."""

import copy
import dataclasses

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.utils import Bunch
from tiny_runs import TINY, rows_of

import experiment
import measures
import reproduce
from advfeat import StandardClassifier
from advfeat.optim import cross_entropy
from architectures import small_vgg
from making import TestAccuracy
from presets import PRESETS, RESTRICTED_IMAGENET
from resuming import autoattack_curve
from stages import Stages
from tables import figure8

pytestmark = [
    pytest.mark.filterwarnings("ignore:The features were matched poorly"),
    pytest.mark.filterwarnings("ignore:The source takes only"),
    # torchattacks 3.5.1 and one epoch of training.
    pytest.mark.filterwarnings("ignore:Catastrophic overfitting"),
]


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


@pytest.mark.long
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


@pytest.mark.long
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
        ["--budget", "nan"],
        ["--budget", "-1"],
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

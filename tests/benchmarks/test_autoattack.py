"""benchmarks/autoattack.py at its smallest: it runs, and its table says what it measured."""

import json

import numpy as np
import pytest
import torch

import autoattack
import measures
from advfeat import StandardClassifier


@pytest.mark.long
@pytest.mark.parametrize("n_classes", [2, 3, 4, 5, 10])
def test_the_standard_version_is_that_of_its_authors(n_classes):
    """Croce and Hein 2020: 100 steps, at most 9 targets, 5000 queries."""
    rng = np.random.default_rng(n_classes)
    X, y = 0.3 * rng.random((60, 1, 5, 5), dtype=np.float32), np.arange(60) % n_classes
    X[np.arange(60), 0, y // 5, y % 5] = 1  # one pixel tells the class
    clf = StandardClassifier("mlp", max_epochs=20, random_state=0, verbose=0).fit(X, y)
    before, seen = torch.random.get_rng_state(), []

    def look(attack):
        seen.append(attack)
        attack.square.n_queries = 5

    with_gradients = [parameter.grad for parameter in clf.module_.parameters()]
    withstand = measures.withstand_autoattack(clf, X[:10], y[:10], 1e-4, adapt=look)
    assert np.array_equal(withstand, clf.predict(X[:10]) == y[:10])
    (attack,) = seen
    parts = attack.apgd, attack.apgd_targeted, attack.fab
    assert [part.n_iter for part in parts] == [100] * 3
    assert not attack.square.rescale_schedule
    if n_classes < 4:
        assert attack.attacks_to_run == ["apgd-ce", "fab", "square"]
    else:
        assert attack.attacks_to_run == ["apgd-ce", "apgd-t", "fab-t", "square"]
        assert [part.n_target_classes for part in parts[1:]] == [min(9, n_classes - 1)] * 2
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(
        parameter.grad is grad
        for parameter, grad in zip(clf.module_.parameters(), with_gradients, strict=True)
    )


def test_labels_are_handed_over_as_the_logits_are_numbered(monkeypatch):
    class Harmless:
        """Moves nothing, and notes the labels it gets."""

        def run_standard_evaluation(self, images, labels):
            seen.append(labels.tolist())
            return images, labels

    seen = []
    monkeypatch.setattr(measures, "_autoattack", lambda *args: Harmless())
    rng = np.random.default_rng(0)
    number = rng.integers(3, size=60)
    X, y = rng.normal(size=(60, 3)) + 6 * np.eye(3)[number], np.array([10, 20, 30])[number]
    clf = StandardClassifier(max_epochs=20, random_state=0, verbose=0).fit(X, y)
    y[:9] = 20  # some of them wrong
    X, y = X[y > 10], y[y > 10]
    withstand = measures.withstand_autoattack(clf, X, y, 0.1)
    assert seen == [[{20: 1, 30: 2}[label] for label in y.tolist()]]
    assert np.array_equal(withstand, clf.predict(X) == y)
    assert 0.8 < withstand.mean() < 1


@pytest.mark.long
def test_smoke(tmp_path, capsys):
    autoattack.main(["--smoke", "--out", str(tmp_path)])
    report = json.loads((tmp_path / "autoattack.json").read_text())
    assert [row["norm"] for row in report["rows"]] == ["L2", "Linf"]
    for row in report["rows"]:
        assert 0 <= row["ours"] <= row["clean"] <= 1
        assert 0 <= row["AutoAttack"] <= row["clean"]
    page = (tmp_path / "README.md").read_text()
    assert page.count("\n| ") == 3
    assert str(tmp_path) not in page + json.dumps(report)
    assert "attack standard in L2 0.5" in capsys.readouterr().out
    autoattack.main(["--smoke", "--out", str(tmp_path)])  # all of it is kept
    assert " s\n" not in capsys.readouterr().out
    assert json.loads((tmp_path / "autoattack.json").read_text()) == report


def test_a_part_of_the_models_leaves_the_table_to_the_whole(tmp_path, monkeypatch, capsys):
    """Several processes share the work so."""

    def compare(classifier, X, y, norm, eps, smoke):
        return {
            "eps": eps,
            "clean": 1.0,
            "ours": 0.6,
            "AutoAttack": 0.36 if norm == 2 else 0.6,
            "seconds ours": 1.0,
            "seconds AutoAttack": 10.0 if norm == 2 else 4.0,
            "hardware": {"device": "CPU", "processor": "fast", "threads": 1},
        }

    def curve(classifier, X, y, *, norm, eps_values, verbose):
        return 0.8 * np.exp2(-np.divide(eps_values, 0.4 if norm == 2 else 0.05))

    monkeypatch.setattr(autoattack, "_compare", compare)
    monkeypatch.setattr(autoattack, "robust_accuracy_curve", curve)
    monkeypatch.setattr(autoattack, "MODELS", ("standard", "D_NR"))
    monkeypatch.setattr(autoattack.Experiment, "classifier", lambda self, name: name)
    arguments = ["--samples", "100", "--out", str(tmp_path)]
    for name in ("standard", "D_NR"):
        autoattack.main([*arguments, "--models", name])
        assert not (tmp_path / "README.md").exists()
    assert "| D_NR | Linf | 0.12 | 100.0 | 60.0 | 60.0 | 1.0 | 4.0 |" in capsys.readouterr().out
    monkeypatch.setattr(autoattack, "_compare", None)
    autoattack.main([*arguments])
    page = (tmp_path / "README.md").read_text()
    assert "in 6 of 12 rows; the largest difference is +24.0 points" in page
    assert "Ours took 14 % of AutoAttack's seconds in all, and at most a fifth in 6 of 12" in page
    assert "the largest share is 25 %, 1.0 s for 4.0 s" in page
    assert page.count("| D_NR |") == 8 and "--samples 100` on fast, 1 threads" in page
    rows = json.loads((tmp_path / "autoattack.json").read_text())["rows"]
    halves = {row["norm"]: row["eps"] for row in rows if row["left"] == 0.5}
    assert halves == pytest.approx({"L2": 0.4, "Linf": 0.05}, rel=0.05)  # to the grid's accuracy
    assert all(row["eps"] == float(f"{row['eps']:.1e}") for row in rows)

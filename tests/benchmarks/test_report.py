"""Differences, errors and claims of a page."""

import json
from pathlib import Path

import numpy as np
import pytest
from report_cases import report_of

import index
import pages
import tables

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def judge(values, low="b", **table):
    """(gap, standard error, verdict) of the claim that "a" is higher."""
    key = {name: (name, "accuracy", None) for name in "ab"}
    claim = tables._table.Claim("a is higher", key["a"], key.get(low, low))
    table = tables._table.Table("x", "x", None, None, claims=(claim,), **table)
    report = values if "records" in values else report_of(values)
    ((_, gap, error, _, verdict),) = pages.judged(table, report)
    return gap, error, verdict


def of_images(*shares, n=400):
    return (sum(p * (1 - p) for p in shares) / n) ** 0.5


@pytest.mark.parametrize(
    ("a", "b", "gap", "seeds", "images", "verdict"),
    [
        # Paired: the spread is shared, and the error is that of the test images.
        ([0.5, 0.6, 0.7], [0.4, 0.5, 0.6], 10, 0, 3.452, "holds"),
        ([0.5, 0.6, 0.7], [0.6, 0.6, 0.6], 0, 10 / 3**0.5, 3.45, "not shown"),
        ([0.4, 0.41, 0.39], [0.5, 0.52, 0.48], -10, 1 / 3**0.5, 3.5, "the opposite"),
        ([0.5], [0.5], 0, 0, 3.54, "not shown"),
        # Two seeds say little of their spread: the interval is wider than two standard errors.
        ([0.3, 0.5], [0.1, 0.1], 30, 10, 2.85, "not shown"),
        ([0.3, 0.31], [0.1, 0.1], 20.5, 0.5, 2.75, "holds"),
    ],
)
def test_differences_are_paired_over_the_seeds(a, b, gap, seeds, images, verdict):
    found, error, said = judge({"a": a, "b": b})
    assert found == pytest.approx(gap)
    assert error == pytest.approx((seeds**2 + images**2) ** 0.5, abs=0.02)
    assert said == verdict


def test_few_seeds_rarely_show_what_is_not_there():
    """At most 5 % of the claims, where seeds and test images scatter and nothing differs."""
    rng = np.random.default_rng(0)
    n_seeds, n_images, shown = 2, 400, 0
    for _ in range(500):
        found = {}
        for name in "ab":
            on_images = rng.binomial(n_images, 0.5) / n_images  # the same images for all seeds
            found[name] = (on_images + 0.02 * rng.normal(size=n_seeds)).tolist()
        shown += judge(found)[2] != "not shown"
    assert shown / 500 < 0.05 + 3 * (0.05 * 0.95 / 500) ** 0.5


def test_a_difference_from_chance():
    gap, error, said = judge({"a": [0.1, 0.3]}, low="chance")
    assert gap == pytest.approx(10) and said == "not shown"
    gap, error, said = judge({"a": [0.2]}, low="chance")  # a guess has no error of its own
    assert error == pytest.approx(100 * of_images(0.2)) and said == "holds"


def test_one_training_decides_nothing_of_its_epochs():
    """They rise and fall together, by more than the test images' error."""
    key = {name: (name, "accuracy", None) for name in "ab"}
    claim = tables._table.Claim("a is higher", key["a"], key["b"], of_epochs=True)
    table = tables._table.Table("x", "x", None, None, claims=(claim,))
    for a, b, expected in (
        ([0.8], [0.2], "not shown"),
        ([0.8, 0.82], [0.2, 0.22], "holds"),
        ([0.2, 0.22], [0.8, 0.82], "the opposite"),
    ):
        ((*_, verdict),) = pages.judged(table, report_of({"a": a, "b": b}))
        assert verdict == expected
    assert any(claim.of_epochs for claim in tables.table("figure10").claims)


def test_the_error_is_that_of_what_was_counted():
    """The share of 100 features beside that of 50; of the test images where nothing is said."""
    report = report_of({"a": [0.5], "b": [0.2]})
    for row, n in (("a", 100), ("b", 50)):
        report["records"].append(
            {"seed": 0, "row": row, "metric": "features", "eps": None, "value": n}
        )
    _, error, _ = judge(report, counted="features")
    assert error == pytest.approx(100 * (0.25 / 100 + 0.16 / 50) ** 0.5)
    report["records"].pop()
    _, error, _ = judge(report, counted="features")
    assert error == pytest.approx(100 * (0.25 / 100 + 0.16 / 400) ** 0.5)


def test_a_claim_says_that_it_was_judged_with_one_seed_among_others_with_more():
    key = {name: (name, "accuracy", None) for name in "abc"}
    claims = tuple(tables._table.Claim(f"{x} is higher", key["a"], key[x]) for x in "bc")
    table = tables._table.Table("x", "x", None, None, claims=claims)
    said = pages._claims(table, report_of({"a": [0.5, 0.6], "b": [0.1, 0.2], "c": [0.2]}))
    assert said[2].endswith("| holds |") and said[3].endswith("| holds, with this seed |")
    errors = "from the seeds and from the choice of the test images, with one seed from the latter"
    assert errors in said[5]
    assert "where both are tested on the same images" in said[5]
    (*_, said, _) = pages._claims(table, report_of({"a": [0.5], "c": [0.2]}))
    assert "another seed may differ by more" in said


@pytest.mark.parametrize(
    "change",
    [
        {"data": []}, {"data": {}}, {"data": None}, {"seeds": "3"}, {"seeds": None},
        {"settings": {"training": []}}, {"settings": []},
    ],
)  # fmt: skip
def test_results_of_another_version_cost_no_list(change, tmp_path, capsys):
    whole = json.loads((RESULTS / "digits" / "table8" / "results.json").read_text())
    for name, report in (("table8", whole), ("table1", {**whole, **change})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(report))
    (tmp_path / "figure2").mkdir()
    (tmp_path / "figure2" / "results.json").write_text("[" * 100_000)
    index.write_list(tmp_path)
    written = (tmp_path / "README.md").read_text()
    assert "table8/README.md" in written
    assert "table1" not in written and "figure2" not in written

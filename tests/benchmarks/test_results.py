"""The committed results: every page, and every figure quoted elsewhere, is what they give."""

import json
import re
from pathlib import Path

import pytest

import index
import pages
import tables

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SPREAD = re.compile(r"(\d+(?:\.\d+)?) ± (\d+(?:\.\d+)?)")


def test_pages_and_quotations_are_what_the_results_give():
    made = {**index.pages_of(RESULTS), **index.documents_of(RESULTS)}
    wrong = [path for path, text in made.items() if path.read_text(encoding="utf-8") != text]
    assert not wrong, f"Make them again with: python benchmarks/index.py. They are: {wrong}"


def test_every_folder_of_results_is_whole_and_small():
    folders = [path.parent for path in RESULTS.glob("*/*/results.json")]
    assert folders
    for folder in folders:
        report = json.loads((folder / "results.json").read_text())
        assert index._is_whole(report), folder
        assert {path.name for path in folder.glob("*.png")} == set(report["pictures"])
        for path in folder.glob("*.png"):
            assert path.stat().st_size < 150_000, path


def committed_cells():
    """Every mean with its spread, as pages print them."""
    cells = set()
    for path in RESULTS.glob("*/*/results.json"):
        records = json.loads(path.read_text())["records"]
        for row in tables._table.rows_of(records):
            cells |= {pages.cell(records, row, column) for column in pages.columns_of(records)}
    return cells


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_means_with_a_spread_are_those_of_committed_results(path):
    known = committed_cells()
    found = [" ± ".join(pair) for pair in SPREAD.findall(path.read_text(encoding="utf-8"))]
    assert not [text for text in found if text not in known]


@pytest.mark.parametrize(
    "path", [*DOCUMENTS, *RESULTS.rglob("*.md")], ids=lambda path: str(path.relative_to(ROOT))
)
def test_links_into_the_results_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if path.parent == ROOT / "docs" and target.startswith("results/"):
            target = f"../benchmarks/{target}"  # the site has a copy of them
        if "results" in target or RESULTS in path.parents:
            assert (path.parent / target).exists(), target


def test_the_tables_of_speed_are_those_of_its_files():
    page = (RESULTS / "speed" / "README.md").read_text()
    times = set()
    for path in (RESULTS / "speed").glob("*.json"):
        text = path.read_text()
        for number in map(float, re.findall(r": (\d+\.\d+)", text)):
            for factor in (1, 1000):  # seconds or milliseconds
                times |= {f"{factor * number:.{digits}f}" for digits in (1, 2, 3)}
        times |= {
            f"{float(number):.{digits}f}"
            for number in re.findall(r"\d+\.\d+", text)
            for digits in (1, 2, 3)
        }
    rows = [line for line in page.splitlines() if line.startswith("| ") and "advfeat" in line]
    assert rows
    for line in rows:
        for number in re.findall(r"(?<![\w.])\d+\.\d{2,3}(?![\w.])", line):
            assert number in times or number == "1.00", line


@pytest.mark.parametrize("text", ["[]", "{}", "half of", '{"title": "other"}'])
def test_broken_results_of_another_table_are_ignored_with_a_line(tmp_path, capsys, text):
    whole = json.loads((next(RESULTS.glob("gaussian/figure4/results.json"))).read_text())
    for name, content in (("figure4", json.dumps(whole)), ("figure13", text)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(content)
    index.write_list(tmp_path)
    found = (tmp_path / "README.md").read_text()
    assert "figure4/README.md" in found and "figure13" not in found
    said = capsys.readouterr().out
    assert text == "{}" or "figure13" in said


def test_an_index_that_is_no_utf8_is_left_as_it_is(tmp_path, capsys):
    page = tmp_path / "README.md"
    page.write_bytes("# Résultats\n".encode("latin-1"))
    index.write_list(tmp_path)
    assert page.read_bytes() == "# Résultats\n".encode("latin-1")
    assert "no UTF-8" in capsys.readouterr().out


def report_of(values, n_test=400):
    """A report with one share for two rows and several seeds."""
    records = [
        {"seed": seed, "row": row, "metric": "accuracy", "eps": None, "value": value}
        for row, found in values.items()
        for seed, value in enumerate(found)
    ]
    return {"records": records, "data": {"n_test": n_test, "n_classes": 10}}


@pytest.mark.parametrize(
    ("a", "b", "gap", "error", "verdict"),
    [
        ([0.5, 0.6, 0.7], [0.4, 0.5, 0.6], 10, 0, "holds"),  # paired: the spread is shared
        ([0.5, 0.6, 0.7], [0.6, 0.6, 0.6], 0, 10 / 3**0.5, "not shown"),
        ([0.4, 0.41, 0.39], [0.5, 0.52, 0.48], -10, 1 / 3**0.5, "the opposite"),
        ([0.5], [0.5], 0, 100 * (0.5 / 400) ** 0.5, "not shown"),  # of the test images
    ],
)
def test_differences_are_paired_over_the_seeds(a, b, gap, error, verdict):
    key = {name: (name, "accuracy", None) for name in "ab"}
    claim = tables._table.Claim("a is higher", key["a"], key["b"])
    table = tables._table.Table("x", "x", None, None, claims=(claim,))
    ((_, found, found_error, said),) = pages.judged(table, report_of({"a": a, "b": b}))
    assert found == pytest.approx(gap) and found_error == pytest.approx(error, abs=1e-9)
    assert said == verdict


def test_a_difference_from_chance():
    claim = tables._table.Claim("more than chance", ("a", "accuracy", None), "chance")
    table = tables._table.Table("x", "x", None, None, claims=(claim,))
    ((_, gap, _, said),) = pages.judged(table, report_of({"a": [0.1, 0.3]}))
    assert gap == pytest.approx(10) and said == "not shown"


def test_the_error_of_one_seed_is_that_of_what_was_counted():
    """The share of 100 features beside that of 50; of the test images where nothing is said."""
    key = {name: (name, "accuracy", None) for name in "ab"}
    claim = tables._table.Claim("a is higher", key["a"], key["b"], of="features")
    table = tables._table.Table("x", "x", None, None, claims=(claim,))
    report = report_of({"a": [0.5], "b": [0.2]})
    for row, n in (("a", 100), ("b", 50)):
        report["records"].append(
            {"seed": 0, "row": row, "metric": "features", "eps": None, "value": n}
        )
    ((_, _, error, _),) = pages.judged(table, report)
    assert error == pytest.approx(100 * (0.25 / 100 + 0.16 / 50) ** 0.5)
    report["records"].pop()
    ((_, _, error, _),) = pages.judged(table, report)
    assert error == pytest.approx(100 * (0.25 / 100 + 0.16 / 400) ** 0.5)


def test_rows_show_the_papers_figure_beside_ours():
    records = report_of({"D_R": [0.5, 0.7], "other": [0.25, 0.25]})["records"]
    paper = {("D_R", "accuracy", None): 85.4, ("D_R", "robust accuracy", 0.5): 21.85}
    lines = pages.markdown(records, [("accuracy", None), ("robust accuracy", 0.5)], paper)
    assert lines[2] == "| D_R | 60.0 ± 14.1 (85.4) |  |"  # none of theirs without one of ours
    assert lines[3] == "| other | 25.0 ± 0.0 |  |"


def test_columns_on_fewer_images_say_how_exact_they_are():
    said = pages._errors_of_parts([("robust accuracy, AutoAttack, n = 100", 0.5), ("other", None)])
    assert said == ["With n = 100 the standard error of a share is at most 5.0 points.", ""]


def test_a_quotation_is_made_again(tmp_path):
    (tmp_path / "docs").mkdir()
    folder = tmp_path / "r" / "digits" / "overview"
    folder.mkdir(parents=True)
    report = {"records": report_of({"D_R": [0.5, 0.7]})["records"]}
    (folder / "results.json").write_text(json.dumps(report))
    before = "a\n<!-- results/digits/overview: accuracy -->\nold\n<!-- end -->\nb\n"
    (tmp_path / "README.md").write_text(before)
    ((path, text),) = index.documents_of(tmp_path / "r", tmp_path).items()
    assert path == tmp_path / "README.md" and "| D_R | 60.0 ± 14.1 |" in text
    assert "old" not in text and text.startswith("a\n<!--") and text.endswith("<!-- end -->\nb\n")


@pytest.mark.parametrize(
    ("metric", "found", "text"),
    [
        ("accuracy", [0.5, 0.52], "51.0 ± 1.4"),
        ("training images", [5541], "5,541"),
        ("training images", [1000, 3000], "2,000 ± 1,414"),
        ("mean distance to x", [0.49999], "0.5"),
    ],
)
def test_numbers_are_printed_as_people_write_them(metric, found, text):
    records = [
        {"row": "row", "metric": metric, "eps": None, "seed": seed, "value": value}
        for seed, value in enumerate(found)
    ]
    assert pages.cell(records, "row", (metric, None)) == text

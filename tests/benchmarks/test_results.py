"""The committed results: every page, and every figure quoted elsewhere, is what they give."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
from report_cases import keep_one_result, report_of

import index
import keeping
import pages
import tables
from advfeat.attacks import _attack
from presets import PRESETS, RESTRICTED_IMAGENET
from report import _plain

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SPREAD = re.compile(r"(\d+(?:\.\d+)?) ± (\d+(?:\.\d+)?(?:e-\d+)?)")


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


def test_accuracies_of_a_page_are_those_of_the_stages_that_it_names():
    n_compared = 0
    for path in RESULTS.glob("*/overview/results.json"):
        report = json.loads(path.read_text())
        measured = {}
        for name, stage in report.get("stages", {}).items():
            assert report["makers"][stage["maker"]]["versions"]["torch"], name
            if name.startswith("evaluate-"):
                measured[name.rpartition("-")[0]] = keeping.of_plain(stage["value"])
        for record in report["records"] if measured else ():
            if record["metric"] in ("accuracy", "robust accuracy"):
                found = measured[f"evaluate-{record['row']},-seed-{record['seed']}"]
                assert found[record["eps"] or 0.0] == record["value"]
                n_compared += 1
    assert n_compared


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


def test_readme_quotes_no_share_by_hand():
    """What is measured stands in a table that is made, or behind a marker."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    prose = re.sub(r"<!-- [^>]+ -->[^<]*<!-- -->", "", text)
    lines = [line for line in prose.splitlines() if not line.startswith("|")]
    assert re.findall(r"\d(?:\.\d+)? ?%", "\n".join(lines)) == []


def test_a_cell_that_is_quoted_in_a_sentence_is_made_again(tmp_path):
    keep_one_result(tmp_path)
    marker = "<!-- digits/overview: D_R; accuracy -->"
    (tmp_path / "README.md").write_text(f"It is {marker}9<!-- --> %.")
    (text,) = index.documents_of(tmp_path / "r", tmp_path).values()
    assert text == f"It is {marker}60.0 ± 14.1<!-- --> %."
    (tmp_path / "README.md").write_text(f"It is {marker.replace('D_R', 'other')}9<!-- --> %.")
    with pytest.raises(ValueError, match="no such cell"):
        index.documents_of(tmp_path / "r", tmp_path)


@pytest.mark.parametrize(
    "path", [*DOCUMENTS, *RESULTS.rglob("*.md")], ids=lambda path: str(path.relative_to(ROOT))
)
def test_links_into_the_results_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if path.parent == ROOT / "docs" and target.startswith("results/"):
            target = f"../benchmarks/{target}"  # the site has a copy of them
        if "results" in target or RESULTS in path.parents:
            assert (path.parent / target).exists(), target


def test_what_the_guide_says_of_autoattack_is_what_was_measured():
    found = json.loads((RESULTS / "autoattack" / "autoattack.json").read_text())
    rows = found["rows"]
    above = [100 * (row["ours"] - row["AutoAttack"]) for row in rows]
    share = sum(r["seconds ours"] for r in rows) / sum(r["seconds AutoAttack"] for r in rows)
    said = " ".join((ROOT / "docs" / "evaluation.md").read_text().split())
    assert f"they differ by at most {max(map(abs, above)):.1f} points" in said
    assert f"this attack takes {100 * share:.0f} % of the time" in said
    assert f"On {found['samples']} digits, for six networks" in said
    assert len({row["model"] for row in rows}) == 6


def test_what_readme_says_of_bf16_is_what_was_measured():
    ms = {}
    for path in (RESULTS / "speed").glob("*.json"):
        report = json.loads(path.read_text())
        settings = report["settings"]
        for row in report["rows"]:
            if row["contender"] == "advfeat" and "measure" not in row["task"]:
                key = settings["network"], row["task"]
                ms.setdefault(key, {})[settings["precision"]] = row["ms"]
    ratios = [found["fp32"] / found["bf16"] for found in ms.values()]
    said = f"`--precision bf16` is {min(ratios):.1f} to {max(ratios):.1f} times as fast"
    assert said in (ROOT / "README.md").read_text()


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


def test_a_table_of_a_size_takes_each_cell_where_it_is():
    """At a radius that one page leaves out as well."""
    few = report_of({"D_R": [0.5, 0.6, 0.7]})
    more = report_of({"D_R": [0.1, 0.2]})
    more["records"] += [{**r, "metric": "robust accuracy", "eps": 0.25} for r in more["records"]]
    found = [
        (r["metric"], r["eps"], r["value"])
        for r in index._rows({"overview": few, "figure2": more})
    ]
    assert found == [("accuracy", None, value) for value in (0.5, 0.6, 0.7)] + [
        ("robust accuracy", 0.25, value) for value in (0.1, 0.2)
    ]


def test_pages_of_other_settings_are_told(tmp_path):
    """Of the trainings only where the table trains: figure9 shows sets alone."""
    report = json.loads((RESULTS / "cifar" / "figure9" / "results.json").read_text())
    assert not index._is_older("figure9", report) and not index._is_older("table1", report)
    report["settings"]["training"]["D_rand"]["epochs"] = 15
    assert not index._is_older("figure9", report) and index._is_older("table1", report)
    report["settings"]["relabelling"]["n_steps"] += 1
    assert index._is_older("figure9", report)
    small = {**report, "preset": "small", "data": {**report["data"], "label": "ImageNet"}}
    small["settings"] = json.loads(json.dumps(_plain(RESTRICTED_IMAGENET["small"])))
    assert not index._is_older("figure11", small)
    del small["settings"]["training"]
    assert not index._is_whole(small)


def test_results_elsewhere_leave_the_documents_alone(tmp_path, capsys):
    keep_one_result(tmp_path)
    (tmp_path / "r" / "digits" / "overview" / "results.json").unlink()
    index.main(["--results", str(tmp_path / "r")])
    said = capsys.readouterr().out
    assert said.splitlines() == [f"written: {tmp_path / 'r' / 'README.md'}"]


def test_the_line_of_data_says_how_exact_shares_are():
    report = report_of({"a": [0.5]})
    report["data"].update(label="data", n_train=1000)
    table = tables._table.Table("x", "x", None, None)
    assert pages._line_of_data(table, report).endswith("of 400 test images: at most 2.5 points.")
    for row, n in (("a", 100), ("b", 150)):
        record = {"seed": 0, "row": row, "metric": "test images", "eps": None, "value": n}
        report["records"].append(record)
    assert pages._line_of_data(table, report).endswith("of 100 test images: at most 5.0 points.")


def test_the_index_takes_each_row_and_claim_from_the_page_with_most_seeds():
    reports = {
        "table1": {**report_of({"D_rand": [0.5], "other": [0.4]}), "seeds": 9},  # one measured
        "overview": report_of({"D_rand": [0.1, 0.11]}),
    }
    rows = {(r["row"], r["value"]) for r in index._rows(reports)}
    assert rows == {("D_rand", 0.1), ("D_rand", 0.11), ("other", 0.4)}
    (text, _) = index._claims("small", reports)
    assert "[table1](small/table1/README.md) (one seed) 1/1" in text
    assert "[overview](small/overview/README.md) 0/1" in text
    assert "In all 0 of 1 hold." in text  # two seeds say more than one
    reports["overview"] = report_of({"D_rand": [0.01, 0.011]})
    (*_, text, _) = index._claims("small", reports)
    assert text == (
        "For these claims we found the opposite: D_rand teaches more than chance "
        "([overview](small/overview/README.md))."
    )


def test_a_page_says_with_what_its_stages_were_computed():
    whole = json.loads((RESULTS / "digits" / "overview" / "results.json").read_text())
    whole["commits"], whole["threads"] = {"abc": 3}, {"1": 2, "2": 1}
    whole["processors"] = {"a CPU": 2, "None": 1}
    said = pages.page(tables.table("overview"), whole)
    assert "at commit abc (3 stages)" in said and "by threads: 1 (2 stages), 2 (1 stages)" in said
    assert "on a CPU (2 stages); page" in said.replace(
        ", by threads: 1 (2 stages), 2 (1 stages)", ""
    )


@pytest.mark.parametrize(
    ("n_classes", "text"),
    [(2, "(margin and cross-entropy, "), (3, " and 2 targeted"), (100, " and 9 targeted")],
)
def test_a_page_describes_the_attack_that_was_run(n_classes, text):
    data = {"label": "x", "n_train": 9, "n_test": 9, "n_classes": n_classes}
    report = {"preset": "digits", "settings": _plain(PRESETS["digits"]), "data": data}
    report |= {"records": report_of({"a": [0.5]})["records"]}
    table = tables._table.Table("x", "x", None, None)
    assert "Attacks" not in " ".join(pages._settings(table, report))
    report["records"] += [{**report["records"][0], "metric": "robust accuracy", "eps": 0.5}]
    said = " ".join(pages._settings(table, report))
    assert text in said
    assert "20 steps each, fp32, judged in fp32)" in said
    report["settings"]["attack_precision"] = "bf16"
    assert "bf16, judged" in " ".join(pages._settings(table, report))
    assert len(_attack._runs(n_classes, 1)) == {2: 2, 3: 4, 100: 11}[n_classes]


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
    keep_one_result(tmp_path)
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


@pytest.mark.parametrize(
    ("share", "accuracy", "verdict"),
    [
        (0.9, 0.9, "not shown"),
        (0.9, 0.1, "not shown"),
        (0.5, 0.9, "holds"),
        (0.5, 0.1, "the opposite"),
    ],
)
def test_chance_is_that_of_the_most_frequent_class(share, accuracy, verdict):
    """Less than that may be much, so it is no opposite where classes differ in size."""
    report = report_of({"a": [accuracy]})
    report["data"].update(n_classes=2, chance=share)
    key = ("a", "accuracy", None)
    claim = tables._table.Claim("a teaches more than chance", key, "chance")
    table = tables._table.Table("x", "x", None, None, claims=(claim,))
    ((*_, found),) = pages.judged(table, report)
    assert found == verdict


@pytest.mark.parametrize(
    ("taught", "would", "one_sided", "verdict"),
    [
        (0.5, 0.0, True, "holds"),
        (0.1, 0.0, True, "not shown"),
        (0.05, 0.0, False, "not shown"),
        (0.0, 0.05, False, "not shown"),  # both have learned to avoid the true class
        (0.0, 0.6, False, "the opposite"),
        (0.5, 0.7, False, "the opposite"),
        (0.5, 0.7, True, "not shown"),  # another control may give less
    ],
)
def test_who_knows_nothing_does_not_teach_more_than_who_avoids_the_true_class(
    taught, would, one_sided, verdict
):
    report = report_of({"D_other": [taught, taught + 0.01]})
    report["records"] += [
        {**record, "metric": "leak", "value": would} for record in report["records"]
    ]
    claim = next(claim for claim in tables.table("table1").claims if claim.above_chance)
    claim = dataclasses.replace(
        claim,
        high=("D_other", "accuracy", None),
        low=("D_other", "leak", None),
        one_sided=one_sided,
    )
    table = tables._table.Table("x", "x", None, None, claims=(claim,))
    ((*_, found),) = pages.judged(table, report)
    assert found == verdict


def test_pages_of_older_settings_come_last_in_the_table_of_their_size(monkeypatch):
    old, new = report_of({"D_R": [0.1, 0.2, 0.3]}), report_of({"D_R": [0.5]})
    found = {"overview": old, "figure2": new}
    monkeypatch.setattr(index, "_is_older", lambda name, report: report is old)
    assert [record["value"] for record in index._rows(found)] == [0.5]
    assert [record["value"] for record in index._rows({"overview": old})] == [0.1, 0.2, 0.3]

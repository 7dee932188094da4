"""Pages of benchmarks/results and figures in the documents, made from the results there.

python benchmarks/index.py                # make every page of benchmarks/results again
python benchmarks/index.py --check        # say which pages are not what the results give
"""

import argparse
import dataclasses
import re
import sys
from pathlib import Path

import gaussian_speed
import scale_page
import speed_page
import tables
from differences import differences
from experiment import LEAK
from files import read_json, write_text
from pages import cell, judged, markdown, n_seeds, page
from presets import PRESETS, RESTRICTED_IMAGENET, of_settings

_RESULTS = Path(__file__).with_name("results")
_ROOT = Path(__file__).resolve().parents[1]
_QUOTE = re.compile(r"(<!-- results/(\S+): (.*?) -->\n).*?(<!-- end -->)", re.DOTALL)
_CELL = re.compile(r"(<!-- (\w+/[\w-]+): ([^;>]+); ([^>]+?) -->)[^<]*(<!-- -->)")  # in a sentence
_TITLE = "# Tables and figures"
# Whose main columns make the one table of a size.
_TABLES = ("figure2", "table1", "overview")
_COLUMNS = (
    ("accuracy", None),
    ("robust accuracy", 0.25),
    ("robust accuracy", 0.5),
    (LEAK, None),
)
_WHY = {"figure11": "no copy of ImageNet was at hand, so Restricted ImageNet was never run"}


def reports(folder):
    """Report of every known table in a folder, in order; broken ones are ignored with a line."""
    found = {}
    for table in tables.in_order():
        path = folder / table.name / "results.json"
        if not path.exists():
            continue
        report = read_json(path)
        if _is_whole(report):
            found[table.name] = report
        elif report:
            print(f"Ignored: {path}, which is no result of this version.", flush=True)
    return found


def _is_whole(report):
    needed = {"title", "data", "seeds", "records", "pictures", "hardware", "versions", "commits"}
    if not needed <= set(report) or not isinstance(report["records"], list):
        return False
    try:
        # What is shown of it; each raises where it is of another type.
        _ = f"{report['title']}{report['data']['label']}", report["seeds"] + 0
        return "settings" not in report or bool(of_settings(report["settings"]))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):  # of another version
        return False


def write_list(out):
    """Write README.md with a link to the page of every table that lies there."""
    index = out / "README.md"
    if index.exists():
        try:
            ours = index.read_text(encoding="utf-8").startswith(_TITLE)
        except ValueError as error:
            print(f"Left as it is: {index}, which is no UTF-8 ({error}).", flush=True)
            return
        if not ours:  # a page by hand
            return
    lines = [_TITLE, ""]
    for name, report in reports(out).items():
        seeds = f"{report['seeds']} seed" + "s" * (report["seeds"] > 1)
        lines.append(
            f"- [{report['title']}]({name}/README.md): {report['data']['label']}, {seeds}"
            f"{' (not finished)' * bool(report.get('left'))}"
        )
    write_text(index, "\n".join(lines) + "\n")


def pages_of(results):
    """Every page that the results in a folder give: path to text."""
    made = {results / "README.md": _index(results)}
    for size in _sizes(results):
        for name, report in reports(size).items():
            made[size / name / "README.md"] = page(tables.table(name), report)
    if speeds := _speeds(results):
        made[results / "speed" / "README.md"] = speed_page.page(speeds)
    for name, write_page in (
        ("gaussian/gaussian_speed.json", gaussian_speed.page),
        ("scale/scale.json", scale_page.report),
    ):
        if (results / name).exists() and (report := read_json(results / name)):
            made[(results / name).with_name("README.md")] = write_page(report)
    return made


def documents_of(results, root=_ROOT):
    """Documents that quote results, with what they should say: path to text."""
    paths = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    made = {}
    for path in paths:
        text = path.read_text(encoding="utf-8")
        text = _CELL.sub(lambda match: _quoted_cell(results, *match.groups()), text)
        made[path] = _QUOTE.sub(lambda match: _quoted(results, *match.groups()), text)
    return {path: text for path, text in made.items() if _QUOTE.search(text) or _CELL.search(text)}


def _speeds(results):
    """Read what `speed.py` wrote, the largest network first."""
    found = [read_json(path) for path in sorted((results / "speed").glob("*.json"))]
    return sorted(filter(None, found), key=lambda report: -report["forward_gflop"])


def _quoted(results, begin, name, columns, end):
    if name == "speed":
        lines = speed_page.TABLES[columns](_speeds(results))
        return "\n".join([begin, *lines, "", end])
    records = read_json(results / name / "results.json")["records"]
    wanted = [_column(column.strip()) for column in columns.split(";")]
    return f"{begin}\n" + "\n".join(markdown(records, wanted, {})) + f"\n{end}"


def _quoted_cell(results, begin, name, row, column, end):
    records = read_json(results / name / "results.json")["records"]
    found = cell(records, row, _column(column))
    if not found:
        raise ValueError(f"There is no such cell to quote: {begin}")
    return f"{begin}{found}{end}"


def _column(text):
    metric, _, eps = text.partition(" @ ")
    return metric, float(eps) if eps else None


def _sizes(results):
    return sorted(path for path in results.iterdir() if path.is_dir())


def _index(results):
    lines = [
        "# Results",
        "",
        "Made from the results below by `benchmarks/index.py`; a test compares every page with",
        "them. Each folder holds the page of one table or figure with its pictures, `table.csv`",
        "(tidy) and `results.json` (settings, versions, machine, commit, every value). Robust",
        "accuracy is L2; mean ± standard deviation over the seeds; in brackets the paper's",
        "figures, which are for CIFAR-10 and ResNet-50 and stand here for the pattern only. If",
        "several pages judge a claim, the sums count the page with most seeds.",
        "",
    ]
    for size in _sizes(results):
        found = reports(size)
        if not found:
            continue
        lines += _section(size.name, found)
    by_hand = [folder / "README.md" for folder in _sizes(results)]
    lines += ["## Others", ""]
    lines += [
        f"- [{page.read_text(encoding='utf-8').splitlines()[0][2:]}]({page.parent.name}/README.md)"
        for page in by_hand
        if page.exists() and not page.read_text(encoding="utf-8").startswith(_TITLE)
    ]
    not_run = [name for name in PRESETS if not reports(results / name)]
    lines += [
        "",
        "With the code as it stands there are no results of the "
        f"preset{'s' * (len(not_run) > 1)} {_and(not_run)}.",
    ]
    return "\n".join(lines) + "\n"


def _and(names):
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _section(name, found):
    any_report = next(iter(found.values()))
    lines = [f"## {name}: {any_report['data']['label']}", ""]
    rows = _rows(found)
    if rows:
        lines += markdown(rows, [c for c in _COLUMNS if _has(rows, c)], _paper())
    lines += _claims(name, found)
    if rows:
        missing = [
            table.name + (f" ({_WHY[table.name]})" if table.name in _WHY else "")
            for table in tables.in_order()
            if table.needs_images and table.name not in found
        ]
        lines += [f"Not there: {', '.join(missing)}.", ""]
    return lines


def _claims(name, found):
    """Links to the pages, with how many of its claims hold on each, and the claims reversed."""
    links = {
        table: f"[{table}]({name}/{table}/README.md){_state(table, report)}"
        for table, report in found.items()
    }
    verdicts, best = {}, {}
    for table in found:
        for text, *_, n, verdict in judged(tables.table(table), found[table]):
            verdicts.setdefault(table, []).append(verdict)
            more = n > best.get(text, (0,))[0]  # of several pages, that with most seeds
            if more and not _is_older(table, found[table]):
                best[text] = n, verdict, table
    pages = [
        f"{link} {verdicts[table].count('holds')}/{len(verdicts[table])}"
        if table in verdicts
        else link
        for table, link in links.items()
    ]
    if not best:
        return [f"Pages: {', '.join(pages)}.", ""]
    n_holding = [verdict for _, verdict, _ in best.values()].count("holds")
    n_single = [n for n, *_ in best.values()].count(1)
    how = "all" if n_single == len(best) else n_single
    single = f" ({how} judged with one seed, where another may differ by more)" * (n_single > 0)
    lines = [
        f"Pages, with how many of their claims hold: {', '.join(pages)}. In all {n_holding} of "
        f"{len(best)} hold{single}.",
        "",
    ]
    reversed_ones = [
        f"{text} ({links[table]})"
        for text, (_, verdict, table) in best.items()
        if verdict == "the opposite"
    ]
    if reversed_ones:
        lines += [f"For these claims we found the opposite: {'; '.join(reversed_ones)}.", ""]
    return lines


def _state(name, report):
    """Tell what a page lacks: stages, the preset's settings of today, seeds."""
    said = ["not finished"] * bool(report.get("left"))
    said += ["one seed"] * (n_seeds(report["records"]) == 1)
    said += ["of older settings, not counted"] * _is_older(name, report)
    return f" ({', '.join(said)})" if said else ""


def _is_older(name, report):
    """Whether the preset now has other settings for the sources and sets of a table."""
    if "settings" not in report:
        return False
    table, data = tables.table(name), report["data"]
    presets = RESTRICTED_IMAGENET if table.load else PRESETS
    today = dataclasses.replace(
        presets[report["preset"]], precision=report["settings"]["precision"]
    )
    then = of_settings(report["settings"])
    return differences(then, table, data) != differences(today, table, data)


def _rows(found):
    """Give records of the accuracies of every row, each cell from the table with most seeds.

    One of older settings comes last.
    """
    cells, ranks = {}, {}
    for name in filter(found.get, _TABLES):
        mine = {}
        for record in found[name]["records"]:
            if (record["metric"], record["eps"]) in _COLUMNS:
                key = record["row"], record["metric"], record["eps"]
                mine.setdefault(key, []).append(record)
        present = not _is_older(name, found[name])
        for key, records in mine.items():
            rank = present, len(records)
            if rank > ranks.get(key, (False, 0)):
                cells[key], ranks[key] = records, rank
    order = [row for name in ("overview", *_TABLES) for row in _names(found.get(name))]
    return [
        record
        for row in dict.fromkeys(order)
        for column in _COLUMNS
        for record in cells.get((row, *column), ())
    ]


def _names(report):
    return dict.fromkeys(record["row"] for record in report["records"]) if report else ()


def _has(records, column):
    return any((record["metric"], record["eps"]) == column for record in records)


def _paper():
    return {key: value for name in _TABLES for key, value in tables.table(name).paper.items()}


def main(arguments=None):
    """Write the pages, or compare them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--results", type=Path, default=_RESULTS, metavar="FOLDER")
    options = parser.parse_args(arguments)
    if not options.results.is_dir():
        sys.exit(f"--results: there is no folder '{options.results}'.")
    made = pages_of(options.results)
    if options.results.resolve() == _RESULTS.resolve():  # the documents quote these alone
        made.update(documents_of(options.results))
    wrong = [
        path
        for path, text in made.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path in wrong:
        if not options.check:
            write_text(path, made[path])
        print(f"{'differs' if options.check else 'written'}: {path}")
    if options.check and wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()

"""Pages from results.json alone, so that they can be made again without computing anything."""

import re

import numpy as np

from tables._table import rows_of, values

_SHARES = ("accuracy", "robust accuracy", "transfer rate", "success rate", "share")
_N_COLUMNS = 6  # of a table on a page
N_STANDARD_ERRORS = 2  # from which a difference is one


def page(table, report):
    """Page of a table in Markdown: comparison and pictures first, then settings and the rest."""
    records = report["records"]
    columns = columns_of(records)
    main = [column for column in columns if column[0] in table.main] or columns
    rest = [column for column in columns if column not in main]
    lines = [f"# {table.title}", "", _line_of_data(report), ""]
    if table.paper:
        lines += [
            "In brackets the paper's figures, which are for its own data, networks and settings.",
            "",
        ]
    lines += markdown(records, main, table.paper)
    lines += [f"![{name}]({name})\n" for name in report["pictures"]]
    lines += _claims(table, report)
    if table.summary:
        lines += [*table.summary(records), ""]
    lines += [table.note, ""] if table.note else []
    lines += _settings(report)
    if rest:
        lines += ["## More", ""]
        for i in range(0, len(rest), _N_COLUMNS):
            lines += markdown(records, rest[i : i + _N_COLUMNS], table.paper)
        lines += _errors_of_parts(rest)
    return "\n".join([*lines, _made(report)]) + "\n"


def markdown(records, columns, paper, rows=None):
    """Table of the rows that have any of the columns, with the paper's figures in brackets."""
    heads = ["", *map(head, columns)]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in rows or rows_of([record for record in records if record.get("at") is None]):
        cells = [cell(records, row, column) for column in columns]
        if not any(cells):
            continue
        known = [paper.get((row, *column)) for column in columns]
        cells = [
            text if figure is None or not text else f"{text} ({figure:g})"
            for text, figure in zip(cells, known, strict=True)
        ]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return [*lines, ""]


def columns_of(records):
    """(metric, eps) of everything that is no point of a curve, in order."""
    return list(dict.fromkeys((r["metric"], r["eps"]) for r in records if r.get("at") is None))


def head(column):
    """Head of a column."""
    metric, eps = column
    unit = ", %" if metric.startswith(_SHARES) else ""
    return metric + ("" if eps is None else f", L2 {eps:g}") + unit


def cell(records, row, column):
    """Mean over the seeds, and their standard deviation."""
    found = values(records, row, *column)
    if not len(found):
        return ""
    share = column[0].startswith(_SHARES)
    if found.dtype.kind == "i" and len(set(found)) == 1:  # a count, the same for all seeds
        return f"{found[0]:,}"
    found = found.astype(float) * (100 if share else 1)
    digits = ".1f" if share else ",.0f" if found.mean() >= 1000 else ".3g"
    spread = f" ± {found.std(ddof=1):{digits}}" if len(found) > 1 else ""
    return f"{found.mean():{digits}}{spread}"


def seeds(records):
    """Say over how many seeds the figures are."""
    n = len({record["seed"] for record in records})
    return f"{n} seeds, mean ± standard deviation" if n > 1 else "one seed, no spread"


def judged(table, report):
    """(claim, difference in points, its standard error, verdict) of each claim that was measured.

    Over several seeds the differences are paired; for one seed the standard error is that of
    shares of the test images, or of what else a claim counts.
    """
    found = []
    n_classes = report["data"].get("n_classes")
    for claim in table.claims:
        high = _by_seed(report["records"], claim.high)
        low = (
            dict.fromkeys(high, 1 / n_classes)
            if claim.low == "chance"
            else _by_seed(report["records"], claim.low)
        )
        pairs = np.array([(high[seed], low[seed]) for seed in high if seed in low])
        if not len(pairs):
            continue
        gaps = 100 * (pairs[:, 0] - pairs[:, 1])
        if len(gaps) > 1:
            error = gaps.std(ddof=1) / len(gaps) ** 0.5
        else:
            counts = [_count(report, claim, row) for row in (claim.high[0], claim.low[0])]
            error = 100 * float(np.sqrt((pairs * (1 - pairs) / counts).sum()))
        gap, needed = float(gaps.mean()), N_STANDARD_ERRORS * float(error)
        verdict = "holds" if gap > needed else "the opposite" if gap < -needed else "not shown"
        found.append((claim.text, gap, float(error), verdict))
    return found


def _count(report, claim, row):
    """Of how many a share is: what the row says, or all test images."""
    said = _by_seed(report["records"], (row, claim.of, None))
    return next(iter(said.values()), report["data"].get("n_test"))


def _by_seed(records, key):
    cells = [r for r in records if (r["row"], r["metric"], r["eps"]) == key]
    return {r["seed"]: r["value"] for r in cells if r.get("at") is None and r["value"] is not None}


def _claims(table, report):
    found = judged(table, report)
    if not found:
        return []
    lines = ["| claim | difference ± standard error, points | |", "|---|---|---|"]
    lines += [
        f"| {text} | {gap:+.1f} ± {error:.1f} | {said} |" for text, gap, error, said in found
    ]
    counted = table.claims[0].of
    how = "paired over the seeds" if report["seeds"] > 1 else f"standard error of the {counted}"
    return [
        *lines,
        "",
        f"Differences: {how}; one under {N_STANDARD_ERRORS} standard errors counts as not shown.",
        "",
    ]


def _line_of_data(report):
    data, text = report["data"], f"{report['data']['label']}; {seeds(report['records'])}."
    if "n_test" not in data:
        return text
    error = 50 / data["n_test"] ** 0.5
    return (
        f"{text} {data['n_train']:,} training and {data['n_test']:,} test images (standard error "
        f"of a share: at most {error:.1f} points), chance {100 / data['n_classes']:.1f} %."
    )


def _settings(report):
    lines = ["## Settings", ""]
    if "settings" in report:
        settings, n_classes = report["settings"], report["data"]["n_classes"]
        lines += [
            f"- Preset {report['preset']}: network {settings['network']}, training and "
            f"construction in {settings['precision']}.",
            "- Robust accuracy: L2, this library's attack (margin and "
            f"{min(9, n_classes - 1)} targeted margins, {settings['attack_steps']} steps each, "
            "fp32), unless a row or column says otherwise.",
        ]
    differ = report.get("differences", [])
    if differ:
        lines += ["", "In these settings the run differs from the paper:", ""]
        lines += [f"- {line}" for line in differ]
    return [*lines, ""] if len(lines) > 2 else []


def _errors_of_parts(columns):
    """Say how exact the columns are that are measured on fewer images."""
    parts = dict.fromkeys(re.findall(r"n = (\d+)", " ".join(metric for metric, _ in columns)))
    return [
        line
        for n in parts
        for line in (
            f"With n = {n} the standard error of a share is at most {50 / int(n) ** 0.5:.1f} "
            "points.",
            "",
        )
    ]


def _made(report):
    machine, versions = report["hardware"], report["versions"]
    commits = ", ".join(f"{commit} ({n} stages)" for commit, n in report["commits"].items())
    by = f"computed at commit {commits}; page" if commits else "made"
    return (
        f"{report['minutes']:g} minutes of computing for all stages behind this table, those "
        f"shared with other tables included; {by} at commit {report['commit']}, {report['date']}. "
        f"{machine['device']}: {machine['processor']} ({machine['capability']}), "
        f"{machine['threads']} threads; torch {versions['torch']}. The same bits need the same "
        "number of threads and the same versions. Every setting, version and value: results.json, "
        "table.csv."
    )

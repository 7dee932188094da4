"""Pages from results.json alone, so that they can be made again without computing anything."""

import re

import numpy as np
from scipy import stats

from differences import differences
from experiment import LEAK
from measures import LEAK_C
from presets import of_settings
from tables._table import rows_of, values

_SHARES = ("accuracy", "robust accuracy", "transfer rate", "success rate", "share")
_ATTACKED = ("robust accuracy", "transfer rate")
_N_COLUMNS = 6  # of a table on a page
_EXACT = 1e-3  # relative; what varies less has no spread in three digits
_UNEVEN = 1.1  # times its equal share: a class this large makes sizes uneven
N_STANDARD_ERRORS = 2  # from which a difference is one


def page(table, report):
    """Page of a table in Markdown: comparison and pictures first, then settings and the rest."""
    records = report["records"]
    columns = columns_of(records)
    main = [column for column in columns if column[0] in table.main] or columns
    rest = [column for column in columns if column not in main]
    lines = [f"# {table.title}", "", _line_of_data(table, report), ""]
    if left := report.get("left"):
        lines += [
            f"**Not finished:** {len(left)} stages are still to be computed (results.json names "
            "them), so rows, seeds or figures are missing.",
            "",
        ]
    if table.paper:
        lines += [
            f"In brackets {table.figures_of} figures, for other data, networks and settings.",
            "",
        ]
    lines += markdown(records, main, table.paper)
    for name in report["pictures"]:
        shows = name.removesuffix(".png").replace("_", " ")
        lines += [f"![{table.title}: {shows}]({name})\n"]
    lines += _claims(table, report)
    if table.summary and not left:
        lines += [*table.summary(records), ""]
    lines += [table.note, ""] if table.note else []
    lines += _settings(table, report)
    if rest:
        lines += ["## More", ""]
        for i in range(0, len(rest), _N_COLUMNS):
            lines += markdown(records, rest[i : i + _N_COLUMNS], table.paper)
        lines += _errors_of_parts(rest)
    return "\n".join([*lines, _made(report)]) + "\n"


def markdown(records, columns, paper):
    """Table of the rows that have any of the columns, with the paper's figures in brackets."""
    heads = ["", *map(head, columns)]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in rows_of([record for record in records if record.get("at") is None]):
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
    fewer = f", {_of_seeds(len(found))}" if len(found) < n_seeds(records) else ""
    exact = not share and np.ptp(found) <= _EXACT * abs(found[0])
    if exact:  # a count or a setting, the same for all seeds
        return f"{found[0]:{',' if found.dtype.kind == 'i' else '.3g'}}{fewer}"
    found = found.astype(float) * (100 if share else 1)
    digits = ".1f" if share else ",.0f" if found.mean() >= 1000 else ".3g"
    spread = f" ± {found.std(ddof=1):{digits}}" if len(found) > 1 else ""
    return f"{found.mean():{digits}}{spread}{fewer}"


def _of_seeds(n):
    return "one seed" if n == 1 else f"{n} seeds"


def n_seeds(records):
    """Count the seeds."""
    return len({record["seed"] for record in records})


def seeds(records):
    """Say over how many seeds the figures are."""
    n = n_seeds(records)
    return _of_seeds(n) + (", mean ± standard deviation" if n > 1 else ", no spread")


def judged(table, report):
    """(claim, difference in points, its standard error, seeds, verdict) of what was measured.

    Differences are paired over the seeds. The standard error is that of their mean and that of
    shares of images, which are the same for all seeds; those of both rows count as independent,
    since nothing is kept of single images. A difference counts beyond its interval of
    95 % (Student's t, with Welch and Satterthwaite's degrees of freedom).
    """
    found = []
    data = report["data"]
    for claim in table.claims:
        chance = claim.low == "chance"
        high = _by_seed(report["records"], claim.high)
        low = (
            dict.fromkeys(high, _chance(data))
            if chance
            else _by_seed(report["records"], claim.low)
        )
        pairs = np.array([(high[seed], low[seed]) for seed in high if seed in low])
        if not len(pairs):
            continue
        counts = [
            _count(table, report, claim.high[0]),
            np.inf if chance else _count(table, report, claim.low[0]),
        ]
        gap, error, verdict = _compared(pairs, counts, claim.exclusive)
        if claim.above_chance and verdict != "not shown":
            i = 0 if verdict == "holds" else 1  # the higher one
            alone = np.stack([pairs[:, i], np.full(len(pairs), _chance(data))], axis=1)
            if _compared(alone, [counts[i], np.inf], False)[2] != "holds":
                verdict = "not shown"
        if claim.one_sided and verdict == "the opposite":
            verdict = "not shown"
        if claim.of_epochs and len(pairs) == 1:
            verdict = "not shown"
        if chance and gap < 0 and _chance(data) > _UNEVEN / data["n_classes"]:
            verdict = "not shown"  # less than the most frequent class has may be much
        found.append((claim.text, 100 * float(gap), 100 * float(error), len(pairs), verdict))
    return found


def _compared(pairs, counts, exclusive):
    """Mean difference of pairs of shares of so many images, its standard error, the verdict."""
    gaps = pairs[:, 0] - pairs[:, 1]
    of_images = (pairs * (1 - pairs) / counts).sum(axis=1).mean()
    if exclusive:  # then the shares of the same images are negatively correlated
        of_images += (2 * pairs.prod(axis=1) / counts[0]).mean()
    of_seeds = gaps.var(ddof=1) / len(gaps) if len(gaps) > 1 else 0.0
    error, needed = (of_images + of_seeds) ** 0.5, N_STANDARD_ERRORS
    if of_seeds:
        freedom = (len(gaps) - 1) * (error**2 / of_seeds) ** 2
        needed = max(needed, stats.t.ppf(0.975, freedom))
    gap = gaps.mean()
    if gap > needed * error:
        return gap, error, "holds"
    return gap, error, "the opposite" if gap < -needed * error else "not shown"


def _chance(data):
    """Accuracy of a guess; pages of before it was noted are of classes of one size."""
    return data.get("chance", 1 / data["n_classes"])


def _count(table, report, row):
    """Of how many a share is: what the row says, or all test images."""
    said = _by_seed(report["records"], (row, table.counted, None))
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
        f"| {text} | {gap:+.1f} ± {error:.1f} | {said}{', with this seed' * (n == 1)} |"
        for text, gap, error, n, said in found
    ]
    said = f"come from the seeds and from the choice of the {table.counted}"
    if all(n == 1 for *_, n, _ in found):
        said = (
            f"come from the choice of the {table.counted} alone: another seed may differ by more"
        )
    elif any(n == 1 for *_, n, _ in found):
        said += ", with one seed from the latter alone"
    said = (
        f"A difference counts if its interval of 95 % and {N_STANDARD_ERRORS} standard errors "
        f"leave out zero. The errors {said}."
    )
    apart = all(claim.exclusive for claim in table.claims)  # whose errors are exact
    if table.counted == "test images" and not apart:
        said += " They treat rows as independent: where both are tested on the same images, of "
        said += "which only the sums are kept, they are usually too large."
    if any(claim.above_chance for claim in table.claims):
        said += " To teach more, the higher row must also be above chance: below it a network has "
        said += "learned to avoid the class, or nothing."
    if any(claim.one_sided for claim in table.claims):
        said += " To stay below the linear model of the control counts for nothing: with another "
        said += "penalty it would learn more or less."
    return [*lines, "", said, ""]


def _line_of_data(table, report):
    data, text = report["data"], f"{report['data']['label']}; {seeds(report['records'])}."
    if "n_test" not in data:
        return text
    counts = [r["value"] for r in report["records"] if r["metric"] == table.counted]
    n = min(counts, default=data["n_test"])
    text += (
        f" {data['n_train']:,} training and {data['n_test']:,} test images, chance "
        f"{100 * _chance(data):.1f} %."
    )
    if not table.counted:
        return text
    return (
        f"{text} Standard error of a share of {n:,} {table.counted}: at most "
        f"{50 / n**0.5:.1f} points."
    )


def _settings(table, report):
    lines = ["## Settings", ""]
    if "settings" in report:
        settings = report["settings"]
        lines += [
            f"- Preset {report['preset']}: network {settings['network']}, training and "
            f"construction in {settings['precision']}."
        ]
        metrics = {record["metric"] for record in report["records"]}
        if any(metric.startswith(_ATTACKED) for metric in metrics):
            lines += [
                f"- Attacks: L2, this library's ({_runs(report['data']['n_classes'])}, "
                f"{settings['attack_steps']} steps each, "
                f"{settings.get('attack_precision', 'fp32')}, judged in fp32), unless a row or "
                "column says otherwise."
            ]
        if LEAK in metrics:
            lines += [
                f"- {LEAK[len('accuracy, ') :].capitalize()}: standardised, then scikit-learn's "
                f"LogisticRegression(C={LEAK_C}), unless a column says otherwise."
            ]
        differ = differences(of_settings(settings), table, report["data"])
        if differ:
            lines += ["", "In these settings the run differs from Ilyas et al. (the paper):", ""]
            lines += [f"- {line}" for line in differ]
    return [*lines, ""] if len(lines) > 2 else []


def _runs(n_classes):
    if n_classes == 2:
        return "margin and cross-entropy"
    return f"margin, cross-entropy and {min(9, n_classes - 1)} targeted margins"


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
    computed = ", ".join(_computed(report))
    by = f"computed {computed}; page" if computed else "made"
    untimed = report.get("untimed")
    but = f" but for {untimed} of earlier runs, whose time is not known" if untimed else ""
    minutes = f"{report['minutes']:g}" if report["minutes"] else "Less than 0.1"
    return (
        f"{minutes} minutes of computing for all stages behind this table{but}, those "
        f"shared with other tables included; {by} at commit {report['commit']}, {report['date']}, "
        f"on {machine['processor']} ({machine['capability']}"
        f"{'' if machine['device'] == 'CPU' else ', ' + machine['device']}), torch "
        f"{versions['torch']}. The same bits need the same number of threads and the same "
        "versions. Every setting, version and value: results.json, table.csv."
    )


def _computed(report):
    """Say at which commits, with how many threads and on what the stages were computed."""
    for how, name in (("at commit", "commits"), ("on", "processors"), ("by threads:", "threads")):
        counts = report.get(name, {}).items()
        each = [f"{value} ({n} stages)" for value, n in counts if value != "None"]
        if each:
            yield f"{how} {', '.join(each)}"

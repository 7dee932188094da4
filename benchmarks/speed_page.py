"""The page of `speed.py`: contenders of each network, in bf16 and in fp32, side by side."""

_MORE = "L2 PGD, one measure more each"
_HEAD = (
    "| task | contender | bf16 run: ms | range | / advfeat | fp32 run: ms | range | / advfeat |"
)
_METHOD = """\
Milliseconds per image and step, for training per image: median and range of interleaved repeats,
on an idle machine. The order of the contenders is reversed at every other repeat: whoever
follows the bf16 loop of another finds its buffers ready. In the "bf16 run" advfeat and the tuned
loop are in bf16 (iterate and projection in fp32) and all others in fp32, as they are; in the
"fp32 run" all are in fp32.

"Tuned loop" is a hand-written loop over the same frozen copy, "plain torch" one over the live
network, "two forwards" runs the network a second time in each inversion step, as the
`robustness` package does with a loss of one's own. ART's trainer runs its own L2 PGD on each
batch. Training is one call of `partial_fit` on 4 batches (standard: 8), with the checks and the
copy for a failure that such a call makes. Frozen copies and other libraries' wrappers are set up
before, losses computed after the clock. All contenders of PGD and of inversion reach the same
loss, in the fp32 run.
"""


def page(reports):
    """Page of the reports of `speed.py`, each of one network and precision."""
    lines = ["# Speed of the optimisation loop on a CPU", "", _METHOD]
    for network, runs in _by_network(reports).items():
        lines += _section(network, runs)
    return "\n".join(lines)


def _section(network, runs):
    first = next(iter(runs.values()))
    settings = first["settings"]
    lines = [
        f"## {network}",
        "",
        f"{first['forward_gflop']:.3g} GFLOP forward at {settings['size']}x{settings['size']}, "
        f"batch {settings['batch_size']}.",
        "",
        _HEAD,
        "|" + "---|" * 8,
    ]
    rows = {
        precision: {(row["task"], row["contender"]): row for row in report["rows"]}
        for precision, report in runs.items()
    }
    keys = dict.fromkeys(key for found in rows.values() for key in found)
    for task, contender in keys:
        if task != _MORE:
            cells = [_cells(rows.get(p, {}).get((task, contender))) for p in ("bf16", "fp32")]
            lines.append(f"| {task} | {contender} | {' | '.join(cells)} |")
    more = [row for row in rows.get("bf16", {}).values() if row["task"] == _MORE]
    if more:
        lines += ["", "L2 PGD by a hand-written loop, one measure more in each row:", ""]
        lines += ["| loop | ms | range | / advfeat |", "|---|---|---|---|"]
        lines += [f"| {row['contender']} | {_cells(row)} |" for row in more]
    return [*lines, "", *(_made(network, report) for report in runs.values()), ""]


def _cells(row):
    if row is None:
        return " |  | "
    digits = 2 if row["ms"] >= 1 else 3
    low, high = (f"{row[key]:.{digits}f}" for key in ("ms_min", "ms_max"))
    return f"{row['ms']:.{digits}f} | {low} to {high} | {row['ratio']:.2f}"


def _made(network, report):
    settings, machine, versions = report["settings"], report["hardware"], report["versions"]
    peers = ", ".join(
        f"{name} {versions[name]}"
        for name in ("torch", "torchattacks", "foolbox", "adversarial-robustness-toolbox")
    )
    return (
        f"- `python benchmarks/speed.py --network {network} --batch-size {settings['batch_size']} "
        f"--precision {settings['precision']}`, {settings['repeats']} repeats, "
        f"{report['date']}, commit {report['commit']}; {machine['processor']} "
        f"({machine['capability']}), {machine['threads']} threads; {peers}."
    )


def steps(reports):
    """Table for the guide: milliseconds and TFLOP/s of a step of the loop."""
    lines = ["| network | F | fp32 | bf16 |", "|---|---|---|---|"]
    for network, runs in _by_network(reports).items():
        flops = next(iter(runs.values()))["forward_gflop"]
        cells = []
        for precision in ("fp32", "bf16"):
            ms = _ms(runs[precision], "L2 PGD,", "advfeat")
            cells.append(f"{ms:.2g} ms, {2 * flops / ms:.2g} TFLOP/s")
        lines.append(f"| `{network}` | {flops:.2g} GFLOP | {' | '.join(cells)} |")
    return lines


def gains(reports):
    """Table for the guide: how many times as fast each measure makes its task."""
    networks = _by_network(reports)
    lines = [
        f"| measure | {' | '.join(f'`{network}`' for network in networks)} |",
        "|" + "---|" * (1 + len(networks)),
    ]
    for measure, precision, task, slow, fast in (
        ("channels-last", "bf16", _MORE, "plain torch", "channels-last"),
        ("batch-norm folded", "bf16", _MORE, "channels-last", "+ batch-norm folded"),
        ("bf16 in the loop", "bf16", _MORE, "+ batch-norm folded", "+ bf16"),
        ("one forward pass in each inversion step", "fp32", "inv", "two forwards", "plain torch"),
        (
            "standard training, fp32, against a bare loop",
            "fp32",
            "standard",
            "bare loop",
            "advfeat",
        ),
    ):
        cells = [
            f"{_ms(runs[precision], task, slow) / _ms(runs[precision], task, fast):.2f}"
            for runs in networks.values()
        ]
        lines.append(f"| {measure} | {' | '.join(cells)} |")
    return lines


TABLES = {"steps": steps, "gains": gains}  # by the names under which documents quote them


def _by_network(reports):
    found = {}
    for report in reports:
        settings = report["settings"]
        found.setdefault(settings["network"], {})[settings["precision"]] = report
    return found


def _ms(report, task, contender):
    return next(
        row["ms"]
        for row in report["rows"]
        if row["task"].startswith(task) and row["contender"] == contender
    )

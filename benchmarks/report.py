"""What a table leaves behind: tidy CSV, JSON with settings and versions, page and pictures."""

import csv
import json
import os
import platform
from dataclasses import asdict
from importlib.metadata import version

import numpy as np
import torch

import advfeat
from advfeat.utils._device import resolve_device
from tables._table import rows_of, values

_FIELDS = ("seed", "row", "metric", "eps", "at", "value")
_SHARES = ("accuracy", "robust accuracy", "transfer rate", "success rate", "share")
_N_COLUMNS = 4  # of a block of the printed table


def print_table(table, records, label):
    """Print the table in blocks of few columns."""
    print(f"\n{table.title}\n{label}; {_seeds(records)}")
    columns = _columns(records)
    for i in range(0, len(columns), _N_COLUMNS):
        part = columns[i : i + _N_COLUMNS]
        rows = [
            row for row in rows_of(records) if any(len(values(records, row, *c)) for c in part)
        ]
        width = max(map(len, rows)) + 2
        heads = [_head(column).split(", ") for column in part]
        for line in range(max(map(len, heads))):
            cells = [head[line] if line < len(head) else "" for head in heads]
            print(" " * width + "".join(f"{cell:>24}" for cell in cells))
        for row in rows:
            cells = [_cell(records, row, column) for column in part]
            print(f"{row:<{width}}" + "".join(f"{cell:>24}" for cell in cells))
        print()


def write(out, table, records, experiment, label, minutes, options):
    """Write table.csv, results.json, README.md and the pictures into ``out / table.name``."""
    folder = out / table.name
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "table.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, _FIELDS, restval=None)
        writer.writeheader()
        writer.writerows(records)
    report = _settings(table, experiment, label, minutes, options)
    report["records"] = records
    partial = folder / "results.partial"  # a killed run leaves no half of a file
    partial.write_text(json.dumps(report, indent=1) + "\n")
    partial.replace(folder / "results.json")
    pictures = _pictures(folder, table, records, experiment)
    (folder / "README.md").write_text(_page(table, records, experiment, label, report, pictures))
    print(f"Written to {folder}/: README.md, table.csv, results.json, {', '.join(pictures)}")


def write_index(out):
    """Write README.md with a link to the page of every table that lies there."""
    reports = {
        path.parent.name: json.loads(path.read_text()) for path in out.glob("*/results.json")
    }
    lines = ["# Tables and figures", ""]
    for name, report in sorted(reports.items()):
        seeds = f"{report['seeds']} seed" + "s" * (report["seeds"] > 1)
        lines.append(
            f"- [{report['title']}]({name}/README.md): {report['data']['label']}, {seeds}"
        )
    index = out / "README.md"
    if not index.exists() or index.read_text().startswith(lines[0]):  # else a page by hand
        index.write_text("\n".join(lines) + "\n")


def hardware(device):
    """Say what a run was computed on."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "capability": torch.backends.cpu.get_cpu_capability(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def _pictures(folder, table, records, experiment):
    import matplotlib.pyplot as plt

    names = []
    for name, figure in table.draw(records, experiment).items():
        figure.savefig(folder / f"{name}.png", dpi=120, bbox_inches="tight")
        plt.close(figure)
        names.append(f"{name}.png")
    return names


def _settings(table, experiment, label, minutes, options):
    report = {
        "table": table.name,
        "title": table.title,
        "data": {"label": label},
        "seeds": 1 if table.first_seed_only else options.seeds,
        "minutes": round(minutes, 1),
        "hardware": hardware(resolve_device(options.device)),
        "versions": {
            "advfeat": advfeat.__version__,
            "python": platform.python_version(),
            **{
                name: version(name)
                for name in ("torch", "torchvision", "scikit-learn", "numpy", "scipy", "skorch")
            },
        },
    }
    if table.needs_images:
        report["preset"] = options.preset
        report["norm"] = "L2"
        report["settings"] = {
            name: [getattr(part, "__name__", part) for part in value]
            if isinstance(value, tuple)
            else value
            for name, value in asdict(experiment.preset).items()
        }
        report["data"].update(
            n_train=len(experiment.X),
            n_test=len(experiment.X_test),
            sample_shape=list(experiment.X.shape[1:]),
            n_classes=len(np.unique(experiment.y)),
        )
    return report


def _page(table, records, experiment, label, report, pictures):
    """Return the table beside the paper's figures, in Markdown."""
    hardware = report["hardware"]
    lines = [f"# {table.title}", "", f"{label}; {_seeds(records)}."]
    if table.needs_images:
        preset, n_classes = experiment.preset, report["data"]["n_classes"]
        lines[-1] += (
            f" {len(experiment.X)} training and {len(experiment.X_test)} test images, network "
            f"{preset.network}, training and construction in {preset.precision}, chance "
            f"{100 / n_classes:.1f} %. Adversarial training: L2, eps {preset.train_eps:g}, "
            f"{preset.train_steps} steps. Relabelled sets: L2, eps {preset.relabel_eps:g}, "
            f"{preset.relabel_steps} steps. Inversion: solver {preset.inversion_solver}, "
            f"{preset.inversion_steps} steps ({preset.noise_steps} from noise). Robust accuracy: "
            f"L2, this library's attack (margin and {min(9, n_classes - 1)} targeted margins, "
            f"{preset.attack_steps} steps each, fp32), unless a row or column says otherwise."
        )
    lines += ["", table.note] if table.note else []
    if table.paper:
        lines += [
            "",
            "The paper's figures are for its own data, networks and settings, see results.json "
            "for ours.",
        ]
    columns = _columns(records)
    with_paper = [any(key[1:] == column for key in table.paper) for column in columns]
    heads, rule = [""], ["---"]
    for column, beside in zip(columns, with_paper, strict=True):
        heads += [_head(column)] + ["paper"] * beside
        rule += ["---"] * (1 + beside)
    lines += ["", f"| {' | '.join(heads)} |", f"|{'|'.join(rule)}|"]
    for row in rows_of([record for record in records if record.get("at") is None]):
        cells = [row]
        for column, beside in zip(columns, with_paper, strict=True):
            cells.append(_cell(records, row, column))
            if beside:
                known = table.paper.get((row, *column))
                cells.append("" if known is None else f"{known:g}")
        lines.append(f"| {' | '.join(cells)} |")
    for name in pictures:
        lines += ["", f"![{name}]({name})"]
    lines += [
        "",
        f"{report['minutes']:g} minutes of computing for all stages behind this table, those "
        f"shared with other tables included; {hardware['device']} "
        f"({hardware['capability']}), {hardware['threads']} threads. Settings, versions and every "
        "value: results.json, table.csv.",
    ]
    return "\n".join(lines) + "\n"


def _seeds(records):
    n = len({record["seed"] for record in records})
    return f"{n} seeds, mean ± standard deviation" if n > 1 else "one seed, no spread"


def _columns(records):
    """(metric, eps) of everything that is no point of a curve, in order."""
    return list(dict.fromkeys((r["metric"], r["eps"]) for r in records if r.get("at") is None))


def _head(column):
    metric, eps = column
    unit = ", %" if metric.startswith(_SHARES) else ""
    return metric + ("" if eps is None else f", L2 {eps:g}") + unit


def _cell(records, row, column):
    found = values(records, row, *column)
    if not len(found):
        return ""
    share = column[0].startswith(_SHARES)
    found = found.astype(float) * (100 if share else 1)
    digits = ".1f" if share else ".3g"
    spread = f" ± {found.std(ddof=1):{digits}}" if len(found) > 1 else ""
    return f"{found.mean():{digits}}{spread}"

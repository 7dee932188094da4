"""What a table leaves behind: tidy CSV, JSON with settings and versions, page and pictures."""

import csv
import io
import json
from dataclasses import asdict, is_dataclass

import numpy as np
from PIL import Image

import provenance
from advfeat.utils._device import resolve_device
from advfeat.utils._files import writing
from files import make_folder, read_json, write_text
from pages import cell, columns_of, head, page, seeds
from stages import Elsewhere
from tables._table import chance, rows_of, values

_FIELDS = ("seed", "row", "metric", "eps", "at", "value")
_N_COLUMNS = 4  # of a block of the printed table


def print_table(table, records, label):
    """Print the table in blocks of few columns."""
    print(f"\n{table.title}\n{label}; {seeds(records)}")
    columns = columns_of(records)
    for i in range(0, len(columns), _N_COLUMNS):
        part = columns[i : i + _N_COLUMNS]
        rows = [
            row for row in rows_of(records) if any(len(values(records, row, *c)) for c in part)
        ]
        width = max(map(len, rows), default=0) + 2  # none, where nothing could be measured
        heads = [head(column).split(", ") for column in part]
        each = max(22, *(len(line) for lines in heads for line in lines)) + 2
        for line in range(max(map(len, heads))):
            cells = [head[line] if line < len(head) else "" for head in heads]
            print(" " * width + "".join(f"{text:>{each}}" for text in cells))
        for row in rows:
            cells = [cell(records, row, column) for column in part]
            print(f"{row:<{width}}" + "".join(f"{text:>{each}}" for text in cells))
        print()


def write(out, table, records, experiment, label, made, options):
    """Write table.csv, results.json, README.md and the pictures into ``out / table.name``.

    ``made``: what is noted of the stages behind the table (`noting`); titles of those that are
    left.
    """
    folder = out / table.name
    make_folder(folder)
    rows = io.StringIO()
    writer = csv.DictWriter(rows, _FIELDS, restval=None)
    writer.writeheader()
    writer.writerows(records)
    write_text(folder / "table.csv", rows.getvalue())
    report = _report(table, experiment, label, made, options)
    report["pictures"] = _pictures(folder, table, records, experiment, options.known)
    report["records"] = records
    write_text(folder / "results.json", json.dumps(report, indent=1) + "\n")
    write_text(folder / "README.md", page(table, report))
    names = ", ".join(report["pictures"])
    print(f"Written to {folder}/: README.md, table.csv, results.json, {names}", flush=True)


def is_finished(out, table, label, preset):
    """Whether a page of the table, of these data and settings, lies there with no stage left."""
    path = out / table.name / "results.json"
    report = read_json(path) if path.exists() else {}  # a broken one is read as {}
    if not report or report.get("left"):
        return False
    same = report.get("settings") in (None, _plain(preset))
    return same and report.get("data", {}).get("label") == label


def _pictures(folder, table, records, experiment, known):
    import matplotlib.pyplot as plt

    names = []
    for name, figure in table.draw(records, experiment).items():
        if isinstance(figure, Elsewhere):  # the sets are not here: their known picture stays
            earlier = known / table.name / f"{name}.png"
            page_of = earlier.with_name("results.json")
            if earlier.exists() and figure.name in read_json(page_of).get("stages", ()):
                picture = earlier.read_bytes()
                with writing(folder / f"{name}.png") as file:
                    file.write(picture)
                names.append(f"{name}.png")
            continue
        if figure is None:
            continue
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=100, bbox_inches="tight")
        plt.close(figure)
        with writing(folder / f"{name}.png") as file:  # 256 colours: a third of the size
            Image.open(drawn).convert("RGB").quantize(256).save(file, "png", optimize=True)
        names.append(f"{name}.png")
    return names


def _report(table, experiment, label, made, options):
    report = {
        "table": table.name,
        "title": table.title,
        "data": {"label": label},
        "seeds": 1 if table.first_seed_only else options.seeds,
        **made,
        "commit": provenance.commit(),
        "date": provenance.today(),
        "hardware": provenance.hardware(resolve_device(options.device)),
        "versions": provenance.versions(),
    }
    if table.needs_images:
        report["preset"] = options.preset
        report["norm"] = "L2"
        report["settings"] = _plain(experiment.preset)
        report["data"].update(
            original=options.data == "cifar10",
            n_train=len(experiment.X),
            n_test=len(experiment.X_test),
            sample_shape=list(experiment.X.shape[1:]),
            n_classes=len(np.unique(experiment.y)),
            chance=chance(experiment) / 100,
        )
    return report


def _plain(value):
    """Turn settings into what JSON holds."""
    if is_dataclass(value):
        return {name: _plain(part) for name, part in asdict(value).items()}
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return getattr(value, "__name__", value)

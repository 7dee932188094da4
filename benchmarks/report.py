"""Table, CSV, JSON and pictures of a comparison."""

import csv
import json
import os
import platform
from dataclasses import asdict
from importlib.metadata import version

import numpy as np
import torch
from comparison import SETS, SOURCES

import advfeat

_TITLES = {
    "standard": "standard training on D",
    "adversarial": "adversarial training on D",
    "D_R": "standard training on D_R",
    "D_NR": "standard training on D_NR",
    "D_rand": "standard training on D_rand",
    "D_det": "standard training on D_det",
}


def values(records, name, metric, eps=None):
    """Values of one cell over the seeds."""
    return np.array(
        [
            row["value"]
            for row in records
            if (row["trained_on"], row["metric"], row["eps"]) == (name, metric, eps)
        ]
    )


def format_table(records, preset, data, label):
    """Return the comparison as lines of text."""
    X, _, X_test, y_test = data
    n_seeds = len({row["seed"] for row in records})
    n_classes = len(np.unique(y_test))
    lines = [
        f"{label}: {len(X)} training and {len(X_test)} test images, {n_seeds} seed(s), "
        f"network {preset.network}, chance {1 / n_classes:.2f}",
        f"adversarial training: L2, eps {preset.train_eps:g}, {preset.train_steps} steps; "
        f"D_rand and D_det: L2, eps {preset.relabel_eps:g}",
        f"robust accuracy: L2, PGD on the margin and on {min(9, n_classes - 1)} targeted margins, "
        f"{preset.attack_steps} steps each, fp32",
        "mean +- standard deviation over seeds" if n_seeds > 1 else "one seed, no spread",
        "",
    ]
    columns = [("accuracy", None)] + [("robust accuracy", eps) for eps in preset.test_eps]
    heads = ["accuracy"] + [f"eps {eps:g}" for eps in preset.test_eps]
    lines.append(f"{'':<28}" + "".join(f"{head:>18}" for head in heads))
    for name in (*SOURCES, *SETS):
        cells = []
        for metric, eps in columns:
            cell = values(records, name, metric, eps)
            spread = f" +- {cell.std(ddof=1):.3f}" if len(cell) > 1 else ""
            cells.append(f"{cell.mean():.3f}{spread}")
        lines.append(f"{_TITLES[name]:<28}" + "".join(f"{cell:>18}" for cell in cells))
    lines.append("")
    for name in SETS:
        metric = "median residual" if SETS[name][1] == "invert" else "success rate"
        cell = values(records, name, metric)
        lines.append(f"{name}: {metric} {cell.mean():.3f}")
    return lines


def print_table(records, preset, data, label):
    """Print the comparison."""
    print("\n" + "\n".join(format_table(records, preset, data, label)))


def write_results(out, records, preset, data, label, minutes, options):
    """Write table.csv (tidy), table.txt and results.json."""
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "table.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    text = "\n".join(format_table(records, preset, data, label))
    (out / "table.txt").write_text(text + "\n")
    X, y, X_test, _ = data
    report = {
        "data": {
            "label": label,
            "n_train": len(X),
            "n_test": len(X_test),
            "sample_shape": list(X.shape[1:]),
            "n_classes": len(np.unique(y)),
        },
        "preset": options.preset,
        "settings": asdict(preset),
        "seeds": options.seeds,
        "norm": "L2",
        "minutes": round(minutes, 1),
        "hardware": {
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
        "versions": {
            "advfeat": advfeat.__version__,
            "python": platform.python_version(),
            **{
                name: version(name)
                for name in ("torch", "torchvision", "scikit-learn", "numpy", "scipy", "skorch")
            },
        },
        "records": records,
    }
    (out / "results.json").write_text(json.dumps(report, indent=1) + "\n")


def write_pictures(out, records, preset, data, label, sets):
    """Write the sample grid of the first seed, the bars and the robustness curves."""
    import matplotlib.pyplot as plt

    from advfeat.plotting import AccuracyBarDisplay, RobustnessCurveDisplay, SampleGridDisplay

    X, y, X_test, _ = data
    eps = (0.0, *preset.test_eps)
    accuracy = {
        name: np.stack(
            [
                values(records, name, "accuracy"),
                *(values(records, name, "robust accuracy", radius) for radius in preset.test_eps),
            ],
            axis=1,
        )
        for name in (*SOURCES, *SETS)
    }
    measure = {"norm": 2, "n_steps": preset.attack_steps, "n_samples": len(X_test)}

    grid = SampleGridDisplay.from_datasets(
        {"original": X, **sets}, y=y, n_samples=10, random_state=0
    )
    grid.ax_.set_title(label)
    _save(grid.figure_, out / "samples.png")
    bars = AccuracyBarDisplay.from_predictions(accuracy, eps=eps, **measure)
    bars.ax_.set_title(label)
    _save(bars.figure_, out / "accuracy.png")
    _, ax = plt.subplots()
    for name, cell in accuracy.items():
        RobustnessCurveDisplay.from_predictions(eps, cell.mean(0), name=name, ax=ax, **measure)
    ax.set_title(label)
    _save(ax.figure, out / "robustness.png")


def _save(figure, path):
    import matplotlib.pyplot as plt

    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)

"""Compare the default attack with AutoAttack: accuracy that is left, and seconds.

    python benchmarks/autoattack.py --out results/autoattack    # digits; the "bench" extra
    python benchmarks/autoattack.py --smoke --out results       # does it run?

Models: those of the tables on digits (reproduce.py, seed 0). Both attacks see the same test
images; AutoAttack is torchattacks' "standard" version. Each model and each radius is a stage: what
is finished is kept, and ``--models`` lets several processes share the work, each with its own. The
command without it, at the end, makes the table of all. Seconds are those of one run of each
attack, one after the other; on a machine with other work they are only a hint.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import torch
import torchattacks

import provenance
from advfeat import adversarial_examples
from advfeat.datasets import load_digits
from advfeat.utils._device import resolve_device
from experiment import Experiment
from files import make_folder, write_text
from presets import PRESETS
from stages import Stages

MODELS = ("standard", "adversarial", "D_R", "D_NR", "D_rand", "D_det")
RADII = {2: (0.25, 0.5, 1.0), np.inf: (0.03, 0.06, 0.12)}
NORMS = {2: "L2", np.inf: "Linf"}
_WITHIN = 0.5  # points above AutoAttack that are borne
_SHARE = 0.2  # of its seconds


def main(arguments=None):
    """Train, attack, print and write the table."""
    options = _parse(arguments)
    make_folder(options.out)
    experiment = _experiment(options)
    cells = [
        (name, norm, eps)
        for name in options.models
        for norm in RADII
        for eps in RADII[norm][: 1 if options.smoke else None]
    ]
    with experiment.stages.planning():
        for cell in cells:
            _compared(experiment, *cell, options.smoke)
    rows = []
    for name, norm, eps in cells:
        found = _compared(experiment, name, norm, eps, options.smoke)
        rows.append({"model": name, "norm": NORMS[norm], "eps": eps, **_row(found)})
        print(_line(rows[-1]), flush=True)
    if set(options.models) >= set(MODELS) or options.smoke:
        _write(options, rows, len(experiment.X_test))


def _parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, metavar="MODEL")
    parser.add_argument("--samples", type=int, metavar="N", help="test images (all 540)")
    parser.add_argument("--out", type=Path, default=Path("results/autoattack"), metavar="FOLDER")
    parser.add_argument(
        "--stages", type=Path, metavar="FOLDER", help="where stages are kept (OUT/stages)"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--smoke", action="store_true", help="two models, few images")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.models, options.samples = MODELS[:2], 20
    return options


def _experiment(options):
    """Give the models' experiment, as reproduce.py has it, on the first test images."""
    preset = PRESETS["digits"]
    X, y = load_digits(split="train", return_X_y=True)
    X_test, y_test = load_digits(split="test", return_X_y=True)
    if options.smoke:
        short = {n: dataclasses.replace(t, epochs=2) for n, t in preset.training.items()}
        preset = dataclasses.replace(preset, training=short)
        X, y = X[:200], y[:200]
    data = X, y, X_test[: options.samples], y_test[: options.samples]
    stages = Stages(options.stages or options.out / "stages")
    return Experiment(preset, data, 0, stages, options.device)


def _compared(experiment, name, norm, eps, smoke):
    """Say what both attacks do, as a stage: who withstands, and the seconds."""
    return experiment.stage(
        "measure",
        f"attack {name} in {NORMS[norm]} {eps:g}",
        (
            "beside AutoAttack",
            experiment.classifier_key(name),
            experiment.test_key,
            norm,
            eps,
            smoke,
        ),
        lambda classifier: _compare(
            classifier, experiment.X_test, experiment.y_test, norm, eps, smoke
        ),
        needs=[lambda: experiment.classifier(name)],
    )


def _compare(classifier, X, y, norm, eps, smoke):
    device = resolve_device(classifier.device)
    begun = time.perf_counter()
    _, fooled = adversarial_examples(classifier, X, y, norm=norm, eps=eps, verbose=0)
    seconds = time.perf_counter() - begun
    network = classifier.module_.to(device).eval()
    labels = torch.from_numpy(np.searchsorted(classifier.classes_, y)).to(device)
    images = torch.from_numpy(X).to(device)
    attack = torchattacks.AutoAttack(
        network, norm=NORMS[norm], eps=eps, n_classes=len(classifier.classes_), seed=0
    )
    if smoke:
        attack = torchattacks.APGD(network, norm=NORMS[norm], eps=eps, steps=2)
    begun = time.perf_counter()
    with torch.no_grad():
        right = network(images).argmax(1) == labels
    withstands = right.clone()
    if right.any():
        found = attack(images[right], labels[right])
        with torch.no_grad():
            withstands[right] = network(found).argmax(1) == labels[right]
    right, withstands = right.cpu().numpy(), withstands.cpu().numpy()
    return {
        "clean": right,
        "ours": ~fooled,
        "AutoAttack": withstands,
        "seconds ours": seconds,
        "seconds AutoAttack": time.perf_counter() - begun,
        "hardware": provenance.hardware(device),
    }


def _row(found):
    """Shares instead of samples; and which samples only AutoAttack breaks."""
    shares = {key: float(found[key].mean()) for key in ("clean", "ours", "AutoAttack")}
    missed = np.flatnonzero(found["ours"] & ~found["AutoAttack"]).tolist()
    rest = {key: found[key] for key in ("seconds ours", "seconds AutoAttack", "hardware")}
    return {**shares, **rest, "missed": missed}


def _line(row):
    cells = [f"{100 * row[key]:.1f}" for key in ("clean", "ours", "AutoAttack")]
    cells += [f"{row[key]:.1f}" for key in ("seconds ours", "seconds AutoAttack")]
    return f"| {row['model']} | {row['norm']} | {row['eps']:g} | {' | '.join(cells)} |"


def _write(options, rows, n):
    above = [100 * (row["ours"] - row["AutoAttack"]) for row in rows]
    ours, theirs = ([row[f"seconds {name}"] for row in rows] for name in ("ours", "AutoAttack"))
    shares = np.divide(ours, theirs)
    most = int(shares.argmax())
    versions = provenance.versions()
    command = "python benchmarks/autoattack.py" + " --smoke" * options.smoke
    command += f" --samples {options.samples}" * bool(options.samples)
    machines = {_machine(row["hardware"]) for row in rows}
    lines = [
        "# The default attack beside AutoAttack",
        "",
        f"Accuracy in % that is left on {n} test images of digits, and seconds of one run, of the "
        "models of the tables (seed 0). AutoAttack is the standard version of torchattacks.",
        "",
        f"- Accuracy under ours is at most {_WITHIN} points above AutoAttack's in "
        f"{sum(value <= _WITHIN for value in above)} of {len(rows)} rows; the largest difference "
        f"is {max(above):+.1f} points.",
        f"- Ours took {100 * sum(ours) / sum(theirs):.0f} % of AutoAttack's seconds in all, and "
        f"at most a fifth in {sum(value <= _SHARE for value in shares)} of {len(rows)} rows; the "
        f"largest share is {100 * shares[most]:.0f} %, {ours[most]:.1f} s for {theirs[most]:.1f} "
        "s. Where nobody withstands, both are done at once.",
        "",
        "| model | norm | eps | clean | ours | AutoAttack | s, ours | s, AutoAttack |",
        "|---|---|---|---|---|---|---|---|",
        *map(_line, rows),
        "",
        f"Made by `{command}` on {' and '.join(sorted(machines))}, at commit "
        f"{provenance.commit()}, torch {versions['torch']}, torchattacks "
        f"{versions['torchattacks']}. Ours: margin, cross-entropy and nine targeted margins, 20 "
        "steps each, fp32. Its seconds count the checks that come with it.",
        "",
    ]
    write_text(options.out / "README.md", "\n".join(lines))
    report = {
        "command": command,
        "samples": n,
        "commit": provenance.commit(),
        "date": provenance.today(),
        "versions": provenance.versions(),
        "rows": rows,
    }
    write_text(options.out / "autoattack.json", json.dumps(report, indent=1) + "\n")
    print("\n".join(lines[4:7]))


def _machine(hardware):
    where = hardware["device"] if hardware["device"] != "CPU" else hardware["processor"]
    return f"{where}, {hardware['threads']} threads"


if __name__ == "__main__":
    main()

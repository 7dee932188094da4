"""Compare the default attack with AutoAttack: accuracy that is left, and seconds.

    python benchmarks/autoattack.py --out results/autoattack    # digits; the "bench" extra
    python benchmarks/autoattack.py --smoke --out results       # does it run?

Models: those of the tables on digits (reproduce.py, seed 0). Radii: those that leave about three
quarters, a half and a quarter of a model's accuracy, found on training images, since a radius at
which all or none withstand compares nothing; and one large radius in each norm. Both attacks see
the same test images; AutoAttack is the standard version of its authors' code. Each model and each
radius is a stage: what is finished is kept, and ``--models`` lets several processes share the
work, each with its own. The command without it, at the end, makes the table of all. Seconds are
those of one run of each attack, one after the other; on a machine with other work they are only a
hint.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np

import measures
import provenance
from advfeat import robust_accuracy_curve, robust_accuracy_score
from advfeat.datasets import load_digits
from advfeat.utils._device import resolve_device
from experiment import Experiment
from files import make_folder, write_text
from presets import PRESETS
from stages import Stages

MODELS = ("standard", "adversarial", "D_R", "D_NR", "D_rand", "D_det")
NORMS = {2: "L2", np.inf: "Linf"}
LEFT = (0.75, 0.5, 0.25)  # shares of the accuracy
LARGE = {2: 1.0, np.inf: 0.12}
_TRIED = {2: np.geomspace(0.005, 2.56, 19), np.inf: np.geomspace(0.0006, 0.32, 19)}
_N_TRIED = 300  # training images on which radii are found
_WITHIN = 0.5  # points above AutoAttack that are borne
_SHARE = 0.2  # of its seconds


def main(arguments=None):
    """Train, attack, print and write the table."""
    options = _parse(arguments)
    make_folder(options.out)
    experiment = _experiment(options)
    cells = [
        (name, norm, left)
        for name in options.models
        for norm in NORMS
        for left in (LEFT[1:2] if options.smoke else (*LEFT, None))
    ]
    with experiment.stages.planning():
        for cell in cells:
            _compared(experiment, *cell, options.smoke)
    rows = []
    for name, norm, left in cells:
        found = _compared(experiment, name, norm, left, options.smoke)
        rows.append({"model": name, "norm": NORMS[norm], "left": left, **found})
        print(_line(rows[-1]), flush=True)
    if set(options.models) >= set(MODELS) or options.smoke:
        _write(options, rows, len(experiment.X_test))


def _parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, metavar="MODEL")
    parser.add_argument("--samples", type=int, metavar="N", help="test images (all 450)")
    parser.add_argument("--out", type=Path, default=Path("results/autoattack"), metavar="FOLDER")
    parser.add_argument(
        "--stages", type=Path, metavar="FOLDER", help="where stages are kept (OUT/stages)"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--smoke", action="store_true", help="one model, few images")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.models, options.samples = MODELS[:1], 10
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


def _compared(experiment, name, norm, left, smoke):
    """Say what both attacks do, as a stage: the accuracy that is left, and the seconds.

    The radius is the one that leaves such a share of the accuracy; the large one if it is None.
    """

    def compare(classifier, radii):
        eps = LARGE[norm] if left is None else radii[LEFT.index(left)]
        return _compare(classifier, experiment.X_test, experiment.y_test, norm, eps, smoke)

    return experiment.stage(
        "autoattack",
        f"attack {name} in {NORMS[norm]} {'large' if left is None else format(left, 'g')}",
        (
            "verdict beside AutoAttack of its authors",
            experiment.classifier_key(name),
            experiment.data_key,
            experiment.test_key,
            norm,
            LARGE[norm] if left is None else ("left", left),
            smoke,
        ),
        compare,
        needs=[
            lambda: experiment.classifier(name),
            lambda: _radii(experiment, name, norm),
        ],
    )


def _radii(experiment, name, norm):
    """Radii that leave the shares LEFT of the accuracy, to two digits, as a stage."""

    def search(classifier):
        X, y = measures.some_of(min(_N_TRIED, len(experiment.X)), experiment.X, experiment.y)
        accuracy = robust_accuracy_curve(
            classifier, X, y, norm=norm, eps_values=[0, *_TRIED[norm]], verbose=0
        )
        share = accuracy[1:] / accuracy[0]
        found = np.interp(LEFT, share[::-1], _TRIED[norm][::-1])
        return [float(f"{eps:.1e}") for eps in found]

    return experiment.stage(
        "autoattack",
        f"radii for {name} in {NORMS[norm]}",
        ("radii", experiment.classifier_key(name), experiment.data_key, norm, LEFT),
        search,
        needs=[lambda: experiment.classifier(name)],
    )


def _compare(classifier, X, y, norm, eps, smoke):
    begun = time.perf_counter()
    ours = robust_accuracy_score(classifier, X, y, norm=norm, eps=eps, verbose=0)
    seconds = time.perf_counter() - begun
    adapt = _shortened if smoke else None
    begun = time.perf_counter()
    withstand = measures.withstand_autoattack(classifier, X, y, eps, NORMS[norm], adapt)
    return {
        "eps": eps,
        "clean": classifier.score(X, y),
        "ours": ours,
        "AutoAttack": float(withstand.mean()),
        "seconds ours": seconds,
        "seconds AutoAttack": time.perf_counter() - begun,
        "hardware": provenance.hardware(resolve_device(classifier.device)),
    }


def _shortened(attack):
    attack.attacks_to_run, attack.apgd.n_iter = ["apgd-ce"], 2


def _line(row):
    cells = [f"{100 * row[key]:.1f}" for key in ("clean", "ours", "AutoAttack")]
    cells += [f"{row[key]:.1f}" for key in ("seconds ours", "seconds AutoAttack")]
    return f"| {row['model']} | {row['norm']} | {row['eps']:g} | {' | '.join(cells)} |"


def _write(options, rows, n):
    versions = provenance.versions()
    command = "python benchmarks/autoattack.py" + " --smoke" * options.smoke
    command += f" --samples {options.samples}" * bool(options.samples)
    machines = {_machine(row["hardware"]) for row in rows}
    parted = [row for row in rows if row["left"] is not None]
    large = [row for row in rows if row["left"] is None]
    lines = [
        "# The default attack beside AutoAttack",
        "",
        f"Accuracy in % that is left on {n} test images of digits, and seconds of one run, of the "
        "models of the tables (seed 0). AutoAttack is the standard version of its authors' code.",
        "",
        *_findings(parted),
        "",
        *_table(parted),
        "",
        "Radii leave about three quarters, a half and a quarter of a model's accuracy, found on "
        "training images: where all or none withstand, nothing is compared.",
        "",
    ]
    if large:
        lines += [
            "## One large radius",
            "",
            *_findings(large),
            "- Where nobody withstands, both end after their first steps, and neither can be "
            "much faster.",
            "",
            *_table(large),
            "",
        ]
    lines += [
        f"Made by `{command}` on {' and '.join(sorted(machines))}, {provenance.today()}, commit "
        f"{provenance.commit()}, torch {versions['torch']}, pyautoattack "
        f"{versions['pyautoattack']}. Ours: `robust_accuracy_score`, with margin, cross-entropy "
        "and nine targeted margins, 20 steps each, fp32. Its seconds count the checks that come "
        "with it.",
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


def _findings(rows):
    above = [100 * (row["ours"] - row["AutoAttack"]) for row in rows]
    ours, theirs = ([row[f"seconds {name}"] for row in rows] for name in ("ours", "AutoAttack"))
    shares = np.divide(ours, theirs)
    most = int(shares.argmax())
    return [
        f"- Accuracy under ours is at most {_WITHIN} points above AutoAttack's in "
        f"{sum(round(value, 9) <= _WITHIN for value in above)} of {len(rows)} rows; the largest "
        f"difference is {max(above):+.1f} points.",
        f"- Ours took {100 * sum(ours) / sum(theirs):.0f} % of AutoAttack's seconds in all, and "
        f"at most a fifth in {sum(value <= _SHARE for value in shares)} of {len(rows)} rows; the "
        f"largest share is {100 * shares[most]:.0f} %, {ours[most]:.1f} s for {theirs[most]:.1f} "
        "s.",
    ]


def _table(rows):
    head = "| model | norm | eps | clean | ours | AutoAttack | s, ours | s, AutoAttack |"
    return [head, "|---|---|---|---|---|---|---|---|", *map(_line, rows)]


def _machine(hardware):
    where = hardware["device"] if hardware["device"] != "CPU" else hardware["processor"]
    return f"{where}, {hardware['threads']} threads"


if __name__ == "__main__":
    main()

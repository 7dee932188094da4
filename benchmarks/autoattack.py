"""Compare the default attack with AutoAttack: accuracy that is left, and seconds.

    python benchmarks/autoattack.py --out results/autoattack    # digits; the "bench" extra
    python benchmarks/autoattack.py --smoke --out results      # does it run?

Models: those of the paper's figure 2 on digits, trained here with the library's defaults (the
adversarial one with eps 1 and D_rand's source with eps 0.5 of its own perturbations). Each attack
sees the same test images; AutoAttack is torchattacks' "standard" version. Seconds are those of
one run of each attack, one after the other; on a machine with other work they are only a hint.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torchattacks
from sklearn.frozen import FrozenEstimator
from tqdm.auto import tqdm

import provenance
from advfeat import (
    AdversarialClassifier,
    NonRobustRelabeler,
    RobustFeatureInverter,
    StandardClassifier,
    robust_accuracy_score,
)
from advfeat.datasets import load_digits
from files import make_folder, write_text

RADII = {2: (0.25, 0.5, 1.0), np.inf: (0.03, 0.06, 0.12)}
NORMS = {2: "L2", np.inf: "Linf"}


def main(arguments=None):
    """Train, attack, print and write the table."""
    options = _parse(arguments)
    X, y = load_digits(split="train", return_X_y=True)
    X_test, y_test = load_digits(split="test", return_X_y=True)
    X_test, y_test = X_test[: options.samples], y_test[: options.samples]
    if options.smoke:
        X, y = X[:200], y[:200]
    models = _models(X, y, options)
    cells = [
        (name, norm, eps)
        for name in models
        for norm in RADII
        for eps in RADII[norm][: 1 if options.smoke else None]
    ]
    rows = []
    for name, norm, eps in tqdm(cells, desc="AutoAttack", unit="cell"):
        rows.append(_compare(models[name], X_test, y_test, norm, eps, options.smoke))
        rows[-1] = {"model": name, "norm": NORMS[norm], "eps": eps, **rows[-1]}
    _write(options.out, rows, len(X_test), options)


def _parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=300, metavar="N", help="test images (300)")
    parser.add_argument("--out", type=Path, default=Path("results/autoattack"), metavar="FOLDER")
    parser.add_argument("--smoke", action="store_true", help="two models, few images")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.samples = 20
    return options


def _models(X, y, options):
    settings = {"random_state": 0, "verbose": 0}
    short = {"max_epochs": 2} if options.smoke else {}
    standard = StandardClassifier(**short, **settings).fit(X, y)
    robust = AdversarialClassifier(eps=1.0, **short, **settings).fit(X, y)
    models = {"standard": standard, "adversarial, L2 1": robust}
    if options.smoke:
        return models
    models["adversarial, Linf 0.1"] = AdversarialClassifier(norm=np.inf, eps=0.1, **settings).fit(
        X, y
    )
    D_R = RobustFeatureInverter(FrozenEstimator(robust), **settings).fit_transform(X, y)
    models["D_R"] = StandardClassifier(**settings).fit(D_R, y)
    relabeler = NonRobustRelabeler(FrozenEstimator(standard), target="random", **settings)
    models["D_rand"] = StandardClassifier(**settings).fit(relabeler.fit_transform(X, y))
    return models


def _compare(classifier, X, y, norm, eps, smoke):
    begun = time.perf_counter()
    ours = robust_accuracy_score(classifier, X, y, norm=norm, eps=eps, verbose=0)
    seconds = time.perf_counter() - begun
    network = classifier.module_.eval()
    images, labels = torch.from_numpy(X), torch.from_numpy(np.searchsorted(classifier.classes_, y))
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
    return {
        "clean": float(right.float().mean()),
        "ours": ours,
        "AutoAttack": float(withstands.float().mean()),
        "seconds ours": seconds,
        "seconds AutoAttack": time.perf_counter() - begun,
    }


def _write(out, rows, n, options):
    worst = max(100 * (row["ours"] - row["AutoAttack"]) for row in rows)
    ratio = sum(row["seconds ours"] for row in rows) / sum(
        row["seconds AutoAttack"] for row in rows
    )
    lines = [
        "# The default attack beside AutoAttack",
        "",
        f"Accuracy in % that is left on {n} test images of digits, and seconds of one run. "
        f"Largest difference (ours minus AutoAttack): {worst:+.1f} points; ours took "
        f"{100 * ratio:.0f} % of AutoAttack's seconds in all.",
        "",
        "| model | norm | eps | clean | ours | AutoAttack | s, ours | s, AutoAttack |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [f"{100 * row[key]:.1f}" for key in ("clean", "ours", "AutoAttack")]
        cells += [f"{row[key]:.1f}" for key in ("seconds ours", "seconds AutoAttack")]
        lines.append(f"| {row['model']} | {row['norm']} | {row['eps']:g} | {' | '.join(cells)} |")
    command = "python benchmarks/autoattack.py" + (" --smoke" if options.smoke else "")
    lines += ["", f"Made by `{command} --samples {n}`.", ""]
    print("\n".join(lines))
    make_folder(out)
    write_text(out / "README.md", "\n".join(lines))
    report = {
        "command": command,
        "samples": n,
        "commit": provenance.commit(),
        "date": provenance.today(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(torch.device("cpu")),
        "rows": rows,
    }
    write_text(out / "autoattack.json", json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""The paper's comparison from raw images to finished table (Ilyas et al. 2019, Tables 1 and 7).

    python benchmarks/reproduce.py                                  # digits, embedded
    python benchmarks/reproduce.py --preset small --data FOLDER     # FOLDER/{train,test}/<class>/

Trained sources and constructed sets are kept under ``OUT/stages``; a run that was killed goes on
where it stopped.
"""

import argparse
import sys
from pathlib import Path

from comparison import N_STAGES, compare
from presets import PRESETS
from report import print_table, write_pictures, write_results
from sklearn.model_selection import train_test_split
from stages import Stages

from advfeat.datasets import load_digits, load_image_folder


def main(arguments=None):
    """Run the comparison and write table, CSV, JSON and pictures."""
    options = _parse(arguments)
    preset = PRESETS[options.preset]
    try:
        data, label = _load(options, preset)
    except (ValueError, OSError) as error:
        sys.exit(f"Could not load the data: {error}")
    if options.validate:
        data, label = _validation_split(data), f"{label}, VALIDATION on held-out training images"
    stages = Stages(options.stages or options.out / "stages", N_STAGES * options.seeds)
    records, first_sets = [], None
    for seed in range(options.seeds):
        found, sets = compare(preset, data, seed, stages, options.device)
        records += found
        first_sets = first_sets or sets
    minutes = (stages.seconds + stages.seconds_kept) / 60
    print_table(records, preset, data, label)
    print(f"\n{minutes:.1f} minutes, {stages.seconds_kept / 60:.1f} of them in earlier runs")
    write_results(options.out, records, preset, data, label, minutes, options)
    write_pictures(options.out, records, preset, data, label, first_sets)
    print(f"Written to {options.out}/: table.csv, results.json, table.txt and pictures")


def _parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="digits")
    parser.add_argument(
        "--data",
        default="digits",
        metavar="FOLDER",
        help="'digits' (embedded) or an image folder with train/ and test/ (default: digits)",
    )
    parser.add_argument("--label", help="name of the data in tables (default: the folder's)")
    parser.add_argument("--seeds", type=_positive, default=1, metavar="K")
    parser.add_argument("--out", type=Path, default=Path("results"), metavar="FOLDER")
    parser.add_argument(
        "--stages", type=Path, metavar="FOLDER", help="where stages are kept (OUT/stages)"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--validate",
        action="store_true",
        help="evaluate on a fifth of the training images instead of the test set: for tuning",
    )
    return parser.parse_args(arguments)


def _positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text}")
    return value


def _load(options, preset):
    """Return (X, y, X_test, y_test) and a label for the tables."""
    if options.data == "digits":
        parts = (load_digits(split=split, return_X_y=True) for split in ("train", "test"))
        (X, y), (X_test, y_test) = parts
        return (X, y, X_test, y_test), options.label or "digits (8x8)"
    train, test = (
        load_image_folder(
            options.data, split=split, n_samples=n, random_state=0, n_jobs=2, return_X_y=True
        )
        for split, n in (("train", preset.n_train), ("test", preset.n_test))
    )
    return (*train, *test), options.label or Path(options.data).resolve().name


def _validation_split(data):
    X, y, _, _ = data
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.2, stratify=y, random_state=0)
    return X, y, X_test, y_test


if __name__ == "__main__":
    main()

"""The paper's tables and figures from raw images to finished page (Ilyas et al. 2019).

    python benchmarks/reproduce.py --list
    python benchmarks/reproduce.py                            # the overview, on embedded digits
    python benchmarks/reproduce.py table1 figure8 --seeds 3
    python benchmarks/reproduce.py all --preset small --data FOLDER  # FOLDER/{train,test}/<class>/
    python benchmarks/reproduce.py figure2 table1 --preset cifar --data cifar10

Trained sources, constructed sets and measurements are kept under ``OUT/stages`` and shared by all
tables; a run that was stopped goes on where it was: in most trainings at the epoch, in sets at
the batch, in evaluations after every 2,000 images. One that its ``--budget`` stops leaves pages
of what there is, marked as not finished. Pages hold what was measured for them: with ``--known``
their folder, another machine makes them again, or adds seeds and tables, without measuring that
anew. The same command, given several times at once, shares the work, here by two processes of one
thread each (bits depend on the number of threads):

    export OMP_NUM_THREADS=1
    python benchmarks/reproduce.py & python benchmarks/reproduce.py
"""

import argparse
import dataclasses
import functools
import sys
from importlib.util import find_spec
from pathlib import Path

from sklearn.model_selection import train_test_split

import tables
import work
from advfeat.classifiers.networks import check_network_name
from advfeat.datasets import fetch_cifar10, load_digits, load_image_folder
from advfeat.utils._device import resolve_device
from arguments import minutes, positive
from experiment import Experiment
from files import make_folder
from index import write_list
from measures import some_of
from memory import keep_freed_memory
from presets import PRESETS
from report import is_finished, print_table, write
from stages import BudgetSpentError, Planned, Stages


def main(arguments=None):
    """Run the tables asked for; write CSV, JSON, page and pictures of each."""
    options = _parse(arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal of ASCII must not cost a page
    if options.list:
        for name in tables.NAMES:
            own = "" if name in tables.GROUPS["all"] else " (not in 'all')"
            print(f"{name:<20}{tables.table(name).title}{own}")
        print(f"{'debate':<20}{', '.join(tables.GROUPS['debate'])}")
        print(f"{'all':<20}all of these but for those marked")
        return
    wanted = _wanted(options)
    preset = _preset(options)
    try:
        resolve_device(options.device)
    except ValueError as error:
        sys.exit(f"--device: {error}")
    make_folder(options.out)
    try:
        stages = Stages(options.stages or options.out / "stages", options.budget, options.known)
    except ValueError as error:
        sys.exit(f"--known: {error}")
    if changed := work.changed():
        print(
            f"The code of these kinds of work is not that of work.json: {', '.join(changed)}. "
            "Stages that are kept may differ from what it gives now (CONTRIBUTING.md)."
        )
    try:
        runs = [(table, *_experiments(table, options, preset, stages)) for table in wanted]
    except (ValueError, OSError) as error:
        sys.exit(f"Could not load the data: {error}")
    plans = [_plan(stages, table, experiments) for table, experiments, _ in runs]
    _check_packages(stages)
    print(f"{len(stages.todo)} stages to compute, {len(stages.finished)} kept", flush=True)
    finished = []
    try:
        for run, planned in _computed(stages, runs, plans):
            _write(run, planned, stages, options)
            finished.append(run[0].name)
    except BudgetSpentError:
        print(f"\nThe budget of {options.budget:g} minutes is spent. Finished: {finished}.")
        left = stages.left()
        print(f"Left are {len(left)} stages; the same command goes on with them:")
        for title in left:
            print(f"  {title}")
        with stages.so_far():
            for run, planned in zip(runs, plans, strict=True):
                if run[0].name not in finished:
                    stages.begin()
                    _write(run, planned, stages, options)


def _parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "tables",
        nargs="*",
        default=["overview"],
        metavar="TABLE",
        help="see --list; or a group: 'all', 'debate'",
    )
    parser.add_argument("--list", action="store_true", help="say what there is")
    parser.add_argument(
        "--preset", choices=PRESETS, default="digits", help="size and settings of the run (digits)"
    )
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help="image folder with train/ and test/, or 'cifar10' for the original CIFAR-10, "
        "downloaded to --cache (default for the preset digits: embedded digits)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("~/.cache/advfeat"),
        metavar="FOLDER",
        help="where CIFAR-10 is kept (~/.cache/advfeat)",
    )
    parser.add_argument("--label", help="name of the data in tables (default: the folder's)")
    parser.add_argument("--imagenet", metavar="FOLDER", help="ILSVRC2012, for figure11")
    parser.add_argument(
        "--seeds", type=positive, default=1, metavar="K", help="runs of everything (1)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("results"),
        metavar="FOLDER",
        help="pages go to FOLDER/TABLE (results)",
    )
    parser.add_argument(
        "--stages", type=Path, metavar="FOLDER", help="where stages are kept (OUT/stages)"
    )
    parser.add_argument(
        "--known",
        type=Path,
        metavar="FOLDER",
        help="pages of earlier runs, such as benchmarks/results/cifar: what they measured is not "
        "measured again",
    )
    parser.add_argument(
        "--budget",
        type=minutes,
        metavar="MINUTES",
        help="begin no further stage after so many minutes, say what is left, and write the pages "
        "of what there is",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (auto)")
    parser.add_argument("--network", help="architecture of sources and classifiers")
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16"),
        help="of training and construction (default: the preset's)",
    )
    parser.add_argument(
        "--validate",
        action="store_true",
        help="evaluate on a fifth of the training images instead of the test set: for tuning",
    )
    return parser.parse_args(arguments)


def _wanted(options):
    """Tables asked for, each once."""
    names = [one for name in options.tables for one in tables.GROUPS.get(name, (name,))]
    unknown = [name for name in names if name not in tables.NAMES]
    if unknown:
        known = ", ".join((*tables.NAMES, *tables.GROUPS))
        sys.exit(f"Unknown table {', '.join(unknown)}. There are: {known}.")
    wanted = list({table.name: table for table in map(tables.table, names)}.values())
    lacking = [table.name for table in wanted if table.load and not options.imagenet]
    if lacking and "all" in options.tables:
        print(f"Left out: {', '.join(lacking)}, which needs --imagenet FOLDER (ILSVRC2012).")
        wanted = [table for table in wanted if table.name not in lacking]
    elif lacking:
        sys.exit(f"{lacking[0]} needs --imagenet FOLDER, the folder of ILSVRC2012.")
    return wanted


def _preset(options):
    try:
        check_network_name(options.network or "auto")
    except ValueError as error:
        sys.exit(f"--network: {error}")
    changes = {"network": options.network, "precision": options.precision}
    changes = {name: value for name, value in changes.items() if value is not None}
    preset = dataclasses.replace(PRESETS[options.preset], **changes)
    if options.network:
        others = [n for n in preset.architectures if n != options.network]
        preset = dataclasses.replace(preset, architectures=(options.network, *others))
    return preset


def _experiments(table, options, preset, stages):
    """Experiment of every seed, and the name of the data."""
    names = None
    if not table.needs_images:
        data, label = (None,) * 4, "random samples"
    elif table.load:
        data, label, names, preset = table.load(options, preset)
    else:
        data, label, names = _load(options, preset)
    if options.validate and table.needs_images:
        data, label = _validation_split(data), f"{label}, VALIDATION on held-out training images"
    seeds = range(1 if table.first_seed_only else options.seeds)
    experiments = [Experiment(preset, data, seed, stages, options.device, names) for seed in seeds]
    if table.prepare:
        experiments = [table.prepare(experiment) for experiment in experiments]
    return experiments, label


@functools.cache
def _load_once(source, n_train, n_test, cache):
    """Training and test part as Bunches."""
    parts = []
    for split, n in (("train", n_train), ("test", n_test)):
        if source is None:
            parts.append(load_digits(split=split))
        elif source == "cifar10":
            found = fetch_cifar10(cache, split=split, download=True)
            found.data, found.target = some_of(n, found.data, found.target)
            parts.append(found)
        else:
            parts.append(
                load_image_folder(source, split=split, n_samples=n, random_state=0, n_jobs=2)
            )
    return parts


def _load(options, preset):
    """Return (X, y, X_test, y_test), a label for the tables, and the names of the classes."""
    if options.data is None and options.preset != "digits":
        raise ValueError(
            f"the preset '{options.preset}' needs --data FOLDER, with train/ and test/ and a "
            "folder of images for each class in both, or --data cifar10."
        )
    train, test = _load_once(options.data, preset.n_train, preset.n_test, options.cache)
    label = {None: "digits (8x8)", "cifar10": "CIFAR-10"}.get(options.data)
    label = options.label or label or Path(options.data).resolve().name
    label = " ".join(label.split())
    names = [str(name) for name in train.target_names]
    return (train.data, train.target, test.data, test.target), label, names


def _validation_split(data):
    X, y, _, _ = data
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.2, stratify=y, random_state=0)
    return X, y, X_test, y_test


def _plan(stages, table, experiments):
    """Stages behind a table."""
    with stages.planning() as planned:
        for experiment in experiments:
            table.measure(experiment)
    return planned


def _check_packages(stages):
    """Leave at once, not after a night, where a package is missing that the end needs."""
    needed = {"matplotlib": "plots"}
    if any("autoattack" in title.lower() for title in stages.todo.values()):
        needed["pyautoattack"] = "bench"
    missing = {name: extra for name, extra in needed.items() if find_spec(name) is None}
    if missing:
        extras = ",".join(missing.values())
        sys.exit(f'{", ".join(missing)} is missing. Install it: pip install ".[{extras}]"')


def _computed(stages, runs, plans):
    """Yield each table with its plan, as soon as this run and others have computed its stages."""
    left = list(zip(runs, plans, strict=True))
    while left:
        waiting = []
        for run, planned in left:
            stages.begin()
            if stages.compute(planned):
                yield run, planned
            else:
                waiting.append((run, planned))
        if len(waiting) == len(left):
            stages.wait()
        left = waiting


def _write(run, planned, stages, options):
    """Print and write a table, or what there is of it."""
    table, experiments, label = run
    left = stages.left(planned)
    if left and is_finished(options.out, table, label, experiments[0].preset):
        print(f"{table.name}: the finished page that lies there is left as it is.")
        return
    records = [record for experiment in experiments for record in table.measure(experiment)]
    records = [record for record in records if not isinstance(record["value"], Planned)]
    if all(record["metric"] == table.counted for record in records):
        print(f"{table.name}: nothing is measured yet.")
        return
    print_table(table, records, label)
    made = {**stages.notes.for_page(planned), "left": left}
    with stages.so_far():  # what was measured and then deleted is not made again for pictures
        try:
            write(options.out, table, records, experiments[0], label, made, options)
            write_list(options.out)
        except OSError as error:
            sys.exit(
                f"The page {options.out / table.name} cannot be written: {error.strerror}. What "
                "was computed is kept in the stages: make room, and give the command again."
            )


if __name__ == "__main__":
    keep_freed_memory()
    main()

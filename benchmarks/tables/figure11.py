"""Figures 11 and 12 and Table 1, right: Restricted ImageNet."""

import dataclasses

import joblib
import numpy as np

from advfeat.datasets import RestrictedImageNet
from advfeat.datasets._image_files import read_array
from measures import VERBOSE
from presets import RESTRICTED_IMAGENET
from tables._table import Table, accuracy_bars, sample_grid

_SETS = ("D_R", "D_NR", "D_rand", "D_det")
_ROWS = ("standard", "adversarial", *_SETS)


def _load(options, preset):
    """Images of an ILSVRC2012 folder as memory maps of uint8, read once; and the preset's own."""
    preset = dataclasses.replace(
        RESTRICTED_IMAGENET[options.preset], network=preset.network, precision=preset.precision
    )
    folder = options.stages or options.out / "stages"
    parts = []
    for split, n in (("train", preset.n_train), ("val", preset.n_test)):
        images = RestrictedImageNet(options.imagenet, split=split, size=preset.image_size)
        rows = _balanced(images.targets, n)
        images.paths, images.targets = [images.paths[i] for i in rows], images.targets[rows]
        name = joblib.hash((images.paths, preset.image_size))
        parts += read_array(
            images, n_samples=None, random_state=None, n_jobs=-1, verbose=VERBOSE,
            as_memmap=folder / f"imagenet-{split}-{name}",
        )  # fmt: skip
    return tuple(parts), f"Restricted ImageNet ({preset.image_size} pixels)", None, preset


def _balanced(targets, n):
    """Rows of a random subset with equally many samples of each class, in order; None: all."""
    if n is None:
        return np.arange(len(targets))
    rng = np.random.default_rng(0)
    order = rng.permutation(len(targets))
    per_class = max(1, n // (targets.max() + 1))
    rows = [order[targets[order] == label][:per_class] for label in np.unique(targets)]
    return np.sort(np.concatenate(rows))


def _measure(experiment):
    records = [record for row in _ROWS for record in experiment.records(row)]
    return records + [record for name in _SETS for record in experiment.set_records(name)]


def _draw(records, experiment):
    return {
        "figure11": sample_grid(experiment, _SETS, n_samples=6),
        "figure12": accuracy_bars(records, experiment, _ROWS),
    }


TABLE = Table(
    name="figure11",
    title="Restricted ImageNet at eps 3 (Figures 11 and 12, Table 1)",
    measure=_measure,
    draw=_draw,
    paper={
        ("standard", "accuracy", None): 96.6,
        ("D_rand", "accuracy", None): 87.9,
        ("D_det", "accuracy", None): 64.4,
    },
    sets=_ROWS,
    note="Presets other than 'paper' take a balanced random part of the images, at fewer pixels.",
    load=_load,
)

"""Figures 11 and 12 and Table 1, right: Restricted ImageNet."""

import joblib
import numpy as np

from advfeat.datasets import RestrictedImageNet
from tables._table import Table, accuracy_bars, construction_records, sample_grid

_SETS = ("D_R", "D_NR", "D_rand", "D_det")
_ROWS = ("standard", "adversarial", *_SETS)
_EPS = 3.0


def _load(options, preset):
    """Images of an ILSVRC2012 folder as memory maps of uint8, read once."""
    folder = options.stages or options.out / "stages"
    parts = []
    for split, n in (("train", preset.imagenet_samples), ("val", preset.imagenet_samples // 5)):
        images = RestrictedImageNet(options.imagenet, split=split, size=preset.imagenet_size)
        rows = _balanced(images.targets, n)
        name = joblib.hash((images.paths, rows, preset.imagenet_size))
        path = folder / f"imagenet-{split}-{name}.npy"
        if not path.exists():
            _write(images, rows, path)
        parts += [np.load(path, mmap_mode="r"), images.targets[rows]]
    label = f"Restricted ImageNet ({preset.imagenet_size} pixels)"
    return tuple(parts), label


def _balanced(targets, n):
    """Rows of a random subset with equally many samples of each class, in order."""
    rng = np.random.default_rng(0)
    order = rng.permutation(len(targets))
    per_class = max(1, n // (targets.max() + 1))
    rows = [order[targets[order] == label][:per_class] for label in np.unique(targets)]
    return np.sort(np.concatenate(rows))


def _write(images, rows, path):
    """Decode images one by one into a file, which is there only when it is whole."""
    partial = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (len(rows), *images[0][0].shape)
    array = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
    for i, row in enumerate(rows):
        array[i] = images[row][0].numpy()
    array.flush()
    partial.replace(path)


def _prepare(experiment):
    return experiment.variant(
        train_eps=_EPS,
        relabel_eps=_EPS,
        inversion_step_size=experiment.preset.inversion_step_size * 10,
        test_eps=(_EPS / 2, _EPS),
        lr_relabelled=0.01,
    )


def _measure(experiment):
    records = [record for row in _ROWS for record in experiment.records(row)]
    return records + construction_records(experiment, _SETS)


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
    note="A balanced random part of the images, resized; the paper takes all, at 224 pixels.",
    load=_load,
    prepare=_prepare,
)

"""What a table is, what it claims, and what several of them draw."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from advfeat import ConstructedDataset
from measures import as_floats
from stages import Elsewhere, Planned


@dataclass(frozen=True)
class Claim:
    """One cell is higher than another, or than chance; the paper says so unless the text does not.

    Attributes
    ----------
    text : str
    high, low : tuple (row, metric, eps)
        ``low`` may be the word "chance" instead.
    exclusive : bool
        Whether no image counts in both shares.
    of_epochs : bool
        Whether the cells are means over epochs. Those of one training rise and fall together, so
        one seed decides nothing.
    above_chance : bool
        Whether the higher of the two cells must be above chance as well: a model that knows
        nothing beats one that has learned to avoid the true class.
    one_sided : bool
        Whether the second cell is what one of many controls gives, so that to stay below it
        says nothing.
    """

    text: str
    high: tuple
    low: tuple | str
    exclusive: bool = False
    of_epochs: bool = False
    above_chance: bool = False
    one_sided: bool = False


@dataclass(frozen=True)
class Table:
    """One table or figure of the paper.

    Attributes
    ----------
    name : str
        Folder of its results.
    title : str
    measure : callable
        ``measure(experiment)`` gives the records of one seed: dicts with "seed", "row", "metric",
        "eps", "at" (epoch, step or feature, for curves) and "value". All long work is in stages.
    draw : callable
        ``draw(records, experiment)`` gives the figures by name, None for those of which there is
        nothing yet, `Elsewhere` for those whose sets are not here; the experiment is that of the
        first seed.
    main : tuple of str
        Metrics of the first table of the page, beside the paper's figures; the others follow in
        a second one.
    paper : mapping of (row, metric, eps) to float
        The paper's figures.
    figures_of : str
        Whose figures ``paper`` holds.
    counted : str
        What the shares are shares of: the metric under which rows say how many, unless all;
        empty where they are of several things.
    sets : tuple of str
        Sources and sets that are made as the paper makes them, to list what differs.
    trained_on : tuple of str or None
        Those of them on which networks are trained with the preset's settings; all if None.
    claims : tuple of Claim
    summary : callable or None
        ``summary(records)`` gives sentences for the page.
    note : str
        How to read it.
    first_seed_only : bool
        Whether the others are left out, for time.
    needs_images : bool
    load : callable or None
        ``load(options, preset)`` gives data of its own, their label, class names and preset.
    prepare : callable or None
        ``prepare(experiment)`` gives the experiment on which all of it is measured, if that has
        samples of its own.
    """

    name: str
    title: str
    measure: Callable
    draw: Callable
    main: tuple = ("accuracy", "robust accuracy")
    paper: Mapping = field(default_factory=dict)
    figures_of: str = "the paper's"
    counted: str = "test images"
    sets: tuple = ()
    trained_on: tuple | None = None
    claims: tuple = ()
    summary: Callable | None = None
    note: str = ""
    first_seed_only: bool = False
    needs_images: bool = True
    load: Callable | None = None
    prepare: Callable | None = None


def values(records, row, metric, eps=None, at=None):
    """Values of one cell over the seeds that have one."""
    wanted = (row, metric, eps, at)
    cells = [r for r in records if (r["row"], r["metric"], r["eps"], r.get("at")) == wanted]
    return np.array([r["value"] for r in cells if r["value"] is not None])


def rows_of(records):
    """Rows, in order."""
    return list(dict.fromkeys(record["row"] for record in records))


def accuracy_bars(records, experiment, rows=None):
    """Accuracy and robust accuracies of each row as bars."""
    from advfeat.plotting import AccuracyBarDisplay

    eps_values = experiment.preset.test_eps
    accuracy = {
        row: np.stack(
            [
                values(records, row, "accuracy"),
                *(values(records, row, "robust accuracy", eps) for eps in eps_values),
            ],
            axis=1,
        )
        for row in rows or rows_of(records)
        if len(values(records, row, "accuracy"))
    }
    if not accuracy:
        return None
    display = AccuracyBarDisplay.from_predictions(
        accuracy,
        eps=(0.0, *eps_values),
        norm=2,
        n_steps=experiment.preset.attack_steps,
        n_samples=len(experiment.X_test),
    )
    ax, guess = display.ax_, chance(experiment) / 100
    ax.axhline(guess, color="0.3", linestyle=":", linewidth=1)
    beside = ax.get_yaxis_transform()
    ax.text(1.005, guess, "chance", transform=beside, va="center", fontsize=7, color="0.3")
    return display.figure_


def sample_grid(experiment, sets, n_samples=10, perturbations=False):
    """Draw the same samples, of every class in turn, in the original set and in constructed ones.

    With ``perturbations`` each set's row is followed by its difference from the original, around
    grey and so many times as large that it can be seen. Gives `Elsewhere` if one of the sets was
    made, but neither it nor its source is here.
    """
    from advfeat.plotting import SampleGridDisplay

    rows = _of_every_class(experiment.y, n_samples)
    classes = np.unique(experiment.y).tolist()
    text = dict(zip(classes, map(str, experiment.class_names or classes), strict=True))
    images = {"original": as_floats(experiment.X[rows])}
    labels = {"original": [text[label] for label in experiment.y[rows].tolist()]}
    for name in sets:
        data = experiment.images(name, rows)
        if isinstance(data, Elsewhere):
            return data
        if isinstance(data, Planned):
            continue
        images[name], labels[name] = data, labels["original"]
        if isinstance(data, ConstructedDataset):
            pairs = zip(data.y_source.tolist(), data.y.tolist(), strict=True)
            images[name], labels[name] = data.X, [f"{text[a]} → {text[b]}" for a, b in pairs]
        if perturbations:
            moved = images[name] - images["original"]
            factor = max(1, round(0.4 / (np.quantile(np.abs(moved), 0.999) or 1)))
            images[f"{name} − original, {factor} times"] = np.clip(0.5 + factor * moved, 0, 1)
    if len(images) == 1:
        return None
    return SampleGridDisplay(images, labels=labels, indices=rows).plot().figure_


def _of_every_class(y, n):
    """Rows of random samples, as many of each class as n allows, ordered by class."""
    shuffled = np.random.default_rng(0).permutation(len(y))
    by_class = [shuffled[y[shuffled] == label] for label in np.unique(y)]
    turns = [rows[i] for i in range(n) for rows in by_class if i < len(rows)]
    return np.array(sorted(turns[:n], key=lambda row: (y[row], row)))


def chance(experiment):
    """Accuracy, in per cent, of whoever always says the most frequent class of the test set."""
    _, counts = np.unique(experiment.y_test, return_counts=True)
    return 100 * max(1 / len(np.unique(experiment.y)), counts.max() / counts.sum())


def bars_of(name, *metrics):
    """Give the ``draw`` of a table whose one picture are accuracies as `simple_bars`."""

    def draw(records, experiment):
        found = [(metric, None) for metric in metrics]
        guess = chance(experiment)
        return {name: simple_bars(records, found, "accuracy on the test set, %", guess)}

    return draw


def simple_bars(records, metrics, xlabel, guess=None):
    """Mean over the seeds of some metrics of each row, side by side, with every seed as a dot.

    ``guess`` marks the accuracy of a guess.
    """
    import matplotlib.pyplot as plt

    rows = [
        row
        for row in rows_of(records)
        if any(len(values(records, row, *metric)) for metric in metrics)
    ]
    if not rows:
        return None
    figure, ax = plt.subplots(figsize=(7, 0.9 + 0.45 * len(rows) * len(metrics) ** 0.5))
    height = 0.8 / len(metrics)
    for j, (metric, eps) in enumerate(metrics):
        cells = [100 * values(records, row, metric, eps) for row in rows]
        place = np.arange(len(rows)) + (j - (len(metrics) - 1) / 2) * height
        label = metric if eps is None else f"{metric}, L2 {eps:g}"
        means = [cell.mean() if len(cell) else np.nan for cell in cells]
        ax.barh(place, means, height=0.9 * height, label=label)
        for where, cell in zip(place, cells, strict=True):
            if len(cell) > 1:
                ax.plot(cell, np.full(len(cell), where), "k.", markersize=4)
    if guess is not None:
        ax.axvline(guess, color="0.3", linestyle=":", linewidth=1, label="chance")
    ax.set_yticks(np.arange(len(rows)), rows)
    ax.invert_yaxis()
    ax.set_xlabel(xlabel)
    ax.set_xlim(left=0)
    ax.grid(axis="x", alpha=0.4)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=8)
    figure.set_layout_engine("constrained")
    return figure

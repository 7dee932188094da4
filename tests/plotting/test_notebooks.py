"""A notebook shows the open figures after a cell, and the view of the cell's last value."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from tqdm.auto import tqdm

from advfeat import plotting
from advfeat.plotting import AccuracyBarDisplay, RobustnessCurveDisplay, SampleGridDisplay
from advfeat.utils import _progress

VIEWS = [
    f"_repr_{kind}_"
    for kind in ("html", "png", "svg", "jpeg", "pdf", "markdown", "latex", "mimebundle")
] + ["_ipython_display_"]


def accuracy_bars():
    return AccuracyBarDisplay.from_predictions({"D": [0.9, 0.5]}, eps=[0, 1], norm=2)


def curve():
    return RobustnessCurveDisplay.from_predictions([0, 1], [0.9, 0.5], norm=2)


def samples():
    return SampleGridDisplay.from_datasets({"D": np.zeros((3, 1, 4, 4))}, n_samples=3)


@pytest.mark.parametrize("make", [accuracy_bars, curve, samples])
def test_a_display_opens_one_figure(make):
    display = make()
    assert plt.get_fignums() == [display.figure_.number]


@pytest.mark.parametrize("name", plotting.__all__)
def test_a_display_has_no_view_that_would_show_it_twice(name):
    assert not [view for view in VIEWS if hasattr(getattr(plotting, name), view)]


def test_bars_are_those_of_the_place_where_they_appear():
    assert _progress.tqdm is tqdm

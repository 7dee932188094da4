"""Tables that other libraries hold: dates in columns, frames for skorch nets, names of starts."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torch import nn

from advfeat import (
    GaussianRobustMLE,
    NonRobustRelabeler,
    RobustFeatureInverter,
    StandardClassifier,
    robust_accuracy_score,
    transfer_rate,
)

N = 40
Y = np.arange(N) % 3
X = (np.random.default_rng(0).random((N, 4)) + Y[:, None]).astype(np.float32)
IMAGES = np.random.default_rng(0).random((N, 1, 4, 4)).astype(np.float32)
ATTACK = {"norm": 2, "eps": 0.5, "n_steps": 2, "verbose": 0}
QUICK = {"max_epochs": 2, "random_state": 0, "verbose": 0}
DAYS = pd.date_range("2020-01-01", periods=N)


def with_objects(*values):
    table = X.astype(object)
    table[0, : len(values)] = values
    return table


TEMPORAL = {
    "pandas dates": pd.DataFrame({"a": DAYS, "b": DAYS}),
    "pandas dates beside numbers": pd.DataFrame({"a": X[:, 0], "b": DAYS}),
    "pandas zones": pd.DataFrame({"a": DAYS.tz_localize("UTC"), "b": DAYS.tz_localize("UTC")}),
    "pandas durations": pd.DataFrame({"a": DAYS - DAYS[0], "b": DAYS - DAYS[0]}),
    "pandas objects": pd.DataFrame({"a": X[:, 0], "b": pd.Series(list(DAYS.date), dtype=object)}),
    "polars dates": pl.DataFrame({"a": list(DAYS.date), "b": list(DAYS.date)}),
    "polars durations": pl.DataFrame({"a": list(DAYS - DAYS[0]), "b": list(DAYS - DAYS[0])}),
    "polars times": pl.DataFrame({"a": [datetime.time(1)] * N, "b": X[:, 0]}),
    "objects": with_objects(np.datetime64("2020-01-01")),
    "durations as objects": with_objects(1.0, np.timedelta64(3, "s")),
}


@pytest.mark.parametrize("table", TEMPORAL.values(), ids=TEMPORAL)
@pytest.mark.parametrize("estimator", [StandardClassifier(**QUICK), GaussianRobustMLE(eps=0.1)])
def test_dates_are_no_numbers(table, estimator):
    with pytest.raises(ValueError, match="dates or times"):
        estimator.fit(table, Y)


def test_dates_are_no_numbers_for_what_is_attacked():
    net = fitted_net().fit(X, Y.astype(np.int64))
    with pytest.raises(ValueError, match="dates or times"):
        robust_accuracy_score(net, TEMPORAL["pandas dates"], Y, **ATTACK)


@pytest.mark.parametrize("estimator", [StandardClassifier(**QUICK), GaussianRobustMLE(eps=0.1)])
def test_complex_numbers_among_objects_are_told(estimator):
    with pytest.raises(ValueError, match="Complex data not supported"):
        estimator.fit(with_objects(1 + 2j), Y)


def fitted_net(*layers):
    layers = layers or (nn.Linear(4, 3),)
    return NeuralNetClassifier(
        nn.Sequential(*layers), criterion=nn.CrossEntropyLoss, max_epochs=2, verbose=0
    )


FRAMES = {
    "pandas": pd.DataFrame(X, columns=list("abcd")),
    "polars": pl.DataFrame(X, schema=list("abcd")),
    "float64": X.astype(np.float64),
    "float16": X.astype(np.float16),
    "list": X.tolist(),
}


@pytest.mark.parametrize("table", FRAMES.values(), ids=FRAMES)
def test_examples_in_any_container_are_transferred_to_skorch_nets(table):
    net = fitted_net().fit(X, Y.astype(np.int64))
    source = StandardClassifier(**QUICK).fit(table, Y)
    found = transfer_rate(source, net, table, Y, **ATTACK)
    as_array = np.asarray(table, dtype=np.float32)
    plain = StandardClassifier(**QUICK).fit(as_array, Y)
    assert found == transfer_rate(plain, net, as_array, Y, **ATTACK)


class Named(nn.Module):
    """skorch hands a frame's columns over by their names."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, a, b, c, d):
        return self.layer(torch.cat([a, b, c, d], 1))


def test_a_skorch_net_that_knows_the_columns_gets_the_frame():
    frame = FRAMES["pandas"]
    net = NeuralNetClassifier(Named, criterion=nn.CrossEntropyLoss, max_epochs=2, verbose=0)
    net.fit(frame, Y.astype(np.int64))
    source = StandardClassifier(**QUICK).fit(frame, Y)
    assert 0 <= transfer_rate(source, net, frame, Y, **ATTACK) <= 1


def test_bytes_of_images_are_transferred_to_skorch_nets(tmp_path):
    images = (255 * IMAGES).astype(np.uint8)
    np.save(tmp_path / "x.npy", images)
    net = fitted_net(nn.Flatten(), nn.Linear(16, 3))
    net.fit(images / np.float32(255), Y.astype(np.int64))
    source = StandardClassifier(**QUICK).fit(images, Y)
    expected = transfer_rate(source, net, images / np.float32(255), Y, **ATTACK)
    for held in (images, np.load(tmp_path / "x.npy", mmap_mode="r")):
        assert transfer_rate(source, net, held, Y, **ATTACK) == expected


@pytest.mark.filterwarnings("ignore:The features were matched poorly")
def test_starts_are_taken_by_name():
    frame = FRAMES["pandas"]
    source = FrozenEstimator(StandardClassifier(**QUICK).fit(frame, Y))
    for columns in (list("dcba"), list("wxyz")):
        starts = frame.set_axis(columns, axis=1) if "w" in columns else frame[columns]
        inverter = RobustFeatureInverter(source, init=starts, n_steps=1, verbose=0)
        with pytest.raises(ValueError, match="given as init cannot be used: The feature names"):
            inverter.fit_transform(frame, Y)
    made = inverter.set_params(init=frame, step_size=1e-9).fit_transform(frame, Y)
    np.testing.assert_allclose(made, X, atol=1e-6)
    made = inverter.set_params(init=X).fit_transform(frame, Y)  # which has no names
    np.testing.assert_allclose(made, X, atol=1e-6)


def test_complex_weights_are_refused():
    clf = StandardClassifier(**QUICK).fit(X, Y)
    for call in (clf.fit, clf.score):
        with pytest.raises(ValueError, match="one number per sample: complex"):
            call(X, Y, np.ones(N) + 1j)


def test_class_weights_named_by_text_for_numbers():
    with pytest.raises(ValueError, match="no weight for 0, 1, 2, and names '0', '1', '2'"):
        StandardClassifier(class_weight={"0": 1, "1": 2, "2": 3}, **QUICK).fit(X, Y)


def test_images_of_another_shape_are_named_as_they_were_given():
    images = np.zeros((N, 5, 4, 4), dtype=np.float32)
    clf = StandardClassifier(channels="last", **QUICK).fit(images, Y)
    with pytest.raises(ValueError, match=r"shape \(4, 5, 4\), but .* those of shape \(5, 4, 4\)"):
        clf.predict(np.zeros((2, 4, 5, 4), dtype=np.float32))


@pytest.mark.parametrize("wrong", [[1], None])
def test_targets_that_are_no_labels(wrong):
    relabeler = NonRobustRelabeler(
        StandardClassifier(**QUICK), target={0: wrong, 1: 2, 2: 0}, verbose=0
    )
    with pytest.raises(ValueError, match="'target' mapping must name one label each"):
        relabeler.fit_transform(X, Y)

"""Weights of samples, names of features and layouts of images, through the constructors."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from small_tables import X, Y, inverter, relabeler, source
from torch import nn

from advfeat import (
    ConstructedDataset,
    adversarial_examples,
    from_torch,
)
from advfeat.utils._sklearn import _get_feature_names

WEIGHT = np.where(np.arange(40) < 20, 1.0, 0.0)


@pytest.mark.parametrize("make", [inverter, relabeler])
def test_weights_go_to_the_source(make):
    constructor = make().fit(X, Y, sample_weight=WEIGHT)
    expected = source().fit(X[:20], Y[:20])
    assert_array_equal(constructor.estimator_.predict_proba(X), expected.predict_proba(X))
    pipe = Pipeline([("make", make()), ("clf", source())])
    pipe.fit(X, Y, make__sample_weight=WEIGHT)
    assert_array_equal(pipe[0].estimator_.predict_proba(X), expected.predict_proba(X))
    never = from_torch(nn.Linear(3, 2), classes=["a", "b"], input_shape=(3,))
    for trained in (FrozenEstimator(expected), never):
        with pytest.raises(TypeError, match="is trained already"):
            make(trained).fit(X, Y, sample_weight=WEIGHT)


@pytest.mark.parametrize("make", [inverter, relabeler])
def test_metadata_routing_is_obeyed_or_refused(make):
    expected = source().fit(X[:20], Y[:20]).predict_proba(X)
    with sklearn.config_context(enable_metadata_routing=True):
        asks = source().set_fit_request(sample_weight=True)
        declines = source().set_fit_request(sample_weight=False)
        pipe = Pipeline([("make", make(asks)), ("clf", declines)])
        pipe.fit(X, Y, sample_weight=WEIGHT)
        assert_array_equal(pipe[0].estimator_.predict_proba(X), expected)
        with pytest.raises(UnsetMetadataPassedError, match="sample_weight"):
            make().fit(X, Y, sample_weight=WEIGHT)
        other = Pipeline([("make", make(declines)), ("clf", asks)]).fit(X, Y, sample_weight=WEIGHT)
        assert_array_equal(
            other[0].estimator_.predict_proba(X), source().fit(X, Y).predict_proba(X)
        )


@pytest.mark.filterwarnings("ignore:The features were matched poorly")
@pytest.mark.parametrize("make", [inverter, relabeler])
def test_weights_are_routed_past_a_trained_source(make):
    with sklearn.config_context(enable_metadata_routing=True):
        asks = source().set_fit_request(sample_weight=True)
        trained = FrozenEstimator(clone(asks).fit(X, Y, sample_weight=WEIGHT))
        pipe = Pipeline([("make", make(trained)), ("clf", asks)]).fit(X, Y, sample_weight=WEIGHT)
        made = make(trained).fit_transform(X, Y)
        expected = clone(asks).fit(made, Y, sample_weight=WEIGHT)
        assert_array_equal(pipe.predict_proba(X), expected.predict_proba(X))
        with pytest.raises(TypeError, match="is trained already"):
            make(trained).fit(X, Y, sample_weight=WEIGHT)


@pytest.mark.filterwarnings("ignore:The features were matched poorly")
@pytest.mark.parametrize("make", [inverter, relabeler])
def test_weights_by_another_name_go_to_the_source(make, tmp_path):
    expected = source().fit(X[:20], Y[:20]).predict_proba(X)
    with sklearn.config_context(enable_metadata_routing=True):
        asks = source().set_fit_request(sample_weight="w")
        clf = source().set_fit_request(sample_weight=False)
        pipe = Pipeline([("make", make(asks, store=tmp_path / "s")), ("clf", clf)])
        pipe.fit(X, Y, w=WEIGHT)
        assert_array_equal(pipe[0].estimator_.predict_proba(X), expected)
        with pytest.raises(
            ValueError, match="differs in source sample_weight"
        ):  # the store knows them
            pipe.fit(X, Y, w=1 - WEIGHT)
        constructor = make(asks).fit(X, Y, w=WEIGHT)
        assert_array_equal(constructor.estimator_.predict_proba(X), expected)
        for name in ("sample_weight", "weight"):
            with pytest.raises(TypeError, match=name):
                make(asks).fit(X, Y, **{name: WEIGHT})
    with pytest.raises(ValueError, match="enable_metadata_routing=True"):
        make().fit(X, Y, w=WEIGHT)


FRAMES = {
    "pandas": lambda: pd.DataFrame(X, columns=list("uvw"), index=np.arange(40) + 5),
    "polars": lambda: pytest.importorskip("polars").DataFrame(X, schema=list("uvw"), orient="row"),
}


@pytest.mark.parametrize("output", [None, "default", "pandas", "polars"])
@pytest.mark.parametrize("library", FRAMES)
@pytest.mark.parametrize("make", [inverter, relabeler])
def test_names_go_through_a_pipeline(make, library, output):
    frame = FRAMES[library]()
    if "polars" in (library, output) and _get_feature_names(FRAMES["polars"]()) is None:
        pytest.skip("scikit-learn before 1.9 reads no names from frames of polars 2")
    pipe = Pipeline([("make", make()), ("clf", source())])
    if output is not None:
        pipe.set_output(transform=output)
    pipe.fit(frame, Y)
    pipe.predict(frame)  # without a warning
    assert pipe[-1].feature_names_in_.tolist() == ["u", "v", "w"]
    assert pipe[:-1].get_feature_names_out().tolist() == ["u", "v", "w"]
    plain = Pipeline([("make", make()), ("clf", source())]).fit(X, Y)
    assert_array_equal(pipe.predict_proba(frame), plain.predict_proba(X))
    with pytest.raises(ValueError, match="feature names should match"):
        pipe.predict(frame[["w", "v", "u"]])
    made = pipe[0].fit_transform(frame, Y)
    kind = library if output in (None, "default") else output
    if make is relabeler:
        assert isinstance(made, ConstructedDataset)
        assert list(made[3:].feature_names) == ["u", "v", "w"]
    else:
        assert type(made).__module__.startswith(kind) and list(made.columns) == ["u", "v", "w"]
        if kind == library == "pandas":
            assert_array_equal(made.index, frame.index)
        assert type(pipe[0].invert(frame)).__module__.startswith(kind)
    assert type(pipe[0].transform(frame)).__module__.startswith(kind)


def test_set_output_of_arrays_and_images():
    for make in (inverter, relabeler):
        pipe = Pipeline([("make", make()), ("clf", source())]).set_output(transform="pandas")
        pipe.fit(X, Y).predict(X)
        assert pipe[-1].feature_names_in_.tolist() == ["x0", "x1", "x2"]
        assert clone(pipe)[0].fit(X, Y).transform(X).columns.tolist() == ["x0", "x1", "x2"]
    with pytest.raises(ValueError, match="transform must be one of"):
        inverter().set_output(transform="arrow")


IMAGES = np.random.default_rng(0).random((40, 6, 5, 4)).astype("f")  # (n, C, H, W), 6 channels


@pytest.mark.parametrize("last", [False, True])
def test_channels(last):
    data = IMAGES.transpose(0, 2, 3, 1) if last else IMAGES
    if not last:
        with pytest.raises(ValueError, match="channels='last'.*channels='first'"):
            source().fit(data, Y)
    clf = source(channels="last" if last else "first").fit(data, Y)
    same = source(channels="first").fit(IMAGES, Y)
    assert clf.input_shape_ == (6, 5, 4)
    assert_array_equal(clf.predict_proba(data), same.predict_proba(IMAGES))
    attack = {"norm": 2, "eps": 0.1, "n_steps": 2, "verbose": 0}
    X_adv, _ = adversarial_examples(clf, data, Y, **attack)
    expected, _ = adversarial_examples(same, IMAGES, Y, **attack)
    assert_array_equal(X_adv, expected.transpose(0, 2, 3, 1) if last else expected)
    for make in (inverter, relabeler):
        constructor = make(FrozenEstimator(clf)).fit(data, Y)
        assert constructor.transform(data) is data
        assert_array_equal(constructor.transform(list(data)), data)
        pipe = Pipeline([("make", make(FrozenEstimator(clf))), ("clf", clone(clf))])
        assert_array_equal(pipe.fit(data, Y).predict(list(data)), pipe.predict(data))
    made = relabeler(FrozenEstimator(clf)).fit_transform(data, Y)
    assert made.X.shape == data.shape
    again = clone(clf).fit(made, Y)
    assert again.score(made) == np.mean(again.predict(made.X) == made.y)


@pytest.mark.filterwarnings("ignore:The features were matched poorly")
def test_starts_and_results_in_the_layout_of_the_data():
    data = IMAGES.transpose(0, 2, 3, 1)
    settings = {"n_steps": 2, "init": data[::-1]}
    made = inverter(source(channels="last"), **settings).fit_transform(data, Y)
    settings["init"] = IMAGES[::-1]
    same = inverter(source(channels="first"), **settings).fit_transform(IMAGES, Y)
    assert_array_equal(made, same.transpose(0, 2, 3, 1))

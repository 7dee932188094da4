"""The constructors inside scikit-learn: Pipeline, memory, cross-validation, grid search."""

import copy
import pickle

import joblib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline

from advfeat import (
    AdversarialClassifier,
    NonRobustRelabeler,
    RobustFeatureInverter,
    StandardClassifier,
    make_robust_scorer,
    robust_accuracy_score,
)

CONSTRUCTORS = {
    "inverter": RobustFeatureInverter(
        StandardClassifier(max_epochs=5, verbose=0),
        solver="decayed",
        n_steps=30,
        step_size=0.5,
        random_state=0,
        verbose=0,
    ),
    "relabeler": NonRobustRelabeler(
        StandardClassifier(max_epochs=5, verbose=0),
        eps=1.0,
        n_steps=10,
        random_state=0,
        verbose=0,
    ),
}


def pipeline(name, **settings):
    clf = StandardClassifier(max_epochs=5, random_state=1, verbose=0)
    return Pipeline([("construct", CONSTRUCTORS[name]), ("clf", clf)], **settings)


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_trains_on_the_constructed_set_and_predicts_unmodified_data(name, digits):
    X, y, X_test, y_test = digits
    X, y = X[:400], y[:400]
    pipe = pipeline(name).fit(X, y)
    made = CONSTRUCTORS[name].fit_transform(X, y)
    clf = StandardClassifier(max_epochs=5, random_state=1, verbose=0).fit(made, y)
    assert_array_equal(pipe.predict_proba(X_test), clf.predict_proba(X_test))
    assert pipe.score(X_test, y_test) == clf.score(X_test, y_test) > 0.15


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_memory_gives_the_same_and_constructs_once(name, digits, tmp_path, monkeypatch):
    X, y, X_test, _ = digits
    X, y = X[:150], y[:150]
    expected = pipeline(name).fit(X, y).predict_proba(X_test)
    pipe = pipeline(name, memory=str(tmp_path))
    assert_array_equal(pipe.fit(X, y).predict_proba(X_test), expected)

    def fail(*args, **kwargs):
        raise AssertionError("constructed twice")

    monkeypatch.setattr(type(CONSTRUCTORS[name]), "fit_transform", fail)
    assert_array_equal(pipe.fit(X, y).predict_proba(X_test), expected)


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_cross_val_score(name, digits):
    X, y, _, _ = digits
    scores = cross_val_score(pipeline(name), X[:400], y[:400], cv=2, error_score="raise")
    assert scores.shape == (2,) and np.all(scores > 0.1)


@pytest.mark.long
@pytest.mark.parametrize("backend", ["threading", pytest.param("loky", marks=pytest.mark.slow)])
def test_grid_search_over_eps_of_the_relabeler(digits, backend):
    X, y, X_test, y_test = digits
    X, y = X[:200], y[:200]
    grid = {"construct__eps": [0.0, 1.0]}
    runs = [
        GridSearchCV(pipeline("relabeler"), grid, cv=2, n_jobs=n_jobs, error_score="raise")
        for n_jobs in (None, 2)
    ]
    with joblib.parallel_config(backend):
        scores = [run.fit(X, y).cv_results_["mean_test_score"] for run in runs]
    assert_array_equal(scores[0], scores[1])
    best = clone(pipeline("relabeler")).set_params(**runs[1].best_params_).fit(X, y)
    assert runs[1].score(X_test, y_test) == best.score(X_test, y_test)


@pytest.mark.long
def test_grid_search_over_eps_of_the_source_with_a_robust_scorer(digits):
    X, y, _, _ = digits
    pipe = Pipeline(
        [
            (
                "robustify",
                RobustFeatureInverter(
                    AdversarialClassifier(n_steps=2, max_epochs=4, verbose=0),
                    solver="decayed",
                    n_steps=10,
                    step_size=0.8,
                    random_state=0,
                    verbose=0,
                ),
            ),
            ("clf", StandardClassifier(max_epochs=3, random_state=0, verbose=0)),
        ]
    )
    search = GridSearchCV(
        pipe,
        {"robustify__estimator__eps": [0.25, 1.0]},
        scoring=make_robust_scorer(norm=2, eps=0.25, n_steps=3),
        cv=2,
        error_score="raise",
    )
    search.fit(X[:150], y[:150])
    alone = clone(pipe).set_params(robustify__estimator__eps=0.25)
    expected = cross_val_score(alone, X[:150], y[:150], scoring=search.scoring, cv=2)
    assert search.cv_results_["mean_test_score"][0] == pytest.approx(expected.mean())


@pytest.mark.long
def test_grid_search_over_the_classifiers_eps(digits):
    X, y, _, _ = digits
    search = GridSearchCV(
        AdversarialClassifier(n_steps=2, max_epochs=3, random_state=0, verbose=0),
        {"eps": [0.1, 0.5]},
        scoring=make_robust_scorer(norm=2, eps=0.5, n_steps=3),
        cv=2,
    ).fit(X[:150], y[:150])
    expected = [
        cross_val_score(
            clone(search.estimator).set_params(eps=eps), X[:150], y[:150],
            scoring=search.scoring, cv=2,
        ).mean()
        for eps in (0.1, 0.5)
    ]  # fmt: skip
    assert_allclose(search.cv_results_["mean_test_score"], expected)
    assert search.best_params_["eps"] == (0.1, 0.5)[int(np.argmax(expected))]


def test_frozen_source_in_a_pipeline(standard, digits):
    X, y, X_test, y_test = digits
    pipe = Pipeline(
        [
            (
                "relabel",
                NonRobustRelabeler(
                    FrozenEstimator(standard), eps=1.0, n_steps=10, random_state=0, verbose=0
                ),
            ),
            ("clf", StandardClassifier(max_epochs=5, random_state=0, verbose=0)),
        ]
    )
    attack = {"norm": 2, "eps": 0.25, "n_steps": 3, "verbose": 0}
    pipe.fit(X, y)
    assert robust_accuracy_score(pipe, X_test, y_test, **attack) == robust_accuracy_score(
        pipe[-1], X_test, y_test, **attack
    )


def test_pandas_output_setting_leaves_images_alone(standard, digits):
    import sklearn

    X, y, _, _ = digits
    with sklearn.config_context(transform_output="pandas"):
        made = CONSTRUCTORS["inverter"].fit_transform(X[:100], y[:100])
    assert isinstance(made, np.ndarray)


@pytest.mark.filterwarnings("ignore:The source takes only")  # few steps
def test_an_inverter_behind_a_relabeler_keeps_the_new_labels(standard, digits):
    X, y, _, _ = digits
    X, y = X[:60], y[:60]
    relabeler = NonRobustRelabeler(
        FrozenEstimator(standard), target="deterministic", n_steps=2, random_state=0, verbose=0
    )
    inverter = RobustFeatureInverter(
        FrozenEstimator(standard), solver="decayed", n_steps=30, step_size=0.6, random_state=0,
        verbose=0,
    )  # fmt: skip
    relabelled = relabeler.fit_transform(X, y)
    constructed = inverter.fit_transform(relabelled, y)
    assert_array_equal(constructed.y, (y + 1) % 10)
    assert_array_equal(constructed.y_source, y)
    assert_array_equal(constructed.X, inverter.invert(relabelled.X))


@pytest.mark.parametrize("kind", [StandardClassifier, AdversarialClassifier])
def test_a_memory_takes_trained_sources(kind, digits, tmp_path, monkeypatch):
    """Their optimizer holds a dict whose keys joblib cannot sort."""
    X, y = digits[0][:150], digits[1][:150]
    source = kind(max_epochs=1, random_state=0, verbose=0).fit(X, y)
    assert joblib.hash(source) == joblib.hash(source)
    again = pickle.loads(pickle.dumps(source)).partial_fit(X, y)
    expected = copy.deepcopy(source).partial_fit(X, y)
    assert_array_equal(again.decision_function(X), expected.decision_function(X))
    made = []
    construct = NonRobustRelabeler._construct
    monkeypatch.setattr(
        NonRobustRelabeler, "_construct", lambda *a, **k: made.append(1) or construct(*a, **k)
    )
    relabeler = NonRobustRelabeler(FrozenEstimator(source), n_steps=2, random_state=0, verbose=0)
    clf = StandardClassifier(max_epochs=1, random_state=0, verbose=0)
    pipe = Pipeline([("relabel", relabeler), ("learn", clf)], memory=str(tmp_path))
    first = pipe.fit(X, y).predict_proba(X)
    assert_array_equal(pipe.fit(X, y).predict_proba(X), first)
    assert len(made) == 1

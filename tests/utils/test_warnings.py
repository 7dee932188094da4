"""Warnings name the line of the user, however deep they come from."""

import inspect
import pickle

import joblib
import numpy as np
import pytest
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from advfeat import GaussianRobustMLE, RobustFeatureInverter, StandardClassifier
from advfeat.utils import _estimator
from advfeat.utils._warnings import warn_caller


class Warned(StandardClassifier):
    """A user's classifier whose prediction warns."""

    def predict(self, X):
        warn_caller("from far inside", RuntimeWarning)
        return super().predict(X)


def test_a_method_warns_at_its_call():
    X, y = np.random.default_rng(0).random((40, 3)), np.arange(40) % 2
    clf = StandardClassifier(max_epochs=1, random_state=0, verbose=0).fit(X, y)
    inverter = RobustFeatureInverter(clf, n_steps=1, step_size=1e-9, random_state=0, verbose=0)
    for run in (inverter, make_pipeline(inverter)):
        with pytest.warns(UserWarning, match="matched poorly") as told:
            run.fit_transform(X, y)
        assert {w.filename for w in told} == {__file__}


def test_through_searches_and_pipelines(recwarn):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 2)) * [1, 0.3], np.arange(60) % 2
    cross_val_score(make_pipeline(GaussianRobustMLE(eps=0.5)), X, y, cv=2)
    told = [w for w in recwarn if "poor stand-in" in str(w.message)]
    assert told
    assert {w.filename for w in told} == {__file__}


def test_a_class_of_the_user_is_the_user():
    X, y = np.random.default_rng(0).random((40, 3)), np.arange(40) % 2
    clf = Warned(max_epochs=1, random_state=0, verbose=0).fit(X, y)
    with pytest.warns(RuntimeWarning, match="far inside") as told:
        make_pipeline(clf).predict(X)
    assert [w.filename for w in told] == [__file__]
    assert told[0].lineno == inspect.getsourcelines(Warned.predict)[1] + 1


def test_where_every_frame_is_a_library():
    code = compile("warn('alone')", "worker.py", "exec")
    with pytest.warns(UserWarning, match="alone"):
        exec(code, {"__name__": "joblib.worker", "warn": warn_caller})


@pytest.mark.parametrize("name", [None, "worker"])
def test_code_without_a_name(name):
    scope = {"warn": warn_caller} if name is None else {"warn": warn_caller, "__name__": name}
    with pytest.warns(UserWarning, match="nameless"):
        exec(compile("warn('nameless')", "cell.py", "exec"), scope)


@pytest.mark.parametrize("read", [pickle.load, joblib.load])
def test_pickles_of_another_version_warn_at_the_line_that_reads_them(tmp_path, monkeypatch, read):
    path = tmp_path / "model.pickle"
    monkeypatch.setattr(_estimator, "__version__", "0.0.1")
    with path.open("wb") as file:
        pickle.dump(GaussianRobustMLE(), file)
    monkeypatch.undo()
    with (
        path.open("rb") as file,
        pytest.warns(UserWarning, match="written by advfeat 0.0.1") as told,
    ):
        read(file)
    assert {w.filename for w in told} == {__file__}

"""The differentiable view: one function for each kind of estimator, open to users' own."""

import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from torch import nn

from advfeat import (
    GaussianRobustMLE,
    RobustFeatureInverter,
    StandardClassifier,
    adversarial_examples,
    robust_accuracy_curve,
    robust_accuracy_score,
    transfer_rate,
)
from advfeat.attacks import Attackable, _attackable, attackable
from advfeat.optim import FrozenNetwork


@pytest.fixture(scope="module")
def table():
    rng = np.random.RandomState(0)
    y = rng.randint(2, size=200)
    return rng.randn(200, 4) + 0.7 * (2 * y[:, None] - 1), y


class NearestMean(ClassifierMixin, BaseEstimator):
    """A classifier that has no ``coef_``; nothing of advfeat knows it."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.means_ = np.stack([X[y == label].mean(0) for label in self.classes_])
        return self

    def predict(self, X):
        gaps = ((np.asarray(X)[:, None] - self.means_) ** 2).sum(2)
        return self.classes_[gaps.argmin(1)]


class _MinusDistances(nn.Module):
    def __init__(self, means):
        super().__init__()
        self.register_buffer("means", torch.from_numpy(means.astype(np.float32)))

    def forward(self, x):
        return -(x[:, None] - self.means).square().sum(2)


@pytest.fixture
def registered():
    def view(estimator, X, precision="fp32"):
        network = FrozenNetwork(_MinusDistances(estimator.means_), device="cpu")
        return Attackable(network, estimator.classes_, None, np.asarray(X, dtype=np.float32))

    attackable.register(NearestMean, view)
    yield
    attackable.register(NearestMean, attackable.dispatch(object))


def test_an_own_kind_can_be_registered(table, registered):
    X, y = table
    clf = NearestMean().fit(X, y)
    # The margin in closed form: the distance from the plane between the two means.
    normal = clf.means_[1] - clf.means_[0]
    margin = (X - clf.means_.mean(0)) @ normal / np.linalg.norm(normal) * (2 * y - 1)
    for estimator in (clf, FrozenEstimator(clf), make_pipeline(None, clf)):
        found = robust_accuracy_score(estimator, X, y, norm=2, eps=0.3, verbose=0)
        assert found == pytest.approx(np.mean(margin > 0.3), abs=1 / len(X))
    search = GridSearchCV(NearestMean(), {}, cv=2).fit(X, y)
    assert robust_accuracy_score(search, X, y, norm=2, eps=0, verbose=0) == search.score(X, y)


def test_what_is_not_registered_is_refused_and_told_how_to(table):
    X, y = table
    with pytest.raises(TypeError, match="Got NearestMean.*advfeat.attacks.attackable"):
        attackable(NearestMean().fit(X, y), X)


@pytest.mark.parametrize("step", ["passthrough", None])
def test_steps_of_a_pipeline_that_do_nothing(table, step):
    X, y = table
    clf = LogisticRegression().fit(X, y)
    view = attackable(Pipeline([("nothing", step), ("clf", clf)]), X)
    assert not view.moved
    assert_allclose(view.X, X, rtol=1e-6)


def test_a_step_that_only_changes_the_container(table):
    X, y = table
    source = StandardClassifier(max_epochs=1, random_state=0, verbose=0)
    invert = RobustFeatureInverter(source, n_steps=60, random_state=0, verbose=0)
    pipe = make_pipeline(invert, clone(source)).set_output(transform="pandas").fit(X, y)
    for data in (X, X.tolist(), torch.from_numpy(X)):
        assert not attackable(pipe, data).moved
    assert (
        transfer_rate(pipe, clone(source).fit(X, y), X, y, norm=2, eps=1, n_steps=5, verbose=0) > 0
    )
    # Integers as floats are the same numbers; other values are not.
    cast = make_pipeline(FunctionTransformer(lambda X: 1.0 * X), LogisticRegression()).fit(X, y)
    assert not attackable(cast, X.round().astype(int)).moved
    assert attackable(cast.set_params(functiontransformer__func=lambda X: X + 1), X).moved


class Sampler(BaseEstimator):
    """As in imbalanced-learn, whose Pipelines leave samplers out but for the training."""

    def fit_resample(self, X, y):
        return X, y


def test_samplers_are_left_out(table):
    X, y = table
    scaler = StandardScaler().fit(X)
    clf = LogisticRegression().fit(scaler.transform(X), y)
    with_sampler = Pipeline([("sample", Sampler()), ("scale", scaler), ("clf", clf)])
    plain = make_pipeline(scaler, clf)
    attack = {"norm": 2, "eps": 0.4, "verbose": 0}
    a, b = (adversarial_examples(pipe, X, y, **attack)[0] for pipe in (with_sampler, plain))
    assert_array_equal(a, b)


@pytest.mark.parametrize("make", [lambda: GaussianRobustMLE(0.5), LogisticRegression])
def test_coefficients_on_a_read_only_memory_map(make, tmp_path):
    X = np.random.default_rng(0).normal(size=(60, 3))
    clf = make().fit(X, np.arange(60) % 3)
    joblib.dump(clf, tmp_path / "clf")
    mapped = joblib.load(tmp_path / "clf", mmap_mode="r")
    scores = [robust_accuracy_score(c, X, np.arange(60) % 3, norm=2, eps=0.1, verbose=0)
              for c in (clf, mapped)]  # fmt: skip
    assert scores[0] == scores[1]


def test_nested_pipelines_are_transformed_in_order(table):
    X, y = table
    inner = make_pipeline(StandardScaler(), "passthrough", LogisticRegression())
    pipe = make_pipeline("passthrough", make_pipeline(StandardScaler(), None), inner)
    pipe = pipe.fit(5 * X + 3, y)
    flat = make_pipeline(StandardScaler(), LogisticRegression()).fit(5 * X + 3, y)
    attack = {"norm": 2, "eps": 0.4, "verbose": 0}
    a, b = (adversarial_examples(p, 5 * X + 3, y, **attack)[0] for p in (pipe, flat))
    assert_allclose(a, b, atol=1e-5)
    assert attackable(pipe, X).moved
    assert robust_accuracy_score(pipe, 5 * X + 3, y, norm=2, eps=0, verbose=0) == pipe.score(
        5 * X + 3, y
    )


def test_unfitted_pipelines(table):
    X, _ = table
    for pipe in (
        make_pipeline(StandardScaler(), LogisticRegression()),
        make_pipeline("passthrough", LogisticRegression()),
    ):
        with pytest.raises(NotFittedError):
            attackable(pipe, X)


def test_nothing_is_remembered_on_the_estimator(digits):
    from skorch import NeuralNetClassifier

    X = digits[2][:5]
    net = NeuralNetClassifier(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
        criterion=nn.CrossEntropyLoss,
        classes=range(10),
    ).initialize()
    before = set(vars(net))
    attackable(net, X)
    assert set(vars(net)) == before


def test_frames_of_linear_classifiers_have_their_columns_in_order(table):
    """As in their own predict."""
    X, y = pd.DataFrame(table[0], columns=list("abcd")), table[1]
    other = X[list("dcba")]
    for clf in (LogisticRegression(), GaussianRobustMLE(0.1)):
        clf.fit(X, y)
        attack = {"norm": 2, "eps": 0.0, "verbose": 0}
        assert robust_accuracy_score(clf, X, y, **attack) == clf.score(X, y)
        assert robust_accuracy_score(clf, X.to_numpy(), y, **attack) == clf.score(X, y)
        for call in (robust_accuracy_score, adversarial_examples):
            with pytest.raises(ValueError, match="feature names should match"):
                call(clf, other, y, **attack)
        with pytest.raises(ValueError, match="feature names should match"):
            transfer_rate(clf, clf, other, y, norm=2, eps=0.1)


@pytest.mark.parametrize("scale", [1e-60, 1e-12, 1e12, 1e300])
def test_linear_classifiers_decide_the_same_whatever_the_size_of_their_coefficients(table, scale):
    X, y = table
    clf = LogisticRegression().fit(X, y)
    found = {}
    for factor in (1, scale):
        same = clone(clf).fit(X, y)
        same.coef_, same.intercept_ = factor * clf.coef_, factor * clf.intercept_
        found[factor] = [
            robust_accuracy_score(same, X, y, norm=2, eps=eps, verbose=0) for eps in (0, 0.3)
        ]
    assert found[scale] == pytest.approx(found[1], abs=1 / len(X))
    assert found[1][0] == clf.score(X, y)


def test_intercepts_that_outweigh_tiny_coefficients_decide(table):
    X = table[0]
    y = np.arange(len(X)) % 3
    clf = LogisticRegression().fit(X, y)
    clf.coef_, clf.intercept_ = 1e-32 * clf.coef_, np.array([0.2, 0.5, -0.7])
    assert robust_accuracy_score(clf, X, y, norm=2, eps=0, verbose=0) == clf.score(X, y)


def test_a_box_that_is_open_at_one_side_has_finite_examples(table):
    X, y = np.abs(table[0]), table[1]
    clf = LogisticRegression().fit(X, y)
    for norm in (2, np.inf):
        X_adv, fooled = adversarial_examples(
            clf, X, y, norm=norm, eps=1e300, bounds=(0, np.inf), verbose=0
        )
        assert np.isfinite(X_adv).all() and (X_adv >= 0).all()
        assert_array_equal(fooled, clf.predict(X_adv.astype(float)) != y)


class Sums:
    """Decides by the sum of the features; nothing of advfeat knows it."""

    classes = np.array(["no", "yes"])

    def __init__(self, classes=None):
        self.classes = self.classes if classes is None else classes

    def predict(self, X):
        return np.array(["no", "yes"])[(np.asarray(X).sum(1) > 0).astype(int)]


class SumLogits(nn.Module):
    def forward(self, x):
        return torch.stack([torch.zeros_like(x[:, 0]), x.sum(1)], 1)


@attackable.register
def _(estimator: Sums, X, precision="fp32"):
    network = FrozenNetwork(SumLogits(), device="cpu", precision=precision)
    return Attackable(network, classes=estimator.classes, bounds=None, X=X)


@pytest.mark.parametrize(
    "make",
    [
        np.asarray,
        np.ndarray.tolist,
        pd.DataFrame,
        torch.from_numpy,
        lambda X: X.astype(np.float32),
    ],
)
def test_an_own_kind_may_hand_on_what_it_gets(make):
    X = np.random.default_rng(0).normal(size=(40, 4))
    y = Sums().predict(X)
    y[:4] = "no"
    found = robust_accuracy_score(Sums(), make(X), y, norm=2, eps=0)
    assert found == np.mean(y == Sums().predict(X))
    distance = np.abs(X.sum(1)) / 2
    expected = np.mean((y == Sums().predict(X)) & (distance > 0.5))
    assert robust_accuracy_score(Sums(["no", "yes"]), make(X), y, norm=2, eps=0.5) == expected


def test_what_an_own_kind_forgets_is_told():
    X = np.random.default_rng(0).normal(size=(40, 4))
    y = Sums().predict(X)
    with pytest.raises(ValueError, match="classes of an Attackable must be sorted"):
        robust_accuracy_score(Sums(np.array(["yes", "no"])), X, y, norm=2, eps=0)
    X[3, 1] = np.nan
    with pytest.raises(ValueError, match="contains NaN"):
        robust_accuracy_score(Sums(), X, y, norm=2, eps=0)


class Cautious(LogisticRegression):
    def predict(self, X):
        return self.classes_[(self.predict_proba(X)[:, 1] > 0.9).astype(int)]


def test_linear_classifiers_that_decide_in_another_way_are_refused(table):
    X, y = table
    with pytest.raises(TypeError, match="predict of Cautious says another class"):
        robust_accuracy_score(Cautious().fit(X, y), X, y, norm=2, eps=0)
    frame = pd.DataFrame(X, columns=list("abcd"))
    clf = LogisticRegression().fit(frame, y)  # which is asked without a warning
    assert robust_accuracy_score(clf, frame, y, norm=2, eps=0) == clf.score(frame, y)


def test_linear_classifiers_are_attacked_where_no_frames_are_installed(table, monkeypatch):
    X, y = table
    clf = LogisticRegression().fit(pd.DataFrame(X, columns=list("abcd")), y)

    def missing(values, names):
        raise ImportError("pandas is not installed")

    monkeypatch.setattr(_attackable, "as_frame", missing)
    found = robust_accuracy_score(clf, X, y, norm=2, eps=0)
    assert found == np.mean(clf.predict(pd.DataFrame(X, columns=list("abcd"))) == y)


class Looking(LogisticRegression):
    """Looks at the process's warning filters while it predicts."""

    def predict(self, X):
        self.seen_ = list(warnings.filters)
        return super().predict(X)


@pytest.mark.parametrize("make", [np.asarray, lambda X: pd.DataFrame(X, columns=list("abcd"))])
def test_other_threads_keep_their_warnings_while_predict_is_asked(make, table):
    X, y = make(table[0]), table[1]
    clf = Looking().fit(X, y)
    robust_accuracy_score(clf, X, y, norm=2, eps=0)
    assert clf.seen_ == list(warnings.filters)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of scikit-learn's fit
@pytest.mark.parametrize("priors", [[1, 0], [0, 1]])
@pytest.mark.parametrize("scale", [1, 1e-40])
@pytest.mark.parametrize("kind", [GaussianRobustMLE, LinearDiscriminantAnalysis])
def test_linear_classifiers_that_know_one_class(kind, scale, priors, table):
    X, y = table
    clf = kind(priors=priors).fit(X, y)
    clf.coef_ = scale * clf.coef_
    share = np.mean(y == np.argmax(priors))
    assert clf.score(X, y) == share
    for eps in (0, 0.5):
        assert robust_accuracy_score(clf, X, y, norm=2, eps=eps) == share
    assert_array_equal(robust_accuracy_curve(clf, X, y, norm=2, eps_values=[0, 1]), share)
    assert_array_equal(adversarial_examples(clf, X, y, norm=2, eps=0.5)[1], y != np.argmax(priors))


def test_a_search_without_a_classifier_is_told(table):
    X, y = table
    search = GridSearchCV(LogisticRegression(), {"C": [1.0]}, refit=False, cv=2).fit(X, y)
    for use in (robust_accuracy_score, transfer_rate):
        args = (LogisticRegression().fit(X, y), X, y) if use is transfer_rate else (X, y)
        with pytest.raises(TypeError, match="GridSearchCV was fitted with refit=False"):
            use(search, *args, norm=2, eps=0.1)


@pytest.mark.parametrize("dtype", ["Int64", "Float64", "boolean"])
def test_frames_with_missing_values_behind_an_imputer(dtype):
    values = pd.array(np.resize([1, 0, 1, 0], 60), dtype=dtype)
    X = pd.DataFrame({"a": values, "b": pd.array(np.resize([1, 0, 0], 60), dtype=dtype)})
    X.loc[::3, "a"] = pd.NA
    y = np.resize([0, 1, 1], 60)
    pipeline = make_pipeline(SimpleImputer(), LogisticRegression())
    frame = X.astype("float64") if dtype == "boolean" else X
    pipeline.fit(frame, y)
    assert robust_accuracy_score(pipeline, frame, y, norm=2, eps=0) == pipeline.score(frame, y)
    assert len(adversarial_examples(pipeline, frame, y, norm=2, eps=0.1)[0]) == 60

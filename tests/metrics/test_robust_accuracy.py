"""Robust accuracy: closed forms, what is attacked, and what is refused."""

import copy
import pickle

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn

from advfeat import (
    GaussianRobustMLE,
    NonRobustRelabeler,
    RobustFeatureInverter,
    StandardClassifier,
    adversarial_examples,
    make_robust_scorer,
    robust_accuracy_score,
    robust_feature_usefulness,
    transfer_rate,
)
from advfeat.datasets import load_digits, make_planted_features
from advfeat.optim import projected_gradient


@pytest.mark.parametrize("norm", [2, np.inf])
@pytest.mark.parametrize("eps", [0.0, 0.1, 0.5, 1.0])
def test_binary_linear_classifier_in_closed_form(linear, norm, eps):
    X, y, clf = linear
    dual = 2 if norm == 2 else 1
    reach = eps * np.linalg.norm(clf.coef_[0], ord=dual)
    margin = np.where(y == 1, 1, -1) * clf.decision_function(X)
    found = robust_accuracy_score(clf, X, y, norm=norm, eps=eps, verbose=0)
    assert found == pytest.approx(np.mean(margin > reach), abs=1 / len(X))


@pytest.mark.parametrize("model", [LinearDiscriminantAnalysis, GaussianRobustMLE])
def test_multiclass_linear_classifier_in_closed_form(model):
    rng = np.random.RandomState(0)
    y = rng.randint(4, size=300)
    X = 1.5 * rng.randn(4, 5)[y] + rng.randn(300, 5)
    clf, eps = model().fit(X, y), 0.5
    score = clf.decision_function(X)
    slack = np.inf
    for other in range(4):
        gap = score[np.arange(300), y] - score[:, other]
        reach = eps * np.linalg.norm(clf.coef_[y] - clf.coef_[other], axis=1)
        slack = np.minimum(slack, np.where(y == other, np.inf, gap - reach))
    found = robust_accuracy_score(clf, X, y, norm=2, eps=eps, verbose=0)
    assert found == pytest.approx(np.mean(slack > 0), abs=1 / 300)


def test_planted_features_in_closed_form():
    data = make_planted_features(3000, random_state=0)
    clf = LogisticRegression(C=1e3, max_iter=5000).fit(data.data, data.target)
    for eps in (0.5 * data.flip_eps, data.flip_eps):
        margin = np.where(data.target == clf.classes_[1], 1, -1) * clf.decision_function(data.data)
        truth = np.mean(margin > eps * np.linalg.norm(clf.coef_))
        found = robust_accuracy_score(clf, data.data, data.target, norm=2, eps=eps, verbose=0)
        assert found == pytest.approx(truth, abs=1 / 3000)
        assert found < data.accuracy("all", eps=eps) + 4 * np.sqrt(0.25 / 3000)


def test_eps_zero_is_plain_accuracy(standard, digits):
    _, _, X_test, y_test = digits
    score = robust_accuracy_score(standard, X_test, y_test, norm=2, eps=0, verbose=0)
    assert score == standard.score(X_test, y_test)


@pytest.mark.long
@pytest.mark.parametrize(("norm", "eps"), [(2, 0.5), (np.inf, 0.1)])
def test_examples_are_feasible_and_judged_truly(standard, digits, norm, eps):
    _, _, X_test, y_test = digits
    X_adv, fooled = adversarial_examples(standard, X_test, y_test, norm=norm, eps=eps, verbose=0)
    size = np.linalg.norm((X_adv - X_test).reshape(len(X_test), -1), ord=norm, axis=1)
    assert size.max() <= eps * (1 + 1e-5)
    assert X_adv.min() >= 0 and X_adv.max() <= 1
    assert_array_equal(standard.predict(X_adv) != y_test, fooled)
    wrong = standard.predict(X_test) != y_test
    assert np.all(fooled[wrong])
    assert_array_equal(X_adv[wrong], X_test[wrong])


@pytest.mark.long
def test_larger_eps_and_more_restarts_never_help_the_model(adversarial, digits):
    _, _, X_test, y_test = digits
    settings = {"norm": 2, "n_steps": 5, "verbose": 0}
    once, thrice = (
        adversarial_examples(
            adversarial, X_test, y_test, eps=0.7, n_restarts=n, **{**settings, "n_steps": 1}
        )[1]
        for n in (1, 3)
    )
    assert np.all(thrice >= once)  # the per-sample worst is kept
    assert thrice.sum() > once.sum()
    scores = [
        robust_accuracy_score(adversarial, X_test, y_test, eps=eps, **settings)
        for eps in (0, 0.3, 0.7, 1.5)
    ]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.long
def test_same_seed_same_result_whatever_the_batches(standard, digits):
    _, _, X_test, y_test = digits
    settings = {"norm": 2, "eps": 0.4, "n_steps": 5, "verbose": 0}
    expected = adversarial_examples(standard, X_test, y_test, **settings)
    for change in ({"batch_size": 200}, {"batch_size": 17}, {"batch_size": 64, "n_jobs": 2}):
        with joblib.parallel_config("threading"):  # processes: tests/test_backends.py
            found = adversarial_examples(standard, X_test, y_test, **settings, **change)
        assert_allclose(found[0], expected[0], atol=1e-4)
        assert_array_equal(found[1], expected[1])
    state = torch.get_rng_state()
    again = adversarial_examples(standard, X_test, y_test, **settings)
    assert_array_equal(again[0], expected[0])
    assert_array_equal(torch.get_rng_state(), state)


def test_the_net_is_left_as_it_was(standard, digits):
    _, _, X_test, y_test = digits
    standard = copy.deepcopy(standard)
    module = standard.net_.module_
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module.train()
    adversarial_examples(standard, X_test[:20], y_test[:20], norm=2, eps=0.5, verbose=0)
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def test_bf16_attack_is_judged_in_fp32(standard, digits):
    _, _, X_test, y_test = digits
    X_adv, fooled = adversarial_examples(
        standard, X_test, y_test, norm=2, eps=0.5, precision="bf16", n_steps=5, verbose=0
    )
    assert_array_equal(standard.predict(X_adv) != y_test, fooled)


def test_bf16_constructions_and_usefulness_are_judged_in_fp32(standard, digits):
    X, y = digits[0][:60], digits[1][:60]
    made = {"precision": "bf16", "n_steps": 5, "random_state": 0, "verbose": 0}
    inverter = RobustFeatureInverter(FrozenEstimator(standard), solver="decayed", **made)
    X_r = inverter.fit_transform(X, y)
    g = standard.features(X).astype(np.float64)
    gap = np.linalg.norm(standard.features(X_r) - g, axis=1) / np.linalg.norm(g, axis=1)
    assert_allclose(inverter.residual_, gap, rtol=1e-3)
    relabeler = NonRobustRelabeler(FrozenEstimator(standard), eps=0.7, **made)
    data = relabeler.fit_transform(X, y)
    assert relabeler.success_rate_ == np.mean(standard.predict(data.X) == data.y)
    attack = {"norm": 2, "eps": 0.0, "n_steps": 1, "verbose": 0}
    gamma = [
        robust_feature_usefulness(standard, X, y, precision=precision, **attack)
        for precision in ("fp32", "bf16")
    ]
    assert_allclose(*gamma, atol=1e-5)


def test_sources_of_transfer_that_cast_or_do_not_predict(standard, digits):
    X, y = digits[2][:60].astype(np.float64), digits[3][:60]
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
        criterion=nn.CrossEntropyLoss, max_epochs=5, lr=0.3, verbose=0,
    ).fit(digits[0], digits[1])  # fmt: skip
    attack = {"norm": 2, "eps": 1.0, "n_steps": 3, "verbose": 0}
    expected = transfer_rate(net, standard, X.astype("f"), y, **attack)
    assert 0 < transfer_rate(net, standard, X, y, **attack) == expected


@pytest.mark.long
def test_pipeline_is_attacked_after_its_transforms(standard, digits):
    _, _, X_test, y_test = digits
    attack = {"norm": 2, "eps": 0.3, "n_steps": 5, "verbose": 0}
    flipped = X_test[:, :, ::-1].copy()
    pipe = make_pipeline(FunctionTransformer(lambda X: X[:, :, ::-1].copy()), standard)
    assert robust_accuracy_score(pipe, flipped, y_test, **attack) == robust_accuracy_score(
        standard, X_test, y_test, **attack
    )


def test_skorch_net(digits):
    X, y, X_test, y_test = digits
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
        criterion=nn.CrossEntropyLoss,
        max_epochs=10,
        lr=0.3,
        verbose=0,
    ).fit(X, y)
    attack = {"norm": 2, "verbose": 0}
    clean = robust_accuracy_score(net, X_test, y_test, eps=0, **attack)
    assert clean == pytest.approx(np.mean(net.predict(X_test) == y_test))
    assert robust_accuracy_score(net, X_test, y_test, eps=0.3, **attack) < clean - 0.1


def test_skorch_net_that_returns_probabilities(digits):
    X, y, X_test, y_test = digits
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Softmax(1)),
        max_epochs=10,
        lr=0.3,
        verbose=0,
    ).fit(X, y)
    twin = NeuralNetClassifier(net.module_[:2], criterion=nn.CrossEntropyLoss, classes=range(10))
    twin.initialize()
    attack = {"norm": 2, "eps": 0.3, "verbose": 0}
    assert robust_accuracy_score(net, X_test, y_test, **attack) == pytest.approx(
        robust_accuracy_score(twin, X_test, y_test, **attack), abs=0.01
    )


def test_skorch_nets_inputs_are_checked(digits):
    X, y, X_test, y_test = digits
    net = NeuralNetClassifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 10))).initialize()
    with pytest.raises(ValueError, match="maximum of 255"):
        robust_accuracy_score(net, X_test * 255, y_test, norm=2, eps=0.3)


def test_linear_models_leave_the_global_generator_alone(linear):
    X, y, clf = linear
    state = torch.get_rng_state()
    robust_accuracy_score(clf, X, y, norm=2, eps=0.1, n_steps=1, verbose=0)
    assert_array_equal(torch.get_rng_state(), state)


def test_estimators_without_gradients_are_refused(linear):
    X, y, _ = linear
    tree = DecisionTreeClassifier().fit(X, y)
    with pytest.raises(TypeError, match="needs gradients.*DecisionTreeClassifier"):
        robust_accuracy_score(tree, X, y, norm=2, eps=0.1)
    for unfitted in (StandardClassifier(), LogisticRegression()):
        with pytest.raises(NotFittedError):
            robust_accuracy_score(unfitted, X, y, norm=2, eps=0.1)


@pytest.mark.long
@pytest.mark.parametrize("eps", [pytest.param(0.1, marks=pytest.mark.long), 0.4, 3.0])
def test_a_score_stops_where_all_are_fooled_and_says_the_same(standard, digits, eps, monkeypatch):
    X, y = digits[2][:150], digits[3][:150]
    steps = []
    compute = projected_gradient.__globals__["output_and_gradient"]

    def counted(*args):
        steps.append(len(args[2]))
        return compute(*args)

    monkeypatch.setitem(projected_gradient.__globals__, "output_and_gradient", counted)
    _, fooled = adversarial_examples(standard, X, y, norm=2, eps=eps, verbose=0)
    whole = len(steps)
    assert robust_accuracy_score(standard, X, y, norm=2, eps=eps, verbose=0) == np.mean(~fooled)
    assert len(steps) - whole <= whole
    if eps == 3.0:
        assert fooled.all() and len(steps) - whole < whole / 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": 1, "eps": 1}, "'norm' parameter"),
        ({"norm": 2, "eps": -1}, "'eps' parameter"),
        ({"norm": 2, "eps": "0.5"}, "'eps' parameter"),
        ({"norm": 2, "eps": 1, "n_steps": 0}, "'n_steps' parameter"),
    ],
)
def test_bad_parameters(linear, settings, message):
    X, y, clf = linear
    with pytest.raises(ValueError, match=message):
        robust_accuracy_score(clf, X, y, **settings)


def test_bad_labels(linear):
    X, y, clf = linear
    with pytest.raises(ValueError, match="labels of another type"):
        robust_accuracy_score(clf, X, y.astype(str), norm=2, eps=0.1)
    with pytest.raises(ValueError, match="one label per sample"):
        robust_accuracy_score(clf, X, y[:-1], norm=2, eps=0.1)


def test_sample_weight(linear):
    X, y, clf = linear
    weight = np.random.RandomState(0).rand(len(y))
    attack = {"norm": 2, "eps": 0.3, "verbose": 0}
    _, fooled = adversarial_examples(clf, X, y, **attack)
    found = robust_accuracy_score(clf, X, y, sample_weight=weight, **attack)
    assert found == pytest.approx(np.sum(weight * ~fooled) / weight.sum())


def test_scorer_pickles_and_reads_well(linear):
    X, y, clf = linear
    scorer = make_robust_scorer(norm=2, eps=0.25, n_steps=7)
    assert repr(scorer) == "make_robust_scorer(norm=2, eps=0.25, n_steps=7)"
    again = pickle.loads(pickle.dumps(scorer))
    assert again(clf, X, y) == scorer(clf, X, y)
    assert cross_val_score(LogisticRegression(), X, y, scoring=scorer, cv=3).shape == (3,)
    with pytest.raises(TypeError, match="eps"):
        make_robust_scorer(norm=2)


# what cannot be attacked, or not as it seems


@pytest.mark.parametrize("n_classes", [3, 4, 10])
def test_one_row_for_each_pair_of_classes_is_refused(n_classes):
    X, y = load_digits(return_X_y=True)
    X, y = X[y < n_classes].reshape(-1, 64), y[y < n_classes]
    svc = SVC(kernel="linear").fit(X[:300], y[:300])
    with pytest.raises(TypeError, match="one row of coef_ for each class.*LinearSVC"):
        robust_accuracy_score(svc, X, y, norm=2, eps=0.1)


@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(max_iter=500),
        LinearDiscriminantAnalysis(),
        RidgeClassifier(),
        LinearSVC(),
        SGDClassifier(random_state=0),
        GaussianRobustMLE(),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_eps_zero_gives_the_accuracy_of_any_linear_model(model, n_classes):
    rng = np.random.RandomState(0)
    y = np.arange(150) % n_classes
    X = rng.randn(n_classes, 5)[y] + rng.randn(150, 5)
    clf = clone(model).fit(X, y)
    assert robust_accuracy_score(clf, X, y, norm=2, eps=0) == clf.score(X, y)
    if hasattr(clf, "sparsify"):
        assert robust_accuracy_score(clf.sparsify(), X, y, norm=2, eps=0) == clf.score(X, y)


def test_ties_are_broken_as_predict_breaks_them():
    X, y = np.random.RandomState(0).randn(40, 3), np.arange(40) % 2
    clf = LogisticRegression(fit_intercept=False).fit(X, y)
    clf.coef_[:] = 0  # as a strong L1 penalty leaves it
    for eps in (0, 1):
        assert robust_accuracy_score(clf, X, y, norm=2, eps=eps, verbose=0) == clf.score(X, y)


def test_a_misspelt_setting_of_the_scorer_is_refused():
    with pytest.raises(TypeError, match=r"unknown settings \['nsteps'\]"):
        make_robust_scorer(norm=2, eps=0.1, nsteps=3)
    with pytest.raises(ValueError, match="'eps' parameter of make_robust_scorer"):
        make_robust_scorer(norm=2, eps=-0.1)


def test_a_single_logit_is_refused():
    class Net(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Linear(4, 1), nn.Flatten(0))

    X, y = np.random.RandomState(0).randn(20, 4).astype(np.float32), np.arange(20) % 2
    net = NeuralNetBinaryClassifier(Net, max_epochs=1, verbose=0, train_split=None)
    net.fit(X, y.astype(np.float32))
    with pytest.raises(TypeError, match="one logit"):
        robust_accuracy_score(net, X, y, norm=2, eps=0.1)


def test_pipelines_that_make_numbers_of_text_are_attacked():
    rng = np.random.default_rng(0)
    words, y = rng.choice(list("abcd"), size=(200, 3)), np.arange(200) % 2
    words[y == 1, 0] = "a"
    pipe = make_pipeline(OrdinalEncoder(dtype=np.float32), LogisticRegression()).fit(words, y)
    score = robust_accuracy_score(pipe, words, y, norm=2, eps=0.0, verbose=0)
    assert score == pipe.score(words, y)
    with pytest.raises(ValueError, match="whose earlier steps change X"):
        transfer_rate(pipe, pipe, words, y, norm=2, eps=0.1, verbose=0)

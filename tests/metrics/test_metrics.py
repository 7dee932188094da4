"""Robust accuracy, transfer and usefulness against closed forms and other libraries."""

import copy
import pickle
import warnings

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
from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder, StandardScaler
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
    feature_usefulness,
    from_torch,
    make_robust_scorer,
    robust_accuracy_curve,
    robust_accuracy_score,
    robust_feature_usefulness,
    transfer_rate,
)
from advfeat.datasets import load_digits, make_planted_features
from advfeat.metrics import _robust_accuracy as metrics_module
from advfeat.metrics import _transfer
from advfeat.optim import projected_gradient


@pytest.fixture(scope="module")
def linear():
    rng = np.random.RandomState(0)
    y = rng.randint(2, size=400)
    X = rng.randn(400, 6) + 0.8 * (2 * y[:, None] - 1)
    return X, y, LogisticRegression().fit(X, y)


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


def test_larger_eps_and_more_restarts_never_help_the_model(adversarial, digits):
    _, _, X_test, y_test = digits
    settings = {"norm": 2, "n_steps": 5, "verbose": 0}
    _, once = adversarial_examples(adversarial, X_test, y_test, eps=0.7, **settings)
    _, thrice = adversarial_examples(
        adversarial, X_test, y_test, eps=0.7, n_restarts=3, **settings
    )
    assert np.all(thrice >= once)  # the per-sample worst is kept
    scores = [
        robust_accuracy_score(adversarial, X_test, y_test, eps=eps, **settings)
        for eps in (0, 0.3, 0.7, 1.5)
    ]
    assert scores == sorted(scores, reverse=True)


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


@pytest.mark.parametrize("eps", [0.1, 0.4, 3.0])
def test_a_score_stops_where_all_are_fooled_and_says_the_same(standard, digits, eps, monkeypatch):
    _, _, X, y = digits
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


# against other libraries: never more than two points above the strongest


@pytest.mark.parametrize(("norm", "eps"), [(2, 0.5), (np.inf, 0.08)])
@pytest.mark.parametrize("model", ["standard", "adversarial"])
def test_at_least_as_strong_as_foolbox_and_torchattacks(model, norm, eps, digits, request):
    foolbox = pytest.importorskip("foolbox")
    torchattacks = pytest.importorskip("torchattacks")
    clf = request.getfixturevalue(model)
    X, y = digits[2][:60], digits[3][:60]
    module = clf.net_.module_.eval()
    images, labels = torch.from_numpy(X), torch.from_numpy(y)

    def accuracy(x):
        with torch.no_grad():
            return float((module(x).argmax(1) == labels).float().mean())

    attack = foolbox.attacks.L2PGD if norm == 2 else foolbox.attacks.LinfPGD
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = foolbox.PyTorchModel(module, bounds=(0, 1), device="cpu")
        others = [accuracy(attack()(wrapped, images, labels, epsilons=eps)[1])]
        pgd = (
            torchattacks.PGDL2(module, eps=eps, alpha=eps / 4, steps=20)
            if norm == 2
            else torchattacks.PGD(module, eps=eps, alpha=eps / 4, steps=20)
        )
        others.append(accuracy(pgd(images, labels)))
        apgd = torchattacks.APGD(module, norm="L2" if norm == 2 else "Linf", eps=eps, steps=20)
        others.append(accuracy(apgd(images, labels)))
    ours = robust_accuracy_score(clf, X, y, norm=norm, eps=eps, verbose=0)
    assert ours <= min(others) + 0.02
    assert min(others) < clf.score(X, y)  # the others did attack


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps"), [(2, 0.7), (np.inf, 0.1)])
@pytest.mark.parametrize("model", ["standard", "adversarial"])
def test_within_two_points_of_autoattack(model, norm, eps, digits, request):
    pyautoattack = pytest.importorskip("pyautoattack")
    clf = request.getfixturevalue(model)
    X, y = digits[2][:60], digits[3][:60]
    module = clf.net_.module_.eval()
    attack = pyautoattack.AutoAttack(module, norm="L2" if norm == 2 else "Linf", eps=eps, seed=0)
    with torch.random.fork_rng():
        x, _ = attack.run_standard_evaluation(torch.from_numpy(X), torch.from_numpy(y))
    with torch.no_grad():
        theirs = float((module(x).argmax(1).numpy() == y).mean())
    assert robust_accuracy_score(clf, X, y, norm=norm, eps=eps, verbose=0) <= theirs + 0.02


# transfer


def test_transfer_to_itself_is_one_and_to_noise_is_low(standard, adversarial, digits):
    _, _, X_test, y_test = digits
    attack = {"norm": 2, "eps": 0.7, "n_steps": 5, "verbose": 0}
    assert transfer_rate(standard, standard, X_test, y_test, **attack) == 1
    assert transfer_rate(standard, adversarial, X_test, y_test, **attack) < 0.6


def test_transfer_to_several_is_that_to_each_with_one_attack(
    standard, adversarial, digits, monkeypatch
):
    X, y = digits[2][:90], digits[3][:90]
    flat = FunctionTransformer(lambda images: np.asarray(images).reshape(len(images), -1))
    tree = make_pipeline(flat, DecisionTreeClassifier(random_state=0)).fit(X, y)
    few = clone(tree).fit(X[y < 5], y[y < 5])  # knows half of the labels
    others = [standard, tree, adversarial, few]
    attack = {"norm": 2, "eps": 0.5, "n_steps": 3, "batch_size": 40, "verbose": 0}
    expected = [transfer_rate(standard, other, X, y, **attack) for other in others]
    attacks = []
    iter_batches = _transfer.iter_batches
    monkeypatch.setattr(
        _transfer, "iter_batches", lambda **kw: attacks.append(kw) or iter_batches(**kw)
    )
    rates = transfer_rate(standard, others, X, y, **attack)
    assert rates.shape == (4,) and len(attacks) == 1
    assert_array_equal(rates, expected)
    assert len(set(expected)) == 4  # each has its own rows
    assert transfer_rate(standard, (tree,), X, y, **attack) == [expected[1]]
    with pytest.raises(ValueError, match="Got an empty list"):
        transfer_rate(standard, [], X, y, **attack)
    with pytest.raises(NotFittedError):
        transfer_rate(standard, [tree, clone(tree)], X, y, **attack)


def test_transfer_between_parallel_linear_models_in_closed_form(linear):
    X, y, clf = linear
    other = LogisticRegression().fit(X, y)
    other.coef_, other.intercept_ = 2 * clf.coef_, 2 * clf.intercept_
    attack = {"norm": 2, "eps": 0.5, "verbose": 0}
    assert transfer_rate(clf, other, X, y, **attack) == 1
    nobody = transfer_rate(clf, other, X, y, norm=2, eps=0, verbose=0)
    assert np.isnan(nobody)


# usefulness


class TwoLinear(nn.Sequential):
    """Features are linear in x, so everything has a closed form."""

    def __init__(self, n_features, n_classes):
        super().__init__(nn.Linear(n_features, 4), nn.Linear(4, n_classes))


@pytest.fixture(scope="module")
def linear_features():
    rng = np.random.RandomState(0)
    y = rng.randint(3, size=300)
    X = rng.randn(3, 5)[y] + rng.randn(300, 5)
    clf = StandardClassifier(TwoLinear, max_epochs=3, random_state=0, verbose=0).fit(X, y)
    module = clf.net_.module_
    weight = (module.body[0].weight / module.std).detach().numpy()
    return X, y, clf, weight


def test_usefulness_is_the_definition(linear_features):
    X, y, clf, _ = linear_features
    f = clf.features(X).astype(float)
    f = (f - f.mean(0)) / f.std(0)
    rho = feature_usefulness(clf, X, y)
    for c in range(3):
        sign = np.where(y == c, 1, -1)
        assert_allclose(rho[c], (sign[:, None] * f).mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("norm", "dual"), [(2, 2), (np.inf, 1)])
def test_robust_usefulness_of_linear_features_in_closed_form(linear_features, norm, dual):
    X, y, clf, weight = linear_features
    eps = 0.3
    reach = eps * np.linalg.norm(weight, ord=dual, axis=1) / clf.features(X).std(0)
    rho = feature_usefulness(clf, X, y)
    gamma = robust_feature_usefulness(clf, X, y, norm=norm, eps=eps, verbose=0)
    assert_allclose(gamma, np.abs(rho) - reach, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("random_start", [False, True])
def test_usefulness_does_not_depend_on_how_many_searches_run_together(
    adversarial, digits, random_start
):
    one_of_each = np.unique(digits[3], return_index=True)[1]
    X, y = digits[2][one_of_each], digits[3][one_of_each]
    settings = {
        "norm": 2, "eps": 0.4, "n_steps": 2, "random_start": random_start, "n_restarts": 2,
        "verbose": 0,
    }  # fmt: skip
    few = robust_feature_usefulness(adversarial, X, y, batch_size=23, **settings)
    for change in ({"batch_size": 50}, {"batch_size": 1000, "n_jobs": 2}):
        with joblib.parallel_config("threading"):  # processes: tests/test_backends.py
            found = robust_feature_usefulness(adversarial, X, y, **settings, **change)
        assert_allclose(found, few, atol=1e-4)


def test_robust_usefulness_never_exceeds_usefulness(adversarial, standard, digits):
    X, y = digits[2][:25], digits[3][:25]
    settings = {"norm": 2, "eps": 0.5, "n_steps": 4, "verbose": 0}
    robust = {}
    for name, clf in (("standard", standard), ("adversarial", adversarial)):
        rho = np.abs(feature_usefulness(clf, X, y))
        gamma = robust_feature_usefulness(clf, X, y, **settings)
        assert np.nanmax(gamma - rho) < 1e-6
        robust[name] = np.nanmean(gamma)
    assert robust["adversarial"] > robust["standard"]  # robust training keeps robust features


def test_constant_features_have_no_usefulness():
    X, y = np.random.RandomState(0).randn(40, 2), np.arange(40) % 2

    class Net(nn.Sequential):
        def __init__(self, n_features, n_classes):
            super().__init__(nn.Linear(n_features, 3), nn.Linear(3, n_classes))

    clf = StandardClassifier(Net, max_epochs=1, random_state=0, verbose=0).fit(X, y)
    with torch.no_grad():
        clf.net_.module_.body[0].weight[0] = 0
        clf.net_.module_.body[0].bias[0] = 1
    rho = feature_usefulness(clf, X, y)
    assert np.all(np.isnan(rho[:, 0])) and np.all(np.isfinite(rho[:, 1:]))


# robust_accuracy_curve


def test_curve_keeps_what_a_smaller_eps_found(linear, monkeypatch):
    attacked = []

    def fooled(target, settings, rows=None):
        rows = np.arange(4) if rows is None else rows
        attacked.append((settings["eps"], rows.tolist()))
        # Finds sample 1 at eps 0.1 only and sample 3 at eps 0.2 only.
        return rows == {0.1: 1, 0.2: 3}.get(settings["eps"], -1)

    monkeypatch.setattr(metrics_module, "_fooled", fooled)
    X, y, clf = linear
    X, y = X[:4], y[:4]
    settings = {"norm": 2, "eps_values": [0.4, 0.1, 0.2]}
    assert_array_equal(robust_accuracy_curve(clf, X, y, **settings), [0.5, 0.75, 0.5])
    assert attacked == [(0.1, [0, 1, 2, 3]), (0.2, [0, 2, 3]), (0.4, [0, 2])]
    weighted = robust_accuracy_curve(clf, X, y, sample_weight=[1, 5, 1, 1], **settings)
    assert_allclose(weighted, [2 / 8, 3 / 8, 2 / 8])


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.nan, "NaN"),
        (np.inf, "infinity"),
        (-1.0, "[Nn]egative"),
        ("heavy", "could not convert|one number"),
        (None, "one number|NaN"),
    ],
)
def test_a_bad_weight_is_refused_before_the_attack(linear, weight, message, monkeypatch):
    def no_attack(*args, **kwargs):
        raise AssertionError("the attack began")

    monkeypatch.setattr(metrics_module, "_fooled", no_attack)
    X, y, clf = linear
    weights = np.ones(len(y)).tolist()
    weights[7] = weight
    for score, radii in ((robust_accuracy_score, "eps"), (robust_accuracy_curve, "eps_values")):
        settings = {"norm": 2, radii: 0.1 if radii == "eps" else [0.1]}
        with pytest.raises(ValueError, match=message):
            score(clf, X, y, sample_weight=weights, **settings)
        with pytest.raises(ValueError, match="at least one"):
            score(clf, X, y, sample_weight=np.zeros(len(y)), **settings)
        for shape in (len(y) - 1, (len(y), 2)):
            with pytest.raises(ValueError, match="[Ss]ample.weight"):
                score(clf, X, y, sample_weight=np.ones(shape), **settings)


def test_curve_checks_every_radius_before_the_attack(linear):
    X, y, clf = linear
    with pytest.raises(ValueError, match="eps_values must be numbers"):
        robust_accuracy_curve(clf, X, y, norm=2, eps_values=[0.1, np.nan])
    with pytest.raises(TypeError, match="unknown settings"):
        robust_accuracy_curve(clf, X, y, norm=2, eps_values=[0.1], steps=3)


def test_curve_agrees_with_the_score_at_each_eps(standard, digits):
    _, _, X_test, y_test = digits
    X, y = X_test[:80], y_test[:80]
    settings = {"norm": 2, "n_steps": 10, "verbose": 0}
    curve = robust_accuracy_curve(standard, X, y, eps_values=[0.2, 0, 0.6, 50], **settings)
    assert curve[1] == standard.score(X, y)
    assert curve[3] == 0
    for eps, value in ((0.2, curve[0]), (0.6, curve[2])):
        score = robust_accuracy_score(standard, X, y, eps=eps, **settings)
        assert abs(value - score) <= 3 / 80  # they start at other points


def test_curve_refuses_what_is_no_list_of_radii(standard, digits):
    _, _, X, y = digits
    for eps_values in (0.5, []):
        with pytest.raises(ValueError, match="eps_values must be a list"):
            robust_accuracy_curve(standard, X, y, norm=2, eps_values=eps_values)
    with pytest.raises(ValueError, match="eps_values must be numbers"):
        robust_accuracy_curve(standard, X, y, norm=2, eps_values=[-1])
    with pytest.raises(ValueError, match="one label per sample"):
        robust_accuracy_curve(standard, X, y[:-1], norm=2, eps_values=[0.1])


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


def test_examples_in_the_units_of_a_later_step_are_not_transferred(linear):
    X, y, clf = linear
    pipe = make_pipeline(StandardScaler(), LogisticRegression()).fit(100 * X, y)
    with pytest.raises(ValueError, match="Pipeline whose earlier steps change X"):
        transfer_rate(pipe, clf, X, y, norm=2, eps=0.5)


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


def test_transfer_hands_over_examples_in_the_units_that_were_given(standard, digits):
    """An estimator that takes bytes for something else than floats would pass for robust."""
    X, y = digits[2][:60], digits[3][:60]
    bytes_ = np.round(255 * X).astype(np.uint8)
    flat = FunctionTransformer(lambda images: np.asarray(images, float).reshape(len(images), -1))
    tree = make_pipeline(flat, DecisionTreeClassifier(random_state=0))
    settings = {"norm": 2, "eps": 0.5, "n_steps": 3, "verbose": 0}
    with pytest.raises(ValueError, match=r"other labels for X / 255 than for X. Fit it on images"):
        transfer_rate(standard, clone(tree).fit(bytes_, y), bytes_, y, **settings)
    fitted = tree.fit(bytes_ / np.float32(255), y)
    images = bytes_ / np.float32(255)
    X_adv, fooled = adversarial_examples(standard, images, y, **settings)
    fooled &= (standard.predict(images) == y) & (fitted.predict(images) == y)
    expected = np.mean(fitted.predict(X_adv[fooled]) != y[fooled])
    assert transfer_rate(standard, fitted, images, y, **settings) == pytest.approx(expected)
    # Also where the source is a Pipeline whose first step makes floats of them.
    scale = FunctionTransformer(lambda images: images / np.float32(255))
    with pytest.raises(ValueError, match=r"other labels for X / 255 than for X"):
        source = make_pipeline(scale, FrozenEstimator(standard)).fit(bytes_, y)
        transfer_rate(source, clone(tree).fit(bytes_, y), bytes_, y, **settings)
    # A network takes both for the same.
    rates = [transfer_rate(standard, standard, images, y, **settings) for images in (bytes_, X)]
    assert rates == [1.0, 1.0]


def test_transfer_takes_tensors_for_any_estimator_and_steps_that_only_cast(standard, digits):
    X, y = digits[2][:60], digits[3][:60]
    flat = FunctionTransformer(lambda images: np.asarray(images).reshape(len(images), -1))
    tree = make_pipeline(flat, DecisionTreeClassifier(random_state=0)).fit(X, y)
    settings = {"norm": 2, "eps": 0.5, "n_steps": 3, "verbose": 0}
    expected = transfer_rate(standard, tree, X, y, **settings)
    held = torch.from_numpy(X).requires_grad_()
    assert transfer_rate(standard, tree, held, y, **settings) == expected
    X = X + 1e-12 * np.ones(1)
    assert X.dtype == np.float64
    cast = FunctionTransformer(lambda images: images.astype(np.float32))
    source = make_pipeline(cast, FrozenEstimator(standard)).fit(X, y)
    bare = transfer_rate(standard, tree, X.clip(0, 1), y, **settings)
    assert transfer_rate(source, tree, X.clip(0, 1), y, **settings) == bare


def test_pipelines_that_make_numbers_of_text_are_attacked():
    rng = np.random.default_rng(0)
    words, y = rng.choice(list("abcd"), size=(200, 3)), np.arange(200) % 2
    words[y == 1, 0] = "a"
    pipe = make_pipeline(OrdinalEncoder(dtype=np.float32), LogisticRegression()).fit(words, y)
    score = robust_accuracy_score(pipe, words, y, norm=2, eps=0.0, verbose=0)
    assert score == pipe.score(words, y)
    with pytest.raises(ValueError, match="whose earlier steps change X"):
        transfer_rate(pipe, pipe, words, y, norm=2, eps=0.1, verbose=0)


def test_transfer_of_many_classes_warns_of_nothing():
    X, y = np.tile(np.eye(60, dtype="f"), (3, 1)), np.tile(np.arange(60), 3)
    clf = from_torch(nn.Linear(60, 60, bias=False), classes=range(60), input_shape=(60,))
    with torch.no_grad():
        clf.module_.body.weight.copy_(torch.eye(60))
    attack = {"norm": 2, "eps": 2.0, "n_steps": 3, "batch_size": 60, "verbose": 0}
    assert transfer_rate(clf, clf, X, y, **attack) == 1


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_transfer_hands_over_frames_where_frames_were_given(library):
    frames = pytest.importorskip(library)
    X, y = make_planted_features(200, random_state=0, return_X_y=True)
    names = [f"feature {i}" for i in range(X.shape[1])]
    frame = frames.DataFrame(dict(zip(names, X.T, strict=True)))
    clf = StandardClassifier(max_epochs=3, random_state=0, verbose=0).fit(frame, y)

    class Named(DecisionTreeClassifier):
        def predict(self, X):
            assert list(X.columns) == names
            return super().predict(X)

    settings = {"norm": 2, "eps": 3.0, "n_steps": 3, "verbose": 0}
    rate = transfer_rate(clf, Named(random_state=0).fit(frame, y), frame, y, **settings)
    array = np.asarray(frame)
    bare = StandardClassifier(max_epochs=3, random_state=0, verbose=0).fit(array, y)
    tree = DecisionTreeClassifier(random_state=0).fit(array, y)
    assert rate == transfer_rate(bare, tree, array, y, **settings) > 0


class Halved(nn.Module):
    """Decides by the first value; where the second is large, says nothing (NaN) if it is told."""

    def __init__(self, silent):
        super().__init__()
        self.silent = silent

    def forward(self, x):
        z = torch.stack([-x[:, 0], x[:, 0]], 1)
        return torch.where(self.silent & (x[:, 1:] > 1), z * torch.nan, z)


def test_transfer_leaves_out_what_a_network_says_nothing_of():
    silent, clear = (
        from_torch(Halved(quiet), classes=[0, 1], input_shape=(2,)) for quiet in (True, False)
    )
    X = np.array([[-0.1, 2.0]] * 5 + [[-0.1, 0.0]] * 5, dtype=np.float32)
    y, attack = np.zeros(10, dtype=int), {"norm": 2, "eps": 0.5, "verbose": 0}
    assert transfer_rate(silent, clear, X, y, **attack) == 1
    assert np.isnan(transfer_rate(silent, clear, X[:5], y[:5], **attack))
    others = [silent, FrozenEstimator(silent)]
    np.testing.assert_array_equal(transfer_rate(clear, others, X, y, **attack), [1, 1])


def test_transfer_compares_the_kinds_of_labels_and_takes_columns(linear):
    X, y, clf = linear
    attack = {"norm": 2, "eps": 2.0, "n_steps": 3, "verbose": 0}
    with pytest.raises(ValueError, match="labels of another type"):
        transfer_rate(clf, LogisticRegression().fit(X, y.astype(str)), X, y, **attack)

    class Column(LogisticRegression):
        def predict(self, X):
            return super().predict(X)[:, None]

    column = Column().fit(X, y)
    net = NeuralNetClassifier(nn.Linear, module__in_features=6, module__out_features=2, verbose=0)
    net.set_params(criterion=nn.CrossEntropyLoss, train_split=None).fit(X.astype("f"), y)
    rates = transfer_rate(clf, [clf, column, net, FrozenEstimator(net)], X, y, **attack)
    assert rates[0] == rates[1] == 1 and rates[2] == rates[3] > 0


def test_transfer_to_skorch_nets_goes_by_positions(linear):
    """Whatever their ``classes`` say, and whichever part they saw last."""
    X, y, clf = linear
    X = X.astype("f")
    attack = {"norm": 2, "eps": 2.0, "n_steps": 3, "verbose": 0}
    settings = {"module__in_features": 6, "module__out_features": 2, "verbose": 0}
    settings |= {"criterion": nn.CrossEntropyLoss, "train_split": None}
    net = NeuralNetClassifier(nn.Linear, **settings).fit(X, y)
    rate = transfer_rate(clf, net, X, y, **attack)
    net.classes_inferred_ = np.array([1])  # as after a part of one class
    assert transfer_rate(clf, net, X, y, **attack) == rate > 0
    for classes in (["a", "b"], [1, 2]):
        net.classes = classes
        assert transfer_rate(clf, net, X, y, **attack) == rate

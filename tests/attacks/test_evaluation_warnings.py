"""Networks whose gradients mislead are told; ordinary ones raise no alarm."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from torch import nn

from advfeat import (
    AdversarialClassifier,
    NonRobustRelabeler,
    StandardClassifier,
    adversarial_examples,
    from_torch,
    make_robust_scorer,
    robust_accuracy_curve,
    robust_accuracy_score,
    robust_feature_usefulness,
)
from advfeat.attacks import Attackable, attackable
from advfeat.exceptions import EvaluationWarning
from advfeat.optim import FrozenNetwork

NORMS = [2, np.inf]


class Estimator:
    """A module as a classifier of digits."""

    def __init__(self, module, bounds=(0.0, 1.0)):
        self.module, self.bounds, self.classes_ = module, bounds, np.arange(10)

    def predict(self, X):
        with torch.no_grad():
            return self.module(torch.from_numpy(X)).argmax(1).numpy()


@attackable.register(Estimator)
def _(estimator, X, precision="fp32"):
    network = FrozenNetwork(estimator.module, device="cpu", precision=precision)
    return Attackable(network, estimator.classes_, estimator.bounds, X)


class Around(nn.Module):
    def __init__(self, module, before=lambda x: x, after=lambda logits: logits):
        super().__init__()
        self.module, self.before, self.after = module, before, after

    def forward(self, x):
        return self.after(self.module(self.before(x)))


class Jagged(torch.autograd.Function):
    """Identity with a gradient that points anywhere but up."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class Scrambled(Jagged):
    """Identity with a gradient in which half of the signs are wrong."""

    @staticmethod
    def backward(ctx, gradient):
        signs = np.random.default_rng(0).choice([-1.0, 1.0], size=gradient.shape[1:])
        return gradient * torch.from_numpy(signs.astype(np.float32))


class StraightThrough(Jagged):
    """Rounding to sixteen levels with the gradient of the identity."""

    @staticmethod
    def forward(ctx, x):
        return (x * 15).round() / 15

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def steep(x):
    """Four levels by steep sigmoids: no gradient is exactly zero."""
    return sum(torch.sigmoid(200 * (x - (i + 0.5) / 3)) for i in range(3)) / 3


MISLEADING = {
    "rounded": ({"before": lambda x: (x * 3).round() / 3}, "exactly zero"),
    "binary": ({"before": lambda x: (x > 0.5).float() + 0 * x}, "exactly zero"),
    "saturated": ({"after": lambda logits: (50 * logits).softmax(1)}, "exactly zero"),
    "reversed": ({"before": Jagged.apply}, "Random search"),
    "random": ({"before": lambda x: x + 0.1 * torch.randn_like(x)}, "differ from call to call"),
}


@pytest.mark.parametrize("name", MISLEADING)
def test_misleading_networks_are_told(standard, digits, name):
    X, y = digits[2][:60], digits[3][:60]
    parts, message = MISLEADING[name]
    estimator = Estimator(Around(standard.module_, **parts))
    settings = {"norm": np.inf, "n_steps": 1, "verbose": 0}
    with pytest.warns(EvaluationWarning, match=message):
        adversarial_examples(estimator, X, y, eps=0.3, **settings)
    with pytest.warns(EvaluationWarning, match=message):
        robust_accuracy_score(estimator, X, y, eps=0.3, **settings)
    with pytest.warns(EvaluationWarning, match=message) as caught:
        robust_accuracy_curve(estimator, X, y, eps_values=[0.0, 0.1, 0.3], **settings)
    assert len(caught) == 1
    with pytest.warns(EvaluationWarning, match=message):
        make_robust_scorer(eps=0.3, **settings)(estimator, X, y)
    robust_accuracy_score(estimator, X, y, eps=0, **settings)  # there is nothing to be missed


@pytest.mark.long
@pytest.mark.parametrize(("norm", "eps"), [(2, 0.5), (np.inf, 0.12), (2, 1.0), (np.inf, 0.06)])
@pytest.mark.parametrize("before", [Jagged.apply, Scrambled.apply])
def test_gradients_that_lead_astray_are_told_at_small_radii(standard, digits, before, norm, eps):
    """Plain noise of such a length fools nobody."""
    X, y = digits[2][:100], digits[3][:100]
    estimator = Estimator(Around(standard.module_, before=before))
    with pytest.warns(EvaluationWarning, match="Random search, without gradients, fools"):
        score = robust_accuracy_score(estimator, X, y, norm=norm, eps=eps, verbose=0)
    plain = robust_accuracy_score(standard, X, y, norm=norm, eps=eps, verbose=0)
    assert score > plain + 0.05


@pytest.mark.long
def test_quantised_inputs_with_a_gradient_are_told(standard, digits):
    X, y = digits[2][:100], digits[3][:100]
    estimator = Estimator(Around(standard.module_, before=steep))
    with pytest.warns(EvaluationWarning, match="Random search"):
        robust_accuracy_score(estimator, X, y, norm=2, eps=0.5, verbose=0)


@pytest.mark.long
@pytest.mark.parametrize(
    "parts",
    [
        {"before": StraightThrough.apply},
        {"after": lambda logits: (5 * logits).softmax(1)},
        {"before": lambda x: x + torch.sin(50 * x) / 25},
    ],
    ids=["straight through", "softmax", "waves"],
)
def test_networks_that_the_attack_deals_with_raise_no_alarm(standard, digits, parts):
    X, y = digits[2][:100], digits[3][:100]
    estimator = Estimator(Around(standard.module_, **parts))
    robust_accuracy_score(estimator, X, y, norm=np.inf, eps=0.06, verbose=0)
    for eps in (0.5, 1.0):
        score = robust_accuracy_score(estimator, X, y, norm=2, eps=eps, verbose=0)
        assert score <= robust_accuracy_score(standard, X, y, norm=2, eps=eps, verbose=0) + 0.1


@pytest.mark.long
def test_a_curve_is_checked_where_samples_withstand(standard, digits):
    """At the largest radius nobody does."""
    X, y = digits[2][:100], digits[3][:100]
    estimator = Estimator(Around(standard.module_, before=Jagged.apply))
    with pytest.warns(EvaluationWarning, match="Random search"):
        curve = robust_accuracy_curve(
            estimator, X, y, norm=np.inf, eps_values=[1.0, 0.12], verbose=0
        )
    assert curve[0] < 0.05 < curve[1]


class Watched(nn.Linear):
    """Two classes apart by the sum of all features, with the gradient reversed."""

    seen = []  # noqa: RUF012 - copies of the network share it

    def __init__(self, n_features, n_classes):
        super().__init__(n_features, n_classes, bias=False)
        nn.init.ones_(self.weight)
        self.weight.data[0] = 0

    def forward(self, x):
        if type(x) is torch.Tensor:  # not while it is traced
            self.seen.append(x.detach().clone())
        return super().forward(Jagged.apply(x))


@pytest.mark.parametrize("norm", NORMS)
def test_the_search_in_tables_stays_in_the_ball(norm):
    X = np.random.default_rng(0).standard_normal((60, 40)).astype(np.float32)
    Watched.seen.clear()
    estimator = Estimator(Watched(40, 2), bounds=None)
    estimator.classes_ = np.arange(2)
    eps = 1.0 if norm == 2 else 0.3
    with pytest.warns(EvaluationWarning, match="Random search"):
        robust_accuracy_score(estimator, X, X.sum(1) > 0, norm=norm, eps=eps, n_steps=2, verbose=0)
    assert len(Watched.seen) > 200
    for x in Watched.seen:
        gap = torch.cdist(x.double(), torch.from_numpy(X).double(), p=norm).min(1).values
        assert gap.max() <= eps + 1e-5


@pytest.mark.long
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [1e-6, 0.3, 3, 1e30])
def test_ordinary_networks_raise_no_alarm(standard, adversarial, digits, norm, eps):
    for clf in (standard, adversarial):
        for n in (1, 2, 40):
            robust_accuracy_score(
                clf, digits[2][:n], digits[3][:n], norm=norm, eps=eps, n_steps=1, verbose=0
            )


class Viewed(nn.Module):
    """Flattens as many published networks do, which fails for an empty batch."""

    def __init__(self, n_classes):
        super().__init__()
        self.linear = nn.Linear(64, n_classes)

    def forward(self, x):
        return self.linear(x.view(x.size(0), -1))


def test_networks_that_take_no_empty_batch(digits):
    X, y = digits[0][:100], digits[1][:100]
    clf = StandardClassifier(Viewed, max_epochs=2, random_state=0, verbose=0).fit(X, y)
    attack = {"norm": 2, "eps": 0.1, "n_steps": 2, "verbose": 0}
    wrong = (clf.predict(X) + 1) % 10
    assert robust_accuracy_score(clf, X, wrong, **attack) == 0
    X_adv, fooled = adversarial_examples(clf, X, wrong, **attack)
    assert fooled.all() and X_adv.shape == X.shape
    right = clf.predict(X)
    assert robust_accuracy_score(clf, X, np.r_[wrong[:70], right[70:]], **attack) <= 0.3
    assert robust_accuracy_score(clf, X, np.r_[right[:70], wrong[70:]], **attack) <= 0.7


@pytest.mark.parametrize("scale", [1e-3, 1, 1e3])
def test_confident_linear_models_raise_no_alarm(scale):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 3)) * scale
    y = (X[:, 0] > 0).astype(int)
    clf = LogisticRegression(C=1e8, max_iter=1000).fit(X, y)
    for eps in (1e-3 * scale, scale, 100 * scale):
        robust_accuracy_score(clf, X, y, norm=2, eps=eps, n_steps=2, verbose=0)


def test_a_constant_model_raises_no_alarm():
    X, y = np.random.default_rng(0).standard_normal((50, 3)), np.arange(50) % 2
    clf = LogisticRegression(fit_intercept=False).fit(X, y)
    clf.coef_[:] = 0  # as a strong penalty leaves it
    assert robust_accuracy_score(clf, X, y, norm=2, eps=1, verbose=0) == clf.score(X, y)


def test_labels_that_are_unknown_or_wrong_raise_no_alarm(standard, digits):
    X, y = digits[2][:20], digits[3][:20]
    assert robust_accuracy_score(standard, X, y + 100, norm=2, eps=1, verbose=0) == 0
    robust_accuracy_score(standard, X, (standard.predict(X) + 1) % 10, norm=2, eps=1, verbose=0)


def rounded(n_features, n_classes):
    return Around(nn.Linear(n_features, n_classes), before=lambda x: x.round())


def test_relabelling_in_vain_is_told(standard, digits):
    X, y = digits[0][:60], digits[1][:60]
    settings = {"random_state": 0, "verbose": 0, "n_steps": 10}
    for target in ("random", "other", "deterministic"):
        with pytest.warns(ConvergenceWarning, match="keep the features of their own class"):
            NonRobustRelabeler(
                FrozenEstimator(standard), eps=1e-4, target=target, **settings
            ).fit_transform(X, y)
        NonRobustRelabeler(
            FrozenEstimator(standard), eps=2.0, target=target, **settings
        ).fit_transform(X, y)
    rng = np.random.default_rng(0)
    table = rng.standard_normal((80, 5)).astype(np.float32) * 3
    clf = StandardClassifier(rounded, max_epochs=3, random_state=0, verbose=0)
    clf.fit(table, table[:, 0] > 0)
    with pytest.warns(ConvergenceWarning, match="that miss it 100% did not move"):
        relabeler = NonRobustRelabeler(FrozenEstimator(clf), eps=0.5, target="other", **settings)
        relabeler.fit_transform(table, table[:, 0] > 0)


class Rounded(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module((3 * x).round() / 3)


class Rooted(Rounded):
    """The same network, whose gradient is no number at black pixels."""

    def forward(self, x):
        return self.module((x * x).sqrt())


@pytest.mark.parametrize("n", [1, 3])
def test_single_samples_and_copies_of_one_are_told_too(standard, digits, n):
    clf = from_torch(Rounded(standard.module_), classes=range(10), input_shape=(1, 8, 8))
    right = np.flatnonzero(clf.predict(digits[2]) == digits[3])[[0] * n]
    with pytest.warns(EvaluationWarning, match="exactly zero, or no number"):
        adversarial_examples(
            clf, digits[2][right], digits[3][right], norm=2, eps=0.05, n_steps=1, verbose=0
        )


def test_gradients_that_are_no_numbers_are_told(standard, digits):
    clf = from_torch(Rooted(standard.module_), classes=range(10), input_shape=(1, 8, 8))
    with pytest.warns(EvaluationWarning, match="exactly zero, or no number"):
        robust_accuracy_score(
            clf, digits[2][:60], digits[3][:60], norm=2, eps=0.1, n_steps=1, verbose=0
        )


def test_data_that_are_sorted_by_class_are_looked_at_in_all_classes(standard, digits):
    X, y = digits[0], digits[1]
    rows = np.concatenate([np.flatnonzero(y == 0)[:70], np.flatnonzero(y != 0)[:200]])

    def hard(logits):
        said = logits.argmax(1)
        steps = 10.0 * nn.functional.one_hot(said, 10) + 0 * logits
        return torch.where((said == 0)[:, None], logits, steps)

    estimator = Estimator(Around(standard.module_, after=hard))
    with pytest.warns(EvaluationWarning, match="exactly zero"):
        robust_accuracy_score(estimator, X[rows], y[rows], norm=2, eps=0.1, n_steps=1, verbose=0)


class NumbersUpTo(nn.Module):
    """Class 0 everywhere; where the mean of x is large, the logits are no numbers."""

    def forward(self, x):
        mean = x.flatten(1).mean(1)
        logits = torch.stack([1 + 0 * mean, 0.1 * mean, *8 * [0 * mean]], 1)
        return torch.where(mean[:, None] > 0.3, torch.nan, logits)


def test_an_attack_may_lead_where_logits_are_no_numbers():
    """They count as misclassified."""
    X, y = np.zeros((5, 1, 2, 2), dtype=np.float32), np.zeros(5, dtype=int)
    estimator = Estimator(NumbersUpTo())
    assert robust_accuracy_score(estimator, X, y, norm=2, eps=1, verbose=0) == 0
    assert robust_accuracy_score(estimator, X, y, norm=2, eps=0.1, verbose=0) == 1
    examples, fools = adversarial_examples(estimator, X, y, norm=2, eps=1, verbose=0)
    assert fools.all() and (examples.mean(axis=(1, 2, 3)) > 0.3).all()


class Saturated(nn.Module):
    """Its softmax is 1 to the last digit, and its gradient zero."""

    def forward(self, x):
        return 1e4 * torch.cat([-x, x], 1)


def test_samples_that_are_at_their_target_need_not_move():
    y = np.arange(40) % 2
    X = np.where(y[:, None], 9.0, -9.0).astype(np.float32)
    source = from_torch(Saturated().eval(), classes=range(2), input_shape=(1,))
    settings = {"n_steps": 2, "eps": 0.1, "random_state": 0, "verbose": 0}
    relabeler = NonRobustRelabeler(FrozenEstimator(source), target=lambda y: 1 - y, **settings)
    data = relabeler.fit_transform(X, 1 - y)  # labelled wrong: the targets are what it says
    assert relabeler.success_rate_ == 1
    np.testing.assert_array_equal(data.X, X)


@pytest.mark.long
@pytest.mark.parametrize("norm", NORMS)
def test_offsets_beside_which_eps_is_lost_are_told(norm):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3))
    y = (X[:, 0] > 0).astype(int)
    far = (X + 1e5).astype(np.float32)
    attack = {"norm": norm, "eps": 0.01, "verbose": 0}
    lost = pytest.warns(UserWarning, match="float32, which rounds these samples.*eps=0.01")
    linear = LogisticRegression().fit(X, y)
    network = StandardClassifier(max_epochs=1, verbose=0).fit(far, y)
    moved = LogisticRegression().fit(X, y)
    moved.intercept_ = moved.intercept_ - 1e5 * moved.coef_.sum()
    for measure in (
        lambda: robust_accuracy_score(moved, far, y, **attack),
        lambda: adversarial_examples(moved, far, y, **attack),
        lambda: robust_feature_usefulness(network, far, y, **attack),
        lambda: AdversarialClassifier(norm=norm, eps=0.01, max_epochs=2, verbose=0).fit(far, y),
        lambda: NonRobustRelabeler(FrozenEstimator(network), **attack).fit_transform(far, y),
    ):
        with lost, warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.simplefilter("ignore", EvaluationWarning)
            measure()
    robust_accuracy_score(moved, far, y, **{**attack, "eps": 0.5})
    robust_accuracy_score(linear, X, y, **attack)

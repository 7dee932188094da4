"""Fits and constructions give the same bits one after the other, in processes and in threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from joblib import parallel_config
from sklearn.model_selection import GridSearchCV, cross_val_score
from skorch.callbacks import Callback
from torch import nn
from torchvision import models

from advfeat import AdversarialClassifier, StandardClassifier, make_robust_scorer
from advfeat.classifiers.networks import build_network
from advfeat.utils._random import draws_in_training, isolated_torch_seed

N_THREADS, N_REPEATS = 8, 20


class Noisy(nn.Module):
    """Draws from torch's default generator outside of torch's own layers."""

    def __init__(self, n_features, n_classes):
        super().__init__()
        self.fc = nn.Linear(n_features, n_classes)

    def forward(self, x):
        return self.fc(x + torch.randn_like(x) if self.training else x)


def dropout(n_features, n_classes):
    return nn.Sequential(
        nn.Linear(n_features, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, n_classes)
    )


class DrawingCallback(Callback):
    """Moves the weights at random, as a user's callback may."""

    def on_epoch_end(self, net, **kwargs):
        with torch.no_grad():
            for parameter in net.module_.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.01)


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((64, 6)).astype(np.float32)
    return X, (X[:, 0] + X[:, 1] > 0).astype(int)


CASES = {
    "standard": lambda: StandardClassifier(),
    "adversarial": lambda: AdversarialClassifier(n_steps=2),
    "dropout": lambda: AdversarialClassifier(dropout, n_steps=2),
    "own noise": lambda: StandardClassifier(Noisy),
    "callback": lambda: StandardClassifier(callbacks=[DrawingCallback()]),
}


def logits_after_fit(name, X, y, seed):
    clf = CASES[name]().set_params(max_epochs=2, batch_size=32, random_state=seed, verbose=0)
    return clf.fit(X, y).decision_function(X)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("n_repeats", [1, pytest.param(N_REPEATS, marks=pytest.mark.slow)])
def test_fits_in_threads_give_the_bits_of_one_after_the_other(table, name, n_repeats):
    X, y = table
    expected = [logits_after_fit(name, X, y, seed) for seed in range(N_THREADS)]
    with ThreadPoolExecutor(N_THREADS) as pool:
        for _ in range(n_repeats):
            found = pool.map(lambda seed: logits_after_fit(name, X, y, seed), range(N_THREADS))
            for logits, truth in zip(found, expected, strict=True):
                np.testing.assert_array_equal(logits, truth)


def scores_and_search(X, y):
    clf = AdversarialClassifier(max_epochs=2, n_steps=2, random_state=0, verbose=0)
    scorer = make_robust_scorer(norm=2, eps=0.2, n_steps=2, verbose=0)
    scores = cross_val_score(clf, X, y, scoring=scorer, cv=4, error_score="raise")
    search = GridSearchCV(clf, {"eps": [0.1, 1.0]}, scoring=scorer, cv=2, error_score="raise")
    search.fit(X, y)
    tried = search.cv_results_
    return scores, tried["split0_test_score"], tried["split1_test_score"], search.predict_proba(X)


@pytest.mark.long
@pytest.mark.parametrize(
    ("backend", "images"),
    [
        ("threading", False),
        pytest.param("threading", True, marks=pytest.mark.slow),
        pytest.param("loky", True, marks=pytest.mark.slow),
    ],
)
def test_scores_and_searches_do_not_depend_on_the_backend(table, digits, backend, images):
    X, y = (digits[0][:120], digits[1][:120]) if images else table
    expected = scores_and_search(X, y)
    with parallel_config(backend, n_jobs=2):
        for _ in range(3 if backend == "threading" else 1):
            for found, truth in zip(scores_and_search(X, y), expected, strict=True):
                np.testing.assert_array_equal(found, truth)


def test_networks_without_draws_train_at_the_same_time(table):
    X, y = table
    holding, release = threading.Event(), threading.Event()

    def hold():
        with isolated_torch_seed("cpu", 0):
            holding.set()
            assert release.wait(30)

    clf = StandardClassifier(random_state=0, verbose=0)
    clf.partial_fit(X, y)
    with ThreadPoolExecutor(2) as pool:
        held = pool.submit(hold)
        assert holding.wait(30)
        try:
            trained = pool.submit(clf.partial_fit, X, y)
            assert trained.result(timeout=30) is clf  # it did not wait for the other thread
        finally:
            release.set()
        held.result()
    assert len(clf.history_) == 2


@pytest.mark.parametrize(
    ("module", "draws"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.GELU(), nn.Linear(2, 2)), False),
        (models.resnet18(num_classes=2), False),
        (build_network("resnet9", (3, 16, 16), 2, torch.zeros(1), torch.ones(1)), False),
        (models.densenet121(num_classes=2), True),  # not known not to
        (nn.LSTM(2, 2), False),
        (nn.LSTM(2, 2, num_layers=2, dropout=0.1), True),
        (nn.MultiheadAttention(4, 2, dropout=0.1), True),
        (nn.TransformerEncoderLayer(4, 2), True),
        (nn.Sequential(nn.Linear(2, 2), nn.AlphaDropout()), True),
        (nn.RReLU(), True),
        (Noisy(2, 2), True),
        (nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), True),  # not known not to
    ],
)
def test_which_networks_may_draw(module, draws):
    assert draws_in_training(module) is draws


def test_hooks_may_draw():
    module = nn.Linear(2, 2)
    module.register_forward_hook(lambda layer, args, output: output + torch.randn_like(output))
    assert draws_in_training(module)

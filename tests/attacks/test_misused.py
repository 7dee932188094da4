"""Attacks called as other functions are: in the units of bytes, and with predictions."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer

from advfeat import (
    AdversarialClassifier,
    NonRobustRelabeler,
    StandardClassifier,
    adversarial_examples,
    robust_accuracy_score,
    robust_feature_usefulness,
    transfer_rate,
)
from advfeat.exceptions import EvaluationWarning

QUICK = {"max_epochs": 2, "random_state": 0, "verbose": 0}


@pytest.mark.parametrize(("norm", "eps"), [(np.inf, 8), (np.inf, 1.5), (2, 128)])
def test_eps_in_the_scale_of_bytes_is_told(norm, eps):
    rng = np.random.default_rng(0)
    images, y = rng.integers(0, 256, (24, 1, 6, 6), dtype=np.uint8), np.arange(24) % 3
    clf = StandardClassifier(**QUICK).fit(images, y)
    attack = {"norm": norm, "n_steps": 1, "verbose": 0}
    calls = [
        lambda eps: robust_accuracy_score(clf, images, y, eps=eps, **attack),
        lambda eps: adversarial_examples(clf, images, y, eps=eps, **attack),
        lambda eps: robust_feature_usefulness(clf, images, y, eps=eps, **attack),
        lambda eps: transfer_rate(clf, clf, images, y, eps=eps, **attack),
        lambda eps: AdversarialClassifier(**{**QUICK, **attack, "eps": eps}).fit(images, y),
        lambda eps: NonRobustRelabeler(FrozenEstimator(clf), eps=eps, **attack).fit_transform(
            images, y
        ),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", EvaluationWarning)
        for call in calls:
            said = f"eps={eps:g} leads from any .* such as 8 / 255"
            with pytest.warns(UserWarning, match=said) as told:
                call(eps)
            assert {w.filename for w in told} == {__file__}
            call(eps / 255)


@pytest.mark.parametrize("kind", [np.asarray, list, torch.tensor])
def test_predictions_in_the_place_of_the_classifier_are_told(kind):
    y = kind([0, 1, 1])
    with pytest.raises(ValueError, match="must be a fitted classifier.*make_robust_scorer"):
        robust_accuracy_score(y, y, norm=2, eps=0.5)
    scorer = make_scorer(robust_accuracy_score, norm=2, eps=0.5)
    with pytest.raises(ValueError, match="must be a fitted classifier.*make_robust_scorer"):
        scorer(LogisticRegression().fit([[0.0], [1], [2]], y), [[0.0], [1], [2]], y)

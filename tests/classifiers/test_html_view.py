"""What a notebook shows of an estimator: scikit-learn's HTML view."""

import importlib
import re

import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_html_repr
from torch import nn

from advfeat import (
    AdversarialClassifier,
    GaussianRobustMLE,
    NonRobustRelabeler,
    RobustFeatureInverter,
    StandardClassifier,
    from_torch,
)


class OwnNet(nn.Sequential):
    def __init__(self, n_features, n_classes):
        super().__init__(nn.Linear(n_features, n_classes))


def captions(estimator):
    html = estimator_html_repr(estimator)
    assert len(html) < 200_000
    return re.findall('<div class="caption">(.*?)</div>', html)


def table():
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 4)), np.repeat([0, 1], 30)


@pytest.mark.parametrize(
    ("estimator", "caption"),
    [
        (StandardClassifier(), "network: auto"),
        (AdversarialClassifier("resnet18"), "network: resnet18"),
        (StandardClassifier(OwnNet), "network: OwnNet"),
        (StandardClassifier(nn.Linear(4, 2)), "network: &lt;Linear&gt;"),
        (make_pipeline(NonRobustRelabeler(), StandardClassifier("mlp")), "network: mlp"),
        (GridSearchCV(StandardClassifier("mlp"), {}), "network: mlp"),
    ],
)
def test_before_training_the_network_is_named(estimator, caption):
    assert captions(estimator)[-1] == caption


def test_after_training_the_network_its_size_and_the_last_epoch_are_shown(standard):
    (line,) = captions(standard)
    size = sum(parameter.numel() for parameter in standard.module_.parameters())
    loss = standard.history_[-1]["train_loss"]
    assert line == f"small_cnn, {size:,} parameters; epoch 15: train_loss {loss:.3g}"


def test_accuracies_that_were_measured_are_shown():
    clf = StandardClassifier(OwnNet, max_epochs=2, early_stopping=True, random_state=0)
    (line,) = captions(clf.fit(*table()))
    last = clf.history_[-1]
    assert line.startswith("&lt;OwnNet&gt;, 10 parameters; epoch 2: train_loss ")
    assert f"valid_acc {last['valid_acc']:.3g}" in line
    assert "best" not in line


def test_networks_from_elsewhere_have_no_curve():
    clf = from_torch(nn.Linear(4, 2), classes=[0, 1], input_shape=(4,))
    assert captions(clf) == ["&lt;Linear&gt;, 10 parameters"]


def test_constructors_show_their_source(digits, standard):
    X, y, _, _ = digits
    assert captions(RobustFeatureInverter()) == ["network: auto"]
    assert "AdversarialClassifier" in estimator_html_repr(RobustFeatureInverter())
    inverter = RobustFeatureInverter(FrozenEstimator(standard)).fit(X, y)
    assert captions(inverter) == captions(standard)
    source = StandardClassifier("mlp", max_epochs=2, random_state=0, verbose=0)
    relabeler = NonRobustRelabeler(source).fit(X, y)
    assert captions(relabeler) == captions(relabeler.estimator_)
    assert "epoch 2: train_loss" in captions(relabeler)[0]


@pytest.mark.parametrize(
    ("estimator", "page"),
    [
        (StandardClassifier(), "advfeat.StandardClassifier"),
        (AdversarialClassifier(), "advfeat.AdversarialClassifier"),
        (RobustFeatureInverter(), "advfeat.RobustFeatureInverter"),
        (NonRobustRelabeler(), "advfeat.NonRobustRelabeler"),
        (GaussianRobustMLE(), "advfeat.GaussianRobustMLE"),
        (
            from_torch(nn.Linear(4, 2), classes=[0, 1], input_shape=(4,)),
            "advfeat.classifiers.TorchClassifier",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_view_links_to_the_page_of_the_class(estimator, page):
    module, name = page.rpartition(".")[::2]
    assert getattr(importlib.import_module(module), name) is type(estimator)
    link = f"https://advfeat.readthedocs.io/en/stable/api/{page}.html"
    assert f'href="{link}"' in estimator_html_repr(estimator)
    assert f'href="{link}"' in estimator_html_repr(make_pipeline(estimator))


def test_a_subclass_of_ones_own_links_nowhere():
    class OwnClassifier(StandardClassifier):
        pass

    assert "readthedocs" not in estimator_html_repr(OwnClassifier())

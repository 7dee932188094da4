"""A network that cannot be trained is told so in one line, before the training."""

import functools
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torchvision
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback
from torch import nn

from advfeat import AdversarialClassifier, StandardClassifier

BOTH = [StandardClassifier, AdversarialClassifier]


class NoTraining(Callback):
    """Fail if a training begins."""

    def on_train_begin(self, net, **kwargs):
        raise AssertionError("the training began")


def refused(make, network, X, y, **settings):
    clf = make(network, callbacks=[NoTraining()], verbose=0, **settings)
    with pytest.raises(ValueError) as error:
        clf.fit(X, y)
    assert not hasattr(clf, "net_") and "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def images():
    X = np.random.default_rng(0).random((20, 3, 12, 12), dtype=np.float32)
    return X, np.arange(20) % 4


@pytest.fixture(scope="module")
def table():
    return np.random.default_rng(0).random((20, 5), dtype=np.float32), np.arange(20) % 2


def test_functions_of_torchvision_get_the_number_of_classes(images):
    clf = StandardClassifier(torchvision.models.resnet18, max_epochs=1, verbose=0).fit(*images)
    assert clf.net_.module_.body.fc.out_features == 4


def test_a_function_that_refuses_it_is_named(images):
    def strict(**options):
        raise TypeError(f"unexpected: {sorted(options)}")

    message = refused(StandardClassifier, strict, *images)
    assert "cannot be built: unexpected: ['num_classes']" in message


@pytest.mark.parametrize("make", BOTH)
def test_further_outputs_in_training_mode(make, images):
    class Auxiliary(nn.Sequential):
        def __init__(self, n_classes):
            super().__init__(nn.Flatten(), nn.Linear(432, n_classes))

        def forward(self, x):
            logits = super().forward(x)
            return (logits, logits) if self.training else logits

    message = refused(make, Auxiliary, *images)
    assert "In training mode network=" in message
    assert "it returned tuple; switch further outputs off (aux_logits=False" in message


def test_googlenet_with_its_auxiliary_heads():
    X = np.random.default_rng(0).random((4, 3, 64, 64), dtype=np.float32)
    network = functools.partial(torchvision.models.googlenet, init_weights=False)
    message = refused(StandardClassifier, network, X, np.arange(4) % 2)
    assert "GoogLeNetOutputs" in message and "aux_logits=False" in message


class Normed(nn.Sequential):
    """Batch-norm of single values."""

    def __init__(self, n_features, n_classes):
        super().__init__(
            nn.Linear(n_features, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, n_classes)
        )


@pytest.mark.parametrize("make", BOTH)
def test_batches_of_one_sample_with_batch_norm(make, table):
    message = refused(make, Normed, *table, batch_size=1)
    assert "Batch-norm cannot train on batches of one sample: use a larger batch_size" in message
    clf = StandardClassifier(Normed, verbose=0)
    with pytest.raises(ValueError, match="use a larger batch_size"):
        clf.partial_fit(table[0][:1], table[1][:1], classes=[0, 1])
    make(Normed, batch_size=2, max_epochs=1, verbose=0).fit(*table)
    make("mlp", batch_size=1, max_epochs=1, verbose=0).fit(*table)  # without batch-norm


def test_warm_start_after_another_network(table):
    clf = StandardClassifier("mlp", warm_start=True, max_epochs=1, verbose=0).fit(*table)
    before = clf.decision_function(table[0])
    clf.set_params(network=Normed, callbacks=[NoTraining()])
    with pytest.raises(ValueError, match="warm_start=True .*Take the network of the last fit"):
        clf.fit(*table)
    np.testing.assert_array_equal(
        clf.set_params(network="mlp").decision_function(table[0]), before
    )


class Detached(nn.Sequential):
    """No gradient reaches the input."""

    def __init__(self, n_features, n_classes):
        super().__init__(nn.Linear(n_features, n_classes))

    def forward(self, x):
        return super().forward(x.detach())


def test_adversarial_training_without_a_gradient_to_the_input(table):
    message = refused(AdversarialClassifier, Detached, *table)
    assert "passes no gradient to its input" in message and "StandardClassifier" in message
    StandardClassifier(Detached, max_epochs=1, verbose=0).fit(*table)


class Rounded(Detached):
    """The gradient to the input is zero."""

    def forward(self, x):
        return nn.Sequential.forward(self, torch.round(8 * x) / 8)


@pytest.mark.parametrize("random_start", [False, True])
def test_adversarial_training_with_zero_gradients_warns(table, random_start):
    for early_stopping in (False, True):
        with pytest.warns(ConvergenceWarning, match="The attack moved no sample") as told:
            AdversarialClassifier(
                Rounded,
                n_steps=7,
                random_start=random_start,
                max_epochs=2,
                early_stopping=early_stopping,
                verbose=0,
            ).fit(*table)
        assert len(told) == 1
    # Without a perturbation there is nothing to move.
    AdversarialClassifier(Rounded, eps=0.0, max_epochs=1, verbose=0).fit(*table)


@pytest.mark.parametrize("random_start", [False, True])
def test_zero_gradients_are_told_on_images_too(digits, random_start):
    """Random starts are clipped to the box, which is no step of the attack."""

    class RoundedImages(nn.Module):
        def __init__(self, n_classes):
            super().__init__()
            self.linear = nn.Linear(64, n_classes)

        def forward(self, x):
            return self.linear(torch.round(8 * x).flatten(1) / 8)

    with pytest.warns(ConvergenceWarning, match="The attack moved no sample"):
        AdversarialClassifier(
            RoundedImages, random_start=random_start, max_epochs=1, verbose=0
        ).fit(digits[0][:100], digits[1][:100])


@pytest.mark.parametrize("given", ["class", "module"])
def test_modules_may_have_a_method_predict(table, given):
    class Predicts(nn.Sequential):
        def __init__(self, n_features, n_classes):
            super().__init__(nn.Linear(n_features, n_classes))

        def predict(self, x):
            return self(x).argmax(1)

    module = Predicts(table[0].shape[1], len(np.unique(table[1])))
    network = Predicts if given == "class" else module
    clf = StandardClassifier(network, max_epochs=1, random_state=0, verbose=0).fit(*table)
    assert len(clf.predict(table[0])) == len(table[0])


def test_a_head_of_zeros_is_no_fault(table):
    class ZeroHead(nn.Sequential):
        def __init__(self, n_features, n_classes):
            super().__init__(nn.Linear(n_features, 4), nn.ReLU(), nn.Linear(4, n_classes))
            nn.init.zeros_(self[2].weight)

    AdversarialClassifier(ZeroHead, batch_size=4, max_epochs=1, random_state=0, verbose=0).fit(
        *table
    )


def test_a_trial_in_training_mode_leaves_no_trace(table):
    """Neither batch-norm statistics nor the draws of dropout are moved by the check."""
    counts = []

    class Net(Normed):
        def __init__(self, n_features, n_classes):
            super().__init__(n_features, n_classes)
            self.insert(3, nn.Dropout(0.5))

    class Look(Callback):
        def on_train_begin(self, net, **kwargs):
            counts.append(int(net.module_.body[1].num_batches_tracked))

    StandardClassifier(Net, callbacks=[Look()], max_epochs=1, verbose=0).fit(*table)
    assert counts == [0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_tensors_of_other_precision(dtype, table):
    X, y = table
    x = torch.from_numpy(X).to(dtype)
    clf = StandardClassifier(max_epochs=1, random_state=0, verbose=0).fit(x, y)
    np.testing.assert_array_equal(clf.predict(x), clf.predict(x.float().numpy()))


@pytest.mark.parametrize(
    "end",
    [
        lambda n: [nn.LazyLinear(n)],
        lambda n: [nn.Linear(5, n), nn.PReLU()],
        lambda n: [nn.Linear(5, n), nn.BatchNorm1d(n)],
    ],
)
def test_functions_may_build_layers_of_any_kind(end, table):
    def build(n_classes):
        return nn.Sequential(nn.Flatten(), *end(n_classes))

    StandardClassifier(build, max_epochs=1, verbose=0).fit(*table)  # warnings are errors


def test_functions_may_give_other_layers_each_time(table):
    names = iter("abcdefgh")

    def build(n_features, n_classes):
        return nn.Sequential(OrderedDict({next(names): nn.Linear(n_features, n_classes)}))

    StandardClassifier(build, max_epochs=1, verbose=0).fit(*table)


@pytest.mark.parametrize("affine", [True, False])
def test_lazy_statistics_of_a_module(affine, table):
    def build():
        norm = nn.LazyBatchNorm1d(affine=affine)
        return nn.Sequential(nn.Flatten(), norm, nn.LazyLinear(len(np.unique(table[1]))))

    module = build()
    with pytest.raises(ValueError, match="lazy layers .* no shape yet. Run it once on a batch"):
        StandardClassifier(module, max_epochs=1, verbose=0).fit(*table)
    StandardClassifier(build, max_epochs=1, verbose=0).fit(*table)
    module(torch.from_numpy(table[0]))
    StandardClassifier(module, max_epochs=1, verbose=0).fit(*table)

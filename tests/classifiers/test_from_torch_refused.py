"""What `from_torch` refuses, in one line."""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from torch import nn
from torch.utils.data import TensorDataset

from advfeat import (
    NonRobustRelabeler,
    StandardClassifier,
    from_torch,
    robust_accuracy_score,
)

IMAGES = {"classes": range(10), "input_shape": (1, 8, 8)}


class Returns(nn.Module):
    """Network with another last step."""

    def __init__(self, last, n_outputs=3):
        super().__init__()
        self.layer, self.last = nn.Linear(4, n_outputs), last

    def forward(self, x):
        return self.last(self.layer(x))


def no_grad(z):
    return z.detach()


REFUSED = {
    "tuple": (lambda: Returns(lambda z: (z, z)), "as a tensor. It returned a tuple of 2"),
    "dict": (
        lambda: Returns(lambda z: {"out": z, "aux": z}),
        "a dict of 'out', 'aux'; return one",
    ),
    "nothing": (lambda: Returns(lambda z: None), "It returned NoneType"),
    "probabilities": (lambda: Returns(lambda z: z.softmax(1)), "probabilities .*softmax away"),
    "two classes": (
        lambda: Returns(lambda z: z, 2),
        r"\(n, 3\).*For one sample it returned \(1, 2\)",
    ),
    "squeezed": (lambda: Returns(lambda z: z.squeeze()), r"returned \(3,\)"),
    "one row": (lambda: Returns(lambda z: z[:1]), r"For two samples it returned \(1, 3\)"),
    "no gradient": (lambda: Returns(no_grad), "no gradient with respect to its input"),
    "raises": (lambda: Returns(lambda z: {}["key"]), "failed on one sample of shape .4,.*'key'"),
    "scripted": (lambda: torch.jit.script(nn.Linear(4, 3)), "torch.jit modules are not supported"),
    "scripted inside": (
        lambda: nn.Sequential(torch.jit.trace(nn.Linear(4, 3), torch.zeros(1, 4))),
        "torch.jit modules are not supported",
    ),
    "double": (
        lambda: nn.Linear(4, 3).double(),
        "must be float32. weight of <Linear> is torch.float64",
    ),
    "half": (lambda: nn.Linear(4, 3).half(), "must be float32"),
    "meta": (lambda: nn.Linear(4, 3, device="meta"), "meta device"),
}


@pytest.mark.filterwarnings("ignore:.torch.jit")
@pytest.mark.parametrize("kind", REFUSED)
def test_networks_that_do_not_fit(kind):
    module, reason = REFUSED[kind]
    with pytest.raises(ValueError, match=reason) as caught:
        from_torch(module(), classes=["a", "b", "c"], input_shape=(4,))
    assert "\n" not in str(caught.value)


def test_one_logit_for_two_classes():
    for last in (lambda z: z, lambda z: z[:, 0]):
        with pytest.raises(ValueError, match=r"One logit z for two classes: return torch.stack"):
            from_torch(Returns(last, 1), classes=[0, 1], input_shape=(4,))


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        ({"module": nn.Linear}, TypeError, "the class Linear; pass a trained instance"),
        ({"module": {"weight": 1}}, TypeError, "a dict; load a state dict into"),
        ({"module": StandardClassifier()}, TypeError, "an estimator, which needs no from_torch"),
        ({"module": "net.pt"}, TypeError, "Got str"),
        ({"module": None}, TypeError, "Got NoneType"),
        ({"classes": 3}, ValueError, r"such as range\(10\)"),
        ({"classes": [["a"], ["b"]]}, ValueError, r"of shape \(2, 1\)"),
        ({"classes": ["a"]}, ValueError, "of 2 at least"),
        ({"classes": ["a", "b", "a"]}, ValueError, "some labels are repeated"),
        ({"classes": [0.5, 1.5, 2.5]}, ValueError, "Got float"),
        ({"classes": np.array(["a", 1, 2], dtype=object)}, ValueError, "Got int, str"),
        ({"classes": range(4)}, ValueError, r"\(n, 4\).*returned \(1, 3\)"),
        ({"input_shape": 4}, ValueError, r"such as \(3, 32, 32\)"),
        ({"input_shape": (2, 2)}, ValueError, r"such as \(3, 32, 32\)"),
        ({"input_shape": (5,)}, ValueError, r"failed on one sample of shape \(5,\)"),
        ({"mean": [1, 2, 3]}, ValueError, "mean must be a number, or 4, one for each feature"),
        ({"mean": "x"}, ValueError, "mean must be a number"),
        ({"std": 0}, ValueError, "std must be positive"),
        ({"std": [1, 1, -1, 1]}, ValueError, "std must be positive"),
        ({"std": np.nan}, ValueError, "std must be a number"),
        ({"mean": 125, "bounds": (0, 1)}, ValueError, "input units.*divide the mean and std"),
        ({"bounds": (1, 0)}, ValueError, "'bounds' parameter of TorchClassifier"),
        ({"device": "nope"}, ValueError, "'device' parameter"),
    ],
)
def test_wrong_arguments(change, error, reason):
    given = {"module": nn.Linear(4, 3), "classes": range(3), "input_shape": (4,), **change}
    with pytest.raises(error, match=reason) as caught:
        from_torch(given.pop("module"), **given)
    assert "\n" not in str(caught.value)
    clf = from_torch(nn.Linear(4, 3), classes=range(3), input_shape=(4,))
    before = clf.get_params()
    with pytest.raises(error, match=reason):
        clf.set_params(**change)
    assert clf.get_params() == before


def test_a_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no usable CUDA device"):
        from_torch(nn.Linear(4, 3), classes=range(3), input_shape=(4,), device="cuda")


@pytest.mark.parametrize("classes", [["no", 1], [True, 2], (1, "1"), [np.str_("a"), np.int64(1)]])
def test_classes_of_several_types_are_refused(classes):
    with pytest.raises(ValueError, match="all integers, all booleans or all strings"):
        from_torch(nn.Linear(4, 2), classes=classes, input_shape=(4,))


def test_lists_of_scalars_of_one_type_are_classes():
    for classes in ([np.int64(3), np.int64(1)], list(torch.tensor([3, 1])), [True, False]):
        clf = from_torch(nn.Linear(4, 2), classes=classes, input_shape=(4,))
        assert clf.classes_.tolist() == sorted(int(label) for label in classes)


def test_fit_compares_the_labels_of_a_dataset():
    clf = from_torch(nn.Linear(4, 2), classes=[0, 1], input_shape=(4,))
    X = torch.zeros(6, 4)
    clf.fit(TensorDataset(X, torch.tensor([0, 1] * 3)))
    with pytest.raises(ValueError, match="labels that are not among the classes"):
        clf.fit(TensorDataset(X, torch.full((6,), 77)))


def test_missing_values_of_frames_are_named():
    pandas = pytest.importorskip("pandas")
    clf = from_torch(nn.Linear(2, 2), classes=[0, 1], input_shape=(2,))
    frame = pandas.DataFrame({"a": [1.0, None], "b": [1.0, 2.0]}).astype("Float64")
    assert str(frame.dtypes["a"]) == "Float64"
    with pytest.raises(ValueError, match="Input X contains NaN"):
        clf.predict(frame)


class Touchy(nn.Module):
    """Stands for a deep network of which float32 makes other logits in another batch."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        lost = 0.01 * len(x) if x.dtype == torch.float32 else 0.0
        return self.last(x) + lost


def test_rounding_that_a_network_blows_up_does_not_mix_samples():
    clf = from_torch(Touchy(), classes=range(3), input_shape=(4,))
    assert clf.predict(np.zeros((5, 4), np.float32)).shape == (5,)


class Smoothed(nn.Module):
    """Averages its logits over noise of a fixed seed."""

    def __init__(self, for_batch):
        super().__init__()
        self.net, self.for_batch = nn.Linear(4, 3), for_batch

    def forward(self, x):
        generator = torch.Generator().manual_seed(0)
        shape = x.shape if self.for_batch else x.shape[1:]
        noisy = (x + torch.randn(shape, generator=generator) for _ in range(5))
        return sum(map(self.net, noisy)) / 5


def test_noise_of_a_fixed_seed_is_that_of_each_sample():
    with pytest.raises(ValueError, match="noise of a fixed seed be the same for all samples"):
        from_torch(Smoothed(True), classes=range(3), input_shape=(4,))
    clf = from_torch(Smoothed(False), classes=range(3), input_shape=(4,))
    X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    y = clf.predict(X)
    assert robust_accuracy_score(clf, X, y, norm=2, eps=0) == 1
    relabeler = NonRobustRelabeler(FrozenEstimator(clf), n_steps=2, random_state=0, verbose=0)
    assert len(relabeler.fit_transform(X, y)) == 8

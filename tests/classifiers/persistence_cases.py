"""Classifiers written to files and read again."""

import json

from numpy.testing import assert_array_equal
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from advfeat import (
    adversarial_examples,
    load,
    save,
)

QUICK = {"max_epochs": 1, "random_state": 0, "verbose": 0}


class Own(nn.Sequential):
    def __init__(self, n_classes):
        super().__init__(
            nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
            nn.Linear(144, n_classes),
        )  # fmt: skip


def again(clf, path, **given):
    save(clf, path)
    return load(path, **given)


def same(one, other, X, y, attacked=True):
    assert type(one) is type(other)
    assert_array_equal(one.predict(X), other.predict(X))
    assert one.predict(X).dtype == other.predict(X).dtype
    for method in ("decision_function", "predict_proba", "features"):
        assert_array_equal(getattr(one, method)(X), getattr(other, method)(X))
    assert one.classes_.dtype == other.classes_.dtype
    assert_array_equal(one.classes_, other.classes_)
    if attacked:
        attack = {"norm": 2, "eps": 0.3, "n_steps": 3, "verbose": 0}
        ours, theirs = (adversarial_examples(c, X[:20], y[:20], **attack) for c in (one, other))
        assert_array_equal(ours[0], theirs[0])


def edit(path, change, keep_checksum=False):
    """Change the header of a file, as someone with an editor would, or as we would."""
    from advfeat.classifiers._persistence import _checksum

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header = json.loads(metadata["advfeat"])
    change(header)
    text = json.dumps(header)
    checksum = metadata["checksum"] if keep_checksum else _checksum(text, tensors)
    save_file(tensors, path, {"advfeat": text, "checksum": checksum})

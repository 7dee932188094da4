"""Trainings and evaluations that go on where a run that was killed left them.

Their parts (an epoch, 2,000 test images, one radius of AutoAttack) lie in a folder of the stage:
see `Stages.get`.
"""

import contextlib
import io
import json
import zipfile

import numpy as np
import torch
from skorch.callbacks import Callback
from skorch.history import History

import measures
from advfeat.classifiers._callbacks import OURS
from advfeat.utils._files import writing
from advfeat.utils._random import draws_in_training
from files import read_json, write_text

_ROWS = 2000  # test images of a part


def trained(classifier, X, y, folder):
    """Train, after the last epoch that the folder holds, to the same bits as in one go."""
    folder.mkdir(exist_ok=True)
    keeping = EpochKept(folder / "epoch.pt")
    classifier.set_params(callbacks=[*(classifier.callbacks or []), keeping])
    return classifier.fit(X, y)


def evaluated(classifier, X, y, eps_values, attack, folder):
    """Give `measures.accuracy_curve` by parts; what the folder holds is not measured again.

    The attack draws its random starts for each part anew: more than 2,000 images get others than
    in one go.
    """
    folder.mkdir(exist_ok=True)
    eps_values = tuple(eps_values)
    right = [0] * (1 + len(eps_values))
    for begin in range(0, len(X), _ROWS):
        part = slice(begin, begin + _ROWS)
        path = folder / f"right-from-{begin}.json"
        found = read_json(path).get("right") if path.exists() else None
        if not _are_counts(found, len(right), len(X[part])):
            curve = measures.accuracy_curve(classifier, X[part], y[part], eps_values, attack)
            found = [round(share * len(X[part])) for share in curve.values()]
            _write(path, {"right": found})
        right = [old + new for old, new in zip(right, found, strict=True)]
    return {eps: n / len(X) for eps, n in zip((0.0, *eps_values), right, strict=True)}


def autoattack_curve(classifier, X, y, eps_values, folder):
    """Share that withstands AutoAttack at each eps; one that the folder holds is not run again."""
    folder.mkdir(exist_ok=True)
    rows, curve = np.arange(len(X)), {}
    for eps in sorted(eps_values):  # who falls at a small eps falls at every larger one
        path = folder / f"withstand-{eps}.json"
        found = read_json(path).get("rows") if path.exists() else None
        if not isinstance(found, list) or not set(rows.tolist()).issuperset(map(_hashed, found)):
            withstand = measures.withstand_autoattack(classifier, X[rows], y[rows], eps)
            found = rows[withstand].tolist()
            _write(path, {"rows": found})
        rows = np.array(found, dtype=int)
        curve[eps] = len(rows) / len(X)
    return curve


def _are_counts(found, n, most):
    """Whether what a file holds are n counts of up to so many images."""
    return (
        isinstance(found, list)
        and len(found) == n
        and all(type(count) is int and 0 <= count <= most for count in found)
    )


def _hashed(value):
    return value if type(value) is int else None


class EpochKept(Callback):
    """Keeps the training after each epoch, and goes on with what it finds.

    It stands last among the callbacks: what the others do to the network after an epoch is kept,
    too. It knows those of the benchmarks alone: no early stopping. A network that may draw in
    training, such as one with dropout, is not kept, as its draws are those of a whole training.
    """

    def __init__(self, path):
        self.path = path

    def on_train_begin(self, net, **kwargs):
        """Go on where the file stops."""
        self.max_epochs_ = net.max_epochs
        if self.path.exists():
            try:
                with zipfile.ZipFile(self.path) as archive:
                    bad = archive.testzip()  # torch compares no checksums
                if bad:
                    raise ValueError(f"{bad} does not have its checksum")
                state = torch.load(self.path, map_location=net.device, weights_only=True)
            except Exception as error:  # whatever reading half a file raises
                print(f"The file {self.path} is damaged ({error!r:.80}): training begins anew.")
                return
            _restore(net, state)

    def on_epoch_end(self, net, **kwargs):
        """Keep the training as it stands."""
        if draws_in_training(net.module_):
            return
        state = io.BytesIO()  # torch turns the error of a full disk into others
        torch.save(_state(net), state)
        with contextlib.suppress(OSError), writing(self.path) as file:  # as `_write`
            file.write(state.getbuffer())

    def on_train_end(self, net, **kwargs):
        """Leave the net with all its epochs."""
        net.max_epochs = self.max_epochs_


def _state(net):
    schedule = dict(net.callbacks_)[OURS + "schedule"].lr_scheduler_
    return {
        "module": net.module_.state_dict(),
        "optimizer": net.optimizer_.state_dict(),
        "schedule": schedule.state_dict(),
        "history": json.dumps(net.history, default=lambda value: value.item()),
        "attack": getattr(net, "attack", None),
    }


def _restore(net, state):
    callbacks = dict(net.callbacks_)
    net.module_.load_state_dict(state["module"])
    net.optimizer_.load_state_dict(state["optimizer"])  # with its learning rate
    callbacks[OURS + "schedule"].lr_scheduler_.load_state_dict(state["schedule"])
    net.history_ = History(json.loads(state["history"]))
    callbacks["train_loss"].best_score_ = min(net.history_[:, "train_loss"])
    callbacks[OURS + "progress"].bar_.update(state["schedule"]["last_epoch"])  # batches
    net.max_epochs -= len(net.history_)
    if state["attack"] is not None:
        net.attack = state["attack"]  # the guard may have changed it
        callbacks[OURS + "guard"].on_train_begin(net)  # this is what it goes back to


def _write(path, found):
    """Write a part; a full disk, which the whole may still fit on, stops nothing."""
    with contextlib.suppress(OSError):
        write_text(path, json.dumps(found))

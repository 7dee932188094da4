"""Trainings and evaluations of the benchmarks go on where they were killed, to the same bits."""

import contextlib
import dataclasses
import io
import warnings

import numpy as np
import pytest
import torch

import making
import measures
import resuming
from advfeat import AdversarialClassifier, StandardClassifier
from advfeat.classifiers import _overfitting
from experiment import Experiment
from presets import PRESETS
from resuming import EpochKept, autoattack_curve, evaluated, trained
from stages import Stages


class Killed(Exception):
    """Stands for whatever ends a process."""


def _standard(**changes):
    settings = {"network": "small_cnn", "max_epochs": 5, "augmentation": "flip-crop"}
    return StandardClassifier(**{**settings, "random_state": 3, "verbose": 0, **changes})


def _adversarial(**changes):
    settings = {"max_epochs": 4, "eps": 1.0, "n_steps": 2, "random_state": 3, "verbose": 0}
    return AdversarialClassifier("small_cnn", **{**settings, **changes})


def _followed(digits):
    return _standard(callbacks=[making.TestAccuracy(digits[2], digits[3], range(10))])


def _killed_after(monkeypatch, n_epochs):
    """Kill trainings once so many epochs are kept."""
    keep = EpochKept.on_epoch_end

    def killed(self, net, **kwargs):
        keep(self, net, **kwargs)
        if len(net.history) == n_epochs:
            raise Killed

    monkeypatch.setattr(EpochKept, "on_epoch_end", killed)


def _same(clf, other):
    ours, theirs = clf.module_.state_dict(), other.module_.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for part, whole in zip(clf.history_, other.history_, strict=True):
        drop = ("dur", "batches")
        assert {k: v for k, v in part.items() if k not in drop} == {
            k: v for k, v in whole.items() if k not in drop
        }
    ours, theirs = clf.net_.optimizer_.state_dict(), other.net_.optimizer_.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    for index, state in ours["state"].items():  # the momentum
        assert torch.equal(state["momentum_buffer"], theirs["state"][index]["momentum_buffer"])
    assert clf.net_.max_epochs == other.net_.max_epochs


@pytest.mark.long
@pytest.mark.parametrize("after", [1, 3, "all"])
@pytest.mark.parametrize("make", [_standard, _adversarial, _followed])
def test_a_training_goes_on_after_its_last_epoch(make, after, tmp_path, monkeypatch, digits):
    X, y = digits[0][:200], digits[1][:200]
    make = make if make is not _followed else lambda: _followed(digits)
    whole = make().fit(X, y)
    n_epochs = whole.max_epochs if after == "all" else after
    with monkeypatch.context() as patch:
        _killed_after(patch, n_epochs)
        with pytest.raises(Killed):
            trained(make(), X, y, tmp_path / "parts")
    seen = []
    epoch = resuming.EpochKept.on_epoch_begin
    monkeypatch.setattr(
        EpochKept, "on_epoch_begin", lambda *args, **kw: (seen.append(1), epoch(*args, **kw))
    )
    _same(trained(make(), X, y, tmp_path / "parts"), whole)
    assert len(seen) == whole.max_epochs - n_epochs  # no epoch twice


@pytest.mark.parametrize("lr_schedule", ["one-cycle", "step", "constant"])
def test_a_training_killed_after_every_epoch_is_the_same(
    lr_schedule, tmp_path, monkeypatch, digits
):
    X, y = digits[0][:130], digits[1][:130]
    whole = _standard(lr_schedule=lr_schedule).fit(X, y)
    for n_epochs in range(1, whole.max_epochs):
        with monkeypatch.context() as patch:
            _killed_after(patch, n_epochs)
            with pytest.raises(Killed):
                trained(_standard(lr_schedule=lr_schedule), X, y, tmp_path)
    _same(trained(_standard(lr_schedule=lr_schedule), X, y, tmp_path), whole)


@pytest.mark.long
@pytest.mark.parametrize("after", [1, 2, 3])
def test_the_guard_goes_on_where_it_was(after, tmp_path, monkeypatch, digits):
    """It strikes in the second epoch, before or after the training is killed."""
    X, y = digits[0][:200], digits[1][:200]
    found = {1: (0.9, 0.9), 2: (0.9, 0.0)}
    monkeypatch.setattr(
        _overfitting.OverfittingGuard,
        "_accuracies",
        lambda self, net, data: found.get(len(net.history), (0.9, 0.9)),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Catastrophic overfitting")
        whole = _adversarial().fit(X, y)
        with monkeypatch.context() as patch:
            _killed_after(patch, after)
            with pytest.raises(Killed):
                trained(_adversarial(), X, y, tmp_path)
        clf = trained(_adversarial(), X, y, tmp_path)
    assert [epoch["attack_steps"] for epoch in whole.history_] == [2, 2, 7, 7]
    _same(clf, whole)
    assert clf.net_.attack == whole.net_.attack


def test_a_network_that_draws_begins_anew(tmp_path, monkeypatch, digits):
    """Its draws are those of a whole training."""
    X, y = digits[0][:100], digits[1][:100]

    def make():
        torch.manual_seed(0)
        network = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(X[0].size, 10)
        )
        return _standard(network=network, max_epochs=3)

    whole = make().fit(X, y)
    with monkeypatch.context() as patch:
        _killed_after(patch, 2)
        with pytest.raises(Killed):
            trained(make(), X, y, tmp_path)
    _same(trained(make(), X, y, tmp_path), whole)


def test_a_damaged_epoch_is_said_and_the_training_begins_anew(
    tmp_path, monkeypatch, capsys, digits
):
    X, y = digits[0][:100], digits[1][:100]
    with monkeypatch.context() as patch:
        _killed_after(patch, 2)
        with pytest.raises(Killed):
            trained(_standard(), X, y, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    clf = trained(_standard(), X, y, tmp_path)
    assert "is damaged" in capsys.readouterr().out
    _same(clf, _standard().fit(X, y))


def test_a_full_disk_stops_neither_training_nor_evaluation(tmp_path, monkeypatch, digits):
    X, y = digits[0][:100], digits[1][:100]

    def full(*args):
        raise OSError(28, "No space left on device")

    @contextlib.contextmanager
    def full_after_a_bit(path):
        class File(io.BytesIO):
            def write(self, data):
                return super().write(data) if self.tell() + len(data) < 5000 else full()

        yield File()

    monkeypatch.setattr(resuming, "writing", full_after_a_bit)
    monkeypatch.setattr(resuming, "write_text", full)
    clf = trained(_standard(max_epochs=2), X, y, tmp_path)
    found = evaluated(clf, X, y, (0.5,), {"norm": 2, "n_steps": 1}, tmp_path)
    assert found.keys() == {0.0, 0.5}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.parametrize("name", ["standard", "adversarial", "D_other"])
def test_stages_go_on_in_the_middle(name, tmp_path, monkeypatch, digits):
    """Training and evaluation of a row, killed once each: as in one go, and nothing is left."""
    preset = PRESETS["digits"]
    preset = dataclasses.replace(
        preset,
        training={key: dataclasses.replace(row, epochs=3) for key, row in preset.training.items()},
        relabelling=dataclasses.replace(preset.relabelling, n_steps=2),
        attack_steps=2,
    )
    X, y, X_test, y_test = digits
    data = X[:200], y[:200], X_test[:150], y_test[:150]
    monkeypatch.setattr(resuming, "_ROWS", 50)

    def row_of(folder):
        return Experiment(preset, data, 0, Stages(folder))

    whole = row_of(tmp_path / "whole").records(name)
    folder = tmp_path / "stages"
    if name == "D_other":
        row_of(folder).constructed(name)
    with monkeypatch.context() as patch:
        _killed_after(patch, 2)
        with pytest.raises(Killed):
            row_of(folder).classifier(name)

    measure = measures.accuracy_curve

    def killed(*args):
        if list(folder.glob("evaluate*.parts/*")):
            raise Killed
        return measure(*args)

    with monkeypatch.context() as patch:
        patch.setattr(measures, "accuracy_curve", killed)
        with pytest.raises(Killed):
            row_of(folder).records(name)
    assert len(list(folder.glob("*.parts/*"))) == 1
    n_measured = []
    monkeypatch.setattr(
        measures, "accuracy_curve", lambda *args: (n_measured.append(1), measure(*args))[1]
    )
    assert row_of(folder).records(name) == whole
    assert len(n_measured) == 2  # parts; the first of the three was kept
    assert not list(folder.glob("*.parts")) and not list(folder.glob("*.begun"))


@pytest.mark.long
def test_an_evaluation_goes_on_at_its_parts(tmp_path, monkeypatch, standard, digits):
    X, y = digits[0][:350], digits[1][:350]
    attack, eps_values, measure, begun = (
        {"norm": 2, "n_steps": 3},
        (0.25, 0.5),
        measures.accuracy_curve,
        [],
    )
    monkeypatch.setattr(resuming, "_ROWS", 100)
    whole = evaluated(standard, X, y, eps_values, attack, tmp_path / "whole")

    def killed(classifier, X, *args):
        begun.append(len(X))
        if len(begun) == 3:
            raise Killed
        return measure(classifier, X, *args)

    monkeypatch.setattr(measures, "accuracy_curve", killed)
    parts = tmp_path / "parts"
    with pytest.raises(Killed):
        evaluated(standard, X, y, eps_values, attack, parts)
    assert evaluated(standard, X, y, eps_values, attack, parts) == whole
    assert begun == [100, 100, 100, 100, 50]
    (parts / "right-from-300.json").write_text("{")  # cannot be read, so measured again
    assert evaluated(standard, X, y, eps_values, attack, parts) == whole
    assert begun[5:] == [50]

    # Other random starts from the second part on, so a sample on the edge may fall or not.
    at_once = measure(standard, X, y, eps_values, attack)
    assert 0 < at_once[0.5] < at_once[0.25] < at_once[0.0] <= 1
    assert whole == pytest.approx(at_once, abs=1.5 / len(X))


def test_autoattack_goes_on_at_the_next_radius(tmp_path, monkeypatch, digits):
    X, y = digits[0][:60], digits[1][:60]
    withstands = {0.25: np.arange(60) % 4 > 0, 0.5: np.arange(45) % 3 > 0}  # of those left
    begun = []

    def attack(classifier, X, y, eps):
        begun.append((eps, len(X)))
        if len(begun) == 2:
            raise Killed
        return withstands[eps]

    monkeypatch.setattr(measures, "withstand_autoattack", attack)
    with pytest.raises(Killed):
        autoattack_curve(None, X, y, (0.5, 0.25), tmp_path)
    for _ in range(2):
        assert autoattack_curve(None, X, y, (0.5, 0.25), tmp_path) == {0.25: 0.75, 0.5: 0.5}
    assert begun == [(0.25, 60), (0.5, 45), (0.5, 45)]


def test_autoattack_where_nothing_is_left(tmp_path, standard, digits):
    X = digits[0][:6]
    wrong = np.where(standard.predict(X) == 3, 4, 3)
    assert autoattack_curve(standard, X, wrong, (0.25, 0.5), tmp_path) == {0.25: 0, 0.5: 0}


@pytest.mark.parametrize("wrong", [3, [1], ["a", "b"], {}, [-5, 1000], [1.5, 2], None])
def test_parts_that_hold_something_else_are_measured_again(wrong, tmp_path, monkeypatch):
    monkeypatch.setattr(measures, "accuracy_curve", lambda *_: {0.0: 0.5, 0.1: 0.25})
    resuming.write_text(tmp_path / "right-from-0.json", resuming.json.dumps({"right": wrong}))
    found = evaluated(None, np.zeros(40), np.zeros(40), (0.1,), {}, tmp_path)
    assert found == {0.0: 0.5, 0.1: 0.25}


@pytest.mark.parametrize("wrong", [3, ["a"], {}, [99], [True], [0, [1]]])
def test_rows_that_are_none_are_attacked_again(wrong, tmp_path, monkeypatch):
    monkeypatch.setattr(measures, "withstand_autoattack", lambda clf, X, y, eps: y == 1)
    resuming.write_text(tmp_path / "withstand-0.1.json", resuming.json.dumps({"rows": wrong}))
    found = autoattack_curve(None, np.zeros(4), np.array([1, 0, 1, 1]), (0.1,), tmp_path)
    assert found == {0.1: 0.75}

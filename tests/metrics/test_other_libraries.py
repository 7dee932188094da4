"""The default attack beside those of other libraries: within two points of the strongest."""

import warnings

import numpy as np
import pytest
import torch

from advfeat import (
    robust_accuracy_score,
)


@pytest.mark.long
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

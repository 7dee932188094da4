"""
Accuracy over eps, with AutoAttack beside
=========================================

A robust accuracy is only as good as its attack. Here is this library's beside AutoAttack, the
usual yardstick, in its authors' code (``pip install pyautoattack``). Both attack the network
itself: ``module_`` takes images in [0, 1] and returns logits.
"""

import matplotlib.pyplot as plt
import torch
from pyautoattack import AutoAttack

from advfeat import AdversarialClassifier, StandardClassifier
from advfeat.datasets import load_digits
from advfeat.plotting import RobustnessCurveDisplay

X, y = load_digits(split="train", return_X_y=True)
X_test, y_test = load_digits(split="test", return_X_y=True)
X_test, y_test = X_test[:40], y_test[:40]
models = {
    "standard": StandardClassifier(max_epochs=15, random_state=0, verbose=0).fit(X, y),
    "adversarial": AdversarialClassifier(
        eps=1.0, n_steps=2, max_epochs=15, random_state=0, verbose=0
    ).fit(X, y),
}


def auto_attack(clf, eps):
    """Accuracy under AutoAttack's standard version."""
    attack = AutoAttack(clf.module_.eval(), norm="L2", eps=eps, seed=0, device=clf.net_.device)
    _, found = attack.run_standard_evaluation(torch.from_numpy(X_test), torch.from_numpy(y_test))
    return float((found.numpy() == y_test).mean())


# %%
# Where a cross lies on its curve, the cheaper attack leaves no more standing than AutoAttack.

fig, ax = plt.subplots(figsize=(5.4, 3.8), layout="constrained")
for name, clf in models.items():
    display = RobustnessCurveDisplay.from_estimator(
        clf, X_test, y_test, norm=2, eps_values=[0, 0.2, 0.4, 0.6, 0.8, 1], name=name, ax=ax,
        verbose=0,
    )  # fmt: skip
    eps = {"standard": 0.4, "adversarial": 0.6}[name]
    label = "AutoAttack" if name == "adversarial" else None
    ax.plot(eps, auto_attack(clf, eps), "kx", ms=10, zorder=4, label=label)
ax.legend(frameon=False)
plt.show()

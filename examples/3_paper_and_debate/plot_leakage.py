"""
Does D_rand hold anything but non-robust features?
==================================================

A random target is the true class for one image in ten. Are those images, and not the
perturbations, what teaches the true classes? ``target="other"`` leaves them out, and in D_det
nothing but the perturbation speaks for the true classes of the test set.
"""

import matplotlib.pyplot as plt
from sklearn.frozen import FrozenEstimator

from advfeat import ConstructedDataset, NonRobustRelabeler, StandardClassifier
from advfeat.datasets import load_digits

X, y = load_digits(split="train", return_X_y=True)
X_test, y_test = load_digits(split="test", return_X_y=True)
source = StandardClassifier(max_epochs=15, random_state=0, verbose=0).fit(X, y)

# %%
# The control has the same labels on images that were not perturbed at all: what a network learns
# from it comes from labels that are true by chance.

sets = {}
for target in ("random", "other", "deterministic"):
    relabeler = NonRobustRelabeler(
        FrozenEstimator(source), target=target, eps=1.0, n_steps=30, random_state=0, verbose=0
    )
    data = relabeler.fit_transform(X, y)
    sets[target] = data
    sets[f"{target}, unperturbed"] = ConstructedDataset(X, data.y, data.y_source, data.classes)
accuracy = {
    name: StandardClassifier(max_epochs=15, random_state=1, verbose=0)
    .fit(data, y)
    .score(X_test, y_test)
    for name, data in sets.items()
}

# %%
# The difference between a bar and its control is what the perturbations teach. The labels alone
# teach nothing, and D_other does as well as D_rand: chance hits are not the explanation.

targets = {"random": "D_rand", "other": "D_other", "deterministic": "D_det"}
fig, ax = plt.subplots(figsize=(5.4, 3.4), layout="constrained")
for shift, suffix, label in ((-0.2, "", "perturbed"), (0.2, ", unperturbed", "labels only")):
    heights = [accuracy[target + suffix] for target in targets]
    bars = ax.bar([i + shift for i in range(3)], heights, 0.38, label=label)
    ax.bar_label(bars, [f"{height:.0%}" for height in heights])
ax.axhline(0.1, color="gray", ls=":", lw=1)
ax.set_xticks(range(3), targets.values())
ax.set_ylabel("accuracy on the original test set")
ax.set_ylim(0, 1.15)
ax.legend(frameon=False, ncols=2, loc="upper center")
plt.show()

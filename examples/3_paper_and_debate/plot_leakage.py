"""
Does D_rand hold anything but non-robust features?
==================================================

A random target is the true class for one image in ten. Such images are moved towards the class
that they show, and their robust features speak for their label. Could a network learn the true
classes from those alone? A linear model on the features of a robust source, trained on the same
set, says how much.
"""

import matplotlib.pyplot as plt
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from advfeat import AdversarialClassifier, NonRobustRelabeler, StandardClassifier
from advfeat.datasets import load_digits

X, y = load_digits(split="train", return_X_y=True)
X_test, y_test = load_digits(split="test", return_X_y=True)
training = {"max_epochs": 20, "lr": 0.2, "batch_size": 64, "verbose": 0}
source = StandardClassifier(**training, random_state=0).fit(X, y)
robust = AdversarialClassifier(eps=1.0, n_steps=2, **training, random_state=0).fit(X, y)

# %%
# Three sets of the paper's eps: any target, any but the true class, and the next class.

targets = {"D_rand": "random", "D_other": "other", "D_det": "deterministic"}
learned, leaked = {}, {}
for name, target in targets.items():
    relabeler = NonRobustRelabeler(
        FrozenEstimator(source), target=target, eps=0.5, n_steps=30, random_state=0, verbose=0
    )
    data = relabeler.fit_transform(X, y)
    network = StandardClassifier(**training, random_state=1).fit(data, y)
    learned[name] = network.score(X_test, y_test)
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    linear.fit(robust.features(data.X), data.y)
    leaked[name] = linear.score(robust.features(X_test), y_test)

# %%
# The robust source's features could explain all that D_rand teaches. In D_other no label is true,
# so a model of them alone learns to avoid the true class and falls below chance: what the network
# learns it learns in spite of them. D_det teaches the true classes of CIFAR-10 in the paper, not
# those of these small images.

fig, ax = plt.subplots(figsize=(5.4, 3.4), layout="constrained")
for shift, heights, label in (
    (-0.2, learned, "a network"),
    (0.2, leaked, "robust source's features"),
):
    bars = ax.bar([i + shift for i in range(3)], heights.values(), 0.38, label=label)
    ax.bar_label(bars, [f"{height:.0%}" for height in heights.values()])
ax.axhline(0.1, color="gray", ls=":", lw=1)
ax.set_xticks(range(3), targets)
ax.set_ylabel("accuracy on the original test set")
ax.set_ylim(0, 1.15)
ax.legend(frameon=False, ncols=2, loc="upper center")
plt.show()

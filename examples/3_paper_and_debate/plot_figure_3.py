"""
Who learns the features, and who is fooled by them: Figure 3
============================================================

In the paper architectures that learn more from D_det, that is from the non-robust features of one
source, are fooled more often by adversarial examples of that source. Here are three, on digits.
"""

import matplotlib.pyplot as plt
from sklearn.frozen import FrozenEstimator

from advfeat import NonRobustRelabeler, StandardClassifier, transfer_rate
from advfeat.datasets import load_digits

X, y = load_digits(split="train", return_X_y=True)
X_test, y_test = load_digits(split="test", return_X_y=True)
source = StandardClassifier(max_epochs=15, random_state=0, verbose=0).fit(X, y)
data = NonRobustRelabeler(
    FrozenEstimator(source), target="deterministic", eps=1.0, n_steps=30, random_state=0, verbose=0
).fit_transform(X, y)

# %%
# Each network is trained twice: on D_det, and on the data to be attacked by the source.

networks = {"small_cnn": 0.1, "small_resnet": 0.1, "mlp": 0.05}
points = {}
for network, lr in networks.items():
    for seed in (1, 2):
        clf = StandardClassifier(network, lr=lr, max_epochs=12, random_state=seed, verbose=0)
        learned = clf.fit(data, y).score(X_test, y_test)
        fooled = transfer_rate(
            source,
            clf.fit(X, y),
            X_test[:200],
            y_test[:200],
            norm=2,
            eps=0.75,
            n_steps=5,
            verbose=0,
        )
        points.setdefault(network, []).append((learned, fooled))

# %%
# Three architectures, two seeds each; chance is 10 %. The convolutional network has the source's
# architecture. The perceptron learns the images instead of the perturbations: they show another
# class than their label, so it falls below chance. Six points are too few for a correlation.

fig, ax = plt.subplots(figsize=(4.8, 3.6), layout="constrained")
for (network, pairs), marker in zip(points.items(), "os^", strict=True):
    ax.plot(*zip(*pairs, strict=True), marker, label=network)
ax.axvline(0.1, color="gray", ls=":", lw=1)
ax.set_xlabel("test accuracy after D_det")
ax.set_ylabel("transfer rate of the source's examples, L2, eps 0.75")
ax.legend(frameon=False)
plt.show()

"""
Transfer between architectures
==============================

Adversarial examples of one network fool another, also one of another architecture. The paper's
explanation is that both have learned the same non-robust features. An adversarially trained
network is fooled less.
"""

import matplotlib.pyplot as plt
import numpy as np

from advfeat import AdversarialClassifier, StandardClassifier, transfer_rate
from advfeat.datasets import load_digits

X, y = load_digits(split="train", return_X_y=True)
X_test, y_test = load_digits(split="test", return_X_y=True)
X_test, y_test = X_test[:100], y_test[:100]

common = {"max_epochs": 12, "verbose": 0}
models = {
    "CNN": StandardClassifier(network="small_cnn", random_state=0, **common),
    "CNN, other seed": StandardClassifier(network="small_cnn", random_state=1, **common),
    "ResNet": StandardClassifier(network="small_resnet", random_state=0, **common),
    "MLP": StandardClassifier(network="mlp", random_state=0, **common),
    "CNN, adversarial": AdversarialClassifier(eps=1.0, n_steps=2, random_state=0, **common),
}
for model in models.values():
    model.fit(X, y)

# %%
# Counted are the images that both networks classify correctly and whose perturbation fools the
# first, which is attacked once for all targets.

targets = list(models.values())
attack = {"norm": 2, "eps": 0.75, "n_steps": 5, "verbose": 0}
rates = np.array([transfer_rate(source, targets, X_test, y_test, **attack) for source in targets])
fig, ax = plt.subplots(figsize=(6, 4.6), layout="constrained")
picture = ax.imshow(rates, vmin=0, vmax=1, cmap="viridis")
for (i, j), rate in np.ndenumerate(rates):
    color = "black" if rate > 0.5 else "white"
    ax.text(j, i, f"{rate:.0%}", ha="center", va="center", color=color)
ax.set_xticks(range(len(models)), models, rotation=25, ha="right")
ax.set_yticks(range(len(models)), models)
ax.set_xlabel("fooled")
ax.set_ylabel("attacked")
ax.set_title("transfer rate, L2, eps 0.75, n = 100")
plt.show()

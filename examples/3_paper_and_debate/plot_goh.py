"""
Goh: how much of D_rand do robust features alone explain?
=========================================================

Gabriel Goh's comment on the paper trains a linear model on the features of a *robust* network. On
D_rand it finds some signal: the perturbations carry a little of the robust features too. On D_det
it finds none.
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
standard = StandardClassifier(max_epochs=15, random_state=0, verbose=0).fit(X, y)
robust = AdversarialClassifier(eps=1.0, n_steps=2, max_epochs=15, random_state=0, verbose=0).fit(
    X, y
)

# %%
# Two measures for each set: plain training of a network on it, and a linear model on what the
# robust network sees in it. Both are judged on the original test set.

accuracy = {}
for name, target in {"D_rand": "random", "D_det": "deterministic"}.items():
    for eps in (0.5, 1.0):
        data = NonRobustRelabeler(
            FrozenEstimator(standard),
            target=target,
            eps=eps,
            n_steps=20,
            random_state=0,
            verbose=0,
        ).fit_transform(X, y)
        network = StandardClassifier(max_epochs=15, random_state=1, verbose=0).fit(data, y)
        linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
        linear.fit(robust.features(data.X), data.y)
        accuracy[f"{name}, eps {eps}"] = (
            network.score(X_test, y_test),
            linear.score(robust.features(X_test), y_test),
        )

# %%
# For digits of 8x8 pixels eps 1 is large: such perturbations show strokes of the new class.

fig, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
for shift, column, label in ((-0.2, 0, "network, on the images"), (0.2, 1, "on robust features")):
    heights = [pair[column] for pair in accuracy.values()]
    bars = ax.bar([i + shift for i in range(len(accuracy))], heights, 0.38, label=label)
    ax.bar_label(bars, [f"{height:.0%}" for height in heights])
ax.axhline(0.1, color="gray", ls=":", lw=1)
ax.set_xticks(range(len(accuracy)), accuracy)
ax.set_ylabel("accuracy on the original test set")
ax.set_ylim(0, 1.15)
ax.legend(frameon=False, ncols=2, loc="upper center")
plt.show()

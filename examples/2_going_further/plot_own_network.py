"""
Your own torch network
======================

``network`` takes a class, or a function that returns a module. It gets ``n_classes`` and the like
by name, returns logits, and does not normalise: the estimator does, so that eps is in input units.
"""

import matplotlib.pyplot as plt
from sklearn.frozen import FrozenEstimator
from torch import nn

from advfeat import AdversarialClassifier, RobustFeatureInverter, StandardClassifier
from advfeat.datasets import load_digits
from advfeat.plotting import RobustnessCurveDisplay


class TwoLayers(nn.Module):
    """Convolutions, a pooling, and the linear head whose inputs are the features."""

    def __init__(self, in_channels, n_classes, width=32):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.GELU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(width, n_classes)

    def forward(self, x):
        return self.head(self.body(x))


X, y = load_digits(split="train", return_X_y=True)
X_test, y_test = load_digits(split="test", return_X_y=True)
X, y, X_test, y_test = X[:800], y[:800], X_test[:150], y_test[:150]
common = {"network": TwoLayers, "max_epochs": 25, "random_state": 0, "verbose": 0}
source = AdversarialClassifier(eps=0.75, n_steps=2, **common).fit(X, y)
plain = StandardClassifier(**common).fit(X, y)

# %%
# The penultimate features of such a network are found by themselves, so that sets can be built
# from it.

inverter = RobustFeatureInverter(FrozenEstimator(source), n_steps=100, random_state=0, verbose=0)
X_r = inverter.fit_transform(X, y)
print(f"median relative residual of the inversion: {sorted(inverter.residual_)[len(X) // 2]:.3f}")
robustified = StandardClassifier(**common).fit(X_r, y)

# %%
# The network's own gradients are what is attacked:

fig, ax = plt.subplots(figsize=(4.8, 3.4), layout="constrained")
named = {"adversarial": source, "on D_R": robustified, "on D": plain}
for name, clf in named.items():
    RobustnessCurveDisplay.from_estimator(
        clf,
        X_test,
        y_test,
        norm=2,
        eps_values=[0, 0.25, 0.5, 0.75, 1],
        name=name,
        ax=ax,
        verbose=0,
    )

"""
What the inverter sees: start, path, result
===========================================

An inversion starts from another image, and moves it until the source network sees in it what it
sees in the sample. The features match in the end with either source; what the image shows is what
the source relies on.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.frozen import FrozenEstimator

from advfeat import AdversarialClassifier, RobustFeatureInverter, StandardClassifier
from advfeat.datasets import load_digits

X, y = load_digits(split="train", return_X_y=True)
sources = {
    "robust source": AdversarialClassifier(
        eps=1.0, n_steps=2, max_epochs=15, random_state=0, verbose=0
    ),
    "standard source": StandardClassifier(max_epochs=15, random_state=0, verbose=0),
}
labels = np.array([3, 8])
samples = X[[np.flatnonzero(y == digit)[0] for digit in labels]]
starts = X[[np.flatnonzero(y == digit)[1] for digit in (0, 1)]]

# %%
# The same start is inverted with more and more steps.

steps = [1, 5, 20, 200]
paths, residuals = {}, {}
for name, source in sources.items():
    frozen = FrozenEstimator(source.fit(X, y))
    found = []
    for n_steps in steps:
        inverter = RobustFeatureInverter(frozen, init=starts, n_steps=n_steps, verbose=0)
        # A few steps do not suffice, and a warning would say so.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append(inverter.fit(samples, labels).invert(samples, return_residual=True))
    paths[name] = [images for images, _ in found]
    residuals[name] = [residual for _, residual in found]

# %%
# Residual: what is missing of the features, in relation to their size.

columns = ["sample", "start", *(f"{n} step{'s' * (n > 1)}" for n in steps)]
fig, axes = plt.subplots(4, len(columns), figsize=(8, 6), layout="constrained")
for row in range(4):
    name, i = list(sources)[row // 2], row % 2
    images = [samples[i], starts[i], *(path[i] for path in paths[name])]
    for ax, image, title in zip(axes[row], images, columns, strict=True):
        ax.imshow(image[0], cmap="gray", vmin=0, vmax=1)
        ax.set_xticks([])
        ax.set_yticks([])
        if row == 0:
            ax.set_title(title)
    for ax, residual in zip(axes[row, 2:], residuals[name], strict=True):
        ax.set_xlabel(f"residual {residual[i]:.2f}", fontsize=8)
    axes[row, 0].set_ylabel(name)
plt.show()

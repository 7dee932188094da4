"""
Features without images: relabelled noise
=========================================

If perturbations carry features, they need no image: pure noise, moved towards a class by a small
perturbation and labelled as that class, must teach something about real images.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.frozen import FrozenEstimator

from advfeat import AdversarialClassifier, NonRobustRelabeler, StandardClassifier
from advfeat.datasets import load_digits
from advfeat.plotting import SampleGridDisplay

X, y = load_digits(split="train", return_X_y=True)
X_test, y_test = load_digits(split="test", return_X_y=True)
sources = {
    "standard": StandardClassifier(max_epochs=15, random_state=0, verbose=0).fit(X, y),
    "robust": AdversarialClassifier(
        eps=1.0, n_steps=2, max_epochs=15, random_state=0, verbose=0
    ).fit(X, y),
}
noise = np.random.default_rng(0).random(X.shape, dtype=np.float32)  # no digit anywhere

# %%
# Trained on noise, tested on the original digits.

radii = [0.5, 1.0, 2.0]
accuracy, sets = {name: [] for name in sources}, {}
for name, source in sources.items():
    for eps in radii:
        relabeler = NonRobustRelabeler(
            FrozenEstimator(source), eps=eps, n_steps=20, random_state=0, verbose=0
        )
        data = relabeler.fit(noise, y).relabel(noise, y)
        student = StandardClassifier(max_epochs=15, random_state=1, verbose=0)
        accuracy[name].append(student.fit(data, y).score(X_test, y_test))
    sets[f"{name} source"] = data.X

labels = {name: [str(label) for label in data.y[:8]] for name in sets}
grid = SampleGridDisplay(
    {"noise": noise[:8], **{name: images[:8] for name, images in sets.items()}}, labels=labels
).plot()

# %%
# The noise of both sources teaches something about digits, that of the robust source more, and
# larger perturbations teach more.

fig, ax = plt.subplots(figsize=(4.8, 3.4), layout="constrained")
for name, values in accuracy.items():
    ax.plot(radii, values, marker="o", label=f"{name} source")
ax.axhline(0.1, color="gray", ls=":", lw=1, label="chance")
ax.set_xlabel("L2 radius of the perturbation of the noise")
ax.set_ylabel("accuracy on the original test set")
ax.set_ylim(0, 1)
ax.legend(frameon=False)
plt.show()

"""
Wallace: learning from a model's own mistakes
=============================================

Eric Wallace's comment on the paper shows that no perturbation is needed: trained on nothing but
images that a weak model gets wrong, labelled as it mistook them, a network still learns something
of the true classes. What such labels carry is what the weak model knows.
"""

import matplotlib.pyplot as plt
import numpy as np

from advfeat import StandardClassifier
from advfeat.datasets import load_digits
from advfeat.plotting import SampleGridDisplay

X, y = load_digits(split="train", return_X_y=True)
X_test, y_test = load_digits(split="test", return_X_y=True)

# %%
# Weak models: a few epochs on a few images. The rest is labelled by them, and only what is wrong
# is kept.

rng = np.random.default_rng(0)
results = []
for seed in range(4):
    rows = rng.permutation(len(X))
    few, rest = rows[:100], rows[100:]
    weak = StandardClassifier(max_epochs=6, batch_size=32, random_state=seed, verbose=0)
    weak.fit(X[few], y[few])
    labels = weak.predict(X[rest])
    wrong = labels != y[rest]
    student = StandardClassifier(max_epochs=20, batch_size=32, random_state=seed, verbose=0)
    student.fit(X[rest][wrong], labels[wrong])
    results.append((weak.score(X_test, y_test), student.score(X_test, y_test), wrong.sum()))

images, found, true = X[rest][wrong], labels[wrong], y[rest][wrong]
texts = [f"{t} → {f}" for t, f in zip(true[:8], found[:8], strict=True)]
grid = SampleGridDisplay({"mistakes": images[:8]}, labels={"mistakes": texts}).plot()

# %%
# Every training label is wrong, and yet the network is right two to four times as often as chance,
# though less often than the model whose mistakes it learned.

fig, ax = plt.subplots(figsize=(4.8, 3.4), layout="constrained")
weak_accuracy, student_accuracy, n = np.array(results).T
place = np.arange(len(results))
ax.bar(place - 0.2, weak_accuracy, 0.38, label="weak model")
ax.bar(place + 0.2, student_accuracy, 0.38, label="trained on its mistakes alone")
ax.axhline(0.1, color="gray", ls=":", lw=1)
ax.set_xticks(place, [f"{int(count)} images" for count in n])
ax.set_ylabel("accuracy on the test set")
ax.set_ylim(0, 1.15)
ax.legend(frameon=False, loc="upper center", ncols=2)
plt.show()

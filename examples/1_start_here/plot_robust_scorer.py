"""
Robust accuracy of any classifier, as a scorer
==============================================

``make_robust_scorer`` makes a scorer that attacks: it goes wherever scikit-learn takes a
``scoring``. It works for networks, and for linear classifiers with one row of ``coef_`` for each
class.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import LinearSVC

from advfeat import AdversarialClassifier, StandardClassifier, make_robust_scorer
from advfeat.datasets import load_digits

X, y = load_digits(return_X_y=True)
X, y = X[:500], y[:500]


def flat(images):
    """A table for linear classifiers, in the units of the images."""
    return images.reshape(len(images), -1)


classifiers = {
    "logistic regression": make_pipeline(
        FunctionTransformer(flat), LogisticRegression(max_iter=1000)
    ),
    "linear SVM": make_pipeline(FunctionTransformer(flat), LinearSVC()),
    "network": StandardClassifier(batch_size=32, max_epochs=10, random_state=0, verbose=0),
    "network, adversarial": AdversarialClassifier(
        eps=0.5, n_steps=2, batch_size=32, max_epochs=10, random_state=0, verbose=0
    ),
}
scoring = {"plain": "accuracy"}
for eps in (0.25, 0.5):
    scoring[f"L2, eps {eps}"] = make_robust_scorer(norm=2, eps=eps, n_steps=5, verbose=0)
scores = {
    name: cross_validate(classifier, X, y, cv=2, scoring=scoring)
    for name, classifier in classifiers.items()
}

# %%
# What they lose under attack says more about them than how accurate they are.

fig, ax = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
width = 0.8 / len(scoring)
for i, measure in enumerate(scoring):
    folds = np.array([found[f"test_{measure}"] for found in scores.values()])
    place = np.arange(len(scores)) + (i - 1) * width
    ax.bar(place, folds.mean(axis=1), width, yerr=folds.std(axis=1), label=measure)
ax.set_xticks(range(len(scores)), scores)
ax.set_ylabel("accuracy, 2 folds")
ax.set_ylim(0, 1.2)
ax.legend(loc="upper center", ncols=3, frameon=False)
plt.show()

"""Measure how useful, and how robustly useful, the features of a network are (Section 2).

Takes about a minute on two cores.
"""

import numpy as np

from advfeat import (
    AdversarialClassifier,
    StandardClassifier,
    feature_usefulness,
    robust_feature_usefulness,
)
from advfeat.datasets import load_digits

X, y = load_digits(split="train", return_X_y=True)
X_test, y_test = load_digits(split="test", return_X_y=True)
X_test, y_test = X_test[:200], y_test[:200]

for clf in (
    StandardClassifier(max_epochs=20, random_state=0),
    AdversarialClassifier(eps=1.0, n_steps=4, max_epochs=20, random_state=0),
):
    clf.fit(X, y)
    rho = np.abs(feature_usefulness(clf, X_test, y_test))
    gamma = robust_feature_usefulness(clf, X_test, y_test, norm=2, eps=0.25)
    useful = rho > 0.2
    print(
        f"{type(clf).__name__}: mean rho of the useful features {rho[useful].mean():.2f}, "
        f"mean gamma {gamma[useful].mean():.2f}, still useful under attack "
        f"{np.mean(gamma[useful] > 0):.0%}  (L2, eps 0.25, n = {len(X_test)})"
    )

"""
Two Gaussians: Figures 4 and 13
===============================

For Gaussian classes the whole story has a closed form: :doc:`/gaussian`. Robust training bends the
metric of the model towards the adversary's, and with it the decision boundary.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from advfeat import GaussianRobustMLE
from advfeat.plotting import GaussianMetricDisplay, LinearBoundaryDisplay

rng = np.random.default_rng(0)
y = np.repeat([0, 1], 300)
X = rng.normal(size=(600, 2)) @ [[4.0, 3.0], [0.0, 1.0]] + np.where(y[:, None], 1, -1) * [3, 4]

# %%
# Figure 4
# --------
# From left to right the adversary's budget grows: the unit ball of the metric becomes round, and
# the boundary perpendicular to the difference of the means.

fig, axes = plt.subplots(1, 3, figsize=(11, 4), layout="constrained")
for ax, eps in zip(axes, (0.1, 3, 30), strict=True):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # in two dimensions the average adversary is a rough one
        model = GaussianRobustMLE(eps=eps).fit(X, y)
    GaussianMetricDisplay.from_estimator(model, X, y, ax=ax)
axes[0].legend(fontsize=8, loc="upper left")
plt.show()

# %%
# Figure 13
# ---------
# Two features that each tell the classes apart perfectly: one with a wide margin, one with a
# narrow margin and hardly any spread. Standard losses, on features scaled to unit variance as
# usual, rely on the second, and an attack of norm 0.8 leaves them nothing. The robust likelihood
# does without it and loses nothing.

y = np.resize([-1, 1], 400)
X = y[:, None] * np.column_stack([rng.uniform(1.0, 4.0, 400), rng.uniform(0.2, 0.4, 400)])
models = {
    "Gaussian likelihood": GaussianRobustMLE(eps=0),
    "squared loss": make_pipeline(StandardScaler(), RidgeClassifier(1e-6)),
    "logistic loss": make_pipeline(StandardScaler(), LogisticRegression()),
    "hinge loss": make_pipeline(StandardScaler(), LinearSVC(random_state=0)),
    "robust likelihood": GaussianRobustMLE(eps=3),
}
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # as above
    for model in models.values():
        model.fit(X, y)
display = LinearBoundaryDisplay.from_estimators(models, X, y, eps=0.8)

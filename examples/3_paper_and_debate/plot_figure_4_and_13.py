"""
Two Gaussians: Figures 4 and 13
===============================

For Gaussian classes the whole story has a closed form: :doc:`/gaussian`. Robust training bends the
metric of the model towards the adversary's, and with it the decision boundary.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
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
# All four separate these classes perfectly. The Gaussian likelihood does so through a direction
# that is thin, and loses most under attack; the robust likelihood loses nothing.
# ``reproduce.py figure13`` has data on which the other losses fall as low.

X = rng.normal(size=(600, 2)) * [3.0, 0.1] + np.where(y[:, None], 1, -1) * [0.0, 0.7]
X[:, 0] += np.where(y, 9.0, -9.0)
models = {
    "Gaussian likelihood (LDA)": LinearDiscriminantAnalysis(),
    "logistic loss": make_pipeline(StandardScaler(), LogisticRegression()),
    "hinge loss": make_pipeline(StandardScaler(), LinearSVC()),
    "robust likelihood": GaussianRobustMLE(eps=5, adversary="pointwise"),
}
display = LinearBoundaryDisplay.from_estimators(
    {name: model.fit(X, y) for name, model in models.items()}, X, y, eps=0.8
)

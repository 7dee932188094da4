"""
Which columns of a table are robust features?
=============================================

A feature is useful when it agrees with the label (rho), and robustly useful when it still does
after the worst perturbation of a given size (gamma). For columns both have closed forms.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import StandardScaler

from advfeat import GaussianRobustMLE, robust_accuracy_curve

cancer = load_breast_cancer(as_frame=True)
X = cancer.data.copy()
X[:] = StandardScaler().fit_transform(X)  # eps is then in standard deviations
y = cancer.target
eps = 0.5

# %%
# One column at a time
# --------------------
# The weights ``[0, ..., 1, ..., 0]`` pick a single column. Its sign does not matter here.

model = GaussianRobustMLE(eps=eps).fit(X, y)
rho, _ = model.feature_usefulness(np.eye(X.shape[1]))
_, gamma = model.feature_usefulness(np.eye(X.shape[1]) * np.sign(rho)[:, None], eps=eps)
order = np.argsort(-np.abs(rho))
print(f"{np.sum(gamma > 0)} of {len(gamma)} columns stay useful when each value may move by {eps}")

# %%
# Linear combinations
# -------------------
# Linear discriminant analysis combines columns for accuracy and leans on differences of almost
# equal columns, which a small perturbation turns round. GaussianRobustMLE is the same model
# trained against an adversary.

radii = np.linspace(0, 2, 9)
tables = {"breast cancer": (X, y)}
wine = load_wine(as_frame=True)
wine_X = wine.data.copy()
wine_X[:] = StandardScaler().fit_transform(wine_X)
tables["wine"] = (wine_X, wine.target)

fig, axes = plt.subplots(1, 3, figsize=(11, 4.6), layout="constrained", width_ratios=[1.3, 1, 1])
place = np.arange(12)
axes[0].barh(place, np.abs(rho)[order[:12]], color="#56B4E9", label="rho")
axes[0].barh(place, gamma[order[:12]], 0.4, color="#D55E00", label=f"gamma, eps {eps}")
axes[0].set_yticks(place, X.columns[order[:12]])
axes[0].invert_yaxis()
axes[0].set_xlabel("usefulness of a column, breast cancer")
for ax, (name, (data, target)) in zip(axes[1:], tables.items(), strict=True):
    models = {
        "LDA": LinearDiscriminantAnalysis(),
        "GaussianRobustMLE, eps 2": GaussianRobustMLE(eps=2.0),
    }
    for label, model in models.items():
        curve = robust_accuracy_curve(
            model.fit(data, target), data, target, norm=2, eps_values=radii, n_steps=10, verbose=0
        )
        ax.plot(radii, curve, marker="o", label=label)
    ax.set_title(name)
    ax.set_xlabel("L2 attack, eps in standard deviations")
    ax.set_ylim(0, 1.02)
axes[1].set_ylabel("accuracy on the training table")
for ax, side in zip(axes[:2], ("left", "right"), strict=True):
    entries = ax.get_legend_handles_labels()
    fig.legend(*entries, loc=f"outside upper {side}", ncols=2, frameon=False)
plt.show()

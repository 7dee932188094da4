"""
Which eps to train with: GridSearchCV
=====================================

The radius of the attack in training is a parameter like any other. Searched with a robust scorer
it is chosen for robustness, with plain accuracy for accuracy.
"""

import matplotlib.pyplot as plt
from sklearn.model_selection import GridSearchCV

from advfeat import AdversarialClassifier, make_robust_scorer
from advfeat.datasets import load_digits

X, y = load_digits(split="train", return_X_y=True)
X, y = X[:400], y[:400]
search = GridSearchCV(
    AdversarialClassifier(n_steps=2, max_epochs=10, batch_size=32, random_state=0, verbose=0),
    {"eps": [0.1, 0.4, 0.8, 1.2]},
    scoring={
        "plain": "accuracy",
        "robust": make_robust_scorer(norm=2, eps=0.5, n_steps=5, verbose=0),
    },
    refit="robust",
    cv=2,
).fit(X, y)
print(search.best_params_)

# %%
# Too small a radius leaves the network brittle, too large a one leaves it nothing to learn from.
# On so few samples the robust accuracies differ little.

eps = [setting["eps"] for setting in search.cv_results_["params"]]
fig, ax = plt.subplots(figsize=(4.8, 3.4), layout="constrained")
for measure, name in {"plain": "plain", "robust": "L2 attack, eps 0.5"}.items():
    mean = search.cv_results_[f"mean_test_{measure}"]
    ax.errorbar(eps, mean, search.cv_results_[f"std_test_{measure}"], marker="o", label=name)
ax.axvline(search.best_params_["eps"], ls=":", color="gray", label="chosen")
ax.set_xlabel("eps of the training")
ax.set_ylabel("accuracy, 2 folds")
ax.set_ylim(0, 1.05)
ax.legend(frameon=False, loc="upper right")
plt.show()

"""
The four sets of the paper: Figures 2 and 9
===========================================

From one standard and one adversarially trained source: D_R and D_NR (Figure 2), D_rand and D_det
(Figure 9), D_other, which is not in the paper, and what plain training on each gives on the test
set.
"""

from sklearn.frozen import FrozenEstimator

from advfeat import (
    AdversarialClassifier,
    NonRobustRelabeler,
    RobustFeatureInverter,
    StandardClassifier,
)
from advfeat.datasets import load_digits
from advfeat.plotting import AccuracyBarDisplay, SampleGridDisplay

X, y = load_digits(split="train", return_X_y=True)
X_test, y_test = load_digits(split="test", return_X_y=True)
common = {"random_state": 0, "verbose": 0}
training = {"max_epochs": 20, "lr": 0.2, "batch_size": 64}
standard = StandardClassifier(**training, **common).fit(X, y)
robust = AdversarialClassifier(eps=1.0, n_steps=2, **training, **common).fit(X, y)

# %%
# The sources are trained once and handed on in a FrozenEstimator.

invert = {"n_steps": 100, **common}
perturb = {"eps": 0.5, "n_steps": 20, **common}
constructors = {
    "D_R": RobustFeatureInverter(FrozenEstimator(robust), **invert),
    "D_NR": RobustFeatureInverter(FrozenEstimator(standard), **invert),
    "D_rand": NonRobustRelabeler(FrozenEstimator(standard), **perturb),
    "D_other": NonRobustRelabeler(FrozenEstimator(standard), target="other", **perturb),
    "D_det": NonRobustRelabeler(FrozenEstimator(standard), target="deterministic", **perturb),
}
sets = {name: constructor.fit_transform(X, y) for name, constructor in constructors.items()}
grid = SampleGridDisplay.from_datasets({"D": X, **sets}, y=y, random_state=0)

# %%
# D_R and D_NR start from other images: what is left of the start in D_NR does not stand for its
# label, and is no feature of its source.
#
# At eps 0.5 training on D_R gives more robustness than training on D, D_NR less. The other sets
# look mislabelled. D_rand and D_other still teach the true classes, without any robustness; robust
# features would explain D_rand, but not D_other (:doc:`the leak <plot_leakage>`). D_det, which
# teaches them on CIFAR-10 in the paper, does not on these small images.

classifiers = {"D": standard, "D, adversarial": robust}
for name, data in sets.items():
    clf = StandardClassifier(**training, random_state=1, verbose=0)
    classifiers[name] = clf.fit(data, y)
bars = AccuracyBarDisplay.from_estimators(
    classifiers, X_test[:200], y_test[:200], norm=2, eps=[0.25, 0.5], n_steps=5, verbose=0
)

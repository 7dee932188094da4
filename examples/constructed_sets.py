"""The four constructed sets side by side, from sources that are trained once.

A trained source is passed on in a FrozenEstimator; each constructor then only constructs.
Takes about a minute on two cores.
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

standard = StandardClassifier(max_epochs=20, random_state=0).fit(X, y)
robust = AdversarialClassifier(eps=1.0, n_steps=4, max_epochs=20, random_state=0).fit(X, y)

perturb = {"eps": 1.0, "n_steps": 50, "random_state": 0}
sets = {
    "D_R": RobustFeatureInverter(FrozenEstimator(robust), random_state=0),
    "D_NR": RobustFeatureInverter(FrozenEstimator(standard), random_state=0),
    "D_rand": NonRobustRelabeler(FrozenEstimator(standard), **perturb),
    "D_det": NonRobustRelabeler(FrozenEstimator(standard), target="deterministic", **perturb),
}
sets = {name: constructor.fit_transform(X, y) for name, constructor in sets.items()}

classifiers = {"standard": standard, "adversarial": robust}
for name, data in sets.items():
    classifiers[name] = StandardClassifier(max_epochs=20, random_state=1).fit(data, y)
    print(
        f"{name}: accuracy on the original test set {classifiers[name].score(X_test, y_test):.3f}"
    )

grid = SampleGridDisplay.from_datasets({"original": X, **sets}, y=y, random_state=0)
grid.figure_.savefig("constructed_sets.png", dpi=120, bbox_inches="tight")
bars = AccuracyBarDisplay.from_estimators(classifiers, X_test, y_test, norm=2, eps=[0.25, 0.5])
bars.figure_.savefig("accuracy.png", dpi=120, bbox_inches="tight")

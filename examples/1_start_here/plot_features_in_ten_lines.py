"""
Robust features in ten lines
============================

Plain training on a set that matches the data only in the features of an adversarially trained
network gives a classifier that is more robust, on the original test set, than plain training on
the data itself.
"""

from advfeat import AdversarialClassifier, RobustFeatureInverter, StandardClassifier
from advfeat.datasets import load_digits
from advfeat.plotting import AccuracyBarDisplay

X, y = load_digits(split="train", return_X_y=True)  # (n, 1, 8, 8), floats in [0, 1]
X_test, y_test = load_digits(split="test", return_X_y=True)

source = AdversarialClassifier(eps=1.0, n_steps=3, max_epochs=15, random_state=0, verbose=0)
inverter = RobustFeatureInverter(source, random_state=0, verbose=0)
X_r = inverter.fit_transform(X, y)  # D_R: the images change, the labels stay

# %%
# Both classifiers are trained in the ordinary way, without any attack. They differ in the images.

on_data = StandardClassifier(random_state=0, verbose=0).fit(X, y)
on_robust_features = StandardClassifier(random_state=0, verbose=0).fit(X_r, y)
display = AccuracyBarDisplay.from_estimators(
    {"D": on_data, "D_R": on_robust_features}, X_test, y_test, norm=2, eps=0.5, verbose=0
)

"""
A constructor inside a Pipeline
===============================

A constructor changes training data only. Inside a Pipeline the classifier behind it is trained on
the constructed set and scored on unmodified data, in ``score`` as in cross-validation.
"""

from sklearn.pipeline import Pipeline

from advfeat import NonRobustRelabeler, StandardClassifier
from advfeat.datasets import load_digits
from advfeat.plotting import SampleGridDisplay

X, y = load_digits(split="train", return_X_y=True)
X_test, y_test = load_digits(split="test", return_X_y=True)

# %%
# D_det: each image is moved, by at most 1 in L2, towards the class after its own, and gets that
# label. To a human every label is wrong.

pipe = Pipeline(
    [
        (
            "relabel",
            NonRobustRelabeler(
                StandardClassifier(random_state=0, verbose=0),
                target="deterministic",
                eps=1.0,
                n_steps=50,
                random_state=0,
                verbose=0,
            ),
        ),
        ("clf", StandardClassifier(random_state=1, verbose=0)),
    ]
)
pipe.fit(X, y)

# %%
# Trained on nothing but such images, the classifier names the *true* class of the original test
# images far more often than chance, 10 %:

print(f"accuracy on the original test set: {pipe.score(X_test, y_test):.0%}")

# %%
# What it was trained on ("true → label"):

data = pipe["relabel"].relabel(X, y)
display = SampleGridDisplay.from_datasets({"D": X, "D_det": data}, y=y, random_state=0)

"""Figure 13: accurate but brittle boundaries beside a robust one (Appendix D.8).

The first feature has a wide margin and a wide spread, the second a narrow margin and hardly any
spread. Both tell the classes apart perfectly. Standard losses, on features scaled to unit variance
as usual, rely on the second; robust training does without it and loses no accuracy.
"""

import warnings

import numpy as np
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from advfeat import GaussianRobustMLE
from tables._table import Table

_N_SAMPLES = 400
_EPS = 0.8  # of the attack
_TRAIN_EPS = 3.0


def make_data(n_samples, random_state):
    """Two classes that each of the two features alone tells apart."""
    rng = np.random.default_rng(random_state)
    y = np.resize([-1, 1], n_samples)
    wide, narrow = rng.uniform(1.0, 4.0, n_samples), rng.uniform(0.2, 0.4, n_samples)
    return y[:, None] * np.column_stack([wide, narrow]), y


def _display(seed):
    from advfeat.plotting import LinearBoundaryDisplay

    X, y = make_data(_N_SAMPLES, seed)
    estimators = {
        "Gaussian likelihood": GaussianRobustMLE(0),
        "squared loss": make_pipeline(StandardScaler(), RidgeClassifier(1e-6)),
        "logistic loss": make_pipeline(StandardScaler(), LogisticRegression()),
        "hinge loss": make_pipeline(StandardScaler(), LinearSVC(random_state=seed)),
        "robust Gaussian likelihood": GaussianRobustMLE(_TRAIN_EPS),
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The average adversary", UserWarning)
        for estimator in estimators.values():
            estimator.fit(X, y)
    return LinearBoundaryDisplay.from_estimators(estimators, X, y, eps=_EPS)


def _measure(experiment):
    display = _display(experiment.seed)
    records = []
    for name, accuracy in display.accuracy.items():
        robust = display.robust_accuracy[name]
        records.append(experiment.record(name, "accuracy", float(accuracy)))
        records.append(experiment.record(name, "robust accuracy", float(robust), _EPS))
    return records


def _draw(records, experiment):
    return {"figure13": _display(experiment.seed).figure_}


TABLE = Table(
    name="figure13",
    title="Standard losses learn an accurate and brittle boundary (Figure 13, Appendix D.8)",
    measure=_measure,
    draw=_draw,
    note=(
        f"{_N_SAMPLES} samples in two dimensions; exact L2 distances to linear boundaries. The "
        "data are standardised for the squared, the logistic and the hinge loss, as usual; on "
        "the data as they are the logistic and the hinge loss find the robust boundary here."
    ),
    needs_images=False,
)

"""Draw accurate but brittle boundaries beside a robust one (Ilyas et al. 2019, Figure 13).

    python benchmarks/figure13.py --out results

The first feature has a wide margin and a wide spread, the second a narrow margin and hardly any
spread. Both tell the classes apart perfectly. Standard losses, on features scaled to unit variance
as usual, rely on the second; robust training does without it and loses no accuracy.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from advfeat import GaussianRobustMLE
from advfeat.plotting import LinearBoundaryDisplay


def make_data(n_samples, random_state):
    """Two classes that each of the two features alone tells apart."""
    rng = np.random.default_rng(random_state)
    y = np.resize([-1, 1], n_samples)
    wide, narrow = rng.uniform(1.0, 4.0, n_samples), rng.uniform(0.2, 0.4, n_samples)
    return y[:, None] * np.column_stack([wide, narrow]), y


def main(arguments=None):
    """Train with standard losses and robustly, print the accuracies and draw the boundaries."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=400, metavar="N")
    parser.add_argument("--eps", type=float, default=0.8, help="radius of the attack (L2)")
    parser.add_argument("--train-eps", type=float, default=3.0, help="budget of robust training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results"), metavar="FOLDER")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", "The average adversary", UserWarning)

    X, y = make_data(options.samples, options.seed)
    estimators = {
        "Gaussian likelihood": GaussianRobustMLE(0),
        "squared loss": make_pipeline(StandardScaler(), RidgeClassifier(1e-6)),
        "logistic loss": make_pipeline(StandardScaler(), LogisticRegression()),
        "hinge loss": make_pipeline(StandardScaler(), LinearSVC(random_state=options.seed)),
        "robust Gaussian likelihood": GaussianRobustMLE(options.train_eps),
    }
    for estimator in estimators.values():
        estimator.fit(X, y)
    display = LinearBoundaryDisplay.from_estimators(estimators, X, y, eps=options.eps)
    print(f"{'trained with':<28} {'accuracy':>9} {f'L2, eps {options.eps:g}':>12}")
    for name, accuracy in display.accuracy.items():
        print(f"{name:<28} {accuracy:>9.3f} {display.robust_accuracy[name]:>12.3f}")
    options.out.mkdir(parents=True, exist_ok=True)
    display.figure_.savefig(options.out / "figure13.png", dpi=150)
    print(f"Written to {options.out / 'figure13.png'}")


if __name__ == "__main__":
    main()

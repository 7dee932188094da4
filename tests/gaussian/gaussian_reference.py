"""Independent references for the robust Gaussian: 50-digit arithmetic and numeric minimax."""

import mpmath
import numpy as np
from scipy import optimize


def exact_scatter(X, y, sample_weight=None):
    """Within-class covariance, divisor n, of the very floats in ``X``, to 50 digits."""
    weight = np.ones(len(X)) if sample_weight is None else sample_weight
    n_features = X.shape[1]
    with mpmath.workdps(50):
        S, total = mpmath.zeros(n_features), mpmath.mpf(float(weight.sum()))
        for label in np.unique(y):
            w = [mpmath.mpf(float(v)) for v in weight[y == label]]
            rows = mpmath.matrix(X[y == label].tolist())
            means = [mpmath.fdot(w, rows[:, j]) / mpmath.fsum(w) for j in range(n_features)]
            for i in range(len(w)):
                v = [rows[i, j] - means[j] for j in range(n_features)]
                for j in range(n_features):
                    for k in range(n_features):
                        S[j, k] += w[i] * v[j] * v[k] / total
        return S


def exact_root(s, eps):
    """Root t of ``sum delta^2 = eps^2``, to 50 digits, by bisection."""
    with mpmath.workdps(60):
        s, eps = [mpmath.mpf(v) for v in s], mpmath.mpf(float(eps))

        def surplus(t):
            deltas = [t * t / (v / 2 + mpmath.sqrt(v * v / 4 + t * t)) for v in s]
            return mpmath.norm(deltas) - eps

        low, high = eps / len(s), eps + mpmath.sqrt(eps * (eps + max(s)))
        assert surplus(low) <= 0 <= surplus(high)
        for _ in range(240):
            middle = mpmath.sqrt(low * high)
            low, high = (middle, high) if surplus(middle) < 0 else (low, middle)
        return high


def exact_model(S, eps, rank):
    """Multiplier and robust covariance (26), to 50 digits, from a covariance of known rank."""
    with mpmath.workdps(60):
        variances, Q = mpmath.eigsy(S)  # in increasing order
        null = S.rows - rank
        s = [mpmath.mpf(0)] * null + [mpmath.sqrt(variances[i]) for i in range(null, S.rows)]
        t = exact_root(s, eps)
        robust = [v / 2 + mpmath.sqrt(v * v / 4 + t * t) for v in s]
        return 1 / t**2, Q * mpmath.diag([v * v for v in robust]) * Q.T


def relative_error(A, exact):
    """Frobenius norm of the error, relative to that of the exact matrix."""
    A = mpmath.matrix(np.asarray(A).tolist())
    return float(mpmath.mnorm(A - exact, "f") / mpmath.mnorm(exact, "f"))


def inner_maximum(T, A, eps):
    """Best attack on a precision matrix ``T``, over all perturbations of mean square eps^2.

    With ``A A' = S`` it adds ``N`` to ``A`` so as to maximise ``tr T (A + N)(A + N)'`` under
    ``||N||_F <= eps``. Returns ``A + N``. No matrix is assumed to commute with another.
    """
    precision, Q = np.linalg.eigh(T)
    rows = Q.T @ A
    force = precision * np.linalg.norm(rows, axis=1)

    def surplus(multiplier):
        return np.linalg.norm(force / (multiplier - precision)) - eps

    top = precision[-1]
    low = top + force[-1] / eps * (1 - 1e-12)
    multiplier = optimize.brentq(surplus, low, top + np.linalg.norm(force) / eps * 1.01)
    return Q @ (rows * (multiplier / (multiplier - precision))[:, None])


def minimax_covariance(S, eps, rng):
    """Solve the whole game numerically, over all positive definite covariances."""
    d = len(S)
    A = np.linalg.cholesky(S)
    below = np.tril_indices(d, -1)

    def loss(parameters):
        L = np.diag(np.exp(parameters[:d]))
        L[below] = parameters[d:]
        moved = inner_maximum(L @ L.T, A, eps)
        gradient = moved @ (moved.T @ L)  # Danskin
        gradient_log = np.diag(gradient) * np.diag(L) - 1
        value = np.square(L.T @ moved).sum() / 2 - parameters[:d].sum()
        return value, np.append(gradient_log, gradient[below])

    start = np.append(-np.log(np.sqrt(np.trace(S)) + eps) * np.ones(d), np.zeros(len(below[0])))
    start += 0.3 * rng.normal(size=len(start))
    result = optimize.minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-9})
    L = np.diag(np.exp(result.x[:d]))
    L[below] = result.x[d:]
    return np.linalg.inv(L @ L.T)


TYPES = [("full", False), ("full", True), ("diag", False), ("spherical", False), ("diag", True)]


def random_data(seed, *, n_classes=3, n_features=4, n_samples=60):
    """Classes of different sizes with correlated features, some far from the origin."""
    rng = np.random.default_rng(seed)
    y = np.append(np.arange(n_classes), rng.integers(0, n_classes, n_samples - n_classes))
    mixing = rng.normal(size=(n_features, n_features))
    means = 2 * rng.normal(size=(n_classes, n_features)) + 10 * rng.normal(size=n_features)
    return rng.normal(size=(n_samples, n_features)) @ mixing + means[y], y

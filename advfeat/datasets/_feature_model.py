"""Linear-Gaussian model with one robust and one non-robust feature, solved in closed form."""

from dataclasses import dataclass

import numpy as np
from scipy.integrate import quad
from scipy.linalg import helmert
from scipy.special import ndtr


@dataclass(frozen=True, eq=False)
class FeatureModel:
    """Inputs ``x = r V_c B_R + s V_y B_N + noise`` with known best linear rules.

    ``V`` holds the corners of a regular simplex, one per class, at pairwise distance 2. The rows
    of ``B_R`` and ``B_N`` (robust and non-robust directions) are orthonormal, all of them
    together. c equals the label y with probability p, and is another class, each as likely,
    otherwise. The noise is Gaussian with standard deviation sigma in every direction orthogonal
    to ``B_R``; along ``B_R`` there is none, so that the best rule is exactly linear.

    Parameters
    ----------
    n_classes : int
        K.
    agreement : float
        p.
    robust_margin, nonrobust_margin : float
        r and s: L2 distance from a class mean to the boundary between two classes.
    noise : float
        sigma.
    robust_basis, nonrobust_basis : ndarray of shape (K - 1, d)
        ``B_R`` and ``B_N``.
    """

    n_classes: int
    agreement: float
    robust_margin: float
    nonrobust_margin: float
    noise: float
    robust_basis: np.ndarray
    nonrobust_basis: np.ndarray

    @property
    def robust_patterns(self):
        """What the robust feature of each class adds to x, shape (K, d)."""
        return self.robust_margin * _simplex(self.n_classes) @ self.robust_basis

    @property
    def nonrobust_patterns(self):
        """What the non-robust feature of each class adds to x, shape (K, d)."""
        return self.nonrobust_margin * _simplex(self.n_classes) @ self.nonrobust_basis

    def sample(self, n_samples, rng):
        """Draw inputs, balanced labels, and the class that the robust feature shows.

        Returns
        -------
        X : ndarray of shape (n_samples, d)
        y, c : ndarray of shape (n_samples,)
        """
        y = rng.permutation(np.arange(n_samples) % self.n_classes)
        shift = rng.randint(1, self.n_classes, size=n_samples)
        agrees = rng.uniform(size=n_samples) < self.agreement
        c = np.where(agrees, y, (y + shift) % self.n_classes)
        noise = self.noise * rng.standard_normal((n_samples, self.robust_basis.shape[1]))
        noise -= (noise @ self.robust_basis.T) @ self.robust_basis
        return self.robust_patterns[c] + self.nonrobust_patterns[y] + noise, y, c

    def coef(self):
        """Weights of the best linear rule on each group of features, shape (K, d) each."""
        # The log-likelihood ratios between classes, up to terms that all classes share.
        robust = self._log_odds / (2 * self.robust_margin**2) * self.robust_patterns
        nonrobust = self.nonrobust_patterns / self.noise**2
        return {
            "robust": self.robust_patterns,
            "nonrobust": self.nonrobust_patterns,
            "all": robust + nonrobust,
        }

    def accuracy(self, features="all", *, eps=0.0):
        """Accuracy of the best linear rule on a group of features under L2 attacks.

        Parameters
        ----------
        features : {"robust", "nonrobust", "all"}, default="all"
            The features that the rule uses.
        eps : float, default=0.0
            L2 norm of the attack, in input units; 0 gives the standard accuracy.

        Returns
        -------
        float
            Population value, with the attack free to leave the range of valid inputs.

        Raises
        ------
        ValueError
            If ``features`` is another word or ``eps`` is no number of at least 0.
        """
        if features not in ("robust", "nonrobust", "all"):
            raise ValueError(
                "The 'features' parameter must be 'robust', 'nonrobust' or 'all'. "
                f"Got {features!r} instead."
            )
        if isinstance(eps, str) or np.ndim(eps) or not eps >= 0:
            raise ValueError(
                f"The 'eps' parameter must be at least 0, and one number. Got {eps!r} instead."
            )
        if features == "robust":
            return self.agreement if eps < self.robust_margin else 0.0
        # In units in which every class score has independent N(0, 1) noise: the lead of the label
        # from the non-robust feature, the bonus of class c, and what the attack takes away.
        lead = np.sqrt(2) * self.nonrobust_margin / self.noise
        bonus = self._log_odds / lead if features == "all" else 0.0
        slope = np.hypot(1.0, bonus * self.noise / (np.sqrt(2) * self.robust_margin))
        lead -= np.sqrt(2) * eps * slope / self.noise
        others = self.n_classes - 1
        right = _win_probability(np.full(others, lead + bonus))
        wrong = _win_probability(np.append(np.full(others - 1, lead), lead - bonus))
        return self.agreement * right + (1 - self.agreement) * wrong

    @property
    def _log_odds(self):
        """Evidence of the robust feature for class c against any other class."""
        return np.log(self.agreement * (self.n_classes - 1) / (1 - self.agreement))


def _simplex(n_corners):
    """Corners of a centred regular simplex at pairwise distance 2, shape (K, K - 1)."""
    return -np.sqrt(2) * helmert(n_corners).T


def _win_probability(leads):
    """P(z_0 + leads[j] > z_j for all j) for independent standard normal z."""

    def density(z):
        return np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi) * np.prod(ndtr(z + leads))

    return quad(density, -12, 12)[0]

"""Principal axes of weighted samples, accurate to the last digits of the data.

A scatter matrix S is never decomposed: squaring the data loses half of the digits. What is
computed, and updated batch by batch, is a root R with R'R = S; the singular values of R are
the standard deviations of the data along its principal axes.
"""

from dataclasses import dataclass

import numpy as np
from scipy import linalg

# Reciprocal condition number of the correlation matrix down to which its Cholesky factor
# keeps the root accurate to some 1e-11; below it a QR decomposition of the data is used.
_MIN_RCOND = 1e-5
# Standard deviations below this many roundings of the largest one are noise: zero.
_NOISE = 8 * np.finfo(float).eps


@dataclass
class PrincipalAxes:
    """Standard deviations along orthogonal axes: ``S = axes.T @ diag(std**2) @ axes``.

    Attributes
    ----------
    std : ndarray of shape (n_features,)
        Standard deviation along each axis, then those on the complement, which are zero.
    axes : ndarray of shape (n_axes, n_features) or None
        Orthonormal rows, ``n_axes <= n_features``; ``None`` when the axes are the features.
    """

    std: np.ndarray
    axes: np.ndarray | None

    @property
    def n_axes(self):
        """Number of axes that are held explicitly."""
        return len(self.std) if self.axes is None else len(self.axes)

    @property
    def root(self):
        """A root R of the covariance: ``R.T @ R = S``."""
        return self.std[None] if self.axes is None else self.std[: self.n_axes, None] * self.axes

    def rotate(self, V):
        """Coordinates of the rows of ``V`` along the axes, and what lies outside of them.

        Parameters
        ----------
        V : ndarray of shape (n_rows, n_features)
            Rows to be rotated.

        Returns
        -------
        coordinates : ndarray of shape (n_rows, n_axes)
            Coordinates along the axes.
        outside : ndarray of shape (n_rows, n_features) or None
            Component in the complement of the axes; ``None`` when that is empty.
        """
        if self.axes is None:
            return V, None
        coordinates = V @ self.axes.T
        if self.n_axes == len(self.std):
            return coordinates, None
        return coordinates, V - coordinates @ self.axes

    def rotate_back(self, coordinates, outside=None):
        """Inverse of :meth:`rotate`."""
        if self.axes is None:
            return coordinates
        V = coordinates @ self.axes
        return V if outside is None else V + outside

    def matrix(self, values):
        """Symmetric matrix with the given eigenvalues.

        Parameters
        ----------
        values : ndarray of shape (n_features,)
            Eigenvalue along each axis, then the one common to the complement. Those along
            the axes must be all at least, or all at most, that of the complement.

        Returns
        -------
        matrix : ndarray of shape (n_features, n_features)
            ``axes.T @ diag(values) @ axes`` plus the complement's part.
        """
        if self.axes is None:
            return np.diag(values)
        rest = values[-1] if self.n_axes < len(values) else 0.0
        difference = values[: self.n_axes] - rest
        # A product of a matrix with its own transpose is exactly symmetric.
        half = self.axes.T * np.sqrt(np.abs(difference))
        matrix = half @ half.T
        if difference.sum() < 0:
            np.negative(matrix, out=matrix)
        matrix.flat[:: len(matrix) + 1] += rest
        return matrix


def principal_axes(X, y, sample_weight, mean, extra, covariance_type):
    """Principal axes of the scatter of samples around their class means.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Samples.
    y : ndarray of shape (n_samples,)
        Row of ``mean`` that belongs to each sample.
    sample_weight : ndarray of shape (n_samples,)
        Non-negative weights.
    mean : ndarray of shape (n_classes, n_features)
        Class means.
    extra : ndarray of shape (n_extra, n_features)
        Further rows of deviations, with weight one; may be empty.
    covariance_type : {"full", "diag", "spherical"}
        Constraint on the covariance.

    Returns
    -------
    PrincipalAxes
        Of the weighted sum of squares; with "full", in decreasing order of ``std`` and with
        no more axes than there are deviations.
    """
    n_rows, n_features = len(X) + len(extra), X.shape[1]

    def deviations():
        return _deviations(X, y, sample_weight, mean, extra)

    if covariance_type != "full":
        std = _column_norms(deviations(), n_features)
        if covariance_type == "spherical":
            std = np.full_like(std, linalg.norm(std) / np.sqrt(n_features))
        return PrincipalAxes(std, None)
    root = None
    if n_rows > n_features:
        # Powers of two near the range of each feature: exact, and no square can overflow.
        largest = np.maximum(np.ptp(X, axis=0), np.abs(extra).max(axis=0, initial=0.0))
        root = _cholesky_root(deviations(), np.exp2(np.frexp(largest)[1]))
    if root is None:
        root = _qr_root(deviations(), n_features)
    _, singular_values, axes = linalg.svd(root, full_matrices=False, check_finite=False)
    std = np.zeros(n_features)
    std[: len(axes)] = singular_values
    std[std <= max(root.shape) * _NOISE * std[0]] = 0.0
    return PrincipalAxes(std, axes)


def _cholesky_root(blocks, unit):
    """Root from the Gram matrix, or None where that would lose accuracy.

    Half the work of a QR decomposition. The Gram matrix is scaled to a correlation matrix,
    so that only correlations, never the units of the features, count as ill-conditioned.
    """
    gram = np.zeros((len(unit), len(unit)))
    for block in blocks:
        block /= unit
        gram += block.T @ block
    std = np.sqrt(np.diag(gram))
    inverse = np.divide(1.0, std, out=np.zeros_like(std), where=std > 0)
    correlation = gram * inverse * inverse[:, None]
    np.fill_diagonal(correlation, 1.0)
    norm = np.abs(correlation).sum(axis=0).max()
    cholesky, info = linalg.lapack.dpotrf(correlation, lower=False)
    if info or linalg.lapack.dpocon(cholesky, norm)[0] < _MIN_RCOND:
        return None
    return cholesky * (std * unit)


def _qr_root(blocks, n_features):
    """Root by QR decompositions, one per block of rows."""
    root = np.empty((0, n_features))
    for block in blocks:
        root = np.vstack([root, block])
        if len(root) > n_features:
            root = linalg.qr(root, mode="raw", overwrite_a=True, check_finite=False)[1]
    return root


def _column_norms(blocks, n_features):
    """Euclidean norm of each column, safe from overflow."""
    norms = np.zeros(n_features)
    for block in blocks:
        largest = np.abs(block).max(axis=0)
        largest[largest == 0] = 1.0
        norms = np.hypot(norms, largest * np.sqrt(np.square(block / largest).sum(axis=0)))
    return norms


def _deviations(X, y, sample_weight, mean, extra):
    """Weighted deviations from the class means, in blocks of rows."""
    if len(extra):
        yield extra.copy()
    for rows in row_blocks(X):
        block = X[rows] - mean[y[rows]]
        block *= np.sqrt(sample_weight[rows])[:, None]
        yield block


def row_blocks(X):
    """Slices of rows, few and long: the work per block is in its matrix products."""
    size = max(1024, 4 * X.shape[1])
    return [slice(start, start + size) for start in range(0, len(X), size)]

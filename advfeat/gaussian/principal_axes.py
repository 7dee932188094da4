"""Principal axes of weighted samples, accurate to the last digits of the data.

Squaring the data loses half of the digits, so that the eigenvalues of a scatter matrix are
good only down to some fraction of the largest one. What lies below is therefore computed
again, from the data projected on the directions concerned: fast, and as accurate as a
singular value decomposition of the data.
"""

import functools
from dataclasses import dataclass

import numpy as np
from scipy import linalg
from scipy.linalg import lapack

# Standard deviations down to this fraction of the largest one are taken from a scatter matrix:
# relative errors of some 256**2 roundings, about 1e-11.
_DEPTH = 1 / 256
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
        """A matrix R with ``R.T @ R = S``."""
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

    def direction(self, i):
        """Give unit vector ``i``, an axis or, beyond the axes, one of the complement."""
        if self.axes is None:
            return np.eye(1, len(self.std), i)[0]
        if i < self.n_axes:
            return self.axes[i]
        # The feature that the axes explain least, without what they explain of it; twice, to
        # be orthogonal to the last digit.
        direction = np.eye(1, len(self.std), np.square(self.axes).sum(axis=0).argmin())
        for _ in range(2):
            direction = self.rotate(direction)[1]
            direction /= linalg.norm(direction)
        return direction[0]

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

    Raises
    ------
    ValueError
        If variances would overflow.
    """
    n_rows, n_features = len(X) + len(extra), X.shape[1]
    # A power of two near the range of the data: exact, and no square can overflow.
    span = X.max(axis=0).astype(float) - X.min(axis=0)
    largest = max(span.max(), np.abs(extra).max(initial=0.0))
    if not np.isfinite(np.square(largest)):
        raise ValueError(
            "The covariance of 'X' must be finite in floating point. Got features that span up "
            f"to {largest:.3g} instead; rescale 'X'."
        )
    unit = np.exp2(np.frexp(largest)[1])

    def deviations():
        return _deviations(X, y, sample_weight, mean, extra, unit)

    if covariance_type != "full":
        std = unit * _column_norms(deviations(), n_features)
        if covariance_type == "spherical":
            std = np.full_like(std, linalg.norm(std) / np.sqrt(n_features))
        return PrincipalAxes(std, None)
    if n_rows > n_features:
        std, axes = _deflated_axes(deviations, n_features)
    else:
        rows = np.vstack(list(deviations()))
        _, std, axes = linalg.svd(rows, full_matrices=False, check_finite=False)
    std = unit * np.append(std, np.zeros(n_features - len(std)))
    std[std <= min(n_rows, n_features) * _NOISE * std[0]] = 0.0
    return PrincipalAxes(std, axes)


def _deflated_axes(deviations, n_features):
    """Singular values and right singular vectors of tall data, from scatter matrices.

    The leading directions of a scatter matrix are kept; the data are projected on the others,
    whose scatter matrix is small and hence accurate, and so on.
    """
    rest, std, axes = np.eye(n_features), [], []
    blocks, to_rest = deviations, None  # rows, and from their coordinates to those of ``rest``
    while rest.shape[1]:
        scatter = np.zeros((rest.shape[1],) * 2)
        for block in blocks():
            if to_rest is not None:
                block = block @ to_rest
            scatter += block.T @ block
        variance, directions = np.linalg.eigh(scatter)
        level, directions = np.sqrt(np.maximum(variance[::-1], 0.0)), directions[:, ::-1]
        noise = n_features * _NOISE * (std[0][0] if std else level[0])
        keep = level >= level[0] * _DEPTH if level[0] > noise else np.ones(len(level), dtype=bool)
        std.append(level[keep])
        axes.append((rest @ directions[:, keep] if axes else directions[:, keep]).T)
        if keep.all():
            break
        low = directions[:, ~keep]
        rest = rest @ low if len(axes) > 1 else low
        rows = _equivalent_rows(scatter)
        if rows is not None:
            blocks, to_rest = functools.partial(iter, [rows]), low
        else:
            to_rest = low if to_rest is None else to_rest @ low
    std, axes = np.concatenate(std), np.vstack(axes)
    order = np.argsort(-std, kind="stable")
    return std[order], axes[order]


def _equivalent_rows(scatter):
    """As few rows as features with this scatter matrix, or None if it lacks the digits.

    Rounding disturbs an entry of a scatter matrix relative to the norms of its two columns, so
    columns of very different scales lose nothing; what counts is the condition of the
    correlations (Demmel and Veselic 1992).
    """
    scale = np.sqrt(np.diag(scatter))
    if not scale.all():
        return None
    correlation = scatter / scale / scale[:, None]
    root, info = lapack.dpotrf(correlation)
    if info:
        return None
    reciprocal_condition, _ = lapack.dpocon(root, linalg.norm(correlation, 1))
    return root * scale if reciprocal_condition > _DEPTH**2 else None


def _column_norms(blocks, n_features):
    """Euclidean norm of each column, safe from underflow."""
    norms = np.zeros(n_features)
    for block in blocks:
        largest = np.abs(block).max(axis=0)
        largest[largest == 0] = 1.0
        norms = np.hypot(norms, largest * np.sqrt(np.square(block / largest).sum(axis=0)))
    return norms


def _deviations(X, y, sample_weight, mean, extra, unit):
    """Weighted deviations from the class means in some unit, in blocks of rows."""
    if len(extra):
        yield extra / unit
    for rows in row_blocks(X):
        block = X[rows] - mean[y[rows]]
        block *= (np.sqrt(sample_weight[rows]) / unit)[:, None]
        yield block


def row_blocks(X):
    """Slices of rows, few and long: the work per block is in its matrix products."""
    size = max(1024, 2 * X.shape[1])
    return [slice(start, start + size) for start in range(0, len(X), size)]

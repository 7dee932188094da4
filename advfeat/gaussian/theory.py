"""The theorems of Ilyas et al. 2019, Section 4, as methods of GaussianRobustMLE."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from advfeat.gaussian.discriminant import check_table
from advfeat.gaussian.pointwise import rotated, without_rounding, worst_perturbation
from advfeat.gaussian.robust_covariance import lambda_bounds, min_alignment, vulnerability
from advfeat.utils._arrays import as_floats
from advfeat.utils._estimator import as_now
from advfeat.utils._labels import encode_labels


class GaussianTheoryMixin:
    """The adversary's perturbations (Lemmas 1 and 2) and Theorems 1 to 3."""

    def perturb(
        self, X: ArrayLike, y: ArrayLike | None = None, *, adversary: str | None = None
    ) -> NDArray:
        r"""Move samples as the adversary does that the model was trained against.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Samples.
        y : array-like of shape (n_samples,), default=None
            Their classes, from which the adversary drives them away; ``None`` takes the
            predicted ones.
        adversary : {"average", "pointwise"}, default=None
            "pointwise" moves every sample by ``eps_`` in its worst direction, which solves
            :math:`\delta = (\lambda \Sigma_r - I)^{-1} (x - \mu_y)` with a multiplier for
            each sample. "average" applies the linear map ``adversary_map_``, whose mean
            squared length on the training data is ``eps_ ** 2`` (with ``per_class``: of the
            classes, weighted by ``priors_``). ``None`` takes the estimator's own.

        Returns
        -------
        X_adv : ndarray of shape (n_samples, n_features)
            Perturbed samples.

        Raises
        ------
        ValueError
            If a label is unknown, or if ``adversary="average"`` and there is no
            ``adversary_map_``.

        References
        ----------
        Ilyas et al. 2019, Lemmas 1 and 2.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.datasets import load_iris
        >>> from advfeat import GaussianRobustMLE
        >>> X, y = load_iris(return_X_y=True)
        >>> model = GaussianRobustMLE(eps=0.5).fit(X, y)
        >>> X_adv = model.perturb(X, y, adversary="pointwise")
        >>> bool(np.allclose(np.linalg.norm(X_adv - X, axis=1), 0.5))
        True
        """
        self = as_now(self)
        check_is_fitted(self)
        given, X = X, check_table(self, X, reset=False).astype(np.float64, copy=False)
        adversary = self._adversary if adversary is None else adversary
        if not isinstance(adversary, str) or adversary not in ("average", "pointwise"):
            raise ValueError(
                "The 'adversary' parameter of perturb must be 'average', 'pointwise' or None. "
                f"Got {adversary!r} instead."
            )
        y = self.predict(given) if y is None else y
        number = encode_labels(y, self.classes_, len(X))
        if self.eps_ == 0:
            return X.copy()
        if adversary == "average" and not self._is_linear:
            raise ValueError(
                "perturb with adversary='average' needs a model fitted with that adversary and "
                "a covariance that is not singular. Use adversary='pointwise' instead."
            )
        V = X - self.means_[number]
        robust, adversary_std = np.atleast_2d(self.robust_std_), np.atleast_2d(self.adversary_std_)
        share = [None] * len(robust) if self._share is None else self._share
        X_adv = X.copy()
        for g, member in enumerate(self._scatter.members(number)):
            axes = self._scatter.axes[g]
            if adversary == "average":
                coordinates, _ = axes.rotate(V[member])
                X_adv[member] += axes.rotate_back(coordinates * (adversary_std[g] / axes.std))
            else:
                X_adv[member] += _pointwise_shift(V[member], axes, robust[g], self.eps_, share[g])
        return X_adv

    def vulnerability(self, C: ArrayLike, *, robust: bool = False) -> float | NDArray:
        r"""Compute the rise of the loss under an adversary who pays for its perturbation.

        The adversary maximises :math:`\ell(x + \delta) - C \|\delta\|_2^2`, where
        :math:`\ell = \log\det\Sigma + (x - \mu)' \Sigma^{-1} (x - \mu)` is twice the
        negative log-likelihood. For the ordinary maximum likelihood model the mean of
        :math:`\ell(x + \delta) - \ell(x)` is then

        .. math:: \mathrm{tr}\left[(I + (C S - I)^{-1})^2\right] - d

        if C exceeds one over the smallest variance, and without limit otherwise. With the
        usual factor 1/2 in the negative log-likelihood and a penalty
        :math:`\frac{C}{2} \|\delta\|_2^2` it rises by half of that.

        Parameters
        ----------
        C : float or array-like of shape (n,)
            Price of the squared length of the perturbation.
        robust : bool, default=False
            Whether to attack the robust model, with covariance ``robust_covariance_``,
            rather than the ordinary one, with ``covariance_``.

        Returns
        -------
        rise : float or ndarray of shape (n,)
            Expected rise, infinite below the threshold; the mean over the classes if
            ``per_class``.

        Raises
        ------
        NotFittedError
            Before :meth:`fit`.
        ValueError
            If a price is zero, negative or NaN, or ``C`` has more than one dimension.

        References
        ----------
        Ilyas et al. 2019, Theorem 1, with the penalty squared.

        Examples
        --------
        >>> import numpy as np
        >>> from advfeat import GaussianRobustMLE
        >>> X = np.array([[-1.0], [1.0], [9.0], [11.0]])  # variance 1 within the classes
        >>> model = GaussianRobustMLE(eps=0).fit(X, [0, 0, 1, 1])
        >>> model.vulnerability([1.0, 2.0, 3.0])
        array([ inf, 3.  , 1.25])
        """
        self = as_now(self)
        check_is_fitted(self)
        C = as_floats(C, "The 'C' parameter of vulnerability")
        if C.ndim > 1 or not np.all(C > 0):
            raise ValueError(
                "The 'C' parameter of vulnerability must be a positive number or a "
                f"one-dimensional array of them. Got {C!r} instead."
            )
        s = np.ravel(self.std_)
        model_std = np.ravel(self.robust_std_) if robust else s
        return vulnerability(s, model_std, C, weights=self._axis_weights)

    def lambda_bounds(self, *, tight: bool = False) -> tuple[float, float]:
        r"""Bound ``lambda_`` of the average adversary.

        Parameters
        ----------
        tight : bool, default=False
            ``False`` gives Theorem 2 with constants,
            :math:`\frac{d}{\mathrm{tr}\Sigma_r}(1 + \sqrt{d\,\sigma_{min}(S)}/\epsilon)
            \le \lambda \le \frac{1}{\sigma_{min}(\Sigma_r)}
            (1 + \sqrt{d\,\|S\|_F}/\epsilon)`. ``True`` gives sharper ones that do not need
            the solution, equal to each other if S is a multiple of the identity.

        Returns
        -------
        low, high : float
            The bounds; infinite for ``eps=0``.

        References
        ----------
        Ilyas et al. 2019, Theorem 2 and Appendix E.3.8.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from advfeat import GaussianRobustMLE
        >>> model = GaussianRobustMLE(eps=0.5).fit(*load_iris(return_X_y=True))
        >>> low, high = model.lambda_bounds()
        >>> low_tight, high_tight = model.lambda_bounds(tight=True)
        >>> low < low_tight < model.lambda_ < high_tight < high
        True
        """
        self = as_now(self)
        check_is_fitted(self)
        return lambda_bounds(np.ravel(self.std_), self.eps_, self._axis_weights, tight=tight)

    def min_alignment(self, *, robust: bool = True) -> tuple[float | NDArray, NDArray]:
        r"""Find the worst agreement of the gradient with the line connecting two classes.

        The gradient of the decision function is :math:`\Sigma^{-1} \mu` when the class means
        differ by :math:`\mu`. Over all :math:`\mu` the smallest cosine between the two is
        :math:`2 \sqrt\kappa / (1 + \kappa)`, where :math:`\kappa` is the condition number of
        :math:`\Sigma`. It grows with ``eps``.

        Parameters
        ----------
        robust : bool, default=True
            Whether to take the robust covariance rather than the ordinary one.

        Returns
        -------
        cosine : float or ndarray of shape (n_classes,)
            The smallest cosine; one per class if ``per_class``.
        direction : ndarray of shape (n_features,) or (n_classes, n_features)
            Difference of means of length 1 at which it is attained (approached, if the
            covariance is singular).

        References
        ----------
        Ilyas et al. 2019, Theorem 3 and Lemma 8.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from advfeat import GaussianRobustMLE
        >>> model = GaussianRobustMLE(eps=0.5).fit(*load_iris(return_X_y=True))
        >>> model.min_alignment()[0] > model.min_alignment(robust=False)[0]
        True
        """
        self = as_now(self)
        check_is_fitted(self)
        stds = np.atleast_2d(self.robust_std_ if robust else self.std_)
        cosines, directions = [], []
        for axes, std in zip(self._scatter.axes, stds, strict=True):
            cosine, *share = min_alignment(std.max(), std.min())
            ends = axes.direction(std.argmax()), axes.direction(std.argmin())
            cosines.append(cosine)
            directions.append(share[0] * ends[0] + share[1] * ends[1])
        if self._scatter.per_class:
            return np.array(cosines), np.array(directions)
        return cosines[0], directions[0]


def _pointwise_shift(V, axes, robust_std, eps, share=None):
    """Worst perturbation of each deviation ``V`` from the class mean."""
    coordinates, outside = rotated(V, axes)
    std, n = robust_std[: axes.n_axes], axes.n_axes
    if outside is not None:
        # The complement is one more axis, for each sample along its own direction there.
        length = np.linalg.norm(outside, axis=1, keepdims=True)
        direction = np.tile(axes.direction(axes.n_axes), (len(V), 1))
        np.divide(outside, length, out=direction, where=length > 0)
        coordinates = np.hstack([coordinates, length])
        std = robust_std[: n + 1]
        share = None if share is None else np.append(share[:n], share[n:].sum())
    delta, _ = worst_perturbation(
        without_rounding(coordinates / eps), (std / eps) ** -2.0, 1.0, share
    )
    delta *= eps
    if outside is None:
        return axes.rotate_back(delta)
    return axes.rotate_back(delta[:, :-1], delta[:, -1:] * direction)

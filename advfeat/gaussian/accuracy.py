"""Accuracy and usefulness under attack, in closed form, as methods of GaussianRobustMLE."""

from numbers import Real

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize
from scipy.special import ndtr
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from advfeat.gaussian.discriminant import linear_discriminant
from advfeat.gaussian.robust_covariance import check_budget, relaxation, robust_std
from advfeat.utils._arrays import as_floats
from advfeat.utils._estimator import as_now

_ROUNDINGS = 8 * np.finfo(float).eps


class GaussianAccuracyMixin:
    """Closed forms for Gaussian classes, and the choice of the training budget by them."""

    def accuracy_curve(self, eps_test: ArrayLike, *, norm: float = 2) -> float | NDArray:
        r"""Compute the accuracy under attack of the model with two classes, in closed form.

        The accuracy is that on Gaussian classes with the fitted means, priors and
        ``covariance_``, when every sample is moved across the boundary if the budget allows.

        Parameters
        ----------
        eps_test : float or array-like of shape (n,)
            Radius of the attack, in the units of ``X``.
        norm : float, default=2
            Exponent, 1 or more (``numpy.inf`` allowed), of the norm that bounds the attack.

        Returns
        -------
        accuracy : float or ndarray of shape (n,)
            Robust accuracy at each radius.

        Raises
        ------
        ValueError
            If there are more than two classes, or each has its own covariance, if ``norm`` is
            below 1, or a radius negative.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.datasets import load_breast_cancer
        >>> from advfeat import GaussianRobustMLE
        >>> X, y = load_breast_cancer(return_X_y=True)
        >>> curve = GaussianRobustMLE(eps=20).fit(X, y).accuracy_curve([0, 5, 20])
        >>> bool(np.all(np.diff(curve) < 0))
        True
        """
        self = as_now(self)
        self._check_two_classes("accuracy_curve")
        eps_test = check_budget(eps_test, "eps_test", "accuracy_curve")
        return gaussian_accuracy(
            self.coef_[0],
            self.intercept_[0],
            self._scatter.axes[0],
            self.means_,
            self.priors_,
            eps_test,
            norm,
        )

    def feature_usefulness(
        self, w: ArrayLike, eps: float = 0.0, *, norm: float = 2
    ) -> tuple[float | NDArray, float | NDArray]:
        r"""Compute usefulness and robust usefulness of linear features, in closed form.

        A feature is :math:`f(x) = w'x`, centred and scaled to unit variance over both
        classes. Its usefulness is :math:`\rho = E[y f(x)]`, with y = -1 for the first class
        and +1 for the second, and its robust usefulness is
        :math:`\gamma = E[\min_{\|\delta\| \le \epsilon} y f(x + \delta)]`.

        Parameters
        ----------
        w : array-like of shape (n_features,) or (n_linear_features, n_features)
            Weights of one feature, or of several.
        eps : float, default=0.0
            Radius of the perturbation.
        norm : float, default=2
            Exponent of the norm that bounds the perturbation.

        Returns
        -------
        rho, gamma : float or ndarray of shape (n_linear_features,)
            Usefulness and robust usefulness. A feature without variance has none.

        Raises
        ------
        ValueError
            If there are more than two classes, or each has its own covariance, if ``norm`` is
            below 1, or a radius negative.

        References
        ----------
        Ilyas et al. 2019, Section 2.

        Examples
        --------
        >>> import numpy as np
        >>> from advfeat import GaussianRobustMLE
        >>> X = np.array([[-4.0, 1.0], [-2.0, -1.0], [2.0, 1.0], [4.0, -1.0]])
        >>> model = GaussianRobustMLE().fit(X, [0, 0, 1, 1])
        >>> rho, gamma = model.feature_usefulness(np.eye(2), eps=1)
        >>> rho.round(3), gamma.round(3)
        (array([0.949, 0.   ]), array([ 0.632, -1.   ]))
        """
        self = as_now(self)
        self._check_two_classes("feature_usefulness")
        w = as_floats(w, "The 'w' parameter of feature_usefulness")
        if w.ndim not in (1, 2) or w.shape[-1] != self.n_features_in_:
            raise ValueError(
                "The 'w' parameter of feature_usefulness must have shape (n_features,) or "
                f"(n, n_features) with {self.n_features_in_} features. Got {w.shape} instead."
            )
        if not np.isfinite(w).all():
            raise ValueError(
                "The 'w' parameter of feature_usefulness must be finite. It has NaN or inf."
            )
        eps = _one_budget(eps, "eps", "feature_usefulness")
        largest = np.abs(w).max(axis=-1, keepdims=True)
        w = w / np.where(largest > 0, largest, 1.0)  # its scale does not matter
        axes = self._scatter.axes[0]
        spread = np.prod(self.priors_)
        shift = self.means_[1] - self.means_[0]
        difference = w @ shift
        part = axes.rotate(np.atleast_2d(w))[0] * axes.std[: axes.n_axes]
        std = np.linalg.norm(part, axis=1).reshape(w.shape[:-1])
        std = np.hypot(std, np.sqrt(spread) * difference)
        # What is no more than rounding of its parts is no variance.
        within = np.linalg.norm(axes.root, axis=0)
        if axes.axes is not None:  # rotations round to what is the largest in any direction
            within = np.maximum(within, axes.std.max())
        total = np.hypot(within, np.sqrt(spread) * shift)
        constant = std <= _ROUNDINGS * w.shape[-1] * (np.abs(w) @ total)
        scale = np.divide(1.0, std, out=np.zeros_like(std), where=~constant)
        rho = 2 * spread * difference * scale
        return rho, rho - eps * dual_norm(w, norm) * scale

    def eps_path(self, eps_values: ArrayLike) -> Bunch:
        """Solve for many budgets on the same data, without fitting again.

        Parameters
        ----------
        eps_values : array-like of shape (n_eps,)
            Budgets of the average adversary, in the units of ``X``.

        Returns
        -------
        path : sklearn.utils.Bunch
            With one row for each budget: ``eps``, ``lambda_``, ``robust_std``,
            ``adversary_std``, ``d_eff`` and, unless ``per_class``, ``coef`` and
            ``intercept``, as the attributes that end in ``_``. Also ``n_iter``.

        Raises
        ------
        NotFittedError
            Before :meth:`fit`.
        ValueError
            If a budget is negative, infinite or no number, or ``eps_values`` is empty or has more
            than one dimension.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from advfeat import GaussianRobustMLE
        >>> X, y = load_iris(return_X_y=True)
        >>> model = GaussianRobustMLE(eps=0).fit(X, y)
        >>> path = model.eps_path([0.1, 1.0, 10.0])
        >>> path.coef.shape  # (n_eps, n_classes, n_features)
        (3, 3, 4)
        >>> bool(path.lambda_[1] == model.set_params(eps=1.0).fit(X, y).lambda_)
        True
        """
        self = as_now(self)
        check_is_fitted(self)
        eps_values = np.atleast_1d(check_budget(eps_values, "eps_values", "eps_path"))
        s = np.ravel(self.std_)
        robust = robust_std(s, eps_values, weights=self._axis_weights)
        shape = (len(eps_values), *self.std_.shape)
        path = Bunch(
            eps=eps_values,
            lambda_=robust.lambda_,
            robust_std=robust.std.reshape(shape),
            adversary_std=robust.adversary_std.reshape(shape),
            d_eff=relaxation(robust, s, self._axis_weights)[0],
            n_iter=robust.n_iter,
        )
        if not self._scatter.per_class:
            path.coef, path.intercept = linear_discriminant(
                self._scatter.axes[0], self.means_, self.priors_, robust.std
            )
        return path

    def select_eps(self, eps_test: float, *, norm: float = 2) -> float:
        """Choose the training budget for the best accuracy under a given attack.

        The best training budget is in general not the radius of the attack. The closed form
        of :meth:`accuracy_curve` is maximised over the budgets of :meth:`eps_path`; no model
        is fitted again.

        Parameters
        ----------
        eps_test : float
            Radius of the attack, in the units of ``X``.
        norm : float, default=2
            Exponent of the norm that bounds the attack.

        Returns
        -------
        eps : float
            Training budget, to be passed to ``set_params(eps=..., relative_eps=False)``.

        Raises
        ------
        ValueError
            If there are more than two classes, or each has its own covariance; then use a
            grid search with a robust scorer.

        Examples
        --------
        >>> from sklearn.datasets import load_breast_cancer
        >>> from advfeat import GaussianRobustMLE
        >>> X, y = load_breast_cancer(return_X_y=True)
        >>> model = GaussianRobustMLE(eps=20).fit(X, y)
        >>> eps = model.select_eps(eps_test=20)
        >>> best = GaussianRobustMLE(eps=eps).fit(X, y)
        >>> bool(best.accuracy_curve(20) > model.accuracy_curve(20))
        True
        """
        self = as_now(self)
        self._check_two_classes("select_eps")
        eps_test = _one_budget(eps_test, "eps_test", "select_eps")

        def accuracy(eps_values):
            path = self.eps_path(eps_values)
            return gaussian_accuracy(
                path.coef[:, 0],
                path.intercept[:, 0],
                self._scatter.axes[0],
                self.means_,
                self.priors_,
                eps_test,
                norm,
            )

        # From budgets that hardly reach the weakest direction to those that hide the strongest.
        scale = float(np.linalg.norm(self.std_)) or 1.0
        weakest = float(self.std_[self.std_ > 1e-12 * scale].min(initial=scale))
        high = max(1e3 * scale, 10 * self._hiding_eps(eps_test, norm))
        low, high = np.log10([min(1e-4 * scale, 1e-2 * weakest), high])
        grid = np.logspace(low, high, int(10 * (high - low)) + 1)
        if self.std_.any():  # else a budget of zero leaves no model
            grid = np.append(0.0, grid)
        best = int(np.argmax(accuracy(grid)))
        low, high = grid[max(best - 1, int(grid[0] == 0))], grid[min(best + 1, len(grid) - 1)]
        refined = optimize.minimize_scalar(
            lambda log_eps: -accuracy(np.exp(log_eps))[0],
            bounds=(np.log(low), np.log(high)),
            method="bounded",
        )
        candidates = np.array([grid[best], np.exp(refined.x)])
        return float(candidates[np.argmax(accuracy(candidates))])

    def _hiding_eps(self, eps_test, norm):
        """Budget whose model, under attack, still decides by the priors; 0 if they are equal.

        A large budget gives standard deviations of eps / sqrt(d), all alike, and the attack
        changes the score by its radius times the shift of the means over their square.
        """
        odds = abs(np.diff(np.log(self.priors_))[0]) if self.priors_.all() else 0.0
        if odds == 0:
            return 0.0
        shift = dual_norm(self.means_[1] - self.means_[0], norm)
        return np.sqrt(self.n_features_in_ / odds) * np.sqrt(eps_test) * np.sqrt(shift)

    def _check_two_classes(self, method):
        """Refuse where the closed forms of a linear decision with two classes do not hold."""
        check_is_fitted(self)
        if self._scatter.per_class or len(self.classes_) != 2:
            raise ValueError(
                f"{method} needs two classes and per_class=False. Got {len(self.classes_)} "
                f"classes and per_class={self._scatter.per_class} instead."
            )


def _one_budget(eps, name, method):
    eps = check_budget(eps, name, method)
    if eps.ndim:
        raise ValueError(f"The '{name}' parameter of {method} must be one number. Got {eps!r}.")
    return eps


def dual_norm(w, norm):
    """Largest change of ``w'x`` under perturbations of unit norm, for each row of ``w``."""
    if not isinstance(norm, Real) or isinstance(norm, bool) or not norm >= 1:
        raise ValueError(f"The 'norm' parameter must be a number from 1 to inf. Got {norm!r}.")
    order = np.inf if norm == 1 else 1 if norm == np.inf else norm / (norm - 1)
    largest = np.abs(w).max(axis=-1, keepdims=True)
    scale = np.where(largest > 0, largest, 1.0)  # powers of a high order leave no range otherwise
    return scale[..., 0] * np.linalg.norm(w / scale, ord=order, axis=-1)


def gaussian_accuracy(coef, intercept, axes, means, priors, eps, norm):
    """Accuracy of linear decisions on two Gaussian classes under attack.

    Parameters
    ----------
    coef : ndarray of shape (..., n_features)
        Weights; positive scores stand for the second class.
    intercept : ndarray of shape (...)
        Constants.
    axes : PrincipalAxes
        Principal axes of the common covariance of the classes.
    means, priors : ndarray of shape (2, n_features), (2,)
        Means and probabilities of the classes.
    eps : ndarray of shape (...)
        Radius of the attack; broadcast against ``intercept``.
    norm : float
        Exponent of the norm of the attack.

    Returns
    -------
    accuracy : ndarray of shape (...)
        Sum of ``prior * Phi((margin - eps * dual norm of coef) / std of the score)``.
    """
    coordinates, _ = axes.rotate(np.atleast_2d(coef))
    std = np.linalg.norm(coordinates * axes.std[: axes.n_axes], axis=-1)
    std = std.reshape(np.shape(intercept))
    reach = eps * dual_norm(coef, norm)
    accuracy = 0.0
    for prior, mean, sign in zip(priors, means, (-1.0, 1.0), strict=True):
        margin = sign * (coef @ mean + intercept) - reach
        with np.errstate(divide="ignore", invalid="ignore"):
            accuracy = accuracy + prior * ndtr(np.where(margin == 0, 0.0, margin / std))
    return accuracy

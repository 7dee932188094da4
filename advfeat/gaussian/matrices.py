"""The matrices of a fitted GaussianRobustMLE, computed from its axes when they are asked for."""
# ruff: noqa: D102
# The Attributes of GaussianRobustMLE describe them: its page would show a text here instead.

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from advfeat.gaussian.robust_covariance import ratio


class GaussianMatricesMixin:
    """Principal axes, covariances and the adversary's map, as attributes.

    Only the axes and the standard deviations along them are stored: matrices of shape
    (n_features, n_features) would be most of the size of a pickle.
    """

    def _matrices(self, values):
        """Matrices with the given eigenvalues along the fitted axes."""
        pairs = zip(self._scatter.axes, np.atleast_2d(values), strict=True)
        matrices = [axes.matrix(eigenvalues) for axes, eigenvalues in pairs]
        return np.array(matrices) if self._scatter.per_class else matrices[0]

    @property
    def components_(self) -> NDArray | list | None:
        check_is_fitted(self)
        components = [axes.axes for axes in self._scatter.axes]
        return (
            components if self._scatter.per_class and components[0] is not None else components[0]
        )

    @property
    def covariance_(self) -> NDArray:
        check_is_fitted(self)
        return self._matrices(np.square(self.std_))

    @property
    def robust_covariance_(self) -> NDArray:
        check_is_fitted(self)
        return self._matrices(np.square(self.robust_std_))

    @property
    def precision_(self) -> NDArray:
        check_is_fitted(self)
        return self._matrices(ratio(1.0, self.robust_std_) ** 2)

    @property
    def _is_linear(self) -> bool:
        """Whether the adversary is a linear map of the deviation from the class mean."""
        return self._adversary == "average" and bool(self.std_.all())

    @property
    def adversary_map_(self) -> NDArray:
        check_is_fitted(self)
        if not self._is_linear:
            raise AttributeError(
                "adversary_map_ needs adversary='average' and a covariance that is not "
                "singular: along directions without variance no linear map of x - mean can "
                "spend the budget."
            )
        return self._matrices(self.adversary_std_ / self.std_)

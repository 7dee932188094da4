"""Constructed sets in the container of the data that they were made from: array or data frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sklearn
from sklearn.base import OneToOneFeatureMixin
from sklearn.utils.validation import check_is_fitted
from torch.utils.data import Subset

from advfeat.datasets._constructed import ConstructedDataset
from advfeat.utils._frames import as_frame, library_of

if TYPE_CHECKING:
    from typing_extensions import Self

_CONTAINERS = ("default", "pandas", "polars")


class ContainerMixin(OneToOneFeatureMixin):
    """Feature names and ``set_output`` of a transformer that keeps features and their order."""

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """Give the names of the features, which are those of the input.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Checked against those seen in `fit`.

        Returns
        -------
        ndarray of str

        Raises
        ------
        ValueError
            For names other than those seen in `fit`, and after images, which have none.
        """
        check_is_fitted(self, "input_shape_")
        if len(self.input_shape_) != 1:
            raise ValueError(
                f"{type(self).__name__} was fitted on images of shape {self.input_shape_}: their "
                "values have no feature names."
            )
        return super().get_feature_names_out(input_features)

    def set_output(self, *, transform: str | None = None) -> Self:
        """Choose the container of `fit_transform` and `transform`, for (n, d) data.

        Parameters
        ----------
        transform : {"default", "pandas", "polars"} or None, default=None
            "default": that of the input, so that a classifier behind this step sees the same
            feature names in `fit` and in `predict`. None leaves the choice as it is. Images are
            arrays, and constructed sets that carry labels only keep the names, whatever it is.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For any other name.
        """
        if transform is not None:
            if transform not in _CONTAINERS:
                raise ValueError(
                    f"transform must be one of {_CONTAINERS} or None. Got {transform!r}."
                )
            # scikit-learn's name: `clone` copies it.
            config = {**getattr(self, "_sklearn_output_config", {}), "transform": transform}
            self._sklearn_output_config = config
        return self

    def _in_container(self, values, given):
        """Put (n, d) values into the container chosen, by default that of the data given."""
        library = self._container_of(given)
        if library is None:
            return values
        if library_of(given) != library:
            return as_frame(values, self.get_feature_names_out(), library)
        index = given.index if library == "pandas" else None
        return as_frame(values, given.columns, library, index)

    def _names_for(self, given):
        """Feature names that a constructed set with labels of its own keeps, or None."""
        while type(given) is Subset:  # of a named set
            given = given.dataset
        library = self._container_of(given)
        if library is not None:
            unnamed = library_of(given) == library and not hasattr(self, "feature_names_in_")
            return None if unnamed else self.get_feature_names_out()
        return given.feature_names if isinstance(given, ConstructedDataset) else None

    def _container_of(self, given):
        """Return "pandas", "polars" or None for an array: what was chosen, or what is given."""
        if len(self.input_shape_) != 1:
            return None
        chosen = getattr(self, "_sklearn_output_config", {}).get("transform")
        chosen = chosen or sklearn.get_config()["transform_output"]
        return library_of(given) if chosen == "default" else chosen

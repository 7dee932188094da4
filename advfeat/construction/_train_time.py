"""Base of the two constructors: construct on ``fit_transform``, identity on ``transform``.

A Pipeline calls ``fit_transform`` on the training data and ``transform`` on everything it
predicts, so a classifier behind a constructor trains on the constructed set and is scored on
unmodified data. scikit-learn's TargetEncoder sets the precedent: ``fit_transform(X, y)`` is not
``fit(X, y).transform(X)``.
"""

from abc import abstractmethod
from contextlib import closing

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet
from torch.utils.data import Dataset

from advfeat.classifiers import StandardClassifier
from advfeat.classifiers._fitting import restored_on_failure
from advfeat.classifiers._from_skorch import check_skorch_net, fit_skorch_net, from_skorch
from advfeat.classifiers._network_classifier import NetworkClassifier
from advfeat.construction._kept import InDtype, check_dtype, check_store
from advfeat.datasets._constructed import ConstructedDataset
from advfeat.datasets._torch_data import unpack_labelled_data
from advfeat.utils._batches import iter_batches, run_batches
from advfeat.utils._checks import check_data, check_inputs
from advfeat.utils._modules import refuse_module
from advfeat.utils._pickles import VersionedPickle
from advfeat.utils._random import draw_seed
from advfeat.utils._sklearn import _fit_context


class TrainTimeTransformer(
    VersionedPickle, TransformerMixin, BaseEstimator, auto_wrap_output_keys=None
):  # type: ignore[call-arg]
    """Transformer that changes training data only.

    Subclasses say which source they train by default and construct the set.
    """

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
        """Train the source classifier.

        ``fit(X, y).transform(X)`` is not ``fit_transform(X, y)``: `transform` returns X.

        Parameters
        ----------
        X : array-like of shape (n, d) or (n, C, H, W)
            Images are floats in [0, 1] or uint8 in 0..255.
        y : array-like of shape (n,)

        Returns
        -------
        self

        Raises
        ------
        TypeError
            If the source is no network.
        ValueError
            For unusable X, y or parameters.
        """
        with restored_on_failure(self):
            self._fit_source(X, y)
        return self

    @_fit_context(prefer_skip_nested_validation=False)
    def fit_transform(self, X, y=None):
        """Train the source classifier and construct the training set.

        ``fit_transform(X, y)`` is not ``fit(X, y).transform(X)``: `transform` returns X.

        Parameters
        ----------
        X : array-like of shape (n, d) or (n, C, H, W)
        y : array-like of shape (n,)

        Returns
        -------
        The constructed set, see the class.
        """
        with restored_on_failure(self):
            check_store(self)
            inputs, labels, source_labels = self._fit_source(X, y)
            constructed = self._construct(inputs, labels)
        if isinstance(X, Dataset) and not isinstance(constructed, ConstructedDataset):
            # New inputs for a set that carries its own labels: they must not get lost.
            source_labels = labels if source_labels is None else source_labels
            classes = X.classes if isinstance(X, ConstructedDataset) else np.unique(labels)
            return ConstructedDataset(constructed, labels, source_labels, classes)
        return constructed

    def transform(self, X):
        """Return X unchanged, after checking it.

        ``fit(X, y).transform(X)`` is not ``fit_transform(X, y)``: data to predict stay as they
        are, as in the paper.

        Parameters
        ----------
        X : array-like of shape (n, d) or (n, C, H, W)

        Returns
        -------
        X
        """
        checked = self._check_inputs(X)
        return X if hasattr(X, "shape") else checked

    @abstractmethod
    def _default_source(self):
        """Classifier to train when ``estimator`` is None."""

    @abstractmethod
    def _construct(self, X, y):
        """Construct the training set from checked X and y."""

    def _fit_source(self, X, y):
        X, y, source_labels = unpack_labelled_data(self, X, y)
        check_inputs(self, X, reset=True, bounds=None)
        source = self._default_source() if self.estimator is None else clone(self.estimator)
        self._check_source(source)
        if isinstance(source, StandardClassifier) and source.random_state is None:
            # As in scikit-learn's ensembles: one random_state determines the whole.
            source.set_params(random_state=draw_seed(self.random_state))
        if isinstance(source, NeuralNet):
            checked = check_data(X, type(source).__name__)
            self.estimator_ = fit_skorch_net(source, checked, y, draw_seed(self.random_state))
        else:
            self.estimator_ = source.fit(X, y)
        return X, y, source_labels

    def _validate_params(self):
        refuse_module(
            _unfrozen(self.estimator)
        )  # scikit-learn's message would print the whole network
        super()._validate_params()

    def _check_source(self, source):
        inner = _unfrozen(source)
        refuse_module(inner)
        if isinstance(inner, NeuralNet):
            check_skorch_net(inner)
        elif not isinstance(inner, NetworkClassifier):
            raise TypeError(
                f"The 'estimator' parameter of {type(self).__name__} must be an advfeat "
                "classifier (for a torch module: from_torch), a skorch NeuralNetClassifier, or a "
                "FrozenEstimator of one: the construction needs its gradients. Got "
                f"{type(inner).__name__} instead"
                + ("; pass its best_estimator_." if hasattr(inner, "best_estimator_") else ".")
            )

    @property
    def _source(self):
        """The source as a NetworkClassifier."""
        check_is_fitted(self, "estimator_")
        inner = _unfrozen(self.estimator_)
        return from_skorch(inner, self.input_shape_) if isinstance(inner, NeuralNet) else inner

    def _check_inputs(self, X):
        check_is_fitted(self, "estimator_")
        check_inputs(self, X, bounds=None)
        return self._source.check_inputs(X)

    def _run(self, job, columns, desc, store=None):
        """Run the job over the batches of the columns; with a store, keep each in its place."""
        settings = {
            "batch_size": self.batch_size,
            "n_jobs": self.n_jobs,
            "desc": desc,
            "verbose": self.verbose,
        }
        check_dtype(columns[0], self.dtype)
        job = InDtype(job, self.dtype)
        if store is None:
            return run_batches(job, columns, **settings)
        with store, closing(iter_batches(job, columns, skip=store.holds, **settings)) as parts:
            for begin, part in parts:
                store.put(begin, part)
        X, *rest = store.read()
        return X, *(np.array(column) for column in rest)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def _unfrozen(source):
    return source.estimator if isinstance(source, FrozenEstimator) else source

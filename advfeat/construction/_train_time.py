"""Base of the two constructors: construct on ``fit_transform``, identity on ``transform``.

A Pipeline calls ``fit_transform`` on the training data and ``transform`` on everything it
predicts, so a classifier behind a constructor trains on the constructed set and is scored on
unmodified data. scikit-learn's TargetEncoder sets the precedent: ``fit_transform(X, y)`` is not
``fit(X, y).transform(X)``.
"""

from __future__ import annotations

from abc import abstractmethod
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn import get_config
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils.metadata_routing import (
    UNUSED,
    MetadataRouter,
    MethodMapping,
    process_routing,
)
from sklearn.utils.validation import check_is_fitted, has_fit_parameter
from skorch import NeuralNet
from torch.utils.data import Dataset

from advfeat.classifiers import StandardClassifier
from advfeat.classifiers._from_skorch import check_skorch_net, fit_skorch_net, from_skorch
from advfeat.classifiers._from_torch import TorchClassifier
from advfeat.classifiers._network_classifier import NetworkClassifier
from advfeat.construction._containers import ContainerMixin
from advfeat.construction._dtype import check_dtype
from advfeat.construction._store_plan import StorePlan, check_folder
from advfeat.datasets._constructed import ConstructedDataset
from advfeat.datasets._torch_data import classes_of, inputs_of, unpack_labelled_data
from advfeat.utils._arrays import as_array
from advfeat.utils._batches import iter_batches, run_batches
from advfeat.utils._checks import check_data, check_inputs
from advfeat.utils._errors import add_hint
from advfeat.utils._estimator import EstimatorMixin, as_now, draft_of
from advfeat.utils._frames import library_of
from advfeat.utils._labels import check_labels
from advfeat.utils._lazy import LazyArray, extents_remembered
from advfeat.utils._modules import refuse_module, unfrozen
from advfeat.utils._random import draw_seed
from advfeat.utils._sklearn import _fit_context, _raise_for_params, html_block_around
from advfeat.utils._typing import Inputs
from advfeat.utils._units import images_in_units, items_in_units
from advfeat.utils._workers import check_backend

if TYPE_CHECKING:
    from typing_extensions import Self


class TrainTimeTransformer(
    EstimatorMixin,
    ContainerMixin,
    TransformerMixin,
    BaseEstimator,
    auto_wrap_output_keys=None,  # type: ignore[call-arg]
):
    """Transformer that changes training data only.

    Subclasses say which source they train by default and construct the set.
    """

    # Weights are the source's: with metadata routing it is the source that requests them.
    __metadata_request__fit = {"sample_weight": UNUSED}

    _relabels = False  # whether the set constructed has other labels
    _made: tuple[str, ...] = ()  # attributes of what `fit_transform` constructed
    _columns: dict[str, type] = {}  # what the job returns for each sample beside the inputs

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        X: Inputs,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        **fit_params: Any,
    ) -> Self:
        """Train the source classifier.

        ``fit(X, y).transform(X)`` is not ``fit_transform(X, y)``: `transform` returns X.

        Parameters
        ----------
        X : array-like of shape (n, d) or (n, C, H, W), or torch Dataset of (input, label) items
            Images are floats in [0, 1] or uint8 in 0..255.
        y : array-like of shape (n,), default=None
            None for a Dataset, which has its own.
        sample_weight : array-like of shape (n,), default=None
            Handed to the source's `fit`. With scikit-learn's metadata routing the source must
            request it: ``source.set_fit_request(sample_weight=True)``.
        **fit_params : array-like of shape (n,)
            Only with metadata routing: the weights under the name that the source requests them
            by, ``w`` after ``source.set_fit_request(sample_weight="w")``.

        Returns
        -------
        self

        Raises
        ------
        TypeError
            If the source is no network, or takes no weights.
        ValueError
            For unusable X, y or parameters.
        """
        with draft_of(self) as draft, extents_remembered():
            draft._fit_source(X, y, sample_weight, fit_params)
        return self

    @_fit_context(prefer_skip_nested_validation=False)
    def fit_transform(
        self,
        X: Inputs,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        **fit_params: Any,
    ) -> Any:
        """Train the source classifier and construct the training set.

        ``fit_transform(X, y)`` is not ``fit(X, y).transform(X)``: `transform` returns X. If the
        construction fails or is interrupted, the trained source stays in ``estimator_``, so that
        it need not be trained again: pass ``FrozenEstimator(constructor.estimator_)``.

        Parameters
        ----------
        X, y, sample_weight, **fit_params
            As in `fit`.

        Returns
        -------
        The constructed set, see the class.
        """
        check_folder(self, _is_trained(self.estimator))
        check_backend(self.n_jobs)
        with extents_remembered():
            return self._fit_transform(X, y, sample_weight, fit_params)

    def _fit_transform(self, X, y, sample_weight, fit_params):
        with draft_of(self) as draft:
            inputs, labels, source_labels, decided, plan = draft._fit_source(
                X, y, sample_weight, fit_params, keep=self.store is not None
            )
        with self._source_kept():
            constructed = self._construct(inputs, labels, plan, **decided)
        if isinstance(constructed, ConstructedDataset):
            constructed.feature_names = self._names_for(X)
            return constructed
        if isinstance(X, Dataset):
            # New inputs for a set that carries its own labels: they must not get lost.
            source_labels = labels if source_labels is None else source_labels
            labels, source_labels = np.array(labels), np.array(source_labels)  # not the user's own
            classes = classes_of(X, labels)
            return ConstructedDataset(
                constructed, labels, source_labels, classes, self._names_for(X)
            )
        return self._in_container(constructed, X)

    def transform(self, X: Inputs) -> Any:
        """Return X unchanged, after checking it.

        ``fit(X, y).transform(X)`` is not ``fit_transform(X, y)``: data to predict stay as they
        are, as in the paper. Only their units become those of the constructed set: uint8 images
        are returned as floats in [0, 1].

        Parameters
        ----------
        X : array-like of shape (n, d) or (n, C, H, W), or torch Dataset
            Samples, in input units (images in [0, 1], or uint8).

        Returns
        -------
        X
            Lists, and what other libraries hold, as an array; memory maps of uint8 images as
            what is indexed like one (``numpy.asarray`` reads it); after `set_output` in the
            container chosen.
        """
        self = as_now(self)
        checked = self._check_inputs(X)
        kept = isinstance(X, (np.ndarray, torch.Tensor, Dataset, LazyArray))
        if not kept and library_of(X) is None:
            X = self._as_given(np.asarray(checked))
        X = items_in_units(X) if isinstance(X, Dataset) else images_in_units(X)
        if isinstance(X, (Dataset, LazyArray)) or self._container_of(X) == library_of(X):
            return X
        return self._in_container(as_array(X), X)

    def get_metadata_routing(self) -> MetadataRouter:
        """Tell scikit-learn's metadata routing that weights go to the source.

        Returns
        -------
        sklearn.utils.metadata_routing.MetadataRouter
        """
        source = self._default_source() if self.estimator is None else self.estimator
        if _is_trained(source):
            return MetadataRouter(owner=self)  # whatever weights there are, they are for others
        mapping = MethodMapping()
        mapping.add(caller="fit", callee="fit").add(caller="fit_transform", callee="fit")
        return MetadataRouter(owner=self).add(estimator=source, method_mapping=mapping)

    @abstractmethod
    def _default_source(self):
        """Classifier to train when ``estimator`` is None."""

    @abstractmethod
    def _construct(self, X, y, plan, **decided):
        """Construct the training set.

        Parameters
        ----------
        X, y : as unpacked
        plan : StorePlan or None
            Of the store, if there is one.
        **decided
            What `_check_before` returned.
        """

    @abstractmethod
    def _check_before(self, X, y, source):
        """Check what belongs to the construction, before the source is trained.

        Parameters
        ----------
        X : array of shape (n, ...), checked
        y : ndarray of shape (n,), checked
        source : classifier
            To be trained, or trained in a FrozenEstimator.

        Returns
        -------
        dict of str to ndarray
            What is decided now of the set to be constructed, by the names that `_construct` has.
        """

    def _fit_source(self, X, y, sample_weight, fit_params, keep=False):
        source = self._default_source() if self.estimator is None else clone(self.estimator)
        self._check_source(source)
        given = y
        X, y, source_labels = unpack_labelled_data(self, X, y)
        if given is not None and source_labels is not None and self._relabels:
            self._refuse_relabelled(y, source_labels)
        inner = unfrozen(source)
        channels = getattr(inner, "channels", "first")
        checked = check_inputs(self, X, reset=True, bounds=None, channels=channels)
        y = check_labels(y, len(checked))
        weights = self._route(source, sample_weight, fit_params)
        if isinstance(source, FrozenEstimator):
            self.estimator_ = source
            self._check_inputs(X)
        check_dtype(checked, self.dtype)
        decided = self._check_before(checked, y, source)
        if isinstance(source, StandardClassifier) and source.random_state is None:
            # As in scikit-learn's ensembles: one random_state determines the whole.
            source.set_params(random_state=draw_seed(self.random_state))
        plan = None
        if keep:
            classes, positions = np.unique(y, return_inverse=True)  # whatever their type is
            trained_on = {"y": positions, "classes": np.array(list(map(str, classes.tolist())))}
            # As they reach the source, which may request them by another name, or not at all.
            trained_on.update((k, np.asarray(as_array(v))) for k, v in weights.items())
            plan = StorePlan.of(
                self, source, checked, self._columns, trained_on=trained_on, decided=decided
            )
        for name in self._made:
            vars(self).pop(name, None)
        if isinstance(source, NeuralNet):
            checked = check_data(X, type(source).__name__)
            self.estimator_ = fit_skorch_net(source, checked, y, draw_seed(self.random_state))
        else:
            self.estimator_ = source.fit(X, y, **weights)
        return X, y, source_labels, decided, plan

    def _refuse_relabelled(self, y, source_labels):
        """Refuse to relabel, behind a relabeler of the same Pipeline, what it has relabelled.

        The classifier behind both could not tell which labels are the Pipeline's own.
        """
        if not np.array_equal(y, source_labels):
            raise ValueError(
                f"A Pipeline can hold one {type(self).__name__} only. This one got data that "
                "another has relabelled, beside the labels from before. To relabel them again, "
                "pass the ConstructedDataset without y."
            )

    def _route(self, source, sample_weight, fit_params):
        """Weights as the source's `fit` takes them; refused where they would have no effect."""
        _raise_for_params(fit_params, self, "fit")
        given = {"sample_weight": sample_weight, **fit_params}
        given = {name: value for name, value in given.items() if value is not None}
        if not given:
            return {}
        trained = _is_trained(source)
        if trained or not has_fit_parameter(source, "sample_weight"):
            raise TypeError(
                f"{', '.join(given)} was given, but the source of {type(self).__name__}, "
                f"{type(source).__name__}, {'is trained already.' if trained else 'takes none.'}"
            )
        if get_config()["enable_metadata_routing"]:
            return process_routing(self, "fit", **given).estimator.fit
        return given

    @contextmanager
    def _source_kept(self):
        """Tell whoever stops a construction how to go on from the trained source."""
        try:
            yield
        except BaseException as error:
            if not isinstance(self.estimator_, FrozenEstimator):
                add_hint(
                    error,
                    "The trained source is kept in estimator_; to go on without training it "
                    f"again, use {type(self).__name__}(FrozenEstimator(constructor.estimator_)) "
                    "with the same parameters. (A Pipeline with memory and a search fit clones, "
                    "which are gone: give these a source that is trained.)",
                )
            raise

    def _validate_params(self):
        # scikit-learn's message would print the whole network.
        refuse_module(unfrozen(self.estimator))
        super()._validate_params()

    def _check_source(self, source):
        inner = unfrozen(source)
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
        inner = unfrozen(self.estimator_)
        return from_skorch(inner, self.input_shape_) if isinstance(inner, NeuralNet) else inner

    def _check_inputs(self, X):
        check_is_fitted(self, "estimator_")
        X, source = inputs_of(X), self._source
        check_inputs(self, X, bounds=None, channels=source.channels)
        return source.check_inputs(X)

    def _as_given(self, X):
        """Images of shape (n, C, H, W) in the layout of the data given."""
        last = self._source.channels == "last" and X.ndim == 4
        return X.transpose(0, 2, 3, 1) if last else X

    def _run(self, job, columns, desc, store=None):
        """Run the job over the batches of the columns; with a store, keep each in its place."""
        settings = {
            "batch_size": self.batch_size,
            "n_jobs": self.n_jobs,
            "desc": desc,
            "verbose": self.verbose,
        }
        check_dtype(columns[0], self.dtype)
        if store is None:
            return run_batches(job, columns, **settings)
        with store, closing(iter_batches(job, columns, skip=store.holds, **settings)) as parts:
            for begin, part in parts:
                store.put(begin, part)
        X, *rest = store.read()
        return X, *(np.array(column) for column in rest)

    def _sk_visual_block_(self):
        source = getattr(self, "estimator_", self.estimator)
        source = self._default_source() if source is None else source
        return html_block_around("estimator", source)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def _is_trained(source):
    return isinstance(source, (FrozenEstimator, TorchClassifier))

"""NonRobustRelabeler: training sets whose labels are carried by adversarial perturbations."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from advfeat.classifiers import StandardClassifier
from advfeat.construction._dtype import as_stored
from advfeat.construction._sources import (
    check_network,
    classes_to_be,
    known_classes,
    refuse_random,
)
from advfeat.construction._train_time import TrainTimeTransformer
from advfeat.datasets._constructed import ConstructedDataset, storable_labels
from advfeat.datasets._torch_data import unpack_data
from advfeat.optim import (
    FrozenNetwork,
    L2Ball,
    LinfBall,
    make_ball,
    projected_gradient,
    targeted_cross_entropy,
    useful_radius,
)
from advfeat.utils._checks import batch_tensor
from advfeat.utils._estimator import as_now
from advfeat.utils._labels import check_labels, encode_labels, positions_of
from advfeat.utils._logits import classified_as
from advfeat.utils._norms import NORM_CONSTRAINT
from advfeat.utils._random import draw_seed, make_rng
from advfeat.utils._rounding import warn_of_eps
from advfeat.utils._sklearn import HasMethods, Interval, StrOptions
from advfeat.utils._typing import Inputs, PathOrStr, RandomState
from advfeat.utils._warnings import warn_caller

_IN_VAIN = 0.05  # share of the samples that reach a class not their own, below which to warn
_STILL = 0.05  # share that does not move, above which to warn
_N_LOOKED_AT = 64  # samples


class NonRobustRelabeler(TrainTimeTransformer):
    """Perturb each training sample towards a target class, and label it as that class.

    To a human the set looks mislabelled: the new label belongs to a small adversarial
    perturbation, to non-robust features. ``target="random"`` gives D_rand, of which robust
    features tell something, too, because some targets are the true label; ``target="other"``
    gives D_other, without these, and ``target="deterministic"`` D_det.

    `fit_transform` returns a `ConstructedDataset`, which carries the new labels: end the
    Pipeline with an advfeat or skorch classifier. `transform` returns its input unchanged, so
    that a Pipeline is scored on unmodified data. As with scikit-learn's TargetEncoder,
    ``fit(X, y).transform(X)`` is not ``fit_transform(X, y)``.

    Parameters
    ----------
    estimator : advfeat classifier, skorch NeuralNetClassifier or FrozenEstimator, default=None
        The source, trained in `fit`; ``StandardClassifier()`` by default. Wrap a trained one in
        ``sklearn.frozen.FrozenEstimator``; one made by `from_torch` is never trained.
    target : {"random", "deterministic", "other"}, mapping or callable, default="random"
        "random": uniform over all classes, the true one included, as in the paper; the samples
        that keep their label then speak for it with all their features, robust ones included.
        "other": uniform over the wrong classes, never the true one: what such a set teaches
        about the true classes comes from the perturbations, which at a large eps carry robust
        features, too. "deterministic": the next class,
        (y + 1) mod C in sorted order. A mapping from label to label, or a callable that gets the
        labels (n,) and returns the target labels (n,).
    norm : {2, numpy.inf}, default=2
        Norm that bounds the perturbation; 2 as in the paper.
    eps : float, default=0.5
        Radius of the perturbation, in input units.
    n_steps : int, default=100
        As in the paper. More steps reach the target more often, and take as much longer.
    step_size : float, default=None
        In input units; eps / 5 by default.
    batch_size : int, default=256
        Samples optimised together. Memory grows with it; the result depends on it by rounding
        only.
    n_jobs : int, default=None
        Batches worked on at the same time, see `adversarial_examples`. The result does not
        depend on it.
    store : path, default=None
        Folder in which `fit_transform` writes the set as one ``X.npy``, batch by batch.
        ``X`` of the result is then a read-only memory map, so that it may be larger than memory.
        Called again with the same source, data and parameters, it goes on where it was stopped,
        to the same bits (with the same versions and number of threads). Needs an integer
        ``random_state``; pass a trained source in a FrozenEstimator, for one that is trained
        anew may get other weights.
    dtype : {"float32", "float16"}, default="float32"
        Of the constructed inputs. float16 halves memory and disk, and rounds values in [0, 1] by
        at most 0.00025, far below usual eps; training computes in float32 all the same.
    precision : {"fp32", "bf16"}, default="fp32"
        "bf16" is faster where the hardware has it, and rounds more; results are judged in fp32.
    random_state : int, RandomState or None, default=None
        An integer gives the same result at each call.
    verbose : int, default=1
        Whether work of more than two seconds shows a progress bar.

    Attributes
    ----------
    estimator_ : fitted classifier
        The source.
    success_rate_ : float
        Share of the samples of `fit_transform` that the source classifies as their target.
    input_shape_ : tuple
    n_features_in_ : int
        For (n, d) input.

    Notes
    -----
    D_rand and D_other of photographs want a low learning rate and many epochs: the paper takes
    0.01 for D_rand (Table 3).

    References
    ----------
    Ilyas et al. 2019, eq. 7, Section 3.2, Appendix C.5, Figure 6 and Table 6.

    Examples
    --------
    >>> from sklearn.pipeline import Pipeline
    >>> from advfeat import NonRobustRelabeler, StandardClassifier
    >>> from advfeat.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> source = StandardClassifier(max_epochs=3, random_state=0)
    >>> pipe = Pipeline(
    ...     [
    ...         ("relabel", NonRobustRelabeler(source, eps=1.0, n_steps=20, random_state=0)),
    ...         ("clf", StandardClassifier(max_epochs=3, random_state=0)),
    ...     ]
    ... )
    >>> score = pipe.fit(X[:500], y[:500]).score(X[1000:], y[1000:])
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "predict"]), None],
        "target": [StrOptions({"random", "deterministic", "other"}), Mapping, callable],
        "norm": NORM_CONSTRAINT,
        "eps": [Interval(Real, 0, None, closed="left")],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "step_size": [Interval(Real, 0, None, closed="neither"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "n_jobs": [Integral, None],
        "store": [str, os.PathLike, None],
        "dtype": [StrOptions({"float32", "float16"})],
        "precision": [StrOptions({"fp32", "bf16"})],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        target: Any = "random",
        norm: float = 2,
        eps: float = 0.5,
        n_steps: int = 100,
        step_size: float | None = None,
        batch_size: int = 256,
        n_jobs: int | None = None,
        store: PathOrStr | None = None,
        dtype: Any = "float32",
        precision: str = "fp32",
        random_state: RandomState = None,
        verbose: int = 1,
    ) -> None:
        self.estimator = estimator
        self.target = target
        self.norm = norm
        self.eps = eps
        self.n_steps = n_steps
        self.step_size = step_size
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.store = store
        self.dtype = dtype
        self.precision = precision
        self.random_state = random_state
        self.verbose = verbose

    def relabel(self, X: Inputs, y: ArrayLike | None = None) -> ConstructedDataset:
        """Perturb any (X, y) towards target classes of the source.

        Parameters
        ----------
        X : array-like of shape (n, d) or (n, C, H, W), or torch Dataset of (input, label) items
            Samples, in input units (images in [0, 1], or uint8).
        y : array-like of shape (n,), default=None
            None for a Dataset, which has its own.

        Returns
        -------
        ConstructedDataset
            Its ``y`` are the targets, its ``y_source`` the labels given.

        Raises
        ------
        ValueError
            If a label or a target is not among the source's classes, or the source is random.
        """
        self = as_now(self)
        self._validate_params()
        data, _ = self._relabel(*unpack_data(self, X, y))
        data.feature_names = self._names_for(X)
        return data

    def _relabel(self, X, y, plan=None, target_labels=None):
        check_is_fitted(self, "estimator_")
        names, X = self._names_for(X), self._check_inputs(X)
        source, y = self._source, check_labels(y, len(X))
        index = encode_labels(y, source.classes_, len(X))
        if target_labels is None:
            target = self._targets(self.estimator_, index, y, source.classes_)
        else:
            target = encode_labels(target_labels, source.classes_, len(X))
        eps = useful_radius(self.norm, self.eps, source.input_bounds_, X.shape[1:])
        frozen = refuse_random(source.frozen(precision=self.precision).verify(X)).require_gradient(
            X
        )
        job = Relabelling(
            network=frozen,
            judge=frozen.in_fp32(X),
            ball=make_ball(self.norm, eps),
            bounds=source.input_bounds_,
            n_steps=self.n_steps,
            step_size=eps / 5 if self.step_size is None else self.step_size,
            dtype=self.dtype,
        )
        store, classes = None, source.classes_
        if plan is not None:
            labels = {"y": classes[target], "y_source": y, "classes": classes}
            labels |= {} if names is None else {"feature_names": names}
            extras = {name: storable_labels(values) for name, values in labels.items()}
            store = plan.make(source, extras, decided={"y_source": index})
        X_adv, success = self._run(job, (X, target), "relabelling", store)
        y, classes = y.copy(), classes.copy()  # the user may change his, and those of the set
        data = ConstructedDataset(self._as_given(X_adv), classes[target], y, classes)
        if eps > 0:
            _warn_if_in_vain(X, X_adv, success, target != index, eps)
        return data, float(success.mean())

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # the constructed set is no array
        return tags

    _relabels = True
    _made = ("success_rate_",)
    _columns = {"success": np.bool_}

    def _construct(self, X, y, plan, target_labels=None):
        data, self.success_rate_ = self._relabel(X, y, plan, target_labels)
        return data

    def _check_before(self, X, y, source):
        """Targets that a mapping or a callable gives, or that decide what a store holds."""
        if not isinstance(source, FrozenEstimator):
            check_network(source, X, len(np.unique(y)), needs_features=False)
            classes = classes_to_be(source, X, y)
        else:
            classes = self._source.classes_
        index = encode_labels(y, classes, len(y))
        warn_of_eps(X, self.norm, self.eps, self.dtype)
        seeded = isinstance(self.random_state, Integral) and len(classes) > 1
        if isinstance(self.target, str) and not (seeded and self.store is not None):
            return {}
        # Kept for the construction, as a callable need not give the same twice.
        target = self._targets(source, index, y, classes)
        return {"target_labels": classes[target]}

    def _default_source(self):
        return StandardClassifier(verbose=self.verbose)

    def _targets(self, source, index, y, classes):
        """Positions of the target labels in classes."""
        if isinstance(self.target, str):
            known = known_classes(source, y, classes)
            if self.target == "deterministic":
                return known[np.searchsorted(known, index, side="right") % len(known)]
            rng = make_rng(draw_seed(self.random_state), 2)
            if self.target == "other":
                steps = rng.integers(1, len(known), size=len(index))
                return known[(np.searchsorted(known, index) + steps) % len(known)]
            return known[rng.integers(len(known), size=len(index))]
        if isinstance(self.target, Mapping):
            own, of_each = np.unique(y, return_inverse=True)
            places = positions_of(self.target, own)
            targets = dict(zip(places, self.target.values(), strict=True))
            missing = [label for i, label in enumerate(own.tolist()) if i not in targets]
            if missing:
                raise ValueError(
                    f"The 'target' mapping must hold every label of y. It lacks {missing}."
                )
            wrong = [v for v in targets.values() if np.ndim(v) or v is None]
            if wrong:
                raise ValueError(
                    f"The 'target' mapping must name one label each. Got {wrong[0]!r}."
                )
            target = np.asarray([targets[i] for i in range(len(own))])[of_each]
        else:
            try:
                target = self.target(y.copy())
            except TypeError as error:
                raise TypeError(
                    "The 'target' function must take the labels of all samples, an array, and "
                    f"return one for each. It raised: {error}"
                ) from error
        try:
            return encode_labels(target, classes, len(y), name="it")
        except ValueError as error:
            raise ValueError(f"The 'target' cannot be used: {error}") from error


def _warn_if_in_vain(X, X_adv, success, other, eps):
    """Warn if few samples reach a class that is not their own, or first ones do not even move.

    Parameters
    ----------
    X, X_adv : array-like of shape (n, ...)
    success, other : ndarray of shape (n,), bool
        Whether each sample reaches its target, and whether that is not its label.
    eps : float
    """
    if not other.any():
        return  # every target is the sample's own label
    rate = float(np.mean(success[other]))
    first = np.flatnonzero(other)[:_N_LOOKED_AT]
    before, after = (batch_tensor(rows[first], "cpu") for rows in (X, X_adv))
    still = (after - before).abs().flatten(1).amax(1) < 1e-3 * eps / before[0].numel() ** 0.5
    missed = ~success[first]  # others may have been there already
    still = still.numpy() & missed
    if still.mean() > _STILL:
        share = still.sum() / missed.sum()
        problem = f"of those looked at that miss it {share:.0%} did not move at all"
    elif rate < _IN_VAIN:
        problem = "most samples keep the features of their own class"
    else:
        return
    warn_caller(
        f"The source takes only {rate:.0%} of the samples whose target is another class for that "
        f"class; {problem}. Raise eps (got {eps:g}) or n_steps, or take another source.",
        ConvergenceWarning,
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class Relabelling:
    """The job of moving a batch towards its target classes.

    Parameters
    ----------
    network : FrozenNetwork
    judge : FrozenNetwork
        The same in fp32, which says what reaches its target.
    ball : L2Ball or LinfBall
        The feasible perturbations.
    bounds : (low, high) or None
    n_steps : int
        Number of gradient steps.
    step_size : float
    dtype : {"float32", "float16"}
        In which the inputs are kept, and judged.
    """

    network: FrozenNetwork
    judge: FrozenNetwork
    ball: L2Ball | LinfBall
    bounds: tuple | None
    n_steps: int
    step_size: float
    dtype: str = "float32"

    def __call__(self, begin, X, target):
        """Return the moved inputs, and whether the network takes each for its target."""
        x = batch_tensor(X, self.network.device)
        target = torch.from_numpy(np.array(target)).to(x.device)
        found = projected_gradient(
            self.network,
            x,
            target,
            targeted_cross_entropy,
            ball=self.ball,
            bounds=self.bounds,
            step_size=self.step_size,
            n_steps=self.n_steps,
        )
        found = as_stored(found, self.dtype, self.bounds)
        with torch.no_grad():
            success = classified_as(self.judge(found), target)
        return found.cpu().numpy().astype(self.dtype, copy=False), success.cpu().numpy()

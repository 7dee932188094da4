"""RobustFeatureInverter: training sets restricted to the features of one network."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning

from advfeat.classifiers import AdversarialClassifier
from advfeat.classifiers._training_data import ArrayDataset, input_statistics
from advfeat.construction._dtype import as_stored
from advfeat.construction._sources import check_network, refuse_random
from advfeat.construction._train_time import TrainTimeTransformer
from advfeat.optim import (
    FrozenNetwork,
    HalfCosine,
    L2Ball,
    feature_distance,
    into_box,
    projected_gradient,
    row_norms,
)
from advfeat.utils._checks import batch_tensor, check_data
from advfeat.utils._estimator import as_now
from advfeat.utils._frames import check_names
from advfeat.utils._lazy import SelectedRows
from advfeat.utils._modules import unfrozen
from advfeat.utils._random import draw_seed, make_rng, normal_rows
from advfeat.utils._sklearn import HasMethods, Interval, StrOptions
from advfeat.utils._typing import Inputs, PathOrStr, RandomState
from advfeat.utils._warnings import warn_caller

# solver: (n_steps, step_size)
_DEFAULTS = {"momentum": (200, 0.15), "decayed": (100, 0.6), "paper": (1000, 0.1)}
_POOR = 0.5  # median relative residual from which a warning is due


class RobustFeatureInverter(TrainTimeTransformer):
    """Replace each training sample by one with the same features in the source network.

    From a start unrelated to the label, the input is moved until its penultimate features match
    those of the sample, min over z of ||g(z) - g(x)||. Only features that the source uses
    stay predictive: a robust source (the default) gives D_R, a standard source D_NR. Labels stay.

    `fit_transform` constructs the training set, `transform` returns its input unchanged, so that
    a Pipeline is scored on unmodified data. As with scikit-learn's TargetEncoder,
    ``fit(X, y).transform(X)`` is not ``fit_transform(X, y)``. The set comes in the container of X;
    for a torch Dataset it is a `ConstructedDataset` with the labels of that Dataset.

    Parameters
    ----------
    estimator : advfeat classifier, skorch NeuralNetClassifier or FrozenEstimator, default=None
        The source, trained in `fit`; ``AdversarialClassifier()`` by default. Wrap a trained one
        in ``sklearn.frozen.FrozenEstimator``; one made by `from_torch` is never trained.
    init : {"sample", "noise"} or array like X, default="sample"
        Start of the inversion: another sample, drawn independently of the label; normal noise
        with the mean and standard deviation of the source's training data (of X, where they are
        not known; 1 for features that are constant there); or given starts.
    solver : {"momentum", "decayed", "paper"}, default="momentum"
        "paper": steps of constant length, as in the paper, along the gradient of the authors'
        code, in which every unit of the last ReLU, on or off, counts as the identity ("fake
        ReLU"). The other two do so for features that are off only, whose gradient is missing;
        those that are on keep their own, which comes closer. "decayed": the length falls from
        step_size to zero as a half cosine. "momentum": decayed as well, and part of the last step
        is taken again, which needs a fifth of the paper's steps.
    n_steps : int, default=None
        By default 200 for "momentum", 100 for "decayed", 1000 for "paper".
    step_size : float, default=None
        Euclidean length of a step, or of the first step if decayed, in input units. By default
        0.15 for "momentum", 0.6 for "decayed", 0.1 for "paper".
    momentum : float, default=0.7
        Share of the last step that is taken again; only for ``solver="momentum"``.
    batch_size : int, default=256
        Samples optimised together. Memory grows with it; the result depends on it by rounding
        only, which the steps of an inversion can make visible.
    n_jobs : int, default=None
        Batches worked on at the same time, see `adversarial_examples`. The result does not
        depend on it.
    store : path, default=None
        Folder in which `fit_transform` writes the set as one ``X.npy``, batch by batch.
        The inputs are then a read-only memory map, so that they may be larger than memory.
        Called again with the same source, data and parameters, it goes on where it was stopped,
        to the same bits (with the same versions and number of threads). Needs an integer
        ``random_state``; pass a trained source in a FrozenEstimator, for one that is trained
        anew may get other weights.
    dtype : {"float32", "float16"}, default="float32"
        Of the constructed inputs. float16 halves memory and disk, and rounds values in [0, 1] by
        at most 0.00025, far below usual eps. advfeat's classifiers compute in float32 all the
        same; for others cast the set first.
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
    residual_ : ndarray of shape (n,)
        ||g(x_r) - g(x)|| / ||g(x)|| of each sample that `fit_transform` constructed.
    distance_ : ndarray of shape (n,)
        ||x_r - start|| of each sample, in input units.
    input_shape_ : tuple
    n_features_in_ : int
        For (n, d) input.

    References
    ----------
    Ilyas et al. 2019, eq. 5 and 6, Appendix C.4, Figure 5 and Table 5.

    Examples
    --------
    >>> from sklearn.pipeline import Pipeline
    >>> from advfeat import AdversarialClassifier, RobustFeatureInverter, StandardClassifier
    >>> from advfeat.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> source = AdversarialClassifier(eps=0.5, max_epochs=2, random_state=0)
    >>> pipe = Pipeline(
    ...     [
    ...         ("robustify", RobustFeatureInverter(source, n_steps=30, random_state=0)),
    ...         ("clf", StandardClassifier(max_epochs=2, random_state=0)),
    ...     ]
    ... )
    >>> score = pipe.fit(X[:500], y[:500]).score(X[1000:], y[1000:])
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "predict"]), None],
        "init": [StrOptions({"sample", "noise"}), "array-like"],
        "solver": [StrOptions(set(_DEFAULTS))],
        "n_steps": [Interval(Integral, 1, None, closed="left"), None],
        "step_size": [Interval(Real, 0, None, closed="neither"), None],
        "momentum": [Interval(Real, 0, 1, closed="left")],
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
        init: str | ArrayLike = "sample",
        solver: str = "momentum",
        n_steps: int | None = None,
        step_size: float | None = None,
        momentum: float = 0.7,
        batch_size: int = 256,
        n_jobs: int | None = None,
        store: PathOrStr | None = None,
        dtype: Any = "float32",
        precision: str = "fp32",
        random_state: RandomState = None,
        verbose: int = 1,
    ) -> None:
        self.estimator = estimator
        self.init = init
        self.solver = solver
        self.n_steps = n_steps
        self.step_size = step_size
        self.momentum = momentum
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.store = store
        self.dtype = dtype
        self.precision = precision
        self.random_state = random_state
        self.verbose = verbose

    def invert(self, X: Inputs, *, return_residual: bool = False) -> Any:
        """Construct samples with the source's features of X, for any X (such as a test set).

        Parameters
        ----------
        X : array-like of shape (n, d) or (n, C, H, W), or torch Dataset
            Samples, in input units (images in [0, 1], or uint8).
        return_residual : bool, default=False
            Whether the residuals are returned as well.

        Returns
        -------
        X_r : ndarray like X, in ``dtype`` and input units
        residual : ndarray of shape (n,)
            ||g(x_r) - g(x)|| / ||g(x)||; only if ``return_residual`` is true.

        Raises
        ------
        ValueError
            If the source has no features or is random, given starts do not fit X, or there
            is only one sample to start from.
        """
        self = as_now(self)
        self._validate_params()
        X_r, residual, _ = self._invert(self._check_inputs(X))
        X_r = self._in_container(self._as_given(X_r), X)
        return (X_r, residual) if return_residual else X_r

    def _invert(self, X, plan=None):
        source = self._source
        frozen = refuse_random(source.frozen(precision=self.precision).verify(X))
        if not frozen.passes_gradient:
            warn_caller(
                "Some features of the source network have no gradient: their units are off, and "
                "there is no way around the ReLU, as the network cannot be traced or something "
                "stands between it and the last linear layer. They may not be matched, see "
                "residual_.",
            )
        seed = draw_seed(self.random_state)
        n_steps, step_size = self._steps()
        starts = self._starts(X, seed)
        job = Inversion(
            network=frozen,
            judge=frozen.in_fp32(X),
            bounds=source.input_bounds_,
            noise=self._noise(X, seed) if starts is None else None,
            n_steps=n_steps,
            step_size=step_size if self.solver == "paper" else HalfCosine(step_size, n_steps),
            momentum=self.momentum if self.solver == "momentum" else 0.0,
            fake_relu=self.solver == "paper",
            dtype=self.dtype,
        )
        store = None if plan is None else plan.make(source)
        columns = (X,) if starts is None else (X, starts)
        X_r, residual, distance = self._run(job, columns, "inversion", store)
        if not np.median(residual) <= _POOR:  # also if it is NaN
            warn_caller(
                f"The features were matched poorly: the median relative residual is "
                f"{np.median(residual):.2f}. Raise n_steps (got {n_steps}) or step_size "
                f"(got {step_size:g}).",
                ConvergenceWarning,
            )
        return X_r, residual, distance

    _made = ("residual_", "distance_")
    _columns = {"residual": np.float32, "distance": np.float32}

    def _construct(self, X, y, plan, init=None):
        X_r, self.residual_, self.distance_ = self._invert(self._check_inputs(X), plan)
        return self._as_given(X_r)

    def _check_before(self, X, y, source):
        self._refuse_one_sample(X)
        check_network(source, X, len(np.unique(y)), needs_features=True)
        if not isinstance(self.init, str):
            inner = unfrozen(source)
            start = self._check_init(
                X, bounds=getattr(inner, "bounds", "auto"),
                channels=getattr(inner, "channels", "first"),
            )  # fmt: skip
            return {"init": start}  # the store tells values apart, not dtypes or containers
        return {}

    def _refuse_one_sample(self, X):
        if isinstance(self.init, str) and self.init == "sample" and len(X) == 1:
            raise ValueError(
                "init='sample' starts from another sample, so it needs two samples at least. Got "
                "one sample; use init='noise', or pass starts."
            )

    def _check_init(self, X, **settings):
        """Given starts, checked as X is, in the layout that the network takes."""
        try:
            check_names(self, self.init)
            start = check_data(self.init, type(self).__name__, **settings)
        except ValueError as error:
            raise ValueError(f"The array given as init cannot be used: {error}") from error
        if start.shape != X.shape:
            raise ValueError(
                f"init must be 'sample', 'noise' or an array of the shape of X, {X.shape}. "
                f"Got an array of shape {start.shape}."
            )
        return start

    def _default_source(self):
        return AdversarialClassifier(verbose=self.verbose)

    def _steps(self):
        """Return n_steps and step_size, the solver's own where they are not given."""
        given = (self.n_steps, self.step_size)
        usual = _DEFAULTS[self.solver]
        return tuple(u if g is None else g for g, u in zip(given, usual, strict=True))

    def _noise(self, X, seed):
        statistics = self._source.input_statistics_
        if statistics is None:  # the source's training data are not known
            statistics = input_statistics(ArrayDataset(X, np.zeros(len(X)), np.ones(len(X))))
        return _Noise(seed, *statistics)

    def _starts(self, X, seed):
        """Column of starts, or None for noise."""
        if isinstance(self.init, str):
            if self.init == "noise":
                return None
            self._refuse_one_sample(X)
            n = len(X)
            other = make_rng(seed, 0).integers(n - 1, size=n)
            return SelectedRows(X, (np.arange(n) + 1 + other) % n)  # never the sample itself
        source = self._source
        return self._check_init(X, bounds=source.bounds, channels=source.channels)


@dataclass(frozen=True, eq=False, kw_only=True)
class Inversion:
    """The job of matching the features of a batch from given starts, or from noise.

    Parameters
    ----------
    network : FrozenNetwork
    judge : FrozenNetwork
        The same in fp32, which says how near the features came.
    bounds : (low, high) or None
    noise : _Noise or None
        Where to start from if no starts are given.
    n_steps : int
        Number of gradient steps.
    step_size : float or callable
    momentum : float
    fake_relu : bool
        Whether every unit of the last ReLU passes its gradient, also those that are on.
    dtype : {"float32", "float16"}
        In which the inputs are kept, and judged.
    """

    network: FrozenNetwork
    judge: FrozenNetwork
    bounds: tuple | None
    noise: "_Noise | None"
    n_steps: int
    step_size: Callable | float
    momentum: float
    fake_relu: bool
    dtype: str = "float32"

    def __call__(self, begin, X, starts=None):
        """Return the inputs found, their relative residuals and how far they moved."""
        network = self.network
        features = network.fake_relu_features if self.fake_relu else network.inversion_features
        x = batch_tensor(X, network.device)
        with torch.no_grad():
            target = network.features(x)
        start = self.noise(begin, x) if starts is None else batch_tensor(starts, x.device)
        found = projected_gradient(
            features,
            x,
            target,
            feature_distance,
            ball=L2Ball(np.inf),
            bounds=self.bounds,
            step_size=self.step_size,
            n_steps=self.n_steps,
            momentum=self.momentum,
            start=start,
        )
        found = as_stored(found, self.dtype, self.bounds)
        with torch.no_grad():
            if self.judge is not network:
                target = self.judge.features(x)
            gap, scale = row_norms(self.judge.features(found) - target), row_norms(target)
        residual = gap / scale.clamp_min(torch.finfo(scale.dtype).tiny)
        start = into_box(start, self.bounds)  # where the search began
        distance = row_norms(found - start)
        kept = found.cpu().numpy().astype(self.dtype, copy=False)
        return kept, residual.float().cpu().numpy(), distance.float().cpu().numpy()


class _Noise:
    """Normal noise with the mean and standard deviation of the source's training data."""

    def __init__(self, seed, mean, std):
        self.seed = seed
        self.mean, self.std = mean.cpu(), std.cpu()

    def __call__(self, begin, x):
        noise = normal_rows((self.seed, 1), begin, begin + len(x), x[0].numel())
        noise = torch.from_numpy(noise).reshape(x.shape)
        return (self.mean + self.std * noise).to(x.device)

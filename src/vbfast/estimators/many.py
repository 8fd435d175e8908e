"""Many small data sets in one call: whole fits in compiled code, threads over data sets."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _kernels, loops
from .._threads import resolve_threads
from ..conjugate import degenerate_error
from ..data import ArrayData, Frame, as_rows, check_weights
from ..emissions.gaussian import CovarianceType
from ..exceptions import NO_NUMBER, ConvergenceWarning, DegenerateError, ObjectiveFellWarning
from ..loops import Climbs
from ..methods import Fit, FullInference, Method
from ..model import Model
from ..stats import Stats
from .checks import as_generator
from .gaussian_mixture import _GaussianMixtureBase
from .gaussian_parameters import FARTHEST_PRIOR, covariances_of

__all__ = ["ManyFits", "fit_many"]

Array = NDArray[np.float64]

# Attributes of an estimator that `ManyFits` has for all.
STACKED = (
    "weights_",
    "means_",
    "covariances_",
    "precisions_cholesky_",
    "objective_",
    "lower_bound_",
    "n_iter_",
    "converged_",
)


@dataclass(frozen=True)
class _Problems:
    """Data sets for the compiled loop, and what their models are made of.

    Attributes
    ----------
    estimator : GaussianMixture or BayesianGaussianMixture
    values, weights : list of ndarray
    origin, scale, variance : ndarray of shape (S, D)
        Of their frames.
    total : ndarray of shape (S,)
        Sums of weights.
    scatter : ndarray of shape (S, D, D)
        Of all rows, in their frames.
    """

    estimator: Any

    values: list[NDArray[Any]]
    weights: list[Array] | None
    origin: Array
    scale: Array
    variance: Array
    total: Array
    scatter: Array

    @cached_property
    def covariances(self) -> Array:
        """Covariances of all rows, (S, ...) in the shape of a prior's."""
        scatter, kind = self.scatter, self.estimator.covariance_type
        if kind in ("diag", "spherical"):
            scatter = np.diagonal(scatter, axis1=1, axis2=2)
        if kind == "spherical":
            scatter = scatter.sum(axis=1, keepdims=True)
        found: Array = self.estimator._empirical_covariance(
            scatter, self.total, self.scale, self.variance
        )
        return found

    def frame(self, s: int) -> Frame:
        """Units of data set s."""
        return Frame(self.origin[s], self.scale[s], self.variance[s])


class ManyFits(Sequence[Any]):
    """Fits of S data sets, by `fit_many`.

    ``fits[s]`` is a fitted estimator of data set s, made when it is asked for; `len` and iteration
    are there too.

    Attributes
    ----------
    weights_ : ndarray of shape (S, K)
    means_ : ndarray of shape (S, K, D)
    covariances_, precisions_cholesky_ : ndarray of shape (S, ...)
    objective_, lower_bound_ : ndarray of shape (S,)
    n_iter_ : ndarray of shape (S,), int64
    converged_ : ndarray of shape (S,), bool
        All these as of the estimator that was given; NaN where degenerate.
    degenerate_ : ndarray of shape (S,), bool
        Data sets whose likelihood has no bound: asking for their estimator raises DegenerateError.
    """

    weights_: Array
    means_: Array
    covariances_: Array
    precisions_cholesky_: Array
    objective_: Array
    lower_bound_: Array
    n_iter_: NDArray[np.int64]
    converged_: NDArray[np.bool_]
    degenerate_: NDArray[np.bool_]

    def __init__(self, estimator: Any, method: Method, n_sets: int, n_features: int) -> None:
        self._estimator = estimator
        self._method = method
        self._made: dict[int, Any] = {}
        self._failed: dict[int, str] = {}
        k = estimator.n_components
        covariances = estimator._parameter_shape(k, n_features)
        self.weights_ = np.full((n_sets, k), np.nan)
        self.means_ = np.full((n_sets, k, n_features), np.nan)
        self.covariances_ = np.full((n_sets, *covariances), np.nan)
        self.precisions_cholesky_ = np.full_like(self.covariances_, np.nan)
        self.objective_ = np.full(n_sets, np.nan)
        self.lower_bound_ = np.full(n_sets, np.nan)
        self.n_iter_ = np.zeros(n_sets, dtype=np.int64)
        self.converged_ = np.zeros(n_sets, dtype=bool)
        self.degenerate_ = np.zeros(n_sets, dtype=bool)
        # Of those that the compiled loop took: their numbers, by place, and how they ended.
        self._place: dict[int, int] = {}
        self._problems: _Problems
        self._climbs: Climbs

    def __len__(self) -> int:
        return len(self.degenerate_)

    def __repr__(self) -> str:
        return f"<ManyFits of {len(self)} data sets by {self._estimator!r}>"

    def __getitem__(self, index: Any) -> Any:
        s = operator.index(index)
        if not -len(self) <= s < len(self):
            raise IndexError(f"data set {s} of {len(self)}")
        s %= len(self)
        if s in self._failed:
            raise DegenerateError(self._failed[s])
        if s not in self._made:
            self._made[s] = self._make(s)
        return self._made[s]

    def __iter__(self) -> Iterator[Any]:
        return (self[s] for s in range(len(self)))

    def _new(self) -> Any:
        return type(self._estimator)(**self._estimator.get_params())

    def _make(self, s: int) -> Any:
        """Estimator of a data set that the compiled loop took."""
        place, climbs, problems = self._place[s], self._climbs, self._problems
        estimator, method = self._new(), self._method
        frame = problems.frame(place)
        model, priors = estimator._model(frame, method, lambda: problems.covariances[place])
        posterior = Stats(model.layout, climbs.posterior[place].copy())
        objectives = climbs.trace(place)
        fit = Fit(
            posterior,
            getattr(model, method.read)(posterior),
            float(objectives[-1]),
            objectives,
            len(objectives) - 1,
            bool(climbs.converged[place]),
        )
        total = float(problems.total[place])
        fitted = estimator._climbed(model, frame, total, method, fit)
        estimator._keep_with_frame(fitted | priors, frame, method)
        return estimator


def fit_many(
    estimator: Any,
    X: ArrayLike | Sequence[ArrayLike],
    *,
    sample_weight: ArrayLike | Sequence[ArrayLike] | None = None,
    n_threads: int | None = None,
) -> ManyFits:
    """Fit an estimator to each of many independent data sets.

    What ``[clone(estimator).fit(x) for x in X]`` does, each data set in units of its own; small
    ones by compiled code, without Python between sweeps, as many at a time as there are threads.

    Parameters
    ----------
    estimator : GaussianMixture or BayesianGaussianMixture
        With its parameters; it isn't changed.
    X : array-like of shape (S, N, D), or sequence of S array-likes of shape (N_s, D)
        float64 or float32 is read where it lies.
    sample_weight : array-like of shape (S, N), or sequence of S of shape (N_s,), optional
    n_threads : int, optional
        In place of the estimator's.

    Returns
    -------
    ManyFits
        Parameters of all, stacked; ``fits[s]`` is data set s's estimator.

    Raises
    ------
    ValueError, TypeError
        If an argument, a parameter or a data set is not allowed; the error names the data set.

    Warns
    -----
    ConvergenceWarning
        Once if `max_iter` came first anywhere, and once if the likelihood of some data sets has no
        bound.

    Notes
    -----
    Updates in compiled code are plain ones, as of ``vbfast.EM(acceleration=None)``. Where k-means,
    k-means++ or random starts begin follows from `random_state` and the data set's place in X,
    whatever the number of threads; they are other ones than those of `fit`. Full inference, a
    Dirichlet process, `mean_variance_prior` and large data sets are fitted one by one, as by `fit`.

    Examples
    --------
    >>> import numpy as np, vbfast
    >>> X = np.random.default_rng(0).normal(size=(1000, 200, 2))
    >>> fits = vbfast.fit_many(vbfast.GaussianMixture(3, tol=1e-2, random_state=0), X)
    >>> fits.means_.shape, fits[7].predict(X[7]).shape
    ((1000, 3, 2), (200,))
    """
    if not isinstance(estimator, _GaussianMixtureBase):
        raise TypeError(
            f"estimator must be a GaussianMixture or a BayesianGaussianMixture, not {estimator!r}"
        )
    method: Any = estimator._check_parameters()
    if getattr(method, "acceleration", None):
        # The compiled loop takes plain updates alone.
        method = replace(method, acceleration=None)
    threads = resolve_threads(estimator.n_threads if n_threads is None else n_threads)
    if estimator.warm_start:
        raise ValueError("warm_start=True: fit_many starts anew; set it to False")
    values = _data_sets(X)
    weights = _weights(sample_weight, values)
    kind = type(estimator)
    fits = ManyFits(kind(**estimator.get_params()), method, len(values), values[0].shape[1])
    problems = _problems(fits._estimator, values, weights, threads)
    rng = as_generator(estimator.random_state)
    # A start's seed depends on nothing but its number and its data set's.
    first = rng.integers(2**63, size=(len(values), 1), dtype=np.uint64)
    seeds: NDArray[np.uint64] = np.add(
        first, np.arange(estimator.n_init, dtype=np.uint64), dtype=np.uint64
    )
    model, _ = estimator._model(problems.frame(0), method, lambda: problems.covariances[0])
    _check_priors(estimator, problems)
    most = 0 if isinstance(method, FullInference) else loops.most_rows(model)
    quick = np.array([len(rows) for rows in values]) <= most
    taken, left = np.flatnonzero(quick), np.flatnonzero(~quick)
    if len(taken):
        _fit_quickly(fits, model, _some(problems, taken), taken, seeds[taken], threads)
    for s in left:
        each = None if weights is None else weights[s]
        _fit_alone(fits, int(s), values[s], each, int(seeds[s, 0]), threads)
    _warn(fits)
    return fits


# Arguments ---------------------------------------------------------------------------------------


def _data_sets(X: Any) -> list[NDArray[Any]]:
    """Rows of each data set."""
    if isinstance(X, np.ndarray) and X.ndim != 3 and X.dtype != object:
        raise ValueError(
            "X must be three-dimensional (data sets, rows, features) or a sequence of "
            f"two-dimensional arrays, got shape {X.shape}. One data set: estimator.fit(X)"
        )
    if type(X) in (np.ndarray, np.memmap) and X.dtype in (np.float32, np.float64):
        sound = X.dtype.isnative and X.flags.aligned and X.size > 0
        values = list(X) if sound else [as_rows(rows, f"X[{s}]") for s, rows in enumerate(X)]
    else:
        values = [as_rows(rows, f"X[{s}]") for s, rows in enumerate(X)]
    if not values:
        raise ValueError("X has no data set")
    for s, rows in enumerate(values):
        if rows.shape[1] != values[0].shape[1]:
            raise ValueError(
                f"data set {s} has {rows.shape[1]} features, data set 0 has {values[0].shape[1]}"
            )
    return values


def _weights(sample_weight: Any, values: list[NDArray[Any]]) -> list[Array] | None:
    """Weights of each data set's rows, checked."""
    if sample_weight is None:
        return None
    if not hasattr(sample_weight, "__len__") or len(sample_weight) != len(values):
        raise ValueError(f"sample_weight must hold the weights of each of {len(values)} data sets")
    out = []
    for s, (weights, rows) in enumerate(zip(sample_weight, values, strict=True)):
        try:
            checked = check_weights(weights, len(rows))
        except ValueError as error:
            raise ValueError(f"data set {s}: {error}") from None
        if checked is None:
            raise ValueError(f"sample_weight[{s}] is None; give one weight a row of X[{s}]")
        out.append(checked)
    return out


def _problems(
    estimator: Any, values: list[NDArray[Any]], weights: list[Array] | None, threads: int
) -> _Problems:
    """Check every data set, and find its frame and covariance."""
    k, isotropic = estimator.n_components, estimator.covariance_type == "spherical"
    rows = _kernels.loop.Rows(values, weights)
    bad, present, total, scatter = rows.find_frames(isotropic, threads)
    for s in np.flatnonzero(bad):
        try:
            ArrayData.of(values[s], weights and weights[s], isotropic=isotropic)
        except ValueError as error:
            raise ValueError(f"data set {s}: {error}") from None
        raise AssertionError(f"data set {s} has no frame")
    few = np.flatnonzero(present < k)
    if len(few):
        raise ValueError(
            f"n_components={k} is more than the {present[few[0]]} rows of data set {few[0]} (of "
            "positive weight)"
        )
    return _Problems(
        estimator, values, weights, rows.origin, rows.scale, rows.variance, total, scatter
    )


def _check_priors(estimator: Any, problems: _Problems) -> None:
    """Raise where the prior mean is too far from some data set."""
    if estimator.mean_prior is None:
        return
    mean = np.asarray(estimator.mean_prior, dtype=float)
    with np.errstate(over="ignore"):
        distance = np.abs((mean - problems.origin) * problems.scale)
    for s in np.flatnonzero(~(distance <= FARTHEST_PRIOR).all(axis=1)):
        try:
            estimator._mean_prior(problems.frame(int(s)))
        except ValueError as error:
            raise ValueError(f"data set {s}: {error}") from None


def _some(problems: _Problems, of: NDArray[np.int64]) -> _Problems:
    if len(of) == len(problems.values):
        return problems
    weights = problems.weights
    return _Problems(
        problems.estimator,
        [problems.values[s] for s in of],
        None if weights is None else [weights[s] for s in of],
        *(
            getattr(problems, name)[of]
            for name in ("origin", "scale", "variance", "total", "scatter")
        ),
    )


# By compiled code --------------------------------------------------------------------------------


def _prior(estimator: Any, model: Model, problems: _Problems) -> Array:
    """Buffers of the priors of all, (S, size), or (1, size) where they are one."""
    emission = model.emission
    own_mean = estimator.mean_prior is not None
    if emission.scatter is None and not own_mean:
        return model.prior.buffer[None]
    origin, scale = problems.origin, problems.scale
    out = np.tile(model.prior.buffer, (len(origin), 1))
    views, start = {}, 0
    for name, shape in model.layout.fields:
        size = int(np.prod(shape))
        views[name] = out[:, start : start + size].reshape(-1, *shape)
        start += size
    if own_mean:
        mean = (np.asarray(estimator.mean_prior, dtype=float) - origin) * scale
        views["mean"][...] = mean[:, None]
    if emission.scatter is not None:
        given = estimator.covariance_prior
        scatter = problems.covariances if given is None else np.asarray(given, dtype=float)
        views["scatter"][...] = emission.prior_scatter(scatter, scale)
    return out


def _starts(
    estimator: Any,
    model: Model,
    problems: _Problems,
    rows: Any,
    prior: Array,
    seeds: NDArray[np.uint64],
    method: Method,
    threads: int,
) -> Array:
    """Posteriors that fits begin with, (problem, size), `n_init` of each data set."""
    n_init = estimator.n_init
    posterior = np.empty((len(seeds), model.layout.size))
    inits = (estimator.weights_init, estimator.means_init, estimator.precisions_init)
    if any(init is None for init in inits):
        _kernels.loop.begin_all(
            rows,
            loops.mixtures(model, prior),
            "kmeans" if estimator.init_params == "auto" else estimator.init_params,
            seeds,
            posterior,
            threads,
        )
    if all(init is None for init in inits):
        return posterior
    for s in range(len(problems.values)):
        frame = problems.frame(s)
        try:
            given = estimator._given_parameters(frame)
        except ValueError as error:
            raise ValueError(f"data set {s}: {error}") from None
        own, _ = estimator._model(frame, method, lambda s=s: problems.covariances[s])
        for p in range(s * n_init, (s + 1) * n_init):
            start = estimator._start_from(
                own,
                float(problems.total[s]),
                given,
                method,
                lambda p=p: Stats(model.layout, posterior[p].copy()),
            )
            posterior[p] = start.buffer
    return posterior


def _fit_quickly(
    fits: ManyFits,
    model: Model,
    problems: _Problems,
    numbers: NDArray[np.int64],
    seeds: NDArray[np.uint64],
    threads: int,
) -> None:
    """Fit the data sets of these numbers in compiled code."""
    estimator, method = fits._estimator, fits._method
    prior = _prior(estimator, model, problems)
    n_init = estimator.n_init
    values, weights = problems.values, problems.weights
    if n_init > 1:
        values = [rows for rows in values for _ in range(n_init)]
        weights = weights and [each for each in weights for _ in range(n_init)]
        prior = prior if len(prior) == 1 else np.repeat(prior, n_init, axis=0)
    rows = _kernels.loop.Rows(values, weights)
    rows.set_frames(
        np.repeat(problems.origin, n_init, axis=0),
        np.repeat(problems.scale, n_init, axis=0),
        np.repeat(problems.variance, n_init, axis=0),
    )
    posterior = _starts(estimator, model, problems, rows, prior, seeds.ravel(), method, threads)
    climbs = loops.climb(rows, model, prior, method, posterior, threads)
    if n_init > 1:
        climbs = climbs[_best(climbs, n_init)]
    # What made them isn't kept: rows may be many, and may change.
    fits._problems = replace(problems, values=[], weights=None)
    fits._climbs = climbs
    fits._place = {int(s): place for place, s in enumerate(numbers)}
    failed = climbs.degenerate >= 0
    for place in np.flatnonzero(failed):
        s, component = int(numbers[place]), int(climbs.degenerate[place])
        why: object = f"the {method.objective} is no finite number: {NO_NUMBER}"
        if component < estimator.n_components:
            why = degenerate_error(component)
        fits._failed[s] = f"data set {s}: {why}"
    fits.degenerate_[numbers] = failed
    objective = climbs.objective
    scale, kind = problems.scale, estimator.covariance_type
    parameters = climbs.parameters
    weights_, factors = parameters["weights"], parameters["factors"]
    if method.read == "mean":
        concentration = climbs.posterior[:, 1 : 1 + estimator.n_components]
        weights_ = concentration / concentration.sum(axis=1, keepdims=True)
    means = problems.origin[:, None] + parameters["means"] / scale[:, None]
    raw_covariances, cholesky = _in_units_of_data(factors, scale, kind, failed)
    found = {
        "weights_": weights_,
        "means_": means,
        "covariances_": raw_covariances,
        "precisions_cholesky_": cholesky,
        "objective_": objective,
        "lower_bound_": objective / (problems.total if estimator._bound_per_row else 1.0),
        "n_iter_": np.maximum(climbs.n_sweeps - 1, 0),
        "converged_": climbs.converged,
    }
    good = ~failed
    for name in STACKED:
        getattr(fits, name)[numbers[good]] = found[name][good]
    if np.any(climbs.fell):
        s = int(numbers[np.flatnonzero(climbs.fell)[0]])
        warnings.warn(
            f"the {method.objective} fell by more than rounding in {np.sum(climbs.fell > 0)} data "
            f"sets, the first of which is {s}",
            ObjectiveFellWarning,
            stacklevel=3,
        )


def _best(climbs: Climbs, n_init: int) -> NDArray[np.int64]:
    """Place of each data set's best start."""
    objective = np.nan_to_num(climbs.objective, nan=-np.inf).reshape(-1, n_init)
    return np.asarray(np.arange(len(objective)) * n_init + objective.argmax(axis=1))


def _in_units_of_data(
    factors: Array, scale: Array, kind: CovarianceType, failed: NDArray[np.bool_]
) -> tuple[Array, Array]:
    """Covariances and precision factors in scikit-learn's shapes, data sets first."""
    if failed.any():  # so that what was never written can be inverted
        factors = np.where(
            failed.reshape(-1, *[1] * (factors.ndim - 1)),
            np.eye(scale.shape[1]) if kind in ("full", "tied") else 1.0,
            factors,
        )
    if kind in ("full", "tied"):
        factors = factors * scale[:, None, None, :]
        cholesky = np.swapaxes(factors, 2, 3).copy()
        covariances = covariances_of(factors, kind)
        return (covariances[:, 0], cholesky[:, 0]) if kind == "tied" else (covariances, cholesky)
    factors = factors * scale[:, None, : factors.shape[2]]
    if kind == "spherical":
        factors = factors[:, :, 0]
    return covariances_of(factors, kind), factors


# One by one --------------------------------------------------------------------------------------


def _fit_alone(
    fits: ManyFits, s: int, values: NDArray[Any], weights: Array | None, seed: int, threads: int
) -> None:
    """Fit one data set by `fit`."""
    estimator = fits._new()
    estimator.set_params(random_state=seed, n_threads=threads)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            estimator.fit(values, sample_weight=weights)
    except DegenerateError as error:
        fits._failed[s] = f"data set {s}: {error}"
        fits.degenerate_[s] = True
        return
    except ValueError as error:
        raise ValueError(f"data set {s}: {error}") from None
    for name in STACKED:
        getattr(fits, name)[s] = getattr(estimator, name)
    params = fits._estimator.get_params()
    fits._made[s] = estimator.set_params(
        random_state=params["random_state"], n_threads=params["n_threads"]
    )


def _warn(fits: ManyFits) -> None:
    """One warning for all that didn't converge, and one for all without a bound."""
    method: Any = fits._method
    if fits.degenerate_.any():
        numbers = np.flatnonzero(fits.degenerate_)
        shown = ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")
        warnings.warn(
            f"the likelihood of {len(numbers)} of {len(fits)} data sets has no bound, and their "
            f"parameters are NaN: {shown}. Use fewer components, a simpler covariance_type, a "
            "larger reg_covar or a prior",
            ConvergenceWarning,
            stacklevel=3,
        )
    left = int(np.sum(~fits.converged_ & ~fits.degenerate_))
    if not left:
        return
    if isinstance(method, FullInference):
        what = "chains have not mixed: raise n_tune and n_draws of FullInference"
    else:
        what = (
            f"{method.name} did not converge in {method.max_iter} iterations: raise max_iter or tol"
        )
    warnings.warn(f"in {left} of {len(fits)} data sets {what}", ConvergenceWarning, stacklevel=3)

"""Many small data sets in one call: whole fits in compiled code, threads over data sets."""

from __future__ import annotations

import contextlib
import operator
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _kernels, loops
from .._kernels.inputs import Mixtures
from .._threads import resolve_threads
from ..data import ArrayData, Frame, as_rows, check_finite, check_weights
from ..emissions import Categorical
from ..emissions.gaussian import CovarianceType
from ..emissions.poisson import LARGE
from ..exceptions import (
    NO_NUMBER,
    ConvergenceWarning,
    DegenerateError,
    ImpossibleRowError,
    ObjectiveFellWarning,
    convergence_warning,
    impossible_error,
)
from ..loops import Climbs
from ..methods import Fit, FullInference, Method
from ..model import Model
from ..starts import KMEANS_SWEEPS, KMEANS_TOL, SPREAD
from ..stats import Stats
from .categories import codes_of, seen_in
from .checks import as_generator
from .emission_parameters import check_emission, is_product
from .gaussian_mixture import _GaussianMixtureBase
from .gaussian_parameters import FARTHEST_PRIOR, GaussianParameters, covariances_of
from .hidden_markov_model import HiddenMarkovModel
from .mixture_model import MixtureModel

__all__ = ["ManyFits", "fit_many"]

Array = NDArray[np.float64]

# Attributes of an estimator that `ManyFits` has for all, beside those of its emission.
COMMON = ("objective_", "lower_bound_", "n_iter_", "converged_")
# Rows of data sets that are looked at together.
TOGETHER = 2**16


@dataclass(frozen=True)
class _Problems(ABC):
    """Data sets for the compiled loop, and what their models are made of.

    Attributes
    ----------
    core : estimator of one emission
    method : Method
    values, weights : list of ndarray
    total : ndarray of shape (S,)
        Sums of weights.
    """

    core: Any
    method: Any
    values: list[NDArray[Any]]
    weights: list[Array] | None
    total: Array

    def some(self, of: NDArray[np.int64]) -> Self:
        """Those of these numbers."""
        if len(of) == len(self.values):
            return self
        parts = {
            each.name: getattr(self, each.name)[of]
            for each in fields(self)
            if isinstance(getattr(self, each.name), np.ndarray)
        }
        weights = self.weights and [self.weights[s] for s in of]
        return replace(self, values=[self.values[s] for s in of], weights=weights, **parts)

    @abstractmethod
    def frame(self, s: int) -> Frame:
        """Units of data set s."""

    @abstractmethod
    def frames(self) -> tuple[Array, Array, Array]:
        """Origin, scale and variance of all, (S, D) each."""

    @abstractmethod
    def model(self, s: int) -> tuple[Model, dict[str, Any]]:
        """Model of data set s, and the attributes that tell of its priors."""

    @abstractmethod
    def given(self, s: int) -> dict[str, Array | None]:
        """Parameters that data set s is to start from, checked."""

    @abstractmethod
    def models(self, model: Model, n_init: int) -> Mixtures:
        """Models of all data sets, each n_init times, where `model` is one of them."""

    @abstractmethod
    def told(self, climbs: Climbs, failed: NDArray[np.bool_]) -> dict[str, Array]:
        """Attributes that say what the emissions' parameters are, data sets first."""

    def constant(self) -> Array | None:
        """What objectives have of the rows whatever theta is, (S,)."""
        return None


@dataclass(frozen=True)
class _Gaussians(_Problems):
    """Of Gaussians.

    Attributes
    ----------
    origin, scale, variance : ndarray of shape (S, D)
        Of their frames.
    scatter : ndarray of shape (S, D, D)
        Of all rows, in their frames.
    """

    origin: Array
    scale: Array
    variance: Array
    scatter: Array

    @classmethod
    def of(
        cls, core: Any, method: Any, values: Any, weights: list[Array] | None, threads: int
    ) -> _Gaussians:
        """Check every data set, and find its frame and covariance."""
        isotropic = core.covariance_type == "spherical"
        rows = _kernels.loop.Rows(values, weights)
        bad, present, total, scatter = rows.find_frames(isotropic, threads)
        for s in np.flatnonzero(bad):
            with _naming(s):
                ArrayData.of(values[s], weights and weights[s], isotropic=isotropic)
            raise AssertionError(f"data set {s} has no frame")
        _check_present(core.n_components, present)
        out = cls(
            core, method, values, weights, total, rows.origin, rows.scale, rows.variance, scatter
        )
        out._check_priors()
        return out

    def _check_priors(self) -> None:
        """Raise where the prior mean is too far from some data set."""
        if self.core.mean_prior is None:
            return
        mean = np.asarray(self.core.mean_prior, dtype=float)
        with np.errstate(over="ignore"):
            distance = np.abs((mean - self.origin) * self.scale)
        for s in np.flatnonzero(~(distance <= FARTHEST_PRIOR).all(axis=1)):
            with _naming(s):
                self.core._mean_prior(self.frame(int(s)))

    @cached_property
    def covariances(self) -> Array:
        """Covariances of all rows, (S, ...) in the shape of a prior's."""
        scatter, kind = self.scatter, self.core.covariance_type
        if kind in ("diag", "spherical"):
            scatter = np.diagonal(scatter, axis1=1, axis2=2)
        if kind == "spherical":
            scatter = scatter.sum(axis=1, keepdims=True)
        found: Array = self.core._empirical_covariance(
            scatter, self.total, self.scale, self.variance
        )
        return found

    def frame(self, s: int) -> Frame:
        """Units of data set s."""
        return Frame(self.origin[s], self.scale[s], self.variance[s])

    def frames(self) -> tuple[Array, Array, Array]:
        """Origin, scale and variance of all, (S, D) each."""
        return self.origin, self.scale, self.variance

    def model(self, s: int) -> tuple[Model, dict[str, Any]]:
        """Model of data set s, and the attributes that tell of its priors."""
        made: tuple[Model, dict[str, Any]] = self.core._model(
            self.frame(s), self.method, lambda: self.covariances[s]
        )
        return made

    def given(self, s: int) -> dict[str, Array | None]:
        """Parameters that data set s is to start from, checked."""
        given: dict[str, Array | None] = self.core._given_parameters(self.frame(s))
        return given

    def models(self, model: Model, n_init: int) -> Mixtures:
        """Models of all data sets, each n_init times, where `model` is one of them."""
        emission, given = model.emission, self.core.covariance_prior
        own_mean = self.core.mean_prior is not None
        if emission.scatter is None and not own_mean:
            return loops.mixtures(model)
        out = np.tile(model.prior.buffer, (len(self.origin), 1))
        views = {
            name: out[:, start:end].reshape(-1, *shape)
            for name, (start, end, shape) in model.layout.places.items()
        }
        if own_mean:
            mean = (np.asarray(self.core.mean_prior, dtype=float) - self.origin) * self.scale
            views["mean"][...] = mean[:, None]
        if emission.scatter is not None:
            scatter = self.covariances if given is None else np.asarray(given, dtype=float)
            views["scatter"][...] = emission.prior_scatter(scatter, self.scale)
        return loops.mixtures(model, np.repeat(out, n_init, axis=0))

    def told(self, climbs: Climbs, failed: NDArray[np.bool_]) -> dict[str, Array]:
        """Attributes that say what the emissions' parameters are, data sets first."""
        means, factors = climbs.parameters["means"], climbs.parameters["factors"]
        covariances, cholesky = _in_units_of_data(
            factors, self.scale, self.core.covariance_type, failed
        )
        return {
            "means_": self.origin[:, None] + means / self.scale[:, None],
            "covariances_": covariances,
            "precisions_cholesky_": cholesky,
        }


@dataclass(frozen=True)
class _Discrete(_Problems):
    """Of counts or symbols.

    Attributes
    ----------
    plain : emission
        With a flat prior: one of as many categories as all data sets together.
    base : ndarray of shape (S,)
        What objectives have of the rows whatever theta is.
    mean : ndarray of shape (S, D)
        Of all rows, of counts.
    apart : ndarray of shape (S,), bool
        Of which counts are best told about an origin of their own: the compiled loop has none.
    """

    plain: Any
    base: Array
    mean: Array
    apart: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        core: Any,
        method: Any,
        values: Any,
        weights: list[Array] | None,
        threads: int,
        categories: list[NDArray[Any]] | None,
    ) -> _Discrete:
        """Check every data set, and find what its objective has of it whatever theta is."""
        n, d = len(values), values[0].shape[1]
        sizes = np.array([len(rows) for rows in values])
        base, mean, total = np.zeros(n), np.zeros((n, d)), sizes.astype(np.float64)
        apart = np.zeros(n, dtype=bool)
        present = sizes
        if weights is not None:
            total = np.array([each.sum() for each in weights])
            present = np.array([np.count_nonzero(each) for each in weights])
        begins = np.cumsum(sizes) - sizes
        parts = _parts(sizes)
        plain: Any = None if categories is None else _of_categories(categories)
        for part in parts:
            rows = _all_rows(values, *part)
            with _looking_closer(core, values, part):
                check_finite(rows, threads)
                if plain is None:
                    plain = core._plain(rows)
                    if not plain.compiled:  # counts about an origin: that of one set is no other's
                        plain = replace(plain, origin=None)
                plain.check_rows(rows)
            if core.emission == "poisson":
                first = rows[begins[part[0] : part[1]] - begins[part[0]]]
                apart[part[0] : part[1]] = np.any(first >= LARGE, axis=1)
            each = plain.log_base(rows)
            if weights is not None:
                own = np.concatenate(weights[part[0] : part[1]])
                each, rows = each * own, rows * own[:, None]
            places = begins[part[0] : part[1]] - begins[part[0]]
            base[part[0] : part[1]] = np.add.reduceat(each, places)
            mean[part[0] : part[1]] = np.add.reduceat(rows, places, axis=0)
        _check_present(core.n_components, present)
        for s in np.flatnonzero(apart):
            apart[s] = not core._plain(values[s]).compiled
        return cls(core, method, values, weights, total, plain, base, mean / total[:, None], apart)

    def frame(self, s: int) -> Frame:
        """Units of data set s."""
        units: Frame = self.plain.units
        return units

    def frames(self) -> tuple[Array, Array, Array]:
        """Origin, scale and variance of all, (S, D) each."""
        units, n = self.plain.units, len(self.total)
        zeros = np.tile(units.origin, (n, 1))
        return zeros, np.tile(units.scale, (n, 1)), np.tile(units.variance, (n, 1))

    def model(self, s: int) -> tuple[Model, dict[str, Any]]:
        """Model of data set s, and the attributes that tell of its priors."""
        emission = self.core._with_prior(self.plain, self.method, lambda: self.mean[s])
        made: tuple[Model, dict[str, Any]] = self.core._model(emission, self.method)
        return made

    def given(self, s: int) -> dict[str, Array | None]:
        """Parameters that data set s is to start from, checked."""
        given: dict[str, Array | None] = self.core._given_for_emission(self.plain)
        return given

    def models(self, model: Model, n_init: int) -> Mixtures:
        """Models of all data sets, each n_init times, where `model` is one of them."""
        if self.core.rate_prior is not None or self.method.read == "mode":
            return loops.mixtures(model)
        mean = np.repeat(self.mean, n_init, axis=0)
        return loops.mixtures(model, **self.core._own_priors(model, mean))

    def told(self, climbs: Climbs, failed: NDArray[np.bool_]) -> dict[str, Array]:
        """Attributes that say what the emissions' parameters are, data sets first."""
        name = self.core._parameter
        return {f"{name}_": self.core._shown(climbs.parameters[name])}

    def constant(self) -> Array | None:
        """What objectives have of the rows whatever theta is, (S,)."""
        return self.base


def _all_rows(values: list[NDArray[Any]], first: int, end: int) -> Array:
    """Rows of data sets first ... end - 1, one after another."""
    return np.concatenate(values[first:end], dtype=np.float64)


def _parts(sizes: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Which data sets, of so many rows, are looked at together: first and end."""
    out, ends, first = [], np.cumsum(sizes), 0
    while first < len(sizes):
        most = ends[first] - sizes[first] + TOGETHER
        end = max(int(np.searchsorted(ends, most, side="right")), first + 1)
        out.append((first, end))
        first = end
    return out


@contextlib.contextmanager
def _looking_closer(core: Any, values: list[NDArray[Any]], part: tuple[int, int]) -> Iterator[None]:
    """Have an error about the rows of some data sets say which of these it is about, and where."""
    try:
        yield
    except ValueError:
        for s in range(*part):
            with _naming(s):
                core._read(values[s])
        raise


def _of_categories(categories: list[NDArray[Any]]) -> Categorical:
    """The emission of codes of these."""
    return Categorical(len(categories), tuple(map(len, categories)))


def _coded(
    core: Any, values: list[NDArray[Any]], threads: int
) -> tuple[list[NDArray[Any]], list[NDArray[Any]] | None]:
    """Rows of all data sets by the same codes, and the categories; None where rows are codes."""
    d = values[0].shape[1]
    if core.emission != "categorical" or core.n_categories is not None:
        if core.emission == "categorical":
            core._given_categories(d)
        return values, None
    known = core._given_categories(d)
    parts = _parts(np.array([len(rows) for rows in values]))
    if known is None:
        seen = []
        for part in parts:
            try:
                seen.append(seen_in(_all_rows(values, *part), threads))
            except ValueError:
                for s in range(*part):
                    with _naming(s):
                        seen_in(values[s], threads)
                raise
        known = [np.unique(np.concatenate(each)) for each in zip(*seen, strict=True)]
    coded = []
    for s, rows in enumerate(values):
        with _naming(s):
            coded.append(codes_of(rows, known))
    return coded, known


def _check_present(k: int, present: NDArray[np.int64]) -> None:
    few = np.flatnonzero(present < k)
    if len(few):
        raise ValueError(
            f"n_components={k} is more than the {present[few[0]]} rows of data set {few[0]} (of "
            "positive weight)"
        )


@contextlib.contextmanager
def _naming(s: int | np.int64) -> Iterator[None]:
    """Have errors about arguments say that they are about data set s."""
    try:
        yield
    except DegenerateError:  # about the data
        raise
    except ImpossibleRowError as error:
        raise ImpossibleRowError(f"data set {s}: {error}") from None
    except ValueError as error:
        raise ValueError(f"data set {s}: {error}") from None


class ManyFits(Sequence[Any]):
    """Fits of S data sets, by `fit_many`.

    ``fits[s]`` is a fitted estimator of data set s, made when it is asked for; `len` and iteration
    are there too.

    Attributes
    ----------
    weights_ : ndarray of shape (S, K)
    means_ : ndarray of shape (S, K, D)
    covariances_, precisions_cholesky_ : ndarray of shape (S, ...)
        Of Gaussians.
    rates_ : ndarray of shape (S, K, D)
        Of counts.
    probabilities_ : ndarray of shape (S, K, D) or (S, K, D, C)
        Of ones; of symbols.
    startprob_, transmat_ : ndarray of shape (S, K), (S, K, K)
        Of hidden Markov models, in place of weights.
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
    rates_: Array
    probabilities_: Array
    startprob_: Array
    transmat_: Array
    objective_: Array
    lower_bound_: Array
    n_iter_: NDArray[np.int64]
    converged_: NDArray[np.bool_]
    degenerate_: NDArray[np.bool_]

    def __init__(
        self, estimator: Any, method: Method, n_sets: int, shapes: dict[str, tuple[int, ...]]
    ) -> None:
        self._estimator = estimator
        self._method = method
        self._made: dict[int, Any] = {}
        self._failed: dict[int, str] = {}
        #: What there is for all data sets.
        self.stacked = *shapes, *COMMON
        for name, shape in shapes.items():
            setattr(self, name, np.full((n_sets, *shape), np.nan))
        self.objective_ = np.full(n_sets, np.nan)
        self.lower_bound_ = np.full(n_sets, np.nan)
        self.n_iter_ = np.zeros(n_sets, dtype=np.int64)
        self.converged_ = np.zeros(n_sets, dtype=bool)
        self.degenerate_ = np.zeros(n_sets, dtype=bool)
        # Of those that the compiled loop took: their numbers, by place, and how they ended.
        self._place: dict[int, int] = {}
        self._problems: _Problems
        # Of symbols, where they are not their own codes.
        self._categories: list[NDArray[Any]] | None = None
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

    def _codes(self) -> dict[str, Any]:
        """Attributes that tell of codes."""
        return {} if self._categories is None else {"categories_": list(self._categories)}

    def _make(self, s: int) -> Any:
        """Estimator of a data set that the compiled loop took."""
        place, climbs, problems = self._place[s], self._climbs, self._problems
        estimator, method = self._new(), problems.method
        core = _core(estimator)
        model, priors = problems.model(place)
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
        frame = problems.frame(place)
        fitted = core._climbed(model, frame, float(problems.total[place]), method, fit)
        core._keep_with_frame(fitted | priors | self._codes(), frame, method)
        if isinstance(estimator, MixtureModel):
            estimator._take_over(core)
        return estimator


def _core(estimator: Any) -> Any:
    """The estimator as one of its emission alone."""
    if isinstance(estimator, MixtureModel):
        return estimator._face(estimator.emission)
    return estimator


def fit_many(
    estimator: Any,
    X: ArrayLike | Sequence[ArrayLike],
    *,
    sample_weight: ArrayLike | Sequence[ArrayLike] | None = None,
    lengths: Sequence[ArrayLike | None] | None = None,
    n_threads: int | None = None,
) -> ManyFits:
    """Fit an estimator to each of many independent data sets.

    What ``[clone(estimator).fit(x) for x in X]`` does, each data set in units of its own; small
    ones by compiled code, without Python between sweeps, as many at a time as there are threads.

    Parameters
    ----------
    estimator : GaussianMixture, BayesianGaussianMixture, MixtureModel or HiddenMarkovModel
        With its parameters; it isn't changed.
    X : array-like of shape (S, N, D), or sequence of S array-likes of shape (N_s, D)
        float64 or float32 is read where it lies.
    sample_weight : array-like of shape (S, N), or sequence of S of shape (N_s,), optional
        Of mixtures.
    lengths : sequence of S array-likes, optional
        Of hidden Markov models: rows of each sequence of a data set, as `fit` has them; None, as of
        all where not given, for one sequence.
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
    Updates in compiled code are plain ones, as of ``vbfast.EM(acceleration=None)``.
    ``init_params="auto"`` holds no race for data sets that compiled code takes: they start by
    k-means, `n_init` times. Where k-means,
    k-means++ or random starts begin follows from `random_state` and the data set's place in X,
    whatever the number of threads; they are other ones than those of `fit`. Full inference, a
    Dirichlet process, `mean_variance_prior`, hidden Markov models and large data sets are fitted
    one by one, as by `fit`. Symbols, integers here, are those of all data sets together where
    neither `n_categories` nor `categories` says which there are.

    Examples
    --------
    >>> import numpy as np, vbfast
    >>> X = np.random.default_rng(0).normal(size=(1000, 200, 2))
    >>> fits = vbfast.fit_many(vbfast.GaussianMixture(3, tol=1e-2, random_state=0), X)
    >>> fits.means_.shape, fits[7].predict(X[7]).shape
    ((1000, 3, 2), (200,))
    """
    if not isinstance(estimator, (_GaussianMixtureBase, MixtureModel, HiddenMarkovModel)):
        raise TypeError(
            "estimator must be a GaussianMixture, a BayesianGaussianMixture, a MixtureModel or a "
            f"HiddenMarkovModel, not {estimator!r}"
        )
    if not isinstance(estimator, _GaussianMixtureBase) and is_product(estimator):
        raise ValueError(
            "fit_many is for estimators of a single emission, of which nothing is missing, not of "
            f"emission={estimator.emission!r}, missing={estimator.missing!r}"
        )
    if isinstance(estimator, MixtureModel):
        check_emission(estimator)
    method: Any = _core(estimator)._check_parameters()
    threads = resolve_threads(estimator.n_threads if n_threads is None else n_threads)
    if getattr(estimator, "warm_start", False):
        raise ValueError("warm_start=True: fit_many starts anew; set it to False")
    values = _data_sets(X)
    rng = as_generator(estimator.random_state)
    # A start's seed depends on nothing but its number and its data set's.
    first = rng.integers(2**63, size=(len(values), 1), dtype=np.uint64)
    seeds: NDArray[np.uint64] = np.add(
        first, np.arange(estimator.n_init, dtype=np.uint64), dtype=np.uint64
    )
    estimator = type(estimator)(**estimator.get_params())
    if isinstance(estimator, HiddenMarkovModel):
        fits = _chains(estimator, method, values, sample_weight, lengths, seeds[:, 0], threads)
    else:
        if lengths is not None:
            raise ValueError("lengths are for a HiddenMarkovModel: rows of a mixture have no order")
        fits = _mixtures(estimator, method, values, _weights(sample_weight, values), seeds, threads)
    _warn(fits)
    return fits


def _mixtures(
    estimator: Any,
    method: Any,
    values: list[NDArray[Any]],
    weights: list[Array] | None,
    seeds: NDArray[np.uint64],
    threads: int,
) -> ManyFits:
    """Fit a mixture to each data set."""
    if getattr(method, "acceleration", None):
        # The compiled loop takes plain updates alone.
        method = replace(method, acceleration=None)
    core = _core(estimator)
    categories = None
    if isinstance(core, _GaussianMixtureBase):
        problems: Any = _Gaussians.of(core, method, values, weights, threads)
    else:
        values, categories = _coded(core, values, threads)
        problems = _Discrete.of(core, method, values, weights, threads, categories)
    model, _ = problems.model(0)
    fits = ManyFits(
        estimator,
        method,
        len(values),
        _shapes(core, values[0].shape[1], getattr(problems, "plain", None)),
    )
    fits._categories = categories
    most = 0 if isinstance(method, FullInference) else loops.most_rows(model)
    quick = np.array([len(rows) for rows in values]) <= most
    if isinstance(problems, _Discrete):
        quick &= ~problems.apart
    taken, left = np.flatnonzero(quick), np.flatnonzero(~quick)
    if len(taken):
        _fit_quickly(fits, model, problems.some(taken), taken, seeds[taken], threads)
    more: dict[str, Any] = {"n_threads": threads}
    if categories is not None:
        more |= {"n_categories": problems.plain.categories, "categories": None}
    for s in left:
        each = None if weights is None else weights[s]
        _fit_alone(fits, int(s), values[s], int(seeds[s, 0]), more, sample_weight=each)
    return fits


def _chains(
    estimator: Any,
    method: Any,
    values: list[NDArray[Any]],
    sample_weight: Any,
    lengths: Any,
    seeds: NDArray[np.uint64],
    threads: int,
) -> ManyFits:
    """Fit a hidden Markov model to each data set."""
    if sample_weight is not None:
        raise ValueError("sample_weight is for mixtures: rows of a sequence have no weights")
    if lengths is None:
        lengths = [None] * len(values)
    if not hasattr(lengths, "__len__") or len(lengths) != len(values):
        raise ValueError(f"lengths must hold those of each of {len(values)} data sets, or None")
    more: dict[str, Any] = {"n_threads": threads}
    plain = None
    values, categories = _coded(estimator._face, values, threads)
    if categories is not None:
        plain = _of_categories(categories)
        more |= {"n_categories": plain.categories, "categories": None}
    elif estimator.emission != "gaussian":
        plain = estimator._face._plain(values[0])
    shapes = _shapes(estimator, values[0].shape[1], plain)
    fits = ManyFits(estimator, method, len(values), shapes)
    fits._categories = categories
    for s, rows in enumerate(values):
        _fit_alone(fits, s, rows, int(seeds[s]), more, lengths=lengths[s])
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


# By compiled code --------------------------------------------------------------------------------


def _starts(
    model: Model,
    models: Mixtures,
    problems: _Problems,
    rows: Any,
    seeds: NDArray[np.uint64],
    threads: int,
) -> Array:
    """Posteriors that fits begin with, (problem, size), `n_init` of each data set."""
    core = problems.core
    n_init = core.n_init
    posterior = np.empty((len(seeds), model.layout.size))
    with _naming(0):
        given = problems.given(0)
    if any(part is None for part in given.values()):
        _kernels.loop.begin_all(
            rows,
            models,
            "kmeans" if core.init_params == "auto" else core.init_params,
            seeds,
            posterior,
            threads,
            kmeans_sweeps=KMEANS_SWEEPS,
            kmeans_tol=KMEANS_TOL,
            spread=SPREAD,
        )
    if all(part is None for part in given.values()):
        return posterior
    for s in range(len(problems.values)):
        with _naming(s):
            given = problems.given(s)
        own, _ = problems.model(s)
        for p in range(s * n_init, (s + 1) * n_init):
            start = core._start_from(
                own,
                float(problems.total[s]),
                given,
                problems.method,
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
    core, method = problems.core, problems.method
    n_init = core.n_init
    models = problems.models(model, n_init)
    values, weights, constant = problems.values, problems.weights, problems.constant()
    if n_init > 1:
        values = [rows for rows in values for _ in range(n_init)]
        weights = weights and [each for each in weights for _ in range(n_init)]
        constant = None if constant is None else np.repeat(constant, n_init)
    rows = _kernels.loop.Rows(values, weights)
    rows.set_frames(*(np.repeat(part, n_init, axis=0) for part in problems.frames()))
    posterior = _starts(model, models, problems, rows, seeds.ravel(), threads)
    climbs = loops.climb(rows, models, model, method, posterior, threads, constant)
    for p in np.flatnonzero(climbs.impossible >= 0):
        with _naming(int(numbers[p // n_init])):
            raise impossible_error(int(climbs.impossible[p]))
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
        if component < core.n_components:
            why = model.emission.degenerate_error(component)
        fits._failed[s] = f"data set {s}: {why}"
    fits.degenerate_[numbers] = failed
    objective, weights_ = climbs.objective, climbs.parameters["weights"]
    if method.read == "mean":
        concentration = climbs.posterior[:, 1 : 1 + core.n_components]
        weights_ = concentration / concentration.sum(axis=1, keepdims=True)
    found = {
        "weights_": weights_,
        **problems.told(climbs, failed),
        "objective_": objective,
        "lower_bound_": objective / (problems.total if core._bound_per_row else 1.0),
        "n_iter_": np.maximum(climbs.n_sweeps - 1, 0),
        "converged_": climbs.converged,
    }
    good = ~failed
    for name in fits.stacked:
        getattr(fits, name)[numbers[good]] = found[name][good]
    if np.any(climbs.fell):
        s = int(numbers[np.flatnonzero(climbs.fell)[0]])
        warnings.warn(
            f"the {method.objective} fell by more than rounding in {np.sum(climbs.fell > 0)} data "
            f"sets, the first of which is {s}",
            ObjectiveFellWarning,
            stacklevel=4,
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


def _shapes(estimator: Any, n_features: int, plain: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of what `ManyFits` has of parameters, of one data set.

    `plain` is the emission, of counts or symbols.
    """
    k, d = estimator.n_components, n_features
    out: dict[str, tuple[int, ...]] = {"weights_": (k,)}
    if isinstance(estimator, HiddenMarkovModel):
        out = {"startprob_": (k,), "transmat_": (k, k)}
    if plain is None:
        covariances = GaussianParameters._parameter_shape(estimator, k, d)
        return out | {
            "means_": (k, d), "covariances_": covariances, "precisions_cholesky_": covariances
        }  # fmt: skip
    ((name, shape),) = plain.arrays(k).items()
    return out | {f"{name}_": shape[: 2 if estimator.emission == "bernoulli" else None]}


# One by one --------------------------------------------------------------------------------------


def _fit_alone(
    fits: ManyFits, s: int, values: NDArray[Any], seed: int, more: dict[str, Any], **given: Any
) -> None:
    """Fit one data set by `fit`, with these parameters in place of the estimator's."""
    estimator = fits._new()
    estimator.set_params(random_state=seed, **more)
    try:
        with warnings.catch_warnings(), _naming(s):
            warnings.simplefilter("ignore", ConvergenceWarning)
            estimator.fit(values, **given)
    except DegenerateError as error:
        fits._failed[s] = f"data set {s}: {error}"
        fits.degenerate_[s] = True
        return
    for name in fits.stacked:
        getattr(fits, name)[s] = getattr(estimator, name)
    params = fits._estimator.get_params()
    fits._made[s] = estimator.set_params(
        random_state=params["random_state"], **{name: params[name] for name in more}
    )
    vars(estimator).update(fits._codes())


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
            convergence_warning(),
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
    warnings.warn(f"in {left} of {len(fits)} data sets {what}", convergence_warning(), stacklevel=3)

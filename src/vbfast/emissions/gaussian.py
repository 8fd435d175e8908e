"""Gaussian emissions with full, tied, diagonal or spherical covariances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _kernels
from ..conjugate import (
    Gaussians,
    IndependentNormalGamma,
    NormalGamma,
    NormalWishart,
    degenerate_error,
    point,
    precision_factors,
)
from ..data import ByValue, Frame, check_frame, check_hyperparameter, check_number, check_size
from ..stats import Moments, Stats

__all__ = ["CovarianceType", "Gaussian", "InFrame", "draw_rows"]

Array = NDArray[np.float64]
Distribution = NormalWishart | NormalGamma | IndependentNormalGamma
# Precision factors, in the frame's units, up to which float32 arithmetic resolves a row's distance:
# its rounding is then a few thousandths of a standard deviation, 1e-5 nats.
SHARPEST = 2.0**15
CovarianceType = Literal["full", "tied", "diag", "spherical"]


def _packed(*parts: ArrayLike) -> Array:
    return np.concatenate([np.ravel(part) for part in parts], dtype=np.float64)


# A prior's variances, in units in which those of the data are 1.
NARROWEST_PRIOR, WIDEST_PRIOR = 1e-100, 1e100


def _check_range(what: str, values: Array) -> None:
    """Raise ValueError where a prior's variance leaves no room for arithmetic."""
    bad = values[~((values >= NARROWEST_PRIOR) & (values <= WIDEST_PRIOR))]
    if bad.size:
        raise ValueError(
            f"{what} is {bad.flat[0]:.3g} in units in which the data have variance 1; from "
            f"{NARROWEST_PRIOR} to {WIDEST_PRIOR} are allowed"
        )


class InFrame(ByValue):
    """What Gaussian emissions share: kernels see their rows in the units of a frame."""

    n_features: int
    covariance_type: Any
    mean_prior: ArrayLike | None
    mean_precision: float | None
    degrees_of_freedom: float | None
    scatter: ArrayLike | None
    reg_covar: float
    frame: Frame | None

    #: Columns that may have NaN.
    missing_columns: ClassVar[tuple[int, ...]] = ()
    #: Symbols that a kernel's tables have room for: there are none.
    width: ClassVar[int] = 0
    #: Whether a row may have probability 0: only where numbers overflow.
    may_be_impossible: ClassVar[bool] = False
    #: What tells of a component whose likelihood has no bound.
    degenerate_error = staticmethod(degenerate_error)

    def _check_parameters(self, kinds: Sequence[str]) -> None:
        """Raise TypeError or ValueError where a parameter is none, or not one of the `kinds`."""
        object.__setattr__(self, "n_features", check_size("n_features", self.n_features))
        if self.frame is not None:
            check_frame(self.frame)
        if self.covariance_type not in kinds:
            raise ValueError(
                f"covariance_type must be one of {', '.join(map(repr, kinds))}, "
                f"not {self.covariance_type!r}"
            )
        check_number("reg_covar", self.reg_covar, least=0)
        check_number("mean_precision", self.mean_precision, least=0, optional=True)
        check_number("degrees_of_freedom", self.degrees_of_freedom, above=0, optional=True)
        for name in ("reg_covar", "mean_precision", "degrees_of_freedom"):
            given = getattr(self, name)
            if given is not None:  # narrow NumPy numbers overflow
                object.__setattr__(self, name, float(given))
        d = self.n_features
        check_hyperparameter("mean_prior", self.mean_prior, (d,))
        shapes = {"full": (d, d), "tied": (d, d), "diag": (d,), "spherical": ()}
        check_hyperparameter("scatter", self.scatter, shapes[self.covariance_type])
        if len(self.units.scale) != d:
            raise ValueError(f"frame has {len(self.units.scale)} features, not {d}")

    @cached_property
    def units(self) -> Frame:
        """The frame, or that of the data itself."""
        if self.frame is not None:
            return self.frame
        d = self.n_features
        return Frame(np.zeros(d), np.ones(d), np.ones(d))

    @cached_property
    def _log_scale(self) -> float:
        return float(np.log(self.units.scale).sum())

    def check_rows(self, values: NDArray[Any], name: str = "X") -> None:
        """Nothing: any finite row can come from a Gaussian."""

    def first_fault(self, values: NDArray[Any]) -> None:
        """Nothing, likewise."""

    def log_base(self, values: NDArray[Any]) -> Any:
        """What log densities have beside scores, row by row: nothing."""
        return 0.0


@dataclass(frozen=True, eq=False)
class Gaussian(InFrame):
    """x | t = k ~ N(mu_k, Lambda_k^-1), with a Normal-Wishart or Normal-Gamma prior.

    What is not given of the prior is flat, so that with none given a mode is the maximum of the
    likelihood. Everything is given in the units of the data; the computation runs in those of
    `frame`.

    Parameters
    ----------
    n_features : int
    covariance_type : {"full", "tied", "diag", "spherical"}
    mean_prior : array-like of shape (D,), optional
        Prior mean of every mu_k.
    mean_precision : float, optional
        Its weight in rows (kappa_0).
    degrees_of_freedom : float, optional
        nu_0. "diag": lambda ~ Gamma(nu_0/2, rate scatter_d/2) for each feature. "spherical":
        lambda ~ Gamma(D nu_0/2, rate D scatter/2).
    mean_variance : array-like of shape (D,) or float, optional
        In place of `mean_precision`: mu ~ N(mean_prior, mean_variance) whatever Lambda is. For
        "diag" and "spherical".
    scatter : array-like, optional
        W_0^-1: (D, D) for "full" and "tied", (D,) for "diag", a number for "spherical".
    reg_covar : float
        Each row is taken for a cloud of this variance, in units of the features' variances
        `frame.variance`: it is added to every covariance, and the scores' expectation is taken
        over the cloud, which keeps all objectives monotone.
    frame : Frame, optional
        Units of the data that the kernels see; by default those of the data itself.
    missing : bool
        Whether rows may have NaN in place of some features, of what is missing at random: for
        "full" and "tied", as a part of a `Product`. It is integrated out exactly; full inference
        can't.

    Raises
    ------
    ValueError
        If covariance_type is none of these, `mean_variance` or `missing` doesn't go with it, or
        `frame` does not: of another number of features, or with more than one scale for
        "spherical".

    Notes
    -----
    The mode is the joint one in (mu, Lambda); flat means flat in these. Sums of statistics and
    conjugate updates: Bishop (2006), 10.51-10.53 and 10.60-10.63. With values missing, statistics
    are those of rows completed by their expectation given what is seen, and of its covariance
    (Little & Rubin 2020, section 11.3); under mean field q is q(T, what is missing) q(theta).
    """

    n_features: int
    covariance_type: CovarianceType = "full"
    mean_prior: ArrayLike | None = None
    mean_precision: float | None = None
    mean_variance: ArrayLike | None = None
    degrees_of_freedom: float | None = None
    scatter: ArrayLike | None = None
    reg_covar: float = 0.0
    frame: Frame | None = None
    missing: bool = False

    #: Where starts look for centroids: among the rows themselves, in the frame's units.
    located: ClassVar[bool] = True
    #: What makes the prior proper.
    proper_with: ClassVar[str] = "mean_precision or mean_variance, degrees_of_freedom and scatter"

    def __post_init__(self) -> None:
        self._check_parameters(get_args(CovarianceType))
        if self.mean_variance is not None and self.covariance_type in ("full", "tied"):
            raise ValueError(
                f"mean_variance is for 'diag' and 'spherical', not {self.covariance_type!r}"
            )
        if self.missing and self.covariance_type not in ("full", "tied"):
            raise ValueError(f"missing is for 'full' and 'tied', not {self.covariance_type!r}")
        check_hyperparameter("mean_variance", self.mean_variance, (self.n_features,))
        scale = self.units.scale
        if self.covariance_type == "spherical" and np.any(scale != scale[0]):
            raise ValueError(
                "a spherical covariance needs one scale for all features: "
                "ArrayData.of(X, isotropic=True)"
            )

    @property
    def fewest_rows(self) -> dict[str, int]:
        """Rows of a component, of fewer of which a likelihood's maximum means nothing.

        By the field of statistics that counts them; of none where there are no such. A Gaussian
        close to D + 1 rows or fewer is as likely as one pleases, but for `reg_covar`: such a
        maximum is spurious (McLachlan & Peel 2000, section 3.10).
        """
        own = self.covariance_type != "tied" and self.scatter is None
        return {"strength": self.n_features + 2} if own else {}

    @property
    def kernel(self) -> str:
        """Name of the compiled scores and statistics."""
        return self.covariance_type + "_gaps" if self.missing else self.covariance_type

    @property
    def compiled(self) -> bool:
        """Whether the compiled loop knows this emission: see loops.py."""
        return self.mean_variance is None and not self.missing

    def single_resolves(self, theta: Gaussians) -> bool:
        """Whether float32 numbers tell how far rows are from means."""
        return bool(np.abs(theta.factor).max() <= SHARPEST) and not self.missing

    def _scatter_shape(self, n_components: int) -> tuple[int, ...]:
        d = self.n_features
        return {
            "full": (n_components, d, d),
            "tied": (1, d, d),
            "diag": (n_components, d),
            "spherical": (n_components, 1),
        }[self.covariance_type]

    @property
    def _rows_per_dof(self) -> int:
        """Degrees of freedom that a row brings to its component's precision."""
        return self.n_features if self.covariance_type == "spherical" else 1

    def fields(self, n_components: int) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Names and shapes of this emission's statistics."""
        shape = self._scatter_shape(n_components)
        return (
            ("strength", (n_components,)),
            ("mean", (n_components, self.n_features)),
            ("dof", shape[:1]),
            ("scatter", shape),
        )

    def arrays(self, n_components: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of what draws of the parameters are kept as."""
        return {
            "means": (n_components, self.n_features),
            "factors": self._scatter_shape(n_components),
        }

    @property
    def constants(self) -> dict[str, Any]:
        """What the compiled loop is told of the model beside the prior's buffer: see `Mixtures`."""
        return {"reg_covar": float(self.reg_covar)}

    @cached_property
    def moments(self) -> tuple[Moments, ...]:
        """How those statistics add up."""
        return (Moments("strength", "mean", "scatter"),)

    @cached_property
    def _independent_mean(self) -> tuple[Array, Array]:
        """Mean and precision (D,) of a prior on mu that is independent of Lambda."""
        units, d = self.units, self.n_features
        mean = np.zeros(d) if self.mean_prior is None else np.asarray(self.mean_prior)
        variance = np.broadcast_to(np.asarray(self.mean_variance, dtype=float), (d,))
        with np.errstate(all="ignore"):
            share = variance * units.scale**2
        _check_range("the prior variance of the means", share)
        return (mean - units.origin) * units.scale, 1 / share

    def prior(self, n_components: int) -> dict[str, ArrayLike]:
        """Hyperparameters, in the units of the frame."""
        units = self.units
        flat = self.distribution(
            {name: np.zeros(shape) for name, shape in self.fields(n_components)}
        )
        if self.degrees_of_freedom is None:
            dof = -float(flat.exponent[0])
        else:
            dof = self.degrees_of_freedom * self._rows_per_dof
        mean: ArrayLike = 0.0
        if self.mean_prior is not None:
            mean = (np.asarray(self.mean_prior) - units.origin) * units.scale
        scatter: ArrayLike = 0.0
        if self.scatter is not None:
            scatter = self.prior_scatter(np.asarray(self.scatter, dtype=float), units.scale)
        return {
            "strength": self.mean_precision or 0.0,
            "mean": mean,
            "dof": dof,
            "scatter": scatter,
        }

    def prior_scatter(self, scatter: Array, scale: Array) -> Array:
        """A prior's scatter in units of features multiplied by `scale` (..., D).

        `scatter` is (..., D, D), (..., D) if diagonal, (...) if spherical; it is returned in
        a shape that goes with a posterior's, (..., 1, D, D), (..., 1, D) or (..., 1, 1).
        """
        with np.errstate(all="ignore"):
            if self.covariance_type in ("full", "tied"):
                scatter = scatter * scale[..., :, None] * scale[..., None, :]
                _check_range("the prior scatter", np.diagonal(scatter, axis1=-2, axis2=-1))
                return np.asarray(scatter[..., None, :, :])
            if self.covariance_type == "diag":
                scatter = (scatter * scale**2)[..., None, :]
            else:
                scatter = (scatter * scale[..., 0] ** 2 * self.n_features)[..., None, None]
        _check_range("the prior scatter", scatter)
        return np.asarray(scatter)

    def distribution(self, stats: Stats | Mapping[str, Array]) -> Distribution:
        """Statistics read as a distribution over (mu, Lambda)."""
        if self.mean_variance is not None:
            center, pull = self._independent_mean
            return IndependentNormalGamma(
                stats["mean"], stats["strength"], stats["dof"], stats["scatter"], center, pull
            )
        kind = NormalWishart if self.covariance_type in ("full", "tied") else NormalGamma
        return kind(stats["mean"], stats["strength"], stats["dof"], stats["scatter"])

    def collect(self, raw: Array, counts: Array, reference: Array) -> dict[str, Array]:
        """Statistics of a kernel, sums about `reference` (K, D), in centred form."""
        mean, dof, scatter = _kernels.parameters.collect(
            self.covariance_type, raw, counts, reference, self.reg_covar, self.units.variance
        )
        return {"strength": counts, "mean": mean, "dof": dof, "scatter": scatter}

    def n_coordinates(self, n_components: int) -> int:
        """How many numbers `coordinates` gives."""
        d, shape = self.n_features, self._scatter_shape(n_components)
        own = d * (d + 1) // 2 if len(shape) == 3 else shape[1]
        return n_components * d + shape[0] * own

    def coordinates(self, stats: Stats, held: NDArray[np.bool_]) -> Array:
        """Unconstrained numbers for means and scatter: with scatter = U diag(d) U', U unit lower.

        The means, the entries of U below its diagonal, log d (Pourahmadi 1999); for "diag" and
        "spherical" log scatter in place of the last two. 0 for components that are not `held`
        (K,).

        Raises
        ------
        LinAlgError
            If scatter is not positive definite.
        """
        means = np.where(held[:, None], stats["mean"], 0.0)
        scatter = stats["scatter"]
        held = self._by_scatter(held)
        if self.covariance_type in ("full", "tied"):
            factor = np.linalg.cholesky(np.where(held, scatter, np.eye(self.n_features)))
            pivots = np.diagonal(factor, axis1=1, axis2=2)
            unit = (factor / pivots[:, None, :])[:, self._below]
            return _packed(means, unit, 2 * np.log(pivots))
        scatter = np.where(held, scatter, 1.0)
        if not np.all(scatter > 0):
            raise np.linalg.LinAlgError("scatter is not positive")
        return _packed(means, np.log(scatter))

    def at_coordinates(
        self, coordinates: Array, counts: Array, held: NDArray[np.bool_], like: Stats
    ) -> dict[str, Array]:
        """Mean and scatter that have these numbers, beside what `counts` rows (K,) bring.

        Those of `like` for components that are not `held` (K,).
        """
        k, d = like["mean"].shape
        means, rest = coordinates[: k * d].reshape(k, d), coordinates[k * d :]
        scatter = like["scatter"]
        if self.covariance_type in ("full", "tied"):
            n = len(scatter)
            n_below = n * d * (d - 1) // 2
            factor = np.tile(np.eye(d), (n, 1, 1))
            factor[:, self._below] = rest[:n_below].reshape(n, -1)
            factor *= np.exp(0.5 * rest[n_below:]).reshape(n, 1, d)
            values = np.einsum("kij,klj->kil", factor, factor)
        else:
            values = np.exp(rest).reshape(scatter.shape)
        means = np.where(held[:, None], means, like["mean"])
        return self._fields(counts, means, np.where(self._by_scatter(held), values, scatter))

    def _by_scatter(self, each: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """One truth for each component (K,) in a shape that goes with scatter's."""
        if self.covariance_type == "full":
            return each[:, None, None]
        if self.covariance_type == "tied":
            return np.ones((1, 1, 1), dtype=bool)
        return each[:, None]

    @cached_property
    def _below(self) -> NDArray[np.bool_]:
        """Entries below the diagonal, (D, D)."""
        return np.tri(self.n_features, k=-1, dtype=bool)

    def around(self, means: Array, counts: Array) -> dict[str, Array]:
        """Statistics of `counts` rows (K,) about `means` (K, D), with the variance of all rows."""
        return self._fields(counts, means, self._diagonal(counts, self.units.variance))

    def unit(self, means: Array) -> Gaussians:
        """Gaussians of precision 1 about `means`."""
        shape = self._scatter_shape(len(means))
        ones = np.eye(self.n_features) if self.covariance_type in ("full", "tied") else 1.0
        return point(means, np.full(shape, ones))

    def common(self, stats: Stats) -> dict[str, Array]:
        """Statistics of rows that are like all together: none, a start needs no such."""
        return {}

    def means_in(self, stats: Stats) -> Array:
        """What statistics are best taken about, (K, D)."""
        return stats["mean"].copy()

    def points(self, values: Array) -> Array:
        """Where rows lie, for a start to look for centroids: in the frame's units, (N, D)."""
        return np.asarray((values - self.units.origin) * self.units.scale)

    def _fields(self, counts: Array, means: Array, scatter: Array) -> dict[str, Array]:
        dof = counts * self._rows_per_dof
        if self.covariance_type == "tied":
            dof = counts.sum(keepdims=True)
        return {"strength": counts, "mean": means, "dof": dof, "scatter": scatter}

    def _diagonal(self, counts: Array, variance: Array) -> Array:
        """Scatter of `counts` rows (K,) of independent features of this variance (D,)."""
        each = counts[:, None] * variance
        if self.covariance_type == "full":
            return np.asarray(each[:, :, None] * np.eye(self.n_features))
        if self.covariance_type == "tied":
            return np.asarray(np.diag(each.sum(axis=0))[None])
        return each if self.covariance_type == "diag" else each.sum(axis=1, keepdims=True)

    def reference(self, theta: Gaussians) -> Array:
        """Points (K, D) that the kernel takes moments about: the origin or a component's mean.

        About the origin sums cost least. Of a component further than 32 of its own standard
        deviations from it, |A m|^2 > 1024, such sums would cancel by more than three digits, so its
        own mean is taken. So it is where the component is all but flat: rounding of m m', which
        does not lie in its plane as m may, is up to eps ||A| |m||^2 of a variance across it. An
        update that errs by a share e of a variance brings e^2 / 4 nats too little for each row, of
        which a limit of 2^30 leaves 1e-14. Where the kernel adds components up together, all are
        near or all far.
        """
        return _kernels.parameters.reference(self.covariance_type, theta)

    def reference_at(self, means: Array) -> Array:
        """The same, where it is to be these (K, D)."""
        return means

    def coefficients(self, theta: Gaussians, reference: Array) -> Array:
        """Pack what the kernel reads of theta: see gaussian.pyx."""
        if self.missing and self.covariance_type == "tied":
            factors = np.repeat(theta.factor, len(theta.means), axis=0)
            return _kernels.parameters.coefficients(
                "full", replace(theta, factor=factors), reference
            )
        return _kernels.parameters.coefficients(self.covariance_type, theta, reference)

    def offsets(self, theta: Gaussians) -> Array:
        """Scores at squared distance zero, (K,), in the units of the data."""
        return _kernels.parameters.offsets(
            self.covariance_type, theta, self._log_scale, self.reg_covar, self.units.variance
        )

    def log_volume(self, n_components: int) -> float:
        """Turn a density of (mu, Lambda) in the frame's units into one in the data's, by adding.

        d mu scales by prod s, d Lambda by prod s^-(D+1) (full, tied), s^-2 each (diag), s^-2 for
        all (spherical).
        """
        d = self.n_features
        powers = {"full": d + 1, "tied": d + 1, "diag": 2, "spherical": 2 / d}
        groups = self._scatter_shape(n_components)[0]
        return (n_components - groups * powers[self.covariance_type]) * self._log_scale

    @property
    def plain(self) -> Gaussian:
        """Without a prior, and rows that are points: what is said of rows after a fit."""
        return Gaussian(
            self.n_features, self.covariance_type, frame=self.units, missing=self.missing
        )

    def log_base(self, values: NDArray[Any]) -> Any:
        """What log densities have beside scores, (N,): of what is missing, no constants; or 0."""
        if not self.missing:
            return 0.0
        each = 0.5 * np.log(2 * np.pi) - np.log(self.units.scale)
        return (np.isnan(values) * each).sum(axis=1)

    def parameters(self, means: Array, factors: Array) -> Gaussians:
        """Parameters of the arrays that draws are kept as."""
        return point(means, factors)

    def together(self, means: Array, factors: Array) -> tuple[Gaussian, Gaussians]:
        """G draws, arrays with these first, as one emission of G K components."""
        g, k, d = means.shape
        kind: CovarianceType = self.covariance_type
        if kind == "tied":
            kind, factors = "full", np.repeat(factors, k, axis=1)
        factors = factors.reshape(g * k, *factors.shape[2:])
        return Gaussian(d, kind, frame=self.units), point(means.reshape(g * k, d), factors)

    def mean_of_draws(self, means: Array, factors: Array) -> Gaussians:
        """E[mu] and E[Lambda] over draws, arrays with these first."""
        if self.covariance_type in ("full", "tied"):
            precision = np.einsum("ngji,ngjk->gik", factors, factors) / len(factors)
            factor = precision_factors(np.linalg.inv(precision))
        else:
            factor = np.sqrt((factors**2).mean(axis=0))
        return point(means.mean(axis=0), factor)

    def mean_point(self, posterior: Stats) -> Gaussians:
        """E[mu] and E[Lambda] under a posterior, as if they were known."""
        mean = self.distribution(posterior.copy()).mean()
        return point(mean.means, mean.factor)

    def sample_rows(
        self, theta: Gaussians, components: NDArray[np.int64], rng: np.random.Generator
    ) -> Array:
        """Draw a row from each of `components` (N,), in the units of the data, (N, D)."""
        group = components if len(theta.factor) > 1 else np.zeros_like(components)
        return draw_rows(self.units, theta.means[components], theta.factor[group], rng)

    def given_seen(
        self,
        theta: Gaussians,
        component: int,
        values: NDArray[Any],
        rng: np.random.Generator | None = None,
    ) -> Array:
        """Rows (N, D) of a component whose NaN are their expectations given the rest, or drawn.

        Of a precision A'A what is missing, m + u, has the u of least |A z + A_m u|, and the
        precision A_m'A_m: see gaps.pxd. In the units of the data.
        """
        out = (values - self.units.origin) * self.units.scale - theta.means[component]
        factor = theta.factor[component if len(theta.factor) > 1 else 0]
        if factor.ndim == 1:
            factor = np.diag(np.broadcast_to(factor, (self.n_features,)))
        patterns, which = np.unique(np.isnan(out), axis=0, return_inverse=True)
        for n, absent in enumerate(patterns):
            if not absent.any():
                continue
            rows = which == n
            seen = out[rows][:, ~absent] @ factor[:, ~absent].T
            orthogonal, upper = np.linalg.qr(factor[:, absent])
            right = -orthogonal.T @ seen.T
            if rng is not None:
                right = right + rng.standard_normal(right.shape)
            out[np.ix_(rows, absent)] = np.linalg.solve(upper, right).T
        out += theta.means[component]
        return np.asarray(self.units.origin + out / self.units.scale)

    def log_prior(self, prior: Distribution, theta: Gaussians) -> float:
        """log p(mu, Lambda) at theta, in the units of the data; 0 for a flat prior."""
        value = prior.log_density(theta)
        if prior.proper:
            return value + self.log_volume(len(theta.means))
        # Improper: the density without its constant, of precisions in the units of the data.
        per_log_scale = 1 if self.covariance_type != "spherical" else 1 / self.n_features
        return value + prior.total_exponent * per_log_scale * self._log_scale


def draw_rows(frame: Frame, means: Array, factor: Array, rng: np.random.Generator) -> Array:
    """Draw N(means, (A'A)^-1), row by row, in the units of the data."""
    z = rng.standard_normal(means.shape)
    gap = np.linalg.solve(factor, z[:, :, None])[:, :, 0] if factor.ndim == 3 else z / factor
    return np.asarray(frame.origin + (means + gap) / frame.scale)

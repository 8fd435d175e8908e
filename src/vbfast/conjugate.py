"""Conjugate distributions over parameters: mode, mean, sample, KL divergence, log density.

A distribution here is a group of K independent ones, one a component (tied precisions: K means
on one precision matrix). Formulas: Bishop, Pattern Recognition and Machine Learning (2006),
appendix B and section 10.2.

Precisions are passed as lower triangular factors A with Lambda = A'A, since |A(x - m)|^2 is what
kernels compute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, digamma, gammaln, xlog1py, xlogy

from . import _kernels
from ._interrupts import interruptible
from .exceptions import DegenerateError
from .special import (
    beyond_linear,
    beyond_stirling,
    count_deviance,
    digamma_less_log,
    log_gamma_step,
)

__all__ = [
    "LEAST_CONCENTRATION",
    "MOST_ROWS",
    "Dirichlet",
    "Gamma",
    "Gaussians",
    "IndependentNormalGamma",
    "MatrixNormalWishart",
    "NormalGamma",
    "NormalWishart",
    "Probabilities",
    "Rates",
    "Regression",
    "StickBreaking",
    "Tables",
    "definite_solution",
    "degenerate_error",
    "least_norm_solution",
    "lost_precision_error",
    "no_rate_error",
    "point",
    "precision_factors",
    "regression",
]

Array = NDArray[np.float64]
T = TypeVar("T")

# A component that holds less than this of a row is empty: what is left of it is rounding.
EMPTY = 1e-100
# Where a prior's mode lies at infinite variance, this share of its scatter's inverse stands in.
VANISHING = 1e-10
# Weights that are drawn are no smaller.
TINY = 1e-300
# Nor are gammas of which precisions are made, so that these, inverted and multiplied, are float64.
LEAST_GAMMA = 1e-200
# Concentrations of a prior are no smaller: they are kept less 1, and of a smaller one too little is
# left.
LEAST_CONCENTRATION = 1e-10
# Rows that a prior may stand for: beside more of them a row's last digits are lost.
MOST_ROWS = 1e12
# What a sum of squares is divided by at least.
SMALLEST = 1e-300
# Variances below this, where those of the whole data are 1, are rounding.
SMALLEST_VARIANCE = 1e-26
# The same where a variance is what a regression leaves of sums of squares.
SMALLEST_REST = 1e-12


# Not frozen: a sweep makes one, and that would take as long as visiting some rows.
@dataclass
class Gaussians:
    """K Gaussians, or what mean field makes of them: E[Lambda], E[log|Lambda|], and a slack.

    All arrays are contiguous: compiled code reads them.

    Attributes
    ----------
    means : (K, D)
    factor : A with A'A = Lambda; (K, D, D), (1, D, D) if tied, (K, D) if diagonal, (K, 1) if
        spherical
    log_det : (K,) or (1,)
        log|Lambda|, or its expectation.
    slack : (K,)
        What the uncertainty of the means takes from each score, E[(x-mu)'Lambda(x-mu)]/2 beyond
        |A(x-m)|^2/2; zero for a point.
    """

    means: Array
    factor: Array
    log_det: Array
    slack: Array

    @property
    def arrays(self) -> dict[str, Array]:
        """What draws are kept as."""
        return {"means": self.means, "factors": self.factor}

    @property
    def rounding(self) -> float:
        """Nats a row that rounding may take from an objective here."""
        return _kernels.parameters.rounding(self)


def _gammas(shape: Array, rng: np.random.Generator) -> Array:
    """Draw a gamma of scale 1 of each shape."""
    return np.maximum(rng.standard_gamma(shape), LEAST_GAMMA)


def _seed(rng: np.random.Generator) -> int:
    """Names a stream of compiled draws."""
    return int(rng.integers(2**63))


class Dirichlet:
    """Dirichlet(concentration) over K weights (Bishop B.16), or several independent ones.

    Parameters
    ----------
    concentration : ndarray of shape (..., K)
        Where it is 0, so is the weight, always.
    excess : ndarray of shape (..., K), optional
        Concentration - 1, by who has more of its digits: next to none of it is lost beside a 1.
    """

    def __init__(self, concentration: Array, excess: Array | None = None) -> None:
        self.concentration = concentration
        self.excess = excess
        values = concentration if excess is None else excess
        # As compiled code takes them: see _kernels/dirichlet.pxd.
        self._told = np.ascontiguousarray(values, dtype=np.float64), float(excess is not None)

    def mode(self) -> Array:
        """Return the weights of highest density, (..., K), for concentrations >= 1 (B.22 ff.).

        All concentrations 1 have no single mode; the answer then is the mean.
        """
        concentration = self.concentration
        if concentration.min() < 1 and np.any((concentration < 1) & (concentration > 0)):
            raise ValueError("a Dirichlet distribution with a concentration < 1 has no mode")
        return _kernels.parameters.dirichlet_mode(*self._told)

    def mean(self) -> Array:
        """E[pi], (..., K) (B.17)."""
        return _kernels.parameters.dirichlet_mean(*self._told)

    def mean_log(self) -> Array:
        """E[log pi], (..., K) (B.21)."""
        return _kernels.parameters.dirichlet_mean_log(*self._told)

    def sample(self, rng: np.random.Generator) -> Array:
        """Return weights drawn, (..., K), none so small that its logarithm would be lost."""
        return np.exp(self._sample_logs(rng))

    def _sample_logs(self, rng: np.random.Generator) -> Array:
        return _kernels.parameters.dirichlet_sample(*self._told, _seed(rng))

    @cached_property
    def log_normalizer(self) -> float:
        """Log of the integral of prod pi^(concentration - 1)."""
        return _kernels.parameters.dirichlet_log_normalizer(*self._told)

    def log_density(self, weights: Array) -> float:
        """log p(weights)."""
        logs = _kernels.parameters.logarithms(np.ascontiguousarray(weights))
        return _kernels.parameters.dirichlet_log_density(*self._told, logs)

    def kl(self, prior: Dirichlet) -> float:
        """KL(self || prior), whose concentrations are 0 in the same places."""
        return _kernels.parameters.dirichlet_kl(self._told[0], *prior._told)


@dataclass(frozen=True)
class Rates:
    """Rates of K components for D independent features, or what mean field makes of them.

    Attributes
    ----------
    rates : (K, D)
        lambda, or E[lambda].
    log_rates : (K, D)
        log lambda, or E[log lambda].
    shape : (K, D), optional
        Of the gamma distribution under which these are expected; None for rates that are known.
    """

    rates: Array
    log_rates: Array
    shape: Array | None = None

    @property
    def rounding(self) -> float:
        """Nats a row that rounding may take from an objective of counts here."""
        return _kernels.parameters.rate_rounding(self.rates, self.log_rates)

    @property
    def slack(self) -> Array:
        """E[lambda] - exp E[log lambda], (K, D): 0 for rates that are known."""
        if self.shape is None:
            return np.zeros(self.rates.shape)
        return np.asarray(-self.rates * np.expm1(digamma_less_log(self.shape)))

    @property
    def arrays(self) -> dict[str, Array]:
        """What draws are kept as."""
        return {"rates": self.rates}

    @classmethod
    def point(cls, rates: Array) -> Rates:
        """These rates; 0 is one."""
        with np.errstate(divide="ignore"):
            return cls(rates, np.log(rates))


class Gamma:
    """Rates lambda ~ Gamma(shape, rate) (Bishop B.26), K * D independent ones.

    Density rate^shape lambda^(shape - 1) exp(-rate lambda) / Gamma(shape). One of rate 0 is
    improper: flat, if its shape is 1.

    Parameters
    ----------
    excess : ndarray of shape (K, D)
        shape - 1, so that next to none of it is seen beside a 1.
    rate : ndarray of shape (K, D)
    origin : float or ndarray of shape (D,)
        What rows are told about.
    """

    #: What theta is.
    kind: ClassVar[type[Rates]] = Rates
    # What stands in for the excess where a mode is at a rate of 0.
    _least: ClassVar[float] = 0.0

    def __init__(self, excess: Array, rate: Array, origin: Array | float = 0.0) -> None:
        self.excess = np.ascontiguousarray(excess)
        self.rate = np.ascontiguousarray(rate)
        self.origin = origin

    @cached_property
    def shape(self) -> Array:
        """(K, D)"""
        return self.excess + 1.0

    @cached_property
    def proper(self) -> bool:
        """Whether the density can be normalised."""
        return bool(np.all(self.rate > 0) and np.all(self.shape > 0))

    def mode(self) -> Rates:
        """Return the rates of highest density, (shape - 1) / rate (B.29), for shapes >= 1.

        An empty component under a flat prior takes the mean rates of all rows, 0 if there are none.
        """
        if self.excess.min() < 0:
            raise ValueError("a gamma distribution with a shape < 1 has no mode")
        return self.kind(*_kernels.parameters.rate_mode(self.excess, self.rate, self._least))

    def mean(self) -> Rates:
        """E[lambda] (B.27) and E[log lambda] (B.30)."""
        return self.kind(*_kernels.parameters.rate_mean(self.excess, self.rate), self.shape)

    def mean_point(self) -> Rates:
        """E[lambda] as rates."""
        return self.kind.point(self.mean().rates)

    def sample(self, rng: np.random.Generator) -> Rates:
        """Draw rates, none so small that its logarithm would be lost."""
        return self.kind(*_kernels.parameters.rate_sample(self.excess, self.rate, _seed(rng)))

    def log_density(self, theta: Rates) -> float:
        """log p(lambda), all components and features."""
        return _kernels.parameters.rate_log_density(self.excess, self.rate, theta.log_rates)

    def log_density_terms(self, theta: Rates) -> tuple[float, Array]:
        """The same with components in any order: 0 and M (K, K), see `NormalGamma`."""
        return 0.0, _kernels.parameters.rate_terms(self.excess, self.rate, theta.log_rates)

    def kl(self, prior: Gamma) -> float:
        """KL(self || prior) = E[log q] - E[log p]."""
        return _kernels.parameters.rate_kl(self.excess, self.rate, prior.excess, prior.rate)

    def log_predictive(self, x: Array) -> Array:
        """log p(x | component), rates integrated out, (N, K) for x (N, D): negative binomial.

        Gamma(shape + x) / (Gamma(shape) x!) (rate / (rate + 1))^shape (1 / (rate + 1))^x for each
        feature (Gelman et al. 2013, section 2.6), as deviances of both counts from their shares of
        the sum: large ones would cancel else (Loader 2000).
        """
        x = x + self.origin
        none = x == 0
        count = np.where(none, 1.0, x)
        rest = 0.5 * np.log(2 * np.pi * count) + beyond_stirling(count)
        out = np.empty((len(x), len(self.shape)))
        for k, (shape, rate) in enumerate(zip(self.shape, self.rate, strict=True)):
            both = shape + count
            scores = 0.5 * np.log(shape / both) - rest
            scores += beyond_stirling(both) - beyond_stirling(shape)
            scores -= count_deviance(shape, both * (rate / (rate + 1)))
            scores -= count_deviance(count, both / (rate + 1))
            out[:, k] = np.where(none, -shape * np.log1p(1 / rate), scores).sum(axis=1)
        return out

    def sample_rows(self, components: NDArray[np.int64], rng: np.random.Generator) -> Array:
        """Draw a row from each of `components`, rates integrated out, (N, D)."""
        rates = rng.standard_gamma(self.shape[components]) / self.rate[components]
        return np.asarray(rng.poisson(rates) - self.origin, dtype=np.float64)


@dataclass(frozen=True)
class Probabilities:
    """K tables of symbols' probabilities for each of D independent features, or mean field's.

    Attributes
    ----------
    values : (K, D, C)
        Probabilities, or E[p]; 0 for a symbol that a feature can't be.
    logs : (K, D, C)
        log p, or E[log p].
    """

    #: See `Gaussians.rounding`.
    rounding: ClassVar[float] = 0.0

    values: Array
    logs: Array

    @property
    def arrays(self) -> dict[str, Array]:
        """What draws are kept as."""
        return {"probabilities": self.values}

    @classmethod
    def point(cls, values: Array) -> Probabilities:
        """These probabilities; 0 is one."""
        with np.errstate(divide="ignore"):
            return cls(values, np.log(values))


class Tables:
    """Tables of probabilities, each row of them ~ Dirichlet: K * D independent ones.

    Parameters
    ----------
    excess : ndarray of shape (K, D, C)
        Concentration - 1, so that next to none of it is seen beside a 1: -1 for a symbol that a
        feature can't be, 0 for a flat prior.
    """

    def __init__(self, excess: Array) -> None:
        self.excess = np.ascontiguousarray(excess)
        self.dirichlet = Dirichlet(self.excess + 1.0, self.excess)

    #: Flat is uniform here, and has an integral.
    proper = True

    def mode(self) -> Probabilities:
        """Return the probabilities of highest density, for concentrations >= 1 (Bishop B.22 ff.).

        Where all concentrations are 1, as of an empty component under a flat prior, those that all
        rows together have; all equal if there are none.
        """
        if np.any((self.excess < 0) & (self.excess > -1)):
            raise ValueError("a Dirichlet distribution with a concentration < 1 has no mode")
        return Probabilities.point(_kernels.parameters.table_mode(self.excess))

    def mean(self) -> Probabilities:
        """E[p] (B.17) and E[log p] (B.21)."""
        return Probabilities(self.dirichlet.mean(), self.dirichlet.mean_log())

    def mean_point(self) -> Probabilities:
        """E[p] as probabilities."""
        return Probabilities.point(self.dirichlet.mean())

    def sample(self, rng: np.random.Generator) -> Probabilities:
        """Draw probabilities, none of a possible symbol so small that its logarithm is lost."""
        logs = self.dirichlet._sample_logs(rng)
        return Probabilities(np.exp(logs), logs)

    def log_density(self, theta: Probabilities) -> float:
        """log p(probabilities), all components and features."""
        return self.dirichlet.log_density(theta.values)

    def log_density_terms(self, theta: Probabilities) -> tuple[float, Array]:
        """The same with components in any order: 0 and M (K, K), see `NormalGamma`."""
        return 0.0, _kernels.parameters.table_terms(self.excess, theta.logs)

    def kl(self, prior: Tables) -> float:
        """KL(self || prior), a sum of those of Dirichlet distributions."""
        return self.dirichlet.kl(prior.dirichlet)

    def log_predictive(self, x: Array) -> Array:
        """log p(x | component), probabilities integrated out, (N, K) for symbols x (N, D)."""
        with np.errstate(divide="ignore"):
            logs = np.log(self.mean_point().values)
        symbols = x.astype(np.intp)
        total = np.zeros((len(x), len(logs)))
        for d in range(x.shape[1]):
            total += logs[:, d, symbols[:, d]].T
        return total


class StickBreaking:
    """Weights pi_k = v_k prod_{j<k} (1 - v_j), v_k ~ Beta(a_k, b_k) for k < K and v_K = 1.

    The truncated stick-breaking form of a Dirichlet process (Blei & Jordan 2006, section 3).

    Parameters
    ----------
    sticks : ndarray of shape (K - 1, 2)
        a and b.
    """

    def __init__(self, sticks: Array) -> None:
        self.a, self.b = sticks[:, 0], sticks[:, 1]

    @staticmethod
    def weights(v: Array) -> Array:
        """Weights (K,) of stick proportions (K - 1,)."""
        left = np.concatenate([[1.0], np.cumprod(1 - v)])
        return np.concatenate([v, [1.0]]) * left

    def mode(self) -> Array:
        """Return the weights at the mode of the density of the v_k, for a, b >= 1."""
        if np.any(self.a < 1) or np.any(self.b < 1):
            raise ValueError("a Beta distribution with a parameter < 1 has no mode")
        total = self.a + self.b - 2
        half = np.full_like(total, 0.5)
        v = np.divide(self.a - 1, total, out=half, where=total > 0)
        return self.weights(np.minimum(v, 1.0))

    def mean(self) -> Array:
        """E[pi], (K,)."""
        return self.weights(self.a / (self.a + self.b))

    def mean_log(self) -> Array:
        """E[log pi], (K,) (Blei & Jordan 2006, section 3.2)."""
        both = digamma(self.a + self.b)
        kept = np.concatenate([digamma(self.a) - both, [0.0]])
        left = np.concatenate([[0.0], np.cumsum(digamma(self.b) - both)])
        return kept + left

    def sample(self, rng: np.random.Generator) -> Array:
        """Return weights drawn, (K,), no stick so long that nothing is left of it."""
        return self.weights(np.minimum(rng.beta(self.a, self.b), 1 - 2**-53))

    def _proportions(self, weights: Array) -> Array:
        left = np.cumsum(weights[::-1])[::-1][:-1]
        one = np.ones_like(left)
        return np.minimum(np.divide(weights[:-1], left, out=one, where=left > 0), 1.0)

    def log_density(self, weights: Array) -> float:
        """Log density of the stick proportions v that give `weights`."""
        v = self._proportions(weights)
        return float(
            (xlogy(self.a - 1, v) + xlog1py(self.b - 1, -v) - betaln(self.a, self.b)).sum()
        )

    def kl(self, prior: StickBreaking) -> float:
        """KL(self || prior), a sum of those of the Betas."""
        both = digamma(self.a + self.b)
        return float(
            (
                (self.a - prior.a) * (digamma(self.a) - both)
                + (self.b - prior.b) * (digamma(self.b) - both)
                - betaln(self.a, self.b)
                + betaln(prior.a, prior.b)
            ).sum()
        )


def _pivoted(matrix: Array) -> tuple[Array, NDArray[np.int32]]:
    """L (P, R), R the rank, and an order in which matrix, semidefinite, is LL' but for rounding."""
    size = len(matrix)
    lower = matrix.T.copy("F")
    pivots = np.empty(size, dtype=np.int32)
    rank = _kernels.triangle.pivoted_cholesky(lower, pivots, np.empty(2 * size))
    for column in range(1, rank):
        lower[:column, column] = 0.0
    return lower[:, :rank], pivots - 1


def least_norm_solution(gram: Array, cross: Array) -> Array:
    """W of least norm with gram W = cross, (P, D), for a semidefinite gram (P, P).

    By a Cholesky factor with pivots, a tenth of the work of singular values, whose leading rows
    give a solution; what of it lies in the null space is taken off.
    """
    from scipy.linalg import cho_solve, qr, solve_triangular

    held = np.diagonal(gram) > 0
    if not held.all():
        whole = np.zeros(cross.shape)
        whole[held] = least_norm_solution(gram[np.ix_(held, held)], cross[held])
        return whole
    lower, order = _pivoted(gram)
    size, rank = lower.shape
    basic = np.zeros(cross.shape)
    if rank > 0:
        top = lower[:rank]
        basic[:rank] = cho_solve((top, True), cross[order[:rank]], check_finite=False)
        if rank < size:
            null = np.eye(size, size - rank, -rank)
            null[:rank] = -solve_triangular(
                top, lower[rank:].T, lower=True, trans="T", check_finite=False
            )
            null = qr(null, mode="economic", check_finite=False)[0]
            basic -= null @ (null.T @ basic)
    out = np.empty_like(basic)
    out[order] = basic
    return out


def definite_solution(gram: Array, cross: Array) -> Array:
    """W with gram W = cross, (P, D), for a definite gram (P, P).

    Raises
    ------
    DegenerateError
        Where, in units in which its diagonal is 1, gram is semidefinite but for rounding.
    """
    from scipy.linalg import cho_solve

    diagonal = np.diagonal(gram)
    if not diagonal.min() > 0:
        raise lost_precision_error()
    unit = np.sqrt(diagonal)
    lower, order = _pivoted(gram / unit / unit[:, None])
    if len(gram) != lower.shape[1]:
        raise lost_precision_error()
    out = np.empty(cross.shape)
    right = (cross / unit[:, None])[order]
    out[order] = cho_solve((lower, True), right, check_finite=False)
    return out / unit[:, None]


def lost_precision_error() -> DegenerateError:
    """Return the error that tells of a regression whose prior doesn't hold what its rows leave."""
    return DegenerateError(
        "mean_precision is lost to rounding beside the rows, which leave the chains' levels open: "
        "give more, or none"
    )


def degenerate_error(component: int) -> DegenerateError:
    """Return the error that tells of a component without a covariance."""
    return DegenerateError(
        f"component {component} has shrunk onto too few distinct rows for its covariance to be "
        "positive definite (the likelihood is unbounded there): use fewer components, a simpler "
        "covariance_type, a larger reg_covar or a prior"
    )


def no_rate_error(component: int) -> DegenerateError:
    """Return the error that tells of a component of waiting times that has no rate."""
    return DegenerateError(
        f"component {component} has shrunk onto rows that are all 0 in some column, where the "
        "likelihood of its rate is unbounded: use fewer components or a prior"
    )


def _factor(
    scatter: Array,
    scale: Array,
    tiny: float,
    error: Callable[[int], DegenerateError] = degenerate_error,
) -> Array:
    """A with A'A = scale * scatter^-1, (G, D, D); DegenerateError names the first without one.

    `tiny` is the smallest squared pivot of scatter / scale that is taken for more than rounding.
    """
    scatter = np.ascontiguousarray(scatter, dtype=np.float64)
    n_features = scatter.shape[1]
    out = np.empty_like(scatter)
    room = np.empty((n_features + 1, n_features))
    scale = np.ascontiguousarray(scale, dtype=np.float64)
    bad = interruptible(
        out.size * n_features,
        lambda: _kernels.triangle.precision_factors(scatter, scale, tiny, room, out),
    )
    if bad >= 0:
        raise error(bad)
    return out


def precision_factors(covariances: Array) -> Array:
    """Return A with A'A = covariance^-1, for (G, D, D), or for variances (G, D) or (G, 1)."""
    if covariances.ndim == 2:
        return np.asarray(covariances**-0.5)
    return _factor(covariances, np.ones(len(covariances)), 0.0)


def _solve_lower(factor: Array, z: Array) -> Array:
    """A^-1 z, row by row: factor (N, D, D) or (1, D, D), z (N, D)."""
    return np.asarray(np.linalg.solve(factor, z[:, :, None])[:, :, 0])


def point(means: Array, factor: Array) -> Gaussians:
    """Return the Gaussians of these means (K, D) and precision factors."""
    means, factor = np.ascontiguousarray(means), np.ascontiguousarray(factor)
    if factor.ndim == 3:
        log_det = 2 * np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
    else:
        log_det = 2 * np.log(factor).sum(axis=1) * (means.shape[1] // factor.shape[1])
    return Gaussians(means, factor, log_det, np.zeros(len(means)))


def _student_constant(dof: Array, n_features: int, log_det: Array) -> Array:
    """Log density of Student's t (Bishop B.68) where it is highest."""
    constant = log_gamma_step(0.5 * dof, 0.5 * n_features)
    return np.asarray(constant - 0.5 * n_features * np.log(np.pi * dof) + 0.5 * log_det)


def _log_student(squared: Array, dof: Array, n_features: int, constant: Array) -> Array:
    """Log density of Student's t at a squared distance in its own metric."""
    return np.asarray(constant - 0.5 * (dof + n_features) * np.log1p(squared / dof))


class _Wishart:
    """G independent Lambda ~ Wishart(W, dof), W^-1 = scatter (Bishop B.78).

    Parameters
    ----------
    dof : (G,); scatter : (G, D, D)
    """

    def __init__(self, dof: Array, scatter: Array) -> None:
        self.dof = dof
        self.scatter = scatter
        self.n_features = scatter.shape[1]

    @cached_property
    def _root(self) -> Array:
        """A with A'A = W = scatter^-1."""
        return _factor(self.scatter, np.ones(len(self.scatter)), 0.0, self._degenerate_error)

    def _degenerate_error(self, number: int) -> DegenerateError:
        return degenerate_error(number)

    @cached_property
    def _log_det_w(self) -> Array:
        return np.asarray(2 * np.log(np.diagonal(self._root, axis1=1, axis2=2)).sum(axis=1))

    @property
    def _mean_factor(self) -> Array:
        """A with A'A = E[Lambda] = dof W."""
        return np.asarray(np.sqrt(self.dof)[:, None, None] * self._root)

    @property
    def _mean_log_det(self) -> Array:
        """E[log|Lambda|], (G,) (B.81)."""
        half = 0.5 * (self.dof[:, None] - np.arange(self.n_features))
        return np.asarray(self._log_det_w + (digamma(half) + np.log(2)).sum(axis=1))

    def _sample_factor(self, rng: np.random.Generator) -> Array:
        """Draw by Bartlett's decomposition: A = T C^-1 with scatter = CC'.

        T lower triangular, T_ij ~ N(0, 1) below the diagonal, T_ii^2 ~ chi^2(dof - D + 1 + i).
        """
        n, n_features = len(self.scatter), self.n_features
        t = np.tril(rng.standard_normal((n, n_features, n_features)), -1)
        i = np.arange(n_features)
        t[:, i, i] = np.sqrt(2 * _gammas(0.5 * (self.dof[:, None] - n_features + 1 + i), rng))
        return np.tril(t @ self._root)

    @cached_property
    def _log_normalizer_precision(self) -> Array:
        """Log of the integral of |Lambda|^((dof - D - 1)/2) exp(-tr(scatter Lambda)/2), (G,)."""
        d = self.n_features
        return np.asarray(
            0.5 * self.dof * self._log_det_w
            + 0.5 * self.dof * d * np.log(2)
            + 0.25 * d * (d - 1) * np.log(np.pi)
            + gammaln(0.5 * (self.dof[:, None] - np.arange(d))).sum(axis=1)
        )

    def _trace(self, factor: Array, own: bool) -> Array:
        """tr(scatter Lambda), (G,) or (G, G)."""
        if own and not self.scatter.any():  # a flat prior
            return np.zeros(len(self.scatter))
        precision = np.swapaxes(factor, -1, -2) @ factor
        if own:
            return np.einsum("gij,gij->g", self.scatter, precision)
        return np.einsum("gij,hij->gh", self.scatter, precision)


class _NormalPrecision:
    """mu_k | Lambda ~ N(mean_k, (strength_k Lambda)^-1): what is one for every law of Lambda.

    Compiled: see _kernels/conjugate.pxd.

    Parameters
    ----------
    mean : (K, D); strength : (K,); dof : (G,); scatter : (G, ...)
        Contiguous.
    """

    def __init__(self, mean: Array, strength: Array, dof: Array, scatter: Array) -> None:
        self.means = mean
        self.strength = strength
        self.dof = dof
        self.scatter = scatter

    @property
    def n_features(self) -> int:
        """D."""
        return self.means.shape[1]

    @cached_property
    def proper(self) -> bool:
        """Whether the density can be normalised."""
        return _kernels.parameters.proper(self)

    @property
    def exponent(self) -> Array:
        """Power of |Lambda|^(1/2), or of each lambda^(1/2), in the joint density, (G,)."""
        return _kernels.parameters.exponent(self)

    @cached_property
    def total_exponent(self) -> float:
        """Sum of all exponents."""
        return float(self.exponent.sum())

    def mode(self) -> Gaussians:
        """Return the joint mode in (mu, Lambda): Lambda = exponent * scatter^-1.

        An empty component under a flat prior takes the mean 0 and precision 1, those of the whole
        of standardised data. Under a prior of exponent 0 the mode is at Lambda = 0, and a precision
        close to that is returned.

        Raises
        ------
        DegenerateError
            If scatter is not positive definite but for rounding.
        """
        parts, bad = self._long(lambda: _kernels.parameters.mode(self))
        if bad >= 0:
            raise degenerate_error(bad)
        return Gaussians(*parts)

    def mean(self) -> Gaussians:
        """Return E[Lambda], E[log|Lambda|] (Bishop B.81; B.28, B.30), D/(2 strength) (10.64).

        Raises
        ------
        DegenerateError
            If scatter is not positive definite.
        """
        return self._mean

    def sample(self, rng: np.random.Generator) -> Gaussians:
        """Draw precisions (Wishart by Bartlett's decomposition), then means given them."""
        seed = _seed(rng)
        parts, bad = self._long(lambda: _kernels.parameters.sample(self, seed))
        if bad >= 0:
            raise degenerate_error(bad)
        return Gaussians(*parts)

    def _long(self, call: Callable[[], T]) -> T:
        """Factors of matrices: operations that go with the cube of their sides."""
        return interruptible(self.scatter.size**1.5, call)

    @cached_property
    def _mean(self) -> Gaussians:
        parts, bad = self._long(lambda: _kernels.parameters.mean(self))
        if bad >= 0:
            raise degenerate_error(bad)
        return Gaussians(*parts)

    @cached_property
    def log_normalizer(self) -> Array:
        """Log of the integral of the density without its constants, (G,) (B.79; B.39)."""
        values = self._long(lambda: _kernels.parameters.log_normalizer(self))
        if self.proper and not np.isfinite(values).all():
            raise degenerate_error(int(np.flatnonzero(~np.isfinite(values))[0]))
        return values

    @cached_property
    def _log_constant(self) -> float:
        """Log of all of the density's constants, 0 where improper."""
        return -float(self.log_normalizer.sum()) if self.proper else 0.0

    def log_density(self, theta: Gaussians) -> float:
        """log p(mu, Lambda), all components; without its constant where improper."""
        density = self._long(lambda: _kernels.parameters.log_density(self, theta))
        return density + self._log_constant

    def log_density_terms(self, theta: Gaussians) -> tuple[float, Array]:
        """The same with components in any order.

        Returns a number c and a matrix M (K, K): log p = c + sum_k M[sigma(k), k] where component
        sigma(k) plays theta's k.
        """
        return _kernels.parameters.density_terms(self, theta)

    def kl(self, prior: Self) -> float:
        """KL(self || prior) = E[log q] - E[log p] (Bishop 10.74, 10.77)."""
        theta = self.mean()
        value = self._long(lambda: _kernels.parameters.divergence(self, prior, theta))
        return value + float(prior.log_normalizer.sum())


class NormalWishart(_NormalPrecision, _Wishart):
    """mu_k | Lambda ~ N(mean_k, (strength_k Lambda)^-1), Lambda ~ Wishart(W, dof), W^-1 = scatter.

    Bishop B.79 and 10.40. K means on K precision matrices, or (tied) all on one. An improper one,
    of zero strength or scatter, is a flat prior; it has a mode with data added.

    Parameters
    ----------
    mean : (K, D); strength : (K,); dof : (G,); scatter : (G, D, D)
        G = K, or 1 if tied.
    """

    def _predictive(self) -> tuple[Array, Array]:
        """Factor (K, D, D) and degrees of freedom (K,) of x's Student density (10.81-10.82)."""
        dof = np.broadcast_to(self.dof + 1 - self.n_features, self.strength.shape)
        share = self.strength / (1 + self.strength)
        return np.sqrt(dof * share)[:, None, None] * self._root, dof

    def log_predictive(self, x: Array) -> Array:
        """log p(x | component), parameters integrated out, (N, K) for x (N, D).

        Where a row has NaN, that of what it has.
        """
        factors, dof = self._predictive()
        absent_of = np.isnan(x)
        if not absent_of.any():
            return self._log_marginal(x, self.means, factors, dof, self._constant)
        out = np.empty((len(x), len(dof)))
        patterns, which = np.unique(absent_of, axis=0, return_inverse=True)
        for n, absent in enumerate(patterns):
            rows = which == n
            # Of a precision A'A the marginal one is R'R, of the last rows of A = QR with what is
            # missing first.
            of_seen = factors
            if absent.any():
                order = np.argsort(~absent, kind="stable")
                first = np.count_nonzero(absent)
                of_seen = np.asarray(np.linalg.qr(factors[:, :, order]).R)[:, first:, first:]
            seen = self.means[:, ~absent]
            constant = self._constant_of(of_seen, dof)
            out[rows] = self._log_marginal(x[rows][:, ~absent], seen, of_seen, dof, constant)
        return out

    @staticmethod
    def _constant_of(factors: Array, dof: Array) -> Array:
        """Of factors (K, S, S), (K,)."""
        pivots = np.abs(np.diagonal(factors, axis1=1, axis2=2))
        return _student_constant(dof, factors.shape[1], 2 * np.log(pivots).sum(axis=1))

    @cached_property
    def _constant(self) -> Array:
        """The same of all features."""
        return self._constant_of(*self._predictive())

    @staticmethod
    def _log_marginal(x: Array, means: Array, factors: Array, dof: Array, constant: Array) -> Array:
        """Log density (N, K) of some features' values, about means (K, S), factors (K, S, S)."""
        gaps = np.empty((len(x), len(dof)))
        for k, factor in enumerate(factors):
            gaps[:, k] = (((x - means[k]) @ factor.T) ** 2).sum(axis=1)
        return _log_student(gaps, dof, x.shape[1], constant)

    def sample_rows(self, components: NDArray[np.int64], rng: np.random.Generator) -> Array:
        """Draw a row from each of `components`, parameters integrated out, (N, D)."""
        factors, dof = self._predictive()
        z = rng.standard_normal((len(components), self.n_features))
        shape = 0.5 * dof[components]
        z /= np.sqrt(_gammas(shape, rng) / shape)[:, None]
        return self.means[components] + _solve_lower(factors[components], z)


class NormalGamma(_NormalPrecision):
    """mu ~ N(mean, 1/(strength lambda)), lambda ~ Gamma(dof/2, rate scatter/2).

    Bishop B.39 with a = dof/2, b = scatter/2, each feature apart (diagonal precision), or all
    features of a component on one lambda (spherical).

    Parameters
    ----------
    mean : (K, D); strength : (K,); dof : (K,); scatter : (K, D), or (K, 1) if spherical
    """

    def log_predictive(self, x: Array) -> Array:
        """log p(x | component), parameters integrated out, (N, K) for x (N, D).

        Student's t, one for all features of a spherical component, one for each of a diagonal.
        """
        n = self.n_features // self.scatter.shape[1]  # that share a lambda
        factors, constants = self._predictive
        out = np.empty((len(x), len(factors)))
        for k, (factor, constant) in enumerate(zip(factors, constants, strict=True)):
            squared = ((x - self.means[k]) * factor) ** 2
            if n > 1:
                squared = squared.sum(axis=1, keepdims=True)
            out[:, k] = _log_student(squared, self.dof[k], n, constant).sum(axis=1)
        return out

    @cached_property
    def _predictive(self) -> tuple[Array, Array]:
        """Factors (K, G) and constants (K, G) of x's Student densities."""
        n = self.n_features // self.scatter.shape[1]
        share = self.strength / (1 + self.strength)
        factors = np.sqrt((self.dof * share)[:, None] / self.scatter)
        constants = _student_constant(self.dof[:, None], n, 2 * n * np.log(factors))
        return factors, constants

    def sample_rows(self, components: NDArray[np.int64], rng: np.random.Generator) -> Array:
        """Draw a row from each of `components`, parameters integrated out, (N, D)."""
        scatter = self.scatter[components]
        shape = np.broadcast_to(0.5 * self.dof[components, None], scatter.shape)
        precision = _gammas(shape, rng) / (0.5 * scatter)
        spread = np.sqrt((1 + 1 / self.strength[components, None]) / precision)
        z = rng.standard_normal((len(components), self.n_features))
        return np.asarray(self.means[components] + z * spread)


def _reach(a: Array) -> tuple[Array, Array]:
    """How far below and above its mode log lambda's density falls by exp(-40), for Gamma(a)."""
    return 40 / a + 9 / np.sqrt(a), np.log1p(40 / a) + 9 / np.sqrt(a)


class IndependentNormalGamma:
    """mu ~ N(center, 1/pull) and lambda ~ Gamma(dof/2, rate scatter/2), independent a priori.

    The prior of Diebolt & Robert (1994) and Richardson & Green (1997). With rows added, of weight
    `strength` about `mean`, the density is

    lambda^(dof/2 - 1) exp(-lambda (scatter + strength (mean - mu)^2)/2 - pull (mu - center)^2/2),

    no longer of a standard form, but mode, mean field q(mu) q(lambda), exact draws and
    normalisers are all to be had from one precision at a time. Each feature apart (diagonal), or
    all P = D features of a component on one lambda (spherical).

    Parameters
    ----------
    mean : (K, D); strength : (K,); dof : (K,); scatter : (K, D), or (K, 1) if spherical
    center, pull : (D,)
    """

    # Steps at most to the precision of a mode or mean: of bisection, in logarithms, some 60 do.
    STEPS = 200
    # Points of the grid that a solution is looked for on where pulls differ.
    POINTS = 4113

    def __init__(
        self,
        mean: Array,
        strength: Array,
        dof: Array,
        scatter: Array,
        center: Array,
        pull: Array,
    ) -> None:
        self.rows_mean = mean
        self.strength = strength[:, None]
        self.dof = dof[:, None]
        self.scatter = scatter
        self.center = center
        self.pull = pull
        self.n_features = mean.shape[1]
        self.means_per_precision = self.n_features // scatter.shape[1]

    @cached_property
    def proper(self) -> bool:
        """Whether the density can be normalised."""
        return bool(np.all(self.dof > 0) and np.all(self.scatter > 0))

    @property
    def exponent(self) -> Array:
        """Power of lambda^(1/2) in the joint density, (K,)."""
        return (self.dof - 2)[:, 0]

    @cached_property
    def total_exponent(self) -> float:
        """Sum of all exponents."""
        return float(self.exponent.sum())

    def _pooled(self, each: Array) -> Array:
        """Sum over the features that share a precision."""
        return each.sum(axis=-1, keepdims=True) if self.means_per_precision > 1 else each

    def _log_det(self, log_precision: Array) -> Array:
        return np.asarray(self.means_per_precision * log_precision.sum(axis=1))

    def _given_precision(self, precision: Array) -> tuple[Array, Array]:
        """Mean and variance (K, D) of mu given (expected) lambda, (K, D) or (K, 1)."""
        weight = self.strength * precision
        variance = 1 / (self.pull + weight)
        return variance * (self.pull * self.center + weight * self.rows_mean), variance

    def _solutions(self, power: Array, uncertain: float) -> tuple[Array, Array, Array, Array]:
        """Smallest and largest lambda = power / (scatter + strength (gap^2 + uncertain variance)).

        What this equation makes large may have two maxima: mu near `center` and lambda small, or mu
        near the rows and lambda large. It says that power = lambda (...), whose right hand side
        rises, but for a stretch in which it may fall.

        Returns
        -------
        low, high : (K, G)
        power, own : (K, G)
            As used: an empty component under a flat prior has precision 1.
        """
        flat = (power < EMPTY) & (self.scatter == 0)
        power = np.where(flat, 1.0, np.where(power < EMPTY, VANISHING, power))
        own = np.where(flat, 1.0, self.scatter)
        apart = self.strength * self._pooled((self.rows_mean - self.center) ** 2 + 1 / self.pull)
        # So that no precision is infinite, nor its product with the rows.
        floor = SMALLEST * np.maximum(1.0, power) * np.maximum(1.0, self.strength)
        least = power / np.maximum(own + apart, floor)
        most = np.maximum(power / np.maximum(own, floor), least)
        knots = np.clip(self._knots(least, most, own, uncertain), least, most)
        knots = np.concatenate([least[None], knots, most[None]])
        rising = self._pull_back(knots, own, uncertain)[0] > power
        # The first stretch, and the last one, that ends above and begins below. Rounding may say of
        # either end of all that it lies on the wrong side.
        rising[0], rising[-1] = False, True
        crossed = rising[1:] & ~rising[:-1]
        n = len(crossed) - 1
        found = []
        for at in (crossed.argmax(axis=0), n - crossed[::-1].argmax(axis=0)):
            begin, end = (np.take_along_axis(knots, (at + i)[None], 0)[0] for i in (0, 1))
            found.append(self._crossing(begin, end, power, own, uncertain))
        return found[0], found[1], power, own

    def _pull_back(self, precision: Array, own: Array, uncertain: float) -> tuple[Array, Array]:
        """Lambda (scatter + strength (gap^2 + uncertain variance)), and its slope in log lambda."""
        weight = self.strength * precision
        share = self.pull / (self.pull + weight)
        gap = weight * (share * (self.rows_mean - self.center)) ** 2
        loose = uncertain * (1 - share)
        value = precision * own + self._pooled(gap + loose)
        slope = precision * own + self._pooled(gap * (2 * share - 1) + loose * share)
        return value, slope

    def _knots(self, least: Array, most: Array, own: Array, uncertain: float) -> Array:
        """Precisions (n, K, G) between which `_pull_back` only rises or only falls.

        Where all features of a precision have one pull, its slope is 0 where y = pull + strength
        lambda solves own y^3 + strength pull (uncertain P - pull G) y + 2 strength pull^3 G = 0, G
        the sum of (mean - center)^2: for two y > 0 or none. Else a fine grid.
        """
        n = self.means_per_precision
        if n > 1 and np.any(self.pull != self.pull[0]):
            step = np.linspace(0, 1, self.POINTS)[1:-1, None, None]
            return np.asarray(least * (most / least) ** step)
        pull = self.pull[:1] if n > 1 else self.pull
        apart = self._pooled((self.rows_mean - self.center) ** 2)
        with np.errstate(all="ignore"):
            each = self.strength / np.maximum(own, self.strength * SMALLEST)
            p = each * pull * (uncertain * n - pull * apart)
            q = 2 * each * pull**3 * apart
            # The largest root in its trigonometric form, the other one from the roots' product.
            far = 2 * np.sqrt(-p / 3) * np.cos(np.arccos(1.5 * q / p * np.sqrt(-3 / p)) / 3)
            near = 2 * q / far / (far + np.sqrt(far**2 + 4 * q / far))
            knots = (np.array([near, far]) - pull) / self.strength
        return np.where(np.isfinite(knots).all(axis=0), knots, least)

    def _crossing(
        self, begin: Array, end: Array, power: Array, own: Array, uncertain: float
    ) -> Array:
        """Precision in each bracket where `_pull_back` reaches `power`: Newton's steps, held in."""
        precision = np.sqrt(begin) * np.sqrt(end)
        for _ in range(self.STEPS):
            value, slope = self._pull_back(precision, own, uncertain)
            above = value > power
            begin, end = np.where(above, begin, precision), np.where(above, precision, end)
            with np.errstate(all="ignore"):
                step = precision * np.exp(np.log(power / value) * value / slope)
            inside = (step >= begin) & (step <= end)
            step = np.where(inside, step, np.sqrt(begin) * np.sqrt(end))
            done = np.abs(step - precision) <= 1e-15 * precision
            precision = step
            if done.all():
                break
        return precision

    def _fixed_point(self, power: Array, uncertain: float) -> tuple[Array, Array, Array]:
        """Mean and variance of mu, and lambda, at the better of the two solutions."""
        low, high, power, own = self._solutions(power, uncertain)
        better = self._height(high, power, own, uncertain) > self._height(
            low, power, own, uncertain
        )
        precision = np.where(better, high, low)
        degenerate = ~np.all(precision < 1 / SMALLEST_VARIANCE, axis=1)
        if degenerate.any():
            raise degenerate_error(int(np.flatnonzero(degenerate)[0]))
        means, variance = self._given_precision(precision)
        return means, variance, precision

    def _height(self, precision: Array, power: Array, own: Array, uncertain: float) -> Array:
        """What `_fixed_point` makes large, (K, G): the log density, or mean field's free energy."""
        means, variance = self._given_precision(precision)
        pulled = (means - self.center) ** 2 + uncertain * variance
        each = uncertain * np.log(variance) - self.pull * pulled
        # Not from mean - mu, of which rounding leaves nothing where lambda is large.
        spread = self._pull_back(precision, own, uncertain)[0]
        return np.asarray(0.5 * (power * np.log(precision) - spread + self._pooled(each)))

    def mode(self) -> Gaussians:
        """Return the joint mode in (mu, lambda)."""
        means, _, precision = self._fixed_point(self.dof - 2, 0.0)
        return point(means, np.sqrt(precision))

    def mean(self) -> Gaussians:
        """Expectations under the best q(mu) q(lambda) (Bishop 10.24-10.31)."""
        means, variance, precision = self._fixed_point(self.dof, 1.0)
        log_precision = digamma(0.5 * self.dof) - np.log(0.5 * self.dof) + np.log(precision)
        slack = 0.5 * (precision * self._pooled(variance)).sum(axis=1)
        return Gaussians(means, np.sqrt(precision), self._log_det(log_precision), slack)

    def kl(self, prior: IndependentNormalGamma) -> float:
        """KL(q(mu) q(lambda) || prior), the prior having no rows."""
        means, variance, precision = self._fixed_point(self.dof, 1.0)
        normal = 0.5 * (
            self.pull * (variance + (means - self.center) ** 2) - 1 - np.log(self.pull * variance)
        )
        a, b = 0.5 * self.dof, 0.5 * self.dof / precision
        a0, b0 = 0.5 * prior.dof, 0.5 * prior.scatter
        gamma = (
            (a - a0) * digamma(a) - gammaln(a) + gammaln(a0)
            + a0 * (np.log(b) - np.log(b0)) + a * (b0 - b) / b
        )  # fmt: skip
        return float(normal.sum() + gamma.sum())

    def _log_marginal(self, precision: Array) -> Array:
        """Log density of lambda, mu integrated out, without its constant.

        precision (..., K, G) gives the same shape.
        """
        weight = self.strength * precision
        share = np.log(self.pull / (self.pull + weight))
        gap = self.pull * weight / (self.pull + weight) * (self.rows_mean - self.center) ** 2
        more = 0.5 * (share - gap)
        if self.means_per_precision > 1:
            more = more.sum(axis=-1, keepdims=True)
        return np.asarray(
            (0.5 * self.dof - 1) * np.log(precision) - 0.5 * self.scatter * precision + more
        )

    def _over_precisions(self, seed: int | None) -> Array:
        """Lambda drawn from its marginal density, or log of the integral of that, (K, G)."""
        out = np.empty(self.scatter.shape)
        bad = _kernels.precisions.of_independent_means(
            np.ascontiguousarray(self.dof[:, 0]),
            np.ascontiguousarray(self.strength[:, 0]),
            np.ascontiguousarray(self.scatter),
            self.rows_mean - self.center,
            self.pull,
            seed,
            out,
        )
        if bad >= 0:
            raise degenerate_error(bad)
        return out

    def sample(self, rng: np.random.Generator) -> Gaussians:
        """Draw lambda from its marginal density, then mu given lambda."""
        precision = self._over_precisions(int(rng.integers(2**63)))
        means, variance = self._given_precision(precision)
        z = rng.standard_normal(means.shape)
        return point(means + z * np.sqrt(variance), np.sqrt(precision))

    def log_density(self, theta: Gaussians) -> float:
        """log p(mu, lambda) of the prior, all components; without constants where improper."""
        precision = theta.factor**2
        normal = np.log(self.pull / (2 * np.pi)) - self.pull * (theta.means - self.center) ** 2
        gamma = (0.5 * self.dof - 1) * np.log(precision) - 0.5 * self.scatter * precision
        if self.proper:
            gamma = gamma + 0.5 * self.dof * np.log(0.5 * self.scatter) - gammaln(0.5 * self.dof)
        return float(0.5 * normal.sum() + gamma.sum())

    def log_density_terms(self, theta: Gaussians) -> tuple[float, Array]:
        """The same with components in any order.

        Returns a number c and a matrix M (K, K): log p = c + sum_k M[sigma(k), k] where component
        sigma(k) plays theta's k.
        """
        integral = self._over_precisions(None)
        out = np.empty((len(self.rows_mean),) * 2)
        for k, (mean, factor) in enumerate(zip(theta.means, theta.factor, strict=True)):
            precision = np.broadcast_to(factor**2, self.scatter.shape)
            marginal = (self._log_marginal(precision) - integral).sum(axis=1)
            means, variance = self._given_precision(precision)
            normal = -0.5 * (np.log(2 * np.pi * variance) + (mean - means) ** 2 / variance)
            out[:, k] = marginal + normal.sum(axis=1)
        return 0.0, out

    def log_predictive(self, x: Array) -> Array:
        """log of E[N(x | mu, 1/lambda)] under q(mu) q(lambda), (N, K) for x (N, D).

        Over lambda by the trapezoidal rule in log lambda, 65 points.
        """
        means, variance, precision = self._fixed_point(self.dof, 1.0)
        a = 0.5 * np.broadcast_to(self.dof, precision.shape)
        t = np.linspace(0, 1, 65)[:, None, None]
        left, right = _reach(a)
        u = -left + (left + right) * t
        # Gamma(a, rate a) of lambda / E[lambda], its normaliser by the same rule.
        weight = -a * beyond_linear(u)
        weight -= np.log(np.exp(weight - weight.max(axis=0)).sum(axis=0)) + weight.max(axis=0)
        spread = 1 / (precision * np.exp(u)) + variance
        out = np.empty((len(x), len(means)))
        for k in range(len(means)):
            gap = (x[:, None, :] - means[k]) ** 2
            normal = -0.5 * (np.log(2 * np.pi * spread[:, k]) + gap / spread[:, k])
            if self.means_per_precision > 1:
                normal = normal.sum(axis=2, keepdims=True)
            out[:, k] = np.logaddexp.reduce(weight[:, k] + normal, axis=1).sum(axis=1)
        return out

    def sample_rows(self, components: NDArray[np.int64], rng: np.random.Generator) -> Array:
        """Draw a row from each of `components` under q(mu) q(lambda), (N, D)."""
        means, variance, precision = self._fixed_point(self.dof, 1.0)
        each = precision[components]
        shape = np.broadcast_to(0.5 * self.dof[components], each.shape)
        each = each * _gammas(shape, rng) / shape
        z = rng.standard_normal((len(components), self.n_features))
        return np.asarray(means[components] + z * np.sqrt(1 / each + variance[components]))


@dataclass(frozen=True)
class Regression:
    """x | z ~ N(W'z, Lambda^-1), or what mean field makes of it.

    Attributes
    ----------
    means : (P, D)
        W, or its expectation.
    factor : (D, D)
        A with A'A = Lambda, or its expectation.
    log_det : float
        log|Lambda|, or its expectation.
    slack : (P, R)
        U, by which the uncertainty of W takes |U'z|^2/2 from each score: E[(x-W'z)'Lambda(x-W'z)]
        is |A(x - means'z)|^2 + |U'z|^2; of no columns for a point.
    """

    means: Array
    factor: Array
    log_det: float
    slack: Array

    @property
    def rounding(self) -> float:
        """Nats a row that rounding may take from an objective here.

        What is left of sums of squares errs by some 2 D eps of what they were, 1 a row: so by a
        share e of a feature's variance given all others, which brings e^2 / 4 nats too little; of
        expectations, which a divergence compares, e.
        """
        d = len(self.factor)
        e = 2 * d * np.finfo(float).eps * float(np.square(self.factor).sum(axis=0).max())
        return e if self.slack.shape[1] else e * e

    @property
    def arrays(self) -> dict[str, Array]:
        """What draws are kept as."""
        return {"means": self.means, "factor": self.factor}


def regression(means: Array, factor: Array) -> Regression:
    """Return the regression of these coefficients (P, D) and precision factor (D, D)."""
    log_det = 2 * float(np.log(np.diagonal(factor)).sum())
    return Regression(means, factor, log_det, np.empty((len(means), 0)))


class MatrixNormalWishart(_Wishart):
    """W | Lambda ~ N(mean, precision^-1 x Lambda^-1), Lambda ~ Wishart(scatter^-1, dof).

    The conjugate prior of a regression of D features on P variables (Minka 2000, Bayesian linear
    regression; Wishart densities: Bishop B.78): the columns of W have covariances in proportion to
    Lambda^-1, its rows in proportion to precision^-1. Lambda is one matrix, or diagonal, with D
    Wishart (gamma) densities of one feature each. An improper one, of zero precision or scatter, is
    a flat prior; it has a mode with data added.

    Parameters
    ----------
    mean : (P, D); precision : (P, P); dof : float; scatter : (1, D, D), or (D, 1, 1) if diagonal
    """

    def __init__(self, mean: Array, precision: Array, dof: float, scatter: Array) -> None:
        super().__init__(np.full(len(scatter), dof), scatter)
        self.means = mean
        self.precision = precision

    @cached_property
    def proper(self) -> bool:
        """Whether the density can be normalised."""
        return bool(
            np.all(np.diagonal(self.precision) > 0)
            and np.all(self.dof > self.n_features - 1)
            and np.all(np.diagonal(self.scatter, axis1=1, axis2=2) > 0)
        )

    @property
    def exponent(self) -> float:
        """Power of |Lambda|^(1/2) in the joint density."""
        return float(self.dof[0] - self.n_features - 1 + len(self.means))

    @staticmethod
    def _joined(factors: Array) -> Array:
        """Factors (G, E, E) of blocks as one of all features, (D, D)."""
        return factors[0] if len(factors) == 1 else np.diag(factors[:, 0, 0])

    def _degenerate_error(self, block: int) -> DegenerateError:
        """Tell which feature has no noise left."""
        scatter = self.scatter[block]
        scale = np.sqrt(np.maximum(np.diagonal(scatter), SMALLEST))
        # A feature without any scatter is the one; else that which most depends on the others.
        if len(self.scatter) > 1:
            feature = block
        elif scale.min() < 1e-6 * scale.max():
            feature = int(np.argmin(scale))
        else:
            least = np.linalg.eigh(scatter / np.outer(scale, scale))[1][:, 0]
            feature = int(np.argmax(np.abs(least)))
        return DegenerateError(
            f"feature {feature} of X is left without noise by the chains' states (and the other "
            "features): the likelihood is unbounded there. Use fewer chains or components, a "
            "larger reg_covar or a prior"
        )

    def mode(self) -> Regression:
        """Return the joint mode in (W, Lambda): Lambda = exponent * scatter^-1.

        Raises
        ------
        DegenerateError
            Where a feature's variance in the mode, given all others, is no more than rounding, in
            units in which that of the data is 1.
        """
        scale = np.full(len(self.scatter), max(self.exponent, VANISHING))
        factor = _factor(self.scatter, scale, SMALLEST_REST, self._degenerate_error)
        # Pivots are variances given the features before.
        if np.square(factor).sum(axis=1).max() > 1 / SMALLEST_REST:
            raise self._degenerate_error(0)
        return regression(self.means, self._joined(factor))

    @cached_property
    def _precision_root(self) -> Array:
        """L with LL' = precision."""
        try:
            root = interruptible(self._cube, lambda: np.linalg.cholesky(self.precision))
        except np.linalg.LinAlgError:
            raise lost_precision_error() from None
        return np.asarray(root, dtype=np.float64)

    @property
    def _cube(self) -> int:
        return len(self.means) ** 3

    @property
    def _log_det_precision(self) -> float:
        return 2 * float(np.log(np.diagonal(self._precision_root)).sum())

    def mean(self) -> Regression:
        """E[W], E[Lambda] = dof W, E[log|Lambda|], and U = sqrt(D) L^-T.

        E[(W - mean) Lambda (W - mean)'] = D precision^-1.
        """
        root = self._precision_root
        inverse = interruptible(self._cube, lambda: np.linalg.inv(root))
        slack = np.sqrt(self.means.shape[1]) * inverse.T
        factor = self._joined(self._mean_factor)
        return Regression(self.means, factor, float(self._mean_log_det.sum()), slack)

    def sample(self, rng: np.random.Generator) -> Regression:
        """Draw Lambda, then W = mean + L^-T Z A^-T given Lambda, Z ~ N(0, 1)."""
        factor = self._joined(self._sample_factor(rng))
        root, noise = self._precision_root.T, rng.standard_normal(self.means.shape)
        z = interruptible(self._cube, lambda: np.linalg.solve(root, noise))
        return regression(self.means + np.linalg.solve(factor, z.T).T, factor)

    def _square(self, theta: Regression) -> float:
        """tr((W - mean)' precision (W - mean) Lambda)."""
        difference = (theta.means - self.means) @ theta.factor.T
        return float((difference * (self.precision @ difference)).sum())

    def _trace_joined(self, factor: Array) -> float:
        """tr(scatter Lambda)."""
        if len(self.scatter) == 1:
            return float(self._trace(factor[None], True)[0])
        return float(self.scatter[:, 0, 0] @ np.diagonal(factor) ** 2)

    @cached_property
    def log_normalizer(self) -> float:
        """Log of the integral of the density without its constants."""
        p, d = self.means.shape
        normal = 0.5 * d * (p * np.log(2 * np.pi) - self._log_det_precision)
        return float(normal + self._log_normalizer_precision.sum())

    def log_density(self, theta: Regression) -> float:
        """log p(W, Lambda); without its constant where improper."""
        value = 0.5 * (
            self.exponent * theta.log_det - self._trace_joined(theta.factor) - self._square(theta)
        )
        return value - (self.log_normalizer if self.proper else 0.0)

    def log_density_terms(self, theta: Regression) -> tuple[float, Array]:
        """log p(W, Lambda), of one order alone: see `Model.log_density_terms`."""
        return self.log_density(theta), np.zeros((1, 1))

    def kl(self, prior: MatrixNormalWishart) -> float:
        """KL(self || prior): that of the Wishart densities, and E of that of W given Lambda.

        The latter is (D tr(P0 P^-1) - D P + D log|P|/|P0| + tr((M - M0)' P0 (M - M0) E[Lambda]))/2.
        """
        e = self.mean()
        d = self.means.shape[1]
        wishart = (
            0.5 * (self.dof - prior.dof)[0] * e.log_det
            - 0.5 * (self._trace_joined(e.factor) - prior._trace_joined(e.factor))
            - self._log_normalizer_precision.sum()
            + prior._log_normalizer_precision.sum()
        )
        ratio = (e.slack * (prior.precision @ e.slack)).sum()
        normal = ratio - self.means.size + prior._square(e)
        normal += d * (self._log_det_precision - prior._log_det_precision)
        return float(wishart + 0.5 * normal)

"""Gaussian rows whose mean is a sum, one summand a chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._interrupts import interruptible
from ..conjugate import (
    MatrixNormalWishart,
    Regression,
    definite_solution,
    least_norm_solution,
    precision_factors,
    regression,
)
from ..data import Frame, check_size
from ..stats import Moments, Stats
from .gaussian import InFrame

__all__ = ["AdditiveCovariance", "AdditiveGaussian"]

Array = NDArray[np.float64]
AdditiveCovariance = Literal["full", "diag"]


@dataclass(frozen=True, eq=False)
class AdditiveGaussian(InFrame):
    """x | s ~ N(sum_m W_m[s^m], C), with a matrix-normal-Wishart prior on (W, C^-1).

    For `CoupledChains`: Ghahramani & Jordan (1997), 4. This is the regression of x on the M K
    indicators z of the chains' states. What is not given of the prior is flat, so that with none
    given a mode is the maximum of the likelihood. Everything is given in the units of the data; the
    computation runs in those of `frame`.

    Parameters
    ----------
    n_features, n_chains, n_components : int
    covariance_type : {"full", "diag"}
    mean_prior : array-like of shape (D,), optional
        Prior mean of every sum of W_m; of the data's frame where not given.
    mean_precision : float, optional
        kappa_0: W_m[k] ~ N(mean_prior / M, C / kappa_0).
    degrees_of_freedom : float, optional
        nu_0. "diag": 1/C_dd ~ Gamma(nu_0/2, rate scatter_d/2).
    scatter : array-like, optional
        Of the Wishart prior of C^-1: (D, D), or (D,) for "diag".
    reg_covar : float
        Each row is taken for a cloud of this variance, in units of the features' variances.
    frame : Frame
        Units of the data that the kernels see.

    Notes
    -----
    A constant may be moved from one chain's means to another's: M - 1 vectors of D numbers are not
    identified. Of the W that make the likelihood largest the one of least norm in the frame's units
    is taken, in which all chains' means have the same average over their states; with a prior the
    mode and the mean are of that kind of themselves. A state that holds no row counts for nothing
    in the sums, and has the mean that `mean_prior` / M is in the frame's units.
    """

    n_features: int
    n_chains: int
    n_components: int
    covariance_type: AdditiveCovariance = "full"
    mean_prior: ArrayLike | None = None
    mean_precision: float | None = None
    degrees_of_freedom: float | None = None
    scatter: ArrayLike | None = None
    reg_covar: float = 0.0
    frame: Frame | None = None

    #: Name by which kernels are told of it: that of coupled chains knows it alone.
    kernel: ClassVar[str] = "additive"
    #: Its statistics add up as they are.
    moments: ClassVar[tuple[Moments, ...]] = ()
    #: What makes the prior proper.
    proper_with: ClassVar[str] = "mean_precision, degrees_of_freedom and scatter"

    def __post_init__(self) -> None:
        for name in ("n_chains", "n_components"):
            object.__setattr__(self, name, check_size(name, getattr(self, name)))
        self._check_parameters(get_args(AdditiveCovariance))

    @property
    def n_indicators(self) -> int:
        """P = M K."""
        return self.n_chains * self.n_components

    @cached_property
    def _origins(self) -> Array:
        """A summand of the frame's origin for each chain, (M, D): their sum is it to the last bit.

        In a column that is all but constant the last bit may be many standard deviations.
        """
        each = np.tile(self.units.origin / self.n_chains, (self.n_chains, 1))
        each[-1] = self.units.origin - sum(each[:-1])
        return each

    def single_resolves(self, theta: Regression) -> bool:
        """Whether float32 numbers will do: kernels are for float64 numbers alone."""
        return False

    def fields(self, n_components: int) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Names and shapes of this emission's statistics: n, sums of zz', zx', xx'."""
        p, d = self.n_indicators, self.n_features
        square = (1, d, d) if self.covariance_type == "full" else (d, 1, 1)
        return (("dof", ()), ("gram", (p, p)), ("cross", (p, d)), ("square", square))

    def prior(self, n_components: int) -> dict[str, ArrayLike]:
        """Hyperparameters, in the units of the frame."""
        units, p, d = self.units, self.n_indicators, self.n_features
        size = d if self.covariance_type == "full" else 1
        dof = self.degrees_of_freedom
        if dof is None:
            dof = float(size + 1 - p)  # exponent 0
        precision = self.mean_precision or 0.0
        mean = np.zeros(d)
        if self.mean_prior is not None:
            mean = (np.asarray(self.mean_prior) - units.origin) * units.scale / self.n_chains
        square = precision * p * np.outer(mean, mean)
        if self.scatter is not None:
            scatter = np.asarray(self.scatter, dtype=float)
            scatter = np.diag(scatter) if scatter.ndim == 1 else scatter
            square = square + scatter * np.outer(units.scale, units.scale)
        return {
            "dof": dof,
            "gram": precision * np.eye(p),
            "cross": precision * mean,
            "square": self._blocks(square),
        }

    def _blocks(self, square: Array) -> Array:
        """What of (D, D) sums of squares goes into the covariance, (1, D, D) or (D, 1, 1)."""
        if self.covariance_type == "full":
            return square[None]
        return np.diagonal(square).copy()[:, None, None]

    def distribution(self, stats: Stats | Mapping[str, Array]) -> MatrixNormalWishart:
        """Statistics read as a distribution over (W, C^-1): Minka (2000)."""
        gram, cross = np.array(stats["gram"]), np.array(stats["cross"])
        # Indicators are collinear, each chain's sum to 1: the solution of least norm.
        flat = self.mean_precision is None
        solve = least_norm_solution if flat else definite_solution
        means = interruptible(len(gram) ** 3, lambda: solve(gram, cross))
        product = means.T @ cross
        # In this form an error of the means counts squared.
        fitted = product + product.T - means.T @ gram @ means
        scatter = stats["square"] - self._blocks(0.5 * (fitted + fitted.T))
        return MatrixNormalWishart(means, gram, float(stats["dof"]), scatter)

    def collect(self, raw: Array, n_rows: int, reference: Array) -> dict[str, ArrayLike]:
        """Statistics of a kernel: gram, cross, the lower triangle of square."""
        p, d = self.n_indicators, self.n_features
        gram, cross, square = raw[: p * p], raw[p * p : p * (p + d)], raw[p * (p + d) :]
        lower = np.tril(square.reshape(d, d))
        square = lower + np.tril(lower, -1).T
        square += n_rows * self.reg_covar * np.diag(self.units.variance)
        return {
            "dof": n_rows,
            "gram": gram.reshape(p, p),
            "cross": cross.reshape(p, d),
            "square": self._blocks(square),
        }

    def around(
        self, parameters: tuple[Array, Array], counts: tuple[int, int]
    ) -> dict[str, ArrayLike]:
        """Statistics of rows with these means (P, D) and covariance (D, D), all states alike.

        Parameters
        ----------
        parameters : tuple of ndarray
            Means and covariance, in the units of the frame.
        counts : tuple of int
            Sequences, and rows.
        """
        means, covariance = parameters
        _, n_rows = counts
        m, k = self.n_chains, self.n_components
        gram = np.full((m * k, m * k), n_rows / k**2)
        for chain in range(m):
            of_chain = slice(chain * k, (chain + 1) * k)
            gram[of_chain, of_chain] = 0.0
        np.fill_diagonal(gram, n_rows / k)
        square = means.T @ gram @ means + n_rows * covariance
        return {
            "dof": n_rows,
            "gram": gram,
            "cross": gram @ means,
            "square": self._blocks(square),
        }

    def reference(self, theta: Regression) -> Array:
        """What the kernel takes moments about: nothing but the origin."""
        return np.empty(0)

    def coefficients(self, theta: Regression, reference: Array) -> Array:
        """Pack what the kernel reads of theta: A, and means (P, R).

        Means are those of A x, with what their uncertainty adds in dimensions of its own.
        """
        whitened = np.hstack([theta.means @ theta.factor.T, theta.slack])
        return np.concatenate([theta.factor.ravel(), whitened.ravel()])

    def offsets(self, theta: Regression) -> Array:
        """Score at distance zero, in the units of the data, (1,)."""
        trace = (theta.factor**2 * self.units.variance).sum()
        constant = -0.5 * self.n_features * np.log(2 * np.pi) + self._log_scale
        return np.array([constant + 0.5 * theta.log_det - 0.5 * self.reg_covar * trace])

    def log_volume(self, n_components: int) -> float:
        """Turn a density of (W, C^-1) in the frame's units into one in the data's, by adding.

        dW scales by prod s^P, d C^-1 by prod s^-(D+1) (full), s^-2 each (diag).
        """
        power = self.n_features + 1 if self.covariance_type == "full" else 2
        return (self.n_indicators - power) * self._log_scale

    def log_prior(self, prior: MatrixNormalWishart, theta: Regression) -> float:
        """log p(W, C^-1) at theta, in the units of the data; 0 for a flat prior."""
        value = prior.log_density(theta)
        if prior.proper:
            return value + self.log_volume(self.n_components)
        # Improper: the density without its constant, of precisions in the units of the data.
        return value + prior.exponent * self._log_scale

    def mean_point(self, posterior: Stats) -> Regression:
        """E[W] and E[C^-1] under a posterior, as if they were known."""
        mean = self.distribution(posterior).mean()
        return regression(mean.means, mean.factor)

    def mean_of_draws(self, means: Array, factors: Array) -> Regression:
        """E[W] and E[C^-1] over draws, arrays with these first."""
        precision = np.einsum("gji,gjk->ik", factors, factors) / len(factors)
        factor = precision_factors(np.linalg.inv(precision)[None])[0]
        return regression(means.mean(axis=0), factor)

    def sample_rows(
        self, theta: Regression, states: NDArray[np.int64], rng: np.random.Generator
    ) -> Array:
        """Draw a row from the chains' states each, (N, M), in the units of the data, (N, D)."""
        first = np.arange(self.n_chains) * self.n_components
        means = theta.means[first + states].sum(axis=1)
        z = rng.standard_normal(means.shape)
        rows = means + np.linalg.solve(theta.factor, z.T).T
        return np.asarray(self.units.origin + rows / self.units.scale)

    def in_data_units(self, means: Array, factor: Array) -> tuple[Array, Array]:
        """Means (..., M, K, D), of sums that are rows, and covariance (..., D, D)."""
        units = self.units
        shape = (*means.shape[:-2], self.n_chains, self.n_components, self.n_features)
        root = np.linalg.inv(factor * units.scale)
        raw = self._origins[:, None] + means.reshape(shape) / units.scale
        return raw, np.asarray(root @ np.swapaxes(root, -1, -2), dtype=np.float64)

    def in_frame(self, means: Array, covariance: Array) -> tuple[Array, Array]:
        """Means (P, D) and covariance (D, D) of those in the units of the data."""
        units = self.units
        scaled = (means - self._origins[:, None]) * units.scale
        return scaled.reshape(-1, self.n_features), covariance * np.outer(units.scale, units.scale)

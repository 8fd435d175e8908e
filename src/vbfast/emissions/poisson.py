"""Poisson emissions: counts, features independent given the component."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from .. import _kernels
from ..conjugate import TINY, Gamma, Rates
from ..stats import Stats
from .discrete import Discrete, as_hyperparameter

__all__ = ["Poisson"]

Array = NDArray[np.float64]

# Whole numbers up to which float64 has them all.
MOST = 2**53
# Counts below this have log x! looked up.
TABULATED = 2**16


@dataclass(frozen=True)
class Poisson(Discrete):
    """x_d | t = k ~ Poisson(lambda_kd), with lambda_kd ~ Gamma(shape, rate).

    With no prior given it is flat in the rates, and a mode is the maximum of the likelihood.

    Parameters
    ----------
    n_features : int
    shape, rate : float or array-like of shape (D,), optional
        Of the gamma prior, of mean shape / rate: both or neither. A mode needs shape >= 1.

    Raises
    ------
    TypeError, ValueError
        If one is given without the other, or either is not > 0 or has another shape.

    Notes
    -----
    Conjugate update: shape + sum of counts, rate + rows (Gelman et al. 2013, section 2.6). A
    component without rows has, under a flat prior, the mean rates of all rows. A rate of 0 gives
    a count of 0 probability 1. log x! is no part of scores: `check` puts it into the data.
    """

    n_features: int
    shape: ArrayLike | None = None
    rate: ArrayLike | None = None

    kernel: ClassVar[str] = "poisson"
    #: What makes the prior proper.
    proper_with: ClassVar[str] = "shape and rate"
    _allowed: ClassVar[str] = "whole numbers from 0 to 2**53"

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.shape is None) != (self.rate is None):
            raise ValueError("give shape and rate of the gamma prior, or neither")
        _ = self._hyperparameters

    @property
    def _flat(self) -> bool:
        return self.shape is None

    @cached_property
    def _hyperparameters(self) -> tuple[Array, Array]:
        """Shape and rate, each a number or (D,)."""
        if self.shape is None or self.rate is None:
            return np.ones(()), np.zeros(())
        one_each = (self.n_features,)
        shape = as_hyperparameter("shape", self.shape, one_each)
        return shape, as_hyperparameter("rate", self.rate, one_each, least=1e-100)

    def fields(self, n_components: int) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Names and shapes of this emission's statistics."""
        return (("strength", (n_components,)), ("sums", (n_components, self.n_features)))

    def arrays(self, n_components: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of what draws of the parameters are kept as."""
        return {"rates": (n_components, self.n_features)}

    @property
    def constants(self) -> dict[str, Any]:
        """What the compiled loop is told of the model beside the prior's buffer: see `Mixtures`."""
        rate = np.broadcast_to(self._hyperparameters[1], (1, self.n_features)).copy()
        return {**super().constants, "rate": rate}

    def prior(self, n_components: int) -> dict[str, ArrayLike]:
        """Hyperparameters: the shape less 1, so that flat is 0; the rate is added in reading."""
        return {"sums": self._hyperparameters[0] - 1.0}

    def distribution(self, stats: Stats | Mapping[str, Array]) -> Gamma:
        """Statistics read as a distribution over rates."""
        rate = self._hyperparameters[1] + stats["strength"][:, None]
        return Gamma(stats["sums"], np.broadcast_to(rate, stats["sums"].shape))

    def parameters(self, values: Array) -> Rates:
        """Rates (K, D) as parameters."""
        return Rates.point(values)

    def coefficients(self, theta: Rates, reference: Array) -> Array:
        """What the kernel reads of theta: log rates."""
        return _kernels.parameters.discrete_coefficients(self.kernel, theta.log_rates)

    def offsets(self, theta: Rates) -> Array:
        """Scores of rows of zeros, (K,)."""
        with np.errstate(over="ignore"):  # rates set by hand: such a component makes no row
            return np.asarray(-theta.rates.sum(axis=1))

    def collect(self, raw: Array, counts: Array, reference: Array) -> dict[str, Array]:
        """Statistics of a kernel's sums."""
        shape = len(counts), self.n_features
        sums = _kernels.parameters.discrete_statistics(self.kernel, raw, shape)
        return {"strength": counts, "sums": sums}

    def unit(self, means: Array) -> Rates:
        """Rates of these means (K, D)."""
        return Rates.point(means)

    def around(self, theta: Rates, counts: Array) -> dict[str, Array]:
        """Statistics of `counts` rows (K,) of which the means are just those of theta."""
        return {"strength": counts, "sums": counts[:, None] * theta.rates}

    def overall(self, stats: Stats) -> Rates:
        """Mean rates of all rows together for each component; none is 0."""
        rates = (stats["sums"].sum(axis=0) + 1.0) / (stats["strength"].sum() + 1.0)
        return Rates.point(np.broadcast_to(rates, stats["sums"].shape))

    def points(self, values: Array) -> Array:
        """2 sqrt(x): of variance close to 1, whatever the rate (Anscombe 1948)."""
        return np.asarray(2.0 * np.sqrt(values))

    def _seen(self, stats: Stats) -> Array:
        """What rows brought to the sums."""
        return np.asarray(stats["sums"] - (self._hyperparameters[0] - 1.0))

    def coordinates(self, stats: Stats, held: NDArray[np.bool_]) -> Array:
        """Unconstrained numbers for sums: logarithms of the means, 0 where all counts are 0."""
        means = self._seen(stats) / np.where(held, stats["strength"], 1.0)[:, None]
        return np.asarray(np.log(np.where(held[:, None] & (means > 0), means, 1.0)).ravel())

    def at_coordinates(
        self, coordinates: Array, counts: Array, held: NDArray[np.bool_], like: Stats
    ) -> dict[str, Array]:
        """Inverse of `coordinates`: fields of what `counts` rows (K,) bring.

        Those of `like` for components that are not `held` (K,), and 0 where that has no counts.
        """
        seen = self._seen(like)
        means = np.maximum(np.exp(coordinates.reshape(seen.shape)), TINY)
        sums = np.where(held[:, None] & (seen > 0), counts[:, None] * means, seen)
        return {"strength": counts, "sums": sums}

    def _wrong(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(~((values >= 0) & (values <= MOST)) | (values != np.floor(values)))

    def log_base(self, values: NDArray[Any]) -> Array:
        """Minus the sum over features of log x!, (N,)."""
        if values.max(initial=0) < TABULATED:
            table = gammaln(np.arange(1.0, values.max(initial=0) + 2))
            return np.asarray(-table[values.astype(np.int64)].sum(axis=1))
        return np.asarray(-gammaln(values.astype(np.float64) + 1).sum(axis=1))

    def sample_rows(
        self, theta: Rates, components: NDArray[np.int64], rng: np.random.Generator
    ) -> Array:
        """Draw a row from each of `components`, (N, D)."""
        return rng.poisson(theta.rates[components]).astype(np.float64)

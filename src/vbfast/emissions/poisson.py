"""Poisson emissions: counts, features independent given the component."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from .. import _kernels
from ..conjugate import Gamma, Rates
from ..stats import Stats
from .rates import OfRates

__all__ = ["Poisson"]

Array = NDArray[np.float64]

# Whole numbers up to which float64 has them all.
MOST = 2**53
# Counts below this have log x! looked up.
TABULATED = 2**16


@dataclass(frozen=True, eq=False)
class Poisson(OfRates):
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

    kernel: ClassVar[str] = "poisson"
    _allowed: ClassVar[str] = "whole numbers from 0 to 2**53"

    @property
    def _before_rows(self) -> tuple[Array, Array]:
        """Shape less 1, so that flat is 0, and rate."""
        shape, rate = self._hyperparameters
        return shape - 1.0, rate

    def distribution(self, stats: Stats | Mapping[str, Array]) -> Gamma:
        """Statistics read as a distribution over rates."""
        rate = self._before_rows[1] + stats["strength"][:, None]
        return Gamma(stats["sums"], np.broadcast_to(rate, stats["sums"].shape))

    def coefficients(self, theta: Rates, reference: Array) -> Array:
        """What the kernel reads of theta: log rates."""
        return _kernels.parameters.discrete_coefficients(self.kernel, theta.log_rates)

    def offsets(self, theta: Rates) -> Array:
        """Scores of rows of zeros, (K,)."""
        return _kernels.parameters.rate_offsets(self.kernel, theta.rates)

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

"""Exponential emissions: waiting times, features independent given the component."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .. import _kernels
from ..conjugate import VANISHING, Gamma, Rates, no_rate_error
from ..stats import Stats
from .rates import OfRates

__all__ = ["Exponential"]

Array = NDArray[np.float64]

# Values other than 0 between which sums over rows, of any weight, and their products with rates
# have a place.
LEAST, MOST = np.float64(1e-100), np.float64(1e100)


def _waits(rates: Array, rng: np.random.Generator) -> Array:
    """Draw a row of each of these rates; none longer than rows may be."""
    with np.errstate(over="ignore", divide="ignore"):
        return np.minimum(rng.standard_exponential(rates.shape) / rates, MOST)


class WaitRates(Rates):
    """Rates of waiting times."""

    @property
    def rounding(self) -> float:
        """Nats a row that rounding may take from an objective here."""
        return _kernels.parameters.wait_rounding(self.log_rates)


class WaitGamma(Gamma):
    """A posterior of `WaitRates`: the shape counts rows, the rate adds them up."""

    kind: ClassVar[type[Rates]] = WaitRates
    _least: ClassVar[float] = VANISHING

    def mode(self) -> Rates:
        """Return the rates of highest density, as `Gamma.mode`; one close to 0 where that is it.

        Raises
        ------
        DegenerateError
            Where all rows of a component are 0: its likelihood is unbounded.
        """
        bad = _kernels.parameters.waits_without_rate(self.excess, self.rate)
        if bad >= 0:
            raise no_rate_error(bad)
        return super().mode()

    def log_predictive(self, x: Array) -> Array:
        """log p(x | component), rates integrated out, (N, K) for x (N, D): Lomax densities.

        shape rate^shape / (rate + x)^(shape + 1) for each feature (Gelman et al. 2013, 2.6).
        """
        constant = (np.log(self.shape) - np.log(self.rate)).sum(axis=1)
        out = np.empty((len(x), len(self.shape)))
        for k, (shape, rate) in enumerate(zip(self.shape, self.rate, strict=True)):
            out[:, k] = constant[k] - ((shape + 1) * np.log1p(x / rate)).sum(axis=1)
        return out

    def sample_rows(self, components: NDArray[np.int64], rng: np.random.Generator) -> Array:
        """Draw a row from each of `components`, rates integrated out, (N, D)."""
        rates = rng.standard_gamma(self.shape[components]) / self.rate[components]
        return _waits(rates, rng)


@dataclass(frozen=True, eq=False)
class Exponential(OfRates):
    """x_d | t = k ~ Exponential(lambda_kd), x >= 0, with lambda_kd ~ Gamma(shape, rate).

    The density is lambda exp(-lambda x). With no prior given it is flat in the rates, and a mode is
    the maximum of the likelihood.

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
    Conjugate update: shape + rows, rate + sum of rows (Gelman et al. 2013, section 2.6). A
    component without rows has, under a flat prior, the rates of all rows. One of rows that are all
    0 has none: a `DegenerateError`.
    """

    kernel: ClassVar[str] = "exponential"
    _allowed: ClassVar[str] = "0 and numbers from 1e-100 to 1e100"
    _most_rate: ClassVar[float] = MOST
    degenerate_error = staticmethod(no_rate_error)

    @property
    def _before_rows(self) -> tuple[Array, Array]:
        """Rate, and shape less 1, so that flat is 0."""
        shape, rate = self._hyperparameters
        return rate, shape - 1.0

    def distribution(self, stats: Stats | Mapping[str, Array]) -> WaitGamma:
        """Statistics read as a distribution over rates."""
        excess = self._before_rows[1] + stats["strength"][:, None]
        return WaitGamma(np.broadcast_to(excess, stats["sums"].shape), stats["sums"])

    def parameters(self, values: Array) -> WaitRates:
        """Rates (K, D) as parameters."""
        return WaitRates(values, np.log(values))

    def coefficients(self, theta: Rates, reference: Array) -> Array:
        """What the kernel reads of theta: minus the rates."""
        return _kernels.parameters.discrete_coefficients(self.kernel, theta.rates)

    def offsets(self, theta: Rates) -> Array:
        """Scores of rows of zeros, (K,)."""
        return _kernels.parameters.rate_offsets(self.kernel, theta.log_rates)

    def unit(self, means: Array) -> WaitRates:
        """Rates of these means (K, D); 1 where there is none."""
        return self.parameters(1.0 / np.where(means > 0, means, 1.0))

    def around(self, theta: Rates, counts: Array) -> dict[str, Array]:
        """Statistics of `counts` rows (K,) of which the means are just those of theta."""
        return {"strength": counts, "sums": counts[:, None] / theta.rates}

    def overall(self, stats: Stats) -> WaitRates:
        """Rates of all rows together for each component."""
        sums = stats["sums"].sum(axis=0)
        return self.unit(np.broadcast_to(sums / stats["strength"].sum(), stats["sums"].shape))

    def points(self, values: Array) -> Array:
        """x^(1/4): close to symmetric, whatever the rate (Kittlitz 1999)."""
        return np.sqrt(np.sqrt(values))

    def _wrong(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(~((values >= LEAST) & (values <= MOST) | (values == 0)))

    def given_seen(
        self,
        theta: Rates,
        component: int,
        values: NDArray[Any],
        rng: np.random.Generator | None = None,
    ) -> Array:
        """What waiting times of a component are expected to be, (N, D), or draws of them."""
        rates = np.broadcast_to(theta.rates[component], values.shape)
        return np.asarray(1.0 / rates) if rng is None else _waits(rates, rng)

    def sample_rows(
        self, theta: Rates, components: NDArray[np.int64], rng: np.random.Generator
    ) -> Array:
        """Draw a row from each of `components`, (N, D)."""
        return _waits(theta.rates[components], rng)

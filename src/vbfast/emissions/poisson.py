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
from ..data import Frame
from ..special import beyond_linear, beyond_stirling, count_deviance
from ..stats import Stats
from .rates import OfRates

__all__ = ["Poisson", "origin_of"]

Array = NDArray[np.float64]

# Whole numbers up to which float64 has them all.
MOST = 2**53
# Counts below this have log x! looked up.
TABULATED = 2**16
# Standard deviations from a component's mean that what it is given in common with others lies at
# most.
COMMON_WITHIN = 5.0
# An origin pays for a feature whose counts are no smaller than this, and than this share of it.
LARGE, LOWEST_SHARE = 2.0**20, 1 / 16


def origin_of(values: NDArray[Any]) -> Array | None:
    """Return where counts, or rates, (N, D), are best told about, (D,): None for 0.

    At a mean that is large and that none is far below; else at 0.
    """
    if not np.any(values[0] >= LARGE):  # then no column's are all large
        return None
    within = np.clip(values, 0, MOST)
    mean = within.mean(axis=0, dtype=np.float64)
    worth = within.min(axis=0) >= np.maximum(LOWEST_SHARE * mean, LARGE)
    return np.where(worth, np.round(mean), 0.0) if worth.any() else None


def _log_base(counts: Array, origin: float) -> Array:
    """x log origin - origin - log x!, for an origin > 0; -log x! for 0."""
    if origin == 0:
        return np.asarray(-gammaln(counts + 1))
    x = np.where(counts > 0, counts, 1.0)
    base = -count_deviance(x, np.full_like(x, origin)) - 0.5 * np.log(2 * np.pi * x)
    return np.where(counts > 0, base - beyond_stirling(x), -origin)


@dataclass(frozen=True, eq=False)
class Poisson(OfRates):
    """x_d | t = k ~ Poisson(lambda_kd), with lambda_kd ~ Gamma(shape, rate).

    With no prior given it is flat in the rates, and a mode is the maximum of the likelihood.

    Parameters
    ----------
    n_features : int
    shape, rate : float or array-like of shape (D,), optional
        Of the gamma prior, of mean shape / rate: both or neither. A mode needs shape >= 1.
    origin : ndarray of shape (D,), optional
        Whole numbers that counts are computed with as differences from, where they are large:
        see `origin_of`. 0 by default.

    Raises
    ------
    TypeError, ValueError
        If shape or rate is given without the other, or either is not > 0 or has another shape; if
        origin is no float64 array of this shape.

    Notes
    -----
    Conjugate update: shape + sum of counts, rate + rows (Gelman et al. 2013, section 2.6). A
    component without rows has, under a flat prior, the mean rates of all rows. A rate of 0 gives
    a count of 0 probability 1. log x! is no part of scores: `check` puts it into the data.

    x log lambda - lambda - log x! is a difference of numbers that are larger than it by far where
    counts are. About an origin r it is the score (x - r) l - r (exp(l) - 1 - l) with
    l = log(lambda / r), and a deviance of x from r that no theta is in; the closer r, the smaller
    are both. Rounding then leaves some 1e-15 of how far counts lie from r, in nats.
    """

    origin: Array | None = None

    kernel: ClassVar[str] = "poisson"
    _allowed: ClassVar[str] = "whole numbers from 0 to 2**53"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.origin is not None:
            # A frame checks what its origin is.
            units = Frame(self.origin, np.ones(self.n_features), np.ones(self.n_features))
            object.__setattr__(self, "units", units)

    @property
    def compiled(self) -> bool:  # type: ignore[override]
        """Whether the compiled loop knows this emission: it has no origin."""
        return self.origin is None

    @property
    def _before_rows(self) -> tuple[Array, Array]:
        """Shape less 1, so that flat is 0, and rate."""
        shape, rate = self._hyperparameters
        return shape - 1.0, rate

    def distribution(self, stats: Stats | Mapping[str, Array]) -> Gamma:
        """Statistics read as a distribution over rates."""
        rate = self._before_rows[1] + stats["strength"][:, None]
        origin = 0.0 if self.origin is None else self.origin
        return Gamma(stats["sums"], np.broadcast_to(rate, stats["sums"].shape), origin)

    def coefficients(self, theta: Rates, reference: Array) -> Array:
        """What the kernel reads of theta: logarithms of rates, or of their ratios to the origin."""
        logs = theta.log_rates
        if self.origin is not None:
            logs = logs - np.log(np.where(self.origin > 0, self.origin, 1.0))
            # Of a rate of 0 the offset says that nothing is possible.
            logs[np.isneginf(logs) & (self.origin > 0)] = 0.0
        return _kernels.parameters.discrete_coefficients(self.kernel, logs)

    def offsets(self, theta: Rates) -> Array:
        """Scores of rows at the origin, (K,)."""
        if self.origin is None:
            return _kernels.parameters.rate_offsets(self.kernel, theta.rates)
        away = theta.rates.copy()
        about = self.origin > 0
        logs = theta.log_rates[:, about] - np.log(self.origin[about])
        away[:, about] = self.origin[about] * beyond_linear(logs) + theta.slack[:, about]
        with np.errstate(over="ignore"):
            return -np.asarray(away.sum(axis=1))

    def collect(self, raw: Array, counts: Array, reference: Array) -> dict[str, Array]:
        """Statistics of a kernel's sums."""
        fields = super().collect(raw, counts, reference)
        if self.origin is not None:
            fields["sums"] = fields["sums"] + counts[:, None] * self.origin
        return fields

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

    def common(self, stats: Stats) -> dict[str, Array]:
        """Statistics of as many rows that are like all together, but close to a component's own.

        Of large counts a share of what is far away would move a mean by many standard deviations.
        """
        counts, rates = stats["strength"], self.overall(stats).rates
        held = counts[:, None] > 0
        own = np.where(held, stats["sums"] / np.where(held, counts[:, None], 1.0), rates)
        near = COMMON_WITHIN * np.sqrt(own + 1.0)
        return self.around(Rates.point(np.clip(rates, own - near, own + near)), counts)

    def points(self, values: Array) -> Array:
        """2 sqrt(x): of variance close to 1, whatever the rate (Anscombe 1948)."""
        return np.asarray(2.0 * np.sqrt(values))

    def _wrong(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(~((values >= 0) & (values <= MOST)) | (values != np.floor(values)))

    def log_base(self, values: NDArray[Any]) -> Array:
        """Minus the sum of log x!, (N,), or what scores about the origin leave out of it."""
        if self.origin is not None:
            base = np.zeros(len(values))
            for d, origin in enumerate(self.origin):
                base += _log_base(values[:, d].astype(np.float64), origin)
            return base
        if values.max(initial=0) < TABULATED:
            table = gammaln(np.arange(1.0, values.max(initial=0) + 2))
            return np.asarray(-table[values.astype(np.int64)].sum(axis=1))
        return np.asarray(-gammaln(values.astype(np.float64) + 1).sum(axis=1))

    def given_seen(
        self,
        theta: Rates,
        component: int,
        values: NDArray[Any],
        rng: np.random.Generator | None = None,
    ) -> Array:
        """What counts of a component are expected to be, (N, D), or draws of them."""
        rates = np.broadcast_to(theta.rates[component], values.shape)
        return np.asarray(rates if rng is None else rng.poisson(rates), dtype=np.float64)

    def sample_rows(
        self, theta: Rates, components: NDArray[np.int64], rng: np.random.Generator
    ) -> Array:
        """Draw a row from each of `components`, (N, D)."""
        return rng.poisson(theta.rates[components]).astype(np.float64)

"""Functions of arrays that formulas need where plain ones would leave rounding alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, gammaln

__all__ = [
    "beyond_linear",
    "beyond_stirling",
    "count_deviance",
    "digamma_less_log",
    "log_gamma_step",
]

Array = NDArray[np.float64]

# From here on four terms of an asymptotic series are exact.
ASYMPTOTIC = 32.0
# And from here on a difference of logarithms of Gamma would lose digits.
CANCELLING = 512.0


# Of numbers closer to 0 a series gives exp(x) - 1 - x.
NEAR = 0.05


def beyond_linear(x: Array) -> Array:
    """exp(x) - 1 - x; near 0 by its series."""
    near = np.abs(x) < NEAR
    with np.errstate(over="ignore"):
        out = np.asarray(np.expm1(x) - x)
    return np.where(near, _series(x), out) if near.any() else out


def _series(x: Array) -> Array:
    """exp(x) - 1 - x for |x| < NEAR."""
    rest: Array | float = 1.0
    for n in range(8, 2, -1):
        rest = 1.0 + x / n * rest
    return 0.5 * x * x * rest


def beyond_stirling(x: Array) -> Array:
    """log Gamma(x + 1) less (x + 1/2) log x - x + log(2 pi) / 2, for x > 0 (Loader 2000)."""
    large = x > ASYMPTOTIC
    y = 1.0 / np.where(large, x, 1.0)
    out = y * (1 / 12 - y * y * (1 / 360 - y * y * (1 / 1260 - y * y / 1680)))
    if not large.all():
        z = np.where(large, 1.0, x)
        plain = gammaln(z + 1) - (z + 0.5) * np.log(z) + z - 0.5 * np.log(2 * np.pi)
        out = np.where(large, out, plain)
    return np.asarray(out)


def count_deviance(x: Array, mean: Array) -> Array:
    """x log(x / mean) - x + mean, for x, mean > 0: half the deviance of a count (Loader 2000)."""
    gap = mean - x
    near = np.abs(gap) < NEAR * x
    out = gap - x * np.log(mean / x)
    return np.where(near, x * _series(np.log1p(gap / x)), out) if near.any() else np.asarray(out)


def digamma_less_log(x: Array) -> Array:
    """digamma(x) - log x, for x > 0 (Abramowitz & Stegun 6.3.18)."""
    large = x > ASYMPTOTIC
    y = 1.0 / np.where(large, x, 1.0)
    series = -y * (0.5 + y * (1 / 12 - y * y * (1 / 120 - y * y / 252)))
    if large.all():
        return np.asarray(series)
    z = np.where(large, 1.0, x)
    return np.where(large, series, digamma(z) - np.log(z))


def log_gamma_step(x: Array, step: float) -> Array:
    """log of Gamma(x + step) / Gamma(x), for x > 0 and a step >= 0."""
    large = x > max(CANCELLING, step)
    if not large.any():
        return np.asarray(gammaln(x + step) - gammaln(x))
    z = np.where(large, x, 1.0)
    # By Stirling's series, of which the large terms are subtracted by hand.
    out = (z + step - 0.5) * np.log1p(step / z) + step * (np.log(z) - 1.0)
    out = out + beyond_stirling(z + step) - beyond_stirling(z)
    return np.where(large, out, gammaln(x + step) - gammaln(x))

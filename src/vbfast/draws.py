"""What is done with draws: order of components, evidence, convergence."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from .stats import Stats

__all__ = ["Draws", "chain_orders", "effective_sample_size", "evidence", "orders", "r_hat"]

Array = NDArray[np.float64]
T = TypeVar("T")

# Summing over all orders of the components takes 2^K K steps a draw.
MOST_COMPONENTS = 12
# All orders of so many components are tried: 120.
FEW_COMPONENTS = 5


@dataclass(frozen=True)
class Draws(Generic[T]):
    """Draws of several chains, and the chains' ends.

    Attributes
    ----------
    theta : dict of ndarray
        Parts of theta, (chain, draw, ...), by name: those of `arrays` of a theta.
    log_joint : ndarray of shape (chain, draw)
        log p(X, T, theta) of each.
    best : Theta
        The draw of highest log p(X, T, theta) in the tuning phase of any chain.
    common, terms : ndarray of shape (chain, draw), (chain, draw, K, K)
        Density of `best` under p(theta | X, T) at each draw's T: as of `Model.log_density_terms`.
    posteriors : list of Stats
        Each chain's last.
    """

    theta: dict[str, Array]
    log_joint: Array
    best: T
    common: Array
    terms: Array
    posteriors: list[Stats]


@functools.cache
def _all_orders(n: int) -> NDArray[np.int64]:
    return np.array(list(itertools.permutations(range(n))))


def orders(terms: Array) -> NDArray[np.int64]:
    """Return for each draw and component k the draw's component that plays its part, (G, K).

    The orders of highest density: `terms` (G, K, K) as of `Model.log_density_terms`.
    """
    k = terms.shape[1]
    least = np.where(np.isfinite(terms), terms, 0.0).min(axis=(1, 2), initial=0.0)
    terms = np.maximum(terms, least[:, None, None] - 1e6)
    if k <= FEW_COMPONENTS:
        every = _all_orders(k)
        return every[terms[:, every, np.arange(k)].sum(axis=2).argmax(axis=1)]
    # Imported when used: it takes longer to import than all of vbfast.
    from scipy.optimize import linear_sum_assignment

    found = (linear_sum_assignment(matrix, maximize=True) for matrix in terms)
    return np.array([rows[np.argsort(columns)] for rows, columns in found])


def chain_orders(means: Array, reference: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which chain of each draw plays each chain's part, and which state each state's.

    Those whose centred means are closest to the reference's: first the states of every pair of
    chains are matched, then the chains.

    Parameters
    ----------
    means : ndarray of shape (G, M, K, D)
        In units in which the noise has variance 1.
    reference : ndarray of shape (M, K, D)

    Returns
    -------
    chains : ndarray of shape (G, M)
    states : ndarray of shape (G, M, K)
        Of the chain that plays the part.
    """
    n_draws, m, k, _ = means.shape
    centred = means - means.mean(axis=2, keepdims=True)
    theirs = reference - reference.mean(axis=1, keepdims=True)
    squares = (centred**2).sum(axis=3)[:, :, None, :, None] + (theirs**2).sum(axis=2)[:, None, :]
    terms = 2 * np.einsum("gmkd,njd->gmnkj", centred, theirs, optimize=True) - squares
    states = orders(terms.reshape(-1, k, k)).reshape(n_draws, m, m, k)
    matched = np.take_along_axis(terms, states[..., None, :], axis=3)[..., 0, :].sum(axis=3)
    chains = orders(matched)
    return chains, states[np.arange(n_draws)[:, None], chains, np.arange(m)]


def log_permanents(terms: Array) -> Array:
    """Log of sum over permutations sigma of prod_k exp terms[g, sigma(k), k], (G,).

    By subsets: the first k columns taken by every set of k rows. Positive terms only, so nothing
    cancels.
    """
    n_draws, n_components, _ = terms.shape
    top = terms.max(axis=1)
    values = np.exp(terms - top[:, None, :])
    total = np.zeros((n_draws, 2**n_components))
    total[:, 0] = 1.0
    subsets = np.arange(2**n_components)
    size = np.array([bin(subset).count("1") for subset in subsets])
    for k in range(1, n_components + 1):
        of_size = subsets[size == k]
        for row in range(n_components):
            with_row = of_size[(of_size >> row) & 1 == 1]
            total[:, with_row] += total[:, with_row ^ (1 << row)] * values[:, row, k - 1, None]
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(total[:, -1]) + top.sum(axis=1))


def evidence(log_joint: float, common: Array, terms: Array) -> tuple[float, float]:
    """log p(X) and its standard error, by Chib's identity at one point theta.

    log p(X) = log p(X | theta) + log p(theta) - log p(theta | X), the last as the average of
    p(theta | X, T) over draws of T (Chib 1995), here also over all K! orders of the components,
    since a chain seldom visits all of the posterior's K! modes (Neal 1999; Berkhof, van Mechelen &
    Gelman 2003).

    Parameters
    ----------
    log_joint : float
        log p(X | theta) + log p(theta).
    common, terms : ndarray of shape (chain, draw), (chain, draw, K, K)
        p(theta | X, T) of each draw, averaged over orders: as of `Model.log_density_terms`.

    Returns
    -------
    log_evidence, standard_error : float
        NaN for more than 12 components: the sum over orders would take too long. The error is NaN
        for fewer than 8 draws.
    """
    n_components = terms.shape[-1]
    if n_components > MOST_COMPONENTS:
        return np.nan, np.nan
    flat = terms.reshape(-1, n_components, n_components)
    step = max(1, 2**22 // 2**n_components)
    parts = [log_permanents(flat[i : i + step]) for i in range(0, len(flat), step)]
    log_density = common + np.concatenate(parts).reshape(common.shape)
    log_mean = float(logsumexp(log_density) - np.log(log_density.size))
    if log_mean == -np.inf:
        return np.nan, np.nan
    if log_density.size < 8:
        return log_joint - log_mean, np.nan
    share = np.exp(log_density - log_mean)
    error = float(np.sqrt(share.var() / effective_sample_size(share)))
    return log_joint - log_mean, error


def _autocovariance(draws: Array) -> Array:
    n = draws.shape[1]
    centred = draws - draws.mean(axis=1, keepdims=True)
    spectrum = np.fft.rfft(centred, 2 * n, axis=1)
    return np.asarray(np.fft.irfft(np.abs(spectrum) ** 2, axis=1)[:, :n] / n)


def effective_sample_size(draws: Array) -> float:
    """Return how many independent draws tell as much about the mean (Gelman et al. 2013, 11.5).

    Parameters
    ----------
    draws : ndarray of shape (chain, draw)
    """
    m, n = draws.shape
    covariance = _autocovariance(draws)
    within = covariance[:, 0].mean() * n / max(n - 1, 1)
    between = draws.mean(axis=1).var(ddof=1) if m > 1 else 0.0
    total = within * (n - 1) / n + between
    if not total > 0:
        return float(m * n)
    correlation = 1 - (within - covariance.mean(axis=0)) / total
    pairs = correlation[: n // 2 * 2].reshape(-1, 2).sum(axis=1)
    # Geyer's initial positive, monotone sequence.
    negative = np.flatnonzero(pairs < 0)
    pairs = np.minimum.accumulate(pairs[: negative[0]] if len(negative) else pairs)
    return float(min(m * n / max(2 * pairs.sum() - 1, 1e-12), m * n))


def r_hat(draws: Array) -> float:
    """Split R-hat (Gelman et al. 2013, 11.4); NaN for fewer than 4 draws a chain.

    Parameters
    ----------
    draws : ndarray of shape (chain, draw)
    """
    half = draws.shape[1] // 2
    if half < 2:
        return np.nan
    split = np.concatenate([draws[:, :half], draws[:, -half:]])
    within = split.var(axis=1, ddof=1).mean()
    between = half * split.mean(axis=1).var(ddof=1)
    if within == 0:
        return 1.0 if between == 0 else np.inf
    return float(np.sqrt((half - 1) / half + between / (half * within)))

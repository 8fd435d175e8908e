"""What is done with draws: order of components, evidence, convergence."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, ndtri

from .stats import Stats

__all__ = [
    "At",
    "Draws",
    "chain_orders",
    "chosen",
    "effective_sample_size",
    "evidence",
    "log_densities",
    "mixing",
    "orders",
    "places",
    "r_hat",
]

Array = NDArray[np.float64]
T = TypeVar("T")

# Summing over all orders of the components takes 2^K K steps a draw.
MOST_COMPONENTS = 12
# All orders of so many components are tried: 120.
FEW_COMPONENTS = 5
# Places among all draws whose centres may become the points of Chib's estimate.
PLACES = 16


@dataclass(frozen=True)
class At(Generic[T]):
    """A point of Chib's estimate, and its density under p(theta | X, T) at each draw's T.

    Attributes
    ----------
    theta : Theta
    common, terms : ndarray of shape (chain, draw), (chain, draw, K, K)
        As of `Model.log_density_terms`.
    """

    theta: T
    common: Array
    terms: Array


@dataclass(frozen=True)
class Draws(Generic[T]):
    """Draws of several chains, and the chains' ends.

    Attributes
    ----------
    theta : dict of ndarray
        Parts of theta, (chain, draw, ...), by name: those of `arrays` of a theta.
    log_joint : ndarray of shape (chain, draw)
        log p(X, T, theta) of each.
    point : At
        The centre of p(theta | X, T) at some draw's T of which other draws tell most alike.
    seen : list of Stats
        The posteriors of the draws whose centres were to choose from.
    posteriors : list of Stats
        Each chain's last.
    """

    theta: dict[str, Array]
    log_joint: Array
    point: At[T]
    seen: list[Stats]
    posteriors: list[Stats]

    @property
    def best(self) -> T:
        """Where the density is taken."""
        return self.point.theta

    @property
    def common(self) -> Array:
        """Of the point, (chain, draw)."""
        return self.point.common

    @property
    def terms(self) -> Array:
        """Of the point, (chain, draw, K, K)."""
        return self.point.terms


def places(n_chains: int, n_draws: int) -> NDArray[np.int64]:
    """Numbers of a chain's draws, the last among them, whose centres are to choose from."""
    n = min(max(1, PLACES // n_chains), n_draws)
    return np.arange(1, n + 1) * n_draws // n - 1


def chosen(
    centres: Sequence[T],
    posteriors: Sequence[Stats],
    terms_of: Callable[[Stats, T], tuple[float, Array]],
) -> int:
    """Return at which of the centres Chib's estimate is to be made.

    Where the density under the others' posteriors varies least: the mean over draws has the least
    error there.
    """
    n = len(centres)
    if n == 1:
        return 0
    some = np.unique(np.arange(PLACES) * n // PLACES)
    score = np.full(n, -1.0)
    for i in some:
        of = [terms_of(posteriors[j], centres[i]) for j in some if j != i]
        log_density = log_densities(
            np.nan_to_num([common for common, _ in of]), np.array([terms for _, terms in of])
        )
        top = log_density.max()
        if np.isfinite(top):
            share = np.exp(log_density - top)
            score[i] = share.sum() ** 2 / (share**2).sum()
    return int(score.argmax())


@functools.cache
def _all_orders(n: int) -> NDArray[np.int64]:
    return np.array(list(itertools.permutations(range(n))))


def orders(terms: Array) -> NDArray[np.int64]:
    """Return for each draw and component k the draw's component that plays its part, (G, K).

    The orders of highest density: `terms` (G, K, K) as of `Model.log_density_terms`. What is
    infinite counts as far from all that isn't.
    """
    k = terms.shape[1]
    finite = np.where(np.isfinite(terms), terms, 0.0)
    least, most = finite.min(axis=(1, 2)), finite.max(axis=(1, 2))
    known = np.where(np.isnan(terms), -np.inf, terms)
    terms = np.clip(known, least[:, None, None] - 1e6, most[:, None, None] + 1e6)
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
    cancels. NaN where a term is infinite: a draw at a pole of a density.
    """
    n_draws, n_components, _ = terms.shape
    top = terms.max(axis=1)
    top = np.where(top > -np.inf, top, 0.0)
    with np.errstate(invalid="ignore"):
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


def log_densities(common: Array, terms: Array) -> Array:
    """Log of densities that `Model.log_density_terms` tells of, (G,) from (G,), (G, K, K).

    Of more than 12 components in their best order alone. NaN at a pole, as `log_permanents`.
    """
    n_components = terms.shape[-1]
    with np.errstate(invalid="ignore"):
        if n_components > MOST_COMPONENTS:
            best = orders(terms)
            every = np.arange(len(terms))[:, None]
            return np.asarray(common + terms[every, best, np.arange(n_components)].sum(axis=1))
        step = max(1, 2**22 // 2**n_components)
        parts = [log_permanents(terms[i : i + step]) for i in range(0, len(terms), step)]
        return np.asarray(common + np.concatenate(parts))


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
        NaN for more than 12 components: the sum over orders would take too long. The error, from
        within chains and from between them, is NaN for fewer than 8 draws.
    """
    n_components = terms.shape[-1]
    if n_components > MOST_COMPONENTS:
        return np.nan, np.nan
    log_density = log_densities(common.ravel(), terms.reshape(-1, n_components, n_components))
    log_density = log_density.reshape(common.shape)
    log_mean = float(logsumexp(log_density) - np.log(log_density.size))
    if not np.isfinite(log_mean):
        return np.nan, np.nan
    if log_density.size < 8:
        return log_joint - log_mean, np.nan
    share = np.exp(log_density - log_mean)
    error = float(np.sqrt(share.var() / effective_sample_size(share)))
    return log_joint - log_mean, error


def _autocovariance(draws: Array) -> Array:
    n = draws.shape[1]
    centred = draws - draws.mean(axis=1, keepdims=True)
    # Of draws that have no square all is NaN.
    with np.errstate(over="ignore", invalid="ignore"):
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


def _split(draws: Array) -> Array:
    """Halves of chains as chains: the middle draw of an odd number is left out."""
    half = draws.shape[1] // 2
    return np.concatenate([draws[:, :half], draws[:, -half:]])


def _ranked(draws: Array) -> Array:
    """Normal scores of the ranks of all draws, ties alike."""
    _, place, count = np.unique(draws, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place.reshape(draws.shape)]
    return np.asarray(ndtri((rank - 0.375) / (draws.size + 0.25)))


def _split_r_hat(split: Array) -> float:
    half = split.shape[1]
    within = split.var(axis=1, ddof=1).mean()
    between = half * split.mean(axis=1).var(ddof=1)
    if within == 0:
        return 1.0 if between == 0 else np.inf
    return float(np.sqrt((half - 1) / half + between / (half * within)))


def r_hat(draws: Array) -> float:
    """Rank-normalised split R-hat of location and of spread (Vehtari et al. 2021).

    NaN for fewer than 4 draws a chain.

    Parameters
    ----------
    draws : ndarray of shape (chain, draw)
    """
    if draws.shape[1] < 4:
        return np.nan
    split = _split(draws)
    folded = np.abs(split - np.median(split))
    return max(_split_r_hat(_ranked(split)), _split_r_hat(_ranked(folded)))


def mixing(quantities: dict[str, Array]) -> tuple[float, str, float]:
    """Largest R-hat, which quantity's it is, and the least effective sample size.

    Parameters
    ----------
    quantities : dict of ndarray
        By name, (chain, draw): such as do not depend on the order of the components.
    """
    found = {name: r_hat(each) for name, each in quantities.items()}
    worst = max(found, key=lambda name: found[name])
    size = min(effective_sample_size(_ranked(_split(each))) if each.shape[1] > 1 else np.nan
               for each in quantities.values())  # fmt: skip
    return found[worst], worst, size

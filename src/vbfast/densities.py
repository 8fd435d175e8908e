"""What a fit says of rows: densities, responsibilities, samples.

One class for each kind of answer: a point estimate, mean field's q(theta), draws of theta.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from . import _kernels
from ._kernels.inputs import Assignment, Block, Coefficients
from .conjugate import Gaussians, IndependentNormalGamma, point
from .data import Frame
from .emissions import Gaussian
from .emissions.gaussian import CovarianceType, Distribution, draw_rows

__all__ = ["DrawnDensity", "MeanFieldDensity", "PointDensity"]

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

# Made once: a prediction of one row takes little longer than making them does.
SCORES, EXACT, HARD = Assignment("scores"), Assignment("exact"), Assignment("hard")
# Doubles that each of the few arrays has which a prediction holds beside its output.
ROOM = 2**16
LOWEST = -1.7e308
# Standard deviations of the data, further than which a row's density under mean field is taken for
# that at this distance: squares would overflow.
FAR = 1e100


@dataclass(frozen=True)
class PointDensity:
    """A mixture of Gaussians with known parameters, in the units of a frame.

    Attributes
    ----------
    frame : Frame
    covariance_type : {"full", "tied", "diag", "spherical"}
    weights : ndarray of shape (K,)
    gaussians : Gaussians
    """

    frame: Frame
    covariance_type: CovarianceType
    weights: Array
    gaussians: Gaussians

    @cached_property
    def coefficients(self) -> Coefficients:
        """What kernels read."""
        emission = Gaussian(self.gaussians.means.shape[1], self.covariance_type, frame=self.frame)
        with np.errstate(divide="ignore"):
            log_weights = np.log(self.weights)
        return Coefficients(
            emission.kernel,
            emission.coefficients(self.gaussians, emission.reference(self.gaussians)),
            log_weights + emission.offsets(self.gaussians),
        )

    def _visit(
        self, values: NDArray[Any], assignment: Assignment, n_threads: int, **out: Any
    ) -> None:
        block = Block(values, None, None, self.frame.origin, self.frame.scale, 0, n_threads)
        _kernels.mixture.visit(block, self.coefficients, assignment, **out)

    def scores(self, values: NDArray[Any], n_threads: int) -> Array:
        """log pi_k + log N(x | k), (N, K)."""
        out = np.empty((len(values), len(self.weights)))
        self._visit(values, SCORES, n_threads, q=out)
        # A row so far away that its score is NaN, by inf - inf, is impossible.
        return np.asarray(np.fmax(out, -np.inf, out=out))

    def responsibilities(self, values: NDArray[Any], n_threads: int) -> Array:
        """Probability of each component for each row, (N, K)."""
        out = np.empty((len(values), len(self.weights)))
        self._visit(values, EXACT, n_threads, q=out)
        return out

    def labels(self, values: NDArray[Any], n_threads: int) -> Labels:
        """Most probable component of each row, (N,)."""
        out = np.empty(len(values), dtype=np.int64)
        self._visit(values, HARD, n_threads, labels=out)
        return out

    def log_density(self, values: NDArray[Any], n_threads: int) -> Array:
        """Log density of each row in the units of the data, (N,)."""
        out = np.empty(len(values))
        self._visit(values, EXACT, n_threads, log_z=out)
        return out

    def co_assignment(self, values: NDArray[Any], n_threads: int) -> Array:
        """Probability that two different rows share a component, (N, N)."""
        q = self.responsibilities(values, n_threads)
        return np.asarray(q @ q.T)

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Array, Labels]:
        """Draw n rows, (n, D), and their components, (n,)."""
        y = rng.choice(len(self.weights), size=n, p=self.weights / self.weights.sum())
        factor = self.gaussians.factor
        group = y if len(factor) > 1 else np.zeros_like(y)
        return draw_rows(self.frame, self.gaussians.means[y], factor[group], rng), y


@dataclass(frozen=True)
class MeanFieldDensity(PointDensity):
    """The posterior predictive density of mean field's q(pi) q(mu, Lambda) (Bishop 10.81).

    Responsibilities are those of q(T), from E[log pi], E[Lambda], E[log|Lambda|].

    Attributes
    ----------
    mean_weights : ndarray of shape (K,)
        E[pi].
    distribution : NormalWishart, NormalGamma or IndependentNormalGamma
        q(mu, Lambda).
    """

    mean_weights: Array
    distribution: Distribution

    def log_density(self, values: NDArray[Any], n_threads: int) -> Array:
        """Log posterior predictive density of each row, (N,)."""
        k, d = self.gaussians.means.shape
        with np.errstate(divide="ignore"):
            log_weights = np.log(self.mean_weights) + np.log(self.frame.scale).sum()
        out = np.empty(len(values))
        # Over an independent precision log_predictive integrates by 65 points.
        points = 65 if isinstance(self.distribution, IndependentNormalGamma) else 1
        step = max(1, ROOM // (4 * (k + d * points)))
        for row in range(0, len(values), step):
            x = values[row : row + step].astype(np.float64)
            with np.errstate(over="ignore"):
                x -= self.frame.origin
                x *= self.frame.scale
            np.clip(x, -FAR, FAR, out=x)
            scores = self.distribution.log_predictive(x)
            scores += log_weights
            np.logaddexp.reduce(scores, axis=1, out=out[row : row + step])
        return out

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Array, Labels]:
        """Draw n rows, (n, D), and their components, (n,)."""
        y = rng.choice(len(self.mean_weights), size=n, p=self.mean_weights)
        rows = self.distribution.sample_rows(y, rng)
        return self.frame.origin + rows / self.frame.scale, y


@dataclass(frozen=True)
class DrawnDensity:
    """The posterior predictive density as an average over G draws of theta.

    Attributes
    ----------
    frame, covariance_type
    weights : ndarray of shape (G, K)
    means : ndarray of shape (G, K, D)
    factors : ndarray of shape (G, K, D, D), (G, 1, D, D), (G, K, D) or (G, K, 1)
    """

    frame: Frame
    covariance_type: CovarianceType
    weights: Array
    means: Array
    factors: Array

    def _draws_together(self, draws: slice) -> PointDensity:
        """Many draws as one mixture of K components a draw."""
        factors, covariance_type = self.factors[draws], self.covariance_type
        if covariance_type == "tied":
            factors, covariance_type = np.repeat(factors, self.means.shape[1], axis=1), "full"
        gaussians = point(
            self.means[draws].reshape(-1, self.means.shape[2]),
            factors.reshape(-1, *factors.shape[2:]),
        )
        return PointDensity(self.frame, covariance_type, self.weights[draws].ravel(), gaussians)

    def _total_scores(self, values: NDArray[Any], n_threads: int) -> Iterator[tuple[slice, Array]]:
        """Log of the sum over draws of pi_k N(x | k), (rows, K), for some rows at a time."""
        n_draws, k, d = self.means.shape
        # Draws are packed anew for every block of rows: many rows, or of few rows many draws.
        step = min(len(values), max(1, ROOM // k))
        width = max(1, min(ROOM // (step * k), 4 * ROOM // (k * (d * d + 2 * d))))
        for row in range(0, len(values), step):
            rows = slice(row, row + step)
            part = values[rows]
            # The sum so far is sums * exp(top), top finite so that -inf - top is no NaN.
            top, sums = np.full((len(part), k), LOWEST), np.zeros((len(part), k))
            for first in range(0, n_draws, width):
                together = self._draws_together(slice(first, first + width))
                scores = together.scores(part, n_threads).reshape(len(part), -1, k)
                higher = np.maximum(top, scores.max(axis=1))
                sums *= np.exp(top - higher)
                scores -= higher[:, None]
                sums += np.exp(scores, out=scores).sum(axis=1)
                top = higher
            with np.errstate(divide="ignore"):
                total = top + np.log(sums)
            yield rows, total

    def responsibilities(self, values: NDArray[Any], n_threads: int) -> Array:
        """p(t | x, X), (N, K); a row impossible under all components is shared equally."""
        out = np.empty((len(values), self.weights.shape[1]))
        for rows, total in self._total_scores(values, n_threads):
            total[np.all(total == -np.inf, axis=1)] = 0.0
            out[rows] = softmax(total, axis=1)
        return out

    def labels(self, values: NDArray[Any], n_threads: int) -> Labels:
        """Most probable component of each row, (N,)."""
        out = np.empty(len(values), dtype=np.int64)
        for rows, total in self._total_scores(values, n_threads):
            total.argmax(axis=1, out=out[rows])
        return out

    def log_density(self, values: NDArray[Any], n_threads: int) -> Array:
        """Log posterior predictive density of each row, (N,)."""
        out = np.empty(len(values))
        for rows, total in self._total_scores(values, n_threads):
            np.logaddexp.reduce(total, axis=1, out=out[rows])
        out -= np.log(len(self.weights))
        return out

    def co_assignment(self, values: NDArray[Any], n_threads: int) -> Array:
        """Probability that two different rows share a component, averaged over draws, (N, N)."""
        together = np.zeros((len(values), len(values)))
        for weights, means, factors in zip(self.weights, self.means, self.factors, strict=True):
            one = PointDensity(self.frame, self.covariance_type, weights, point(means, factors))
            together += one.co_assignment(values, n_threads)
        return together / len(self.weights)

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Array, Labels]:
        """Draw n rows, (n, D), each from a draw of theta, and their components, (n,)."""
        of = rng.integers(len(self.weights), size=n)
        y = (rng.random((n, 1)) >= np.cumsum(self.weights[of], axis=1)[:, :-1]).sum(axis=1)
        group = np.zeros_like(y) if self.covariance_type == "tied" else y
        return draw_rows(self.frame, self.means[of, y], self.factors[of, group], rng), y

"""What a fit says of rows: densities, responsibilities, samples.

One class for each kind of answer: a point estimate, mean field's q(theta), draws of theta.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from . import _kernels
from ._kernels.inputs import LOWEST, Assignment, Block, Coefficients
from .conjugate import Gamma, Gaussians, IndependentNormalGamma, Tables, point
from .data import Frame
from .emissions import Gaussian
from .emissions.gaussian import CovarianceType, Distribution, draw_rows
from .exceptions import impossible_error

__all__ = [
    "Density",
    "DiscreteDensity",
    "DiscreteDrawnDensity",
    "DiscreteMeanFieldDensity",
    "DrawnDensity",
    "MeanFieldDensity",
    "PointDensity",
]

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

# Made once: a prediction of one row takes little longer than making them does.
SCORES, EXACT, HARD = Assignment("scores"), Assignment("exact"), Assignment("hard")
# Doubles that each of the few arrays has which a prediction holds beside its output.
ROOM = 2**16
# Standard deviations of the data, further than which a row's density under mean field is taken for
# that at this distance: squares would overflow.
FAR = 1e100


class Density(ABC):
    """What a fit says of rows."""

    @abstractmethod
    def responsibilities(self, values: NDArray[Any], n_threads: int) -> Array:
        """Probability of each component for each row, (N, K)."""

    @abstractmethod
    def labels(self, values: NDArray[Any], n_threads: int) -> Labels:
        """Most probable component of each row, (N,)."""

    @abstractmethod
    def log_density(self, values: NDArray[Any], n_threads: int) -> Array:
        """Log density of each row in the units of the data, (N,)."""

    @abstractmethod
    def co_assignment(self, values: NDArray[Any], n_threads: int) -> Array:
        """Probability that two different rows share a component, (N, N)."""

    @abstractmethod
    def sample(self, n: int, rng: np.random.Generator) -> tuple[Array, Labels]:
        """Draw n rows, (n, D), and their components, (n,)."""


class KernelDensity(Density):
    """A mixture with known parameters: what kernels say of rows."""

    frame: Frame

    @property
    @abstractmethod
    def coefficients(self) -> Coefficients:
        """What kernels read."""

    def _visit(
        self, values: NDArray[Any], assignment: Assignment, n_threads: int, **out: Any
    ) -> None:
        block = Block(values, None, None, self.frame.origin, self.frame.scale, 0, n_threads)
        _kernels.mixture.visit(block, self.coefficients, assignment, **out)

    def scores(self, values: NDArray[Any], n_threads: int) -> Array:
        """log pi_k + log p(x | k), (N, K), but for what kernels leave out."""
        out = np.empty((len(values), self.coefficients.offsets.size))
        self._visit(values, SCORES, n_threads, q=out)
        # A row so far away that its score is NaN, by inf - inf, is impossible.
        return np.asarray(np.fmax(out, -np.inf, out=out))

    def responsibilities(self, values: NDArray[Any], n_threads: int) -> Array:
        """Probability of each component for each row, (N, K)."""
        out = np.empty((len(values), self.coefficients.offsets.size))
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


@dataclass(frozen=True)
class PointDensity(KernelDensity):
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


class AveragedDensity(Density):
    """The posterior predictive density as an average over G draws of theta."""

    weights: Array  # (G, K)

    @property
    @abstractmethod
    def _draw_size(self) -> int:
        """Doubles of a draw's coefficients."""

    @abstractmethod
    def _draws_together(self, draws: slice) -> KernelDensity:
        """Many draws as one mixture of K components a draw."""

    def _total_scores(self, values: NDArray[Any], n_threads: int) -> Iterator[tuple[slice, Array]]:
        """Log of the sum over draws of pi_k p(x | k), (rows, K), for some rows at a time."""
        n_draws, k = self.weights.shape
        # Draws are packed anew for every block of rows: many rows, or of few rows many draws.
        step = min(len(values), max(1, ROOM // k))
        width = max(1, min(ROOM // (step * k), 4 * ROOM // self._draw_size))
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

    def _components(self, n: int, rng: np.random.Generator) -> tuple[Labels, Labels]:
        """Draw n draws, and a component of each."""
        of = rng.integers(len(self.weights), size=n)
        return of, (rng.random((n, 1)) >= np.cumsum(self.weights[of], axis=1)[:, :-1]).sum(axis=1)

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
        for n in range(len(self.weights)):
            together += self._draws_together(slice(n, n + 1)).co_assignment(values, n_threads)
        return together / len(self.weights)


@dataclass(frozen=True)
class DrawnDensity(AveragedDensity):
    """An average over G draws of a mixture of Gaussians.

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

    @property
    def _draw_size(self) -> int:
        _, k, d = self.means.shape
        return k * (d * d + 2 * d)

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

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Array, Labels]:
        """Draw n rows, (n, D), each from a draw of theta, and their components, (n,)."""
        of, y = self._components(n, rng)
        group = np.zeros_like(y) if self.covariance_type == "tied" else y
        return draw_rows(self.frame, self.means[of, y], self.factors[of, group], rng), y


@dataclass(frozen=True)
class DiscreteDensity(KernelDensity):
    """A mixture of counts or symbols with known parameters.

    Attributes
    ----------
    emission : Poisson, Bernoulli or Categorical
    weights : ndarray of shape (K,)
    parameters : Rates or Probabilities

    Notes
    -----
    A row may be impossible: its log density is -inf, and its component is not to be had.
    """

    emission: Any
    weights: Array
    parameters: Any

    frame: Frame = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "frame", self.emission.units)

    @cached_property
    def coefficients(self) -> Coefficients:
        """What kernels read."""
        emission = self.emission
        with np.errstate(divide="ignore"):
            log_weights = np.log(self.weights)
        return Coefficients(
            emission.kernel,
            emission.coefficients(self.parameters, emission.reference(self.parameters)),
            log_weights + emission.offsets(self.parameters),
            n_categories=emission.width,
        )

    def _visit(
        self, values: NDArray[Any], assignment: Assignment, n_threads: int, **out: Any
    ) -> None:
        if ("q" not in out and "labels" not in out) or assignment is SCORES:
            super()._visit(values, assignment, n_threads, **out)
            return
        log_z = np.empty(len(values))
        super()._visit(values, assignment, n_threads, log_z=log_z, **out)
        impossible = np.isneginf(log_z)
        if impossible.any():
            raise impossible_error(int(impossible.argmax()))

    def log_density(self, values: NDArray[Any], n_threads: int) -> Array:
        """Log probability of each row, (N,)."""
        return super().log_density(values, n_threads) + self.emission.log_base(values)

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Array, Labels]:
        """Draw n rows, (n, D), and their components, (n,)."""
        y = rng.choice(len(self.weights), size=n, p=self.weights / self.weights.sum())
        return self.emission.sample_rows(self.parameters, y, rng), y


@dataclass(frozen=True)
class DiscreteMeanFieldDensity(DiscreteDensity):
    """The posterior predictive density of mean field's q(pi) q(parameters).

    Negative binomials for counts; for symbols their expected probabilities. Responsibilities are
    those of q(T).

    Attributes
    ----------
    mean_weights : ndarray of shape (K,)
        E[pi].
    distribution : Gamma or Tables
    """

    mean_weights: Array
    distribution: Gamma | Tables

    @cached_property
    def _expected(self) -> DiscreteDensity:
        """The mixture with the expected parameters: for symbols, the predictive one."""
        return DiscreteDensity(self.emission, self.mean_weights, self.distribution.mean_point())

    def log_density(self, values: NDArray[Any], n_threads: int) -> Array:
        """Log posterior predictive probability of each row, (N,)."""
        if isinstance(self.distribution, Tables):
            return self._expected.log_density(values, n_threads)
        out = np.empty(len(values))
        with np.errstate(divide="ignore"):
            log_weights = np.log(self.mean_weights)
        step = max(1, ROOM // (4 * sum(self.distribution.shape.shape)))
        for row in range(0, len(values), step):
            x = values[row : row + step].astype(np.float64)
            scores = self.distribution.log_predictive(x) + log_weights
            np.logaddexp.reduce(scores, axis=1, out=out[row : row + step])
        return out

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Array, Labels]:
        """Draw n rows, (n, D), and their components, (n,)."""
        if isinstance(self.distribution, Tables):
            return self._expected.sample(n, rng)
        y = rng.choice(len(self.mean_weights), size=n, p=self.mean_weights)
        return self.distribution.sample_rows(y, rng), y


@dataclass(frozen=True)
class DiscreteDrawnDensity(AveragedDensity):
    """An average over G draws of a mixture of counts or symbols.

    Attributes
    ----------
    emission : Poisson, Bernoulli or Categorical
    weights : ndarray of shape (G, K)
    values : ndarray of shape (G, K, ...)
        Rates or probabilities.
    """

    emission: Any
    weights: Array
    values: Array

    @property
    def _draw_size(self) -> int:
        return int(self.values[0].size)

    def _draws_together(self, draws: slice) -> DiscreteDensity:
        values = self.values[draws]
        parameters = self.emission.parameters(values.reshape(-1, *values.shape[2:]))
        return DiscreteDensity(self.emission, self.weights[draws].ravel(), parameters)

    def log_density(self, values: NDArray[Any], n_threads: int) -> Array:
        """Log posterior predictive probability of each row, (N,)."""
        return super().log_density(values, n_threads) + self.emission.log_base(values)

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Array, Labels]:
        """Draw n rows, (n, D), each from a draw of theta, and their components, (n,)."""
        of, y = self._components(n, rng)
        parameters = self.emission.parameters(self.values[of, y])
        return self.emission.sample_rows(parameters, np.arange(n), rng), y

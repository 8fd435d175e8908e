"""What a fit says of rows: densities, responsibilities, labels, paths, samples.

`Known` answers for one theta, a point estimate or mean field's expectations; `Expected` for a
mixture under mean field's q(theta), integrated out; `AveragedMixture` and `AveragedChain` for
draws of theta. Rows are values (N, D), and for chains the sequences that they make. Where several
chains are coupled, what is (N,) or (N, K) here is (N, M) or (N, M, K).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax

from ._kernels.inputs import LOWEST, Assignment, Block, Coefficients, Sequences
from .conjugate import IndependentNormalGamma, Tables
from .data import portions
from .exceptions import impossible_error
from .latents import Chain, CoupledChains, Mixture
from .model import packed

__all__ = ["Answers", "AveragedChain", "AveragedMixture", "Expected", "Known"]

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

# Made once: a prediction of one row takes little longer than making them does.
SCORES, EXACT, FACTORISED, HARD, FILTER = map(
    Assignment, ("scores", "exact", "factorised", "hard", "filter")
)
# Doubles that each of the few arrays has which a prediction holds beside its output.
ROOM = 2**16
# Responsibilities of a row, of several draws, that are multiplied at a time.
WIDTH = 256
# Standard deviations of the data, further than which a row's density under mean field is taken for
# that at this distance: squares would overflow.
FAR = 1e100


def _rows_of(y: Labels, emission: Any, draw: Callable[[Labels], Array]) -> Array:
    """Rows of components y (n,), some at a time: (n, D)."""
    d = emission.n_features
    out = np.empty((len(y), d))
    for rows in portions(len(y), d * d):
        out[rows] = draw(y[rows])
    return out


def _add_products(q: Array, out: Array) -> None:
    """Add q q' to the lower triangle of out (N, N), by blocks of rows."""
    for rows in portions(len(q), max(len(q) * q.shape[1] // 32, 1)):
        q_rows = q[rows]
        out[rows, : rows.start] += q_rows @ q[: rows.start].T
        out[rows, rows] += q_rows @ q_rows.T


def _mirrored(out: Array) -> Array:
    """The symmetric matrix of which this is the lower triangle, in its place."""
    for rows in portions(len(out), len(out)):
        out[: rows.start, rows] = out[rows, : rows.start].T
        square = out[rows, rows]
        square[...] = np.tril(square) + np.tril(square, -1).T
    return out


class Answers(ABC):
    """What a fit says of rows, and of sequences of them where it is of chains."""

    emission: Any

    @abstractmethod
    def responsibilities(
        self, values: NDArray[Any], n_threads: int, sequences: Sequences | None = None
    ) -> Array:
        """Probability of each component for each row, given all of its sequence, (N, K)."""

    @abstractmethod
    def labels(
        self, values: NDArray[Any], n_threads: int, sequences: Sequences | None = None
    ) -> Labels:
        """Most probable component of each row, (N,)."""

    @abstractmethod
    def log_density(
        self, values: NDArray[Any], n_threads: int, sequences: Sequences | None = None
    ) -> Array:
        """Log density of each row given those before it, in the units of the data, (N,)."""

    @abstractmethod
    def sample(self, n: int, rng: np.random.Generator) -> tuple[Array, Labels]:
        """Draw n rows, (n, D), and their components, (n,): of a chain, one sequence."""


def _apart(n_draws: int, n: int) -> list[int]:
    """Numbers of n draws, evenly spaced; some more than once where there are fewer."""
    return [int((i + 0.5) * n_draws / n) % n_draws for i in range(n)]


@dataclass(frozen=True)
class Known(Answers):
    """A model with known parameters: what kernels say of rows.

    Attributes
    ----------
    latent : Mixture, Chain or CoupledChains
    emission : Gaussian, ...
        In the units that rows are read in.
    weights : ndarray
        Of a mixture (K,), of a chain (K + 1, K), start and transition matrix, of coupled chains
        (M, K + 1, K); or exp E[log .].
    parameters
        The emission's.

    Notes
    -----
    A row may be impossible: its log density is -inf, in a chain like that of those after it, and
    its component is not to be had. A row too far away for float64 numbers has -inf alone, and tells
    nothing of its component.
    """

    latent: Any
    emission: Any
    weights: Array
    parameters: Any

    @cached_property
    def coefficients(self) -> Coefficients:
        """What kernels read."""
        with np.errstate(divide="ignore"):
            log_weights = np.log(self.weights)
        return Coefficients(
            *packed(self.latent, self.emission, log_weights, self.weights, self.parameters)
        )

    def _visit(
        self,
        values: NDArray[Any],
        n_threads: int,
        sequences: Sequences | None,
        assignment: Assignment,
        out: dict[str, Array | Labels],
    ) -> int | None:
        units = self.emission.units
        block = Block(values, None, None, units.origin, units.scale, 0, n_threads, False, sequences)
        kernel = self.latent.kernel(False)
        impossible: int | None = kernel.visit(block, self.coefficients, assignment, **out)
        return impossible

    def _assign(
        self,
        values: NDArray[Any],
        n_threads: int,
        sequences: Sequences | None,
        assignment: Assignment,
        out: dict[str, Array | Labels],
    ) -> None:
        """Visit rows for what is said of T; ImpossibleRowError where that can't be."""
        log_z = None
        if self.emission.may_be_impossible:
            log_z = out["log_z"] = np.empty(len(values))
        impossible = self._visit(values, n_threads, sequences, assignment, out)
        if impossible is None and log_z is not None:
            bad = np.isneginf(log_z)
            impossible = int(bad.argmax()) if bad.any() else -1
        if impossible is not None and impossible >= 0:
            raise impossible_error(impossible)

    def points(self, n: int) -> list[Known]:
        """Parameters n times, each a draw of them where there are such."""
        return [self] * n

    def draw_labels(
        self,
        values: NDArray[Any],
        n_threads: int,
        sequences: Sequences | None,
        rng: np.random.Generator,
    ) -> Labels:
        """Draw the component of each row, (N,), given all that is seen; of chains paths."""
        if isinstance(self.latent, Chain):
            out = np.empty(len(values), dtype=np.int64)
            draw = Assignment("draw", seed=int(rng.integers(2**63)))
            self._visit(values, n_threads, sequences, draw, {"labels": out})
            return out
        q = self.responsibilities(values, n_threads, sequences)
        marks = rng.random((len(q), 1))
        return np.asarray((marks >= np.cumsum(q, axis=1)[:, :-1]).sum(axis=1), dtype=np.int64)

    @cached_property
    def _closest(self) -> Assignment:
        """What finds q(T): that of all chains together, where they don't have too many states."""
        many = isinstance(self.latent, CoupledChains) and not self.latent.tractable
        return FACTORISED if many else EXACT

    @cached_property
    def _likeliest(self) -> Assignment:
        """What finds labels: a chain's best path is another thing than each row's best state."""
        return EXACT if isinstance(self.latent, Chain) else HARD

    def scores(self, values: NDArray[Any], n_threads: int) -> Array:
        """log pi_k + log p(x | k) of a mixture, (N, K), but for what kernels leave out."""
        out = np.empty((len(values), self.coefficients.offsets.size))
        self._visit(values, n_threads, None, SCORES, {"q": out})
        # A row so far away that its score is NaN, by inf - inf, is impossible.
        return np.asarray(np.fmax(out, -np.inf, out=out))

    def responsibilities(
        self, values: NDArray[Any], n_threads: int, sequences: Sequences | None = None
    ) -> Array:
        """Probability of each component for each row, given all of its sequence, (N, K)."""
        out = np.empty((len(values), *self.latent.shape))
        self._assign(values, n_threads, sequences, self._closest, {"q": out})
        return out

    def filtered(
        self, values: NDArray[Any], n_threads: int, sequences: Sequences | None = None
    ) -> Array:
        """p(t | this row and those before it) of a chain, (N, K)."""
        out = np.empty((len(values), self.latent.n_components))
        self._assign(values, n_threads, sequences, FILTER, {"q": out})
        return out

    def labels(
        self, values: NDArray[Any], n_threads: int, sequences: Sequences | None = None
    ) -> Labels:
        """Most probable component of each row, (N,); of coupled chains the best path, (N, M)."""
        out = np.empty((len(values), *self.latent.shape[:-1]), dtype=np.int64)
        self._assign(values, n_threads, sequences, self._likeliest, {"labels": out})
        return out

    def log_density(
        self, values: NDArray[Any], n_threads: int, sequences: Sequences | None = None
    ) -> Array:
        """Log density of each row given those before it, in the units of the data, (N,)."""
        out = np.empty(len(values))
        assignment = FILTER if isinstance(self.latent, Chain) else EXACT
        self._visit(values, n_threads, sequences, assignment, {"log_z": out})
        base = self.emission.log_base(values)
        return out + base if isinstance(base, np.ndarray) else out

    def co_assignment(self, values: NDArray[Any], n_threads: int) -> Array:
        """Probability that two different rows share a component of a mixture, (N, N)."""
        out = np.zeros((len(values), len(values)))
        _add_products(self.responsibilities(values, n_threads), out)
        return _mirrored(out)

    def _total(
        self,
        values: NDArray[Any],
        n_threads: int,
        sequences: Sequences | None,
        assignment: Assignment,
        out: dict[str, Array | Labels],
    ) -> float:
        """Log density of all rows of chains, as the assignment has it."""
        size = self.latent.kernel(False).statistics_size(
            self.emission.kernel,
            self.latent.n_components,
            self.emission.n_features,
            self.emission.width,
        )
        statistics = out["statistics"] = np.empty(size)
        impossible = self._visit(values, n_threads, sequences, assignment, out)
        if impossible is not None and impossible >= 0:
            raise impossible_error(impossible)
        return float(statistics[0] + np.sum(self.emission.log_base(values)))

    def decode(
        self, values: NDArray[Any], n_threads: int, sequences: Sequences | None = None
    ) -> tuple[float, Labels]:
        """log p(X, T) of chains' most probable paths, and these, (N,) or (N, M)."""
        labels = np.empty((len(values), *self.latent.shape[:-1]), dtype=np.int64)
        return self._total(values, n_threads, sequences, HARD, {"labels": labels}), labels

    def log_evidence(
        self, values: NDArray[Any], n_threads: int, sequences: Sequences | None = None
    ) -> float:
        """log p(X) of chains; where they are coupled and have too many states, a lower bound."""
        # A bound is found along with q(T).
        exact = self._closest == EXACT
        out = {} if exact else {"q": np.empty((len(values), *self.latent.shape))}
        return self._total(values, n_threads, sequences, self._closest, out)

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Array, Labels]:
        """Draw n rows, (n, D), and their components: of a chain, or several, one sequence."""
        y = self.latent.draw(self.weights, n, rng)
        return _rows_of(
            y, self.emission, lambda y: self.emission.sample_rows(self.parameters, y, rng)
        ), y


@dataclass(frozen=True)
class Expected(Known):
    """A mixture under mean field: q(theta) integrated out (Bishop 10.81).

    Densities of Gaussians become Student's t, of counts negative binomial; symbols take their
    expected probabilities. Responsibilities are those of q(T), from E[log pi] and the like.

    Attributes
    ----------
    mean_weights : ndarray of shape (K,)
        E[pi].
    distribution
        q of the emission's parameters.
    """

    mean_weights: Array
    distribution: Any

    @cached_property
    def _at_mean(self) -> Known:
        """The mixture with the expected parameters: for symbols, the predictive one."""
        return Known(self.latent, self.emission, self.mean_weights, self.distribution.mean_point())

    def log_density(
        self, values: NDArray[Any], n_threads: int, sequences: Sequences | None = None
    ) -> Array:
        """Log posterior predictive density of each row, (N,)."""
        if isinstance(self.distribution, Tables):
            return self._at_mean.log_density(values, n_threads)
        units = self.emission.units
        with np.errstate(divide="ignore"):
            log_weights = np.log(self.mean_weights) + np.log(units.scale).sum()
        out = np.empty(len(values))
        # Over an independent precision log_predictive integrates by 65 points.
        points = 65 if isinstance(self.distribution, IndependentNormalGamma) else 1
        step = max(1, ROOM // (4 * (len(log_weights) + len(units.scale) * points)))
        for row in range(0, len(values), step):
            x = values[row : row + step].astype(np.float64)
            with np.errstate(over="ignore"):
                x -= units.origin
                x *= units.scale
            np.clip(x, -FAR, FAR, out=x)
            scores = self.distribution.log_predictive(x)
            scores += log_weights
            np.logaddexp.reduce(scores, axis=1, out=out[row : row + step])
        return out

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Array, Labels]:
        """Draw n rows, (n, D), and their components, (n,)."""
        if isinstance(self.distribution, Tables):
            return self._at_mean.sample(n, rng)
        y = self.latent.draw(self.mean_weights, n, rng)
        units = self.emission.units

        def draw(y: Labels) -> Array:
            return np.asarray(units.origin + self.distribution.sample_rows(y, rng) / units.scale)

        return _rows_of(y, self.emission, draw), y


@dataclass(frozen=True)
class AveragedMixture(Answers):
    """A mixture's posterior predictive density: an average over G draws of theta.

    Attributes
    ----------
    emission : Gaussian, ...
    weights : ndarray of shape (G, K)
    arrays : tuple of ndarray, each (G, K, ...) or (G, 1, ...)
        What the emission's `parameters` takes.
    """

    emission: Any
    weights: Array
    arrays: tuple[Array, ...]

    def __setstate__(self, state: dict[str, Any]) -> None:
        sizes = {np.shape(part)[:1] for part in (state["weights"], *state["arrays"])}
        if np.ndim(state["weights"]) != 2 or len(sizes) != 1 or 0 in np.shape(state["weights"]):
            raise ValueError(
                "draws of theta must be weights (G, K) and arrays (G, ...), of one draw at least; "
                f"these are {np.shape(state['weights'])} and {list(map(np.shape, state['arrays']))}"
            )
        self.__dict__.update(state)

    def points(self, n: int) -> list[Known]:
        """Draws of the parameters, n of them that lie far apart."""
        latent = Mixture(self.weights.shape[1])
        return [
            Known(
                latent,
                self.emission,
                self.weights[g],
                self.emission.parameters(*(part[g] for part in self.arrays)),
            )
            for g in _apart(len(self.weights), n)
        ]

    def _together(self, draws: slice) -> Known:
        """Many draws as one mixture of K components a draw."""
        weights = self.weights[draws].ravel()
        emission, parameters = self.emission.together(*(part[draws] for part in self.arrays))
        return Known(Mixture(len(weights)), emission, weights, parameters)

    def _total_scores(self, values: NDArray[Any], n_threads: int) -> Iterator[tuple[slice, Array]]:
        """Log of the sum over draws of pi_k p(x | k), (rows, K), for some rows at a time."""
        n_draws, k = self.weights.shape
        # Draws are packed anew for every block of rows: many rows, or of few rows many draws.
        step = min(len(values), max(1, ROOM // k))
        draw_size = self._together(slice(0, 1)).coefficients.coefficients.size
        width = max(1, min(ROOM // (step * k), 4 * ROOM // draw_size))
        for row in range(0, len(values), step):
            rows = slice(row, row + step)
            part = values[rows]
            # The sum so far is sums * exp(top), top finite so that -inf - top is no NaN.
            top, sums = np.full((len(part), k), LOWEST), np.zeros((len(part), k))
            for first in range(0, n_draws, width):
                together = self._together(slice(first, first + width))
                scores = together.scores(part, n_threads).reshape(len(part), -1, k)
                higher = np.maximum(top, scores.max(axis=1))
                sums *= np.exp(top - higher)
                scores -= higher[:, None]
                sums += np.exp(scores, out=scores).sum(axis=1)
                top = higher
            with np.errstate(divide="ignore"):
                total = top + np.log(sums)
            yield rows, total

    def responsibilities(
        self, values: NDArray[Any], n_threads: int, sequences: Sequences | None = None
    ) -> Array:
        """p(t | x, X), (N, K); a row impossible under all components is shared equally."""
        out = np.empty((len(values), self.weights.shape[1]))
        for rows, total in self._total_scores(values, n_threads):
            total[np.all(total == -np.inf, axis=1)] = 0.0
            out[rows] = softmax(total, axis=1)
        return out

    def labels(
        self, values: NDArray[Any], n_threads: int, sequences: Sequences | None = None
    ) -> Labels:
        """Most probable component of each row, (N,)."""
        out = np.empty(len(values), dtype=np.int64)
        for rows, total in self._total_scores(values, n_threads):
            total.argmax(axis=1, out=out[rows])
        return out

    def log_density(
        self, values: NDArray[Any], n_threads: int, sequences: Sequences | None = None
    ) -> Array:
        """Log posterior predictive density of each row, (N,)."""
        out = np.empty(len(values))
        for rows, total in self._total_scores(values, n_threads):
            np.logaddexp.reduce(total, axis=1, out=out[rows])
        out += self.emission.log_base(values) - np.log(len(self.weights))
        return out

    def co_assignment(self, values: NDArray[Any], n_threads: int) -> Array:
        """Probability that two different rows share a component, averaged over draws, (N, N)."""
        out = np.zeros((len(values), len(values)))
        n_draws, k = self.weights.shape
        # Draws side by side: their sums of products are one product.
        width = max(1, min(WIDTH // k, n_draws))
        for first in range(0, n_draws, width):
            draws = range(first, min(first + width, n_draws))
            q = [self._together(slice(n, n + 1)).responsibilities(values, n_threads) for n in draws]
            _add_products(np.hstack(q), out)
        return _mirrored(out) / n_draws

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Array, Labels]:
        """Draw n rows, (n, D), each from a draw of theta, and their components, (n,)."""
        y = np.empty(n, dtype=np.int64)

        def draw(y: Labels) -> Array:
            of = rng.integers(len(self.weights), size=len(y))
            marks = rng.random((len(y), 1))
            y[:] = (marks >= np.cumsum(self.weights[of], axis=1)[:, :-1]).sum(axis=1)
            # What all components share has one entry.
            each = (part[of, y if part.shape[1] > 1 else 0] for part in self.arrays)
            parameters = self.emission.parameters(*each)
            return np.asarray(self.emission.sample_rows(parameters, np.arange(len(y)), rng))

        return _rows_of(y, self.emission, draw), y


@dataclass(frozen=True)
class AveragedChain(Answers):
    """An average over draws of theta.

    Attributes
    ----------
    draws : list of Known
        In one order of the states.
    middle : Known
        Theta at the draws' means, for what has no average: a path.
    """

    draws: list[Known]
    middle: Known

    def __setstate__(self, state: dict[str, Any]) -> None:
        if not state["draws"]:
            raise ValueError("draws of theta must be one at least; there are none")
        self.__dict__.update(state)

    def points(self, n: int) -> list[Known]:
        """Draws of the parameters, n of them that lie far apart."""
        return [self.draws[g] for g in _apart(len(self.draws), n)]

    @property
    def emission(self) -> Any:
        """That of all."""
        return self.middle.emission

    @property
    def latent(self) -> Any:
        """That of all."""
        return self.middle.latent

    def log_density(
        self, values: NDArray[Any], n_threads: int, sequences: Sequences | None = None
    ) -> Array:
        """log p(x_t | x_1, ..., x_(t-1), X), (N,): theta is learnt of along the sequence."""
        each = np.array([draw.log_density(values, n_threads, sequences) for draw in self.draws])
        # Rows too far away tell nothing of states, nor of theta.
        gone = np.isneginf(each).all(axis=0) & (not self.emission.may_be_impossible)
        each[:, gone] = 0.0
        # Beside the most of all draws: sums of what is far away from all would overflow.
        most = each.max(axis=0)
        most[np.isneginf(most)] = 0.0
        each -= most
        offsets = [0, len(values)] if sequences is None else sequences.offsets.tolist()
        out = np.empty(len(values))
        for first, end in pairwise(offsets):
            with np.errstate(over="ignore"):
                so_far = np.cumsum(each[:, first:end], axis=1)
            total = logsumexp(so_far, axis=0) - np.log(len(each))
            possible = total > -np.inf
            steps = np.diff(total[possible], prepend=0.0)
            out[first:end] = -np.inf
            out[first:end][possible] = most[first:end][possible] + steps
        out[gone] = -np.inf
        return out

    def _mean(self, of: Callable[[Known], Array]) -> Array:
        total = of(self.draws[0])
        for draw in self.draws[1:]:
            total += of(draw)
        return total / len(self.draws)

    def responsibilities(
        self, values: NDArray[Any], n_threads: int, sequences: Sequences | None = None
    ) -> Array:
        """p(t | all rows of the sequence), averaged, (N, K)."""
        return self._mean(lambda draw: draw.responsibilities(values, n_threads, sequences))

    def filtered(
        self, values: NDArray[Any], n_threads: int, sequences: Sequences | None = None
    ) -> Array:
        """p(t | this row and those before it), averaged, (N, K)."""
        return self._mean(lambda draw: draw.filtered(values, n_threads, sequences))

    def labels(
        self, values: NDArray[Any], n_threads: int, sequences: Sequences | None = None
    ) -> Labels:
        """Most probable state of each row, (N,)."""
        return self.responsibilities(values, n_threads, sequences).argmax(axis=1)

    def decode(
        self, values: NDArray[Any], n_threads: int, sequences: Sequences | None = None
    ) -> tuple[float, Labels]:
        """log p(X, T) of the most probable paths at the mean theta, and these, (N,)."""
        return self.middle.decode(values, n_threads, sequences)

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Array, Labels]:
        """Draw a sequence of n rows, (n, D), by a draw of theta, and its states, (n,)."""
        return self.draws[rng.integers(len(self.draws))].sample(n, rng)

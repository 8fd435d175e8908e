"""What a fit of a hidden Markov model says of sequences.

One class for each kind of answer: a point theta (or mean field's expectations), draws of theta.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from ._kernels.inputs import Assignment, Block, Coefficients, Sequences
from .exceptions import impossible_error
from .latents import Chain

__all__ = ["DrawnChain", "PointChain", "Rows"]

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

EXACT, FILTER, HARD = Assignment("exact"), Assignment("filter"), Assignment("hard")


class Rows(NamedTuple):
    """Rows to be told of.

    Attributes
    ----------
    values : ndarray of shape (N, D)
    sequences : Sequences, optional
    n_threads : int
    """

    values: NDArray[Any]
    sequences: Sequences | None
    n_threads: int


@dataclass(frozen=True)
class PointChain:
    """A hidden Markov model with known parameters.

    Attributes
    ----------
    latent : Chain
    emission : Gaussian, ...
        In the units that rows are read in.
    weights : ndarray of shape (K + 1, K)
        Start and transition matrix, or exp E[log .] of them.
    parameters
        The emission's.
    """

    latent: Chain
    emission: Any
    weights: Array
    parameters: Any

    @cached_property
    def coefficients(self) -> Coefficients:
        """What kernels read."""
        with np.errstate(divide="ignore"):
            scores, latent = self.latent.coefficients(np.log(self.weights), self.weights)
        return Coefficients(
            self.emission.kernel,
            self.emission.coefficients(self.parameters, self.emission.reference(self.parameters)),
            self.emission.offsets(self.parameters) + scores,
            latent,
            self.emission.width,
            self.emission.may_be_impossible,
        )

    def _visit(
        self,
        rows: Rows,
        assignment: Assignment,
        **out: Any,
    ) -> int:
        units = self.emission.units
        block = Block(
            rows.values,
            None,
            None,
            units.origin,
            units.scale,
            0,
            rows.n_threads,
            sequences=rows.sequences,
        )
        kernel = self.latent.kernel(False)
        return int(kernel.visit(block, self.coefficients, assignment, **out))

    def _states(
        self,
        rows: Rows,
        assignment: Assignment,
        **out: Any,
    ) -> None:
        impossible = self._visit(rows, assignment, **out)
        if impossible >= 0:
            raise impossible_error(impossible)

    def log_density(self, rows: Rows) -> Array:
        """log p(x_t | x_1, ..., x_(t-1)) in the units of the data, (N,).

        -inf from an impossible row of a sequence on; of a row too far away for float64 numbers,
        which tells nothing of its state, alone.
        """
        out = np.empty(len(rows.values))
        self._visit(rows, FILTER, log_z=out)
        out += self.emission.log_base(rows.values)
        return out

    def smoothed(self, rows: Rows) -> Array:
        """p(t | all rows of the sequence), (N, K)."""
        out = np.empty((len(rows.values), self.latent.n_components))
        self._states(rows, EXACT, q=out)
        return out

    def filtered(self, rows: Rows) -> Array:
        """p(t | this row and those before it), (N, K)."""
        out = np.empty((len(rows.values), self.latent.n_components))
        self._states(rows, FILTER, q=out)
        return out

    def labels(self, rows: Rows) -> Labels:
        """Most probable state of each row, (N,)."""
        out = np.empty(len(rows.values), dtype=np.int64)
        self._states(rows, EXACT, labels=out)
        return out

    def decode(self, rows: Rows) -> tuple[float, Labels]:
        """log p(X, T) of the most probable paths, and these, (N,)."""
        labels = np.empty(len(rows.values), dtype=np.int64)
        size = self.latent.kernel(False).statistics_size(
            self.emission.kernel,
            self.latent.n_components,
            self.emission.n_features,
            self.emission.width,
        )
        statistics = np.empty(size)
        self._states(rows, HARD, labels=labels, statistics=statistics)
        return float(statistics[0] + np.sum(self.emission.log_base(rows.values))), labels

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Array, Labels]:
        """Draw a sequence of n rows, (n, D), and its states, (n,)."""
        cumulative = np.cumsum(self.weights, axis=1)
        cumulative /= cumulative[:, -1:]
        states = np.empty(n, dtype=np.int64)
        row = 0
        for t, mark in enumerate(rng.random(n)):
            states[t] = np.searchsorted(cumulative[row], mark, side="right")
            row = states[t] + 1
        return self.emission.sample_rows(self.parameters, states, rng), states


@dataclass(frozen=True)
class DrawnChain:
    """An average over draws of theta.

    Attributes
    ----------
    draws : list of PointChain
        In one order of the states.
    middle : PointChain
        Theta at the draws' means, for what has no average: a path.
    """

    draws: list[PointChain]
    middle: PointChain

    @property
    def emission(self) -> Any:
        """That of all."""
        return self.middle.emission

    def log_density(self, rows: Rows) -> Array:
        """log p(x_t | x_1, ..., x_(t-1), X), (N,): theta is learnt of along the sequence."""
        each = np.array([draw.log_density(rows) for draw in self.draws])
        # Rows too far away tell nothing of states, nor of theta.
        gone = np.isneginf(each).all(axis=0) & (not self.emission.may_be_impossible)
        each[:, gone] = 0.0
        offsets = [0, len(rows.values)]
        if rows.sequences is not None:
            offsets = rows.sequences.offsets.tolist()
        out = np.empty(len(rows.values))
        for first, end in pairwise(offsets):
            so_far = np.cumsum(each[:, first:end], axis=1)
            total = logsumexp(so_far, axis=0) - np.log(len(each))
            possible = total > -np.inf
            steps = np.diff(total[possible], prepend=0.0)
            out[first:end] = -np.inf
            out[first:end][possible] = steps
        out[gone] = -np.inf
        return out

    def _mean(self, of: Callable[[PointChain], Array]) -> Array:
        total = of(self.draws[0])
        for draw in self.draws[1:]:
            total += of(draw)
        return total / len(self.draws)

    def smoothed(self, rows: Rows) -> Array:
        """p(t | all rows of the sequence), averaged, (N, K)."""
        return self._mean(lambda draw: draw.smoothed(rows))

    def filtered(self, rows: Rows) -> Array:
        """p(t | this row and those before it), averaged, (N, K)."""
        return self._mean(lambda draw: draw.filtered(rows))

    def labels(self, rows: Rows) -> Labels:
        """Most probable state of each row, (N,)."""
        return self.smoothed(rows).argmax(axis=1)

    def decode(self, rows: Rows) -> tuple[float, Labels]:
        """log p(X, T) of the most probable paths at the mean theta, and these, (N,)."""
        return self.middle.decode(rows)

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Array, Labels]:
        """Draw a sequence of n rows, (n, D), by a draw of theta, and its states, (n,)."""
        return self.draws[rng.integers(len(self.draws))].sample(n, rng)

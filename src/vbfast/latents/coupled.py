"""Several Markov chains, independent a priori, whose states together make a row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .. import _kernels
from .._kernels.inputs import Assignment, Block, Coefficients, CoupledCoefficients
from ..conjugate import LEAST_CONCENTRATION, MOST_ROWS
from ..data import check_size, portions
from ..stats import Stats
from .chain import Chains, joined

__all__ = ["CoupledChains", "Factorisation"]

Array = NDArray[np.float64]
Factorisation = Literal["blocks", "structured", "complete"]
# Up to so many states the product chain is computed with, of all chains or of a block of them.
MOST_STATES = 4096
# And so many blocks are tried where one can't hold all.
MOST_TRIALS = 200


@dataclass(frozen=True)
class CoupledChains(Chains):
    """M chains of K states: s_1^m ~ start_m, s_t^m | s_t-1^m = j ~ transition_m[j].

    Ghahramani & Jordan (1997), 2-3. What a row tells of the states depends on those of all chains,
    so that an emission such as `AdditiveGaussian` goes with them.

    Factorised assignments, draws, and best paths of more than 4,096 joint states go chain by chain,
    or by blocks of chains, each given the last q(T) of the others: data must have a memory for it,
    ``data.with_memory(model.memory_width)``, and no two fits or chains may share it.

    Parameters
    ----------
    n_chains, n_components : int
        M and K.
    factorisation : {"blocks", "structured", "complete"}
        The family of q(T) where a method asks for a factorised one: blocks of chains, exact where
        one holds all; a chain each; or a state of a chain each. Best paths go by blocks with
        "blocks", else by chains, where all together are more than 4,096 joint states.
    start_concentration, transition_concentration : float, optional
        Of Dirichlet priors; flat where not given: they then add nothing to an objective.
    block_states : int
        Joint states of a block at most, if it has more than one chain.
    block_trials : int
        Blocks that are tried at most for rows of which nothing is known: 0 or 1 where a fit will
        draw others anyway.
    """

    n_chains: int
    n_components: int
    factorisation: Factorisation = "blocks"
    start_concentration: float | None = None
    transition_concentration: float | None = None
    block_states: int = MOST_STATES
    block_trials: int = MOST_TRIALS

    def __post_init__(self) -> None:
        for name in ("n_chains", "n_components", "block_states"):
            object.__setattr__(self, name, check_size(name, getattr(self, name)))
        if self.factorisation not in get_args(Factorisation):
            raise ValueError(
                "factorisation must be 'blocks', 'structured' or 'complete', not "
                f"{self.factorisation!r}"
            )
        for name in ("start_concentration", "transition_concentration"):
            alpha = getattr(self, name)
            # Narrow NumPy numbers have no room for a bound.
            number = alpha.item() if isinstance(alpha, np.generic) else alpha
            if alpha is not None and not LEAST_CONCENTRATION <= number <= MOST_ROWS:
                raise ValueError(
                    f"{name} must be None or a number from {LEAST_CONCENTRATION} to {MOST_ROWS:g}, "
                    f"not {alpha!r}"
                )

    @property
    def n_states(self) -> int:
        """States of the product chain, K^M."""
        return self.n_components**self.n_chains

    @property
    def tractable(self) -> bool:
        """Whether the product chain is computed with."""
        return self._within(MOST_STATES)

    def _within(self, most: int) -> bool:
        # Of many chains the power itself would take all memory.
        few = self.n_components == 1 or self.n_chains <= most.bit_length()
        return few and self.n_states <= most

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Of a row's q(T): a distribution for each chain."""
        return self.n_chains, self.n_components

    @property
    def memory_width(self) -> int:
        """Numbers that data remember of a row: q(T), M K, and with blocks M + 1 of these."""
        width = self.n_chains * self.n_components
        return width + self.n_chains + 1 if self.factorisation == "blocks" else width

    @cached_property
    def _prior(self) -> Array:
        # Under a factorised q(T) a transition of expected count 1e-30 must not become impossible.
        out = np.zeros((self.n_chains, self.n_components + 1, self.n_components))
        for rows, alpha in (
            (out[:, 0], self.start_concentration),
            (out[:, 1:], self.transition_concentration),
        ):
            rows[...] = 0.0 if alpha is None else alpha - 1.0
        return out

    def coefficients(self, log_weights: Array, weights: Array) -> tuple[float, Array]:
        """What is added to all scores, nothing, and what the kernel reads besides.

        Logarithms: of independent q(T) next to none of a pair of states may be as much in a bound
        as all of it, where a prior makes expected ones -1e8.
        """
        return 0.0, np.minimum(log_weights, 0.0).ravel()

    def kind(self, assignment: Assignment) -> str:
        """What the kernel calls an assignment.

        Raises
        ------
        ValueError
            If it can't be had: exact q(T) of more than 4,096 joint states.
        """
        match assignment.kind:
            case "exact":
                if not self.tractable:
                    told = f"{self.n_components}**{self.n_chains}"
                    if self.n_chains < 64:
                        told = str(self.n_states)
                    raise ValueError(
                        f"{self.n_chains} chains of {self.n_components} components have "
                        f"{told} joint states: exact q(T) takes {MOST_STATES} at most. "
                        "Use variational EM, method='variational_em', or mean field with a "
                        "factorised q(T), method='mean_field'"
                    )
                return "exact"
            case "factorised":
                one = self.factorisation == "blocks" and self._within(self.block_states)
                return "exact" if one else self.factorisation
            case "hard":
                if self.tractable:
                    return "joint_best"
                return "blocks_best" if self.factorisation == "blocks" else "best"
            case "draw":
                return "draw"
        raise ValueError(
            f"coupled chains take no assignment {assignment.kind!r} (a truncation is for mixtures)"
        )

    def kernel(self, single: bool) -> CoupledChains:
        """These chains: they tell the compiled recursions what these are to do."""
        return self

    def statistics_size(
        self, emission: str, n_components: int, n_features: int, n_categories: int
    ) -> int:
        """Length of the statistics that `visit` fills."""
        size: int = _kernels.factorial.statistics_size(self.n_chains, n_components, n_features)
        return size

    def visit(
        self,
        block: Block,
        theta: Coefficients,
        assignment: Assignment,
        *,
        statistics: Array | None = None,
        q: Array | None = None,
        labels: NDArray[np.int64] | None = None,
        log_z: Array | None = None,
    ) -> int:
        """Assign states to rows, as kernels of other latent structures do.

        Parameters
        ----------
        block, theta, assignment
        statistics : ndarray of shape (statistics_size,), optional
            Filled with log_z, first states and transitions, and what the emission needs.
        q, labels : ndarray of shape (N, M, K), (N, M), optional
            Filled with q(T), or with the largest of it. It is found anew then: the block's memory
            is left alone.
        log_z : None
            Of each row there is none.

        Returns
        -------
        int
            -1: every row is possible, or its sequence's log_z says so.

        Raises
        ------
        ValueError
            If theta is of other rows, the block has weights, or no memory where one is needed, or
            the assignment can't be had: see `kind`.
        """
        m, k, d = self.n_chains, self.n_components, len(block.origin)
        if block.weights is not None:
            raise ValueError("rows of sequences can't have weights: give data without")
        if log_z is not None:
            raise ValueError("coupled chains give log densities of sequences, not of single rows")
        kind = self.kind(assignment)
        if q is not None or labels is not None:
            memory = np.full((len(block.values), self.memory_width), np.nan)
            block = replace(block, memory=memory)
        elif block.memory is None and kind not in ("exact", "joint_best"):
            raise ValueError(
                f"{kind!r} q(T) is found from the last one: give the data a memory, "
                "data.with_memory(model.memory_width)"
            )
        if statistics is None:
            statistics = np.empty(_kernels.factorial.statistics_size(m, k, d))
        if theta.emission != "additive" or theta.latent is None:
            raise ValueError(f"coupled chains take theta of 'additive', not {theta.emission!r}")
        whitening, means = theta.coefficients[: d * d], theta.coefficients[d * d :]
        log_weights = theta.latent.reshape(m, k + 1, k)
        _kernels.factorial.visit(
            block,
            CoupledCoefficients(
                whitening.reshape(d, d),
                means.reshape(m * k, -1),
                theta.offsets[0],
                np.ascontiguousarray(log_weights[:, 0]),
                np.ascontiguousarray(log_weights[:, 1:]),
            ),
            kind,
            statistics=statistics,
            seed=assignment.seed,
            sweep=assignment.sweep,
            block_states=self.block_states,
            n_trials=self.block_trials,
        )
        if q is not None:
            q.reshape(-1, m * k)[...] = memory[:, : m * k]
        if labels is not None:
            memory[:, : m * k].reshape(-1, m, k).argmax(axis=2, out=labels)
        return -1

    def collect(self, raw: Array, n_rows: int) -> tuple[dict[str, Array], int, Array]:
        """Read what `visit` adds up beside log_z: see `Mixture.collect`."""
        m, k = self.n_chains, self.n_components
        end = m * k * (k + 1)
        start, transition = raw[: m * k].reshape(m, k), raw[m * k : end].reshape(m, k, k)
        return {"excess": joined(start, transition)}, n_rows, raw[end:]

    def around(self, counts: tuple[int, int], weights: Array) -> dict[str, Array]:
        """Statistics of chains that start and step with these probabilities, (M, K + 1, K).

        Parameters
        ----------
        counts : tuple of int
            Sequences, and rows.
        weights : ndarray of shape (M, K + 1, K)
        """
        n_sequences, n_rows = counts
        steps = np.full(self.n_components, (n_rows - n_sequences) / self.n_components)
        return {"excess": weights * np.append(n_sequences, steps)[:, None]}

    def draw(self, weights: Array, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw the states of a sequence of n rows, (n, M)."""
        cumulative = np.cumsum(weights, axis=2)[:, :, :-1]
        states = np.empty((n, self.n_chains), dtype=np.int64)
        of, row = np.arange(self.n_chains), np.zeros(self.n_chains, dtype=np.int64)
        for rows in portions(n, self.n_chains):
            marks = rng.random((rows.stop - rows.start, self.n_chains, 1))
            for t, mark in enumerate(marks, rows.start):
                states[t] = (mark >= cumulative[of, row]).sum(axis=1)
                row = states[t] + 1
        return states

    def log_density_terms(self, posterior: Stats, weights: Array) -> tuple[float, Array]:
        """Density of `weights`, of one order alone: see `Model.log_density_terms`."""
        return self.distribution(posterior).log_density(weights), np.zeros((1, 1))

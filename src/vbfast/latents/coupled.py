"""Several Markov chains, independent a priori, whose states together make a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._kernels.inputs import Assignment
from ..conjugate import LEAST_CONCENTRATION, MOST_ROWS, Dirichlet
from ..data import check_size
from ..stats import Stats
from .chain import LEAST_LOG

__all__ = ["CoupledChains", "Factorisation"]

Array = NDArray[np.float64]
Factorisation = Literal["blocks", "structured", "complete"]
# Up to so many states the product chain is computed with, of all chains or of a block of them.
MOST_STATES = 4096
# And so many blocks are tried where one can't hold all.
MOST_TRIALS = 200


@dataclass(frozen=True)
class CoupledChains:
    """M chains of K states: s_1^m ~ start_m, s_t^m | s_t-1^m = j ~ transition_m[j].

    Ghahramani & Jordan (1997), 2-3.

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
            if alpha is not None and not LEAST_CONCENTRATION <= alpha <= MOST_ROWS:
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

    @property
    def memory_width(self) -> int:
        """Numbers that data remember of a row: q(T), M K, and with blocks M + 1 of these."""
        width = self.n_chains * self.n_components
        return width + self.n_chains + 1 if self.factorisation == "blocks" else width

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

    def fields(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Names and shapes of this latent structure's statistics."""
        m, k = self.n_chains, self.n_components
        return (("start", (m, k)), ("transition", (m, k, k)))

    def prior(self) -> dict[str, ArrayLike]:
        """Hyperparameters: what concentrations exceed 1 by, so that posteriors keep small counts.

        Under a factorised q(T) a transition of expected count 1e-30 must not become impossible.
        """
        start, transition = self.start_concentration, self.transition_concentration
        return {
            "start": 0.0 if start is None else start - 1.0,
            "transition": 0.0 if transition is None else transition - 1.0,
        }

    def distributions(self, stats: Stats | Mapping[str, Array]) -> tuple[Dirichlet, Dirichlet]:
        """Statistics read as distributions over start and transition probabilities."""
        start, transition = stats["start"], stats["transition"]
        return Dirichlet(start + 1.0, start), Dirichlet(transition + 1.0, transition)

    def mode(self, stats: Stats) -> tuple[Array, Array]:
        """Probabilities of highest density (Bishop B.22 ff.); equal ones where all counts are 0.

        Raises
        ------
        ValueError
            If a concentration is below 1.
        """
        start, transition = self.distributions(stats)
        return start.mode(), transition.mode()

    @cached_property
    def _prior_distributions(self) -> tuple[Dirichlet, Dirichlet]:
        prior = self.prior()
        shapes = dict(self.fields())
        return self.distributions({name: np.full(shapes[name], prior[name]) for name in prior})

    def mean(self, stats: Stats) -> tuple[Array, Array, float]:
        """exp E[log start], exp E[log transition], and KL(q || p)."""
        posteriors = self.distributions(stats)
        start, transition = (np.exp(np.maximum(q.mean_log(), LEAST_LOG)) for q in posteriors)
        pairs = zip(posteriors, self._prior_distributions, strict=True)
        return start, transition, sum(q.kl(p) for q, p in pairs)

    def log_prior(self, start: Array, transition: Array) -> float:
        """log p(start, transition); flat priors add nothing."""
        priors = self._prior_distributions
        value = 0.0
        if self.start_concentration is not None:
            value += priors[0].log_density(start)
        if self.transition_concentration is not None:
            value += priors[1].log_density(transition)
        return value

    def around(
        self, start: Array, transition: Array, n_sequences: int, n_rows: int
    ) -> dict[str, Array]:
        """Statistics of chains that start and step with these probabilities."""
        steps = (n_rows - n_sequences) / self.n_components
        return {"start": n_sequences * start, "transition": steps * transition}

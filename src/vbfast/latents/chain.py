"""Rows that follow each other: t_1 ~ start, t_n | t_(n-1) ~ a row of the transition matrix."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import permutations
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _kernels
from .._kernels.inputs import Assignment, Coefficients
from ..conjugate import LEAST_CONCENTRATION, MOST_ROWS, Dirichlet
from ..data import ByValue, check_size, portions
from ..stats import Stats
from .mixture import EMPTY_SHARE, held

__all__ = ["Chain", "Chains", "Initial", "joined", "reordered", "stationary_distribution"]

Array = NDArray[np.float64]
Initial = Literal["free", "stationary"]

# A stationary chain's M-step begins with transition probabilities that are no smaller.
LEAST = 1e-3

# Expected logarithms are no smaller, so that no transition is lost.
LEAST_LOG = -690.0
# Probabilities below this are taken for 0 in a fit with exact q(T): see `Chain.likely`.
LEAST_TRANSITION = 1e-100
# States up to which all orders of groups are tried; else how often a search begins.
FEW_STATES, ASSIGNMENTS = 6, 8


def joined(start: Array, transition: Array) -> Array:
    """Start (..., K) and transition probabilities (..., K, K) as one array, (..., K + 1, K)."""
    return np.concatenate([start[..., None, :], transition], axis=-2)


def reordered(weights: Array, orders: NDArray[np.int64]) -> Array:
    """Weights (..., K + 1, K) with the states in these orders, (..., K)."""
    start = np.take_along_axis(weights[..., 0, :], orders, axis=-1)
    rows = np.take_along_axis(weights[..., 1:, :], orders[..., :, None], axis=-2)
    return joined(start, np.take_along_axis(rows, orders[..., None, :], axis=-1))


class Chains(ABC):
    """What a Markov chain and several have in common: a distribution for each first state and row.

    Probabilities, and what is counted, have shape (..., K + 1, K): of a chain the first state's
    distribution, then the transition matrix.
    """

    n_components: int
    start_concentration: ArrayLike | None
    transition_concentration: ArrayLike | None
    initial: Initial = "free"
    #: Kernels visit rows for one theta at a time.
    several: ClassVar[bool] = False
    #: The compiled loop doesn't know it: see loops.py.
    compiled: ClassVar[bool] = False

    @property
    @abstractmethod
    def _prior(self) -> Array:
        """Concentrations less 1: a flat prior is 0, beside which no count loses a digit."""

    def fields(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Names and shapes of this latent structure's statistics."""
        return (("excess", self._prior.shape),)

    def prior(self) -> dict[str, ArrayLike]:
        """Hyperparameters: concentrations less 1, of what is impossible -1."""
        return {"excess": self._prior}

    def distribution(self, stats: Stats | Mapping[str, Array]) -> Dirichlet:
        """Statistics read as a distribution over first states (row 0) and transition matrix."""
        excess = stats["excess"]
        kind = Dirichlet if self.initial == "free" else _Stationary
        return kind(excess + 1.0, excess)

    def coefficients(self, log_weights: Array, weights: Array) -> tuple[float, Array]:
        """What is added to all scores, nothing, and what the kernel reads besides."""
        logs = np.where(log_weights > -np.inf, np.maximum(log_weights, LEAST_LOG), -np.inf)
        out = np.minimum(np.exp(logs), 1.0)
        low = log_weights < logs
        if low.any():  # what is known, and no expectation that has no such number
            with np.errstate(divide="ignore"):
                known = low & (np.log(weights) == log_weights)
            out[known] = weights[known]
        return 0.0, out.ravel()

    def likely(self, theta: Coefficients, assignment: Assignment) -> Coefficients:
        """Theta for statistics of a fit: as it is."""
        return theta

    @cached_property
    def _priors(self) -> tuple[Dirichlet, Dirichlet]:
        """Of first states, and of transitions."""
        concentration = self._prior + 1.0
        return Dirichlet(concentration[..., 0, :]), Dirichlet(concentration[..., 1:, :])

    def log_prior(self, prior: Dirichlet, weights: Array) -> float:
        """log p(start, transition matrix); 0 for what of it is flat."""
        value = 0.0
        if self.start_concentration is not None and self.initial == "free":
            value += self._priors[0].log_density(weights[..., 0, :])
        if self.transition_concentration is not None:
            value += self._priors[1].log_density(weights[..., 1:, :])
        return value

    def draw_order(self, posterior: Stats, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw an order of the states given which rows are together: as they are."""
        return np.arange(self.n_components)


@dataclass(frozen=True, eq=False)
class Chain(ByValue, Chains):
    """A Markov chain of hidden states, each row of its transition matrix Dirichlet.

    Parameters
    ----------
    n_components : int
        K, the states.
    start_concentration : float or array-like of shape (K,), optional
        Of the Dirichlet prior on the distribution of a sequence's first state.
    transition_concentration : float or array-like of shape (K, K), optional
        Of those on the rows of the transition matrix. Flat where not given, as the other one: they
        then add nothing to an objective.
    possible : array-like of bool, of shape (K + 1, K), optional
        Which first states (row 0) and which transitions are; the others have probability 0.
    initial : {"free", "stationary"}
        Whether the first state's distribution is a parameter of its own, or the transition
        matrix's stationary distribution. That is not conjugate: theta can then be a mode only.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of these; if a state has no possible next one.
    """

    n_components: int
    start_concentration: ArrayLike | None = None
    transition_concentration: ArrayLike | None = None
    possible: ArrayLike | None = None
    initial: Initial = "free"

    def __post_init__(self) -> None:
        k = check_size("n_components", self.n_components)
        object.__setattr__(self, "n_components", k)
        if self.initial not in get_args(Initial):
            raise ValueError(f"initial must be 'free' or 'stationary', not {self.initial!r}")
        _ = self._prior

    @cached_property
    def _possible(self) -> NDArray[np.bool_]:
        """Which first states and transitions are possible, (K + 1, K)."""
        shape = self.n_components + 1, self.n_components
        if self.possible is None:
            return np.ones(shape, dtype=bool)
        possible = np.asarray(self.possible, dtype=bool)
        if possible.shape != shape:
            raise ValueError(f"possible must have shape {shape}, got {possible.shape}")
        none = np.flatnonzero(~possible.any(axis=1))
        if len(none):
            raise ValueError(f"possible[{none[0]}] allows no state at all")
        return possible

    @cached_property
    def _prior(self) -> Array:
        k = self.n_components
        concentration = np.ones((k + 1, k))
        for name, rows, possible, shape in (
            ("start_concentration", concentration[0], self._possible[0], (k,)),
            ("transition_concentration", concentration[1:], self._possible[1:], (k, k)),
        ):
            given = getattr(self, name)
            if given is None:
                continue
            value = np.asarray(given, dtype=float)
            if value.shape not in ((), shape):
                raise ValueError(f"{name} must be a number or of shape {shape}, got {value.shape}")
            rows[...] = value
            # What is fixed at 0 has no prior: a 0 says so.
            none = ~possible & (rows == 0)
            bad = np.argwhere(~(none | ((rows >= LEAST_CONCENTRATION) & (rows <= MOST_ROWS))))
            if len(bad):
                raise ValueError(
                    f"{name} has {rows[tuple(bad[0])]}; finite numbers > 0 are allowed, "
                    f"{LEAST_CONCENTRATION} at least and {MOST_ROWS:g} at most"
                )
        return np.asarray(concentration * self._possible - 1.0)

    @property
    def exchangeable(self) -> bool:
        """Whether the prior is the same for every order of the states."""
        return all(len(np.unique(part)) == 1 for part in np.split(self._prior, [1]))

    def like_prior(self, orders: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the prior is the same for the states in these orders (G, K), (G,)."""
        first, moves = self._prior[0], self._prior[1:]
        same = (first[orders] == first).all(axis=1)
        return same & (moves[orders[:, :, None], orders[:, None, :]] == moves).all(axis=(1, 2))

    def kernel(self, single: bool) -> Any:
        """Compiled recursions over rows: in float64 arithmetic, always."""
        return _kernels.chain

    @cached_property
    def shape(self) -> tuple[int]:
        """Of a row's q(T)."""
        return (self.n_components,)

    @property
    def memory_width(self) -> int:
        """Numbers that data remember of a row where q(T) is factorised: it."""
        return self.n_components

    @property
    def n_coordinates(self) -> int:
        """How many `coordinates` there are, one a first state (K,) and transition (K, K)."""
        return (self.n_components + 1) * self.n_components

    @property
    def equal(self) -> Array:
        """Every possible state as probable as the others, (K + 1, K)."""
        return np.asarray(self._possible / self._possible.sum(axis=1, keepdims=True))

    def draw(self, weights: Array, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw the states of a sequence of n rows, (n,)."""
        cumulative = np.cumsum(weights, axis=1)
        cumulative /= cumulative[:, -1:]
        states = np.empty(n, dtype=np.int64)
        row = 0
        for rows in portions(n):
            for t, mark in enumerate(rng.random(rows.stop - rows.start), rows.start):
                states[t] = np.searchsorted(cumulative[row], mark, side="right")
                row = states[t] + 1
        return states

    def likely(self, theta: Coefficients, assignment: Assignment) -> Coefficients:
        """Theta for statistics of a fit with exact q(T), without what is next to impossible.

        In a fit transitions that don't happen shrink towards 0, through numbers that would take
        recursions in logarithms; 0 comes to the same.
        """
        if assignment.kind != "exact" or theta.latent is None:
            return theta
        slight = (theta.latent > 0) & (theta.latent < LEAST_TRANSITION)
        if not slight.any():
            return theta
        return replace(theta, latent=np.where(slight, 0.0, theta.latent))

    def collect(self, raw: Array, n_rows: int) -> tuple[dict[str, Array], Array, Array]:
        """Read what the kernel adds up beside log_z: see `Mixture.collect`."""
        k = self.n_components
        counts, excess, rest = raw[:k].copy(), raw[k : k + self.n_coordinates], raw[k:]
        return {"excess": excess.reshape(-1, k)}, counts, rest[self.n_coordinates :]

    def arrangement(self, counted: Array) -> NDArray[np.int64]:
        """State of each of K groups, (K,), by which most steps between groups are possible.

        Parameters
        ----------
        counted : ndarray of shape (K + 1, K)
            Sequences that begin in each group, and steps from each to each.
        """
        k = self.n_components
        if self._possible.all():
            return np.arange(k)
        # Where sequences begin is a group as well, whose place is known.
        steps, possible = np.zeros((k + 1, k + 1)), np.zeros((k + 1, k + 1))
        steps[:, 1:], possible[:, 1:] = counted, self._possible
        if k <= FEW_STATES:
            orders = np.array([(0, *order) for order in permutations(range(1, k + 1))])
            allowed = possible[orders[:, :, None], orders[:, None, :]]
            order = orders[np.einsum("gij,ij->g", allowed, steps).argmax()]
        else:
            from scipy.optimize import quadratic_assignment

            rng = np.random.default_rng(0)
            options = {"maximize": True, "partial_match": np.array([[0, 0]]), "rng": rng}
            found = [
                quadratic_assignment(steps, possible, method="2opt", options=options)
                for _ in range(ASSIGNMENTS)
            ]
            order = max(found, key=lambda one: one.fun).col_ind
        return np.asarray(order[1:] - 1)

    def around(self, counts: Array) -> dict[str, Array]:
        """Statistics of states that hold `counts` rows (K,) in any order."""
        share = self.equal * np.maximum(counts, EMPTY_SHARE * counts.sum())
        share /= share.sum(axis=1, keepdims=True)
        return {"excess": share * np.concatenate([[1.0], counts])[:, None]}

    def with_probabilities(
        self, posterior: Stats, read: str, start: Array | None, transitions: Array | None
    ) -> Stats:
        """Return a posterior that reads as these, of as many rows: start (K,), matrix (K, K).

        Its mode is that where `read` is "mode".
        """
        out = posterior.copy()
        least = self._possible - 1.0 if read == "mode" else self._prior
        for rows, given in ((slice(0, 1), start), (slice(1, None), transitions)):
            if given is not None:
                total = np.maximum((out["excess"] - self._prior)[rows].sum(axis=1), 1.0)
                out["excess"][rows] = least[rows] + total[:, None] * given
        return out

    def loosen(self, stats: Stats) -> Stats:
        """Statistics to start from: a row more for every possible transition, none at 0."""
        out = stats.copy()
        out["excess"][...] += self._possible
        return out

    def held(self, counts: Array) -> NDArray[np.bool_]:
        """Which states hold enough rows for what is said of them to mean anything, (K,)."""
        return held(counts)

    def coordinates(self, posterior: Stats, counts: Array) -> Array:
        """Unconstrained numbers: logarithms of first states and transitions counted, (K + 1, K).

        0 for those that are all but missing.
        """
        counted = posterior["excess"] - self._prior
        return np.log(np.where(self._counted(counted), counted, 1.0)).ravel()

    def _counted(self, counted: Array) -> NDArray[np.bool_]:
        return np.asarray(counted > EMPTY_SHARE * counted.sum())

    def at_coordinates(
        self, coordinates: Array, like: Stats, like_counts: Array
    ) -> tuple[Array, dict[str, Array]]:
        """Rows of each state (K,) and statistics, as many first states and transitions as `like`.

        Those that are all but missing in `like` are as they are there.
        """
        before = like["excess"] - self._prior
        counted = self._counted(before)
        after = np.where(counted, np.exp(coordinates.reshape(before.shape)), 0.0)
        for rows in (slice(0, 1), slice(1, None)):
            total = after[rows].sum()
            if total > 0:
                share = np.maximum(after[rows], EMPTY_SHARE * total) * counted[rows]
                after[rows] = share * (before[rows][counted[rows]].sum() / share.sum())
        after = np.where(counted, after, before)
        # Every row is in the state in which its sequence starts, or to which it moved.
        return after.sum(axis=0), {"excess": after}

    def log_density_terms(self, posterior: Stats, weights: Array) -> tuple[float, Array]:
        """Density of `weights` averaged over orders: not of the form that `Mixture` gives."""
        return np.nan, np.zeros((self.n_components, self.n_components))


def _closed_classes(possible: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Sets of states that reach each other and no other state, for steps (K, K) that are."""
    from scipy.sparse.csgraph import connected_components

    _, of_state = connected_components(possible, connection="strong")
    leaves = (possible & (of_state[:, None] != of_state)).any(axis=1)
    left = np.unique(of_state[leaves])
    each = (np.flatnonzero(of_state == label) for label in range(of_state.max() + 1))
    return [states for states in each if of_state[states[0]] not in left]


def stationary_distribution(transitions: Array) -> Array:
    """Return delta (K,) with delta A = delta and sum 1, for a transition matrix A (K, K).

    Where there are several, that of least length.
    """
    delta = np.zeros(len(transitions))
    for states in _closed_classes(transitions > 0):
        share = _kernels.stationary.stationary(transitions[np.ix_(states, states)])
        delta[states] = share / (share @ share)
    return delta / delta.sum()


class _Stationary(Dirichlet):
    """Transition matrix of a chain that starts from its stationary distribution.

    p(A) is proportional to prod A_ij^(c_ij - 1) prod_i delta_i(A)^(s_i - 1), where s, row 0 of the
    concentration, counts first states.
    """

    def mode(self) -> Array:
        """Return delta(A) and A of highest density, (K + 1, K).

        By an ascent, which begins at the mode of the transitions alone. States that a chain leaves
        for good are no first ones: no matrix lets a chain start where it does not return to, though
        labels to begin with may. Where several sets of states are never left, chains start in each
        as often as was counted.
        """
        return self._mode(None)

    def mode_near(self, weights: Array) -> Array:
        """Return the same; the ascent begins at `weights` where they are better.

        So that one that doesn't come to its end, as where the best transition probabilities are 0
        and a chain leaves some states once in 1e20 steps, takes nothing from an objective.
        """
        return self._mode(weights[1:])

    def _mode(self, near: Array | None) -> Array:
        assert self.excess is not None
        first, moves = np.maximum(self.excess[0], 0.0), np.maximum(self.excess[1:], 0.0)
        possible = self.concentration[1:] > 0
        a = Dirichlet(self.concentration[1:], self.excess[1:]).mode()
        delta = np.zeros(len(a))
        classes = _closed_classes(possible)
        for states in classes:
            within = np.ix_(states, states)
            total = first[states].sum()
            if total > 0 and len(states) > 1:
                begin = np.where(possible[within], np.maximum(a[within], LEAST), 0.0)
                other = begin if near is None else np.maximum(near[within], LEAST_TRANSITION)
                a[within], share = _kernels.stationary.highest(
                    first[states], moves[within], begin, other
                )
            else:
                share = stationary_distribution(a[within])
            delta[states] = share * (total if first.any() and len(classes) > 1 else 1.0)
        return np.concatenate([delta[None] / delta.sum(), a])

    def _refuse(self) -> Any:
        raise ValueError(
            "a chain that starts from its stationary distribution has no conjugate prior: theta "
            "can't be integrated out or drawn. Use 'em', 'variational_em' or 'crisp_em', or a "
            "free initial distribution"
        )

    def mean_log(self) -> Array:
        """Refuse: no expectation in closed form."""
        expected: Array = self._refuse()
        return expected

    def sample(self, rng: np.random.Generator) -> Array:
        """Refuse: no draws."""
        drawn: Array = self._refuse()
        return drawn

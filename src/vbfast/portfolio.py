"""Where a fit starts by default: starts of several kinds, of which the better ones go on.

One kind of start finds one kind of optimum: k-means that of round groups, whitened rows that of
long ones, random labels that of groups which lie across each other, stretches of rows that of
states which last. So some of each kind climb together. The worse half of each kind drops out,
twice, since kinds differ in how soon their starts look good; then the worse half of all (successive
halving: Jamieson & Talwalkar 2016). From the best, moves are tried that put two components together
and split another one (Ueda et al. 2000). What may still be the best climbs to its end.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import loops, starts
from .data import ArrayData
from .emissions.additive import AdditiveGaussian
from .exceptions import DegenerateError, ImpossibleRowError, ObjectiveFellWarning
from .latents import Chain, CoupledChains
from .latents.chain import joined
from .methods import EM, Fit, MeanField, VariationalEM, lockstep
from .model import Model
from .stats import Stats

__all__ = [
    "COUPLED_KINDS",
    "KINDS",
    "bound",
    "coupled_finalists",
    "finalists",
    "race",
    "varied",
]

Array = NDArray[np.float64]
# Climbs n sweeps from each posterior (start, size), overwritten; objectives, NaN where degenerate.
Advance = Callable[[Array, int], Array]

# Where a start has come to, and the highest objective that it may come to in the end; -inf of one
# that is for where all others are degenerate.
Finalist = tuple[Stats, float]
# Puts the parameters that were given into a start.
WithGiven = Callable[[Stats], Stats]

# Starts of each kind.
KINDS: dict[starts.Kind, int] = {
    "kmeans": 4,
    "whitened": 3,
    "k-means++": 2,
    "random_from_data": 3,
    "random": 4,
}
# Of a chain: by rows, with steps as counted or with states that last, and by stretches of rows.
CHAIN_KINDS: tuple[starts.ChainKind, ...] = (
    ("rows", 1),
    ("rows", 1),
    ("rows", 1),
    ("sticky", 1),
    ("sticky", 1),
    ("sticky", 1),
    ("means", 5),
    ("means", 10),
    ("means", 20),
    ("means", 80),
    ("spread", 10),
    ("spread", 20),
    ("spread", 40),
    ("spread", 80),
    ("random", 1),
)
# Of coupled chains: a kind, and whether states last.
COUPLED_KINDS: dict[starts.CoupledInit, int] = {
    ("kmeans", False): 3,
    ("kmeans", True): 3,
    ("rows", True): 3,
    ("residuals", False): 2,
    ("residuals", True): 3,
    ("random", False): 2,
    ("random", True): 2,
}
# Rows times states times chains of the starts of a kind, at most where there is more than one.
MOST_OF_COUPLED = 2**18


@dataclass(frozen=True)
class Effort:
    """How many sweeps a race takes.

    Attributes
    ----------
    rounds : tuple of int
        Of each round, after which half of each kind drops out; of the last, half of all.
    moves, move_sweeps, misses, most_moves : int
        Moves that are tried at a time, sweeps of each, after how many tries in turn that find
        nothing better they end, and tries at most.
    settling : int
        Sweeps that tell how much those that are left have still to gain.
    settling_all : tuple of int
        Such sweeps over all rows where the race was on a part of them; after each number but the
        first, half of those that are left drop out.
    """

    rounds: tuple[int, ...]
    moves: int
    move_sweeps: int
    misses: int
    most_moves: int
    settling: int
    settling_all: tuple[int, ...]


# In compiled code, where a sweep takes microseconds; else; and where one takes milliseconds.
QUICK = Effort((12, 24, 24), 8, 40, 2, 8, 60, (2,))
PATIENT = Effort((5, 10, 10), 4, 24, 1, 8, 8, (2,))
BRIEF = Effort((6, 12, 12), 3, 20, 1, 2, 6, (2, 4, 8))
# Sweeps of starts of chains of full inference; and for a bound of the evidence.
VARIED, MOST_FOR_BOUND = 60, 200
# Starts that climb to their end, at most.
FINALISTS = 3
# Objectives that differ by no more, in nats, are of one optimum.
SAME = 0.01
# What is taken from the objective of a spurious maximum.
SPURIOUS = 1e12
# Standard errors, of a nat a row, that a part of the rows may mislead by.
MISLEADING = 3.0
# Share of all rows by which what components hold differs at most, of one optimum.
ALIKE = 0.002
# Rows times squared features, at most, that are whitened.
MOST_TO_WHITEN = 2**27
# Nats below the best from where a chain would hardly get to where most of the posterior is.
HOPELESS = 10.0
# Numbers times components times sweeps in compiled code that take less than a few sweeps of Python;
# and sweeps that this may become, at most.
NEXT_TO_NOTHING, MOST_SETTLING = 2**18, 1000
# Numbers below which waking a thread for a sweep may cost more than it saves.
FEW_VALUES = 2**17
# Numbers times components from which on a sweep takes milliseconds.
MANY_VALUES = 2**20
# Rows up to which starts climb one after another: a pass over so few costs little.
FEW_TO_CLIMB = 4_096
# Numbers in the posteriors of starts that climb together. Each takes as many for every chunk of
# rows, and what is large and short-lived leaves holes in the heap.
TOGETHER = 2**11
# What tells which starts are better for chains.
PLAIN = MeanField(tol=0.0, acceleration=None)


def race(
    posteriors: Array, kinds: NDArray[np.int64], advance: Advance, rounds: tuple[int, ...]
) -> Array:
    """Climb from many starts, and return where the best have come to.

    Parameters
    ----------
    posteriors : ndarray of shape (start, size)
        Overwritten.
    kinds : ndarray of shape (start,)
    advance : callable
        ``advance(posteriors, n)`` climbs n sweeps from each.
    rounds : tuple of int
        Sweeps of each.

    Returns
    -------
    ndarray of shape (n, size)
        Of `FINALISTS` starts at most, best first, one of each optimum; of the first start where all
        are degenerate.
    """
    first = posteriors[:1].copy()
    for n_sweeps in rounds[:-1]:
        order = _best_first(advance(posteriors, n_sweeps))
        own = kinds[order]
        # The better half of each kind.
        place = np.array([np.sum(own[:n] == kind) for n, kind in enumerate(own)], dtype=int)
        total = np.array([np.sum(own == kind) for kind in own], dtype=int)
        left = np.sort(order[2 * place < total])
        posteriors, kinds = posteriors[left], kinds[left]
        if not len(posteriors):
            return first
    objectives = advance(posteriors, rounds[-1])
    order = _best_first(objectives)
    order = _one_of_each(order[: (len(order) + 1) // 2], objectives)
    return posteriors[order] if len(order) else first


def _best_first(objectives: Array) -> NDArray[np.int64]:
    """Numbers of those that have one, in their order; of what is as good, the first comes first.

    So that no rounding decides between starts that are on their way to the same optimum.
    """
    order = np.argsort(-np.round(objectives / SAME), kind="stable")
    return np.asarray(order[np.isfinite(objectives[order])])


def _one_of_each(order: NDArray[np.int64], objectives: Array) -> NDArray[np.int64]:
    """The first of these, without those as good as the one before, which are at its optimum."""
    gaps = np.abs(np.diff(objectives[order]))
    return order[np.append(True, gaps > SAME)[: len(order)]][:FINALISTS]


@dataclass(frozen=True)
class _Field:
    """Starts of several kinds on a part of the rows, before they race.

    Attributes
    ----------
    part : ArrayData
    posteriors : ndarray of shape (start, size)
    kinds : ndarray of shape (start,)
    quick : bool
        Whether they climb in compiled code.
    doubt : float
        By how much the part may mislead about the objective of all rows, in nats.
    """

    part: ArrayData
    posteriors: Array
    kinds: NDArray[np.int64]
    quick: bool
    doubt: float

    def effort(self, model: Model) -> Effort:
        """How many sweeps it may take."""
        size = self.part.values.size * model.latent.n_components
        if self.quick:
            free = min(NEXT_TO_NOTHING // size, MOST_SETTLING)
            return replace(QUICK, settling=max(QUICK.settling, free))
        return PATIENT if size < MANY_VALUES else BRIEF

    def advance(self, model: Model, method: Any) -> Advance:
        """How starts climb: by plain sweeps, which tell as well which are better, and sooner."""
        if isinstance(model.latent, Chain):
            # Where q(T) is factorised over rows, or crisp, all of it is the better guide.
            method = MeanField() if method.read == "mean" else EM()
        plain = replace(method, tol=0.0)
        if getattr(plain, "acceleration", None):
            plain = replace(plain, acceleration=None)
        few = self.part.values.size * model.latent.n_components < FEW_VALUES
        swept = replace(self.part, n_threads=1) if few and not self.quick else self.part
        return partial(loops.advance if self.quick else _advance, model, swept, plain)


def _field(
    model: Model,
    data: ArrayData,
    n_races: int,
    rng: np.random.Generator,
    with_given: WithGiven,
    read: str,
) -> _Field:
    """The portfolio, drawn `n_races` times."""
    if isinstance(model.latent, Chain):
        part = starts.stretches_of(data, rng)
        longest = max(part.n_rows // (3 * model.latent.n_components), 1)
        chains = [each for each in CHAIN_KINDS if each[1] <= longest] * n_races
        if not model.emission.located:
            chains = [each for each in chains if each[0] != "spread"]
        if not model.latent.equal.all():
            chains.append(("segments", 1))
        names: list[str] = [kind for kind, _ in chains]
        quick = False
        posteriors = starts.of_chain(model, part, chains, rng)
    else:
        part = starts.sample_of(data, model.latent.n_components, rng)
        plan = [kind for kind, n in KINDS.items() for _ in range(n * n_races)]
        d = part.values.shape[1]
        if not model.emission.located or d == 1 or part.n_rows * d**2 > MOST_TO_WHITEN:
            plan = [kind for kind in plan if kind != "whitened"]
        names = [*plan]
        quick = part.n_rows <= loops.most_rows(model) and data.labels is None
        posteriors = (starts.at_once if quick else starts.each)(model, part, plan, rng)
    for row in posteriors:
        start = starts.agreeing(model, part, Stats(model.layout, row.copy()), read)
        row[...] = with_given(start).buffer
    known = starts.of_known(model, part)
    if known is not None:
        names.append("known")
        posteriors = np.vstack([posteriors, with_given(known).buffer])
    doubt = np.inf if part is data else MISLEADING * data.total_weight / part.n_rows**0.5
    kinds = np.array([names.index(name) for name in names])
    return _Field(part, posteriors, kinds, quick, doubt)


def finalists(
    model: Model,
    data: ArrayData,
    method: Any,
    n_races: int,
    rng: np.random.Generator,
    with_given: WithGiven,
) -> list[Finalist]:
    """Return what is left of a portfolio of starts: posteriors, and objectives they may come to.

    Parameters
    ----------
    model : Model
    data : ArrayData
    method : MeanField, EM, VariationalEM or CrispEM
    n_races : int
        Times that the portfolio is drawn; all race together.
    rng : numpy.random.Generator
    with_given : callable
        ``with_given(posterior)`` is a start with the parameters that were given put in.
    """
    field = _field(model, data, n_races, rng, with_given, method.read)
    part, effort = field.part, field.effort(model)
    # Of few rows those that win may become degenerate; then others climb in their place.
    rest = np.empty_like(field.posteriors if data.n_rows <= FEW_TO_CLIMB else field.posteriors[:0])
    for copied, one in zip(rest, field.posteriors, strict=False):
        copied[:] = one
    # Rows of a mean weight below 1 are taken for rows: weights may be shares.
    unit = min(1.0, data.total_weight / data.n_rows)

    def judged(rows: ArrayData) -> Advance:
        quick = field.quick and rows is part
        advance = replace(field, part=rows, quick=quick).advance(model, method)
        if method.read == "mode":
            advance = partial(_sound_first, model, rows.n_rows / rows.total_weight, advance)
        return partial(_in_units, unit, advance)

    advance = judged(part)
    left = race(field.posteriors, field.kinds, advance, effort.rounds)
    if model.latent.n_components > 2 and not starts.wide(model, part):
        left = _moved(model, part, left, method.read, advance, effort, rng)
    left, most = _settled(model, left, advance, effort.settling, field.doubt / unit)
    if part is not data:
        # What the part leaves open sweeps over all rows may tell.
        found = [starts.loosened(model, Stats(model.layout, posterior)) for posterior in left]
        # Of a part few rows may have been known.
        found = [starts.agreeing(model, data, start, method.read) for start in found]
        known = starts.of_known(model, data)
        found = found if known is None else [with_given(known), *found]
        left = np.array([each.buffer for each in found])
        for number, n_sweeps in enumerate(effort.settling_all):
            if number > 0:
                left, most = left[: (len(left) + 1) // 2], most[: (len(left) + 1) // 2]
            left, most = _settled(model, left, judged(data), n_sweeps)
    best = [(Stats(model.layout, each), unit * top) for each, top in zip(left, most, strict=True)]
    return best + [(Stats(model.layout, posterior), -np.inf) for posterior in rest]


def varied(
    model: Model, data: ArrayData, n_chains: int, rng: np.random.Generator, with_given: WithGiven
) -> list[Stats]:
    """Return posteriors for chains of full inference to start from, of different kinds.

    Mean field climbs some sweeps from each of the portfolio, the best of each kind stays, and that
    to which moves lead from the best, the best of all first; but none that is far below. Over
    again for more chains.

    Parameters
    ----------
    model : Model
    data : ArrayData
    n_chains : int
    rng : numpy.random.Generator
    with_given : callable
        As of `finalists`.
    """
    field = _field(model, data, 1, rng, with_given, "mean")
    part, posteriors, kinds = field.part, field.posteriors, field.kinds
    advance = field.advance(model, PLAIN)
    objectives = advance(posteriors, VARIED)
    order = _best_first(objectives)
    if not len(order):
        return [Stats(model.layout, posteriors[n % len(posteriors)]) for n in range(n_chains)]
    # The best of each kind, then the second best, as they come.
    place = np.array([np.sum(kinds[order[:n]] == kinds[i]) for n, i in enumerate(order)])
    order = order[np.argsort(place, kind="stable")]
    left, heights = posteriors[order], objectives[order]
    if model.latent.n_components > 2 and not starts.wide(model, part):
        best = left[heights.argmax()][None].copy()
        moved = _moved(model, part, best, "mean", advance, field.effort(model), rng)[:1]
        heights = np.append(advance(moved, 1), heights)
        left = np.concatenate([moved, left])
    near = left[heights >= np.nanmax(heights) - HOPELESS]
    found = [Stats(model.layout, near[n % len(near)].copy()) for n in range(n_chains)]
    if part is data:
        return found
    found = [starts.loosened(model, each) for each in found]
    return [starts.agreeing(model, data, each, "mean") for each in found]


def bound(model: Model, data: ArrayData, posteriors: list[Stats]) -> float:
    """The highest evidence lower bound that mean field comes to from some of these; -inf if none.

    From the first, and where a few sweeps make another one the best, from that; or from where all
    rows are of one component, which none of the portfolio's starts is near.
    """
    together = starts.given_labels(model, data, np.zeros(data.n_rows, dtype=np.int64))
    rows = np.array([posterior.buffer for posterior in (*posteriors, together)])
    heights = _advance(model, data, PLAIN, rows, VARIED // 4)
    if np.isnan(heights).all():
        return -np.inf
    best = Stats(model.layout, rows[int(np.nanargmax(heights))])
    method = MeanField(max_iter=MOST_FOR_BOUND)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ObjectiveFellWarning)
        try:
            return method.fit(model, data, best).objective
        except DegenerateError:
            return float(np.nanmax(heights))


def _in_units(unit: float, advance: Advance, posteriors: Array, n_sweeps: int) -> Array:
    """What `advance` does, objectives in these units."""
    return advance(posteriors, n_sweeps) / unit


def _sound_first(
    model: Model, rows: float, advance: Advance, posteriors: Array, n_sweeps: int
) -> Array:
    """What `advance` does, spurious maxima behind all others."""
    objectives = advance(posteriors, n_sweeps)
    spurious = model.spurious(posteriors, rows) >= 0
    return np.where(spurious, objectives - SPURIOUS, objectives)


def _moved(
    model: Model,
    data: ArrayData,
    left: Array,
    read: str,
    advance: Advance,
    effort: Effort,
    rng: np.random.Generator,
) -> Array:
    """The best of these and of where moves from the best lead, as `race` returns them."""
    misses = 0
    for _ in range(effort.most_moves):
        moved = starts.moved(model, data, Stats(model.layout, left[0]), read, effort.moves, rng)
        objectives = np.append(
            advance(left, effort.move_sweeps // 4), advance(moved, effort.move_sweeps)
        )
        order = _one_of_each(_best_first(objectives), objectives)
        if not len(order):
            break
        n_before = len(left)
        left = np.concatenate([left, moved])[order]
        misses = misses + 1 if order[0] < n_before else 0
        if misses == effort.misses:
            break
    return left


def _settled(
    model: Model, left: Array, advance: Advance, n_sweeps: int, doubt: float = np.inf
) -> tuple[Array, list[float]]:
    """Those that may be the best at their end, and how far they may come: as gains foretell it.

    None is that lies below the best by more than `doubt`.
    """
    if len(left) == 1:
        return left, [np.inf]
    before, now, after = (advance(left, n_sweeps) for _ in range(3))
    last, gain = now - before, after - now
    with np.errstate(all="ignore"):
        more = np.where(gain < last, gain * gain / (last - gain), np.inf)
        more = np.where(gain <= SAME**2, SAME**2, more)
        most = after + 2 * more + SAME
        most[~(after >= np.fmax.reduce(after) - doubt)] = -np.inf
        order = _best_first(np.where(most >= np.fmax.reduce(after), after, np.nan))
    if not len(order):
        return left[:1], [np.inf]
    # What holds as many rows as the best is on its way to the same optimum.
    start, end, _ = model.layout.places["strength"]
    held = np.sort(left[order, start:end], axis=1)
    alike = np.abs(held - held[0]).max(axis=1) < ALIKE * held[0].sum()
    alike[0] = False
    return left[order[~alike]], most[order[~alike]].tolist()


def _advance(model: Model, data: ArrayData, method: Any, posteriors: Array, n_sweeps: int) -> Array:
    """Climb from each posterior, several in each pass over the data."""
    method = replace(method, max_iter=n_sweeps)
    climbs = (method.climb(model, data, Stats(model.layout, posterior)) for posterior in posteriors)
    objectives = np.full(len(posteriors), np.nan)
    most = max(1, TOGETHER // model.layout.size)
    for number, outcome in lockstep(climbs, partial(data.sum_each, model.visit_each), most):
        if isinstance(outcome, Fit):
            posteriors[number] = outcome.posterior.buffer
            objectives[number] = outcome.objective
    return objectives


def coupled_finalists(
    model: Model,
    data: ArrayData,
    method: Any,
    n_races: int,
    rng: np.random.Generator,
    around: Callable[[Array, Array, Array], Stats],
) -> list[Stats]:
    """Return what `finalists` does, of coupled chains.

    Parameters
    ----------
    around : callable
        ``around(transition, means, covariance)`` is a start with the parameters that were given put
        in.
    """
    part = starts.stretches_of(data, rng)
    m, k = model.latent.n_chains, model.latent.n_components
    states = min(model.latent.block_states, model.latent.n_components ** min(m, 64)) * m
    most = max(1, MOST_OF_COUPLED // (part.n_rows * states))
    plan = [init for init, n in COUPLED_KINDS.items() for _ in range(min(n, most) * n_races)]
    kinds = np.array([list(COUPLED_KINDS).index(init) for init in plan])
    one_chain = partial(one_chain_of, model)
    posteriors = np.array(
        [around(*starts.of_coupled(part, m, k, init, one_chain, rng)).buffer for init in plan]
    )
    if method.read == "mean":
        plain: Any = MeanField(tol=0.0, factorised=True)
    else:
        plain = VariationalEM(tol=0.0)
    memories = [part.with_memory(model.memory_width) for _ in plan]

    def advance(there: Array, n_sweeps: int) -> Array:
        objectives = np.full(len(there), np.nan)
        for i, (number, *_) in enumerate(there):
            posterior = Stats(model.layout, there[i, 1:].copy())
            one = replace(plain, max_iter=n_sweeps)
            try:
                fit = one.fit(model, memories[int(number)], posterior)
            except (DegenerateError, ImpossibleRowError):
                continue
            there[i, 1:] = fit.posterior.buffer
            objectives[i] = fit.objective
        return objectives

    # Each with its number, by which its memory is found.
    numbered = np.column_stack([np.arange(len(plan)), posteriors])
    found = [
        Stats(model.layout, each[1:].copy())
        for each in race(numbered, kinds, advance, QUICK.rounds)
    ]
    if part is data:
        return found
    thetas = [getattr(model, plain.read)(posterior) for posterior in found]
    return [
        around(
            (1 - starts.LOOSE)
            * theta.weights[:, 1:]
            / theta.weights[:, 1:].sum(axis=2, keepdims=True)
            + starts.LOOSE / k,
            theta.parameters.means,
            np.linalg.inv(theta.parameters.factor.T @ theta.parameters.factor),
        )
        for theta in thetas
    ]


def one_chain_of(
    model: Model, data: ArrayData, transition: Array, means: Array
) -> tuple[Array, Array]:
    """Means of one chain that some sweeps of EM lead to from there, and each row's expected one."""
    k, d = means.shape
    emission = AdditiveGaussian(
        d, 1, k, model.emission.covariance_type, reg_covar=starts.LEAST_NOISE, frame=data.frame
    )
    one = Model(CoupledChains(1, k), emission)
    begin = one.around(
        (means, np.diag(data.frame.variance)),
        (data.n_sequences, data.n_rows),
        joined(np.full((1, k), 1 / k), transition),
    )
    own = data.with_memory(k)
    fit = EM(max_iter=starts.SWEEPS_OF_ONE, tol=0.0).fit(one, own, one.prior + begin)
    found = fit.theta.parameters.means
    assert own.memory is not None
    return found, own.memory @ found

"""Where a fit starts by default: starts of several kinds, of which the better ones go on.

One kind of start finds one kind of optimum: k-means that of round groups, whitened rows that of
long ones, random labels that of groups which lie across each other, stretches of rows that of
states which last. So some of each kind climb together. The worse half of each kind drops out,
twice, since kinds differ in how soon their starts look good; then the worse half of all (successive
halving: Jamieson & Talwalkar 2016). From the best, moves are tried that put two components together
and split another one (Ueda et al. 2000). What may still be the best climbs to its end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import loops, starts
from .data import ArrayData
from .exceptions import DegenerateError
from .methods import EM, MeanField, lockstep
from .model import Model
from .stats import Stats

__all__ = ["KINDS", "chain_finalists", "finalists", "race"]

Array = NDArray[np.float64]
# Climbs n sweeps from each posterior (start, size), overwritten; objectives, NaN where degenerate.
Advance = Callable[[Array, int], Array]

# Where a start has come to, and the highest objective that it may come to in the end; -inf of one
# that is for where all others are degenerate.
Finalist = tuple[Stats, float]

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
# Sweeps of each round, after which half of each kind drops out; and of the last, of all.
ROUNDS, LAST_ROUND = (12, 24), 24
# Moves that are tried at a time, sweeps of each, and how often at most.
MOVES, MOVE_SWEEPS, MOST_MOVES = 8, 40, 6
# Sweeps that tell how much the last ones have still to gain: in compiled code, and else.
SETTLING, FEW_SETTLING = 60, 12
# Starts that climb to their end, at most.
FINALISTS = 3
# Objectives that differ by no more, in nats, are of one optimum.
SAME = 0.01
# Share of all rows by which what components hold differs at most, of one optimum.
ALIKE = 0.01
# Numbers below which waking a thread for a sweep may cost more than it saves.
FEW_VALUES = 2**17
# Rows up to which starts climb one after another: a pass over so few costs little.
FEW_TO_CLIMB = 4_096
# Numbers in the posteriors of starts that climb together, each taking some such more.
TOGETHER = 2**18


def race(posteriors: Array, kinds: NDArray[np.int64], advance: Advance) -> Array:
    """Climb from many starts, and return where the best have come to.

    Parameters
    ----------
    posteriors : ndarray of shape (start, size)
        Overwritten.
    kinds : ndarray of shape (start,)
    advance : callable
        ``advance(posteriors, n)`` climbs n sweeps from each.

    Returns
    -------
    ndarray of shape (n, size)
        Of `FINALISTS` starts at most, best first, one of each optimum; of the first start where all
        are degenerate.
    """
    first = posteriors[:1].copy()
    for n_sweeps in ROUNDS:
        objectives = advance(posteriors, n_sweeps)
        order = _best_first(objectives)
        posteriors, kinds = posteriors[order], kinds[order]
        # The better half of each kind.
        place = np.array([np.sum(kinds[:n] == kind) for n, kind in enumerate(kinds)], dtype=int)
        total = np.array([np.sum(kinds == kind) for kind in kinds], dtype=int)
        posteriors, kinds = posteriors[2 * place < total], kinds[2 * place < total]
        if not len(posteriors):
            return first
    objectives = advance(posteriors, LAST_ROUND)
    order = _best_first(objectives)
    order = _one_of_each(order[: (len(order) + 1) // 2], objectives)
    return posteriors[order] if len(order) else first


def _best_first(objectives: Array) -> NDArray[np.int64]:
    """Numbers of those that have one, in their order."""
    order = np.argsort(-objectives, kind="stable")
    return np.asarray(order[np.isfinite(objectives[order])])


def _one_of_each(order: NDArray[np.int64], objectives: Array) -> NDArray[np.int64]:
    """The first of these, without those as good as the one before, which are at its optimum."""
    gaps = objectives[order[:-1]] - objectives[order[1:]]
    return order[np.append(True, gaps > SAME)[: len(order)]][:FINALISTS]


def finalists(
    model: Model,
    data: ArrayData,
    method: Any,
    n_races: int,
    rng: np.random.Generator,
    with_given: Callable[[Stats], Stats],
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
    part = starts.sample_of(data, model.latent.n_components, rng)
    plan = [kind for kind, n in KINDS.items() for _ in range(n * n_races)]
    kinds = np.array([list(KINDS).index(kind) for kind in plan])
    quick = part.n_rows <= loops.most_rows(model)
    posteriors = (starts.at_once if quick else starts.each)(model, part, plan, rng)
    # Plain sweeps tell as well which starts are better, and sooner.
    plain = replace(method, tol=0.0)
    if getattr(plain, "acceleration", None):
        plain = replace(plain, acceleration=None)
    advance = partial(loops.advance if quick else _advance, model, part, plain)
    n_settling = SETTLING if quick else FEW_SETTLING
    return _left(model, data, part, method, posteriors, kinds, advance, n_settling, rng, with_given)


def chain_finalists(
    model: Model,
    data: ArrayData,
    method: Any,
    n_races: int,
    rng: np.random.Generator,
    with_given: Callable[[Stats], Stats],
) -> list[Finalist]:
    """Return what `finalists` does, of a chain."""
    part = starts.stretches_of(data, rng)
    longest = max(part.n_rows // (3 * model.latent.n_components), 1)
    plan = [each for each in CHAIN_KINDS if each[1] <= longest] * n_races
    if model.emission.moments is None:
        plan = [each for each in plan if each[0] != "spread"]
    if not model.latent.equal.all():
        plan.append(("segments", 1))
    names = [kind for kind, _ in plan]
    kinds = np.array([names.index(name) for name in names])
    posteriors = starts.of_chain(model, part, plan, rng)
    # Where q(T) is factorised over rows, or crisp, all of it is the better guide.
    plain = (MeanField if method.read == "mean" else EM)(tol=0.0, acceleration=None)
    few = part.values.size * model.latent.n_components < FEW_VALUES
    swept = replace(part, n_threads=1) if few else part
    advance = partial(_advance, model, swept, plain)
    return _left(
        model, data, part, method, posteriors, kinds, advance, FEW_SETTLING, rng, with_given
    )


def _left(
    model: Model,
    data: ArrayData,
    part: ArrayData,
    method: Any,
    posteriors: Array,
    kinds: NDArray[np.int64],
    advance: Advance,
    n_settling: int,
    rng: np.random.Generator,
    with_given: Callable[[Stats], Stats],
) -> list[Finalist]:
    """What is left of these starts on a part of the rows, to go on from with all of them."""
    for row in posteriors:
        row[...] = with_given(Stats(model.layout, row.copy())).buffer
    # Of few rows those that win may become degenerate; then others climb in their place.
    rest = posteriors.copy() if data.n_rows <= FEW_TO_CLIMB else posteriors[:0]
    left = race(posteriors, kinds, advance)
    if model.latent.n_components > 2:
        left = _moved(model, part, left, method.read, advance, rng)
    left, most = _settled(model, left, advance, n_settling)
    found = [Stats(model.layout, posterior) for posterior in left]
    if part is data:
        others = [(Stats(model.layout, posterior), -np.inf) for posterior in rest]
        return [*zip(found, most, strict=True), *others]
    return [(starts.loosened(model, each), np.inf) for each in found]


def _moved(
    model: Model,
    data: ArrayData,
    left: Array,
    read: str,
    advance: Advance,
    rng: np.random.Generator,
) -> Array:
    """The best of these and of where moves from the best lead, as `race` returns them."""
    for _ in range(MOST_MOVES):
        moved = starts.moved(model, data, Stats(model.layout, left[0]), read, MOVES, rng)
        objectives = np.append(advance(left, MOVE_SWEEPS // 4), advance(moved, MOVE_SWEEPS))
        order = _one_of_each(_best_first(objectives), objectives)
        if not len(order):
            break
        n_before = len(left)
        left = np.concatenate([left, moved])[order]
        if order[0] < n_before:
            break
    return left


def _settled(
    model: Model, left: Array, advance: Advance, n_sweeps: int
) -> tuple[Array, list[float]]:
    """Those that may be the best at their end, and how far they may come: as gains foretell it."""
    if len(left) == 1:
        return left, [np.inf]
    before, now, after = (advance(left, n_sweeps) for _ in range(3))
    last, gain = now - before, after - now
    with np.errstate(all="ignore"):
        more = np.where(gain < last, gain * gain / (last - gain), np.inf)
        more = np.where(gain <= SAME**2, SAME**2, more)
        most = after + 3 * more + SAME
        most[np.isnan(after)] = -np.inf
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
        if not isinstance(outcome, DegenerateError):
            posteriors[number] = outcome.posterior.buffer
            objectives[number] = outcome.objective
    return objectives

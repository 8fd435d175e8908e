"""Where a fit starts by default: starts of several kinds, of which the better ones go on.

One kind of start finds one kind of optimum: k-means that of round groups, whitened rows that of
long ones, random labels that of groups which lie across each other. So some of each kind climb
together. The worse half of each kind drops out, twice, since kinds differ in how soon their starts
look good; then the worse half of all (successive halving: Jamieson & Talwalkar 2016). What is left
climbs to its end.
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
from .emissions.additive import AdditiveGaussian
from .exceptions import DegenerateError
from .factorial import FactorialModel
from .latents.coupled import CoupledChains
from .methods import EM, MeanField, VariationalEM, lockstep
from .model import Model
from .stats import Stats

__all__ = ["COUPLED_KINDS", "KINDS", "coupled_finalists", "finalists", "race"]

Array = NDArray[np.float64]
# Where starts (start, size) have come to after n sweeps, overwritten; and their objectives, NaN
# where they are degenerate.
Advance = Callable[[NDArray[np.int64], Array, int], Array]

# Starts of each kind.
KINDS: dict[starts.Init, int] = {
    "kmeans": 4,
    "whitened": 3,
    "k-means++": 2,
    "random_from_data": 3,
    "random": 4,
}
# Of a chain: by rows, with steps as counted or with states that last, and by stretches of rows.
CHAIN_KINDS: tuple[starts.ChainInit, ...] = (
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
# Sweeps of each round, after which half of each kind drops out; and of the last, of all.
ROUNDS, LAST_ROUND = (12, 24), 24
# Numbers below which waking a thread for a sweep may cost more than it saves.
FEW_VALUES = 2**17
# Sweeps in compiled code of those that are left.
LONG_ROUND = 200
# Starts that climb to their end, at most.
FINALISTS = 3
# Objectives that differ by no more, in nats, are of one optimum.
SAME = 0.01
# Numbers in the posteriors of starts that climb together, each taking some such more.
TOGETHER = 2**18


def race(posteriors: Array, kinds: NDArray[np.int64], advance: Advance) -> NDArray[np.int64]:
    """Climb from many starts, and return the best, best first, one of each optimum.

    Parameters
    ----------
    posteriors : ndarray of shape (start, size)
        Overwritten by where they have come to.
    kinds : ndarray of shape (start,)
    advance : callable
        ``advance(starts, posteriors, n)`` climbs n sweeps from the posteriors of these starts.

    Returns
    -------
    ndarray of shape (n,)
        Numbers of `FINALISTS` starts at most; one at least.
    """
    running = np.arange(len(kinds))
    for n_sweeps in ROUNDS:
        running, _ = _ranked(running, posteriors, advance, n_sweeps)
        # The better half of each kind: as many are before it as after it, at most.
        place = np.array([np.sum(kinds[running[:n]] == kinds[running[n]]) for n in
                          range(len(running))], dtype=int)  # fmt: skip
        total = np.array([np.sum(kinds[running] == kind) for kind in kinds[running]], dtype=int)
        running = running[2 * place < total]
    running, objectives = _ranked(running, posteriors, advance, LAST_ROUND)
    half = (len(running) + 1) // 2
    news = np.append(True, objectives[: half - 1] - objectives[1:half] > SAME)
    return running[:half][news][:FINALISTS] if len(running) else np.arange(1)


def _ranked(
    running: NDArray[np.int64], posteriors: Array, advance: Advance, n_sweeps: int
) -> tuple[NDArray[np.int64], Array]:
    """What is left of the starts some sweeps further, best first, and their objectives."""
    there = posteriors[running]
    objectives = advance(running, there, n_sweeps)
    posteriors[running] = there
    order = np.argsort(-objectives, kind="stable")  # NaN goes last
    order = order[np.isfinite(objectives[order])]
    return running[order], objectives[order]


def finalists(
    model: Model,
    data: ArrayData,
    method: Any,
    n_races: int,
    rng: np.random.Generator,
    with_given: Callable[[Stats], Stats],
) -> list[Stats]:
    """Return the posteriors that are left of a portfolio of starts.

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
    begin = loops.begin if quick else starts.each
    posteriors = begin(model, part, plan, rng)
    for row in posteriors:
        row[...] = with_given(Stats(model.layout, row.copy())).buffer
    # All of it by plain sweeps, which tell which starts are better as well, and sooner.
    plain = replace(method, tol=0.0)
    if getattr(plain, "acceleration", None):
        plain = replace(plain, acceleration=None)
    advance = partial(loops.advance if quick else _advance, model, part, plain)
    best = race(posteriors, kinds, advance)
    left = posteriors[best]
    if quick:
        # Plain sweeps cost next to nothing here, and most starts end by them.
        loops.advance(model, part, replace(plain, tol=method.tol), best, left, LONG_ROUND)
    return _of_all(model, part is data, left)


def chain_finalists(
    model: Model,
    data: ArrayData,
    method: Any,
    n_races: int,
    rng: np.random.Generator,
    with_given: Callable[[Stats], Stats],
) -> list[Stats]:
    """Return what `finalists` does, of a chain."""
    part = starts.stretches_of(data, rng)
    whole = part is data
    if part.values.size * model.latent.n_components < FEW_VALUES:
        part = replace(part, n_threads=1)
    plan = list(CHAIN_KINDS) * n_races
    if model.emission.moments is None:
        plan = [each for each in plan if each[0] != "spread"]
    if not (model.latent.equal > 0).all():
        plan.append(("segments", 1))
    longest = part.n_rows // (3 * model.latent.n_components)
    plan = [each for each in plan if each[1] <= max(longest, 1)]
    names = [kind for kind, _ in plan]
    kinds = np.array([names.index(name) for name in names])
    posteriors = starts.of_chain(model, part, plan, rng)
    for row in posteriors:
        row[...] = with_given(Stats(model.layout, row.copy())).buffer
    # q(T) of each row by itself is no guide to which starts are good; all of it is, for any method.
    plain = (MeanField if method.read == "mean" else EM)(tol=0.0, acceleration=None)
    best = race(posteriors, kinds, partial(_advance, model, part, plain))
    return _of_all(model, whole, posteriors[best])


def _of_all(model: Model, whole: bool, posteriors: Array) -> list[Stats]:
    """Posteriors to go on from with all rows."""
    found = [Stats(model.layout, posterior) for posterior in posteriors]
    return found if whole else [starts.loosened(model, each) for each in found]


def _advance(
    model: Model,
    data: ArrayData,
    method: Any,
    _: NDArray[np.int64],
    posteriors: Array,
    n_sweeps: int,
) -> Array:
    """Climb from each posterior, several in each pass over the data."""
    method = replace(method, max_iter=n_sweeps)
    climbs = (
        method.climb(model, data, Stats(model.layout, posterior)) for posterior in posteriors
    )
    objectives = np.full(len(posteriors), np.nan)
    most = max(1, TOGETHER // model.layout.size)
    for number, outcome in lockstep(climbs, partial(data.sum_each, model.visit_each), most):
        if not isinstance(outcome, DegenerateError):
            posteriors[number] = outcome.posterior.buffer
            objectives[number] = outcome.objective
    return objectives


def coupled_finalists(
    model: FactorialModel,
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
    one_chain = partial(_one_chain, model)
    posteriors = np.array(
        [around(*starts.of_coupled(part, m, k, init, one_chain, rng)).buffer for init in plan]
    )
    if method.read == "mean":
        plain: Any = MeanField(tol=0.0, factorised=True)
    else:
        plain = VariationalEM(tol=0.0)
    memories = [part.with_memory(model.memory_width) for _ in plan]

    def advance(running: NDArray[np.int64], there: Array, n_sweeps: int) -> Array:
        objectives = np.full(len(running), np.nan)
        for i, number in enumerate(running):
            try:
                fit = replace(plain, max_iter=n_sweeps).fit(
                    model, memories[number], Stats(model.layout, there[i].copy())
                )
            except DegenerateError:
                continue
            there[i] = fit.posterior.buffer
            objectives[i] = fit.objective
        return objectives

    best = race(posteriors, kinds, advance)
    found = [Stats(model.layout, posterior) for posterior in posteriors[best]]
    if part is data:
        return found
    thetas = [getattr(model, plain.read)(posterior) for posterior in found]
    return [
        around(
            (1 - starts.LOOSE) * theta.transition / theta.transition.sum(axis=2, keepdims=True)
            + starts.LOOSE / k,
            theta.parameters.means,
            np.linalg.inv(theta.parameters.factor.T @ theta.parameters.factor),
        )
        for theta in thetas
    ]


def _one_chain(
    model: FactorialModel, data: ArrayData, transition: Array, means: Array
) -> tuple[Array, Array]:
    """Means of one chain that some sweeps of EM lead to from there, and each row's expected one."""
    k, d = means.shape
    emission = AdditiveGaussian(
        d, 1, k, model.emission.covariance_type, reg_covar=starts.LEAST_NOISE, frame=data.frame
    )
    one = FactorialModel(CoupledChains(1, k), emission)
    n_sequences = 1 if data.sequences is None else len(data.sequences.order)
    start = np.full((1, k), 1 / k)
    begin = one.around(
        start, transition, means, np.diag(data.frame.variance), n_sequences, data.n_rows
    )
    own = data.with_memory(k)
    fit = EM(max_iter=starts.SWEEPS_OF_ONE, tol=0.0).fit(one, own, one.prior + begin)
    found = fit.theta.parameters.means
    assert own.memory is not None
    return found, own.memory @ found

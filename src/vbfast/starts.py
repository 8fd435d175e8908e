"""Where a fit starts: centroids by k-means++ and k-means, random labels, or given parameters.

k-means is crisp EM on a model of its own, `Centroids`: equal weights, unit variances.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _kernels, loops
from ._interrupts import interruptible
from ._kernels.inputs import Assignment, Block, Coefficients
from .conjugate import Gaussians, least_norm_solution
from .data import ArrayData, Frame, as_sequences
from .emissions import Gaussian
from .exceptions import DegenerateError
from .latents import Mixture
from .methods import CrispEM
from .model import Model
from .stats import Layout, Stats

__all__ = ["Centroids", "Init", "Kind", "from_labels", "from_parameters", "posterior"]

Array = NDArray[np.float64]
# A kind of start for a chain, and how many rows make a stretch.
ChainKind = tuple[Literal["rows", "sticky", "means", "spread", "segments", "random"], int]
Kind = Literal["kmeans", "whitened", "k-means++", "random", "random_from_data"]
Init = Literal["auto", "kmeans", "whitened", "k-means++", "random", "random_from_data"]

# Centroids are sought in a random part of the rows: one in SHARE, but FEWEST at least and MOST at
# most, or 100 a component where that is more; of so many VALUES at most, or 10 rows a component.
SHARE, FEWEST, MOST, VALUES = 25, 4_000, 25_000, 2**21
# k-means stops sooner than EM, which goes on from there.
KMEANS_SWEEPS, KMEANS_TOL = 10, 1e-4
# Rows of chains that starts are sought in, at least.
FEWEST_OF_CHAINS = 2_500
# Chance to stay, in starts of states that last.
STICKY = 0.95
# Share that components of counts or symbols have in common when they come from a part of the rows.
LOOSE = 0.01
# Numbers in rows as points, at most.
MOST_POINTS = 2**24
# Of the mean square, the least spread that tells stretches apart.
LEAST_SPREAD = 1e-9
# Share of the rows that components of counts or symbols have in common at the start.
SPREAD = 0.1


@dataclass(kw_only=True)
class _Means(Coefficients):
    """Centroids as theta, under a flat prior."""

    means: Array
    log_prior: float = 0.0
    rounding: float = 0.0


@dataclass(frozen=True)
class Centroids:
    """The model of k-means: x | t = k ~ N(mu_k, 1) in the units of the data's frame, flat mu.

    Crisp EM on it is Lloyd's algorithm; its objective is -(sum of squared distances)/2.
    """

    n_components: int
    n_features: int
    prior: Stats = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        emission = self._emission
        layout = Layout((("log_z", ()), *emission.fields(self.n_components)), emission.moments)
        object.__setattr__(self, "prior", layout.stats())

    @cached_property
    def _emission(self) -> Gaussian:
        return Gaussian(self.n_features, "spherical")

    @cached_property
    def _ones(self) -> Array:
        return np.ones((self.n_components, 1))

    @cached_property
    def _zeros(self) -> Array:
        return np.zeros(self.n_components)

    def at(self, means: Array) -> _Means:
        """Theta with these centroids."""
        emission = self._emission
        unit = Gaussians(means, self._ones, self._zeros, self._zeros)
        coefficients = emission.coefficients(unit, means)
        return _Means(emission.kernel, coefficients, np.zeros(len(means)), means=means)

    def mode(self, posterior: Stats) -> _Means:
        """Means of the rows of each component; an empty one goes out of reach."""
        empty = posterior["strength"] == 0
        theta = self.at(posterior["mean"])
        theta.offsets[empty] = -np.inf
        return theta

    mean = mode

    def sample(self, posterior: Stats, rng: np.random.Generator) -> _Means:
        """Draw theta: refused, k-means has no distribution over its centroids."""
        raise TypeError("k-means centroids can't be drawn")

    def visit(self, block: Block, theta: _Means, assignment: Assignment) -> Stats:
        """Nearest centroids, and the moments about them."""
        kernel = _kernels.mixture
        k, d = theta.means.shape
        raw = np.empty(kernel.statistics_size(theta.emission, k, d))
        kernel.visit(block, theta, assignment, statistics=raw)
        counts = raw[1 : 1 + k].copy()
        moments = self._emission.collect(raw[1 + k :], counts, theta.means)
        return self.prior.layout.stats({"log_z": raw[0], **moments})


def _stretched(n_rows: int, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Numbers of n rows, one of each stretch of them."""
    ends = np.arange(n + 1) * n_rows // n
    return ends[:-1] + (rng.random(n) * np.diff(ends)).astype(np.int64)


def _part(
    data: ArrayData, n_components: int, rng: np.random.Generator, width: int | None = None
) -> ArrayData:
    """A random part of the rows, features one after another: in the units of the frame.

    Where a row will be of `width` numbers, in their own units, and less of them.
    """
    rows: slice | NDArray[np.int64] = slice(None)
    n_rows = data.n_rows
    if data.weights is not None and not data.weights.all():
        rows = np.flatnonzero(data.weights)
        n_rows = len(rows)
    n = max(min(max(n_rows // SHARE, FEWEST), MOST), 100 * n_components)
    n = min(n, max(VALUES // (width or data.values.shape[1]), 10 * n_components))
    if n < n_rows:
        chosen = _stretched(n_rows, n, rng)
        rows = chosen if isinstance(rows, slice) else rows[chosen]
    values = data.values[rows].astype(np.float64)
    d = values.shape[1]
    frame = data.frame
    if width is None:
        values -= frame.origin
        values *= frame.scale
        frame = Frame(np.zeros(d), np.ones(d), frame.variance)
    # Waking threads for a sweep of some 100 microseconds may cost more than it saves.
    n_threads = data.n_threads if values.size * n_components > 2**21 else 1
    return ArrayData(
        np.asfortranarray(values),
        None if data.weights is None else data.weights[rows],
        frame,
        n_threads,
    )


def _pick(weight: Array, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Numbers of n rows, each drawn with probability proportional to its weight."""
    cumulative = np.cumsum(weight)
    marks = rng.random(n) * cumulative[-1]
    return np.minimum(np.searchsorted(cumulative, marks, side="right"), len(weight) - 1)


def _plus_plus(part: ArrayData, n_components: int, rng: np.random.Generator) -> Array:
    """Centroids by k-means++ (Arthur & Vassilvitskii 2007), the best of several trials each."""
    weight = np.ones(part.n_rows) if part.weights is None else part.weights
    n_trials = 2 + int(np.log(n_components))
    means = np.empty((n_components, part.values.shape[1]))
    nearest = np.full(part.n_rows, np.inf)
    trials = part.values[_pick(weight, 1, rng)]
    for k in range(n_components):
        if k > 0:
            chance = weight * nearest
            # Fewer distinct rows than components: any row will do, its component stays empty.
            trials = part.values[_pick(chance if chance.any() else weight, n_trials, rng)]
        trials = np.ascontiguousarray(trials)
        means[k] = trials[_kernels.seeds.choose(part.values.T, weight, trials, nearest)]
    return means


def _centroids(data: ArrayData, n_components: int, init: Kind, rng: np.random.Generator) -> Array:
    """Centroids (K, D), in the units of the frame."""
    if init == "random_from_data":
        rows = data.values[_rows_drawn(data, n_components, rng)].astype(np.float64)
        return np.asarray((rows - data.frame.origin) * data.frame.scale)
    return _sought(_part(data, n_components, rng), n_components, init, rng)


def _rows_drawn(data: ArrayData, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Numbers of n rows, all different if there are as many."""
    weight = np.ones(data.n_rows) if data.weights is None else data.weights
    present = np.flatnonzero(weight > 0)
    share = weight[present] / weight[present].sum()
    return rng.choice(present, n, replace=len(present) < n, p=share)


def _sought(part: ArrayData, n_components: int, init: Kind, rng: np.random.Generator) -> Array:
    """Centroids (K, D) by k-means++, and k-means from there."""
    means = _plus_plus(part, n_components, rng)
    if init == "k-means++":
        return means
    model = Centroids(n_components, part.values.shape[1])
    start = model.prior + part.sum(model.visit, model.at(means), Assignment("hard"))
    fit = CrispEM(max_iter=KMEANS_SWEEPS, tol=KMEANS_TOL).fit(model, part, start)
    # An empty component's mean stays what it was when it was last seen: nobody's nearest.
    return np.where(np.isneginf(fit.theta.offsets)[:, None], means, fit.theta.means)


def _nearest(part: ArrayData, means: Array) -> NDArray[np.int64]:
    """The nearest centroid of each row."""
    labels = np.empty(part.n_rows, dtype=np.int64)
    centroids = Centroids(*means.shape).at(np.ascontiguousarray(means))
    _kernels.mixture.visit(part.block, centroids, Assignment("hard"), labels=labels)
    return labels


def sample_of(data: ArrayData, n_components: int, rng: np.random.Generator) -> ArrayData:
    """A random part of the rows, which stands for all of them; all where they are few."""
    n = max(min(max(data.n_rows // SHARE, FEWEST), MOST), 100 * n_components)
    if 2 * n >= data.n_rows:
        return data
    rows = _stretched(data.n_rows, n, rng)
    weights = np.ones(n) if data.weights is None else data.weights[rows]
    if np.count_nonzero(weights) < min(n, 10 * n_components):
        return data
    weights = weights * (data.total_weight / weights.sum())
    values = np.ascontiguousarray(data.values[rows])
    labels = None if data.labels is None else data.labels[rows]
    return replace(data, values=values, weights=weights, labels=labels, single=False)


def stretches_of(data: ArrayData, rng: np.random.Generator) -> ArrayData:
    """Random stretches of the sequences, as sequences of their own; all where rows are few."""
    n = min(max(data.n_rows // SHARE, FEWEST_OF_CHAINS), MOST)
    if 4 * n >= 3 * data.n_rows:
        return data
    length = FEWEST_OF_CHAINS // 2
    bounds = _bounds(data)
    # Pieces of no more than `length` rows, of which enough are drawn.
    begins = np.concatenate([np.arange(a, b, length) for a, b in pairwise(bounds)])
    ends = np.append(begins[1:], data.n_rows)
    order = rng.permutation(len(begins))
    n_taken = 1 + int(np.searchsorted(np.cumsum((ends - begins)[order]), n))
    taken = np.sort(order[:n_taken])
    rows = np.concatenate([np.arange(begins[i], ends[i]) for i in taken])
    return replace(
        data,
        values=np.ascontiguousarray(data.values[rows]),
        labels=None if data.labels is None else data.labels[rows],
        sequences=as_sequences((ends - begins)[taken], len(rows)),
        single=False,
    )


def loosened(model: Model, posterior: Stats) -> Stats:
    """A posterior that a part of the rows led to, as a start for all: nothing is impossible."""
    out = model.latent.loosen(posterior)
    if not model.emission.located:
        rows = Stats(model.layout, posterior.buffer - model.prior.buffer)
        out = out + model.common(rows) * LOOSE
    return out


def _bounds(data: ArrayData) -> NDArray[np.int64]:
    """Where sequences begin, and the last one ends."""
    if data.sequences is None:
        return np.array([0, data.n_rows])
    return data.sequences.offsets


def of_chain(
    model: Model, data: ArrayData, plan: Sequence[ChainKind], rng: np.random.Generator
) -> Array:
    """Posteriors of a chain to start from, (start, size), one of each kind in `plan`.

    Rows are told apart one by one or, where states last, by stretches of rows: by the means of a
    stretch (the composition of symbols), or by its spread.
    """
    k = model.latent.n_components
    too_wide = wide(model, data)
    points = np.empty((0, 0)) if too_wide else _points(model, data)
    out = np.empty((len(plan), model.layout.size))
    for row, (kind, length) in zip(out, plan, strict=True):
        if too_wide and kind not in ("random", "segments"):
            row[...] = posterior(model, data, "kmeans", rng).buffer
            continue
        if kind == "random":
            labels = rng.integers(k, size=data.n_rows)
        elif kind == "segments":
            labels = _segments(data, k)
        else:
            features, of = _features(points, _bounds(data), kind, length)
            d = features.shape[1]
            unit = Frame(np.zeros(d), np.ones(d), np.ones(d))
            part = ArrayData(features, None, unit, 1)
            labels = _nearest(part, _sought(part, k, "kmeans", rng))[of]
        row[...] = _chain_of(model, data, labels, kind == "sticky").buffer
    return out


def moved(
    model: Model, data: ArrayData, at: Stats, read: str, n: int, rng: np.random.Generator
) -> Array:
    """Posteriors (n, size) that a move led to: two components put together, and one split in two.

    Ueda, Nakano, Ghahramani & Hinton (2000), by labels: what is put together lies near to each
    other, and rows of what is split go to the nearer one of two of them.
    """
    k = model.latent.n_components
    of_all = np.empty(data.n_rows, dtype=np.int64)
    kernel = model.latent.kernel(False)
    theta = getattr(model, read)(at)
    kernel.visit(data.block, theta, Assignment("hard"), labels=of_all)
    # A row of no weight says nothing of the frame, and may lie anywhere in it.
    seen = np.ones(data.n_rows, dtype=bool) if data.weights is None else data.weights > 0
    points, labels = _points(model, data, seen), of_all[seen]
    counts = np.bincount(labels, minlength=k)
    held = np.maximum(counts, 1)[:, None]
    means = np.array([np.bincount(labels, column, k) for column in points.T]).T / held
    within = np.array(
        [np.bincount(labels, (column - means[labels, j]) ** 2, k)
         for j, column in enumerate(points.T)]
    ).T / held  # fmt: skip
    out = []
    for _ in range(n):
        one = rng.integers(k)
        distance = ((means - means[one]) ** 2 / (within + within[one] + LEAST_SPREAD)).sum(axis=1)
        other = np.argsort(distance, kind="stable")[1 + rng.integers(min(2, k - 1))]
        new = np.where(labels == other, one, labels)
        share = np.bincount(new, minlength=k).astype(float)
        split = rng.choice(k, p=share / share.sum())
        rows = np.flatnonzero(new == split)
        metric = 1 / (within[split] + LEAST_SPREAD)
        away = _away(points[rows], points[rng.choice(rows)], metric)
        if away.any():
            second = points[rng.choice(rows, p=away / away.sum())]
            new[rows[away > _away(points[rows], second, metric)]] = other
        moved_all = of_all.copy()
        moved_all[seen] = new
        if data.labels is not None:
            moved_all = np.where(data.labels >= 0, data.labels, moved_all)
        out.append(given_labels(model, data, moved_all).buffer)
    return np.array(out)


def _away(points: Array, point: Array, metric: Array) -> Array:
    """Squared distances of points (N, P) from one, (N,)."""
    return np.asarray(np.einsum("np,p->n", (points - point) ** 2, metric))


def wide(model: Model, data: ArrayData) -> bool:
    """Whether rows as points would take too much memory: of symbols, a number each."""
    return data.n_rows * (getattr(model.emission, "point_width", 0) or 1) > MOST_POINTS


def given_labels(model: Model, data: ArrayData, labels: NDArray[np.int64]) -> Stats:
    """A posterior to start from, of rows whose components are known."""
    if isinstance(model.latent, Mixture):
        return model.prior + _spread(model, _labelled(model, data, labels))
    return _chain_of(model, data, labels, sticky=False)


def agreeing(model: Model, data: ArrayData, start: Stats, read: str) -> Stats:
    """A start in which components are those that known rows are of, as far as it tells them apart.

    Components take the numbers that the most known rows agree with (an assignment problem), and
    known rows the components that they are of. `start` itself where no row is known.
    """
    if data.labels is None:
        return start
    from scipy.optimize import linear_sum_assignment

    k = model.latent.n_components
    try:
        theta = getattr(model, "mode" if read == "mode" else "mean")(start)
    except DegenerateError:
        return start
    found = np.empty(data.n_rows, dtype=np.int64)
    unknown = replace(data, labels=None)
    model.latent.kernel(False).visit(unknown.block, theta, Assignment("hard"), labels=found)
    known = data.labels >= 0
    weights = None if data.weights is None else data.weights[known]
    agree = np.bincount(found[known] * k + data.labels[known], weights, k * k).reshape(k, k)
    _, number = linear_sum_assignment(agree, maximize=True)
    return given_labels(model, data, np.where(known, data.labels, number[found]))


def of_known(model: Model, data: ArrayData) -> Stats | None:
    """A start in which rows are in the component whose known rows' mean is nearest.

    None where some component has no known row.
    """
    k = model.latent.n_components
    if data.labels is None or wide(model, data):
        return None
    present = data.labels >= 0 if data.weights is None else (data.labels >= 0) & (data.weights > 0)
    of = data.labels[present]
    counts = np.bincount(of, minlength=k)
    if not counts.all():
        return None
    # One that is far away, and weighs nothing, would tell the units.
    seen = np.ones(data.n_rows, dtype=bool) if data.weights is None else data.weights > 0
    points = _points(model, data, seen)
    means = np.array([np.bincount(of, column[present[seen]], k) for column in points.T]).T
    d = points.shape[1]
    part = ArrayData(points, None, Frame(np.zeros(d), np.ones(d), np.ones(d)), data.n_threads)
    labels = np.zeros(data.n_rows, dtype=np.int64)
    labels[seen] = _nearest(part, means / counts[:, None])
    return given_labels(model, data, np.where(data.labels >= 0, data.labels, labels))


def _points(model: Model, data: ArrayData, rows: slice | NDArray[np.bool_] = slice(None)) -> Array:
    """Rows as points that may be compared, (N, P)."""
    return np.asfortranarray(model.emission.points(data.values[rows].astype(np.float64)))


def _segments(data: ArrayData, k: int) -> NDArray[np.int64]:
    """Each sequence cut into as many parts as there are states."""
    return np.concatenate([np.arange(n) * k // n for n in np.diff(_bounds(data))])


def _features(
    points: Array, bounds: NDArray[np.int64], kind: str, length: int
) -> tuple[Array, NDArray[np.int64]]:
    """What stretches of `length` rows are like, (S, P), and the stretch of each row, (N,)."""
    n = len(points)
    if length == 1:
        return points, np.arange(n)
    begins = np.concatenate([np.arange(a, b, length) for a, b in pairwise(bounds)])
    lengths = np.diff(np.append(begins, n))
    features = np.add.reduceat(points, begins, axis=0) / lengths[:, None]
    of = np.repeat(np.arange(len(begins)), lengths)
    if kind == "spread":
        spread = np.add.reduceat((points - features[of]) ** 2, begins, axis=0) / lengths[:, None]
        features = np.log(spread + LEAST_SPREAD * (points**2).mean(axis=0) + LEAST_SPREAD)
    deviation = features.std(axis=0)
    return np.asfortranarray(features / np.where(deviation > 0, deviation, 1.0)), of


def _chain_of(model: Model, data: ArrayData, labels: NDArray[np.int64], sticky: bool) -> Stats:
    """The posterior given each row's state, in the order of states that zeros allow best."""
    latent, k = model.latent, model.latent.n_components
    counted = np.zeros((k + 1, k))
    bounds = _bounds(data)
    counted[0] = np.bincount(labels[bounds[:-1]], minlength=k)
    inner = np.ones(len(labels) - 1, dtype=bool)
    inner[bounds[1:-1] - 1] = False
    np.add.at(counted, (1 + labels[:-1][inner], labels[1:][inner]), 1.0)
    order = np.arange(k) if data.labels is not None else latent.arrangement(counted)
    counted = counted[:, np.argsort(order)]
    counted[1:] = counted[1:][np.argsort(order)]
    labels = order[labels]
    if sticky:
        stay = np.vstack([latent.equal[0], STICKY * np.eye(k) + (1 - STICKY) * latent.equal[1:]])
        counted = stay * counted.sum(axis=1, keepdims=True)
    apart = Model(Mixture(k), model.emission)
    stats = _labelled(apart, data, labels)
    possible = latent.equal > 0
    if not possible.all():  # no row but may be in any state that zeros leave it
        stats = _spread(apart, stats)
    fields = {name: stats[name] for name, _ in model.emission.fields(k)}
    return model.prior + model.layout.stats({**fields, "excess": possible * (counted + 1.0)})


def at_once(model: Model, data: ArrayData, plan: Sequence[Kind], rng: np.random.Generator) -> Array:
    """Return what `each` does, of few rows, by compiled code."""
    block, d = data.block, data.values.shape[1]
    out = np.empty((len(plan), model.layout.size))
    seeds = rng.integers(2**63, size=len(plan), dtype=np.uint64)
    kinds = np.array(plan)
    models, threads = loops.mixtures(model), data.n_threads
    settings: dict[str, Any] = {
        "kmeans_sweeps": KMEANS_SWEEPS,
        "kmeans_tol": KMEANS_TOL,
        "spread": SPREAD,
    }
    for kind in dict.fromkeys(plan):
        of = np.flatnonzero(kinds == kind)
        there, labels, init = np.empty((len(of), model.layout.size)), None, str(kind)
        if kind == "whitened" and not model.emission.located:
            init = "kmeans"
        elif kind == "whitened":
            labels, init = np.empty((len(of), data.n_rows), dtype=np.int64), "labels"
            white = replace(block, values=data.whitened(), origin=np.zeros(d), scale=np.ones(d))
            rows = loops.rows_of(white, np.ones(d), len(of))
            _kernels.loop.begin_all(
                rows, models, "kmeans", seeds[of], there, threads, labels=labels, **settings
            )
        rows = loops.rows_of(block, model.emission.units.variance, len(of))
        _kernels.loop.begin_all(
            rows, models, init, seeds[of], there, threads, labels=labels, **settings
        )
        out[of] = there
    return out


def each(model: Model, data: ArrayData, plan: Sequence[Kind], rng: np.random.Generator) -> Array:
    """Posteriors to start from, (start, size), one of each kind in `plan`."""
    out = np.empty((len(plan), model.layout.size))
    # One by one: of a thousand features all of them take a second to copy.
    for row, init in zip(out, plan, strict=True):
        row[:] = posterior(model, data, init, rng).buffer
    return out


def _spread(model: Model, stats: Stats) -> Stats:
    """Statistics of which a share is what all rows have in common, where they are to be spread."""
    if model.emission.located:
        return stats
    return stats * (1 - SPREAD) + model.common(stats) * SPREAD


def _of_part(model: Model, data: ArrayData, init: Kind, rng: np.random.Generator) -> Stats:
    """Statistics of counts or symbols by centroids among points that stand for them.

    Those of a part of the rows, each given to the nearest centroid, on behalf of all; a share is
    spread over all components, since what a component has not seen EM would hold impossible for
    ever.
    """
    k, emission = model.latent.n_components, model.emission
    rows = _part(data, k, rng, emission.point_width)
    points = np.asfortranarray(emission.points(rows.values))
    d = points.shape[1]
    part = replace(rows, values=points, frame=Frame(np.zeros(d), np.ones(d), np.ones(d)))
    if init == "random_from_data":
        means = points[_rows_drawn(part, k, rng)]
    else:
        means = _sought(part, k, init, rng)
    labels = _nearest(part, means)
    stats = _labelled(model, rows, labels) * (data.total_weight / rows.total_weight)
    return _spread(model, stats)


def posterior(model: Model, data: ArrayData, init: Kind, rng: np.random.Generator) -> Stats:
    """Return a posterior to start from, by one pass over the data.

    Centroids are found on a part of the rows; the pass gives each row to the nearest and takes
    the components' moments about them.

    Parameters
    ----------
    model : Model
    data : ArrayData
    init : {"kmeans", "k-means++", "random", "random_from_data"}
        Each row starts in the component of the nearest centroid after k-means; of the nearest
        centroid that k-means++ chose; in one drawn for it; in that of the nearest of rows drawn.
    rng : numpy.random.Generator
    """
    if init not in get_args(Kind):
        raise ValueError(
            f"init must be one of {', '.join(map(repr, get_args(Kind)))}, not {init!r}"
        )
    k = model.latent.n_components
    data = replace(data, labels=None)  # what is known is the fit's business
    if init == "random":
        stats = _labelled(model, data, rng.integers(k, size=data.n_rows))
        return model.prior + (stats if np.all(model.latent.equal > 0) else _spread(model, stats))
    if init == "whitened" and model.emission.located:
        d = data.values.shape[1]
        unit = Frame(np.zeros(d), np.ones(d), np.ones(d))
        white = ArrayData(data.whitened(), data.weights, unit, data.n_threads)
        labels = _nearest(white, _centroids(white, k, "kmeans", rng))
        return model.prior + _labelled(model, data, labels)
    if not model.emission.located:
        return model.prior + _of_part(model, data, init, rng)
    about = model.about(_centroids(data, k, init, rng))
    # In float64 arithmetic: a first theta is read from a scatter that may be close to singular.
    stats = data.sum(model.visit, about, Assignment("hard", precise=True))
    return model.prior + model.latent.loosen(stats)


def from_labels(model: Model, data: ArrayData, labels: ArrayLike) -> Stats:
    """Return the posterior when T is known: prior + the statistics of labelled rows.

    Two passes where statistics are moments: the first finds each component's mean, the second
    takes moments about it.

    Parameters
    ----------
    model : Model
    data : ArrayData
    labels : array-like of shape (N,)
        The component of each row, 0 ... K - 1.

    Raises
    ------
    ValueError
        If labels has another shape, or holds anything else, or the emission doesn't allow a row.
    """
    components = np.asarray(labels)
    k = model.latent.n_components
    if components.shape != (data.n_rows,):
        raise ValueError(f"labels must have shape ({data.n_rows},), not {components.shape}")
    if components.dtype.kind not in "iub":
        raise ValueError(f"labels must be integers, not dtype {components.dtype}")
    bad = np.flatnonzero((components < 0) | (components >= k))
    if len(bad):
        raise ValueError(f"labels[{bad[0]}] is {components[bad[0]]}; 0 to {k - 1} are allowed")
    model.emission.check_rows(data.values)
    return model.prior + _labelled(model, data, components)


def _labelled(model: Model, data: ArrayData, labels: NDArray[Any]) -> Stats:
    """Statistics of labelled rows."""
    labelled = data.with_labels(np.ascontiguousarray(labels, dtype=np.int64))
    given = Assignment("given", precise=True)
    means = np.zeros((model.latent.n_components, model.emission.n_features))
    stats = labelled.sum(model.visit, model.about(means), given)
    if model.layout.moments:
        stats = labelled.sum(model.visit, model.about(model.emission.means_in(stats)), given)
    return stats


def from_parameters(
    model: Model,
    posterior: Stats,
    read: str,
    *,
    weights: Array | None = None,
    means: Array | None = None,
    covariances: Array | None = None,
) -> Stats:
    """Return a posterior that reads as the given parameters (in the frame's units).

    Parameters
    ----------
    model : Model
    posterior : Stats
        Gives what is not given, and how many rows stand behind each component.
    read : {"mode", "mean", "sample"}
        What the mode, or otherwise the mean, of the result must be.
    weights : ndarray of shape (K,), optional
    means : ndarray of shape (K, D), optional
    covariances : ndarray in the shape of the statistics' scatter, optional
    """
    if read not in ("mode", "mean", "sample"):
        raise ValueError(f"read must be 'mode', 'mean' or 'sample', not {read!r}")
    if not isinstance(posterior, Stats):
        raise TypeError(f"posterior must be Stats, such as `posterior` gives, not {posterior!r}")
    out = posterior.copy()
    if weights is not None:
        total = float((posterior["strength"] - model.prior["strength"]).sum())
        for name, value in model.latent.around(total * weights).items():
            out[name][...] = model.prior[name] + value
    if means is not None:
        out["mean"][...] = means
    if covariances is not None:
        distribution = model.emission.distribution(out)
        scale = distribution.exponent if read == "mode" else out["dof"].copy()
        # A component that stands empty counts as one row here, so that it can hold a covariance.
        lift = np.maximum(1.0 - scale, 0.0)
        out["dof"][...] += lift
        scale = (scale + lift).reshape((-1,) + (1,) * (covariances.ndim - 1))
        out["scatter"][...] = covariances * scale
        out["strength"][...] = np.maximum(out["strength"], 1.0)
    return out


# Coupled chains ----------------------------------------------------------------------------------

# A kind of start for coupled chains, and whether their states last.
CoupledInit = tuple[Literal["kmeans", "rows", "residuals", "random"], bool]
# A single chain fitted to data, from transitions (1, K, K) and means (K, D): its means, and each
# row's expected one.
OneChain = Callable[[ArrayData, Array, Array], tuple[Array, Array]]
# Points that are taken apart into one summand a chain: centroids or rows, at most; rows that tell
# the noise. Rounds of taking apart, and how often it is begun.
MOST_CENTROIDS, MOST_ROWS, ROWS_OF_NOISE = 64, 200, 1000
ROUNDS_APART, TIMES_APART = 12, 8
# Joint states among which the nearest is sought of all; of more, a chain at a time.
MOST_SUMS = 1024
# Sweeps of one chain, before its means are subtracted.
SWEEPS_OF_ONE = 12
# Of a feature's variance, the least noise to start with.
LEAST_NOISE = 1e-4


def of_coupled(
    data: ArrayData,
    n_chains: int,
    n_components: int,
    init: CoupledInit,
    one_chain: OneChain,
    rng: np.random.Generator,
) -> tuple[Array, Array, Array]:
    """Transitions (M, K, K), means (M K, D) and covariance (D, D) for coupled chains to start from.

    Means and covariance are in the units of the frame.

    Parameters
    ----------
    init : tuple
        "kmeans" and "rows" take centroids, or rows, apart into a summand for each chain;
        "residuals" fits one chain after another to what the ones before leave; "random" takes
        random rows over sqrt(M), and the covariance of the rows.
    one_chain : callable
        ``one_chain(data, transition, means)`` fits a single chain from there.
    """
    kind, lasts = init
    m, k = n_chains, n_components
    steps = np.full((k, k), 1 / k)
    if lasts:
        steps = STICKY * np.eye(k) + (1 - STICKY) * steps
    transition = np.tile(steps, (m, 1, 1))
    part = _part(data, k, rng)
    rows = part.values
    if kind == "random":
        means = rows[rng.integers(len(rows), size=m * k)] / np.sqrt(m)
        return transition, means, np.diag(data.frame.variance)
    if kind == "residuals":
        return transition, *_one_by_one(data, m, k, transition[:1], one_chain, rng)
    if kind == "kmeans":
        n = min(k ** min(m, 32), MOST_CENTROIDS, len(rows))
        points = _sought(part, n, "kmeans", rng)
        weight = np.bincount(_nearest(part, points), minlength=n).astype(float)
    else:
        points = rows[_rows_drawn(part, min(len(rows), MOST_ROWS), rng)]
        weight = np.ones(len(points))
    means = _taken_apart(points, weight, m, k, rng)
    rows = rows[_rows_drawn(part, min(len(rows), ROWS_OF_NOISE), rng)]
    away = rows - means[_summands(rows, means, m, k, None)].sum(axis=1)
    return transition, means, _noise(away, data.frame)


def _noise(away: Array, frame: Frame) -> Array:
    """Covariance of what is left of rows, not less than a share of the rows' own."""
    return np.asarray(away.T @ away / len(away) + LEAST_NOISE * np.diag(frame.variance))


def _one_by_one(
    data: ArrayData,
    m: int,
    k: int,
    transition: Array,
    one_chain: OneChain,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Means of chains each of which is fitted to what those before it leave; the last's noise."""
    frame = data.frame
    values = (data.values.astype(np.float64) - frame.origin) * frame.scale
    d = values.shape[1]
    own = Frame(np.zeros(d), np.ones(d), frame.variance)
    means = []
    for _ in range(m):
        left = replace(data, values=values, frame=own, single=False)
        begin = _plus_plus(_part(left, k, rng), k, rng)
        states, expected = one_chain(left, transition, begin)
        means.append(states)
        values = values - expected
    return np.concatenate(means), _noise(values, frame)


def _taken_apart(points: Array, weight: Array, m: int, k: int, rng: np.random.Generator) -> Array:
    """Means (M K, D) whose sums, one a chain, come nearest to the points: the best of some tries.

    By turns the nearest sums and, given those, least squares (a vector quantiser of M codebooks).
    """
    best, least = np.zeros((m * k, points.shape[1])), np.inf
    heavy = weight[:, None] * points
    for _ in range(TIMES_APART):
        means = points[rng.integers(len(points), size=m * k)] / np.sqrt(m)
        states = _summands(points, means, m, k, None)
        for _ in range(ROUNDS_APART):
            marks = np.zeros((len(points), m * k))
            np.put_along_axis(marks, states, 1.0, axis=1)
            means = interruptible(marks.size * m * k, partial(_fitted, marks, weight, heavy))
            last, states = states, _summands(points, means, m, k, states)
            if np.array_equal(last, states):
                break
        away = ((points - means[states].sum(axis=1)) ** 2).sum(axis=1) @ weight
        if away < least:
            best, least = means, away
    return best


def _fitted(marks: Array, weight: Array, heavy: Array) -> Array:
    """Least squares of weighted points, (M K, D)."""
    return least_norm_solution(marks.T @ (weight[:, None] * marks), marks.T @ heavy)


def _summands(
    points: Array, means: Array, m: int, k: int, states: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """Rows of `means`, one a chain, whose sum is nearest to each point, (n, M)."""
    first = np.arange(m) * k
    if m * np.log(k) <= np.log(MOST_SUMS):
        each = np.indices((k,) * m).reshape(m, -1).T + first
        sums = means[each].sum(axis=1)
        far = (sums**2).sum(axis=1) - 2 * points @ sums.T
        return np.asarray(each[far.argmin(axis=1)], dtype=np.int64)
    found = np.tile(first, (len(points), 1)) if states is None else states.copy()
    for _ in range(2):
        for chain in range(m):
            left = points - means[found].sum(axis=1) + means[found[:, chain]]
            own = means[first[chain] : first[chain] + k]
            far = (own**2).sum(axis=1) - 2 * left @ own.T
            found[:, chain] = first[chain] + far.argmin(axis=1)
    return found

"""The loop without Python: whole fits in compiled code, where data are small.

A sweep of little data takes less time than Python needs to ask for it. The loop of methods.py is
there a second time, in _kernels/loop.pyx, for mixtures with a Dirichlet prior on their weights; the
formulas of both are the same compiled ones (_kernels/parts.pxd names them), and tests hold the two
to rounding. Each fit takes one thread, and many run at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import _kernels
from ._kernels.inputs import Assignment, Block, Mixtures
from .draws import At, Draws, chosen, places
from .exceptions import impossible_error
from .stats import Stats

if TYPE_CHECKING:
    from .data import ArrayData
    from .model import Model, Theta

__all__ = ["Climbs", "climb", "mixtures", "most_rows", "sample"]

Array = NDArray[np.float64]

# Rows times doubles of theta up to which a fit is left to one thread: some ms a sweep.
SMALL = 1_000_000


def most_rows(model: Model) -> int:
    """Rows up to which the compiled loop takes a fit of this model; 0 where it never does."""
    return SMALL // model.layout.size if model.compiled else 0


def mixtures(
    model: Model, prior: Array | None = None, constants: dict[str, Any] | None = None
) -> Mixtures:
    """Models like `model`, or those that differ from it in these.

    Parameters
    ----------
    model : Model
    prior : ndarray of shape (problem, size), or (1, size), optional
        Buffers of the priors.
    constants : dict, optional
        What emissions have beside: see `Mixtures`.
    """
    emission = model.emission
    return Mixtures(
        emission.kernel,
        model.latent.n_components,
        model.latent.concentration is None,
        model.prior.buffer[None] if prior is None else prior,
        **(emission.constants | (constants or {})),
    )


def _theta(model: Model, *shape: int) -> Array:
    """Room for what the loop writes of theta, `shape` times."""
    k = model.latent.n_components
    sizes = [math.prod(part) for part in model.emission.arrays(k).values()]
    return np.zeros((*shape, k + sum(sizes)))


def _parameters(model: Model, theta: Array) -> dict[str, Array]:
    """Weights (..., K), and the arrays of the emission."""
    k = model.latent.n_components
    out = {"weights": np.exp(theta[..., :k])}
    start = k
    for name, shape in model.emission.arrays(k).items():
        end = start + math.prod(shape)
        out[name] = theta[..., start:end].reshape(*theta.shape[:-1], *shape)
        start = end
    return out


def _flat(model: Model, theta: Theta) -> Array:
    """Theta as the loop has it: logarithms of weights, and the arrays of the emission."""
    arrays = dict(theta.arrays)
    with np.errstate(divide="ignore"):
        logs = np.log(arrays.pop("weights"))
    return np.concatenate([logs, *(np.ravel(part) for part in arrays.values())])


@dataclass(frozen=True)
class Climbs:
    """Where each of several fits ended: see methods.py's Fit.

    Attributes
    ----------
    posterior : ndarray of shape (problem, size)
    parameters : dict of ndarray
        "weights" (problem, K), and what draws of the emission's are kept as, problems first.
    objectives : ndarray
        After 0, 1, ... updates, of one problem after the other.
    first : ndarray of shape (problem,)
        Place of each problem's first.
    n_sweeps : ndarray of shape (problem,)
        How many there are; none where the start itself is degenerate.
    converged : ndarray of shape (problem,)
    degenerate : ndarray of shape (problem,)
        The component that shrank onto too few rows; K: the objective is no finite number; or -1.
    impossible : ndarray of shape (problem,)
        The first row of probability 0; or -1.
    fell : ndarray of shape (problem,)
        The last sweep in which the objective fell by more than rounding, or 0.
    """

    posterior: Array
    parameters: dict[str, Array]
    objectives: Array
    first: NDArray[np.int64]
    n_sweeps: NDArray[np.int64]
    converged: NDArray[np.bool_]
    degenerate: NDArray[np.int64]
    impossible: NDArray[np.int64]
    fell: NDArray[np.int64]

    @property
    def objective(self) -> Array:
        """The last ones, (problem,); NaN where degenerate."""
        out = np.full(len(self.first), np.nan)
        good = self.degenerate < 0
        out[good] = self.objectives[(self.first + self.n_sweeps - 1)[good]]
        return out

    def trace(self, p: int) -> Array:
        """All of one problem, (n_sweeps,)."""
        return self.objectives[self.first[p] : self.first[p] + self.n_sweeps[p]].copy()

    def __getitem__(self, of: NDArray[np.int64]) -> Climbs:
        """Return some of them."""
        parameters = {name: value[of] for name, value in self.parameters.items()}
        return Climbs(
            self.posterior[of],
            parameters,
            self.objectives,
            self.first[of],
            self.n_sweeps[of],
            self.converged[of],
            self.degenerate[of],
            self.impossible[of],
            self.fell[of],
        )


def climb(
    rows: Any,
    models: Mixtures,
    model: Model,
    method: Any,
    posterior: Array,
    n_threads: int,
    constant: Array | None = None,
) -> Climbs:
    """Fit every problem by a method that climbs, from `posterior` (problem, size), overwritten.

    Parameters
    ----------
    rows : _kernels.loop.Rows
    models : Mixtures
    model : Model
        Any problem's: they differ in frame and prior alone.
    method : MeanField, EM, VariationalEM or CrispEM
    posterior : ndarray of shape (problem, size)
    n_threads : int
    constant : ndarray of shape (problem,), optional
        What objectives have of the rows whatever theta is: see `Block`.
    """
    n = len(posterior)
    theta = _theta(model, n, 1)
    state = np.zeros((n, 4), dtype=np.int64)
    objectives = _kernels.loop.run(
        rows,
        models,
        method.read,
        method.assign(0),
        posterior,
        method.max_iter + 1,
        n_threads,
        state=state,
        tol=np.nan if method.tol is None else float(method.tol),
        theta=theta,
        constant=constant,
    )
    return Climbs(
        posterior,
        _parameters(model, theta[:, 0]),
        objectives,
        np.cumsum(state[:, 0]) - state[:, 0],
        state[:, 0],
        state[:, 1] == 1,
        np.where(state[:, 1] == 3, state[:, 2], -1),
        np.where(state[:, 1] == 5, state[:, 2], -1),
        state[:, 3],
    )


def rows_of(block: Block, variance: Array, n: int) -> Any:
    """The rows of a block, of which features have this variance, as those of n problems alike."""
    weights = None if block.weights is None else [block.weights] * n
    rows = _kernels.loop.Rows([block.values] * n, weights)
    rows.set_frames(*(np.tile(value, (n, 1)) for value in (block.origin, block.scale, variance)))
    return rows


def advance(
    model: Model,
    data: ArrayData,
    method: Any,
    posteriors: Array,
    n_sweeps: int,
) -> Array:
    """Climb some sweeps from each posterior (start, size), overwritten; objectives, or NaN."""
    rows = rows_of(data.block, model.emission.units.variance, len(posteriors))
    method = replace(method, max_iter=n_sweeps)
    climbs = climb(rows, mixtures(model), model, method, posteriors, data.n_threads)
    return np.where(climbs.impossible < 0, climbs.objective, np.nan)


def sample(
    model: Model,
    block: Block,
    posteriors: list[Stats],
    seeds: list[int],
    n_tune: int,
    n_draws: int,
    thin: int,
) -> tuple[Draws[Theta], Array]:
    """Run chains: see `Model.chains`.

    Returns the draws, and log p(X, T, theta) of each sweep before them, (chain, n_tune).

    Parameters
    ----------
    model : Model
    block : Block
        All rows.
    posteriors : list of Stats
    seeds : list of int
        Of each chain.
    n_tune, n_draws, thin : int
        Sweeps before the draws, 1 at least; draws; sweeps a draw.
    """
    n = len(posteriors)
    model.check_frame(block)
    rows = rows_of(block, model.emission.units.variance, n)
    now = np.array([posterior.buffer for posterior in posteriors])
    state = np.zeros((n, 4), dtype=np.int64)

    def run(n_sweeps: int, theta: Array, **more: Any) -> Array:
        objectives = _kernels.loop.run(
            rows,
            mixtures(model),
            "sample",
            Assignment("draw"),
            now,
            n_sweeps,
            block.n_threads,
            state=state,
            theta=theta,
            constant=np.full(n, block.constant),
            seeds=np.array(seeds, dtype=np.uint64),
            **more,
        )
        for _, status, number, _ in state:
            if status == 3:
                raise model.emission.degenerate_error(int(number))
            if status == 5:
                raise impossible_error(block.first_row + int(number))
        return objectives.reshape(n, -1)

    tuned = _theta(model, n, 1)
    tuning = run(n_tune, tuned)
    k = model.latent.n_components
    theta, log_joint = _theta(model, n, n_draws), np.empty((n, n_draws))
    common, terms = np.empty((n, n_draws)), np.empty((n, n_draws, k * k))
    before = now.copy()

    def keep(first: int, end: int, at: Array) -> None:
        """Draws from `first` to `end` of every chain, and the density of a point at each."""
        part = _theta(model, n, end - first)
        of = np.empty((n, end - first)), np.empty((n, end - first, k * k))
        log_joint[:, first:end] = run(
            (end - first) * thin, part, first_sweep=n_tune + first * thin, thin=thin, best=at,
            common=of[0], terms=of[1],
        )  # fmt: skip
        theta[:, first:end], common[:, first:end], terms[:, first:end] = part, *of

    # Where chains come by, and then once more, the same: what is to be seen of the best place.
    stops: list[list[Stats]] = [[] for _ in range(n)]
    first = 0
    for last in places(n, n_draws):
        keep(first, last + 1, tuned[0, 0])
        for stop, buffer in zip(stops, now, strict=True):
            stop.append(Stats(model.layout, buffer.copy()))
        first = last + 1
    seen = [posterior for stop in stops for posterior in stop]
    centres = [model.centre(posterior) for posterior in seen]
    centre = centres[chosen(centres, seen, model.log_density_terms)]
    now[...] = before
    keep(0, n_draws, _flat(model, centre))
    drawn = Draws(
        _parameters(model, theta),
        log_joint,
        At(centre, common, terms.reshape(n, n_draws, k, k)),
        seen,
        [Stats(model.layout, buffer) for buffer in now],
    )
    return drawn, tuning

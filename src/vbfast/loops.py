"""The loop without Python: whole fits in compiled code, where data are small.

A sweep of little data takes less time than Python needs to ask for it. The loop of methods.py is
there a second time, in _kernels/loop.pyx, for conjugate Gaussian mixtures with a Dirichlet prior,
and so are the formulas for weights and draws (_kernels/conjugate.pxd, which both take all others
from); tests hold the two to rounding. Each fit takes one thread, and many run at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import _kernels
from ._kernels.inputs import Assignment, Block, Mixtures
from .conjugate import degenerate_error, point
from .draws import Draws
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


def mixtures(model: Model, prior: Array | None = None) -> Mixtures:
    """Models like `model` with the priors whose buffers are given, (problem, size), or its own."""
    return Mixtures(
        model.emission.covariance_type,
        model.latent.n_components,
        float(model.emission.reg_covar),
        model.latent.concentration is None,
        model.prior.buffer[None] if prior is None else prior,
    )


def _theta(model: Model, *shape: int) -> dict[str, Array]:
    """Room for what the loop writes of theta, `shape` times."""
    k, d = model.latent.n_components, model.emission.n_features
    factor = int(np.prod(dict(model.emission.fields(k))["scatter"]))
    sizes = {"log_weights": k, "means": k * d, "factors": factor}
    return {name: np.zeros((*shape, size)) for name, size in sizes.items()}


def _parameters(model: Model, theta: dict[str, Array]) -> dict[str, Array]:
    """Weights (..., K), means (..., K, D) and factors (..., G, ...)."""
    k, d = model.latent.n_components, model.emission.n_features
    lead = theta["means"].shape[:-1]
    return {
        "weights": np.exp(theta["log_weights"]),
        "means": theta["means"].reshape(*lead, k, d),
        "factors": theta["factors"].reshape(*lead, *dict(model.emission.fields(k))["scatter"]),
    }


@dataclass(frozen=True)
class Climbs:
    """Where each of several fits ended: see methods.py's Fit.

    Attributes
    ----------
    posterior : ndarray of shape (problem, size)
    parameters : dict of ndarray
        "weights" (problem, K), "means" (problem, K, D), "factors" (problem, G, ...).
    objectives : ndarray
        After 0, 1, ... updates, of one problem after the other.
    first : ndarray of shape (problem,)
        Place of each problem's first.
    n_sweeps : ndarray of shape (problem,)
        How many there are; none where the start itself is degenerate.
    converged : ndarray of shape (problem,)
    degenerate : ndarray of shape (problem,)
        The component that shrank onto too few rows; K: the objective is no finite number; or -1.
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
            self.fell[of],
        )


def climb(
    rows: Any, model: Model, prior: Array, method: Any, posterior: Array, n_threads: int
) -> Climbs:
    """Fit every problem by a method that climbs, from `posterior` (problem, size), overwritten.

    Parameters
    ----------
    rows : _kernels.loop.Rows
    model : Model
        Any problem's: they differ in frame and prior alone.
    prior : ndarray of shape (problem, size), or (1, size)
    method : MeanField, EM, VariationalEM or CrispEM
    posterior : ndarray of shape (problem, size)
    n_threads : int
    """
    n = len(posterior)
    theta = _theta(model, n, 1)
    state = np.zeros((n, 4), dtype=np.int64)
    objectives = _kernels.loop.run(
        rows,
        mixtures(model, prior),
        method.read,
        method.assign(0),
        posterior,
        method.max_iter + 1,
        n_threads,
        state=state,
        tol=np.nan if method.tol is None else float(method.tol),
        log_weights=theta["log_weights"],
        means=theta["means"],
        factors=theta["factors"],
    )
    parameters = {name: value[:, 0] for name, value in _parameters(model, theta).items()}
    return Climbs(
        posterior,
        parameters,
        objectives,
        np.cumsum(state[:, 0]) - state[:, 0],
        state[:, 0],
        state[:, 1] == 1,
        np.where(state[:, 1] == 3, state[:, 2], -1),
        state[:, 3],
    )


def rows_of(model: Model, block: Block, n: int) -> Any:
    """The rows of a block as those of n problems alike."""
    model.check_frame(block)
    weights = None if block.weights is None else [block.weights] * n
    rows = _kernels.loop.Rows([block.values] * n, weights)
    units = model.emission.units
    rows.set_frames(
        *(np.tile(value, (n, 1)) for value in (units.origin, units.scale, units.variance))
    )
    return rows


def advance(
    model: Model,
    data: ArrayData,
    method: Any,
    _: NDArray[np.int64],
    posteriors: Array,
    n_sweeps: int,
) -> Array:
    """Climb some sweeps from each posterior (start, size), overwritten; objectives, or NaN."""
    rows = rows_of(model, data.block, len(posteriors))
    method = replace(method, max_iter=n_sweeps)
    prior = model.prior.buffer[None]
    return climb(rows, model, prior, method, posteriors, data.n_threads).objective


def begin(model: Model, data: ArrayData, plan: Sequence[str], rng: np.random.Generator) -> Array:
    """Return posteriors to start from, (start, size), one of each kind in `plan`."""
    block = data.block
    out = np.empty((len(plan), model.layout.size))
    seeds = rng.integers(2**63, size=len(plan), dtype=np.uint64)
    kinds = np.array(plan)
    for kind in dict.fromkeys(plan):
        of = np.flatnonzero(kinds == kind)
        there = np.empty((len(of), model.layout.size))
        more: dict[str, Any] = {}
        if kind == "whitened":
            more["labels"] = labels = np.empty((len(of), len(block.values)), dtype=np.int64)
            values = data.whitened()
            weights = None if block.weights is None else [block.weights] * len(of)
            unit = _kernels.loop.Rows([values] * len(of), weights)
            ones = np.ones((len(of), values.shape[1]))
            unit.set_frames(0 * ones, ones, ones)
            _kernels.loop.begin_all(
                unit, mixtures(model), "kmeans", seeds[of], there, block.n_threads, labels=labels
            )
            kind = "labels"
        _kernels.loop.begin_all(
            rows_of(model, block, len(of)),
            mixtures(model),
            kind,
            seeds[of],
            there,
            block.n_threads,
            **more,
        )
        out[of] = there
    return out


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
    rows = rows_of(model, block, n)
    now = np.array([posterior.buffer for posterior in posteriors])
    state = np.zeros((n, 4), dtype=np.int64)

    def run(n_sweeps: int, theta: dict[str, Array], **more: Any) -> Array:
        objectives = _kernels.loop.run(
            rows,
            mixtures(model),
            "sample",
            Assignment("draw"),
            now,
            n_sweeps,
            block.n_threads,
            state=state,
            seeds=np.array(seeds, dtype=np.uint64),
            log_weights=theta["log_weights"],
            means=theta["means"],
            factors=theta["factors"],
            **more,
        )
        failed = state[state[:, 1] == 3]
        if len(failed):
            raise degenerate_error(int(failed[0, 2]))
        return objectives.reshape(n, -1)

    tuned = _theta(model, n, 1)
    tuning = run(n_tune, tuned)
    highest = int(np.argmax(tuning.max(axis=1)))
    best = {name: value[highest, 0] for name, value in tuned.items()}
    one = {name: value[highest, 0] for name, value in _parameters(model, tuned).items()}
    k = model.latent.n_components
    theta = _theta(model, n, n_draws)
    common, terms = np.empty((n, n_draws)), np.empty((n, n_draws, k * k))
    log_joint = run(
        n_draws * thin,
        theta,
        first_sweep=n_tune,
        thin=thin,
        best=(best["log_weights"], best["means"], best["factors"]),
        common=common,
        terms=terms,
    )
    drawn = Draws(
        _parameters(model, theta),
        log_joint,
        model.point(one["weights"], point(one["means"], one["factors"])),
        common,
        terms.reshape(n, n_draws, k, k),
        [Stats(model.layout, buffer) for buffer in now],
    )
    return drawn, tuning

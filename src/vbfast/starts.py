"""Where a fit starts: labels by k-means++ and k-means, random labels, or given parameters.

k-means is crisp EM on a model of its own, `Centroids`: equal weights, unit variances.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _kernels
from ._kernels.inputs import Assignment, Block, Coefficients
from .conjugate import point
from .data import ArrayData
from .emissions import Gaussian
from .methods import CrispEM
from .model import Model
from .stats import Layout, Stats

__all__ = ["Centroids", "Init", "from_labels", "from_parameters", "labels"]

Array = NDArray[np.float64]
Init = Literal["kmeans", "k-means++", "random", "random_from_data"]

# k-means looks for its centroids in a random part of the rows, this many or 100 a component.
SUBSAMPLE = 25_000
KMEANS_SWEEPS = 30


@dataclass(frozen=True)
class _Means(Coefficients):
    """Centroids as theta, under a flat prior."""

    means: Array
    log_prior: float = 0.0


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

    @property
    def _emission(self) -> Gaussian:
        return Gaussian(self.n_features, "spherical")

    def at(self, means: Array) -> _Means:
        """Theta with these centroids."""
        emission = self._emission
        unit = point(means, np.ones((len(means), 1)))
        coefficients = emission.coefficients(unit, means)
        return _Means(emission.kernel, coefficients, np.zeros(len(means)), means)

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

    def nearest(self, data: ArrayData, means: Array) -> NDArray[np.int64]:
        """Return each row's nearest centroid, (N,)."""
        out = np.empty(data.n_rows, dtype=np.int64)
        _kernels.mixture.visit(data.block, self.at(means), Assignment("hard"), labels=out)
        return out


def _rows(data: ArrayData, index: NDArray[np.int64]) -> Array:
    """Rows in the units of the frame."""
    rows = data.values[index].astype(np.float64)
    return np.asarray((rows - data.frame.origin) * data.frame.scale)


def _pick(weight: Array, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Numbers of n rows, each drawn with probability proportional to its weight."""
    cumulative = np.cumsum(weight)
    marks = rng.random(n) * cumulative[-1]
    return np.minimum(np.searchsorted(cumulative, marks, side="right"), len(weight) - 1)


def _plus_plus(data: ArrayData, n_components: int, rng: np.random.Generator) -> Array:
    """Centroids by k-means++ (Arthur & Vassilvitskii 2007), the best of several trials each."""
    weight = np.ones(data.n_rows) if data.weights is None else data.weights
    n_trials = 2 + int(np.log(n_components))
    model = Centroids(n_trials, data.values.shape[1])
    means = _rows(data, _pick(weight, 1, rng))
    nearest = np.full(data.n_rows, np.inf)
    scores = np.empty((data.n_rows, n_trials))
    trials = np.repeat(means, n_trials, axis=0)
    while True:
        _kernels.mixture.visit(data.block, model.at(trials), Assignment("scores"), q=scores)
        distances = np.minimum(-scores, nearest[:, None])
        best = int(np.argmin(weight @ distances))
        nearest = distances[:, best].copy()
        if len(means) == 1:
            out = [means[0]]
            means = np.empty((0, means.shape[1]))
        else:
            out.append(trials[best])
        if len(out) == n_components:
            return np.array(out)
        chance = weight * nearest
        # Fewer distinct rows than components: any row will do, its component stays empty.
        chance = chance if chance.sum() > 0 else weight
        trials = _rows(data, _pick(chance, n_trials, rng))


def _subsample(data: ArrayData, n: int, rng: np.random.Generator) -> ArrayData:
    if data.n_rows <= n:
        return data
    index = np.sort(rng.choice(data.n_rows, n, replace=False, shuffle=False))
    weights = None if data.weights is None else data.weights[index]
    if weights is not None and not weights.any():
        return data
    return replace(data, values=np.ascontiguousarray(data.values[index]), weights=weights)


def labels(
    data: ArrayData, n_components: int, init: Init, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return a component for each row, (N,).

    Parameters
    ----------
    data : ArrayData
    n_components : int
    init : {"kmeans", "k-means++", "random", "random_from_data"}
        The nearest centroid after k-means; the nearest of the centroids that k-means++ chose; a
        component drawn for each row; the nearest of rows drawn.
    rng : numpy.random.Generator
    """
    n_components = int(n_components)  # a narrow NumPy integer would overflow below
    if init == "random":
        return rng.integers(n_components, size=data.n_rows)
    model = Centroids(n_components, data.values.shape[1])
    if init == "random_from_data":
        weight = np.ones(data.n_rows) if data.weights is None else data.weights
        present = np.flatnonzero(weight > 0)
        few = len(present) < n_components
        chosen = rng.choice(
            present, n_components, replace=few, p=weight[present] / weight[present].sum()
        )
        return model.nearest(data, _rows(data, chosen))
    part = _subsample(data, max(SUBSAMPLE, 100 * n_components), rng)
    means = _plus_plus(part, n_components, rng)
    if init == "kmeans":
        start = model.prior + part.sum(model.visit, model.at(means), Assignment("hard"))
        fit = CrispEM(max_iter=KMEANS_SWEEPS, tol=1e-4).fit(model, part, start)
        # An empty component's mean stays what it was when it was last seen: nobody's nearest.
        means = np.where(np.isneginf(fit.theta.offsets)[:, None], means, fit.theta.means)
    return model.nearest(data, means)


def from_labels(model: Model, data: ArrayData, labels: ArrayLike) -> Stats:
    """Return the posterior when T is known: prior + the statistics of labelled rows.

    Two passes: the first finds each component's mean, the second takes moments about it.

    Parameters
    ----------
    model : Model
    data : ArrayData
    labels : array-like of shape (N,)
        The component of each row, 0 ... K - 1.

    Raises
    ------
    ValueError
        If labels has another shape, or holds anything else.
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
    labelled = data.with_labels(np.ascontiguousarray(components, dtype=np.int64))
    means = np.zeros((k, model.emission.n_features))
    for _ in range(2):
        stats = labelled.sum(model.visit, model.about(means), Assignment("given"))
        means = stats["mean"].copy()
    return model.prior + stats


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
    out = posterior.copy()
    if weights is not None:
        total = float((posterior["strength"] - model.prior["strength"]).sum())
        for name, value in model.latent.collect(total * weights).items():
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

"""Independent rows: t ~ Categorical(weights)."""

from __future__ import annotations

import functools
import itertools
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaln, gammaln, xlogy

from .. import _kernels
from .._kernels.inputs import Assignment, Coefficients
from ..conjugate import Dirichlet, StickBreaking
from ..data import check_size, portions
from ..stats import Stats

__all__ = ["Mixture", "WeightPrior"]

Array = NDArray[np.float64]
# Components whose orders are summed over: it takes 2^K K steps.
MOST_ORDERED = 12
# A component that holds less than this share of all rows has no coordinates.
EMPTY_SHARE = 1e-9
WeightPrior = Literal["dirichlet_distribution", "dirichlet_process"]


@dataclass(frozen=True)
class Mixture:
    """Mixture weights with a Dirichlet or a truncated Dirichlet-process prior.

    Parameters
    ----------
    n_components : int
    weight_prior : {"dirichlet_distribution", "dirichlet_process"}
        Dirichlet(concentration, ..., concentration), or sticks v_k ~ Beta(1, concentration) with
        the last one 1 (Blei & Jordan 2006).
    concentration : float, optional
        Flat where not given: it then adds nothing to an objective.
    numbered : bool
        Whether components are those of their numbers, as where some rows' are known: of a Dirichlet
        process no other order of them is drawn then.
    """

    n_components: int
    weight_prior: WeightPrior = "dirichlet_distribution"
    concentration: float | None = None
    numbered: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_components", check_size("n_components", self.n_components))
        choices = get_args(WeightPrior)
        if not isinstance(self.weight_prior, str) or self.weight_prior not in choices:
            raise ValueError(
                f"weight_prior must be one of {', '.join(map(repr, choices))}, "
                f"not {self.weight_prior!r}"
            )
        alpha, allowed = self.concentration, "concentration must be None or a finite number > 0"
        if alpha is None:
            return
        if isinstance(alpha, (bool, np.bool_)) or not isinstance(alpha, numbers.Real):
            raise TypeError(f"{allowed}, not {alpha!r}")
        if not 0 < alpha < np.inf:
            raise ValueError(f"{allowed}, not {alpha!r}")

    #: Kernels visit rows for several thetas at a time.
    several: ClassVar[bool] = True
    #: Numbers that data remember of a row: none.
    memory_width: ClassVar[int] = 0

    @property
    def compiled(self) -> bool:
        """Whether the compiled loop knows this structure: see loops.py."""
        return self.exchangeable

    @cached_property
    def shape(self) -> tuple[int]:
        """Of a row's q(T)."""
        return (self.n_components,)

    @property
    def equal(self) -> Array:
        """Equal weights, (K,)."""
        return np.full(self.n_components, 1.0 / self.n_components)

    @property
    def exchangeable(self) -> bool:
        """Whether the prior is the same for every order of the components."""
        return self.weight_prior == "dirichlet_distribution"

    def kernel(self, single: bool) -> Any:
        """Compiled loop over rows, with float32 or float64 arithmetic."""
        return _kernels.mixture_single if single else _kernels.mixture

    def fields(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Names and shapes of this latent structure's statistics."""
        if self.exchangeable:
            return (("concentration", (self.n_components,)),)
        return (("sticks", (self.n_components - 1, 2)),)

    def prior(self) -> dict[str, ArrayLike]:
        """Hyperparameters."""
        if self.exchangeable:
            return {"concentration": self.prior_concentration}
        return {"sticks": np.array([1.0, self.prior_concentration])}

    def distribution(self, stats: Stats | Mapping[str, Array]) -> Dirichlet | StickBreaking:
        """Statistics read as a distribution over the weights."""
        if self.exchangeable:
            return Dirichlet(stats["concentration"])
        return StickBreaking(stats["sticks"])

    def coefficients(self, log_weights: Array, weights: Array) -> tuple[Array, None]:
        """What is added to all scores, (K,), and what the kernel reads besides: nothing."""
        return log_weights, None

    def draw(self, weights: Array, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw the components of n rows, (n,)."""
        out = np.empty(n, dtype=np.int64)
        for rows in portions(n):
            out[rows] = rng.choice(len(weights), size=len(out[rows]), p=weights / weights.sum())
        return out

    def likely(self, theta: Coefficients, assignment: Assignment) -> Coefficients:
        """Theta for statistics of a fit: as it is."""
        return theta

    def collect(self, raw: Array, n_rows: int) -> tuple[dict[str, Array], Array, Array]:
        """Read what the kernel adds up beside log_z.

        Returns
        -------
        statistics : dict of ndarray
            The latent structure's.
        counts : ndarray of shape (K,)
            Rows of each component, as the emission takes them.
        rest : ndarray
            What the emission adds up.
        """
        counts = raw[: self.n_components].copy()
        return self.around(counts), counts, raw[self.n_components :]

    def around(self, counts: Array) -> dict[str, Array]:
        """Statistics of components that hold `counts` rows (K,)."""
        if self.exchangeable:
            return {"concentration": counts}
        beyond = np.cumsum(counts[::-1])[::-1][1:]
        return {"sticks": np.stack([counts[:-1], beyond], axis=1)}

    def loosen(self, stats: Stats) -> Stats:
        """Statistics to start from: these."""
        return stats

    def held(self, counts: Array) -> NDArray[np.bool_]:
        """Which components hold enough rows for what is said of them to mean anything, (K,)."""
        return held(counts)

    @property
    def n_coordinates(self) -> int:
        """How many there are."""
        return self.n_components

    def coordinates(self, posterior: Stats, counts: Array) -> Array:
        """Unconstrained numbers for components that hold `counts` rows: their logarithms, (K,).

        0 where `held` is false.
        """
        return np.asarray(np.log(np.where(self.held(counts), counts, 1.0)))

    def at_coordinates(
        self, coordinates: Array, like: Stats, like_counts: Array
    ) -> tuple[Array, dict[str, Array]]:
        """Rows of each component (K,), as many in all as `like_counts` (K,), and their statistics.

        Where `held` is false of `like_counts`, what it has.
        """
        held = self.held(like_counts)
        share = np.exp(coordinates[held] - coordinates[held].max())
        share = np.maximum(share, EMPTY_SHARE * share.sum())
        counts = like_counts.copy()
        counts[held] = share * (like_counts[held].sum() / share.sum())
        return counts, self.around(counts)

    def log_prior(self, prior: Dirichlet | StickBreaking, weights: Array) -> float:
        """log p(weights); 0 for a flat prior."""
        return 0.0 if self.concentration is None else prior.log_density(weights)

    def _counts(self, posterior: Stats) -> Array:
        """Rows of each component (K,) behind a posterior over sticks."""
        a, b = posterior["sticks"][:, 0], posterior["sticks"][:, 1]
        return np.append(a - 1.0, b[-1:] - self.prior_concentration)

    @property
    def prior_concentration(self) -> float:
        """The concentration, 1 where the prior is flat."""
        return 1.0 if self.concentration is None else self.concentration

    def _log_prob_labels(self, counts: Array) -> float:
        """log p(T), sticks integrated out, of components that hold `counts` rows in this order."""
        beyond = np.cumsum(counts[::-1])[::-1][1:]
        gamma = self.prior_concentration
        return float((betaln(1 + counts[:-1], gamma + beyond) - betaln(1, gamma)).sum())

    def draw_order(self, posterior: Stats, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw an order of the components given which rows are together: K proposals to swap two.

        p(X | T) is the same for every order, p(T) is not, under a Dirichlet process; a sampler of
        T alone would stay in one order for ever (Papaspiliopoulos & Roberts 2008, section 3.4).
        """
        k = self.n_components
        order = np.arange(k)
        if self.exchangeable or self.numbered or k == 1:
            return order
        counts = self._counts(posterior)
        now = self._log_prob_labels(counts)
        for i, j in rng.integers(k, size=(k, 2)):
            order[[i, j]] = order[[j, i]]
            then = self._log_prob_labels(counts[order])
            if np.log1p(-rng.random()) < then - now:
                now = then
            else:
                order[[i, j]] = order[[j, i]]
        return order

    def log_density_terms(self, posterior: Stats, weights: Array) -> tuple[float, Array]:
        """Density of `weights` given which rows are together, averaged over orders.

        Returns c and M (K, K): the density is exp(c) times the sum over orders sigma of
        prod_k exp M[sigma(k), k], where sigma(k) is the component that plays k's part. Under a
        Dirichlet process an order sigma has p(sigma T), and p(v | sigma T) p(sigma T) = p(v)
        prod_k pi_k^n_sigma(k).
        """
        k = self.n_components
        if self.exchangeable:
            alpha = Dirichlet(posterior["concentration"])
            terms = np.asarray(xlogy(alpha.concentration[:, None] - 1, weights[None, :]))
            return -alpha.log_normalizer - float(gammaln(k + 1)), terms
        if k == 1:
            return 0.0, np.zeros((1, 1))
        if k > MOST_ORDERED:
            return np.nan, np.zeros((k, k))
        counts = self._counts(posterior)
        prior = np.tile([1.0, self.prior_concentration], (k - 1, 1))
        common = StickBreaking(prior).log_density(weights) - self._log_sum_orders(counts)
        return common, np.asarray(xlogy(counts[:, None], weights[None, :]))

    def _log_sum_orders(self, counts: Array) -> float:
        """log of the sum over all orders of p(T), by the sets of components that come last."""
        gamma = self.prior_concentration
        total = np.zeros(2**self.n_components)
        rows = np.zeros_like(total)
        for sets, last, before in _subsets(self.n_components):
            rows[sets] = rows[before[:, 0]] + counts[last[:, 0]]
            step = betaln(1 + counts[last], gamma + rows[before]) - betaln(1, gamma)
            # The stick of the component that comes last of all is 1.
            step[before == 0] = 0.0
            total[sets] = np.logaddexp.reduce(total[before] + step, axis=1)
        return float(total[-1])


def held(counts: Array) -> NDArray[np.bool_]:
    """Which components hold enough rows for what is said of them to mean anything, (K,)."""
    return np.asarray(counts > EMPTY_SHARE * counts.sum())


@functools.cache
def _subsets(n: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """For sizes 1 ... n: the sets (as bits), their members, and the sets without each member."""
    out = []
    for size in range(1, n + 1):
        members = np.array(list(itertools.combinations(range(n), size)))
        sets = (1 << members).sum(axis=1)
        out.append((sets, members, sets[:, None] ^ (1 << members)))
    return out

"""Independent rows: t ~ Categorical(weights)."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _kernels
from ..conjugate import Dirichlet, StickBreaking
from ..stats import Stats

__all__ = ["Mixture", "WeightPrior"]

Array = NDArray[np.float64]
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
    """

    n_components: int
    weight_prior: WeightPrior = "dirichlet_distribution"
    concentration: float | None = None

    def __post_init__(self) -> None:
        k, allowed = self.n_components, "n_components must be an integer >= 1"
        if isinstance(k, bool) or not isinstance(k, numbers.Integral):
            raise TypeError(f"{allowed}, not {k!r}")
        if k < 1:
            raise ValueError(f"{allowed}, not {k!r}")
        object.__setattr__(self, "n_components", int(k))  # narrow NumPy integers overflow
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

    @property
    def exchangeable(self) -> bool:
        """Whether the prior is the same for every order of the components."""
        return self.weight_prior == "dirichlet_distribution"

    @property
    def kernel(self) -> Any:
        """Compiled loop over rows."""
        return _kernels.mixture

    def fields(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Names and shapes of this latent structure's statistics."""
        if self.exchangeable:
            return (("concentration", (self.n_components,)),)
        return (("sticks", (self.n_components - 1, 2)),)

    def prior(self) -> dict[str, ArrayLike]:
        """Hyperparameters."""
        concentration = 1.0 if self.concentration is None else self.concentration
        if self.exchangeable:
            return {"concentration": concentration}
        return {"sticks": np.array([1.0, concentration])}

    def distribution(self, stats: Stats | Mapping[str, Array]) -> Dirichlet | StickBreaking:
        """Statistics read as a distribution over the weights."""
        if self.exchangeable:
            return Dirichlet(stats["concentration"])
        return StickBreaking(stats["sticks"])

    def collect(self, counts: Array) -> dict[str, Array]:
        """Statistics of components that hold `counts` rows (K,)."""
        if self.exchangeable:
            return {"concentration": counts}
        beyond = np.cumsum(counts[::-1])[::-1][1:]
        return {"sticks": np.stack([counts[:-1], beyond], axis=1)}

    def log_prior(self, prior: Dirichlet | StickBreaking, weights: Array) -> float:
        """log p(weights); 0 for a flat prior."""
        return 0.0 if self.concentration is None else prior.log_density(weights)

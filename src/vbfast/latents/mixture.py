"""Independent rows: t ~ Categorical(weights)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

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

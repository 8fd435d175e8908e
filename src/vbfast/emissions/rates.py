"""What emissions of one rate a feature share: a gamma prior, and sums of the rows."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _kernels
from ..conjugate import MOST_ROWS, TINY, Rates
from ..stats import Stats
from .discrete import Discrete, as_hyperparameter

__all__ = ["OfRates"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class OfRates(Discrete):
    """An emission of rates lambda_kd ~ Gamma(shape, rate), flat where no prior is given.

    Parameters as `Poisson` has them.
    """

    n_features: int
    shape: ArrayLike | None = None
    rate: ArrayLike | None = None

    #: What makes the prior proper.
    proper_with: ClassVar[str] = "shape and rate"
    # Rates that a prior may have: as many rows of counts, sums of waiting times.
    _most_rate: ClassVar[float] = MOST_ROWS

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.shape is None) != (self.rate is None):
            raise ValueError("give shape and rate of the gamma prior, or neither")
        _ = self._hyperparameters

    @property
    def _flat(self) -> bool:
        return self.shape is None

    @cached_property
    def _hyperparameters(self) -> tuple[Array, Array]:
        """Shape and rate, each a number or (D,)."""
        if self.shape is None or self.rate is None:
            return np.ones(()), np.zeros(())
        one_each = (self.n_features,)
        shape = as_hyperparameter("shape", self.shape, one_each)
        return shape, as_hyperparameter(
            "rate", self.rate, one_each, least=1e-100, most=self._most_rate
        )

    def fields(self, n_components: int) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Names and shapes of this emission's statistics."""
        return (("strength", (n_components,)), ("sums", (n_components, self.n_features)))

    def arrays(self, n_components: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of what draws of the parameters are kept as."""
        return {"rates": (n_components, self.n_features)}

    @property
    @abstractmethod
    def _before_rows(self) -> tuple[Array, Array]:
        """What a posterior has of the prior, each a number or (D,).

        In its sums; and what is added to the other of the two, which rows are counted in.
        """

    @property
    def constants(self) -> dict[str, Any]:
        """What the compiled loop is told of the model beside the prior's buffer: see `Mixtures`."""
        rate = np.broadcast_to(self._before_rows[1], (1, self.n_features)).copy()
        return {**super().constants, "rate": rate}

    def prior(self, n_components: int) -> dict[str, ArrayLike]:
        """Hyperparameters that are added to sums; the other one is added in reading."""
        return {"sums": self._before_rows[0]}

    def parameters(self, values: Array) -> Rates:
        """Rates (K, D) as parameters."""
        return Rates.point(values)

    def collect(self, raw: Array, counts: Array, reference: Array) -> dict[str, Array]:
        """Statistics of a kernel's sums."""
        shape = len(counts), self.n_features
        sums = _kernels.parameters.discrete_statistics(self.kernel, raw, shape)
        return {"strength": counts, "sums": sums}

    def n_coordinates(self, n_components: int) -> int:
        """How many numbers `coordinates` gives."""
        return n_components * self.n_features

    def _seen(self, stats: Stats) -> Array:
        """What rows brought to the sums."""
        return np.asarray(stats["sums"] - self._before_rows[0])

    def coordinates(self, stats: Stats, held: NDArray[np.bool_]) -> Array:
        """Unconstrained numbers for sums: logarithms of the means, 0 where all rows are 0."""
        means = self._seen(stats) / np.where(held, stats["strength"], 1.0)[:, None]
        return np.asarray(np.log(np.where(held[:, None] & (means > 0), means, 1.0)).ravel())

    def at_coordinates(
        self, coordinates: Array, counts: Array, held: NDArray[np.bool_], like: Stats
    ) -> dict[str, Array]:
        """Inverse of `coordinates`: fields of what `counts` rows (K,) bring.

        Those of `like` for components that are not `held` (K,), and 0 where all rows are 0.
        """
        seen = self._seen(like)
        means = np.maximum(np.exp(coordinates.reshape(seen.shape)), TINY)
        sums = np.where(held[:, None] & (seen > 0), counts[:, None] * means, seen)
        return {"strength": counts, "sums": sums}

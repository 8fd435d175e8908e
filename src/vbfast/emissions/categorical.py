"""Categorical emissions: symbols, features independent given the component."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .discrete import Symbols, as_hyperparameter

__all__ = ["Categorical"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Categorical(Symbols):
    """x_d | t = k ~ Categorical(p_kd), with p_kd ~ Dirichlet(concentration): latent classes.

    With no prior given it is flat, and a mode is the maximum of the likelihood.

    Parameters
    ----------
    n_features : int
    n_categories : int or sequence of D ints
        C, of all features or of each: its symbols are 0 ... C - 1.
    concentration : float or array-like of shape (C,) or (D, C), optional
        Of the Dirichlet prior, C of the feature that has most. A mode needs 1 or more.

    Raises
    ------
    TypeError, ValueError
        If a number of categories is not an integer >= 1; if a concentration is not > 0, or
        there is another number of them.

    Notes
    -----
    Conjugate update: concentration + what was seen (Bishop 2006, 2.38-2.41). Parameters are tables
    (K, D, C), 0 for symbols that a feature doesn't have. A component without rows has, under a
    flat prior, the probabilities of all rows together. A probability of 0 is taken at its word.
    """

    n_features: int
    n_categories: int | Sequence[int]
    concentration: ArrayLike | None = None

    kernel: ClassVar[str] = "categorical"

    def __post_init__(self) -> None:
        super().__post_init__()
        given = np.asarray(self.n_categories)
        allowed = f"n_categories must be an integer >= 1, or {self.n_features} of them"
        if given.dtype.kind not in "iu":
            raise TypeError(f"{allowed}, not {self.n_categories!r}")
        if given.shape not in ((), (self.n_features,)) or given.min(initial=1) < 1:
            raise ValueError(f"{allowed}, not {self.n_categories!r}")
        if self.concentration is not None:
            _ = self._concentrations

    @cached_property
    def categories(self) -> NDArray[np.int64]:
        """Symbols of each feature, (D,)."""
        return np.broadcast_to(np.asarray(self.n_categories, dtype=np.int64), (self.n_features,))

    @property
    def _n_symbols(self) -> int:
        return int(self.categories.max())

    @property
    def width(self) -> int:
        """Symbols that the kernel's tables have room for: those of the feature that has most."""
        return self._n_symbols

    @property
    def _flat(self) -> bool:
        return self.concentration is None

    @cached_property
    def _concentrations(self) -> Array:
        """(D, C), 0 for symbols that a feature doesn't have."""
        shape = (self.n_features, self._n_symbols)
        given = 1.0 if self.concentration is None else self.concentration
        each = as_hyperparameter("concentration", given, shape[1:], shape)
        return np.where(np.arange(self._n_symbols) < self.categories[:, None], each, 0.0)

    @property
    def point_width(self) -> int:
        """Numbers in one of `points`."""
        return self.n_features * self._n_symbols

    def points(self, values: Array) -> Array:
        """One number for each symbol of each feature: 1 where a row has it, else 0."""
        each = values[:, :, None] == np.arange(self._n_symbols)
        return each.reshape(len(values), -1).astype(np.float64)

    def _wrong(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        inside = (values >= 0) & (values < self.categories)
        return np.asarray(~inside | (values != np.floor(values)))

    def _allowed_in(self, column: int) -> str:
        return f"whole numbers from 0 to {self.categories[column] - 1}"

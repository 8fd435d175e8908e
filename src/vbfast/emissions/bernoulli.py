"""Bernoulli emissions: zeros and ones, features independent given the component."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .discrete import Symbols, as_hyperparameter

__all__ = ["Bernoulli"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Bernoulli(Symbols):
    """x_d | t = k ~ Bernoulli(p_kd), with p_kd ~ Beta(a, b).

    With no prior given it is flat, and a mode is the maximum of the likelihood.

    Parameters
    ----------
    n_features : int
    a, b : float or array-like of shape (D,), optional
        Of the beta prior, of mean a / (a + b): both or neither. A mode needs both >= 1.

    Raises
    ------
    TypeError, ValueError
        If one is given without the other, or either is not > 0 or has another shape.

    Notes
    -----
    Conjugate update: a + ones, b + zeros (Bishop 2006, 2.17-2.18). Parameters are tables of the
    probabilities of 0 and of 1, (K, D, 2). A component without rows has, under a flat prior,
    those of all rows together. Probabilities 0 and 1 are taken at their word.
    """

    n_features: int
    a: ArrayLike | None = None
    b: ArrayLike | None = None

    kernel: ClassVar[str] = "bernoulli"
    _allowed: ClassVar[str] = "0 and 1"

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.a is None) != (self.b is None):
            raise ValueError("give a and b of the beta prior, or neither")
        _ = self._concentrations

    @property
    def _flat(self) -> bool:
        return self.a is None

    @property
    def _n_symbols(self) -> int:
        return 2

    @cached_property
    def _concentrations(self) -> Array:
        """Of 0 and of 1, (D, 2)."""
        each = np.ones((self.n_features, 2))
        if self.a is not None and self.b is not None:
            each[:, 1] = as_hyperparameter("a", self.a, (self.n_features,))
            each[:, 0] = as_hyperparameter("b", self.b, (self.n_features,))
        return each

    def _wrong(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray((values != 0) & (values != 1))

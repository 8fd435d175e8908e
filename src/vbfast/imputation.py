"""What is missing of rows: its expectation given what is seen of them, or draws of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .data import columns_of
from .emissions import Product
from .emissions.discrete import Symbols

__all__ = ["drawn", "expected"]

Array = NDArray[np.float64]


def expected(emission: Product, parameters: Any, values: NDArray[Any], q: Array) -> Array:
    """Rows (N, D) of which what is missing is its expectation; of symbols the most probable one.

    Parameters
    ----------
    emission, parameters
        What rows of a component look like.
    values : ndarray of shape (N, D)
        NaN where something is missing.
    q : ndarray of shape (N, K)
        Probabilities of components given what is seen.
    """
    out = values.astype(np.float64)
    for part, columns, own in zip(emission.parts, emission.columns, parameters.parts, strict=True):
        seen = columns_of(values, columns)
        absent = np.isnan(seen)
        rows = np.flatnonzero(absent.any(axis=1))
        if not len(rows):
            continue
        of_rows = q[rows]
        if isinstance(part, Symbols):
            found = np.einsum("nk,kdc->ndc", of_rows, own.values).argmax(axis=2).astype(float)
        else:
            found = np.zeros((len(rows), len(columns)))
            for k in range(q.shape[1]):
                found += of_rows[:, k, None] * part.given_seen(own, k, seen[rows])
        _put(out, rows, columns, absent[rows], found)
    return out


def drawn(
    emission: Product,
    parameters: Any,
    values: NDArray[Any],
    components: NDArray[np.int64],
    rng: np.random.Generator,
) -> Array:
    """Rows (N, D) of which what is missing is drawn, given what is seen and the component (N,)."""
    out = values.astype(np.float64)
    for part, columns, own in zip(emission.parts, emission.columns, parameters.parts, strict=True):
        seen = columns_of(values, columns)
        absent = np.isnan(seen)
        for k in np.unique(components):
            rows = np.flatnonzero(absent.any(axis=1) & (components == k))
            if not len(rows):
                continue
            if hasattr(part, "given_seen"):
                found = part.given_seen(own, k, seen[rows], rng)
            else:
                found = part.sample_rows(own, np.full(len(rows), k), rng)
            _put(out, rows, columns, absent[rows], found)
    return out


def _put(
    out: Array, rows: NDArray[np.int64], columns: Any, absent: NDArray[np.bool_], found: Array
) -> None:
    """Write what was found into the places of what is absent of these rows and columns."""
    place = np.ix_(rows, list(columns))
    out[place] = np.where(absent, found, out[place])

"""Sufficient statistics: named views on one float64 buffer, which add up.

A prior, the statistics of some data and a posterior are all of this one type, so that
``posterior = prior + statistics``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Layout", "Moments", "Stats"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Three fields that are first and second moments in centred form.

    They add up pairwise (Chan, Golub & LeVeque 1983), not entry by entry: two groups of weight
    a, b and means m, n have the mean (a m + b n)/(a + b) and the scatter S + T + ab/(a + b) dd',
    d = n - m. Nothing cancels, however far the means are from the origin.

    Attributes
    ----------
    strength, mean, scatter : str
        Names of the fields: weights (K,), means (K, D), and scatter about the mean.
    spread : callable
        ``spread(weight (K,), difference (K, D))`` is the term ab/(a + b) dd' in scatter's shape.
    """

    strength: str
    mean: str
    scatter: str
    spread: Callable[[Array, Array], Array]


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the fields of a `Stats`, in their order in the buffer."""

    fields: tuple[tuple[str, tuple[int, ...]], ...]
    moments: Moments | None = None

    @property
    def size(self) -> int:
        """Number of doubles."""
        return sum(math.prod(shape) for _, shape in self.fields)

    def stats(self, values: Mapping[str, ArrayLike] | None = None) -> Stats:
        """Return statistics with these values, zero where a field has none."""
        out = Stats(self, np.zeros(self.size))
        for name, value in (values or {}).items():
            out[name][...] = value
        return out


class Stats:
    """Named float64 fields on one buffer, with ``+``, scalar ``*`` and zero.

    Parameters
    ----------
    layout : Layout
    buffer : ndarray of shape (layout.size,)
        Not copied: fields are views on it.
    """

    __slots__ = ("_views", "buffer", "layout")

    def __init__(self, layout: Layout, buffer: Array) -> None:
        self.layout = layout
        self.buffer = buffer
        self._views: dict[str, Array] = {}
        start = 0
        for name, shape in layout.fields:
            end = start + math.prod(shape)
            self._views[name] = buffer[start:end].reshape(shape)
            start = end

    def __getitem__(self, name: str) -> Array:
        """Return the field as a view: writing to it writes to the statistics."""
        return self._views[name]

    def __add__(self, other: Stats) -> Stats:
        """Return the statistics of both groups of data together."""
        out = Stats(self.layout, self.buffer + other.buffer)
        moments = self.layout.moments
        if moments is not None:
            mine, theirs = self[moments.strength], other[moments.strength]
            total = mine + theirs
            share = np.divide(theirs, total, out=np.zeros_like(total), where=total > 0)
            difference = other[moments.mean] - self[moments.mean]
            out[moments.mean][...] = self[moments.mean] + share[:, None] * difference
            out[moments.scatter][...] += moments.spread(mine * share, difference)
        return out

    def __mul__(self, factor: float) -> Stats:
        """Return the statistics of data that count `factor` times."""
        out = Stats(self.layout, self.buffer * factor)
        if self.layout.moments is not None:
            out[self.layout.moments.mean][...] = self[self.layout.moments.mean]
        return out

    __rmul__ = __mul__

    def copy(self) -> Stats:
        """Return statistics of the same values on a buffer of their own."""
        return Stats(self.layout, self.buffer.copy())

    def __repr__(self) -> str:
        fields = ", ".join(f"{name} {view.shape}" for name, view in self._views.items())
        return f"Stats({fields})"

    def __reduce__(self) -> tuple[type[Stats], tuple[Layout, Array]]:
        return Stats, (self.layout, self.buffer)

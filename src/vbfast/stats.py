"""Sufficient statistics: named views on one float64 buffer, which add up.

A prior, the statistics of some data and a posterior are all of this one type, so that
``posterior = prior + statistics``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _kernels

__all__ = ["Layout", "Moments", "Stats"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Three fields that are first and second moments, in centred form.

    They add up pairwise (Chan, Golub & LeVeque 1983), not entry by entry: two groups of weight
    a, b and means m, n have the mean (a m + b n)/(a + b) and the scatter S + T + ab/(a + b) dd',
    d = n - m. Nothing cancels, however far the means are from the origin.

    Attributes
    ----------
    strength, mean, scatter : str
        Names of the fields: weights (K,), means (K, D), and scatter about the mean: (K, D, D), or
        (1, D, D) of all together, or the diagonal alone, (K, D), or its sum, (K, 1).
    """

    strength: str
    mean: str
    scatter: str


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the fields of a `Stats`, in their order in the buffer."""

    fields: tuple[tuple[str, tuple[int, ...]], ...]
    moments: tuple[Moments, ...] = ()

    @cached_property
    def places(self) -> dict[str, tuple[int, int, tuple[int, ...]]]:
        """Where each field begins and ends in the buffer, and its shape."""
        places, start = {}, 0
        for name, shape in self.fields:
            end = start + math.prod(shape)
            places[name] = start, end, shape
            start = end
        return places

    @cached_property
    def size(self) -> int:
        """Number of doubles."""
        return sum(math.prod(shape) for _, shape in self.fields)

    @cached_property
    def moment_places(
        self,
    ) -> list[tuple[tuple[int, int, int], tuple[int, ...], tuple[int, ...]]]:
        """Of each moments, where the three begin, and the shapes of mean and scatter."""
        out = []
        for moments in self.moments:
            strength = self.places[moments.strength]
            mean, scatter = self.places[moments.mean], self.places[moments.scatter]
            if strength[2] != mean[2][:1]:
                raise ValueError(
                    f"{moments.strength} has shape {strength[2]}, which doesn't go with "
                    f"{moments.mean} {mean[2]}"
                )
            out.append(((strength[0], mean[0], scatter[0]), mean[2], scatter[2]))
        return out

    @property
    def n_normalisers(self) -> int:
        """Densities of one strength, and a normaliser each, in a prior: Gaussians have D."""
        return max(1, sum(mean[-1] for _, mean, _ in self.moment_places))

    def stats(self, values: Mapping[str, ArrayLike] | None = None) -> Stats:
        """Return statistics with these values, zero where a field has none."""
        return Stats(self, _kernels.parameters.joined(self.places, self.size, values or {}))


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
        # Made as they are asked for.
        self._views: dict[str, Array] = {}

    def __getitem__(self, name: str) -> Array:
        """Return the field as a view: writing to it writes to the statistics."""
        view = self._views.get(name)
        if view is None:
            start, end, shape = self.layout.places[name]
            view = self.buffer[start:end]
            if len(shape) != 1:
                view = view.reshape(shape)
            self._views[name] = view
        return view

    # Fields have names, and no numbers to count by.
    __iter__ = None

    def __add__(self, other: Stats) -> Stats:
        """Return the statistics of both groups of data together.

        Raises
        ------
        ValueError
            If they are not of the same fields.
        """
        if not isinstance(other, Stats):
            return NotImplemented
        if other.layout is not self.layout and other.layout != self.layout:
            raise ValueError(f"statistics of other fields can't be added: {self} and {other}")
        out = Stats(self.layout, self.buffer + other.buffer)
        for places in self.layout.moment_places:
            _kernels.parameters.add(self.buffer, other.buffer, out.buffer, *places)
        return out

    def __mul__(self, factor: float) -> Stats:
        """Return the statistics of data that count `factor` times."""
        out = Stats(self.layout, self.buffer * factor)
        for moments in self.layout.moments:
            out[moments.mean][...] = self[moments.mean]
        return out

    __rmul__ = __mul__

    def copy(self) -> Stats:
        """Return statistics of the same values on a buffer of their own."""
        return Stats(self.layout, self.buffer.copy())

    def __repr__(self) -> str:
        fields = ", ".join(f"{name} {shape}" for name, shape in self.layout.fields)
        return f"Stats({fields})"

    def __reduce__(self) -> tuple[type[Stats], tuple[Layout, Array]]:
        return Stats, (self.layout, self.buffer)

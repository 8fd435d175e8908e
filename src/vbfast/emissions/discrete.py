"""What emissions of counts and of symbols share: units of their own, statistics that add up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _kernels
from .._kernels.inputs import LOWEST
from ..conjugate import LEAST_CONCENTRATION, MOST_ROWS, TINY, Probabilities, Tables
from ..data import ArrayData, ByValue, Frame, check_size
from ..stats import Moments, Stats

__all__ = ["Discrete", "Symbols", "as_hyperparameter"]

Array = NDArray[np.float64]

# Rows that are checked at a time.
PORTION = 2**16


class WithBase(ABC):
    """An emission whose scores leave out what is the same for every theta."""

    @cached_property
    @abstractmethod
    def units(self) -> Frame:
        """Those that kernels compute in."""

    @abstractmethod
    def first_fault(self, values: NDArray[Any]) -> tuple[int, int, str] | None:
        """Row and column of the first value that can't come from this emission, and why.

        Why, with {row} and {column} in it where an error is to have these.
        """

    def check_rows(self, values: NDArray[Any], name: str = "X") -> None:
        """Raise ValueError where a value can't come from this emission.

        Parameters
        ----------
        values : ndarray of shape (N, D)
        name : str
            What the error calls it.
        """
        found = self.first_fault(values)
        if found is not None:
            row, column, why = found
            raise ValueError(f"{name}[{row}, {column}] {why.format(row=row, column=column)}")

    @abstractmethod
    def log_base(self, values: NDArray[Any]) -> Array:
        """What kernels leave out of each row's log probability, whatever theta is, (N,)."""

    def check(self, data: ArrayData) -> ArrayData:
        """Return the data in this emission's units, with what kernels leave out of the objective.

        Parameters
        ----------
        data : ArrayData
            In its own units: ``ArrayData.of(X, standardise=False)``.

        Raises
        ------
        ValueError
            If a value can't come from this emission.
        """
        self.check_rows(data.values)
        constant = 0.0
        for first in range(0, data.n_rows, PORTION):
            rows = slice(first, first + PORTION)
            base = self.log_base(data.values[rows])
            constant += float((base if data.weights is None else base * data.weights[rows]).sum())
        return replace(data.with_constant(constant), frame=self.units)


class Discrete(WithBase, ByValue):
    """An emission whose features are independent, and never standardised."""

    n_features: int

    #: Statistics simply add up.
    moments: ClassVar[tuple[Moments, ...]] = ()
    #: Where starts look for centroids: among `points`.
    located: ClassVar[bool] = False
    #: Whether the compiled loop knows this emission: see loops.py.
    compiled: ClassVar[bool] = True
    #: Name of the compiled scores and statistics.
    kernel: ClassVar[str]
    #: Columns that may have NaN.
    missing_columns: ClassVar[tuple[int, ...]] = ()
    #: Whether a row may have probability 0, and then is named.
    may_be_impossible: ClassVar[bool] = True

    # What a value must be, for `first_fault`.
    _allowed: ClassVar[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_features", check_size("n_features", self.n_features))

    @cached_property
    def units(self) -> Frame:
        """The data's own."""
        return Frame(np.zeros(self.n_features), np.ones(self.n_features), np.ones(self.n_features))

    @property
    def width(self) -> int:
        """Symbols that a kernel's tables have room for; 0 where it has none."""
        return 0

    def single_resolves(self, theta: Any) -> bool:
        """Whether float32 numbers will do: kernels are for float64 numbers alone."""
        return False

    def reference(self, theta: Any) -> Array:
        """What statistics are taken about: nothing, (K, 0)."""
        return np.zeros((len(next(iter(theta.arrays.values()))), 0))

    def reference_at(self, means: Array) -> Array:
        """The same, where it is to be these (K, D)."""
        return np.zeros((len(means), 0))

    def log_volume(self, n_components: int) -> float:
        """Turn a density of parameters into one in the units of the data, by adding."""
        return 0.0

    @property
    @abstractmethod
    def _flat(self) -> bool:
        """Whether the prior adds nothing to an objective."""

    @property
    def constants(self) -> dict[str, Any]:
        """What the compiled loop is told of the model beside the prior's buffer: see `Mixtures`."""
        return {"n_categories": self.width, "flat": self._flat}

    def log_prior(self, prior: Any, theta: Any) -> float:
        """log p(theta); 0 for a flat prior."""
        return 0.0 if self._flat else float(prior.log_density(theta))

    @abstractmethod
    def _wrong(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Which values are not allowed, (N, D)."""

    def _allowed_in(self, column: int) -> str:
        """What is."""
        return self._allowed

    def first_fault(self, values: NDArray[Any]) -> tuple[int, int, str] | None:
        """Row and column of the first value that can't come from this emission, and why."""
        for first in range(0, len(values), PORTION):
            part = values[first : first + PORTION]
            wrong = self._wrong(part)
            if wrong.any():
                row, column = (int(i) for i in np.argwhere(wrong)[0])
                return (
                    first + row,
                    column,
                    (
                        f"is {part[row, column]:g} (row {{row}}, column {{column}}); "
                        f"{self._allowed_in(column)} are allowed"
                    ),
                )
        return None

    @property
    def point_width(self) -> int:
        """Numbers in one of `points`."""
        return self.n_features

    def points(self, values: Array) -> Array:
        """Where rows lie, for a start to look for centroids: (N, P) of rows (N, D)."""
        return values

    @property
    def plain(self) -> Self:
        """What is said of rows after a fit: these do not depend on the prior."""
        return self

    def together(self, values: Array) -> tuple[Self, Any]:
        """G draws, an array with these first, as one emission of G K components."""
        return self, self.parameters(values.reshape(-1, *values.shape[2:]))

    def mean_of_draws(self, values: Array) -> Any:
        """Parameters that are means of those drawn, an array with the draws first."""
        return self.parameters(values.mean(axis=0))

    def mean_point(self, posterior: Stats) -> Any:
        """Expected parameters under a posterior, as if they were known."""
        return self.distribution(posterior.copy()).mean_point()

    @abstractmethod
    def parameters(self, values: Array) -> Any:
        """Parameters of the array that draws are kept as."""

    @abstractmethod
    def distribution(self, stats: Any) -> Any:
        """Statistics read as a distribution over parameters."""

    def log_base(self, values: NDArray[Any]) -> Array:
        """What kernels leave out of each row's log probability, whatever theta is, (N,)."""
        return np.zeros(len(values))

    @abstractmethod
    def around(self, theta: Any, counts: Array) -> dict[str, Array]:
        """Statistics of `counts` rows (K,) that are as theta says."""

    @abstractmethod
    def overall(self, stats: Stats) -> Any:
        """Parameters of all rows together for each component."""

    def common(self, stats: Stats) -> dict[str, Array]:
        """Statistics of as many rows that are like all together."""
        return self.around(self.overall(stats), stats["strength"])

    def means_in(self, stats: Stats) -> Array:
        """What statistics are best taken about, (K, D): it is all the same."""
        return np.zeros((len(stats["strength"]), self.n_features))


class Symbols(Discrete):
    """An emission of symbols: `Tables` of their probabilities, and tallies of what was seen."""

    @property
    @abstractmethod
    def _n_symbols(self) -> int:
        """C, symbols of the feature that has most."""

    @property
    @abstractmethod
    def _concentrations(self) -> Array:
        """The prior's, (D, C): 0 for symbols that a feature doesn't have."""

    def fields(self, n_components: int) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Names and shapes of this emission's statistics."""
        shape = (n_components, self.n_features, self._n_symbols)
        return (("strength", (n_components,)), ("tally", shape))

    def arrays(self, n_components: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of what draws of the parameters are kept as."""
        return {"probabilities": (n_components, self.n_features, self._n_symbols)}

    def prior(self, n_components: int) -> dict[str, ArrayLike]:
        """Hyperparameters: concentrations less 1, so that flat is 0 and takes no digits."""
        return {"tally": self._concentrations - 1.0}

    def distribution(self, stats: Any) -> Tables:
        """Statistics read as a distribution over tables of probabilities."""
        return Tables(stats["tally"])

    def parameters(self, values: Array) -> Probabilities:
        """Tables of probabilities (K, D, C) as parameters."""
        return Probabilities.point(values)

    def coefficients(self, theta: Probabilities, reference: Array) -> Array:
        """What the kernel reads of theta: logarithms of probabilities, no lower than LOWEST."""
        return _kernels.parameters.discrete_coefficients(self.kernel, theta.logs)

    def collect(self, raw: Array, counts: Array, reference: Array) -> dict[str, Array]:
        """Statistics of what a kernel counted."""
        shape = len(counts), self.n_features, self._n_symbols
        tally = _kernels.parameters.discrete_statistics(self.kernel, raw, shape)
        return {"strength": counts, "tally": tally}

    def offsets(self, theta: Probabilities) -> Array:
        """Scores but for what the kernel adds, (K,): 0."""
        return np.zeros(len(theta.values))

    def unit(self, means: Array) -> Probabilities:
        """Equal probabilities, for as many components as there are means."""
        possible = np.broadcast_to(self._concentrations > 0, (self.n_features, self._n_symbols))
        equal = possible / possible.sum(axis=1, keepdims=True)
        return Probabilities.point(np.repeat(equal[None], len(means), axis=0))

    def around(self, theta: Probabilities, counts: Array) -> dict[str, Array]:
        """Statistics of `counts` rows (K,) of which the tables are just those of theta."""
        return {"strength": counts, "tally": counts[:, None, None] * theta.values}

    def overall(self, stats: Stats) -> Probabilities:
        """Tables of all rows together for each component; of no possible symbol 0."""
        tally = stats["tally"].sum(axis=0) + (self._concentrations > 0)
        tally = tally / tally.sum(axis=1, keepdims=True)
        return Probabilities.point(np.broadcast_to(tally, stats["tally"].shape))

    def n_coordinates(self, n_components: int) -> int:
        """How many numbers `coordinates` gives."""
        return n_components * self.n_features * self._n_symbols

    def _seen(self, stats: Stats) -> Array:
        """What rows brought to a tally."""
        return np.asarray(stats["tally"] - (self._concentrations - 1.0))

    def coordinates(self, stats: Stats, held: NDArray[np.bool_]) -> Array:
        """Unconstrained numbers for tallies: logarithms of what was seen, 0 for what was not."""
        seen = self._seen(stats)
        seen = np.where(held[:, None, None] & (seen > 0), seen, 1.0)
        return np.asarray(np.log(seen).ravel())

    def at_coordinates(
        self, coordinates: Array, counts: Array, held: NDArray[np.bool_], like: Stats
    ) -> dict[str, Array]:
        """Inverse of `coordinates`: fields of what `counts` rows (K,) bring.

        Those of `like` for components that are not `held` (K,), and 0 where that has seen none.
        """
        seen = self._seen(like)
        possible = seen > 0
        logs = np.where(possible, coordinates.reshape(seen.shape), -np.inf)
        share = np.exp(logs - np.maximum(logs.max(axis=2, keepdims=True), LOWEST))
        share = np.where(possible, np.maximum(share, TINY), 0.0)
        total = share.sum(axis=2, keepdims=True)
        share = np.divide(share, total, out=share, where=total > 0)
        tally = np.where(held[:, None, None], counts[:, None, None] * share, seen)
        return {"strength": counts, "tally": tally}

    def sample_rows(
        self, theta: Probabilities, components: NDArray[np.int64], rng: np.random.Generator
    ) -> Array:
        """Draw a row from each of `components`, (N, D)."""
        cumulative = np.cumsum(theta.values, axis=2)
        rows = np.empty((len(components), self.n_features))
        for d in range(self.n_features):
            table = cumulative[:, d]
            # Below the total even where rounding would reach it: the last symbol is possible.
            marks = rng.random(len(components)) * table[components, -1] * (1 - 2**-52)
            rows[:, d] = (marks[:, None] >= table[components]).sum(axis=1)
        return rows


def as_hyperparameter(
    name: str,
    value: ArrayLike,
    *shapes: tuple[int, ...],
    least: float = LEAST_CONCENTRATION,
    most: float = MOST_ROWS,
) -> Array:
    """Return a hyperparameter as an array of one of these shapes, or of none; all in range.

    Raises
    ------
    TypeError, ValueError
        If it is no number, below `least`, above `most`, or of another shape.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must hold real numbers, not {value!r}")
    array = array.astype(np.float64)
    if array.shape not in ((), *shapes):
        allowed = " or ".join(map(str, shapes))
        raise ValueError(f"{name} must be a number, or of shape {allowed}, got {array.shape}")
    bad = np.argwhere(~((array >= least) & (array <= most)))
    if len(bad):
        where = name + (str([int(i) for i in bad[0]]) if array.ndim else "")
        raise ValueError(
            f"{where} is {array[tuple(bad[0])]}; finite numbers > 0 are allowed, {least} at least "
            f"and {most:g} at most"
        )
    return array

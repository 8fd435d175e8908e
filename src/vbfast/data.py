"""Data: where rows lie, and how a visit reaches all of them."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from math import prod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _kernels
from ._kernels.inputs import Assignment, Block, Sequences
from ._threads import resolve_threads
from .stats import Stats

__all__ = [
    "ArrayData",
    "Frame",
    "as_rows",
    "as_sequences",
    "check_finite",
    "check_frame",
    "check_hyperparameter",
    "check_number",
    "check_size",
    "check_weights",
    "columns_of",
    "portions",
]

Array = NDArray[np.float64]
ThetaT = TypeVar("ThetaT")

# The one native float64 that NumPy has: a test by identity costs next to nothing.
_FLOAT64 = np.dtype(np.float64)
# Ranges of a column between which its variance and precision, and those of a part of the rows, are
# normal float64 numbers.
NARROWEST, WIDEST = 1e-151, 1e152
# Numbers that a step of Python takes at the most: some milliseconds.
PORTION = 2**20
# From so many rows on the errors of single float32 rows average out, and the speed matters.
MANY_ROWS = 2**14
# Changes of an objective, in nats a row, that float32 arithmetic can tell from rounding.
SINGLE_RESOLUTION = 1e-5
# Cells of a table that have a number each, at most; rows whose cells are sorted, in milliseconds.
MOST_CELLS, MOST_TO_SORT = 2.0**62, 2**16
# Weights that are float32 numbers, with room for what they are multiplied by.
SINGLE_LIGHTEST, SINGLE_HEAVIEST = 1e-20, 1e20
# Of its variance, what is added to a feature's where rows are whitened.
FLATTEST = 1e-9
# Sums of weights that keep their digits when added to degrees of freedom, and can be squared.
LIGHTEST, HEAVIEST = 1e-6, 1e50


class ByValue:
    """Dataclasses that are equal where their fields are, arrays entry by entry."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        pairs = [
            (getattr(self, each.name), getattr(other, each.name))
            for each in fields(self)  # type: ignore[arg-type]
        ]
        return all(
            one == two if isinstance(one, ByValue) else np.array_equal(one, two)
            for one, two in pairs
        )

    def __hash__(self) -> int:
        return hash(type(self))


@dataclass(frozen=True, eq=False)
class Frame(ByValue):
    """Units that kernels compute in: (x - origin) * scale, feature by feature.

    In them the data have mean 0 and variance 1, so that no shift or scale of the data can make a
    sum cancel, overflow or vanish.

    Attributes
    ----------
    origin, scale : (D,)
    variance : (D,)
        Variance of the data in these units: 1, but for a scale common to all features. A constant
        feature has scale and variance 1.
    """

    origin: Array
    scale: Array
    variance: Array

    def __post_init__(self) -> None:
        for name in ("origin", "scale", "variance"):
            value = getattr(self, name)
            if not isinstance(value, np.ndarray) or value.dtype != np.float64:
                raise TypeError(f"{name} of a frame must be a float64 array, not {value!r}")
            if value.ndim != 1 or len(value) != len(self.origin):
                raise ValueError(
                    f"{name} of a frame must have shape (D,), as its origin, got {value.shape}"
                )

    def check(self, block: Block) -> None:
        """Raise ValueError if a block is in another frame than an emission that has this one."""
        for mine, theirs in ((self.origin, block.origin), (self.scale, block.scale)):
            if mine is not theirs and not np.array_equal(mine, theirs):
                raise ValueError(
                    "the data are in another frame than the model: give the emission theirs, "
                    "Gaussian(..., frame=data.frame), or counts and symbols their own, "
                    "ArrayData.of(X, standardise=False)"
                )


def check_frame(frame: Any) -> None:
    """Raise TypeError where it isn't one."""
    if not isinstance(frame, Frame):
        raise TypeError(f"frame must be a Frame, such as ArrayData.of(X).frame, not {frame!r}")


def check_size(name: str, value: Any) -> int:
    """Return a number of features, components or chains, >= 1; TypeError or ValueError names it."""
    allowed = f"{name} must be an integer >= 1"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{allowed}, not {value!r}")
    if value < 1:
        raise ValueError(f"{allowed}, not {value!r}")
    return int(value)  # narrow NumPy integers overflow


def check_number(
    name: str,
    value: Any,
    *,
    whole: bool = False,
    least: float = -np.inf,
    above: float = -np.inf,
    most: float = np.inf,
    optional: bool = False,
) -> None:
    """Raise TypeError or ValueError where `value` is not a finite number in range."""
    if value is None and optional:
        return
    kind = numbers.Integral if whole else numbers.Real
    bounds = [f">= {least:g}"] if least > -np.inf else []
    bounds += [f"> {above:g}"] if above > -np.inf else []
    bounds += [f"<= {most:g}"] if most < np.inf else []
    allowed = " ".join(
        (["None or"] if optional else [])
        + ["an integer" if whole else "a finite number", " and ".join(bounds)]
    ).strip()
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, kind):
        raise TypeError(f"{name} must be {allowed}, not {value!r}")
    # Narrow NumPy numbers have no room for a bound.
    number: Any = value.item() if isinstance(value, np.generic) else value
    try:
        float(number)
    except OverflowError:
        number = np.inf
    if not least <= number < np.inf or number <= above or number > most:
        raise ValueError(f"{name} must be {allowed}, not {value!r}")


def check_unmasked(name: str, value: Any) -> None:
    """Raise ValueError where a masked array masks anything."""
    if np.ma.is_masked(value):
        raise ValueError(f"{name} has masked entries; vbfast takes arrays without")


def check_hyperparameter(name: str, value: Any, shape: tuple[int, ...]) -> None:
    """Raise TypeError or ValueError where it is neither None nor finite numbers for this shape."""
    if value is None:
        return
    allowed = f"{name} must be finite numbers of shape {shape}"
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(f"{allowed}, not {value!r}") from None
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{allowed}, not {value!r}")
    try:
        np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(f"{allowed}, not of shape {array.shape}") from None
    if not np.isfinite(array).all():
        raise ValueError(f"{allowed}, not {value!r}")


def portions(n_rows: int, width: int = 1) -> Iterator[slice]:
    """Yield some rows of `width` numbers at a time, so many that a signal never waits for long."""
    step = max(1, PORTION // width)
    for first in range(0, n_rows, step):
        yield slice(first, min(first + step, n_rows))


def columns_of(values: NDArray[Any], columns: Sequence[int]) -> NDArray[Any]:
    """These columns of rows: where they lie, if they are evenly spaced, else a copy."""
    first, n = columns[0], len(columns)
    step = columns[1] - first if n > 1 else 1
    if step > 0 and tuple(columns) == tuple(range(first, first + n * step, step)):
        return values[:, first : first + (n - 1) * step + 1 : step]
    return values[:, list(columns)]


def as_rows(X: ArrayLike, name: str = "X") -> NDArray[Any]:
    """Return X as (N, D) float64 or float32, not copied where it is that already.

    Memory maps, read-only and strided arrays are taken as they are; whole numbers and other
    floats become float64.

    Raises
    ------
    ValueError
        If X is not two-dimensional, has no row or no column, or holds complex numbers or text.
    """
    if (
        type(X) is np.ndarray
        and X.dtype is _FLOAT64
        and X.ndim == 2
        and X.size > 0
        and X.flags.aligned
    ):
        return X
    if hasattr(X, "toarray") and hasattr(X, "nnz"):
        raise TypeError(
            f"{name} is a sparse matrix; vbfast takes dense arrays: pass {name}.toarray()"
        )
    check_unmasked(name, X)
    try:
        values = np.asarray(X)
    except ValueError as error:
        raise ValueError(f"{name} must be two-dimensional (rows, features): {error}") from None
    if values.dtype.kind == "c":
        raise ValueError(f"{name}: Complex data not supported, got dtype {values.dtype}")
    if values.dtype.kind not in "fiubO":
        raise ValueError(f"{name} must hold real numbers, not dtype {values.dtype}")
    if values.dtype.kind == "O":
        try:
            values = values.astype(np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{name} must hold real numbers: {error}") from None
    if values.ndim != 2:
        raise ValueError(
            f"{name} must be two-dimensional (rows, features), got shape {values.shape}. "
            "Reshape your data: X.reshape(-1, 1) if it is one feature, X.reshape(1, -1) if it is "
            "one row"
        )
    if values.shape[0] == 0 or values.shape[1] == 0:
        what = "sample" if values.shape[0] == 0 else "feature"
        raise ValueError(
            f"{name}: 0 {what}(s) (shape={values.shape}) while a minimum of 1 is required."
        )
    if values.dtype not in (np.float32, np.float64) or not values.dtype.isnative:
        with np.errstate(over="ignore"):
            single = values.dtype.newbyteorder("=") == np.float32
            converted = np.empty_like(
                values, dtype=np.float32 if single else np.float64, subok=False
            )
            for rows in portions(*values.shape):
                converted[rows] = values[rows]
            values = converted
    if not values.flags.aligned:
        values = values.copy()
    return values


def check_finite(
    values: NDArray[Any], n_threads: int, name: str = "X", missing: Sequence[int] = ()
) -> None:
    """Raise ValueError where a value isn't finite, nor NaN in a column that may be `missing`."""
    bad = _kernels.columns.first_not_finite(values, n_threads)
    if bad is None or not missing:
        _refuse(values, bad, name)
        return
    for column in range(values.shape[1]):
        if column not in missing:
            bad = _kernels.columns.first_not_finite(values[:, column : column + 1], n_threads)
            _refuse(values, None if bad is None else (bad[0], column), name)
            continue
        for rows in portions(len(values)):
            infinite = np.flatnonzero(np.isinf(values[rows, column]))
            if len(infinite):
                _refuse(values, (rows.start + int(infinite[0]), column), name)


def _refuse(values: NDArray[Any], bad: tuple[int, int] | None, name: str = "X") -> None:
    if bad is None:
        return
    row, column = bad
    what, more = "infinity", ""
    if np.isnan(values[row, column]):
        what = "NaN"
        more = ", and what is missing by missing='at_random' of MixtureModel and HiddenMarkovModel"
    raise ValueError(
        f"Input {name} contains {what} at row {row}, column {column}; vbfast takes finite "
        f"values only{more}"
    )


@dataclass(frozen=True)
class ArrayData:
    """Rows of a NumPy array or memory map, with weights.

    Parameters
    ----------
    values : ndarray of shape (N, D)
        float64 or float32, as `as_rows` gives it.
    weights : ndarray of shape (N,), optional
        Non-negative; a row of weight 2 is two rows, of weight 0 none.
    frame : Frame
    n_threads : int
    labels : ndarray of shape (N,), int64, optional
        Components of rows that are known, -1 of others.
    single : bool
        Compute with float32 numbers where that is precise enough. Sums are float64 all the same.
    sequences : Sequences, optional
        For chains: which rows follow each other; all rows do if None.
    constant : float
        What the objective has of the rows whatever theta is: see `Block`.
    memory : ndarray of shape (N, ...), optional
        The last q(T): see `Block` and `with_memory`.

    Notes
    -----
    ``ArrayData.of(X, sample_weight)`` checks its arguments, finds the frame, and computes with
    float32 numbers for float32 data of 16,384 rows or more.
    """

    values: NDArray[Any]
    weights: Array | None
    frame: Frame
    n_threads: int = 1
    labels: NDArray[np.int64] | None = field(default=None, repr=False)
    single: bool = False
    sequences: Sequences | None = None
    constant: float = 0.0
    memory: Array | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_frame(self.frame)
        if self.weights is not None:
            object.__setattr__(self, "weights", _as_weights("weights", self.weights, self.n_rows))

    @classmethod
    def of(
        cls,
        X: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        isotropic: bool = False,
        standardise: bool | Sequence[tuple[Sequence[int], bool]] = True,
        missing: Sequence[int] = (),
        n_threads: int | None = None,
    ) -> ArrayData:
        """Check X and its weights and choose units in which X has mean 0 and variance 1.

        Parameters
        ----------
        X : array-like of shape (N, D)
        sample_weight : array-like of shape (N,), optional
        lengths : array-like of shape (S,), optional
            Rows of each of the sequences that X holds one after the other.
        isotropic : bool
            One scale for all features, as a spherical covariance needs.
        standardise : bool, or sequence of (columns, isotropic)
            False leaves X in its own units, as counts and symbols must be; else groups of columns,
            of which others are left in theirs.
        missing : sequence of int
            Columns that may have NaN, of what is missing; each in a group of its own, or one all of
            which is missing in a row or nothing. With groups only.
        n_threads : int, optional

        Raises
        ------
        ValueError
            If X or sample_weight is ill-shaped or not finite, or a weight is negative, or all are
            zero; if lengths are not whole numbers > 0 that add up to N.
        """
        threads = resolve_threads(n_threads)
        values = as_rows(X)
        weights = check_weights(sample_weight, len(values))
        sequences = as_sequences(lengths, len(values))
        if standardise is not True:
            check_finite(values, threads, missing=missing)
            d = values.shape[1]
            units = Frame(np.zeros(d), np.ones(d), np.ones(d))
            for columns, one_scale in standardise or ():
                own = _frame_of(values, weights, columns, one_scale, threads, missing)
                for name in ("origin", "scale", "variance"):
                    getattr(units, name)[list(columns)] = getattr(own, name)
            return cls(values, weights, units, threads, sequences=sequences)
        frame = _frame(values, weights, isotropic, threads)
        single = values.dtype == np.float32 and len(values) >= MANY_ROWS
        if single and weights is not None:
            present = weights[weights > 0]
            single = bool(present.min() > SINGLE_LIGHTEST and present.max() < SINGLE_HEAVIEST)
        return cls(values, weights, frame, threads, single=single, sequences=sequences)

    @property
    def n_rows(self) -> int:
        """Rows in memory, whatever their weight."""
        return len(self.values)

    @property
    def n_sequences(self) -> int:
        """Sequences that the rows make."""
        return 1 if self.sequences is None else len(self.sequences.order)

    @property
    def total_weight(self) -> float:
        """Rows that the data stand for: the sum of the weights."""
        return float(self.n_rows if self.weights is None else self.weights.sum())

    @property
    def block(self) -> Block:
        """All rows."""
        return Block(
            self.values,
            self.weights,
            self.labels,
            self.frame.origin,
            self.frame.scale,
            0,
            # Anew each time: in a forked child there is one, whatever was found in the parent.
            resolve_threads(self.n_threads),
            self.single,
            self.sequences,
            self.constant,
            self.memory,
        )

    @property
    def resolution(self) -> float:
        """Changes of an objective, nats a row, that float32 arithmetic can't tell from 0; or 0."""
        return SINGLE_RESOLUTION if self.single else 0.0

    def of_columns(self, columns: Sequence[int]) -> ArrayData:
        """Return these columns of the rows."""
        frame = Frame(
            *(getattr(self.frame, name)[list(columns)] for name in ("origin", "scale", "variance"))
        )
        return replace(self, values=columns_of(self.values, columns), frame=frame, constant=0.0)

    def with_labels(self, labels: NDArray[np.int64]) -> ArrayData:
        """Return the same rows, each with its component given, or -1."""
        return replace(self, labels=labels)

    def whitened(self) -> NDArray[np.float64]:
        """Copy the rows, into units in which their covariance is 1; those of weight 0 are 0."""
        values = self.values.astype(np.float64) - self.frame.origin
        weights = np.ones(self.n_rows) if self.weights is None else self.weights
        # They may lie anywhere, further away than the others' units allow for.
        values[weights == 0] = 0.0
        values *= self.frame.scale
        # No BLAS: its threads would show in the last bits.
        values -= np.einsum("n,ni->i", weights / weights.sum(), values)
        weighted = values * np.sqrt(weights / weights.sum())[:, None]
        covariance = np.einsum("ni,nj->ij", weighted, weighted)
        # A column of one value has no unit of its own, and stays 0.
        variance = self.frame.variance
        least = FLATTEST * np.where(variance > 0, variance, 1.0)
        covariance[np.diag_indices_from(covariance)] += least
        factor = np.linalg.inv(np.linalg.cholesky(covariance))
        return np.asfortranarray(np.einsum("ni,ji->nj", values, factor))

    def merged(self) -> ArrayData:
        """Return the same rows, equal ones as one of their weight together, where few are distinct.

        Of whole numbers; sums over the rows differ by rounding alone. Else, and where rows weigh
        less than 1 in the mean (weights may be shares), return these.
        """
        n, values, weights = self.n_rows, self.values, self.weights
        if self.total_weight < n or self.labels is not None:
            return self
        parts = list(portions(*values.shape))
        low = np.min([values[rows].min(axis=0) for rows in parts], axis=0)
        high = np.max([values[rows].max(axis=0) for rows in parts], axis=0)
        sizes = [b - a + 1 for a, b in zip(low.tolist(), high.tolist(), strict=True)]
        cells = prod(sizes)
        # A weight for each cell, or each row's cell where these are too many.
        dense = cells <= min(n, PORTION)
        if not (dense or (cells < MOST_CELLS and n <= MOST_TO_SORT)):
            return self
        shape = tuple(map(int, sizes))
        total, cell_of = np.zeros(int(cells) if dense else 0), np.empty(0 if dense else n, np.int64)
        for rows in parts:
            if np.any(values[rows] != np.floor(values[rows])):
                return self
            cell = np.ravel_multi_index(tuple((values[rows] - low).T.astype(np.int64)), shape)
            if dense:
                own = None if weights is None else weights[rows]
                total += np.bincount(cell, own, len(total))
            else:
                cell_of[rows] = cell
        if dense:
            kept = np.flatnonzero(total)
            total = total[kept]
        else:
            kept, cell_of = np.unique(cell_of, return_inverse=True)
            total = np.bincount(cell_of, weights).astype(np.float64)
        if 2 * len(kept) > n:
            return self
        distinct = np.column_stack(np.unravel_index(kept, shape)) + low
        return replace(
            self, values=np.ascontiguousarray(distinct, dtype=values.dtype), weights=total
        )

    def by_gaps(self, columns: Sequence[int]) -> ArrayData:
        """Return the rows, those that miss the same of these columns one after the other.

        A copy, which kernels take less time for, of rows that are in no order; these where no row
        misses some and has others.
        """
        absent = np.isnan(self.values[:, list(columns)])
        if not np.any(absent.any(axis=1) & ~absent.all(axis=1)):
            return self
        order = np.lexsort(np.packbits(absent, axis=1).T[::-1])
        weights = None if self.weights is None else self.weights[order]
        labels = None if self.labels is None else self.labels[order]
        return replace(self, values=self.values[order], weights=weights, labels=labels)

    def with_constant(self, constant: float) -> ArrayData:
        """Return the same rows, which bring this much to the objective whatever theta is."""
        return replace(self, constant=constant)

    def with_memory(self, width: int) -> ArrayData:
        """Return the same rows with a memory of their own, `width` numbers a row, empty.

        For models that find the next q(T) from the last: one for each fit or chain.
        """
        return replace(self, memory=np.full((self.n_rows, width), np.nan))

    def sum(
        self,
        visit: Callable[[Block, ThetaT, Assignment], Stats],
        theta: ThetaT,
        assignment: Assignment,
    ) -> Stats:
        """Return the statistics of all rows."""
        return visit(self.block, theta, assignment)

    def sum_each(
        self,
        visit_each: Callable[[Block, Sequence[tuple[ThetaT, Assignment]]], list[Stats]],
        requests: Sequence[tuple[ThetaT, Assignment]],
    ) -> list[Stats]:
        """Return what `sum` does for several thetas, from one pass over the rows."""
        return visit_each(self.block, requests)


def as_sequences(lengths: ArrayLike | None, n_rows: int) -> Sequences | None:
    """Return where sequences of these lengths begin and end; None for None.

    Raises
    ------
    TypeError, ValueError
        If lengths are not one-dimensional, not whole numbers, not > 0, or don't add up to n_rows.
    """
    if lengths is None:
        return None
    check_unmasked("lengths", lengths)
    # Of our own, so that what is checked stays.
    each = np.array(lengths)
    if each.ndim != 1:
        raise ValueError(f"lengths must be one-dimensional, got shape {each.shape}")
    if each.dtype.kind not in "iuf":
        raise TypeError(f"lengths must be whole numbers > 0, not of dtype {each.dtype}")
    bad = np.flatnonzero(~(each >= 1) | (each != np.floor(each)) | ~(each <= n_rows))
    if len(bad):
        raise ValueError(
            f"lengths[{bad[0]}] is {each[bad[0]]}; whole numbers from 1 to {n_rows}, the number of "
            "rows of X, are allowed"
        )
    offsets = np.concatenate([[0], np.cumsum(each.astype(np.int64))])
    if offsets[-1] != n_rows:
        raise ValueError(f"lengths add up to {offsets[-1]}, but X has {n_rows} rows")
    return Sequences(offsets, np.argsort(-np.diff(offsets), kind="stable"))


def _as_weights(name: str, value: ArrayLike, n_rows: int) -> Array:
    """Return weights as float64 (N,); ValueError says which one is not allowed."""
    check_unmasked(name, value)
    weights = np.asarray(value)
    # NumPy takes None for NaN.
    if weights.dtype.kind == "O" and all(each is not None for each in weights.flat):
        with suppress(TypeError, ValueError, OverflowError):
            weights = weights.astype(np.float64)
    if weights.dtype.kind not in "fiub":
        raise ValueError(f"{name} must hold real numbers, not dtype {weights.dtype}")
    if weights.ndim == 0:
        weights = np.full(n_rows, weights)
    if weights.shape != (n_rows,):
        raise ValueError(
            f"{name} must have shape ({n_rows},), one weight a row of X, got {weights.shape}"
        )
    weights = np.ascontiguousarray(weights, dtype=np.float64)
    if not (weights.min() >= 0 and weights.max() < np.inf):
        bad = np.flatnonzero(~(weights >= 0) | ~np.isfinite(weights))
        raise ValueError(
            f"{name}[{bad[0]}] is {weights[bad[0]]}; weights must be finite and >= 0 "
            "(Negative values are not allowed)"
        )
    return weights


def check_weights(sample_weight: ArrayLike | None, n_rows: int) -> Array | None:
    """Return weights as float64 (N,); ValueError says which is not allowed, or what sum."""
    if sample_weight is None:
        return None
    weights = _as_weights("sample_weight", sample_weight, n_rows)
    if not weights.any():
        raise ValueError("sample_weight is zero for every row; one at least must be positive")
    with np.errstate(over="ignore"):
        total = weights.sum()
    if not LIGHTEST <= total <= HEAVIEST:
        raise ValueError(
            f"sample_weight sums to {total}; a sum from {LIGHTEST} to {HEAVIEST} is allowed"
        )
    return weights


def _frame_of(
    values: NDArray[Any],
    weights: Array | None,
    columns: Sequence[int],
    isotropic: bool,
    n_threads: int,
    missing: Sequence[int],
) -> Frame:
    """Units of these columns, of rows that are seen."""
    own = columns_of(values, columns)
    if columns[0] in missing:
        rows = ~np.isnan(own).any(axis=1)
        if not rows.all():
            own, weights = own[rows], None if weights is None else weights[rows]
        if not len(own) or (weights is not None and not weights.any()):
            raise ValueError(f"column {columns[0]} of X is missing in every row")
    return _frame(own, weights, isotropic, n_threads, columns)


def _frame(
    values: NDArray[Any],
    weights: Array | None,
    isotropic: bool,
    n_threads: int,
    numbers: Sequence[int] | None = None,
) -> Frame:
    """Units in which rows have mean 0 and variance 1; `numbers` of columns are for errors."""
    low, high, unseen = _kernels.columns.ranges(values, weights, n_threads)
    _refuse(values, unseen)
    n_features = values.shape[1]
    with np.errstate(over="ignore"):
        extent = high - low
    # Further apart, or closer together, and a variance or a precision would not be a float64.
    bad = np.flatnonzero((extent > WIDEST) | (extent < NARROWEST) & (extent > 0))
    if isotropic and extent.max() >= NARROWEST:
        bad = np.flatnonzero(extent > WIDEST)
    if len(bad):
        column = int(bad[0])
        shown = column if numbers is None else numbers[column]
        raise ValueError(
            f"column {shown} of X runs from {low[column]} to {high[column]}; all values equal, or "
            f"a range from {NARROWEST} to {WIDEST}, is allowed: give X in other units"
        )
    constant = extent < NARROWEST
    # First in units of the range, where nothing can overflow, then in those of the spread.
    middle = np.where(constant, low, low + 0.5 * extent)
    unit = np.where(constant, 1.0, 1.0 / np.where(constant, 1.0, extent))
    mean, variance = _kernels.columns.moments(values, weights, middle, unit, n_threads)
    deviation = np.sqrt(variance)
    # Rounding can leave nothing of a spread that is there: the range then stands in.
    deviation = np.where(constant, 1.0, np.where(deviation > 0, deviation, 1.0)) / unit
    origin = np.where(constant, low, middle + mean / unit)
    if not isotropic:
        return Frame(origin, 1.0 / deviation, np.ones(n_features))
    spread = np.where(constant, 0.0, deviation)
    largest = spread.max()
    if largest == 0:
        return Frame(origin, np.ones(n_features), np.ones(n_features))
    common = largest * np.sqrt(np.mean((spread / largest) ** 2))
    return Frame(origin, np.full(n_features, 1.0 / common), (spread / common) ** 2)

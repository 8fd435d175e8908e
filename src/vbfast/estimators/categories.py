"""Categories of symbols, any integers or strings, and their codes 0 ... C - 1."""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data import as_rows, check_finite

__all__ = ["Uncoded", "as_categories", "as_symbols", "codes_of", "decoded", "seen_in"]

# Rows that are looked at together, and codes that are counted rather than sorted.
PORTION, FEW = 2**16, 2**12
# Integers below this are told from their neighbours by a float64.
LARGEST = 2**53
# Categories that an error names.
NAMED = 10


class Uncoded:
    """How an estimator reads rows: as the numbers that they are."""

    def _read_rows(self, X: ArrayLike) -> NDArray[Any]:
        """X as rows."""
        return as_rows(X)

    def _codes(self, values: NDArray[Any]) -> NDArray[Any]:
        """Rows as a fitted model has them: symbols by their codes."""
        return values

    def _coded(self, X: ArrayLike) -> tuple[ArrayLike, dict[str, Any]]:
        """Return rows to fit as the model has them, and attributes that tell of their codes."""
        return X, {}

    def _decoded(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Rows of the model as they came: inverse of `_codes`."""
        return rows


def as_symbols(X: ArrayLike) -> NDArray[Any]:
    """Return X as rows of numbers, as `as_rows` does; where there is text, (N, D) of objects."""
    if isinstance(X, np.ndarray) and X.dtype.kind in "fiub":
        return as_rows(X)
    try:
        values = np.asarray(X)
    except ValueError:
        return as_rows(X)
    if values.dtype.kind == "S":
        raise ValueError("X holds bytes; symbols are integers or strings: X.astype(str)")
    text = values.dtype.kind in "UT" or (
        values.dtype.kind == "O" and any(isinstance(value, str) for value in values.flat)
    )
    if not text or values.ndim != 2 or values.size == 0:
        return as_rows(values if not text else np.zeros(values.shape))
    # Of a list numpy would have made text of the numbers, too.
    return np.asarray(X, dtype=object)


def seen_in(
    values: NDArray[Any], n_threads: int, columns: Sequence[int] | None = None
) -> list[NDArray[Any]]:
    """Categories of each column of rows as `as_symbols` gives them, sorted.

    `columns` are the numbers that errors call these by.

    Raises
    ------
    ValueError, TypeError
        If a value is neither an integer nor a string, or a column has both.
    """
    if values.dtype.kind != "O":
        check_finite(values, n_threads)
        small = _seen_small(values)
        if small is not None:
            return small
    shown = range(values.shape[1]) if columns is None else columns
    return [_seen(column, number) for column, number in zip(values.T, shown, strict=True)]


def codes_of(
    values: NDArray[Any],
    categories: Sequence[NDArray[Any]],
    columns: Sequence[int] | None = None,
) -> NDArray[Any]:
    """Rows with each value's number among the categories of its column, in its place.

    `columns` are the numbers that errors call these by. Where categories are their own numbers,
    0 ... C - 1, rows are returned as they are, unchecked.

    Raises
    ------
    ValueError
        If a value is none of the categories.
    """
    if values.dtype.kind != "O" and all(map(_plain, categories)):
        return values
    out = np.empty(values.shape, dtype=values.dtype if values.dtype.kind == "f" else np.float64)
    for column, known in enumerate(categories):
        for rows, part in _portions(values[:, column]):
            codes = _codes(part, known)
            if codes.min(initial=0) < 0:
                bad = np.flatnonzero(codes < 0)
                named = ", ".join(repr(each) for each in known[:NAMED].tolist())
                more = f", ... ({len(known)} in all)" if len(known) > NAMED else ""
                row, at = rows.start + int(bad[0]), column if columns is None else columns[column]
                value = part[bad[0]]
                shown = f"{value:g}" if isinstance(value, np.floating) else repr(value)
                raise ValueError(
                    f"X[{row}, {at}] is {shown} (row {row}, column {at}), none of this "
                    f"column's categories, which are {named}{more}; have others by categories=..."
                )
            out[rows, column] = codes
    return out


def decoded(codes: NDArray[Any], categories: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Inverse of `codes_of`: float64, or objects where a column has strings."""
    if all(map(_plain, categories)):
        return codes
    text = any(known.dtype.kind == "O" for known in categories)
    out = np.empty(codes.shape, dtype=object if text else np.float64)
    for column, known in enumerate(categories):
        of_column = codes[:, column].astype(np.intp)
        if of_column.max(initial=0) >= len(known):
            raise ValueError(
                f"categories_[{column}] has {len(known)} categories; probabilities_ have more"
            )
        out[:, column] = known[of_column]
    return out


def as_categories(name: str, given: Any, n_features: int) -> list[NDArray[Any]]:
    """Return categories of each feature: of all the same, or D sequences of them.

    Raises
    ------
    TypeError, ValueError
        If these are no integers or strings, or not all different, or of another number of features.
    """
    allowed = f"{name} must be a sequence of integers or strings, or {n_features} of them"
    if isinstance(given, str) or not hasattr(given, "__len__") or len(given) == 0:
        raise TypeError(f"{allowed}, not {given!r}")
    each = list(given)
    if all(isinstance(one, (str, numbers.Integral)) for one in each):
        each = [each] * n_features
    if len(each) != n_features:
        raise ValueError(f"{allowed}, not {len(each)}")
    return [_as_known(f"{name}[{column}]", one) for column, one in enumerate(each)]


def _as_known(name: str, given: Any) -> NDArray[Any]:
    """Categories of one feature, in the order given."""
    known = list(given) if hasattr(given, "__len__") and not isinstance(given, str) else [None]
    text = all(isinstance(one, str) for one in known)
    whole = all(isinstance(one, numbers.Integral) and abs(int(one)) < LARGEST for one in known)
    if not known or not (text or whole):
        raise TypeError(f"{name} must hold integers or strings, one at least, not {given!r}")
    if len(set(known)) < len(known):
        twice = next(one for n, one in enumerate(known) if one in known[:n])
        raise ValueError(f"{name} has {twice!r} twice; categories must be different")
    return np.array(known, dtype=object if text else np.int64)


def _portions(column: NDArray[Any]) -> Iterator[tuple[slice, NDArray[Any]]]:
    for first in range(0, len(column), PORTION):
        rows = slice(first, min(first + PORTION, len(column)))
        yield rows, column[rows]


def _plain(known: NDArray[Any]) -> bool:
    """Whether categories are their own codes."""
    if known.dtype == np.int64 and len(known) <= FEW:
        # Told in no time: predictions of one row ask.
        return known.tobytes() == _bytes_of_codes(len(known))
    return known.dtype.kind != "O" and np.array_equal(known, np.arange(len(known)))


@lru_cache(64)
def _order(dtype: str, known: bytes) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """An order in which categories rise, and they in it: predictions of one row ask."""
    values = np.frombuffer(known, dtype)
    order = np.argsort(values)
    return order, values[order]


@lru_cache(64)
def _bytes_of_codes(n: int) -> bytes:
    return np.arange(n, dtype=np.int64).tobytes()


def _seen_small(values: NDArray[Any]) -> list[NDArray[Any]] | None:
    """Categories of each column where all are small integers >= 0, which are counted; else None."""
    d = values.shape[1]
    seen = np.zeros((d, 0), dtype=bool)
    for first in range(0, len(values), max(PORTION // d, 1)):
        part = values[first : first + max(PORTION // d, 1)]
        if not (float(part.min()) >= 0 and float(part.max()) < FEW):
            return None
        codes = part.astype(np.intp)
        if not np.array_equal(codes, part):
            return None
        width = max(int(codes.max()) + 1, seen.shape[1])
        codes += np.arange(d) * width
        here = np.bincount(codes.ravel(), minlength=d * width).reshape(d, width) > 0
        here[:, : seen.shape[1]] |= seen
        seen = here
    return [np.flatnonzero(column) for column in seen]


def _seen(column: NDArray[Any], number: int) -> NDArray[Any]:
    """Categories of one column."""
    if column.dtype.kind == "O" and isinstance(column[0], str):
        for row, value in enumerate(column):
            if not isinstance(value, str):
                raise TypeError(
                    f"X[{row}, {number}] is {value!r} (row {row}, column {number}); strings alone "
                    "are allowed in a column that has one"
                )
        return np.array(sorted(set(map(str, column))), dtype=object)
    seen = np.empty(0)
    for rows, part in _portions(column):
        numeric = _as_integers(part, rows.start, number)
        seen = np.union1d(seen, numeric)
    return seen.astype(np.int64)


def _as_integers(part: NDArray[Any], first: int, column: int) -> NDArray[Any]:
    """Numbers of a column, checked to be whole."""
    numeric = part
    if part.dtype.kind == "O":
        for row, value in enumerate(part, first):
            if not isinstance(value, numbers.Real):
                raise TypeError(
                    f"X[{row}, {column}] is {value!r} (row {row}, column {column}); integers alone "
                    "are allowed in a column that has one"
                )
        # What float64 has no room for is too large all the same.
        limit = LARGEST + 2
        numeric = np.array([max(min(value, limit), -limit) for value in part], dtype=np.float64)
    bad = np.flatnonzero(~((numeric == np.floor(numeric)) & (np.abs(numeric) < LARGEST)))
    if len(bad):
        row = first + int(bad[0])
        raise ValueError(
            f"X[{row}, {column}] is {numeric[bad[0]]:g} (row {row}, column {column}); whole "
            "numbers below 2^53 are allowed, and strings"
        )
    return numeric


def _codes(part: NDArray[Any], known: NDArray[Any]) -> NDArray[np.int64]:
    """Numbers of values among these categories; -1 for none of them."""
    if part.dtype.kind == "O" or known.dtype.kind == "O":
        table = {one: code for code, one in enumerate(known.tolist())}
        return np.array([table.get(value, -1) for value in part.tolist()], dtype=np.int64)
    order, ordered = _order(known.dtype.str, known.tobytes())
    place = np.minimum(ordered.searchsorted(part), len(known) - 1)
    return np.where(ordered[place] == part, order[place], -1)

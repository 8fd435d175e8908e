"""Checks of arguments: errors name the argument, its value and what is allowed."""

from __future__ import annotations

import numbers
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._interrupts import interruptible
from ..data import Frame, check_number, check_unmasked

__all__ = [
    "as_array",
    "as_generator",
    "as_labels",
    "as_probabilities",
    "available_memory",
    "check_choice",
    "check_distance",
    "check_ignored",
    "check_memory",
    "check_number",
    "check_positive",
    "check_samples",
    "check_sequence_lengths",
    "in_type_of",
    "sum_of_logs",
]

Array = NDArray[np.float64]

_CGROUP = Path("/sys/fs/cgroup")
# Bytes that no fit is refused for.
LITTLE_MEMORY = 2.0**26
# Rows that a sample may ask for: no array has more.
MOST_SAMPLES = 2**48


def as_generator(random_state: Any) -> np.random.Generator:
    """Return a Generator for None, a seed, a Generator or a RandomState.

    Raises
    ------
    TypeError, ValueError
        For anything else, or a negative seed.
    """
    if random_state is None or isinstance(random_state, np.random.Generator):
        return np.random.default_rng(random_state)
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31, size=4))
    if isinstance(random_state, numbers.Integral) and not isinstance(random_state, bool):
        if random_state < 0:
            raise ValueError(f"random_state must be >= 0, not {random_state!r}")
        return np.random.default_rng(int(random_state))
    raise TypeError(
        "random_state must be None, an integer >= 0, a numpy.random.Generator or a "
        f"numpy.random.RandomState, not {random_state!r}"
    )


def as_labels(labels: Any, n_rows: int, n_components: int) -> NDArray[np.int64] | None:
    """Return components of rows as int64 (N,), -1 where not known; None where none is known.

    Raises
    ------
    TypeError, ValueError
        If labels are no numbers, of another shape, or one is neither 0 ... K - 1, -1, NaN nor None.
    """
    if labels is None:
        return None
    check_unmasked("labels", labels)
    try:
        each = np.asarray(labels, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"labels must be integers, not {labels!r}") from None
    if each.shape != (n_rows,):
        raise ValueError(f"labels must have shape ({n_rows},), one a row of X, got {each.shape}")
    each = np.where(np.isnan(each), -1.0, each)
    bad = np.flatnonzero(~((each >= -1) & (each < n_components)) | (each != np.floor(each)))
    if len(bad):
        raise ValueError(
            f"labels[{bad[0]}] is {each[bad[0]]:g}; 0 to {n_components - 1}, and -1 or NaN where "
            "not known, are allowed"
        )
    return each.astype(np.int64) if np.any(each >= 0) else None


def check_ignored(y: Any) -> None:
    """Raise ValueError where `y` is given, which nobody reads: it would be silently ignored."""
    if y is not None:
        what = f"has {len(y)} entries" if hasattr(y, "__len__") else f"is {y!r}"
        raise ValueError(
            f"y {what}, but a chain's states are found, not given: y must be None. Rows of each "
            "sequence go by name, lengths=..., and so do states that are known, labels=..."
        )


def in_type_of(rows: NDArray[Any], told: NDArray[Any]) -> NDArray[Any]:
    """What is told of rows, float32 where these are, as scikit-learn has it."""
    if told.dtype == rows.dtype:
        return told
    with np.errstate(over="ignore", under="ignore"):
        return told.astype(rows.dtype)


def check_samples(n_samples: Any) -> int:
    """Return how many rows are to be drawn."""
    check_number("n_samples", n_samples, whole=True, least=1)
    if n_samples > MOST_SAMPLES:
        raise MemoryError(f"n_samples is {n_samples}: no memory for as many rows")
    return int(n_samples)


def check_sequence_lengths(n_samples: int | None, lengths: ArrayLike | None) -> list[int]:
    """Return how many rows each of some sequences is to have: n_samples of one, or lengths."""
    if lengths is None:
        n = 1 if n_samples is None else n_samples
        return [check_samples(n)]
    if n_samples is not None:
        raise ValueError("give n_samples, of one sequence, or lengths, of several; not both")
    each = np.asarray(lengths)
    if each.ndim != 1 or each.dtype.kind not in "iu" or each.size == 0:
        raise ValueError(f"lengths must be whole numbers >= 1, (S,), not {lengths!r}")
    bad = np.flatnonzero(each < 1)
    if len(bad):
        raise ValueError(f"lengths[{bad[0]}] is {each[bad[0]]}; whole numbers >= 1 are allowed")
    return [check_samples(int(n)) for n in each]


def sum_of_logs(each: Array) -> float:
    """Sum of log densities: -inf where no float64 is as low."""
    with np.errstate(over="ignore"):
        return float(each.sum())


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise ValueError where `value` is not one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")


def as_array(name: str, value: ArrayLike, shape: tuple[int, ...]) -> Array:
    """Return a float64 array of this shape, finite; the error names what is wrong with it."""
    try:
        array = np.asarray(value)
        if array.dtype.kind == "c":
            raise TypeError("complex")
        array = np.array(array, dtype=np.float64)
    except OverflowError:
        raise ValueError(f"{name} holds an integer that no float64 is; {value!r}") from None
    except (TypeError, ValueError):
        raise TypeError(f"{name} must hold real numbers, not {value!r}") from None
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        index = tuple(int(i) for i in bad[0])
        raise ValueError(f"{name}{list(index)} is {array[index]}; values must be finite")
    return array


def as_probabilities(name: str, value: ArrayLike, shape: tuple[int, ...]) -> Array:
    """Return a float64 array of this shape whose rows (last axis) are probabilities.

    Raises
    ------
    TypeError, ValueError
        If it isn't one, an entry is not in [0, 1] or a row does not sum to 1.
    """
    array = as_array(name, value, shape)
    bad = np.argwhere((array < 0) | (array > 1))
    if len(bad):
        index = [int(i) for i in bad[0]]
        raise ValueError(
            f"{name}{index} is {array[tuple(index)]}; probabilities must lie in [0, 1]"
        )
    total = array.sum(axis=-1)
    bad = np.argwhere(~np.isclose(total, 1.0, rtol=1e-6))
    if len(bad):
        row = [int(i) for i in bad[0]]
        where = f"{name}{row}" if row else name
        raise ValueError(f"{where} must sum to 1, not to {total[tuple(row)]:.8g}")
    return array


def check_distance(name: str, means: Array, frame: Frame, most: float) -> None:
    """Raise ValueError where a mean is more than `most` standard deviations from the data's."""
    with np.errstate(over="ignore"):
        distance = np.abs((means - frame.origin) * frame.scale)
    bad = np.argwhere(~(distance <= most))
    if len(bad):
        index = tuple(int(i) for i in bad[0])
        raise ValueError(
            f"{name}{list(index)} is {means[index]:g}, {distance[index]:.1g} standard deviations "
            f"from the mean of X; {most:g} at most are allowed"
        )


def check_positive(name: str, values: Array, matrices: bool) -> None:
    """Raise ValueError where a matrix isn't symmetric positive definite, or a number not > 0."""
    if not matrices:
        bad = np.argwhere(np.atleast_1d(values) <= 0)
        if len(bad):
            index = [int(i) for i in bad[0]]
            where = f"{name}{index}" if values.ndim else name
            raise ValueError(
                f"{where} is {np.atleast_1d(values)[tuple(index)]}; values must be > 0"
            )
        return
    for number, matrix in enumerate(values.reshape(-1, *values.shape[-2:])):
        which = f"{name}[{number}]" if values.ndim == 3 else name
        diagonal = np.diagonal(matrix)
        if (diagonal > 0).all():  # if not, it isn't positive definite, as cholesky will find
            # Against the diagonal: an entry near 0 may be nothing but rounding.
            scale = np.sqrt(diagonal)
            with np.errstate(over="ignore"):
                difference = np.abs(matrix - matrix.T)
            if (difference > 1e-6 * np.outer(scale, scale)).any():
                raise ValueError(f"{which} must be symmetric")
        cube = float(len(matrix)) ** 3
        try:
            interruptible(cube, partial(np.linalg.cholesky, matrix))
        except np.linalg.LinAlgError:
            smallest = interruptible(cube, partial(np.linalg.eigvalsh, matrix))[0]
            raise ValueError(
                f"{which} must be positive definite; its smallest eigenvalue is {smallest:g}"
            ) from None


def check_memory(needed: float, what: str) -> None:
    """Raise MemoryError where a fit needs more bytes than there are."""
    available = np.inf if needed < LITTLE_MEMORY else available_memory()
    if needed > available:
        raise MemoryError(
            f"{what} would need about {needed / 2**30:.1f} GiB; {available / 2**30:.1f} GiB are "
            "available"
        )


def available_memory() -> float:
    """Bytes that this process may still take: what the system has free, within its limits."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = {line.split(":")[0]: 1024.0 * int(line.split()[1]) for line in lines}
        available = free["MemAvailable"]
    except (OSError, KeyError, ValueError):
        try:
            available = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        except (AttributeError, OSError, ValueError):
            return np.inf
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = float((_CGROUP / "memory.current").read_text())
        return available if limit == "max" else min(available, float(limit) - used + _page_cache())
    except (OSError, ValueError):
        return available


def _page_cache() -> float:
    """Bytes that count as used in the control group, but that the kernel gives up when asked."""
    try:
        lines = (_CGROUP / "memory.stat").read_text().splitlines()
        return float(dict(line.split() for line in lines)["inactive_file"])
    except (OSError, KeyError, ValueError):
        return 0.0

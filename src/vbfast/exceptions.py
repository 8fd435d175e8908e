"""Errors and warnings of our own."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import numpy as np

__all__ = [
    "ConvergenceWarning",
    "DegenerateError",
    "ImpossibleRowError",
    "NotFittedError",
    "ObjectiveFellWarning",
    "SpuriousWarning",
    "ThreadsWarning",
    "TruncationWarning",
    "convergence_warning",
    "impossible_error",
    "improper_error",
    "not_fitted_error",
]


# Where an objective ends as inf or NaN.
NO_NUMBER = "a row, or a component, is too far from all others, or too small, for float64 numbers"


class NotFittedError(ValueError, AttributeError):
    """An estimator was asked for what only `fit` can give."""


class DegenerateError(np.linalg.LinAlgError):
    """The likelihood is unbounded here: a component has shrunk onto too few points.

    Or the objective is no finite number.
    """


class ImpossibleRowError(ValueError):
    """A row of X has probability zero, so that nothing can be said of its states."""


class ConvergenceWarning(UserWarning):
    """A fit stopped at `max_iter` before its objective settled, or chains have not mixed."""


class ObjectiveFellWarning(RuntimeWarning):
    """An objective that can't fall did: more rounding than expected, or a defect."""


class ThreadsWarning(RuntimeWarning):
    """The threads that a call may take can't be had: it goes on with one, to the same result."""


class SpuriousWarning(UserWarning):
    """All optima that were found have a component on next to no rows: none may mean anything."""


class TruncationWarning(UserWarning):
    """A Dirichlet process is cut off where much of it is left: raise n_components."""


def impossible_error(row: int) -> ImpossibleRowError:
    """Return the error that names a row of probability zero."""
    return ImpossibleRowError(
        f"row {row} of X has probability zero under every component, or under every state that "
        "the rows of its sequence before it leave possible"
    )


def improper_error(emission: str, needed: str) -> ValueError:
    """Return the error for an improper prior where only a proper one will do."""
    return ValueError(
        f"the prior of {emission} is improper, so that there is no evidence, no bound of it, and "
        f"no draw of an empty component: mean field and full inference need {needed}"
    )


def convergence_warning() -> type[ConvergenceWarning]:
    """Return a ConvergenceWarning that is scikit-learn's too where scikit-learn is in use."""
    theirs = sys.modules.get("sklearn.exceptions")
    return ConvergenceWarning if theirs is None else _both_warnings(theirs.ConvergenceWarning)


@cache
def _both_warnings(theirs: type[Warning]) -> type[ConvergenceWarning]:
    return type("ConvergenceWarning", (ConvergenceWarning, theirs), {"__reduce__": _reduce_warning})


def _reduce_warning(warning: Warning) -> tuple[Any, ...]:
    # A class made here can't be found by its name, as pickle would.
    return _warning_of, warning.args


def _warning_of(*args: Any) -> ConvergenceWarning:
    return convergence_warning()(*args)


def not_fitted_error(message: str) -> Exception:
    """Return a NotFittedError that is scikit-learn's too where scikit-learn is in use."""
    theirs = sys.modules.get("sklearn.exceptions")
    if theirs is None:
        return NotFittedError(message)

    def reduce(error: Exception) -> tuple[Any, ...]:
        # A class made here can't be found by its name, as pickle would.
        return not_fitted_error, error.args, error.__dict__ or None

    bases = (NotFittedError, theirs.NotFittedError)
    both = type("NotFittedError", bases, {"__reduce__": reduce})
    error: Exception = both(message)
    return error

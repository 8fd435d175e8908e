"""What estimators say of sequences of rows."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._kernels.inputs import Sequences
from ..data import as_sequences, check_finite
from .base import FittedByMethod
from .checks import as_generator, check_sequence_lengths

__all__ = ["FittedToSequences"]

Array = NDArray[np.float64]


class FittedToSequences(FittedByMethod):
    """Estimators of chains: what they share once fitted."""

    @abstractmethod
    def _known(self, middle: bool) -> Any:
        """What tells of rows (answers.py); where `middle`, at the attributes alone."""

    @abstractmethod
    def _log_likelihood(self, X: ArrayLike, lengths: ArrayLike | None) -> tuple[float, int]:
        """`score`, and how many rows there are."""

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """Free parameters."""

    def _prepare(
        self, X: ArrayLike, lengths: ArrayLike | None, middle: bool = False
    ) -> tuple[Any, tuple[NDArray[Any], int, Sequences | None]]:
        """What tells of rows, and the rows, checked: values, threads, sequences."""
        now = self._now()
        now._check_is_fitted()
        answers = now._known(middle)
        emission = answers.emission
        values = now._rows(X, emission.n_features)
        sequences = as_sequences(lengths, len(values))
        threads = now._threads_for(values)
        check_finite(values, threads, missing=emission.missing_columns)
        emission.check_rows(values)
        return answers, (values, threads, sequences)

    def sample(
        self,
        n_samples: int | None = None,
        random_state: Any = None,
        *,
        lengths: ArrayLike | None = None,
    ) -> tuple[Array, NDArray[np.int64]]:
        """Draw a sequence, or several.

        Parameters
        ----------
        n_samples : int, optional
            Rows, 1 where neither this nor lengths are given.
        random_state : int, numpy.random.Generator or numpy.random.RandomState, optional
            The estimator's own where not given.
        lengths : array-like of shape (S,), optional
            Rows of each of several sequences, one after the other.

        Returns
        -------
        X : ndarray of shape (n_samples, D)
        states : ndarray of shape (n_samples,), or of a factorial model (n_samples, M)
        """
        now = self._now()
        now._check_is_fitted()
        rows = check_sequence_lengths(n_samples, lengths)
        rng = as_generator(now.random_state if random_state is None else random_state)
        answers = now._known(middle=True)
        drawn = [answers.sample(n, rng) for n in rows]
        values = now._decoded(np.concatenate([x for x, _ in drawn]))
        return values, np.concatenate([t for _, t in drawn])

    def bic(self, X: ArrayLike, lengths: ArrayLike | None = None) -> float:
        """Bayesian information criterion, -2 `score` + p log N: the lower the better.

        N is the number of rows, as hmmlearn has it.
        """
        now = self._now()
        value, n_rows = now._log_likelihood(X, lengths)
        return float(-2 * value + now.n_parameters * np.log(n_rows))

    def aic(self, X: ArrayLike, lengths: ArrayLike | None = None) -> float:
        """Akaike's information criterion, -2 `score` + 2 p: the lower the better."""
        now = self._now()
        value, _ = now._log_likelihood(X, lengths)
        return -2 * value + 2 * now.n_parameters

"""What kernels are told: where rows lie, what theta is, how to assign."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "LOWEST",
    "Assignment",
    "Block",
    "Coefficients",
    "CoupledCoefficients",
    "Kernel",
    "Mixtures",
    "Sequences",
]

Array = NDArray[np.float64]

# Names of compiled functions; of a product, of each part: name, columns of X, symbols, and whether
# rows may be missing, with NaN in one of these columns.
Kernel = str | tuple[tuple[str, tuple[int, ...], int, bool], ...]

# Scores no higher are those of what is impossible: in coefficients it stands for log 0.
LOWEST = -1.7e308


@dataclass(frozen=True)
class Sequences:
    """Where each of several sequences of rows begins and ends.

    Attributes
    ----------
    offsets : (S + 1,) int64
        Sequence s is rows offsets[s] to offsets[s + 1]; none is empty.
    order : (S,) int64
        Sequences by decreasing length.
    """

    offsets: NDArray[np.int64]
    order: NDArray[np.int64]


# Block and Coefficients are not frozen, which would take as long to make as visiting rows.
@dataclass(slots=True)
class Block:
    """Rows that a kernel visits in one call.

    Attributes
    ----------
    values : (N, D), float64 or float32, of any strides
    weights : (N,), optional
    labels : (N,) int64, optional
        Components of rows that are known, -1 of others: the assignment "given" takes all of them
        from here, others only find what isn't.
    origin, scale : (D,)
        Subtracted from every row, and multiplied to it, as it is read.
    first_row : int
        Number of the block's first row in the whole of the data.
    n_threads : int
    single : bool
        Compute with float32 numbers, but for sums over more than a tile of rows, unless an
        assignment is to be precise.
    sequences : Sequences, optional
        For latent structures in which a row depends on those before it; one of all rows if None.
    constant : float
        What the objective has of the rows whatever theta is: the sum of log h(x) over rows, where
        p(x | t, theta) = h(x) exp(score).
    memory : (N, ...), optional
        The last q(T) of each row, where the next one is found from it: read and written. NaN where
        there is none yet.
    """

    values: NDArray[Any]
    weights: Array | None
    labels: NDArray[np.int64] | None
    origin: Array
    scale: Array
    first_row: int
    n_threads: int
    single: bool = False
    sequences: Sequences | None = None
    constant: float = 0.0
    memory: Array | None = None


@dataclass
class Coefficients:
    """Theta, as far as kernels see it.

    Attributes
    ----------
    emission : str or tuple
        Name of the compiled functions that can read `coefficients`: "full", "tied", "diag",
        "spherical", "poisson", "exponential", "bernoulli" or "categorical"; of coupled chains
        "additive". Of a product, (name, columns, n_categories, may_miss) of each part, whose
        coefficients stand one after the other; before those of one that may be missing its offsets,
        (K,), which are then not in `offsets`.
    coefficients : ndarray of shape (size,)
    offsets : ndarray of shape (K,)
        Scores where the emission's own part is zero; of coupled chains one, (1,).
    latent : ndarray, optional
        What the latent structure's kernel reads besides: of a chain start (K,) and transition
        matrix (K, K), one after the other, and so of each of several.
    n_categories : int
        Symbols that a feature may be, 0 where features are numbers.
    may_be_impossible : bool
        Whether a row may have probability 0. If not, one whose scores are all -inf or NaN is too
        far away for float64 numbers, and tells nothing of its component. For chains: of independent
        rows it is all the same.

    Notes
    -----
    Both may be of several thetas, (n_thetas, size) and (n_thetas, K), to visit rows once for all.
    """

    emission: Kernel
    coefficients: Array
    offsets: Array
    latent: Array | None = None
    n_categories: int = 0
    may_be_impossible: bool = True


@dataclass(frozen=True)
class CoupledCoefficients:
    """`Coefficients` of coupled chains, laid out as their kernel reads them.

    Attributes
    ----------
    whitening : (D, D)
        Lower triangular A, with which a row's noise is white: y = A x.
    means : (M K, R), R >= D
        Those of A x, chain after chain; y is 0 in what they have beyond D.
    constant : float
        A row's log density where y is its mean.
    log_start : (M, K)
        Logarithms of probabilities, or expected ones; -inf of what is impossible.
    log_transition : (M, K, K)
    """

    whitening: Array
    means: Array
    constant: float
    log_start: Array
    log_transition: Array


@dataclass(frozen=True)
class Assignment:
    """How a sweep assigns T given theta.

    Attributes
    ----------
    kind : {"exact", "factorised", "best", "hard", "draw", "given", "scores", "filter"}
        q(T) = p(T | X, theta); the best q_1(T_1) ... q_d(T_d), which for independent rows is the
        same; exact among each row's `truncation` best components; the best T; a T drawn; labels
        that the block brings along; nothing, scores only; of a chain p(t_n | x_1 ... x_n, theta).
    truncation : int
        For "best".
    seed, sweep : int
        For "draw": together with a row's number they determine its draw.
    precise : bool
        Compute with float64 numbers whatever the block allows.
    """

    kind: str
    truncation: int = 0
    seed: int = 0
    sweep: int = 0
    precise: bool = False


@dataclass(frozen=True)
class Mixtures:
    """Models of several data sets, which differ in their priors alone: for the compiled loop.

    Attributes
    ----------
    emission : {"full", "tied", "diag", "spherical", "poisson", "exponential", "bernoulli",
        "categorical"}
    n_components : int
    flat_weights : bool
        Whether the prior on the weights adds nothing to an objective.
    prior : ndarray of shape (problem, size), or (1, size) for all
        Buffers of `Model.prior`.
    n_categories : int
        Symbols that a feature may be, 0 where features are numbers.
    reg_covar : float
        Of Gaussians.
    flat : bool
        Whether the prior on rates or probabilities adds nothing to an objective.
    rate : ndarray of shape (problem, D), or (1, D) for all
        Of the gamma prior of rates.
    """

    emission: str
    n_components: int
    flat_weights: bool
    prior: Array
    n_categories: int = 0
    reg_covar: float = 0.0
    flat: bool = False
    rate: Array | None = None

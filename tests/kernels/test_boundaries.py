"""Arguments that kernels and parts can't trust: each is refused in Python, before it is looked at.

An object that was edited by hand, or unpickled, is an argument like any other. A check that is
missing here ends the process, or reads what isn't there.
"""

import contextlib
import copy
import pickle
import re
import threading
import warnings
from dataclasses import replace

import numpy as np
import pytest

import vbfast
from vbfast import _kernels, starts
from vbfast._kernels.inputs import (
    Assignment,
    Block,
    Coefficients,
    CoupledCoefficients,
    Mixtures,
    Sequences,
)
from vbfast.answers import AveragedChain
from vbfast.conjugate import Gaussians, NormalWishart, regression
from vbfast.data import ArrayData, Frame
from vbfast.stats import Layout, Moments, Stats

RNG = np.random.default_rng(0)
N, K, D, M = 40, 3, 2, 2
X = RNG.standard_normal((N, D)) + 3 * RNG.integers(0, K, (N, 1))
COUNTS = np.floor(np.abs(X))
EXACT, GIVEN = Assignment("exact"), Assignment("given")
ZEROS, ONES = np.zeros, np.ones


def block(**changes):
    rows = Block(X, None, None, ZEROS(D), ONES(D), 0, 1)
    return replace(rows, **changes)


def empty_rows(d=D):
    return {"values": ZEROS((0, d)), "origin": ZEROS(d), "scale": ONES(d)}


def of_format(array, code):
    """The same numbers, in another format of 8 bytes or 4."""
    return array.astype(code)


def read_only(array):
    array = np.array(array)
    array.flags.writeable = False
    return array


# -- rows of a mixture, of a chain ----------------------------------------------------------------


def gaussians(k=K, d=D):
    return np.linspace(-1, 4, k)[:, None] + ZEROS((k, d)), ONES((k, d))


def theta_of(emission="diag", k=K, d=D):
    """Coefficients for the kernels of rows."""
    part = {
        "poisson": vbfast.Poisson(d),
        "exponential": vbfast.Exponential(d),
        "bernoulli": vbfast.Bernoulli(d),
        "categorical": vbfast.Categorical(d, 12),
    }.get(emission)
    if part is None:
        part = vbfast.Gaussian(d, emission)
        made = vbfast.Model(vbfast.Mixture(k), part).about(gaussians(k, d)[0])
    else:
        model = vbfast.Model(vbfast.Mixture(k), part)
        made = model.point(np.full(k, 1 / k), part.unit(ONES((k, d))))
    return Coefficients(
        made.emission, made.coefficients, made.offsets, None, made.n_categories
    )  # fmt: skip


def mixture(rows=None, theta=None, assignment=EXACT, kernel=None, **outputs):
    """Call a mixture's kernel with statistics, and what else is wanted."""
    kernel = _kernels.mixture if kernel is None else kernel
    rows = block() if rows is None else rows
    if not outputs:
        outputs = {"statistics": ZEROS(kernel.statistics_size("diag", K, D))}
    theta = theta_of() if theta is None else theta
    kernel.visit(rows, theta, assignment, **outputs)


def with_theta(emission="diag", **changes):
    return replace(theta_of(emission), **changes)


def chain(rows=None, assignment=EXACT, **changes):
    latent = np.full(K + K * K, 1 / K)
    theta = with_theta(**({"latent": latent} | changes))
    size = _kernels.chain.statistics_size("diag", K, D)
    _kernels.chain.visit(
        block() if rows is None else rows, theta, assignment, statistics=ZEROS(size)
    )


def sequences(offsets, order):
    return Sequences(np.array(offsets, dtype=np.int64), np.array(order, dtype=np.int64))


BAD_SEQUENCES = {
    "order turned": (sequences([0, 10, N], [0, 1]), ValueError, "order[1]", "longer"),
    "order twice": (sequences([0, 10, N], [1, 1]), ValueError, "order[1] is 1", "twice"),
    "order beyond": (sequences([0, 10, N], [1, 10**9]), ValueError, "order[1] is 1000000000"),
    "order below": (sequences([0, 10, N], [1, -1]), ValueError, "order[1] is -1"),
    "offsets below": (sequences([0, -(10**7), N], [1, 0]), ValueError, "offsets[1] is -10000000"),
    "offsets overflow": (sequences([0, 2**63 - 1, N], [0, 1]), ValueError, "offsets["),
    "offsets beyond": (sequences([0, 10**9], [0]), ValueError, "offsets go from 0 to 1000000000"),
    "offsets short": (sequences([0, 5], [0]), ValueError, "offsets go from 0 to 5"),
    "offsets late": (sequences([5, N], [0]), ValueError, "offsets go from 5"),
    "an empty one": (sequences([0, 10, 10, N], [2, 0, 1]), ValueError, "offsets[2] is 10"),
    "too few offsets": (sequences([0, N], [0, 1]), ValueError, "offsets has length 2, not 3"),
    "no sequence": (sequences([0], []), ValueError, "offsets go from 0 to 0"),
    "no offsets": (sequences([], []), ValueError, "offsets has length 0, not 1"),
    "offsets None": (Sequences(None, np.zeros(1, dtype=np.int64)), TypeError, "offsets"),
    "order None": (Sequences(np.array([0, N]), None), TypeError, "order"),
    "offsets float": (Sequences(np.array([0.0, N]), np.zeros(1, int)), TypeError, "offsets"),
    "order 2-D": (Sequences(np.array([0, N]), np.zeros((1, 1), int)), TypeError, "order"),
    "order strided": (
        Sequences(np.arange(N + 1), np.zeros((2 * N), int)[::2]), TypeError, "order",
    ),
    "not sequences": ([0, N], AttributeError, "offsets"),
}  # fmt: skip


# -- coupled chains -------------------------------------------------------------------------------


def coupled_theta(m=M, k=K, d=D, **changes):
    theta = CoupledCoefficients(
        np.eye(d),
        np.linspace(0, 1, m * k * d).reshape(m * k, d),
        0.0,
        np.full((m, k), -np.log(k)),
        np.full((m, k, k), -np.log(k)),
    )
    return replace(theta, **changes)


def coupled(rows=None, theta=None, kind="structured", memory=None, size=None, **changes):
    """Call the kernel of coupled chains."""
    rows = block() if rows is None else rows
    if memory is None:
        memory = np.full((len(rows.values), M * K), np.nan)
    rows = replace(rows, memory=memory)
    size = _kernels.factorial.statistics_size(M, K, D) if size is None else size
    arguments = {"statistics": ZEROS(size)} | changes
    _kernels.factorial.visit(rows, coupled_theta() if theta is None else theta, kind, **arguments)


# -- parts ----------------------------------------------------------------------------------------


def model(emission=None, k=K):
    return vbfast.Model(vbfast.Mixture(k), emission or vbfast.Gaussian(D))


def fit(latent=None, emission=None, data=None, method=None):
    data = data or ArrayData.of(X)
    emission = emission or vbfast.Gaussian(D, frame=data.frame)
    one = vbfast.Model(latent or vbfast.Mixture(K), emission)
    start = one.prior + data.sum(one.visit, one.about(gaussians(K, D)[0]), Assignment("hard"))
    return (method or vbfast.EM(max_iter=2)).fit(one, data, start)


def add(mean=(K, D), scatter=(K, D, D), strength=(K,)):
    layout = Layout(
        (("strength", strength), ("mean", mean), ("scatter", scatter)),
        (Moments("strength", "mean", "scatter"),),
    )
    one = layout.stats()
    return one + one


def distribution(means=(K, D), strength=(K,), dof=(K,), scatter=(K, D, D)):
    """A distribution of arrays of these shapes; the first of an array is taken as it is."""
    parts = [ONES(part) if isinstance(part, tuple) else part for part in (means, strength, dof)]
    matrix = ONES(scatter) if isinstance(scatter, tuple) else scatter
    return NormalWishart(*parts, matrix)


def parameters_of(means=(K, D), factor=(K, D, D), log_det=(K,), slack=(K,)):
    return Gaussians(ONES(means), ONES(factor), ONES(log_det), ONES(slack))


PARAMETERS, STATIONARY = _kernels.parameters, _kernels.stationary


def rows_of(n=2, weights=None, values=None):
    rows = _kernels.loop.Rows([X] * n if values is None else values, weights)
    frame = ZEROS((n, D)), ONES((n, D)), ONES((n, D))
    rows.set_frames(*frame)
    return rows


# Numbers that are kept of a draw.
KEPT = K + 2 * K * D


def loop_models(covariance_type="diag", k=K, d=D, prior=None):
    size = vbfast.Model(vbfast.Mixture(K), vbfast.Gaussian(D, "diag")).layout.size
    prior = ONES((1, size)) if prior is None else prior
    return Mixtures(covariance_type, k, True, prior, reg_covar=1e-6)


HOW = {"kmeans_sweeps": 3, "kmeans_tol": 1e-4, "spread": 0.1}


def begin(rows=None, models=None, init="random", seeds=None, posterior=None, n_threads=1, how=HOW):
    models = models or loop_models()
    posterior = ONES((2, models.prior.shape[1])) if posterior is None else posterior
    seeds = np.zeros(2, dtype=np.uint64) if seeds is None else seeds
    _kernels.loop.begin_all(rows or rows_of(), models, init, seeds, posterior, n_threads, **how)


def loop(rows=None, models=None, read="mode", assignment=EXACT, n_sweeps=2, n_threads=1, **changes):
    models = models or loop_models()
    n = 2
    thin = changes.get("thin", 0)
    kept = n_sweeps // thin if thin > 0 else 1
    arguments = {
        "state": np.zeros((n, 4), dtype=np.int64),
        "theta": ZEROS((n, max(kept, 0), KEPT)),
    }
    posterior = changes.pop("posterior", None)
    posterior = ONES((n, models.prior.shape[1])) if posterior is None else posterior
    _kernels.loop.run(
        rows or rows_of(), models, read, assignment, posterior, n_sweeps, n_threads,
        **(arguments | changes),
    )  # fmt: skip


SAMPLE = {"read": "sample", "assignment": Assignment("draw")}
SEEDS = np.zeros(2, dtype=np.uint64)
THINNED = {
    **SAMPLE,
    "seeds": SEEDS,
    "thin": 1,
    "best": ONES(KEPT),
    "common": ZEROS((2, 2)),
    "terms": ZEROS((2, 2, K * K)),
}


def choose(columns=(D, N), weights=(N,), candidates=(4, D), nearest=(N,)):
    shapes = columns, weights, candidates, nearest
    return _kernels.seeds.choose(*(part and ONES(part) for part in shapes))


def factors(matrices=(K, D, D), scale=(K,), room=(D + 1, D), out=(K, D, D)):
    parts = [part and ONES(part) for part in (matrices, scale)]
    parts += [0.0, *(part and ONES(part) for part in (room, out))]
    return _kernels.triangle.precision_factors(*parts)


def pivoted(matrix=(D, D), pivots=D, room=2 * D):
    matrix = np.asfortranarray(ONES(matrix))
    return _kernels.triangle.pivoted_cholesky(matrix, ZEROS(pivots).astype(np.int32), ONES(room))


def edited(part, **attributes):
    """A copy of a frozen part with attributes that its constructor would refuse."""
    part = copy.copy(part)
    for name, value in attributes.items():
        object.__setattr__(part, name, value)
    return pickle.loads(pickle.dumps(part))


ROWS_2D = "values must be two-dimensional float64 or float32"
COEFFICIENTS = theta_of().coefficients
OFFSETS = theta_of().offsets
PLACES = ((0, K, K + K * D), (K, D), (K, D, D))
SIZE = K + K * D + K * D * D

CASES = {
    # Sizes that methods and blocks tell.
    "truncation -1": (
        lambda: mixture(assignment=Assignment("best", -1)),
        ValueError, "truncation is -1", ">= 1",
    ),
    "truncation 0": (
        lambda: mixture(assignment=Assignment("best", 0)), ValueError, "truncation is 0", ">= 1",
    ),
    "no threads": (lambda: mixture(block(n_threads=0)), ValueError, "n_threads is 0", ">= 1"),
    "threads below 0": (lambda: mixture(block(n_threads=-3)), ValueError, "n_threads is -3"),
    "threads of a word": (lambda: mixture(block(n_threads="2")), TypeError),
    "no threads, chain": (lambda: chain(block(n_threads=0)), ValueError, "n_threads is 0"),
    "no threads, coupled": (lambda: coupled(block(n_threads=0)), ValueError, "n_threads is 0"),
    "threads below 0, coupled": (lambda: coupled(block(n_threads=-1)), ValueError, "n_threads"),
    "no threads, loop": (lambda: loop(n_threads=0), ValueError, "n_threads is 0"),
    "no threads, begin": (lambda: begin(n_threads=-1), ValueError, "n_threads is -1"),
    "no threads, frames": (
        lambda: rows_of().find_frames(False, 0), ValueError, "n_threads is 0",
    ),
    "no threads, ranges": (
        lambda: _kernels.columns.ranges(X, None, 0), ValueError, "n_threads is 0",
    ),
    "no threads, finite": (
        lambda: _kernels.columns.first_not_finite(X, -1), ValueError, "n_threads is -1",
    ),
    "no threads, moments": (
        lambda: _kernels.columns.moments(X, None, ZEROS(D), ONES(D), 0), ValueError, "n_threads",
    ),
    "first row below 0": (lambda: mixture(block(first_row=-1)), ValueError, "first_row is -1"),
    "first row below 0, chain": (
        lambda: chain(block(first_row=-1)), ValueError, "first_row is -1",
    ),
    "first row below 0, coupled": (
        lambda: coupled(block(first_row=-1)), ValueError, "first_row is -1",
    ),
    # Rows of a mixture.
    "labels None": (lambda: mixture(assignment=GIVEN), ValueError, "labels", "None"),
    "labels None, chain": (lambda: chain(assignment=GIVEN), ValueError, "labels"),
    "labels float": (
        lambda: mixture(block(labels=ZEROS(N)), assignment=GIVEN), TypeError, "labels", "int64",
    ),
    "labels short": (
        lambda: mixture(block(labels=np.zeros(3, int)), assignment=GIVEN), ValueError, "labels",
    ),
    "label K": (
        lambda: mixture(block(labels=np.arange(N) // 10), assignment=GIVEN),
        ValueError, "labels[30] is 3", "< 3",
    ),
    "label -1": (
        lambda: mixture(block(labels=-np.ones(N, int)), assignment=GIVEN),
        ValueError, "labels[0] is -1",
    ),
    "kind unknown": (lambda: mixture(assignment=Assignment("no")), ValueError, "'no'"),
    "kind of a chain": (lambda: mixture(assignment=Assignment("filter")), ValueError, "'filter'"),
    "kind no word": (lambda: mixture(assignment=Assignment(3)), ValueError, "not 3"),
    "emission unknown": (lambda: mixture(theta=with_theta(emission="x")), ValueError, "'x'"),
    "emission None": (lambda: mixture(theta=with_theta(emission=None)), ValueError, "None"),
    "offsets (0, 2)": (
        lambda: mixture(theta=with_theta(offsets=ZEROS((0, 2)))), ValueError, "offsets", "(0, 2)",
    ),
    "offsets (2, 0)": (
        lambda: mixture(theta=with_theta(offsets=ZEROS((2, 0)))), ValueError, "n_components is 0",
    ),
    "offsets 3-D": (
        lambda: mixture(theta=with_theta(offsets=ZEROS((1, 1, K)))), ValueError, "offsets",
    ),
    "offsets 0-D": (
        lambda: mixture(theta=with_theta(offsets=ZEROS(()))), ValueError, "offsets",
    ),
    "offsets empty": (
        lambda: mixture(theta=with_theta(offsets=ZEROS(0))), ValueError, "n_components is 0",
    ),
    "offsets None": (lambda: mixture(theta=with_theta(offsets=None)), TypeError, "offsets", "None"),
    "offsets swapped": (
        lambda: mixture(theta=with_theta(offsets=of_format(OFFSETS, ">f8"))), TypeError, "offsets",
    ),
    "offsets strided": (
        lambda: mixture(theta=with_theta(offsets=np.repeat(OFFSETS, 2)[::2])), TypeError, "offsets",
    ),
    "coefficients empty": (
        lambda: mixture(theta=with_theta(coefficients=ZEROS(0))), ValueError, "coefficients",
    ),
    "coefficients, of no rows": (
        lambda: mixture(block(**empty_rows()), with_theta(coefficients=ZEROS(0))),
        ValueError, "coefficients",
    ),
    "coefficients pickled": (
        lambda: mixture(theta=edited(theta_of(), coefficients=ZEROS(1), offsets=ZEROS((0, 2)))),
        ValueError, "offsets",
    ),
    "coefficients short": (
        lambda: mixture(theta=with_theta(coefficients=COEFFICIENTS[:-1].copy())),
        ValueError, "coefficients",
    ),
    "coefficients float32": (
        lambda: mixture(theta=with_theta(coefficients=of_format(COEFFICIENTS, "f4"))),
        TypeError, "coefficients",
    ),
    "no categories": (
        lambda: mixture(block(values=COUNTS), with_theta("categorical", n_categories=0)),
        ValueError, "n_categories is 0",
    ),
    "categories below 0": (
        lambda: mixture(block(values=COUNTS), with_theta("categorical", n_categories=-1)),
        ValueError, "n_categories is -1",
    ),
    "categories huge": (
        lambda: mixture(block(values=COUNTS), with_theta("categorical", n_categories=2**62)),
        MemoryError, "n_categories=4611686018427387904",
    ),
    "categories huge, no coefficients": (
        lambda: mixture(
            block(values=COUNTS),
            with_theta("categorical", n_categories=2**61, coefficients=ZEROS(0)),
        ),
        MemoryError, "n_categories",
    ),
    "categories more": (
        lambda: mixture(block(values=COUNTS), with_theta("categorical", n_categories=13)),
        ValueError, "coefficients",
    ),
    "categories more, chain": (
        lambda: chain(block(values=COUNTS), emission="categorical", n_categories=2**62),
        MemoryError, "n_categories",
    ),
    "no size": (
        lambda: _kernels.mixture.statistics_size("full", 0, 2), ValueError, "n_components is 0",
    ),
    "size below 0": (
        lambda: _kernels.mixture.statistics_size("full", 2, -2), ValueError, "n_features is -2",
    ),
    "size overflows": (
        lambda: _kernels.mixture.statistics_size("full", 2**40, 2**40), MemoryError, "no memory",
    ),
    "size overflows, chain": (
        lambda: _kernels.chain.statistics_size("diag", 2**40, 1), MemoryError, "no memory",
    ),
    "size overflows, coupled": (
        lambda: _kernels.factorial.statistics_size(2**31, 2**31, 1), MemoryError, "no memory",
    ),
    "no size, coupled": (
        lambda: _kernels.factorial.statistics_size(1, 0, 1), ValueError, "n_components is 0",
    ),
    "rows 1-D": (lambda: mixture(block(values=X[0])), TypeError, ROWS_2D),
    "rows 3-D": (lambda: mixture(block(values=X[None])), TypeError, ROWS_2D),
    "rows None": (lambda: mixture(block(values=None)), TypeError, "values", "None"),
    "rows of a list": (lambda: mixture(block(values=[[1.0, 2.0]])), TypeError, "values"),
    "rows swapped": (lambda: mixture(block(values=of_format(X, ">f8"))), TypeError, ROWS_2D),
    "rows int": (lambda: mixture(block(values=X.astype(int))), TypeError, ROWS_2D),
    "rows complex": (lambda: mixture(block(values=X.astype(complex))), TypeError, ROWS_2D),
    "rows of records": (
        lambda: mixture(block(values=ZEROS((N, D), dtype=[("d", "f8"), ("f", "f8")]))),
        TypeError, ROWS_2D,
    ),
    "rows unaligned": (
        lambda: mixture(
            block(values=np.frombuffer(bytes(8 * N * D + 1), offset=1).reshape(N, D))
        ),
        TypeError, ROWS_2D,
    ),
    "rows wider": (lambda: mixture(block(values=ZEROS((N, 5)))), ValueError, "a row of values"),
    "no features": (
        lambda: mixture(block(values=ZEROS((N, 0)), origin=ZEROS(0), scale=ZEROS(0))),
        ValueError, "n_features is 0",
    ),
    "origin None": (lambda: mixture(block(origin=None)), TypeError, "origin", "None"),
    "scale None": (lambda: mixture(block(scale=None)), TypeError, "scale", "None"),
    "scale short": (lambda: mixture(block(scale=ONES(1))), ValueError, "scale has length 1"),
    "weights short": (lambda: mixture(block(weights=ONES(3))), ValueError, "weights"),
    "weights float32": (lambda: mixture(block(weights=ONES(N, "f4"))), TypeError, "weights"),
    "weights strided": (lambda: mixture(block(weights=ONES(2 * N)[::2])), TypeError, "weights"),
    "statistics short": (lambda: mixture(statistics=ZEROS(3)), ValueError, "statistics"),
    "statistics read-only": (
        lambda: mixture(statistics=read_only(ZEROS(1 + K + 2 * K * 4))), TypeError, "statistics",
        "written",
    ),
    "log_z short": (lambda: mixture(log_z=ZEROS(N - 1)), ValueError, "log_z"),
    "labels out short": (
        lambda: mixture(assignment=Assignment("hard"), labels=np.zeros(N - 1, int)),
        ValueError, "labels",
    ),
    "q short": (lambda: mixture(q=ZEROS((N - 1, K))), ValueError, "q has shape"),
    "q narrow": (lambda: mixture(q=ZEROS((N, K - 1))), ValueError, "q has shape"),
    "q read-only": (lambda: mixture(q=read_only(ZEROS((N, K)))), TypeError, "q", "written"),
    "single: truncation": (
        lambda: mixture(
            kernel=_kernels.mixture_single, assignment=Assignment("best", 0)
        ),
        ValueError, "truncation is 0",
    ),
    # Coupled chains.
    "coupled rows 1-D": (lambda: coupled(block(values=X[:, 0])), TypeError, ROWS_2D),
    "coupled rows swapped": (
        lambda: coupled(block(values=of_format(X, ">f8"))), TypeError, ROWS_2D,
    ),
    "coupled rows wide": (lambda: coupled(block(values=ZEROS((N, 3)))), ValueError, "a row of val"),
    "coupled no state": (
        lambda: coupled(
            theta=coupled_theta(
                log_start=ZEROS((M, 0)), log_transition=ZEROS((M, 0, 0)), means=ZEROS((0, D))
            )
        ),
        ValueError, "n_components is 0",
    ),
    "coupled no chain": (
        lambda: coupled(
            theta=coupled_theta(
                log_start=ZEROS((0, K)), log_transition=ZEROS((0, K, K)), means=ZEROS((0, D))
            ),
            kind="exact",
        ),
        ValueError, "n_chains is 0",
    ),
    "coupled no features": (
        lambda: coupled(
            block(values=ZEROS((N, 0)), origin=ZEROS(0), scale=ZEROS(0)),
            coupled_theta(whitening=ZEROS((0, 0)), means=ZEROS((M * K, 0))),
        ),
        ValueError, "n_features is 0",
    ),
    "coupled kind": (lambda: coupled(kind="hard"), ValueError, "kind", "'hard'"),
    "coupled kind None": (lambda: coupled(kind=None), ValueError, "kind", "None"),
    "coupled start None": (
        lambda: coupled(theta=coupled_theta(log_start=None)), TypeError, "log_start", "None",
    ),
    "coupled start 1-D": (
        lambda: coupled(theta=coupled_theta(log_start=ONES(K))), ValueError, "log_start",
    ),
    "coupled means None": (lambda: coupled(theta=coupled_theta(means=None)), TypeError, "means"),
    "coupled whitening None": (
        lambda: coupled(theta=coupled_theta(whitening=None)), TypeError, "whitening",
    ),
    "coupled transition": (
        lambda: coupled(theta=coupled_theta(log_transition=ZEROS((M, K, K + 1)))),
        ValueError, "log_transition", "(2, 3, 3)",
    ),
    "coupled means few": (
        lambda: coupled(theta=coupled_theta(means=ZEROS((M * K - 1, D)))), ValueError, "means",
    ),
    "coupled means narrow": (
        lambda: coupled(theta=coupled_theta(means=ZEROS((M * K, D - 1)))), ValueError, "means",
    ),
    "coupled whitening": (
        lambda: coupled(theta=coupled_theta(whitening=np.eye(3))), ValueError, "whitening",
    ),
    "coupled means swapped": (
        lambda: coupled(theta=coupled_theta(means=ZEROS((M * K, D), ">f8"))), TypeError, "means",
    ),
    "coupled origin None": (lambda: coupled(block(origin=None)), TypeError, "origin"),
    "coupled scale": (lambda: coupled(block(scale=ONES(7))), ValueError, "scale"),
    "coupled memory narrow": (lambda: coupled(memory=ZEROS((N, 2))), ValueError, "memory"),
    "coupled memory short": (lambda: coupled(memory=ZEROS((3, M * K))), ValueError, "memory"),
    "coupled memory of no blocks": (
        lambda: coupled(kind="blocks", memory=ZEROS((N, M * K))), ValueError, "memory has shape",
    ),
    "coupled memory of blocks too narrow": (
        lambda: coupled(kind="blocks_best", memory=ZEROS((N, M * K + M))), ValueError, "memory",
    ),
    "coupled blocks of no states": (
        lambda: coupled(kind="blocks", block_states=0), ValueError, "block_states is 0",
    ),
    "coupled trials below 0": (
        lambda: coupled(kind="blocks", n_trials=-1), ValueError, "n_trials is -1",
    ),
    "coupled memory 1-D": (lambda: coupled(memory=ZEROS(N * M * K)), ValueError, "memory"),
    "coupled memory read-only": (
        lambda: coupled(memory=read_only(ZEROS((N, M * K)))), TypeError, "memory", "written",
    ),
    "coupled memory float32": (
        lambda: coupled(memory=ZEROS((N, M * K), "f4")), TypeError, "memory",
    ),
    "coupled statistics": (lambda: coupled(size=5), ValueError, "statistics"),
    "coupled statistics None": (lambda: coupled(statistics=None), TypeError, "statistics"),
    "coupled states": (
        lambda: coupled(
            theta=coupled_theta(
                60, 2, log_start=ONES((60, 2)), log_transition=ONES((60, 2, 2)),
                means=ZEROS((120, D)),
            ),
            kind="exact",
        ),
        MemoryError, "states",
    ),
    # Sums, and their layouts.
    "mean 1-D": (lambda: add(mean=(K,)), ValueError, "mean", "(3,)"),
    "mean 3-D": (lambda: add(mean=(K, D, 1)), ValueError, "mean"),
    "scatter 4-D": (lambda: add(scatter=(K, D, D, 1)), ValueError, "scatter"),
    "scatter 1-D": (lambda: add(scatter=(K,)), ValueError, "scatter"),
    "scatter other": (lambda: add(scatter=(K, D, D + 1)), ValueError, "scatter"),
    "strength short": (lambda: add(strength=(K - 1,)), ValueError),
    "mean empty": (lambda: add(mean=(0, 0), scatter=(0, 0, 0), strength=(0,)), ValueError),
    "a place below 0": (
        lambda: PARAMETERS.add(ONES(SIZE), ONES(SIZE), ONES(SIZE), (-9, K, 9), *PLACES[1:]),
        ValueError, "places",
    ),
    "a place far": (
        lambda: PARAMETERS.add(ONES(SIZE), ONES(SIZE), ONES(SIZE), (0, 2**63 - 1, 9), *PLACES[1:]),
        ValueError, "places",
    ),
    "places two": (
        lambda: PARAMETERS.add(ONES(SIZE), ONES(SIZE), ONES(SIZE), (0, K), *PLACES[1:]),
        ValueError,
    ),
    "places None": (
        lambda: PARAMETERS.add(ONES(SIZE), ONES(SIZE), ONES(SIZE), None, *PLACES[1:]),
        TypeError,
    ),
    "shapes None": (
        lambda: PARAMETERS.add(ONES(SIZE), ONES(SIZE), ONES(SIZE), PLACES[0], None, None),
        TypeError,
    ),
    "sum read-only": (
        lambda: PARAMETERS.add(ONES(SIZE), ONES(SIZE), read_only(ONES(SIZE)), *PLACES),
        TypeError, "out", "written",
    ),
    "a buffer of bytes": (
        lambda: Stats(model().layout, bytes(10)) + Stats(model().layout, bytes(10)), TypeError,
    ),
    "a buffer short": (
        lambda: Stats(model().layout, ONES(4)) + Stats(model().layout, ONES(4)), ValueError,
    ),
    "a field below 0": (
        lambda: PARAMETERS.joined({"a": (-4, -2, (2,))}, 4, {"a": ONES(2)}), ValueError, "'a'",
    ),
    "a field beyond": (
        lambda: PARAMETERS.joined({"a": (3, 5, (2,))}, 4, {"a": ONES(2)}), ValueError, "'a'",
    ),
    "a field of other size": (
        lambda: PARAMETERS.joined({"a": (0, 4, (2,))}, 4, {"a": ONES(2)}), ValueError, "'a'",
    ),
    "fields None": (lambda: PARAMETERS.joined(None, 4, {"a": ONES(2)}), TypeError),
    # Stationary chains.
    "no state": (lambda: STATIONARY.stationary(ZEROS((0, 0))), ValueError, "n_components is 0"),
    "no state to begin with": (
        lambda: STATIONARY.highest(ZEROS(0), *[ZEROS((0, 0))] * 3),
        ValueError, "n_components is 0",
    ),
    "transitions not square": (
        lambda: STATIONARY.stationary(ONES((K, D))), ValueError, "transitions",
    ),
    "transitions 1-D": (lambda: STATIONARY.stationary(ONES(K)), ValueError, "transitions"),
    "transitions of float32": (
        lambda: STATIONARY.stationary(ONES((K, K)).astype(np.float32)), TypeError, "transitions",
    ),
    "begin not square": (
        lambda: STATIONARY.highest(ONES(K), ONES((K, K)), ONES((K, D)), ONES((K, K))),
        ValueError, "begin",
    ),
    "other not square": (
        lambda: STATIONARY.highest(ONES(K), ONES((K, K)), ONES((K, K)), ONES((K, D))),
        ValueError, "other",
    ),
    "moves of other states": (
        lambda: STATIONARY.highest(ONES(K), ONES((K, D)), ONES((K, K)), ONES((K, K))),
        ValueError, "moves",
    ),
    "first of other states": (
        lambda: STATIONARY.highest(ONES(K + 1), *[ONES((K, K))] * 3), ValueError, "first",
    ),
    # Distributions over parameters.
    "means 1-D": (lambda: distribution(means=(K,)).mode(), ValueError, "means", "(3,)"),
    "means 0-D": (lambda: distribution(means=()).mode(), ValueError, "means"),
    "means 3-D": (lambda: distribution(means=(K, D, 1)).mode(), ValueError, "means"),
    "means empty": (
        lambda: distribution((0, D), (0,), (0,), (0, D, D)).mode(), ValueError, "n_components is 0",
    ),
    "means of no feature": (
        lambda: distribution((K, 0), (K,), (K,), (K, 0, 0)).mode(), ValueError, "n_features is 0",
    ),
    "scatter 1-D of q": (lambda: distribution(scatter=(K,)).mode(), ValueError, "scatter"),
    "scatter 0-D of q": (lambda: distribution(scatter=()).mode(), ValueError, "scatter"),
    "scatter of other features": (
        lambda: distribution(scatter=(K, 1, 4)).mean(), ValueError, "scatter",
    ),
    "scatter None": (lambda: PARAMETERS.mode(distribution(scatter=None)), TypeError, "scatter"),
    "strength 1": (lambda: distribution(strength=(1,)).mode(), ValueError, "strength"),
    "dof none": (lambda: distribution(dof=(0,)).mode(), ValueError, "dof"),
    "exponent": (lambda: PARAMETERS.exponent(distribution(means=(K,))), ValueError, "means"),
    "proper": (lambda: PARAMETERS.proper(distribution(scatter=(K,))), ValueError, "scatter"),
    "normaliser": (
        lambda: PARAMETERS.log_normalizer(distribution(scatter=(K, 3))), ValueError, "scatter",
    ),
    "density": (
        lambda: PARAMETERS.log_density(distribution(), parameters_of(factor=(1, D, D))),
        ValueError, "factor",
    ),
    "divergence": (
        lambda: PARAMETERS.divergence(
            distribution(), distribution((K + 1, D), (K + 1,), (K + 1,), (K + 1, D, D)),
            parameters_of(),
        ),
        ValueError, "not of one shape",
    ),
    "terms": (
        lambda: PARAMETERS.density_terms(distribution(), parameters_of(means=(1, D))),
        ValueError, "means",
    ),
    "logarithms None": (lambda: PARAMETERS.logarithms(None), TypeError, "weights"),
    "weights' mode": (lambda: PARAMETERS.dirichlet_mode(None, 0.0), TypeError, "concentration"),
    "weights' mode of float32": (
        lambda: PARAMETERS.dirichlet_mode(ONES(3, "f4"), 0.0), TypeError, "concentration",
    ),
    "no weights": (lambda: PARAMETERS.dirichlet_mean(ONES(()), 0.0), ValueError, "concentration"),
    "weights of none": (
        lambda: PARAMETERS.dirichlet_mean_log(ONES((K, 0)), 0.0), ValueError, "concentration",
    ),
    "weights drawn": (
        lambda: PARAMETERS.dirichlet_sample(ONES((0, K)), 0.0, 1), ValueError, "concentration",
    ),
    "density of other weights": (
        lambda: PARAMETERS.dirichlet_log_density(ONES(K), 0.0, ONES(K + 1)),
        ValueError, "logarithms",
    ),
    "other prior of weights": (
        lambda: PARAMETERS.dirichlet_kl(ONES(K), ONES(K + 1), 0.0), ValueError, "prior",
    ),
    "table 2-D": (lambda: PARAMETERS.table_mode(ONES((K, D))), ValueError, "excess"),
    "table of none": (lambda: PARAMETERS.table_mode(ONES((K, 0, 2))), ValueError, "excess"),
    "terms of other tables": (
        lambda: PARAMETERS.table_terms(ONES((K, D, 2)), ONES((K, D, 3))), ValueError, "logarithms",
    ),
    "rates 1-D": (lambda: PARAMETERS.rate_mode(ONES(K), ONES(K), 0.0), ValueError, "excess"),
    "rates None": (lambda: PARAMETERS.rate_mean(None, ONES((K, D))), TypeError, "excess"),
    "rates short": (
        lambda: PARAMETERS.rate_sample(ONES((K, D)), ONES(K), 1), ValueError, "rate",
    ),
    "density of other rates": (
        lambda: PARAMETERS.rate_log_density(ONES((K, D)), ONES((K, D)), ONES(K)),
        ValueError, "logarithms",
    ),
    "offsets of no rates": (
        lambda: PARAMETERS.rate_offsets("categorical", ONES((K, D, 2))), ValueError, "of rates",
    ),
    "offsets of tables": (
        lambda: PARAMETERS.rate_offsets("exponential", ONES((K, D, 2))), ValueError, "2 symbols",
    ),
    "offsets 1-D": (
        lambda: PARAMETERS.rate_offsets("poisson", ONES(K)), ValueError, "parameters",
    ),
    "rounding of waits 1-D": (
        lambda: PARAMETERS.wait_rounding(ONES(K)), ValueError, "log_rates",
    ),
    "waits of other rates": (
        lambda: PARAMETERS.waits_without_rate(ONES((K, D)), ONES(K)), ValueError, "rate",
    ),
    "terms of other rates": (
        lambda: PARAMETERS.rate_terms(ONES((K, D)), ONES((K, D)), ONES(K)),
        ValueError, "logarithms",
    ),
    "other prior of rates": (
        lambda: PARAMETERS.rate_kl(ONES((K, D)), ONES((K, D)), ONES(K), ONES((K, D))),
        ValueError, "prior",
    ),
    "coefficients of no kernel": (
        lambda: PARAMETERS.discrete_coefficients("full", ONES((K, D))), ValueError, "'full'",
    ),
    "coefficients 1-D": (
        lambda: PARAMETERS.discrete_coefficients("poisson", ONES(K)), ValueError, "parameters",
    ),
    "coefficients of three symbols": (
        lambda: PARAMETERS.discrete_coefficients("bernoulli", ONES((K, D, 3))),
        ValueError, "3 symbols",
    ),
    "coefficients of no symbols": (
        lambda: PARAMETERS.discrete_coefficients("categorical", ONES((K, D))),
        ValueError, "0 symbols",
    ),
    "sums short": (
        lambda: PARAMETERS.discrete_statistics("poisson", ONES(3), (K, D)), ValueError, "raw",
    ),
    "sums of symbols": (
        lambda: PARAMETERS.discrete_statistics("poisson", ONES(24), (K, D, 2)),
        ValueError, "2 symbols",
    ),
    "tallies of nothing": (
        lambda: PARAMETERS.discrete_statistics("categorical", ONES(24), (K,)),
        ValueError, "parameters",
    ),
    "about 1-D": (lambda: model().about(ZEROS(K)), ValueError, "means"),
    "about other": (lambda: model().about(ZEROS((K, D + 1))), ValueError),
    "about more": (lambda: model().about(ZEROS((K + 1, D))), ValueError, "means"),
    "reference 1-D": (
        lambda: PARAMETERS.reference("full", parameters_of(means=(K,))), ValueError, "means",
    ),
    "reference kernel": (
        lambda: PARAMETERS.reference("poisson", parameters_of()), ValueError, "'poisson'",
    ),
    "coefficients reference": (
        lambda: PARAMETERS.coefficients("full", parameters_of(), ZEROS((1, D))),
        ValueError, "reference",
    ),
    "coefficients factor": (
        lambda: PARAMETERS.coefficients("full", parameters_of(factor=(K, D)), ZEROS((K, D))),
        ValueError, "factor",
    ),
    "coefficients overflow": (
        lambda: PARAMETERS.coefficients(
            "full", parameters_of((2, 2**16), (0,)), ZEROS((2, 2**16))
        ),
        ValueError, "factor",
    ),
    "coefficients kernel": (
        lambda: PARAMETERS.coefficients(None, parameters_of(), ZEROS((K, D))), ValueError, "None",
    ),
    "offsets variance": (
        lambda: PARAMETERS.offsets("full", parameters_of(), 0.0, 0.0, ZEROS(7)),
        ValueError, "variance",
    ),
    "offsets slack": (
        lambda: PARAMETERS.offsets("full", parameters_of(slack=(1,)), 0.0, 0.0, ONES(D)),
        ValueError, "slack",
    ),
    "collect raw": (
        lambda: PARAMETERS.collect("full", ZEROS(3), ONES(K), ZEROS((K, D)), 0.0, ONES(D)),
        ValueError, "raw",
    ),
    "collect reference": (
        lambda: PARAMETERS.collect("full", ZEROS(3), ONES(K), ZEROS(K), 0.0, ONES(D)),
        ValueError, "reference",
    ),
    "collect counts": (
        lambda: PARAMETERS.collect(
            "diag", ZEROS(40), ONES(1), ZEROS((K, D)), 0.0, ONES(D)
        ),
        ValueError, "counts",
    ),
    # The compiled loop.
    "loop rows None": (
        lambda: _kernels.loop.begin_all(
            None, loop_models(), "random", SEEDS, ONES((2, 9)), 1, **HOW
        ),
        TypeError, "rows",
    ),
    "loop row None": (lambda: _kernels.loop.Rows([None]), TypeError, "values"),
    "loop rows of none": (lambda: _kernels.loop.Rows([ZEROS((0, D))]), ValueError, "row"),
    "loop rows of no feature": (lambda: _kernels.loop.Rows([ZEROS((N, 0))]), ValueError, "feature"),
    "loop rows 1-D": (lambda: _kernels.loop.Rows([X[:, 0]]), TypeError, ROWS_2D),
    "loop rows apart": (lambda: _kernels.loop.Rows([X, X[:, :1]]), ValueError, "a row of values"),
    "loop weights few": (lambda: _kernels.loop.Rows([X, X], [ONES(N)]), ValueError, "weights"),
    "loop weights short": (lambda: _kernels.loop.Rows([X], [ONES(3)]), ValueError, "weights"),
    "loop weights records": (
        lambda: _kernels.loop.Rows([X], [ZEROS(N, dtype="c16")]), TypeError, "weights",
    ),
    "loop weights None": (lambda: _kernels.loop.Rows([X], [None]), TypeError, "weights"),
    "loop no frames": (lambda: begin(_kernels.loop.Rows([X, X])), ValueError, "frames"),
    "loop frames short": (
        lambda: rows_of().set_frames(ZEROS((1, D)), ONES((2, D)), ONES((2, D))),
        ValueError, "origin",
    ),
    "loop frames None": (
        lambda: rows_of().set_frames(None, ONES((2, D)), ONES((2, D))), TypeError, "origin",
    ),
    "loop models": (lambda: loop(models=loop_models("x")), ValueError, "'x'"),
    "loop models of none": (lambda: loop(models=loop_models(k=0)), ValueError, "n_components is 0"),
    "loop models of many": (lambda: loop(models=loop_models(k=2**62)), MemoryError, "no memory"),
    "loop prior None": (
        lambda: loop(models=replace(loop_models(), prior=None), posterior=ONES((2, 9))),
        TypeError, "prior",
    ),
    "loop prior short": (lambda: loop(models=loop_models(prior=ONES((1, 3)))), ValueError, "prior"),
    "loop prior empty": (lambda: loop(models=loop_models(prior=ONES((0, 9)))), ValueError, "prior"),
    "loop read": (lambda: loop(read="x"), ValueError, "read", "'x'"),
    "loop kind": (lambda: loop(assignment=GIVEN), ValueError, "'given'"),
    "loop truncation": (lambda: loop(assignment=Assignment("best", 0)), ValueError, "truncation"),
    "loop draws": (lambda: loop(assignment=Assignment("draw")), ValueError, "'draw'"),
    "loop no sweep": (lambda: loop(n_sweeps=0), ValueError, "n_sweeps is 0"),
    "loop thin below 0": (lambda: loop(**(THINNED | {"thin": -1})), ValueError, "thin is -1"),
    "loop posterior": (lambda: loop(posterior=ONES((2, 3))), ValueError, "posterior"),
    "loop posterior None": (
        lambda: _kernels.loop.begin_all(rows_of(), loop_models(), "random", SEEDS, None, 1, **HOW),
        TypeError, "posterior",
    ),
    "loop posterior read-only": (
        lambda: loop(posterior=read_only(ONES((2, loop_models().prior.shape[1])))),
        ValueError, "read-only",
    ),
    "loop state None": (lambda: loop(state=None), TypeError, "state"),
    "loop state": (lambda: loop(state=np.zeros((2, 3), int)), ValueError, "state"),
    "loop theta None": (lambda: loop(theta=None), TypeError, "theta"),
    "loop theta": (lambda: loop(theta=ZEROS((2, 1, 1))), ValueError, "theta"),
    "loop constant": (lambda: loop(constant=ONES(3)), ValueError, "constant"),
    "loop rate None": (
        lambda: loop(models=Mixtures("poisson", K, True, ONES((1, 1 + 2 * K + K * D)))),
        TypeError, "rate",
    ),
    "loop rate": (
        lambda: loop(
            models=Mixtures(
                "poisson", K, True, ONES((1, 1 + 2 * K + K * D)), rate=ONES((1, D + 1))
            )
        ),
        ValueError, "rate",
    ),
    "loop no symbols": (
        lambda: loop(models=Mixtures("categorical", K, True, ONES((1, 9)))),
        ValueError, "n_categories",
    ),
    "loop seeds None": (lambda: loop(**SAMPLE), TypeError, "seeds"),
    "loop seeds": (lambda: loop(**SAMPLE, seeds=SEEDS[:1]), ValueError, "seeds"),
    "loop best None": (lambda: loop(**(THINNED | {"best": None})), TypeError, "best"),
    "loop best short": (
        lambda: loop(**(THINNED | {"best": ONES(1)})), ValueError, "best",
    ),
    "loop common None": (lambda: loop(**(THINNED | {"common": None})), TypeError, "common"),
    "loop terms None": (lambda: loop(**(THINNED | {"terms": None})), TypeError, "terms"),
    "loop terms": (lambda: loop(**(THINNED | {"terms": ZEROS((2, 2, 1))})), ValueError, "terms"),
    "loop init": (lambda: begin(init="x"), ValueError, "init", "'x'"),
    "loop sweeps of k-means": (
        lambda: begin(how=HOW | {"kmeans_sweeps": -1}), ValueError, "kmeans_sweeps is -1",
    ),
    "loop init None": (lambda: begin(init=None), ValueError, "init", "None"),
    "loop begin seeds": (lambda: begin(seeds=SEEDS[:1]), ValueError, "seeds"),
    # Starts, factors, columns.
    "columns None": (lambda: choose(columns=None), TypeError, "columns"),
    "nearest None": (lambda: choose(nearest=None), TypeError, "nearest"),
    "candidates wide": (lambda: choose(candidates=(4, 5)), ValueError, "candidates"),
    "no candidates": (lambda: choose(candidates=(0, D)), ValueError, "candidate"),
    "weights of seeds": (lambda: choose(weights=(1,)), ValueError, "weight"),
    "matrices None": (lambda: factors(matrices=None), TypeError, "matrices"),
    "room None": (lambda: factors(room=None), TypeError, "room"),
    "matrices other": (lambda: factors(matrices=(K, D, D + 1)), ValueError, "go together"),
    "room short": (lambda: factors(room=(D, D)), ValueError, "go together"),
    "pivoted matrix other": (lambda: pivoted((D, D + 1)), ValueError, "go together"),
    "pivots short": (lambda: pivoted(pivots=D - 1), ValueError, "go together"),
    "pivoted room short": (lambda: pivoted(room=D), ValueError, "go together"),
    "columns of 1-D": (lambda: _kernels.columns.ranges(X[0], None, 1), TypeError, ROWS_2D),
    "columns of None": (lambda: _kernels.columns.ranges(None, None, 1), TypeError, "values"),
    "columns of int": (
        lambda: _kernels.columns.first_not_finite(X.astype(int), 1), TypeError, ROWS_2D,
    ),
    "columns of bytes": (
        lambda: _kernels.columns.first_not_finite(b"123", 1), TypeError, ROWS_2D,
    ),
    "columns swapped": (
        lambda: _kernels.columns.ranges(of_format(X, ">f8"), None, 1), TypeError, ROWS_2D,
    ),
    "columns of no rows": (
        lambda: _kernels.columns.ranges(ZEROS((0, 2)), None, 1), ValueError, "row",
    ),
    "columns of no features": (
        lambda: _kernels.columns.ranges(ZEROS((3, 0)), None, 1), ValueError, "feature",
    ),
    "no rows are finite": (
        lambda: _kernels.columns.moments(ZEROS((0, 2)), None, ONES(2), ONES(2), 1),
        ValueError, "row",
    ),
    "columns' weights": (
        lambda: _kernels.columns.ranges(X, ONES(3), 1), ValueError, "weights has length 3",
    ),
    "columns' weights none": (
        lambda: _kernels.columns.ranges(X, ONES(0), 1), ValueError, "weights has length 0",
    ),
    "moments' weights": (
        lambda: _kernels.columns.moments(X, ONES(3), ZEROS(D), ONES(D), 1), ValueError, "weights",
    ),
    "moments' origin": (
        lambda: _kernels.columns.moments(X, None, ZEROS(1), ONES(D), 1), ValueError, "origin",
    ),
    "moments' scale": (
        lambda: _kernels.columns.moments(X, None, ZEROS(D), ONES(1), 1), ValueError, "scale",
    ),
    "moments' scale None": (
        lambda: _kernels.columns.moments(X, None, ZEROS(D), None, 1), TypeError, "scale",
    ),
}  # fmt: skip

UNITS = ArrayData.of(X).frame
EMISSIONS = {
    "Gaussian": vbfast.Gaussian,
    "Poisson": vbfast.Poisson,
    "Exponential": vbfast.Exponential,
    "Bernoulli": vbfast.Bernoulli,
    "Categorical": lambda d: vbfast.Categorical(d, 3),
    "AdditiveGaussian": lambda d: vbfast.AdditiveGaussian(d, M, K),
}
PROPER = vbfast.Gaussian(
    D, mean_prior=ZEROS(D), mean_precision=1.0, degrees_of_freedom=D, scatter=np.eye(D)
)
SIZES = {0: ValueError, -1: ValueError, 1.5: TypeError, "2": TypeError, None: TypeError}


def coupled_model(m=M, k=K, frame=UNITS):
    return vbfast.Model(vbfast.CoupledChains(M, K), vbfast.AdditiveGaussian(D, m, k, frame=frame))


def coupled_point():
    """Theta of coupled chains without a frame."""
    parameters = regression(ZEROS((M * K, D)), np.eye(D))
    return coupled_model(frame=None).point(np.full((M, K + 1, K), 1 / K), parameters)


def visit_data(**changes):
    data = edited(ArrayData.of(X), **changes)
    one = model(vbfast.Gaussian(D, frame=UNITS))
    return data.sum(one.visit, one.about(ZEROS((K, D))), EXACT)


# Parts, by themselves and of whole fits.
CASES |= {
    "frame None": (lambda: ArrayData(X, None, None), TypeError, "frame must be a Frame", "None"),
    "frame of a number": (lambda: vbfast.Gaussian(D, frame=3), TypeError, "frame", "not 3"),
    "frame of a number, additive": (
        lambda: vbfast.AdditiveGaussian(D, M, K, frame=3), TypeError, "frame", "not 3",
    ),
    "frame of none": (lambda: Frame(None, None, None), TypeError, "origin of a frame", "None"),
    "frame of lists": (lambda: Frame([0.0], ONES(1), ONES(1)), TypeError, "origin of a frame"),
    "frame of two sizes": (
        lambda: Frame(ZEROS(3), ONES(2), ONES(2)), ValueError, "scale of a frame", "(2,)",
    ),
    "frame 2-D": (lambda: Frame(ZEROS((2, 1)), ONES(2), ONES(2)), ValueError, "origin of a frame"),
    "frame of another size": (
        lambda: vbfast.Gaussian(3, frame=UNITS), ValueError, "frame has 2 features, not 3",
    ),
    "chains of two sizes": (
        lambda: coupled_model(m=M + 1), ValueError, "n_chains of latent is 2, of emission 3",
    ),
    "components of two sizes": (
        lambda: coupled_model(k=K + 1), ValueError, "n_components of latent is 3, of emission 4",
    ),
    "rows edited": (lambda: visit_data(values=X[:, 0]), TypeError, ROWS_2D),
    "rows edited to None": (lambda: visit_data(values=None), TypeError, "values", "None"),
    "threads edited": (lambda: visit_data(n_threads=0), ValueError, "n_threads", "0"),
    "weights edited": (lambda: visit_data(weights=ONES(3)), ValueError, "weights has length 3"),
    "threads of a block": (
        lambda: model(vbfast.Gaussian(D)).visit(
            block(n_threads=-2), model().about(ZEROS((K, D))), EXACT
        ),
        ValueError, "n_threads is -2",
    ),
    "memory of one type": (
        lambda: coupled_model(frame=None).visit(
            block(memory=ZEROS((N, M * K), "f4")),
            coupled_point(),
            Assignment("factorised"),
        ),
        TypeError, "memory",
    ),
    "theta of a mixture for coupled chains": (
        lambda: coupled_model(frame=None).visit(block(), model().about(ZEROS((K, D))), EXACT),
        ValueError, "coupled chains take theta of 'additive', not 'full'",
    ),
    "theta of coupled chains for a mixture": (
        lambda: model().visit(block(), coupled_point(), EXACT), ValueError, "'additive'",
    ),
    "log densities of single rows of coupled chains": (
        lambda: vbfast.CoupledChains(M, K).visit(block(), coupled_point(), EXACT, log_z=ZEROS(N)),
        ValueError, "log densities of sequences",
    ),
    "more chains than memory": (
        lambda: vbfast.FactorialHMM(10**12, 2).fit(X), MemoryError, "n_chains=1000000000000",
    ),
    "more joint states than memory": (
        lambda: vbfast.CoupledChains(10**12, 2).kind(EXACT), ValueError, "2**1000000000000 joint",
    ),
    "a layout of no size": (lambda: Layout((("a", (-1,)),)).stats(), ValueError, "negative"),
    "chains of no sweep": (
        lambda: model(PROPER).chains(block(), [model().prior], [RNG], 0, 0, 0),
        ValueError, "n_sweeps",
    ),
    "chains of short statistics": (
        lambda: model(PROPER).chains(block(), [Stats(model().layout, ONES(3))], [RNG], 1, 1, 1),
        ValueError, "posterior has shape (1, 3)",
    ),
    "short statistics": (
        lambda: model().prior + pickle.loads(pickle.dumps(Stats(model().layout, ONES(2)))),
        ValueError, "shapes",
    ),
}  # fmt: skip
for name, emission in EMISSIONS.items():
    for value, error in SIZES.items():
        CASES[f"{value!r} features of {name}"] = (
            lambda emission=emission, value=value: emission(value),
            error, "n_features", repr(value),
        )  # fmt: skip
for value, error in SIZES.items():
    for name, call in {
        "n_chains": lambda value: vbfast.AdditiveGaussian(D, value, K),
        "n_components": lambda value: vbfast.AdditiveGaussian(D, M, value),
    }.items():
        CASES[f"{value!r} {name}"] = (
            lambda call=call, value=value: call(value), error, name, repr(value),
        )  # fmt: skip
for name, (told, *expected) in BAD_SEQUENCES.items():
    CASES[f"sequences of a chain: {name}"] = (
        lambda told=told: chain(block(sequences=told)), *expected,
    )  # fmt: skip
    CASES[f"sequences of coupled chains: {name}"] = (
        lambda told=told: coupled(block(sequences=told)), *expected,
    )  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_is_refused(name):
    call, error, *words = CASES[name]
    with pytest.raises(error, match=".*".join(map(re.escape, words)) or None) as raised:
        call()
    assert type(raised.value) is error


def test_a_truncation_of_more_than_there_are_components_is_all_of_them():
    """Room for what is kept of each row must not be worked out from it."""
    fits = [
        vbfast.GaussianMixture(
            3, method=vbfast.VariationalEM(truncation=truncation, max_iter=5), random_state=0
        ).fit(X)
        for truncation in (3, 4, 10**6, 2**54, 2**61, 2**62 + 1, 2**63, 2**70)
    ]
    for one in fits[1:]:
        np.testing.assert_array_equal(one.means_, fits[0].means_)


def test_coupled_chains_of_no_rows():
    rows = block(values=ZEROS((0, D)))
    out = ONES(_kernels.factorial.statistics_size(M, K, D))
    for kind in _kernels.factorial.KINDS:
        memory = ZEROS((0, M * K + (M + 1 if kind.startswith("blocks") else 0)))
        _kernels.factorial.visit(
            replace(rows, memory=memory), coupled_theta(), kind, statistics=out
        )
        np.testing.assert_array_equal(out, 0)
    one = coupled_model(frame=None)
    stats = one.visit(rows, coupled_point(), EXACT)
    assert stats["log_z"] == 0.0


@pytest.mark.parametrize("kind", ["chain", "coupled"])
def test_sequences_may_change_while_rows_are_visited(kind):
    """Where they lie is copied: another thread writes to the arrays all the time."""
    n = 3000
    values = RNG.standard_normal((n, D))
    told = sequences(np.arange(0, n + 1, 3), np.arange(n // 3))
    right = told.offsets.copy(), told.order.copy()
    stop = threading.Event()

    def disturb():
        while not stop.is_set():
            told.offsets[:] = -(10**9)
            told.order[:] = 10**9
            told.offsets[:], told.order[:] = right

    rows = block(values=values, sequences=told)
    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(300):
            with contextlib.suppress(ValueError):  # where it is read as it is written
                chain(rows) if kind == "chain" else coupled(rows)
    finally:
        stop.set()
        thread.join()


# Parts -------------------------------------------------------------------------------------------


def some_parts():
    X = np.random.default_rng(0).standard_normal((40, 2))
    data = vbfast.ArrayData.of(X, n_threads=1)
    model = vbfast.Model(vbfast.Mixture(2), vbfast.Gaussian(2, "diag", frame=data.frame))
    return model, data, starts.posterior(model, data, "kmeans", np.random.default_rng(0))


NO_PARAMETERS = [
    ("reg_covar", -1, ValueError),
    ("reg_covar", np.nan, ValueError),
    ("reg_covar", "a", TypeError),
    ("mean_precision", -1, ValueError),
    ("mean_precision", "a", TypeError),
    ("degrees_of_freedom", 0, ValueError),
    ("degrees_of_freedom", "a", TypeError),
    ("mean_prior", "a", TypeError),
    ("mean_prior", [0.0, np.nan], ValueError),
    ("mean_prior", [0.0, 0.0, 0.0], ValueError),
    ("scatter", [[1.0, 2.0], [3.0]], ValueError),
    ("scatter", [1.0, 2.0, 3.0], ValueError),
    ("scatter", 1j, TypeError),
]


@pytest.mark.parametrize(("name", "value", "error"), NO_PARAMETERS)
@pytest.mark.parametrize(
    "part",
    [
        lambda **given: vbfast.Gaussian(2, "diag", **given),
        lambda **given: vbfast.Gaussian(2, "full", **given),
        lambda **given: vbfast.AdditiveGaussian(2, 2, 2, **given),
    ],
    ids=["diag", "full", "additive"],
)
def test_parameters_of_gaussian_parts(part, name, value, error):
    with pytest.raises(error, match=name):
        part(**{name: value})


@pytest.mark.parametrize("value", ["a", [1.0, np.inf], [1.0, 1.0, 1.0]])
def test_variances_of_means(value):
    with pytest.raises((TypeError, ValueError), match="mean_variance"):
        vbfast.Gaussian(2, "diag", mean_variance=value)


@pytest.mark.parametrize("value", ["x", 2, None])
def test_factorised_is_true_or_false(value):
    with pytest.raises(TypeError, match="factorised must be True or False"):
        vbfast.MeanField(factorised=value)


@pytest.mark.parametrize("init", ["x", 3, None])
def test_starts_that_there_are_not(init):
    model, data, posterior = some_parts()
    with pytest.raises(ValueError, match="init must be one of 'kmeans'"):
        starts.posterior(model, data, init, np.random.default_rng(0))
    with pytest.raises(ValueError, match="read must be"):
        starts.from_parameters(model, posterior, init)
    with pytest.raises(TypeError, match="posterior must be Stats"):
        starts.from_parameters(model, data, "mode")


@pytest.mark.parametrize(
    "emission", [vbfast.Bernoulli(2), vbfast.Categorical(2, [2, 2]), vbfast.Poisson(2)]
)
def test_labelled_rows_that_an_emission_does_not_allow(emission):
    X = np.array([[0.0, 1.0], [1.0, 0.0], [0.5, -9.0]])
    data = vbfast.ArrayData.of(X, standardise=False, n_threads=1)
    model = vbfast.Model(vbfast.Mixture(2), emission)
    with pytest.raises(ValueError, match=r"X\[2, 0\] is 0.5"):
        starts.from_labels(model, data, [0, 1, 0])


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_weights_put_into_data(bad):
    _, data, _ = some_parts()
    weights = np.ones(40)
    weights[7] = bad
    with pytest.raises(ValueError, match=r"weights\[7\] is"):
        replace(data, weights=weights)
    with pytest.raises(ValueError, match=r"weights must have shape \(40,\)"):
        replace(data, weights=np.ones(3))


@pytest.mark.parametrize(
    "method",
    [vbfast.EM(), vbfast.MeanField(), vbfast.VariationalEM(), vbfast.CrispEM()],
    ids=lambda method: method.name,
)
def test_what_a_method_is_given(method):
    model, data, posterior = some_parts()
    other = vbfast.Model(vbfast.Mixture(2), vbfast.Poisson(2)).prior
    with pytest.raises(ValueError, match="posterior is of another model"):
        method.fit(model, data, other)
    with pytest.raises(TypeError, match="posterior must be Stats"):
        method.fit(model, data, None)
    with pytest.raises(TypeError, match="data must be such as ArrayData"):
        method.fit(model, data.values, posterior)
    with pytest.raises(TypeError, match="model must be a model"):
        method.fit(None, data, posterior)


def test_what_full_inference_is_given():
    model, data, posterior = some_parts()
    method, rng = vbfast.FullInference(2, 2, 1), np.random.default_rng(0)
    with pytest.raises(TypeError, match="rng must be a numpy"):
        method.fit(model, data, [posterior], rng=0)
    with pytest.raises(ValueError, match="posteriors must be 1"):
        method.fit(model, data, posterior, rng)
    other = vbfast.Model(vbfast.Mixture(2), vbfast.Poisson(2)).prior
    with pytest.raises(ValueError, match=r"posteriors\[0\] is of another model"):
        method.fit(model, data, [other], rng)


def test_parts_that_make_no_model():
    mixture, gaussian = vbfast.Mixture(2), vbfast.Gaussian(2)
    chains, additive = vbfast.CoupledChains(2, 2), vbfast.AdditiveGaussian(2, 2, 2)
    for emission in (gaussian, additive):
        with pytest.raises(TypeError, match="latent of a Model must be"):
            vbfast.Model(None, emission)
    for emission in (None, additive):
        with pytest.raises(TypeError, match="emission of a Model must be such as Gaussian"):
            vbfast.Model(mixture, emission)
    for emission in (None, gaussian):
        with pytest.raises(TypeError, match="emission of a Model must be such as Additive"):
            vbfast.Model(chains, emission)


@pytest.mark.parametrize("kind", [vbfast.GaussianMixture, vbfast.HiddenMarkovModel])
def test_samples_of_more_rows_than_there_can_be(kind):
    X = np.random.default_rng(0).standard_normal((40, 2))
    fitted = kind(2, random_state=0).fit(X)
    for n in (10**30, 2**62):
        with pytest.raises(MemoryError, match=f"n_samples is {n}"):
            fitted.sample(n)


def test_means_of_coupled_chains_whose_sums_overflow():
    X = np.random.default_rng(0).standard_normal((40, 2))
    fitted = vbfast.FactorialHMM(2, 2, random_state=0).fit(X)
    fitted.means_ = np.full((2, 2, 2), 1e308)
    for ask in (lambda: fitted.predict(X), lambda: fitted.score(X), fitted.sample):
        with pytest.raises(ValueError, match=r"means_ are as large as 1e\+308"):
            ask()


def test_pickles_without_a_draw():
    X = np.random.default_rng(0).standard_normal((40, 2))
    few = vbfast.FullInference(2, 2, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vbfast.ConvergenceWarning)
        mixture = vbfast.BayesianGaussianMixture(2, method=few, random_state=0).fit(X)
    averaged = mixture._current_answers
    for edited in (
        replace(averaged, weights=averaged.weights[:0]),
        replace(averaged, arrays=tuple(part[:0] for part in averaged.arrays)),
        AveragedChain([], averaged),
    ):
        with pytest.raises(ValueError, match="draws of theta must be"):
            pickle.loads(pickle.dumps(edited))


@pytest.mark.parametrize("precision", [1e-300, 1e-20])
def test_a_mean_precision_that_is_lost_beside_the_rows(precision):
    X = np.random.default_rng(0).standard_normal((40, 2))
    chains = vbfast.FactorialHMM(
        2, 3, method="mean_field", mean_precision_prior=precision, random_state=0
    )
    with pytest.raises(vbfast.DegenerateError, match="mean_precision is lost to rounding"):
        chains.fit(X)

"""What surrounds sweeps: starts, stopping, draws, small calls."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median
from time import perf_counter
from timeit import repeat
from typing import Any

import numpy as np
import pytest
import sklearn.exceptions
import sklearn.mixture
from contenders import (
    N_THREADS,
    TURN,
    Case,
    Problem,
    ScikitLearn,
    Vbfast,
    by_turns,
    pose,
    pose_on,
)
from contenders import daal4py as oneDAL
from numpy.typing import NDArray
from report import Report, Work
from test_sweeps import FLOAT64
from threadpoolctl import threadpool_limits

import vbfast
from vbfast import starts
from vbfast.datasets import load_faithful
from vbfast.draws import effective_sample_size

# Effective draws per second of other packages at this shape, on two cores of a Zen 4.
ELSEWHERE = {"NumPyro, NUTS": 75.0, "PyMC": 23.0, "JAGS": 3.4}


def seconds(function: Callable[[], object]) -> float:
    start = perf_counter()
    function()
    return perf_counter() - start


def warm(function: Callable[[], object]) -> float:
    """Seconds of a call after another, as those of a sweep are: threads are awake."""
    function()
    times: list[float] = []
    while sum(times) < TURN:
        times.append(seconds(function))
    return median(times)


@contextmanager
def unconverged() -> Iterator[None]:
    """Let fits end before they have converged."""
    with warnings.catch_warnings():
        for category in (vbfast.ConvergenceWarning, sklearn.exceptions.ConvergenceWarning):
            warnings.simplefilter("ignore", category)
        yield


# -- starts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", FLOAT64, ids=str)
def test_start(case: Case, report: Report) -> None:
    problem = pose(case)
    ours = Vbfast(problem, N_THREADS)
    isotropic = case.covariance_type == "spherical"

    def start() -> None:
        starts.posterior(ours.model, ours.data, "kmeans", np.random.default_rng(0))

    def peer() -> float:
        model = sklearn.mixture.GaussianMixture(
            case.n_components, covariance_type=case.covariance_type
        )
        with threadpool_limits(N_THREADS):
            return seconds(
                lambda: model._initialize_parameters(problem.X, np.random.RandomState(0))
            )

    turns = {
        "data": partial(
            seconds,
            lambda: vbfast.ArrayData.of(problem.X, isotropic=isotropic, n_threads=N_THREADS),
        ),
        "start": partial(warm, start),
        "sweep": ours.seconds,
        "sklearn": peer,
    }
    medians, when = by_turns(turns, report.rates, rounds=3)
    times = {name: 1e3 * value for name, value in medians.items()}
    report.add("start", str(case), times, Work(when))


# -- acceleration ---------------------------------------------------------------------------------


def clusters(distance: float, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
    """20,000 rows of 4 unit Gaussians in 4 dimensions, and their means: corners of a simplex."""
    means = distance / np.sqrt(2) * np.eye(4)
    return means[rng.integers(4, size=20_000)] + rng.normal(size=(20_000, 4)), means


def starts_on(name: str) -> list[Problem]:
    """Five starts: from rows of Old Faithful, or from some way off the true means."""
    rng = np.random.default_rng(0)
    if name == "faithful":
        X = load_faithful()
        means = [X[rng.choice(len(X), 4, replace=False)] for _ in range(5)]
    else:
        X, truth = clusters(2.0 if name == "overlapping" else 6.0, rng)
        means = [truth + rng.normal(scale=0.5, size=truth.shape) for _ in range(5)]
    return [pose_on(X, each, Case("full", *X.shape, 4)) for each in means]


@pytest.mark.parametrize("name", ["faithful", "overlapping", "well separated"])
def test_acceleration(name: str, report: Report) -> None:
    options: dict[str, Any] = {"tol": 1e-8, "max_iter": 10_000}
    methods = {
        "plain": vbfast.EM(acceleration=None, **options),
        "default": vbfast.EM(**options),
    }
    passes: dict[str, list[int]] = {which: [] for which in methods}
    times: dict[str, list[float]] = {which: [] for which in methods}
    gains = []
    for problem in starts_on(name):
        ours = Vbfast(problem, N_THREADS)
        ends = {}
        for which, method in methods.items():
            start = perf_counter()
            fit = method.fit(ours.model, ours.data, ours.start)
            times[which].append(1e3 * (perf_counter() - start))
            passes[which].append(1 + fit.n_iter)
            ends[which] = fit.objective
        gains.append(ends["default"] - ends["plain"])
    figures: dict[str, float] = {which: int(median(values)) for which, values in passes.items()}
    figures |= {f"{which} time": median(values) for which, values in times.items()}
    n_rows, n_features = problem.X.shape
    report.add(
        "acceleration",
        f"{name}, {n_rows} x {n_features} x 4",
        {**figures, "gain": median(gains)},
    )


# -- draws ----------------------------------------------------------------------------------------


def test_full_inference(report: Report) -> None:
    rng = np.random.default_rng(0)
    truth = np.array([[-3.0, -1.0], [0.0, 2.0], [3.0, -1.0]])
    X = truth[rng.integers(3, size=1000)] + rng.normal(size=(1000, 2))
    method = vbfast.FullInference()
    model = vbfast.GaussianMixture(3, method=method, random_state=0, n_threads=N_THREADS)
    with unconverged():
        time = seconds(lambda: model.fit(X))
    means = model.draws_["means"]
    # (chain, draw, component, feature), components in order of the first feature.
    means = np.take_along_axis(means, np.argsort(means[..., :1], axis=2), axis=2)
    effective = min(
        effective_sample_size(means[:, :, k, d]) for k in range(3) for d in range(X.shape[1])
    )
    figures = {
        "draws": method.n_chains * method.n_draws,
        "effective": effective,
        "R-hat": model.r_hat_,
        "time": time,
        "effective / s": effective / time,
    }
    report.add("full inference", "vbfast", figures)
    for name, rate in ELSEWHERE.items():
        report.add("full inference", f"{name} (elsewhere)", {"effective / s": rate})


# -- small calls ----------------------------------------------------------------------------------


def test_one_row(benchmark: Any, report: Report) -> None:
    problem = pose(Case("full", 10_000, 8, 16))
    peer = ScikitLearn(problem)
    peer.seconds()
    with unconverged():
        ours = vbfast.GaussianMixture(16, tol=1.0, random_state=0).fit(problem.X)
    row = problem.X[:1]
    assert np.isclose(ours.predict_proba(row).sum(), 1.0)
    benchmark.pedantic(ours.predict_proba, (row,), rounds=100, iterations=50, warmup_rounds=10)
    times = {
        "vbfast": benchmark.stats.stats.median,
        "sklearn": median(repeat(lambda: peer.estimator.predict_proba(row), number=50, repeat=50))
        / 50,
    }
    report.add("one row", "a call", {name: 1e6 * each for name, each in times.items()})


def test_many_sets(report: Report) -> None:
    problem = pose(Case("full", 200_000, 2, 3))
    sets = problem.X.reshape(1000, 200, 2)
    # Of those who fit one set at a time only some are timed.
    some = sets[:50]
    options: dict[str, Any] = {"n_components": 3, "max_iter": 20, "tol": 0.0, "random_state": 0}
    ours = vbfast.GaussianMixture(**options, n_threads=N_THREADS)
    peer = sklearn.mixture.GaussianMixture(**options)

    def each(fit: Callable[[NDArray[Any]], object]) -> float:
        with threadpool_limits(N_THREADS), unconverged():
            return seconds(lambda: [fit(X) for X in some]) * len(sets) / len(some)

    def at_once() -> float:
        with unconverged():
            return seconds(lambda: vbfast.fit_many(ours, sets, n_threads=N_THREADS))

    turns = {
        "fit_many": at_once,
        "vbfast": partial(each, ours.fit),
        "sklearn": partial(each, peer.fit),
    }
    if oneDAL is not None:
        # From a start that is given: three rows, the variance of all, equal weights.
        em = oneDAL.em_gmm(
            nComponents=3, maxIterations=20, accuracyThreshold=0.0, regularizationFactor=1e-6
        )
        start = (np.full((1, 3), 1 / 3), problem.means, [np.diag(problem.variance)] * 3)
        oneDAL.daalinit(N_THREADS)
        turns["oneDAL"] = partial(each, lambda X: em.compute(X, *start))
    medians, _ = by_turns(turns, report.rates, rounds=3)
    report.add("many sets", "1000 fits", medians)

"""The same sweeps of the same model on the same data from the same start, by each library."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import median
from time import perf_counter, sleep
from typing import Any

import numpy as np
from machine import Rates
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from threadpoolctl import threadpool_limits

import vbfast
from vbfast.methods import Sweep

try:
    import daal4py
except ImportError:
    daal4py = None

# Sweep 1 is not timed, the next ones are; of scikit-learn, which takes seconds, only sweep 2.
UNTIMED, TIMED = 1, 2
# Of scikit-learn and oneDAL.
N_THREADS = 2
# A contender whose sweeps are quicker repeats them for this long, in seconds.
TURN = 0.05
ROUNDS = 5
# Whoever takes more seconds than this takes every other turn, or one only.
SLOW, VERY_SLOW = 0.3, 0.9
# Time for the thread pools of the one before to go to sleep.
PAUSE = 0.1
# Small enough to make no difference; its definition differs from library to library.
REG_COVAR = 1e-9

METHODS: dict[str, Any] = {
    "em": vbfast.EM(),
    "mean_field": vbfast.MeanField(),
    "crisp_em": vbfast.CrispEM(),
    "variational_em": vbfast.VariationalEM(truncation=3),
    "gibbs": vbfast.FullInference(),
}


@dataclass(frozen=True)
class Case:
    """A row of the table."""

    covariance_type: str
    n_rows: int
    n_features: int
    n_components: int
    method: str = "em"
    dtype: str = "float64"

    def __str__(self) -> str:
        n = self.n_rows
        rows = f"{n // 1_000_000}M" if n % 1_000_000 == 0 else f"{n // 1000}k"
        name = f"{self.covariance_type} {rows} x {self.n_features} x {self.n_components}"
        more = [self.method] * (self.method != "em") + [self.dtype] * (self.dtype != "float64")
        return " ".join([name, *more])

    @property
    def multiply_adds(self) -> float:
        """What symmetry leaves of an E-step and its sums; see README.md."""
        n, d, k = self.n_rows, self.n_features, self.n_components
        return {
            "full": n * k * (d * (d + 1) + 2 * d + 1),
            "tied": n * d * (d + 1) + n * k * (2 * d + 1),
            "diag": n * k * 4 * d,
            "spherical": n * k * (2 * d + 2),
        }[self.covariance_type]

    @property
    def exps(self) -> float:
        return self.n_rows * self.n_components


@dataclass(frozen=True)
class Problem:
    """Data and a start: means, the variance of all rows, equal weights."""

    case: Case
    X: NDArray[Any]
    means: NDArray[np.float64]
    variance: NDArray[np.float64]


@lru_cache(maxsize=1)
def _rows(correlated: bool, n_rows: int, n_features: int, n_components: int) -> NDArray[np.float64]:
    """Gaussians with standard deviations of about 1, their means about 4 apart."""
    rng = np.random.default_rng(0)
    means = rng.normal(scale=4 / np.sqrt(2 * n_features), size=(n_components, n_features))
    component = rng.integers(n_components, size=n_rows)
    X = rng.normal(size=(n_rows, n_features))
    for k in range(n_components):
        scale = np.diag(np.sqrt(rng.uniform(0.5, 2.0, size=n_features)))
        if correlated:
            scale = scale @ np.linalg.qr(rng.normal(size=(n_features, n_features)))[0]
        X[component == k] = means[k] + X[component == k] @ scale
    return X


def pose(case: Case) -> Problem:
    """Return the case's data and a start from averages of four of its rows each."""
    correlated = case.covariance_type in ("full", "tied")
    X = _rows(correlated, case.n_rows, case.n_features, case.n_components).astype(
        case.dtype, copy=False
    )
    start = np.random.default_rng(1).choice(case.n_rows, (4, case.n_components), replace=False)
    return pose_on(X, X[start].mean(axis=0), case)


def pose_on(X: NDArray[Any], means: NDArray[Any], case: Case) -> Problem:
    """Return a start from these means on other data than the case's own."""
    return Problem(case, X, means.astype(np.float64), X.var(axis=0, dtype=np.float64))


class Vbfast:
    """Sweeps by vbfast, and its objective in each of them."""

    def __init__(self, problem: Problem, n_threads: int) -> None:
        case = problem.case
        self.objectives: dict[int, float] = {}
        self.method = METHODS[case.method]
        self.data = vbfast.ArrayData.of(
            problem.X, isotropic=case.covariance_type == "spherical", n_threads=n_threads
        )
        frame = self.data.frame
        prior: dict[str, Any] = {}
        concentration = None
        if self.method.read != "mode":
            concentration = 1.0
            scatter = 1 / frame.scale**2
            scatters = {"diag": scatter, "spherical": scatter.mean()}
            prior = {
                "mean_prior": frame.origin,
                "mean_precision": 1.0,
                "degrees_of_freedom": float(case.n_features),
                "scatter": scatters.get(case.covariance_type, np.diag(scatter)),
            }
        self.model = vbfast.Model(
            vbfast.Mixture(case.n_components, concentration=concentration),
            vbfast.Gaussian(
                case.n_features, case.covariance_type, reg_covar=REG_COVAR, frame=frame, **prior
            ),
        )
        counts = np.full(case.n_components, case.n_rows / case.n_components)
        means = (problem.means - frame.origin) * frame.scale
        self.start = self.model.prior + self.model.around(means, counts)

    def sweeps(self) -> Iterator[Sweep[Any]]:
        if self.method.read == "sample":
            rng = np.random.default_rng(2)
            return self.method.chain(self.model, self.data, self.start, rng)
        read = getattr(self.model, self.method.read)
        return vbfast.sweeps(self.model, self.data, self.start, read, self.method.assign)

    def seconds(self) -> float:
        """Per sweep."""
        times: list[float] = []
        while sum(times) * TIMED < TURN:
            sweeps = self.sweeps()
            done = [next(sweeps) for _ in range(UNTIMED)]
            start = perf_counter()
            done += [next(sweeps) for _ in range(TIMED)]
            times.append((perf_counter() - start) / TIMED)
        self.objectives = {n: sweep.objective for n, sweep in enumerate(done, 1)}
        return median(times)


class _Clock:
    """Note when each E-step of scikit-learn begins: n + 1 times in n sweeps."""

    begun: list[float]

    def _e_step(self, *args: Any, **kwargs: Any) -> Any:
        self.begun.append(perf_counter())
        return super()._e_step(*args, **kwargs)  # type: ignore[misc]


class _GaussianMixture(_Clock, GaussianMixture):
    pass


class _BayesianGaussianMixture(_Clock, BayesianGaussianMixture):
    pass


class ScikitLearn:
    """Sweeps by scikit-learn, and log p(X | theta) in the last of them."""

    def __init__(self, problem: Problem) -> None:
        case = problem.case
        self.X = problem.X
        common: dict[str, Any] = {
            "n_components": case.n_components,
            "covariance_type": case.covariance_type,
            "tol": 0.0,
            "reg_covar": REG_COVAR,
        }
        if case.method == "mean_field":
            # It takes no start, so it has one of its own.
            self.estimator = _BayesianGaussianMixture(
                **common,
                init_params="random_from_data",
                random_state=0,
                weight_concentration_prior_type="dirichlet_distribution",
            )
            return
        precision = (1 / problem.variance).astype(case.dtype)
        precisions = {
            "full": np.tile(np.diag(precision), (case.n_components, 1, 1)),
            "tied": np.diag(precision),
            "diag": np.tile(precision, (case.n_components, 1)),
            "spherical": np.full(case.n_components, 1 / problem.variance.mean(), case.dtype),
        }
        self.estimator = _GaussianMixture(
            **common,
            weights_init=np.full(case.n_components, 1 / case.n_components, case.dtype),
            means_init=problem.means.astype(case.dtype),
            precisions_init=precisions[case.covariance_type],
        )

    def seconds(self) -> float:
        """Per sweep."""
        self.estimator.begun = []
        with threadpool_limits(N_THREADS), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.estimator.set_params(max_iter=UNTIMED + 1).fit(self.X)
        self.objectives = {UNTIMED + 1: float(self.estimator.lower_bound_) * len(self.X)}
        return self.estimator.begun[UNTIMED + 1] - self.estimator.begun[UNTIMED]


class OneDal:
    """Sweeps by oneDAL, timed from outside: a longer run less a shorter one."""

    def __init__(self, problem: Problem) -> None:
        case = problem.case
        full = case.covariance_type == "full"
        variance = problem.variance.astype(case.dtype)
        self.X = problem.X
        self.objectives: dict[int, float] = {}
        self.start = (
            np.full((1, case.n_components), 1 / case.n_components, case.dtype),
            problem.means.astype(case.dtype),
            [np.diag(variance) if full else variance[None]] * case.n_components,
        )
        self.options = {
            "nComponents": case.n_components,
            "fptype": "float" if case.dtype == "float32" else "double",
            "accuracyThreshold": 0.0,
            "regularizationFactor": REG_COVAR,
            "covarianceStorage": "full" if full else "diagonal",
        }

    def _run(self, n_sweeps: int) -> float:
        start = perf_counter()
        result = daal4py.em_gmm(maxIterations=n_sweeps, **self.options).compute(self.X, *self.start)
        seconds = perf_counter() - start
        assert int(result.nIterations[0, 0]) == n_sweeps
        self.objectives[n_sweeps] = float(result.goalFunction[0, 0])
        return seconds

    def seconds(self) -> float:
        """Per sweep."""
        daal4py.daalinit(N_THREADS)
        times: list[float] = []
        while sum(times) * TIMED < TURN:
            shorter = self._run(UNTIMED)
            # Never below zero, however loaded the machine.
            times.append(max(self._run(UNTIMED + TIMED) - shorter, 1e-6) / TIMED)
        return median(times)


def contenders(problem: Problem) -> dict[str, Any]:
    """Everyone who can run this case, by the name of a column."""
    case = problem.case
    out: dict[str, Any] = {
        "vbfast 1": Vbfast(problem, 1),
        "vbfast 2": Vbfast(problem, 2),
    }
    if case.method in ("em", "mean_field") and case.dtype == "float64":
        out["sklearn 2"] = ScikitLearn(problem)
    if case.method == "em" and case.covariance_type in ("full", "diag") and daal4py is not None:
        out["oneDAL 2"] = OneDal(problem)
    if (case.method, case.dtype) != ("em", "float64"):
        plain = replace(case, method="em", dtype="float64")
        out["EM 2"] = Vbfast(pose(plain), 2)
    return out


def by_turns(
    turns: dict[str, Callable[[], float]], rates: Rates, rounds: int = ROUNDS
) -> tuple[dict[str, float], slice]:
    """Return the median of each turn's figures, and which measurements of the rates fell between.

    Everyone has a turn in each round, so that a slower machine is slower for all.
    """
    first = len(rates)
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds):
        rates.measure()
        for name, turn in turns.items():
            longest = max(seconds[name], default=0.0)
            if (number % 2 == 0 and longest < VERY_SLOW) or longest < SLOW:
                sleep(PAUSE)
                seconds[name].append(turn())
    return {name: median(values) for name, values in seconds.items()}, slice(first, len(rates))

"""The same sweeps of the same hidden Markov model from the same start, by vbfast and hmmlearn."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from contenders import REG_COVAR, TURN, UNTIMED
from hmmlearn.hmm import CategoricalHMM, GaussianHMM
from numpy.typing import NDArray

import vbfast

IMPLEMENTATIONS = ("scaling", "log")
# Sweeps after those not timed; of hmmlearn, which takes a tenth of a second, two too.
TIMED = 2


@dataclass(frozen=True)
class ChainCase:
    """A row of the table: so many sequences of the same length."""

    emission: str  # a covariance type, or "categorical"
    n_sequences: int
    length: int
    n_features: int  # or symbols
    n_components: int

    def __str__(self) -> str:
        sizes = f"{self.n_sequences} x {self.length}, D = {self.n_features}"
        if self.emission == "categorical":
            sizes = f"{self.n_sequences} x {self.length}, {self.n_features} symbols"
        return f"{self.emission} {sizes}, K = {self.n_components}"


@dataclass(frozen=True)
class ChainProblem:
    """Data, and where everyone starts: transitions, means or probabilities of symbols."""

    case: ChainCase
    X: NDArray[Any]
    transitions: NDArray[np.float64]
    parameters: NDArray[np.float64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.full(self.case.n_sequences, self.case.length)


def pose_chain(case: ChainCase) -> ChainProblem:
    """States that stay for some five rows; Gaussians about 4 apart, or Dirichlet symbols."""
    rng = np.random.default_rng(0)
    k, d = case.n_components, case.n_features
    n = case.n_sequences * case.length
    stay = rng.random(n) < 0.8
    stay[:: case.length] = False
    drawn = rng.integers(k, size=n)
    state = drawn[np.maximum.accumulate(np.where(stay, 0, np.arange(n)))]
    transitions = np.full((k, k), 0.3 / k) + 0.7 * np.eye(k)
    if case.emission == "categorical":
        marks = np.cumsum(rng.dirichlet(np.full(d, 0.5), size=k), axis=1)
        X = (rng.random((n, 1)) > marks[state][:, :-1]).sum(axis=1)[:, None]
        return ChainProblem(case, X, transitions, rng.dirichlet(np.full(d, 5.0), size=k))
    means = rng.normal(scale=4 / np.sqrt(2 * d), size=(k, d))
    X = means[state] + rng.normal(size=(n, d))
    return ChainProblem(case, X, transitions, means + 0.3 * rng.normal(size=means.shape))


class VbfastChain:
    """Sweeps by vbfast, and its objective in each of them."""

    def __init__(self, problem: ChainProblem, n_threads: int) -> None:
        case = problem.case
        k = case.n_components
        self.objectives: dict[int, float] = {}
        counts = np.full(k, len(problem.X) / k)
        if case.emission == "categorical":
            emission: Any = vbfast.Categorical(1, case.n_features)
            self.data = emission.check(
                vbfast.ArrayData.of(
                    problem.X, lengths=problem.lengths, standardise=False, n_threads=n_threads
                )
            )
            start = emission.parameters(problem.parameters[:, None, :])
            fields = emission.around(start, counts)
        else:
            self.data = vbfast.ArrayData.of(problem.X, lengths=problem.lengths, n_threads=n_threads)
            frame = self.data.frame
            emission = vbfast.Gaussian(
                case.n_features, case.emission, reg_covar=REG_COVAR, frame=frame
            )
            fields = emission.around((problem.parameters - frame.origin) * frame.scale, counts)
        self.model = vbfast.Model(vbfast.Chain(k), emission)
        first = np.full((1, k), case.n_sequences / k)
        moves = counts[:, None] * problem.transitions
        begin = {"excess": np.concatenate([first, moves]), **fields}
        self.start = self.model.prior + self.model.layout.stats(begin)

    def seconds(self) -> float:
        """Per sweep."""
        times: list[float] = []
        method = vbfast.EM()
        while sum(times) * TIMED < TURN:
            sweeps = vbfast.sweeps(
                self.model, self.data, self.start, self.model.mode, method.assign
            )
            done = [next(sweeps) for _ in range(UNTIMED)]
            start = perf_counter()
            done += [next(sweeps) for _ in range(TIMED)]
            times.append((perf_counter() - start) / TIMED)
        self.objectives = {n: sweep.objective for n, sweep in enumerate(done)}
        return median(times)


class Hmmlearn:
    """Sweeps by hmmlearn, which has one thread, and log p(X | theta) in each of them."""

    def __init__(self, problem: ChainProblem, implementation: str) -> None:
        self.problem = problem
        self.implementation = implementation
        self.objectives: dict[int, float] = {}

    def _start(self) -> Any:
        problem, case = self.problem, self.problem.case
        common = {"implementation": self.implementation, "init_params": ""}
        if case.emission == "categorical":
            model = CategoricalHMM(case.n_components, params="ste", **common)
            model.emissionprob_ = problem.parameters
            model.n_features = case.n_features
        else:
            model = GaussianHMM(
                case.n_components, case.emission, params="stmc", covars_prior=0.0, **common
            )
            variance = problem.X.var(axis=0)
            full = case.emission == "full"
            model.n_features = case.n_features
            model.means_ = problem.parameters
            model.covars_ = np.tile(
                np.diag(variance) if full else variance,
                (case.n_components, 1, 1) if full else (case.n_components, 1),
            )
        model.startprob_ = np.full(case.n_components, 1 / case.n_components)
        model.transmat_ = problem.transitions
        return model

    def seconds(self) -> float:
        """Per sweep: its E-step and its M-step."""
        model = self._start()
        problem = self.problem
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for n in range(UNTIMED + TIMED):
                if n == UNTIMED:
                    start = perf_counter()
                stats, self.objectives[n] = model._do_estep(problem.X, problem.lengths)
                model._do_mstep(stats)
        return (perf_counter() - start) / TIMED


def chain_contenders(problem: ChainProblem) -> dict[str, Any]:
    """Everyone, by the name of a column."""
    return {
        "vbfast 1": VbfastChain(problem, 1),
        "vbfast 2": VbfastChain(problem, 2),
        **{f"hmmlearn {name}": Hmmlearn(problem, name) for name in IMPLEMENTATIONS},
    }

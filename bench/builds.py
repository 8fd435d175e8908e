"""Two builds of vbfast by turns: ``python bench/builds.py OLD_PYTHON NEW_PYTHON [-k PATTERN]``."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A turn takes some such seconds: long beside a clock's tick, short beside the machine's moods.
BURST = 0.015
PAIRS = 30
# Medians further from 1 are marked.
MUCH = 1.03

Array = NDArray[Any]
# A row's work; where it is a fit, it returns the number of sweeps.
Call = Callable[[], Any]


# -- what is measured -----------------------------------------------------------------------------


def clouds(n: int, d: int, k: int, stay: int = 1) -> tuple[Array, Array]:
    """Rows about K means, which stay with one for some rows, and labels, a third of them wrong."""
    rng = np.random.default_rng(0)
    z = np.repeat(rng.integers(k, size=-(-n // stay)), stay)[:n]
    X = (2.0 * rng.normal(size=(k, d)))[z] + rng.normal(size=(n, d))
    return X, np.where(rng.random(n) < 1 / 3, rng.integers(k, size=n), z)


def counts(n: int, d: int, k: int, stay: int = 1, high: int = 64) -> tuple[Array, Array]:
    """Whole numbers below `high`, likewise."""
    X, labels = clouds(n, d, k, stay)
    return np.clip(np.rint(8.0 * X + high / 2), 0, high - 1), labels


def rows() -> dict[str, Callable[[], Call]]:
    """Every row by name, made when its turn comes, of public names that both builds have."""
    import vbfast
    from vbfast.starts import from_labels

    made: dict[str, Callable[[], Call]] = {}

    def climb(name: str, sweeps: int) -> Any:
        return {
            "EM": vbfast.EM(sweeps, 0.0, acceleration=None),
            "MeanField": vbfast.MeanField(sweeps, 0.0, acceleration=None),
            "VariationalEM": vbfast.VariationalEM(sweeps, 0.0, acceleration=None),
            "truncated": vbfast.VariationalEM(sweeps, 0.0, acceleration=None, truncation=3),
            "CrispEM": vbfast.CrispEM(sweeps, 0.0),
            "FullInference": vbfast.FullInference(n_draws=sweeps, n_tune=1, n_chains=1),
        }[name]

    def fit(latent: Any, emission: Any, data: Any, labels: Array, method: Any) -> Call:
        model = vbfast.Model(latent, emission)
        start = from_labels(model, data, labels)
        if isinstance(method, vbfast.FullInference):
            return lambda: method.fit(model, data, [start], np.random.default_rng(0))
        return lambda: method.fit(model, data, start).n_iter

    def gaussian(
        latent: Callable[[int], Any], covariance_type: str, n: int, d: int, k: int, method: Any,
        threads: int, dtype: type = np.float64, lengths: Any = None,
    ) -> Call:  # fmt: skip
        X, labels = clouds(n, d, k, 1 if latent is vbfast.Mixture else 5)
        isotropic = covariance_type == "spherical"
        data = vbfast.ArrayData.of(
            X.astype(dtype), isotropic=isotropic, lengths=lengths, n_threads=threads
        )
        scatter = {"diag": np.ones(d), "spherical": 1.0}.get(covariance_type, np.eye(d))
        emission = vbfast.Gaussian(
            d, covariance_type, mean_prior=np.zeros(d), mean_precision=1.0, scatter=scatter,
            degrees_of_freedom=d + 2.0, frame=data.frame,
        )  # fmt: skip
        return fit(latent(k), emission, data, labels, method)

    def discrete(
        latent: Callable[[int], Any], kind: str, n: int, d: int, k: int, method: Any,
        threads: int, lengths: Any = None,
    ) -> Call:  # fmt: skip
        high = 2 if kind == "bernoulli" else 64
        X, labels = counts(n, d, k, 1 if latent is vbfast.Mixture else 5, high)
        emission = {
            "poisson": lambda: vbfast.Poisson(d, 1.0, 0.1),
            "bernoulli": lambda: vbfast.Bernoulli(d, 1.0, 1.0),
            "categorical": lambda: vbfast.Categorical(d, high, 1.0),
        }[kind]()
        data = vbfast.ArrayData.of(X, standardise=False, lengths=lengths, n_threads=threads)
        return fit(latent(k), emission, data, labels, method)

    # -- sweeps of mixtures
    for threads in (1, 2):
        for kind, n, d, k, sweeps in (
            ("full", 100_000, 2, 8, 3),
            ("full", 50_000, 8, 16, 1),
            ("full", 20_000, 16, 32, 1),
            ("full", 4_000, 128, 8, 1),
            ("diag", 50_000, 16, 32, 1),
            ("tied", 50_000, 16, 32, 1),
            ("spherical", 50_000, 16, 32, 1),
        ):
            made[f"mixture {kind} {n}x{d}x{k} EM {threads}"] = partial(
                gaussian, vbfast.Mixture, kind, n, d, k, climb("EM", sweeps), threads
            )
    for kind in ("full", "diag"):
        made[f"mixture {kind} 50000x8x16 float32 EM 2"] = partial(
            gaussian, vbfast.Mixture, kind, 50_000, 8, 16, climb("EM", 2), 2, np.float32
        )
        for method in ("MeanField", "truncated", "CrispEM", "FullInference"):
            made[f"mixture {kind} 50000x8x16 {method} 1"] = partial(
                gaussian, vbfast.Mixture, kind, 50_000, 8, 16, climb(method, 1), 1
            )
    for n, d, k in ((200, 2, 3), (1000, 8, 4)):
        for method in ("EM", "MeanField", "truncated", "CrispEM", "FullInference"):
            made[f"mixture full {n}x{d}x{k} {method} 1"] = partial(
                gaussian, vbfast.Mixture, "full", n, d, k, climb(method, 50), 1
            )
    for kind in ("poisson", "bernoulli", "categorical"):
        made[f"mixture {kind} 50000x8x8 EM 1"] = partial(
            discrete, vbfast.Mixture, kind, 50_000, 8, 8, climb("EM", 2), 1
        )
    # -- sweeps of chains
    chain = vbfast.Chain
    for threads in (1, 2):
        made[f"chain diag 1x50000 K8 D4 EM {threads}"] = partial(
            gaussian, chain, "diag", 50_000, 4, 8, climb("EM", 1), threads
        )
        made[f"chain full 500x100 K8 D4 EM {threads}"] = partial(
            gaussian, chain, "full", 50_000, 4, 8, climb("EM", 1), threads, lengths=[100] * 500
        )
        made[f"chain categorical 1x50000 K16 EM {threads}"] = partial(
            discrete, chain, "categorical", 50_000, 1, 16, climb("EM", 1), threads
        )
    made["chain diag 1x20000 K20 D4 EM 1"] = partial(
        gaussian, chain, "diag", 20_000, 4, 20, climb("EM", 1), 1
    )
    made["chain full 1x200 K3 D2 EM 1"] = partial(
        gaussian, chain, "full", 200, 2, 3, climb("EM", 20), 1
    )
    for method in ("MeanField", "CrispEM", "FullInference"):
        made[f"chain diag 1x50000 K8 D4 {method} 1"] = partial(
            gaussian, chain, "diag", 50_000, 4, 8, climb(method, 1), 1
        )
    # The factors of such a q(T) take hundreds of rounds.
    for k, n in ((8, 500), (20, 100)):
        made[f"chain diag 1x{n} K{k} D4 VariationalEM 1"] = partial(
            gaussian, chain, "diag", n, 4, k, climb("VariationalEM", 1), 1
        )

    # -- estimators
    def estimator(kind: str, n: int, **options: Any) -> Call:
        X = clouds(n, 2, 3)[0] if kind == "gaussian" else counts(n, 2, 3)[0]
        if kind == "gaussian":
            return lambda: vbfast.GaussianMixture(3, random_state=0, **options).fit(X).n_iter_
        return lambda: (
            vbfast.MixtureModel(3, emission=kind, random_state=0, **options).fit(X).n_iter_
        )

    for kind in ("gaussian", "poisson", "categorical"):
        made[f"fit {kind} 300x2x3"] = partial(estimator, kind, 300)
    made["fit gaussian 300x2x3 FullInference"] = partial(
        estimator, "gaussian", 300, method=vbfast.FullInference(50, 20, 2)
    )

    def many(n: int) -> Call:
        sets = np.random.default_rng(0).normal(size=(n, 200, 2))
        model = vbfast.GaussianMixture(3, random_state=0, max_iter=20, tol=0.0)
        return lambda: vbfast.fit_many(model, sets)

    made["fit_many 50x200x2x3"] = partial(many, 50)

    def coupled(method: str, n: int, sweeps: int) -> Call:
        X = clouds(n, 3, 4, 5)[0]
        if method == "structured mean field":
            options = {"method": climb("MeanField", sweeps)} | {
                "mean_precision_prior": 1.0, "degrees_of_freedom_prior": 6.0,
                "covariance_prior": np.eye(3), "start_concentration_prior": 1.0,
                "transition_concentration_prior": 1.0,
            }  # fmt: skip
        else:
            options = {"method": climb(method, sweeps)}
        return lambda: vbfast.FactorialHMM(3, 2, random_state=0, **options).fit(X).n_iter_

    for method in ("EM", "VariationalEM", "CrispEM"):
        made[f"coupled 3x2 2000x3 {method}"] = partial(coupled, method, 2000, 3)

    # -- predictions
    def predict(model: Any, X: Array, name: str, repeats: int = 1) -> Call:
        model.fit(X)
        some = X[:1] if repeats > 1 else X
        function = getattr(model, name)
        if repeats == 1:
            return lambda: function(some)

        def call() -> None:
            for _ in range(repeats):
                function(some)

        return call

    def predicting(kind: str, name: str, n: int) -> Call:
        options: dict[str, Any] = {"random_state": 0, "max_iter": 5}
        X = counts(n, 4, 8)[0] if kind in ("poisson", "categorical") else clouds(n, 4, 8)[0]
        model: Any = {
            "mixture": lambda: vbfast.GaussianMixture(8, **options),
            "Bayesian mixture": lambda: vbfast.BayesianGaussianMixture(n_components=8, **options),
            "poisson": lambda: vbfast.MixtureModel(8, emission="poisson", **options),
            "categorical": lambda: vbfast.MixtureModel(8, emission="categorical", **options),
            "chain": lambda: vbfast.HiddenMarkovModel(8, **options),
            "coupled": lambda: vbfast.FactorialHMM(2, 3, **options),
        }[kind]()
        return predict(model, X, name, 1 if n > 2000 else 50)

    for kind in ("mixture", "Bayesian mixture", "poisson", "categorical", "chain", "coupled"):
        for name in ("predict", "predict_proba", "score_samples", "score"):
            if hasattr(vbfast.FactorialHMM if kind == "coupled" else vbfast.GaussianMixture, name):
                if kind == "chain" and name == "score_samples":
                    continue
                made[f"{name} {kind} 1"] = partial(predicting, kind, name, 2000)
                n = 10_000 if kind in ("coupled", "Bayesian mixture") else 100_000
                made[f"{name} {kind} {n}"] = partial(predicting, kind, name, n)
    return made


# -- a build, in a process of its own -------------------------------------------------------------


def child() -> None:
    """Answer on standard output, a line of JSON each, what is asked on standard input."""
    warnings.simplefilter("ignore")
    made = rows()
    call: Call = list
    for line in sys.stdin:
        command, argument = json.loads(line)
        if command == "rows":
            answer: Any = list(made)
        elif command == "make":
            try:
                call = made[argument]()
                told = call()
                sweeps = told if isinstance(told, int) else None
                times = [seconds(call, 1) for _ in range(3)]
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            else:
                answer = {"seconds": min(times)[0], "sweeps": sweeps}
        else:
            answer = seconds(call, argument)
        print(json.dumps(answer), flush=True)


def seconds(call: Call, repeats: int) -> tuple[float, float]:
    """What the clock on the wall says, and the processors'."""
    start = perf_counter(), process_time()
    for _ in range(repeats):
        call()
    return perf_counter() - start[0], process_time() - start[1]


class Build:
    """A build, which answers when asked."""

    def __init__(self, python: str) -> None:
        self.process = subprocess.Popen(
            [python, __file__, "--child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )

    def ask(self, command: str, argument: Any = None) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([command, argument]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a build's process ended")
        return json.loads(line)


# -- by turns -------------------------------------------------------------------------------------


def compare(old: Build, new: Build, name: str, pairs: int, cpu: bool) -> str:
    """A row of the table."""
    told = [build.ask("make", name) for build in (old, new)]
    for which, answer in zip(("old", "new"), told, strict=True):
        if "error" in answer:
            return f"{name:44} {which}: {answer['error'][:80]}"
    repeats = max(1, round(BURST / max(answer["seconds"] for answer in told)))
    times: list[tuple[float, float]] = []
    for pair in range(pairs):
        # Old, new, new, old: a drift favours neither.
        turn = (old, new) if pair % 2 == 0 else (new, old)
        took = {build: build.ask("run", repeats)[cpu] / repeats for build in turn}
        times.append((took[old], took[new]))
    ratios = sorted(b / a for a, b in times)
    # So many ratios on either side of the median: 95% of medians lie between these.
    middle, half = len(ratios) / 2, 0.98 * len(ratios) ** 0.5
    low, high = ratios[max(0, int(middle - half))], ratios[min(pairs - 1, int(middle + half))]
    ratio = median(ratios)
    before, after = (median(each) * 1e3 for each in zip(*times, strict=True))
    note = "slower" if ratio > MUCH else "faster" if ratio < 1 / MUCH else ""
    note += "?" if note and low <= 1 <= high else ""
    sweeps = [answer["sweeps"] for answer in told]
    if sweeps[0] != sweeps[1]:
        note += f" sweeps {sweeps[0]} -> {sweeps[1]}"
    return f"{name:44} {before:9.3f} {after:9.3f} {ratio:7.3f} {low:7.3f} {high:7.3f} {note}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", nargs="?", help="python that has the build before")
    parser.add_argument("new", nargs="?", help="python that has the build after")
    parser.add_argument("-k", default="", help="rows that match this regular expression")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="turns (default: %(default)s)")
    parser.add_argument(
        "--cpu",
        action="store_true",
        help="processor time, of all threads: for a machine that has other work",
    )
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child()
        return
    if args.new is None:
        parser.error("two pythons, please")
    old, new = Build(args.old), Build(args.new)
    names = [name for name in new.ask("rows") if re.search(args.k, name)]
    old.ask("rows")
    print(f"{'':44} {'old ms':>9} {'new ms':>9} {'ratio':>7} {'from':>7} {'to':>7}")
    for name in names:
        print(compare(old, new, name, args.pairs, args.cpu), flush=True)


if __name__ == "__main__":
    main()

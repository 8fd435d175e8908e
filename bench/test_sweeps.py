"""Seconds per sweep, everyone by turns. Nothing here fails for being slow."""

from __future__ import annotations

from statistics import median
from time import perf_counter, sleep
from typing import Any

import numpy as np
import pytest
from contenders import Case, ScikitLearn, contenders, pose
from table import Table

import vbfast

ROUNDS = 5
# Whoever takes more seconds per sweep takes every other turn.
SLOW = 0.3
# Time for the thread pools of the one before to go to sleep.
PAUSE = 0.02

MAIN = [
    Case("full", 100_000, 8, 16),
    Case("full", 100_000, 16, 32),
    Case("diag", 1_000_000, 8, 64),
    Case("full", 100_000, 8, 16, dtype="float32"),
    *(
        Case("full", 100_000, 8, 16, method)
        for method in ("mean_field", "crisp_em", "variational_em", "gibbs")
    ),
]
MORE = [
    Case("full", 100_000, 2, 8),
    Case("full", 100_000, 64, 16),
    Case("full", 1_000_000, 4, 16),
    Case("full", 20_000, 128, 8),
    Case("diag", 100_000, 16, 32),
    Case("diag", 100_000, 128, 64),
    Case("tied", 100_000, 8, 16),
    Case("tied", 100_000, 16, 32),
    Case("tied", 100_000, 64, 16),
    Case("spherical", 100_000, 8, 16),
    Case("spherical", 100_000, 16, 32),
    Case("spherical", 100_000, 128, 64),
    Case("full", 100_000, 64, 16, dtype="float32"),
    Case("full", 1_000_000, 4, 16, dtype="float32"),
    *(
        Case(covariance_type, 100_000, 16, 32, method)
        for covariance_type in ("full", "diag")
        for method in ("mean_field", "crisp_em", "variational_em", "gibbs")
    ),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        cases = MAIN + MORE * metafunc.config.getoption("--full-table")
        metafunc.parametrize("case", cases, ids=str)


def test_sweep(case: Case, benchmark: Any, table: Table) -> None:
    everyone = contenders(pose(case))
    first_measurement = len(table.rates)
    seconds: dict[str, list[float]] = {name: [] for name in everyone}

    def turn(name: str) -> None:
        seconds[name].append(everyone[name].seconds())

    def others_turns() -> None:
        table.rates.measure()
        number = len(seconds["vbfast 2"])
        for name, before in seconds.items():
            if name != "vbfast 2" and (number % 2 == 0 or before[0] < SLOW):
                sleep(PAUSE)
                turn(name)
        sleep(PAUSE)

    benchmark.pedantic(turn, args=("vbfast 2",), setup=others_turns, rounds=ROUNDS)
    table.sweeps[case] = {name: median(values) for name, values in seconds.items()}
    table.measured[case] = slice(first_measurement, len(table.rates))
    benchmark.extra_info.update(table.sweeps[case])

    if case.method == "em":
        # All have computed the same; vbfast sums float32 data in float64, others in float32.
        tolerance = 1e-6 if case.dtype == "float64" else 1e-3
        objectives = [each.objective for each in everyone.values()]
        assert objectives == pytest.approx([objectives[0]] * len(objectives), rel=tolerance)


def test_one_row(benchmark: Any, table: Table) -> None:
    problem = pose(Case("full", 10_000, 8, 16))
    peer = ScikitLearn(problem)
    peer.seconds()
    ours = vbfast.GaussianMixture(16, tol=1.0, random_state=0).fit(problem.X)
    row = problem.X[:1]
    assert np.isclose(ours.predict_proba(row).sum(), 1.0)
    seconds: dict[str, list[float]] = {"vbfast": [], "scikit-learn": []}
    for _ in range(300):
        for name, model in (("vbfast", ours), ("scikit-learn", peer.estimator)):
            start = perf_counter()
            model.predict_proba(row)
            seconds[name].append(perf_counter() - start)
    benchmark(ours.predict_proba, row)
    table.calls["predict_proba of 1 row, D=8, K=16"] = {
        name: median(values) for name, values in seconds.items()
    }

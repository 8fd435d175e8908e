"""Seconds per sweep, everyone by turns. Nothing here fails for being slow."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from contenders import Case, Vbfast, by_turns, contenders, pose, pose_on
from report import Report, Work

FLOAT64 = [
    Case("full", 100_000, 2, 8),
    Case("full", 100_000, 8, 16),
    Case("full", 100_000, 16, 32),
    Case("full", 100_000, 64, 16),
    Case("full", 1_000_000, 4, 16),
    Case("full", 20_000, 128, 8),
    Case("diag", 100_000, 16, 32),
    Case("diag", 1_000_000, 8, 64),
    Case("diag", 100_000, 128, 64),
    Case("tied", 100_000, 16, 32),
    Case("spherical", 100_000, 16, 32),
]
FLOAT32 = [
    Case("full", 100_000, 8, 16, dtype="float32"),
    Case("full", 1_000_000, 4, 16, dtype="float32"),
    Case("full", 100_000, 64, 16, dtype="float32"),
    Case("full", 100_000, 16, 32, dtype="float32"),
]
METHODS = [
    replace(case, method=method)
    for case, method in product(
        [
            Case("full", 100_000, 8, 16),
            Case("full", 100_000, 16, 32),
            Case("diag", 100_000, 16, 32),
        ],
        ["mean_field", "crisp_em", "variational_em", "gibbs"],
    )
]
BITS = "other bits on 1 thread than on 2"
ROWS = (10_000, 100_000, 1_000_000, 10_000_000)


def measure(everyone: dict[str, Any], case: Case, report: Report) -> tuple[dict[str, float], Work]:
    """Return milliseconds per sweep of everyone, after a look at what they have computed."""
    seconds, when = by_turns({name: each.seconds for name, each in everyone.items()}, report.rates)
    ours = everyone["vbfast 2"].objectives
    assert everyone["vbfast 1"].objectives == ours, BITS
    if case.method == "em":
        # vbfast sums float32 data in float64, others in float32.
        tolerance = 1e-6 if case.dtype == "float64" else 1e-3
        for name, each in everyone.items():
            for n, objective in each.objectives.items():
                assert objective == pytest.approx(ours[n], rel=tolerance), f"{name}, sweep {n}"
    return {name: 1e3 * value for name, value in seconds.items()}, Work(when)


@pytest.mark.parametrize("case", FLOAT64, ids=str)
def test_float64(case: Case, report: Report) -> None:
    times, work = measure(contenders(pose(case)), case, report)
    report.add("float64", str(case), times, Work(work.when, case.multiply_adds, case.exps))


@pytest.mark.parametrize("case", FLOAT32, ids=str)
def test_float32(case: Case, report: Report) -> None:
    everyone = contenders(pose(case))
    times, work = measure(everyone, case, report)
    times["float64 2"] = times.pop("EM 2")
    last, exact = (max(everyone[name].objectives.items())[1] for name in ("vbfast 2", "EM 2"))
    times["difference"] = abs(last / exact - 1)
    report.add("float32", str(replace(case, dtype="float64")), times, work)


@pytest.mark.parametrize("case", METHODS, ids=str)
def test_methods(case: Case, report: Report) -> None:
    times, work = measure(contenders(pose(case)), case, report)
    report.add("methods", str(case), times, work)


def test_rows(report: Report) -> None:
    everything = pose(Case("full", max(ROWS), 4, 8))
    everyone = {}
    for n_rows, n_threads in product(ROWS, (1, 2)):
        part = everything.X[:n_rows]
        case = replace(everything.case, n_rows=n_rows)
        everyone[f"{case} {n_threads}"] = Vbfast(pose_on(part, everything.means, case), n_threads)
    seconds, when = by_turns({name: each.seconds for name, each in everyone.items()}, report.rates)
    for n_rows in ROWS:
        case = replace(everything.case, n_rows=n_rows)
        assert everyone[f"{case} 1"].objectives == everyone[f"{case} 2"].objectives, BITS
        figures = {f"vbfast {n}": 1e9 * seconds[f"{case} {n}"] / n_rows for n in (1, 2)}
        report.add("rows", str(case), figures, Work(when))

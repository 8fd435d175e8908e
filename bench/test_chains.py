"""Seconds per EM sweep of hidden Markov models, everyone by turns."""

from __future__ import annotations

import pytest
from contenders import by_turns
from report import Report, Work

hmmlearn = pytest.importorskip("hmmlearn")

from chains import ChainCase, chain_contenders, pose_chain  # noqa: E402

CASES = [
    ChainCase("diag", 1, 100_000, 4, 8),
    ChainCase("full", 1, 100_000, 4, 8),
    ChainCase("diag", 1000, 100, 4, 8),
    ChainCase("full", 1000, 100, 4, 8),
    ChainCase("categorical", 1, 100_000, 64, 16),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_chains(case: ChainCase, report: Report) -> None:
    everyone = chain_contenders(pose_chain(case))
    seconds, when = by_turns({name: each.seconds for name, each in everyone.items()}, report.rates)
    ours = everyone["vbfast 2"].objectives
    assert everyone["vbfast 1"].objectives == ours, "other bits on 1 thread than on 2"
    for name, each in everyone.items():
        for n, objective in each.objectives.items():
            assert objective == pytest.approx(ours[n], rel=1e-6), f"{name}, sweep {n}"
    times = {name: 1e3 * value for name, value in seconds.items()}
    times["hmmlearn"] = min(times[name] for name in times if name.startswith("hmmlearn"))
    report.add("chains", str(case), times, Work(when))

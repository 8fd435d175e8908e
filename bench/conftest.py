"""One report for all that a run measures."""

from __future__ import annotations

from pathlib import Path

import pytest
from report import Report, text

REPORT = pytest.StashKey[Report]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("vbfast").addoption(
        "--save-as",
        type=Path,
        default=Path(__file__).parent / "latest",
        metavar="STEM",
        help="write STEM.json, STEM.md and STEM.png (default: %(default)s)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REPORT] = Report()
    config.option.benchmark_quiet = True  # one report


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> Report:
    return pytestconfig.stash[REPORT]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    config = terminalreporter.config
    report = config.stash[REPORT]
    if not report.rows:
        return
    terminalreporter.section("vbfast bench")
    terminalreporter.write_line(text(report.record()))
    paths = report.save(config.getoption("--save-as"))
    terminalreporter.write_line(f"\nwritten: {', '.join(path.name for path in paths)}")

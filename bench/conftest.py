"""One table for all benchmarks of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from machine import describe
from table import Table

TABLE = pytest.StashKey[Table]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("vbfast")
    group.addoption("--full-table", action="store_true", help="all rows, not only the main ones")
    group.addoption(
        "--save-as",
        type=Path,
        default=Path(__file__).parent / "latest",
        metavar="STEM",
        help="write STEM.json, STEM.md and STEM.png (default: %(default)s)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLE] = Table()
    config.option.benchmark_quiet = True


@pytest.fixture(scope="session")
def table(pytestconfig: pytest.Config) -> Table:
    return pytestconfig.stash[TABLE]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    config = terminalreporter.config
    table = config.stash[TABLE]
    if not table.sweeps:
        return
    terminalreporter.section("vbfast bench")
    terminalreporter.write_line(table.text())
    paths = table.save(config.getoption("--save-as"))
    terminalreporter.write_line(f"\nwritten: {', '.join(path.name for path in paths)}")


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: Any) -> None:
    """Leave the machine's name out of what pytest-benchmark saves."""
    machine_info.clear()
    machine_info.update(describe())

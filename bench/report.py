"""The report: what a run has measured, as JSON, as Markdown and as a plot.

``python bench/report.py STEM.json SECTION [COLUMN ...]`` prints some columns of one section.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from machine import Rates, describe
from plot import plot


@dataclass(frozen=True)
class Section:
    """Rows of the same columns: a column has a unit, or is the ratio of two others."""

    title: str
    columns: dict[str, str | tuple[str, str]]


QUIET = {"quiet": ""}
SECTIONS = {
    "float64": Section(
        "EM, float64: a sweep",
        {
            **dict.fromkeys(["vbfast 1", "vbfast 2", "oneDAL 2", "sklearn 2"], "ms"),
            **dict.fromkeys(["floor 1", "floor 2"], "ms"),
            "vb / floor 1": ("vbfast 1", "floor 1"),
            "vb / floor 2": ("vbfast 2", "floor 2"),
            "oneDAL / vb": ("oneDAL 2", "vbfast 2"),
            "sklearn / vb": ("sklearn 2", "vbfast 2"),
            "1 / 2": ("vbfast 1", "vbfast 2"),
            **QUIET,
        },
    ),
    "float32": Section(
        "EM, float32: a sweep",
        {
            **dict.fromkeys(["vbfast 1", "vbfast 2", "oneDAL 2", "float64 2"], "ms"),
            "64 / 32": ("float64 2", "vbfast 2"),
            "oneDAL / vb": ("oneDAL 2", "vbfast 2"),
            "1 / 2": ("vbfast 1", "vbfast 2"),
            "difference": "",
            **QUIET,
        },
    ),
    "methods": Section(
        "Other methods: a sweep",
        {
            **dict.fromkeys(["vbfast 1", "vbfast 2", "EM 2", "sklearn 2"], "ms"),
            "vb / EM": ("vbfast 2", "EM 2"),
            "sklearn / vb": ("sklearn 2", "vbfast 2"),
            "1 / 2": ("vbfast 1", "vbfast 2"),
            **QUIET,
        },
    ),
    "rows": Section(
        "EM, full, D = 4, K = 8: a sweep, by number of rows",
        {
            **dict.fromkeys(["vbfast 1", "vbfast 2"], "ns / row"),
            "1 / 2": ("vbfast 1", "vbfast 2"),
            **QUIET,
        },
    ),
    "chains": Section(
        "Hidden Markov models, EM: a sweep",
        {
            **dict.fromkeys(["vbfast 1", "vbfast 2", "hmmlearn scaling", "hmmlearn log"], "ms"),
            "hmmlearn": "ms",
            "hmmlearn / vb": ("hmmlearn", "vbfast 2"),
            "1 / 2": ("vbfast 1", "vbfast 2"),
            **QUIET,
        },
    ),
    "full inference": Section(
        "Full inference, 1000 x 2 x 3: effective draws of the sorted means",
        {"draws": "", "effective": "", "R-hat": "", "time": "s", "effective / s": ""},
    ),
    "acceleration": Section(
        "Acceleration of EM: passes over the data until it stops, tol = 1e-8",
        {
            **dict.fromkeys(["plain", "default"], "passes"),
            **dict.fromkeys(["plain time", "default time"], "ms"),
            "fewer passes": ("plain", "default"),
            "less time": ("plain time", "default time"),
            "gain": "nats",
        },
    ),
    "start": Section(
        "Start by k-means",
        {
            **dict.fromkeys(["data", "start", "sweep", "sklearn"], "ms"),
            "start / sweep": ("start", "sweep"),
            "sklearn / vb": ("sklearn", "start"),
            **QUIET,
        },
    ),
    "one row": Section(
        "predict_proba of one row, D = 8, K = 16",
        {**dict.fromkeys(["vbfast", "sklearn"], "µs"), "sklearn / vb": ("sklearn", "vbfast")},
    ),
    "many sets": Section(
        "Fits of 1000 sets of 200 x 2, K = 3, 20 sweeps each",
        {
            **dict.fromkeys(["fit_many", "vbfast", "oneDAL", "sklearn"], "s"),
            "vbfast / many": ("vbfast", "fit_many"),
            "oneDAL / many": ("oneDAL", "fit_many"),
            "sklearn / many": ("sklearn", "fit_many"),
        },
    ),
    "memory": Section(
        "Peak memory beyond the data, 1M x 16 x 32, full, float64",
        dict.fromkeys(["vbfast", "oneDAL", "sklearn"], "MB"),
    ),
}


@dataclass(frozen=True)
class Work:
    """What a row's floor and its quiet are computed from when all rates are known."""

    when: slice
    multiply_adds: float | None = None
    exps: float | None = None


@dataclass
class Report:
    """What a run has measured: for each section and row, figures in the columns' units."""

    rates: Rates = field(default_factory=Rates)
    rows: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    work: dict[tuple[str, str], Work] = field(default_factory=dict)

    def add(
        self, section: str, row: str, figures: dict[str, float], work: Work | None = None
    ) -> None:
        """Add a row, with figures in the units of its section."""
        self.rows.setdefault(section, {})[row] = figures
        if work is not None:
            self.work[section, row] = work

    def record(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        sections = {}
        for name, section in SECTIONS.items():
            if name in self.rows:
                units = {
                    column: unit if isinstance(unit, str) else ""
                    for column, unit in section.columns.items()
                }
                rows = {row: self._row(name, row) for row in self.rows[name]}
                sections[name] = {"title": section.title, "units": units, "rows": rows}
        return {"machine": describe(), "rates": self.rates.summary(), "sections": sections}

    def _row(self, section: str, row: str) -> dict[str, float]:
        figures = dict(self.rows[section][row])
        work = self.work.get((section, row))
        if work is not None:
            figures["quiet"] = self.rates.share(work.when)
            if work.multiply_adds is not None and work.exps is not None:
                for n in (1, 2):
                    figures[f"floor {n}"] = 1e3 * self.rates.floor(
                        work.multiply_adds, work.exps, n, work.when
                    )
        for column, unit in SECTIONS[section].columns.items():
            if isinstance(unit, tuple) and figures.keys() >= set(unit):
                figures[column] = figures[unit[0]] / figures[unit[1]]
        return {
            column: figures[column] for column in SECTIONS[section].columns if column in figures
        }

    def save(self, stem: Path) -> list[Path]:
        """Write STEM.json, STEM.md and, with matplotlib, STEM.png."""
        record = self.record()
        paths = [stem.with_suffix(".json"), stem.with_suffix(".md")]
        paths[0].write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        paths[1].write_text(text(record) + "\n")
        if "float64" in record["sections"]:
            with suppress(ImportError):
                paths.append(plot(record, stem.with_suffix(".png")))
        return paths


def text(record: dict[str, Any]) -> str:
    """Return a record in Markdown."""
    lines = [f"- {name}: {value}" for name, value in record["machine"].items()]
    lines += [f"- {name}: {value:.3g}" for name, value in record["rates"].items()]
    for section in record["sections"].values():
        lines += ["", f"## {section['title']}", "", *table(section, list(section["units"]))]
    return "\n".join(lines)


def table(section: dict[str, Any], columns: list[str]) -> list[str]:
    """Return some columns of a section as the lines of a Markdown table.

    The unit that most columns have stands over the names of the rows.
    """
    rows, units = section["rows"], section["units"]
    columns = [name for name in columns if any(name in row for row in rows.values())]
    common = next((units[name] for name in columns if units[name]), "")
    head = [
        f"{name} ({units[name]})" if units[name] not in ("", common) else name for name in columns
    ]
    lines = [[common, *head]]
    for name, row in rows.items():
        lines.append([name, *(_three(row[c]) if c in row else "" for c in columns)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    aligned = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]
    return [f"| {' | '.join(line)} |" for line in [aligned[0], rule, *aligned[1:]]]


def _three(value: float) -> str:
    """Three digits, or all there are before the point."""
    if isinstance(value, int) or value == 0:
        return f"{value:.0f}"
    if abs(value) < 0.005:
        return f"{value:.0e}"
    return f"{value:.{2 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f}"


if __name__ == "__main__":
    path, name, *chosen = sys.argv[1:]
    section = json.loads(Path(path).read_text())["sections"][name]
    print("\n".join(table(section, chosen or list(section["units"]))))

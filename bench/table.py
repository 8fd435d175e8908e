"""The table: rows of medians, printed, as JSON and as a plot."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from contenders import Case
from machine import Rates, describe


@dataclass
class Table:
    """What a run has measured.

    Attributes
    ----------
    sweeps : dict
        For each case the median seconds per sweep of every contender.
    measured : dict
        Which measurements of the rates fell into each case's time.
    calls : dict
        Median seconds of other calls.
    """

    rates: Rates = field(default_factory=Rates)
    sweeps: dict[Case, dict[str, float]] = field(default_factory=dict)
    measured: dict[Case, slice] = field(default_factory=dict)
    calls: dict[str, dict[str, float]] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        """Seconds per sweep, and how many times as long as the floor, or as vbfast, they are."""
        return [self._row(case, seconds) for case, seconds in self.sweeps.items()]

    def _row(self, case: Case, seconds: dict[str, float]) -> dict[str, Any]:
        row: dict[str, Any] = {"sweep": str(case), **asdict(case), **seconds}
        row["dgemm 2 / 1"] = self.rates.share(self.measured[case])
        ours = seconds["vbfast 2"]
        row["vbfast 1 / 2"] = seconds["vbfast 1"] / ours
        for peer in ("scikit-learn", "oneDAL"):
            if f"{peer} 2" in seconds:
                row[f"{peer} / vbfast"] = seconds[f"{peer} 2"] / ours
        if "EM float64 2" in seconds:
            row["vbfast / EM float64"] = ours / seconds["EM float64 2"]
        # Other methods need other work, and float32 has a dgemm rate of its own.
        elif case.method == "em":
            for n_threads in (1, 2):
                floor = self.rates.floor(case.multiply_adds, case.exps, n_threads)
                row[f"floor {n_threads}"] = floor
                row[f"vbfast / floor {n_threads}"] = seconds[f"vbfast {n_threads}"] / floor
        return row

    def text(self) -> str:
        """Return the whole of it in Markdown."""
        lines = [f"{name}: {value}" for name, value in describe().items()]
        for rates in self.rates.summary():
            lines.append(
                f"{rates['threads']} thread(s): dgemm {rates['multiply-adds/s'] / 1e9:.1f} G "
                f"multiply-adds/s, exp {rates['exps/s'] / 1e9:.2f} G/s"
            )
        lines += ["", *self._markdown()]
        for name, seconds in self.calls.items():
            each = ", ".join(f"{who} {1e6 * value:.1f} µs" for who, value in seconds.items())
            lines += ["", f"{name}: {each}"]
        return "\n".join(lines)

    def _markdown(self) -> list[str]:
        head = {
            "sweep": "ms per sweep",
            "vbfast 1": "vbfast 1",
            "vbfast 2": "vbfast 2",
            "scikit-learn 2": "sklearn 2",
            "oneDAL 2": "oneDAL 2",
            "floor 1": "floor 1",
            "floor 2": "floor 2",
            "vbfast 1 / 2": "1 / 2",
            "scikit-learn / vbfast": "sklearn / vb",
            "oneDAL / vbfast": "oneDAL / vb",
            "vbfast / floor 1": "vb / floor 1",
            "vbfast / floor 2": "vb / floor 2",
            "vbfast / EM float64": "vb / EM",
            "dgemm 2 / 1": "quiet",
        }
        lines = [list(head.values())]
        for row in self.rows():
            line = []
            for name in head:
                value = row.get(name, "")
                if not isinstance(value, str):
                    value = f"{value:.2f}" if "/" in name else _three(1e3 * value)
                line.append(value)
            lines.append(line)
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
        aligned = [
            [line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines
        ]
        return [f"| {' | '.join(line)} |" for line in [aligned[0], rule, *aligned[1:]]]

    def save(self, stem: Path) -> list[Path]:
        """Write STEM.json, STEM.md and, with matplotlib, STEM.png."""
        record = {
            "machine": describe(),
            "rates": self.rates.summary(),
            "sweeps": self.rows(),
            "calls": self.calls,
        }
        paths = [stem.with_suffix(".json"), stem.with_suffix(".md")]
        paths[0].write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        paths[1].write_text(self.text() + "\n")
        # The other rows are told apart by a ratio, not by time.
        rows = [row for row in self.rows() if "floor 2" in row]
        if not rows:
            return paths
        try:
            _plot(rows, stem.with_suffix(".png"))
        except ImportError:
            return paths
        return [*paths, stem.with_suffix(".png")]


def _three(value: float) -> str:
    """Three digits, or all there are before the point."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def _plot(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    marks = {"floor 2": "|", "vbfast 2": "o", "oneDAL 2": "s", "scikit-learn 2": "D"}
    figure = Figure(figsize=(7, 1.2 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for name, mark in marks.items():
        points = [(row[name], y) for y, row in enumerate(reversed(rows)) if name in row]
        if points:
            axes.scatter(*zip(*points, strict=True), marker=mark, label=name[:-2], zorder=2)
    axes.set_xscale("log")
    axes.set_xlabel("seconds per EM sweep, 2 threads, float64")
    axes.set_yticks(range(len(rows)), [str(row["sweep"]) for row in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(marks))
    figure.savefig(path, dpi=150)

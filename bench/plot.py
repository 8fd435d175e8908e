"""Time per sweep of each library and the floor, as a plot.

``python bench/plot.py STEM.json`` draws STEM.png.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

# Colours that colour-blind people can tell apart (Okabe & Ito), told apart by shape as well.
MARKS = {
    "floor 2": ("floor", "|", "#555555"),
    "vbfast 2": ("vbfast", "o", "#0072B2"),
    "oneDAL 2": ("oneDAL", "s", "#C98500"),
    "sklearn 2": ("scikit-learn", "D", "#CC3311"),
}
TIMES = "\N{MULTIPLICATION SIGN}"
INK, FAINT = "#222222", "#d9d9d9"


def plot(record: dict[str, Any], path: Path) -> Path:
    """Draw a record's float64 EM sweeps on two threads: a line for each shape."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter

    rows = record["sections"]["float64"]["rows"]
    figure = Figure(figsize=(8, 1.3 + 0.34 * len(rows)), layout="constrained", facecolor="white")
    axes = figure.subplots()
    for y, row in enumerate(rows.values()):
        times = {name: row[name] for name in MARKS if name in row}
        axes.plot([min(times.values()), max(times.values())], [y, y], color=FAINT, lw=2, zorder=1)
        for name, time in times.items():
            _, mark, colour = MARKS[name]
            size, width = (110, 2.2) if mark == "|" else (42, 0.0)
            axes.scatter(time, y, s=size, marker=mark, color=colour, linewidths=width, zorder=2)
            if name in ("oneDAL 2", "sklearn 2"):
                # How many times as long as vbfast.
                ratio = time / row["vbfast 2"]
                label = f"{ratio:.{1 if ratio < 10 else 0}f}{TIMES}"
                offset = (7, 0) if name == "sklearn 2" else (0, 6)
                axes.annotate(
                    label,
                    (time, y),
                    offset,
                    textcoords="offset points",
                    va="center" if offset[1] == 0 else "bottom",
                    ha="left" if offset[1] == 0 else "center",
                    fontsize=8,
                    color=colour,
                )
    axes.set_xscale("log")
    axes.margins(x=0.06)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda ms, _: _time(ms)))
    label = "time per EM sweep, float64, 2 threads (numbers: as multiples of vbfast)"
    axes.set_xlabel(label, color=INK)
    names = [name.replace(" x ", f" {TIMES} ") for name in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.4, -0.7)
    axes.grid(axis="x", color=FAINT, lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, labelcolor=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    handles = [
        Line2D([], [], ls="", marker=mark, color=colour, label=label, markersize=8 - (mark == "D"))
        for name, (label, mark, colour) in MARKS.items()
        if any(name in row for row in rows.values())
    ]
    handles[0].set(markersize=11, markeredgewidth=2.2)
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=len(handles),
        frameon=False,
        labelcolor=INK,
        handletextpad=0.1,
    )
    figure.savefig(path, dpi=200)
    return path


def _time(ms: float) -> str:
    return f"{ms / 1000:g} s" if ms >= 1000 else f"{ms:g} ms" if ms >= 1 else f"{1000 * ms:g} µs"


if __name__ == "__main__":
    source = Path(sys.argv[1])
    plot(json.loads(source.read_text()), source.with_suffix(".png"))

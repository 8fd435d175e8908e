"""Two runs side by side: ``python bench/compare.py A.json B.json [SECTION ...]``."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(path_a: str, path_b: str, *chosen: str) -> None:
    """Print every figure that both have: of A, of B, and B / A."""
    a, b = (json.loads(Path(path).read_text()) for path in (path_a, path_b))
    for name, value in a["machine"].items():
        if b["machine"].get(name) != value:
            print(f"{name}: {value} -> {b['machine'].get(name)}")
    for name, section in a["sections"].items():
        others = b["sections"].get(name, {"rows": {}})["rows"]
        if name not in (chosen or a["sections"]) or not others:
            continue
        print(f"\n{section['title']}")
        for row, figures in section["rows"].items():
            for column, before in figures.items():
                after = others.get(row, {}).get(column)
                if after is not None:
                    unit = section["units"][column]
                    ratio = f"{after / before:8.2f}" if before else ""
                    print(f"{row:28} {column:14} {before:11.4g} {after:11.4g} {unit:8} {ratio}")


if __name__ == "__main__":
    main(*sys.argv[1:])

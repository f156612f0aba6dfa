"""Write the figures of the last ``make soak`` into docs/explanation/reliability.md, between its two marks."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

from bench import report, results

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "explanation" / "reliability.md"
FIGURES = ROOT / ".artifacts" / "soak"
BEGIN, END = "<!-- figures: begin (make soak writes them) -->", "<!-- figures: end -->"


def rows(folder: Path) -> list[dict[str, Any]]:
    """What the tests left in ``folder``, by name."""
    told = (json.loads(path.read_text()) for path in sorted(folder.glob("*.json")) if path.stem != "log-call")
    return sorted(told, key=lambda row: str(row["name"]))


def shown(key: str, value: object) -> str:
    """One figure, in words."""
    number = f"{value:,}" if isinstance(value, int) else str(value)
    return f"{key.replace('_', ' ')} {number}"


def figures(folder: Path) -> str:
    """The part of the page that is made of figures."""
    lines = ["| Attack | Figures |", "|---|---|"]
    points: dict[str, int] = {}
    for row in rows(folder):
        name = str(row.pop("name"))
        if name.startswith("killed at "):
            engine = name.rpartition("/")[2]
            points[engine] = points.get(engine, 0) + 1
            continue
        lines.append(f"| {name.replace('/', ', ')} | {', '.join(shown(k, v) for k, v in row.items())} |")
    for engine, count in sorted(points.items()):
        lines.append(f"| a served worker killed at a commit point, {engine} | points {count}, duplicates 0, lost 0 |")
    cost = folder / "log-call.json"
    if cost.exists():
        lines += ["", "What `log()` costs, in the same interleaved run:", "", report.samples_table(results.one(cost))]
    lines += ["", f"Measured on {platform.system()} with {_cores()} shared cores, Python {platform.python_version()}."]
    return "\n".join(lines)


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0))


def main() -> None:
    """Replace what stands between the marks."""
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        sys.exit(f"{PAGE.name} has no place for the figures")
    PAGE.write_text(f"{before}{BEGIN}\n{figures(FIGURES)}\n{END}{after}")


if __name__ == "__main__":
    main()

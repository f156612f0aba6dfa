"""From results to Markdown: the table of the bars, a table for each experiment, and where the plots go."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from bench import plots
from bench.bars import Verdict, judge
from bench.figures import Result, Spread, spread
from bench.machine import ROOT

PAGE: Final = ROOT / "docs" / "explanation" / "performance.md"
IMAGES: Final = ROOT / "docs" / "images"
BEGIN: Final = "<!-- {}: begin (written by make) -->"
END: Final = "<!-- {}: end -->"

_UNITS: Final = {
    "cpu_us": "CPU, µs a request",
    "loop_us": "event loop, µs",
    "drainer_us": "drainer thread, µs",
    "sync_us": "sync thread, µs",
    "followers_us": "followers' thread, µs",
    "writer_us": "writer process, µs",
    "rps": "requests/s",
    "stored_rps": "requests/s until stored",
    "p50_ms": "p50, ms",
    "p99_ms": "p99, ms",
    "p999_ms": "p99.9, ms",
    "p50_us": "p50, µs",
    "p99_us": "p99, µs",
    "mean_us": "mean, µs",
    "rows_per_s": "rows/s",
    "ms": "ms",
    "seconds": "s",
    "own_mib": "own memory, MiB",
    "peak_mib": "peak memory, MiB",
    "resident_mib": "resident, MiB",
}


def number(value: float) -> str:
    """Three significant digits, thousands separated."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.2g}"


def told(value: Spread | None, unit: str = "") -> str:
    """A median with its spread."""
    if value is None:
        return "—"
    if value.count == 1:
        return f"{number(value.median)}{unit}"
    return f"{number(value.median)}{unit} ({number(value.low)}–{number(value.high)})"


def table(verdicts: Iterable[Verdict]) -> str:
    """Every bar: what is asked, what was measured, whether it is reached, and the physical limit.

    In parentheses where the log is larger than the bar asks for.
    """
    lines = ["| # | bar | asked | measured | reached | physical limit |", "|---|---|---|---|---|---|"]
    for verdict in verdicts:
        bar = verdict.bar
        asked = f"{'≤' if bar.sense == 'at most' else '≥'} {number(bar.goal)}{bar.unit}"
        case = bar.case + (
            f" ({verdict.way.removeprefix(bar.of[:-1])})" if bar.of.endswith("*") and verdict.way else ""
        )
        limit = bar.limit + (f": {told(verdict.limit, bar.unit)}" if verdict.limit is not None else "")
        answer = {True: "yes", False: "**no**", None: "not measured"}[verdict.reached]
        if bar.beyond:
            asked, answer = f"({asked})", f"({answer.strip('*')})"
        lines.append(f"| {bar.number} | {case} | {asked} | {told(verdict.value, bar.unit)} | {answer} | {limit} |")
    return "\n".join(lines)


def samples_table(result: Result) -> str:
    """Every way of one experiment with the medians and spreads of its figures."""
    figures = list(dict.fromkeys(figure for way in result.samples.values() for figure in way))
    heads = [_UNITS.get(figure, figure.replace("_", " ")) for figure in figures]
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'---|' * len(figures)}"]
    for way, values in result.samples.items():
        cells = [told(spread(values[figure])) if figure in values else "" for figure in figures]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def setting(result: Result) -> str:
    """The one line that says how to measure it again, and where it was."""
    facts, machine = result.facts, result.facts["machine"]
    changed = " with changes" if facts.get("changed") else ""
    return (
        f"`{facts['command']}`, commit {facts['commit']}{changed}, {facts['date'][:10]}, {machine['cores']} cores of"
        f" {machine['processor']}, {machine['memory_gib']:g} GiB, {machine['system']},"
        f" CPython {facts['versions']['python']}, SQLite {facts['versions']['sqlite']}"
    )


def details(results: Sequence[Result]) -> str:
    """A section for each experiment; those that were measured the same way share the line that says how."""
    parts: list[str] = []
    for how, some in groupby(results, key=setting):
        parts.append(f"Measured by {how}:")
        for result in some:
            parts += [f"### {result.experiment}", samples_table(result)]
    return "\n\n".join(parts)


def replaced(page: str, name: str, text: str) -> str:
    """The page with what stands between the two marks of that name replaced. ValueError where they are missing."""
    begin, end = BEGIN.format(name), END.format(name)
    found = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not found.search(page):
        raise ValueError(f"the page has no place for {name}")
    return found.sub(lambda _: f"{begin}\n\n{text}\n\n{end}", page)


def write(results: Sequence[Result], page: Path = PAGE, images: Path = IMAGES) -> None:
    """Write the figures into the page, and the plots beside it."""
    text = replaced(page.read_text(), "bars", table(judge(results)))
    shown = plots.draw(results, images)
    pictures = "\n\n".join(f"![{title}](../images/{name})" for name, title in shown)
    text = replaced(text, "plots", pictures or "Nothing to plot yet.")
    page.write_text(replaced(text, "details", details(results)))

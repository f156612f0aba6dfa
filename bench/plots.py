"""Plots as SVG that suit a light and a dark page: no background, grey axes, colours that carry on both."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.databases import ENGINES, NAMES
from bench.figures import Result, Spread, spread

_GREY: Final = "#808890"
_COLOURS: Final = ("#2f81f7", "#d9730d", "#1a9e6b", "#b45ad6", "#c7a008", "#d6455d", "#4aa3a2", "#8a7455", "#6f7bd9")
_LARGE: Final = re.compile(r"large-(sqlite|postgresql)-([0-9]+)")

#: engine → way → (rows in the log, value)
Curves = dict[str, dict[str, list[tuple[int, Spread]]]]


@dataclass(frozen=True, slots=True)
class _Curve:
    """A plot of cost against size: which ways of the results of each size, by which figure."""

    name: str
    title: str
    figure: str
    unit: str
    ways: Callable[[str], bool]
    log: bool


_CURVES: Final = (
    _Curve("ingest.svg", "Ingest against the size of the log", "rows_per_s", "rows/s",
           lambda way: way.startswith("ingest"), log=False),
    _Curve("first-page.svg", "First page of each filter against the size of the log", "ms", "ms",
           lambda way: way == "lookup by id" or way.startswith("first page"), log=True),
    _Curve("stats.svg", "Statistics over everything against the size of the log", "ms", "ms",
           lambda way: way.startswith("stats"), log=True),
    _Curve("bulk.svg", "Export and verify against the size of the log", "rows_per_s", "rows/s",
           lambda way: way.startswith(("export", "verify", "COPY", "scan", "read every row")), log=True),
    _Curve("memory.svg", "Peak memory against the size of the log", "peak_mib", "MiB",
           lambda way: way.startswith(("export", "verify")), log=False),
)  # fmt: skip


def curves(results: Sequence[Result], figure: str, wanted: Callable[[str], bool]) -> Curves:
    """What the large logs of each size said of the ways that are wanted, smallest log first."""
    found: Curves = {}
    for result in results:
        if (match := _LARGE.fullmatch(result.experiment)) is None:
            continue
        for way, figures in result.samples.items():
            if wanted(way) and figure in figures:
                line = found.setdefault(match[1], {}).setdefault(way, [])
                line.append((int(match[2]), spread(figures[figure])))
                line.sort(key=lambda point: point[0])
    return found


def draw(results: Sequence[Result], folder: Path) -> list[tuple[str, str]]:
    """Write every plot that the results suffice for; return file names and titles."""
    drawn: list[tuple[str, str]] = []
    folder.mkdir(parents=True, exist_ok=True)
    for curve in _CURVES:
        if lines := curves(results, curve.figure, curve.ways):
            _draw_curve(curve, lines, folder / curve.name)
            drawn.append((curve.name, curve.title))
    known = {result.experiment: result for result in results}
    for kind, figure, name, title, unit in (
        ("requests", "cpu_us", "request-cpu.svg", "CPU of one request", "µs"),
        ("stored", "stored_rps", "request-rate.svg", "Requests a second until the last event is stored", "requests/s"),
        ("latency", "p99_ms", "latency.svg", "p99 of a request", "ms"),
    ):
        there = {engine: known[f"{kind}-{engine}"] for engine in ENGINES if f"{kind}-{engine}" in known}
        if there:
            _draw_bars(figure, title, unit, there, folder / name)
            drawn.append((name, title))
    return drawn


def _draw_curve(curve: _Curve, lines: Curves, path: Path) -> None:
    figure, axes = _figure(len(lines), curve.title)
    for ax, (engine, ways) in zip(axes, sorted(lines.items(), reverse=True), strict=True):
        for (way, points), colour in zip(ways.items(), _COLOURS * 4, strict=False):
            sizes = [size for size, _ in points]
            ax.plot(sizes, [value.median for _, value in points], marker="o", markersize=3.5, color=colour, label=way)
            ax.fill_between(
                sizes, [v.low for _, v in points], [v.high for _, v in points], color=colour, alpha=0.15, linewidth=0
            )
        ax.set_xscale("log")
        if curve.log:
            ax.set_yscale("log")
        else:
            ax.set_ylim(bottom=0)
        ax.set_title(NAMES[engine], color=_GREY, fontsize=10)
        ax.set_xlabel("rows in the log", color=_GREY)
        ax.set_ylabel(curve.unit, color=_GREY)
        ax.legend(fontsize=7, frameon=False, labelcolor=_GREY, loc="best")
    _save(figure, path)


def _draw_bars(name: str, title: str, unit: str, results: Mapping[str, Result], path: Path) -> None:
    figure, axes = _figure(len(results), title)
    for ax, (engine, result) in zip(axes, results.items(), strict=True):
        values = {way: spread(figures[name]) for way, figures in result.samples.items() if name in figures}
        ways = list(reversed(values))
        for place, way in enumerate(ways):
            value = values[way]
            colour = _COLOURS[0] if way.startswith("indelible") else _GREY
            ax.barh(place, value.median, color=colour, alpha=0.8, height=0.6)
            ax.plot([value.low, value.high], [place, place], color=_COLOURS[1], linewidth=1.5)
        ax.set_yticks(range(len(ways)), ways)
        ax.set_title(NAMES[engine], color=_GREY, fontsize=10)
        ax.set_xlabel(unit, color=_GREY)
    _save(figure, path)


def _figure(count: int, title: str) -> tuple[Any, Sequence[Any]]:
    import matplotlib as mpl

    mpl.use("svg")
    # The same input makes the same bytes: names inside the file and its date do not vary.
    mpl.rcParams.update({"svg.hashsalt": "indelible", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, count, figsize=(5.2 * count, 3.8), squeeze=False, layout="constrained")
    figure.suptitle(title, color=_GREY)
    for ax in axes[0]:
        ax.patch.set_alpha(0)
        ax.grid(visible=True, color=_GREY, alpha=0.25, linewidth=0.6)
        ax.set_axisbelow(True)
        ax.tick_params(colors=_GREY)
        for spine in ax.spines.values():
            spine.set_visible(False)
    return figure, list(axes[0])


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    figure.savefig(path, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)

"""The bars, and the build's floors, in one table: ratios of samples of one run, and what the physical limit is.

``goal`` is the bar. ``floor`` is what the build's quick run must reach on a busy machine: generous, so that noise passes
and a regression by half does not. None: the quick run does not measure it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from typing import Final, Literal

from bench.apps import READY
from bench.databases import ENGINES, NAMES
from bench.figures import Result, Samples, Spread, ratios, spread
from bench.request_path import APART, FLOOD, INSERTS

#: The sizes at which a log is held against the bars.
BAR_SIZES: Final = (5_000_000, 20_000_000)
#: The same for memory.
MEMORY_SIZES: Final = (5_000_000, 10_000_000, 20_000_000)
#: The largest log that the bars for first pages and statistics, and the one for memory, are about.
_ASKED: Final = 5_000_000
_ASKED_OF_MEMORY: Final = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One line of the table.

    ``of`` is measured against ``to``, both ways of ``experiment``, by ``figure``; ``less`` is taken away from both first.
    With ``to_experiment`` the baseline is of another experiment, with other rounds.
    ``of`` with a ``*`` at its end means the worst of all ways that begin so. Without ``to`` the figure itself counts.
    ``limit`` is another way held against ``to`` in the same manner, or a sentence. ``beyond`` marks a larger log, or
    another deployment, than the bar is about.
    """

    number: str
    case: str
    experiment: str
    figure: str
    of: str
    to: str | None
    less: str | None = None
    to_experiment: str | None = None
    sense: Literal["at most", "at least"]
    goal: float
    floor: float | None = None
    limit: str
    limit_way: str | None = None
    unit: str = "×"
    beyond: bool = False

    @property
    def name(self) -> str:
        """The bar's number and what it is about."""
        return f"{self.number}, {self.case}"

    def reaches(self, value: float, threshold: float) -> bool:
        """Whether the value is on the right side of the threshold."""
        return value <= threshold if self.sense == "at most" else value >= threshold


@dataclass(frozen=True, slots=True)
class Verdict:
    """A bar and what was measured for it; ``value`` is None where nothing was, or where noise drowned it."""

    bar: Bar
    value: Spread | None
    limit: Spread | None
    way: str | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the median reaches the goal; None if nothing was measured."""
        return None if self.value is None else self.bar.reaches(self.value.median, self.bar.goal)

    @property
    def above_floor(self) -> bool:
        """Whether the build may pass."""
        return self.value is None or self.bar.floor is None or self.bar.reaches(self.value.median, self.bar.floor)


def _request_bars(engine: str) -> Iterator[Bar]:
    name, experiment = NAMES[engine], f"requests-{engine}"
    goal = 0.2 if engine == "postgresql" else 0.3
    for more, who in (("", "thread"), (APART, "process")):
        yield Bar(
            number="1", case=f"CPU added, {name}, drainer as a {who}", experiment=experiment, figure="cpu_us",
            of="indelible" + more, to="BaseHTTPMiddleware", less="bare", sense="at most", goal=goal,
            floor=1.5 if who == "thread" else None,
            limit="a ready event, delivered so", limit_way=READY + more,
        )  # fmt: skip
        yield Bar(
            number="2", case=f"requests/s, {name}, drainer as a {who}", experiment=experiment, figure="rps",
            of="indelible" + more, to="bare", sense="at least", goal=0.8, floor=0.28 if who == "thread" else None,
            limit="a ready event, delivered so", limit_way=READY + more,
        )  # fmt: skip
    for way, case, to, goal, limit_way in (
        ("thread", "steady load, drainer as a thread", "bare", 1.5, INSERTS),
        ("writer process", "steady load, drainer as a process", "bare", 1.5, INSERTS),
        ("catching up", "full catch-up in another process", "bare", 2.0, FLOOD),
        ("database stopped", "database stopped, against its own", "thread", 1.2, None),
    ):
        yield Bar(
            number="3", case=f"p99, {case}, {name}", figure="p99_ms",
            experiment=f"{'catching-up' if way == 'catching up' else 'latency'}-{engine}", of=way, to=to,
            sense="at most", goal=goal, limit=limit_way or "1: no difference", limit_way=limit_way,
            beyond=way == "writer process",
        )  # fmt: skip
    for peer, (more, who) in product(("bh-fastapi-audit", "auditlog-fastapi"), (("", "thread"), (APART, "process"))):
        case = f"{peer}, {name}, drainer as a {who}"
        yield Bar(
            number="7", case=f"requests/s until stored, {case}", experiment=f"stored-{engine}", figure="stored_rps",
            of="indelible" + more, to=peer, sense="at least", goal=5,
            limit="a ready event, delivered so", limit_way=READY + more,
        )  # fmt: skip
        yield Bar(
            number="7", case=f"CPU added, {case}", experiment=experiment, figure="cpu_us",
            of="indelible" + more, to=peer, less="bare", sense="at most", goal=0.1,
            limit="a ready event, delivered so", limit_way=READY + more,
        )  # fmt: skip


def _call_bars() -> Iterator[Bar]:
    for way, goal, floor in (("journal", 0.8, 0.9), ("capture", 0.3, 0.6)):
        case = "log() with journal" if way == "journal" else "log() without journal"
        yield Bar(
            number="4", case=f"{case} against QueueHandler", experiment="log-call", figure="p50_us",
            of=way, to="QueueHandler", sense="at most", goal=goal, floor=floor,
            limit="struct, id, time, encode, copy into a map", limit_way="encode",
        )  # fmt: skip


def _ingest_bars() -> Iterator[Bar]:
    for number, engine in (("5", "postgresql"), ("6", "sqlite")):
        yield Bar(
            number=number, case=f"{NAMES[engine]} ingest, one writer, batches of 1,000", experiment=f"ingest-{engine}",
            figure="rows_per_s", of="sealed, batch 1000", to="raw, batch 1000", sense="at least", goal=0.7, floor=0.35,
            limit="COPY of ready bytes" if engine == "postgresql" else "1: the raw insert",
            limit_way="encoded, batch 1000" if engine == "postgresql" else None,
        )  # fmt: skip
    for hosts in (2, 4):
        yield Bar(
            number="5", case=f"PostgreSQL ingest, {hosts} hosts at once", experiment=f"ingest-{hosts}-hosts",
            figure="rows_per_s", of="sealed", to="raw", sense="at least", goal=0.9, floor=0.25 if hosts == 2 else None,
            limit="the raw inserts, in turns", limit_way="raw, in turns",
        )  # fmt: skip


def _size_bars(engine: str, size: str, *, quick: bool = False) -> Iterator[Bar]:
    """The bars that speak of a large log; ``quick`` is the small form that the build runs."""
    experiment, name = f"large-{engine}-{size}", NAMES[engine]
    at = f"{name}, {int(size):,} rows" if size.isdigit() else f"{name}, a small log"

    beyond = size.isdigit() and int(size) > _ASKED

    def floor(value: float) -> float | None:
        return value if quick else None

    yield Bar(
        number="8", case=f"ingest at {at}", experiment=experiment, figure="rows_per_s", of="ingest, here",
        to="ingest, empty log", sense="at least", goal=0.9, floor=floor(0.45), limit="1: size does not matter",
    )  # fmt: skip
    yield Bar(
        number="9", case=f"worst first page, {at}", experiment=experiment, figure="ms", of="first page: *",
        to="lookup by id", sense="at most", goal=5, floor=floor(20), limit="1: one row by its key",
        beyond=beyond,
    )  # fmt: skip
    yield Bar(
        number="9", case=f"worst first page, absolute, {at}", experiment=experiment, figure="ms", of="first page: *",
        to=None, sense="at most", goal=10, limit="the lookup by id", limit_way="lookup by id", unit=" ms",
        beyond=beyond,
    )  # fmt: skip
    yield Bar(
        number="10", case=f"a page far down, {at}", experiment=experiment, figure="ms", of="deep page",
        to="first page: (no filter)", sense="at most", goal=2, floor=floor(5), limit="1: page 1",
    )  # fmt: skip
    yield Bar(
        number="11", case=f"stats over all, {at}", experiment=experiment, figure="ms", of="stats",
        to="stats, live GROUP BY", sense="at most", goal=0.02, floor=floor(0.5), limit="one row for each hour",
        beyond=beyond,
    )  # fmt: skip
    yield from _bulk_bars(engine, experiment, at, quick=quick)


def _bulk_bars(engine: str, experiment: str, at: str, *, quick: bool) -> Iterator[Bar]:
    server = engine == "postgresql"
    for form in ("CSV",) if quick else ("CSV", "JSONL"):
        yield Bar(
            number="12", case=f"export, {form}, {at}", experiment=experiment, figure="rows_per_s",
            of=f"export {form}", to="COPY to CSV" if server else "scan", sense="at least", goal=0.6,
            floor=0.2 if quick else None, limit="1: the engine's own " + ("COPY" if server else "scan"),
        )  # fmt: skip
    yield Bar(
        number="12", case=f"verify, {at}", experiment=experiment, figure="rows_per_s", of="verify",
        to="read every row", sense="at least", goal=0.4, floor=0.15 if quick else None,
        limit="1: reading the rows",
    )  # fmt: skip


def _memory_bars() -> Iterator[Bar]:
    yield Bar(
        number="13", case="a worker with 1,000,000 events queued, against 10,000", experiment="memory", figure="own_mib",
        of="1,000,000 queued", to="10,000 queued", sense="at most", goal=1.25, limit="1: nothing is kept in memory",
    )  # fmt: skip
    for engine in ENGINES:
        for size in MEMORY_SIZES:
            for what in ("verify", "export CSV"):
                yield Bar(
                    number="13", case=f"{what}, {NAMES[engine]}, {size:,} rows, against 1,000,000",
                    experiment=f"large-{engine}-{size}", figure="peak_mib", of=what, to=what,
                    to_experiment=f"large-{engine}-1000000", sense="at most", goal=1.25,
                    limit="1: memory does not grow with the log", beyond=size > _ASKED_OF_MEMORY,
                )  # fmt: skip


BARS: Final[tuple[Bar, ...]] = tuple(
    sorted(
        chain(
            *(_request_bars(engine) for engine in ENGINES),
            _call_bars(),
            _ingest_bars(),
            *(_size_bars(engine, str(size)) for size in BAR_SIZES for engine in ENGINES),
            *(_size_bars(engine, "quick", quick=True) for engine in ENGINES),
            _memory_bars(),
        ),
        key=lambda bar: int(bar.number),
    )
)


def judge(results: Iterable[Result], bars: Sequence[Bar] = BARS) -> list[Verdict]:
    """What the results say of each bar they speak of."""
    known = {result.experiment: result.samples for result in results}
    return [_verdict(bar, known) for bar in bars if bar.experiment in known]


def _verdict(bar: Bar, known: Mapping[str, Samples]) -> Verdict:
    found = [(value, way) for way in _ways(bar.of, known[bar.experiment]) if (value := _value(bar, way, known))]
    if not found:
        return Verdict(bar, None, None)
    worst = max if bar.sense == "at most" else min
    value, way = worst(found, key=lambda pair: pair[0].median)
    return Verdict(bar, value, None if bar.limit_way is None else _value(bar, bar.limit_way, known), way)


def _ways(name: str, samples: Samples) -> list[str]:
    return [way for way in samples if way.startswith(name[:-1])] if name.endswith("*") else [name]


def _value(bar: Bar, way: str, known: Mapping[str, Samples]) -> Spread | None:
    """The bar's figure for one way, None where there is none."""
    own, other = bar.experiment, bar.to_experiment or bar.experiment
    asked = [(own, way), (other, bar.to), (own, bar.less)]
    sides = [known.get(where, {}).get(name, {}).get(bar.figure, []) for where, name in asked if name is not None]
    if not all(sides):
        return None
    each = ratios(*sides) if bar.to is not None else sides[0]
    return spread(each) if each else None

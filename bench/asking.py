"""What is asked of a log of any size: lookups, first pages, a page far down, statistics, everything out, verification."""

from __future__ import annotations

import itertools
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Final

import psycopg
from sqlalchemy import text

from bench.experiment import Way, Ways
from bench.machine import ROOT
from indelible.events import StoredEvent
from indelible.exporting import Export, pieces
from indelible.queries import Cursor, Filter, Query, Stats
from indelible.stores import urls
from indelible.stores.base import SegmentedStore
from indelible.stores.raw import open_raw
from indelible.verification.run import Request, verify

PAGE_SIZE: Final = 50
#: The page that is far down, or the last but one hundredth of a smaller log.
DEEP: Final = 10_000
_DAY: Final = 86_400_000_000


def timed(call: Callable[[], object], calls: int = 1) -> Mapping[str, float]:
    """One call in ms: the median of so many."""
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        call()
        times.append((time.perf_counter() - began) * 1000)
    return {"ms": median(times)}


def rows_a_second(rows: int, call: Callable[[], object]) -> Mapping[str, float]:
    """One call over so many rows."""
    began = time.perf_counter()
    call()
    return {"rows_per_s": rows / (time.perf_counter() - began)}


def some(store: SegmentedStore, size: int, count: int = 24) -> list[StoredEvent]:
    """Events from all over the log, the same for the same size."""
    chance = random.Random(size)
    found: list[StoredEvent] = []
    for seq in sorted(chance.randrange(size) for _ in range(count)):
        found += next(iter(store.scan(Filter(), first=seq, end=seq + 1)))
    chance.shuffle(found)
    return found


def filters(like: Sequence[StoredEvent]) -> dict[str, list[Filter]]:
    """For every filter of the guide, and ``action``: what to ask for, with values that events of the log have."""
    full = [event for event in like if event.user_id and event.resource_id] or list(like)
    middle = sorted(event.timestamp for event in like)[len(like) // 2]
    week = Filter(start=middle - 3 * _DAY, end=middle + 4 * _DAY)
    alone: dict[str, list[Filter]] = {
        "event_type": [Filter(event_type=(e.event_type,)) for e in full],
        "user_id": [Filter(user_id=(str(e.user_id),)) for e in full],
        "status": [Filter(status=(status,)) for status in ("failure", "denied", "success")],
        "ip_address": [Filter(ip_address=(str(e.ip_address),)) for e in full],
        "resource_type": [Filter(resource_type=e.resource_type) for e in full],
        "resource_id": [Filter(resource_id=e.resource_id) for e in full],
        "resource_type, resource_id": [Filter(resource_type=e.resource_type, resource_id=e.resource_id) for e in full],
        "correlation_id": [Filter(correlation_id=e.correlation_id) for e in full],
        "action": [Filter(action=(e.action,)) for e in full],
        "user_id of nobody": [Filter(user_id=("nobody",))],
    }
    dated = {
        f"{name}, a week": [replace(each, start=week.start, end=week.end) for each in wanted]
        for name, wanted in alone.items()
    }
    return {"(no filter)": [Filter()], "a week": [week], **alone, **dated}


def pages(store: SegmentedStore, size: int, calls: int = 1) -> Ways:
    """A lookup by id, the first page of every filter, and a page far down; each call asks for another value.

    A sample is the median of so many calls.
    """
    like = some(store, size)
    deep = min(DEEP, size // PAGE_SIZE * 99 // 100)
    row = size - deep * PAGE_SIZE + PAGE_SIZE
    (above,) = next(iter(store.scan(Filter(), first=row, end=row + 1)))
    far = Query(cursor=Cursor(above.timestamp, above.seq), page_size=PAGE_SIZE)
    ids = itertools.cycle([event.id for event in like])
    ways: dict[str, Way] = {
        "lookup by id": lambda: timed(lambda: store.get(next(ids)), calls),
        "deep page": lambda: timed(lambda: store.page(far), calls),
    }
    for name, wanted in filters(like).items():
        queries = itertools.cycle([Query(filter=each, page_size=PAGE_SIZE) for each in wanted])
        ways[f"first page: {name}"] = partial(_first_page, store, queries, calls)
    assert len(store.page(far).rows) == PAGE_SIZE
    return ways


def _first_page(store: SegmentedStore, queries: Iterator[Query], calls: int) -> Mapping[str, float]:
    return timed(lambda: store.page(next(queries)), calls)


def statistics(store: SegmentedStore) -> Ways:
    """``/stats`` over everything, and the same counted live by the database. They must agree to the last event."""
    answers: dict[int, Counted] = {}

    def compared(answer: Counted) -> None:
        # Reading is recorded, so the log may have grown by a row or two between the two questions.
        if answers.setdefault(sum(answer[0].values()), answer) != answer:
            raise AssertionError("the statistics are not those of the rows")

    return {
        "stats": lambda: timed(lambda: compared(_told(store.stats(Filter())))),
        "stats, live GROUP BY": lambda: timed(lambda: compared(grouped(store))),
    }


#: Totals by event type, status; the busiest users and addresses.
Counted = tuple[dict[str, int], dict[str, int], list[tuple[str, int]], list[tuple[str, int]]]


def _told(stats: Stats) -> Counted:
    types, statuses = dict(stats.event_type_breakdown), dict(stats.status_breakdown)
    return types, statuses, list(stats.top_users), list(stats.top_ips)


def grouped(store: SegmentedStore) -> Counted:
    """One GROUP BY over all rows for each breakdown that ``/stats`` has, the hourly one included."""
    sqlite = store.engine.dialect.name == "sqlite"
    hour = "timestamp / 3600000000" if sqlite else "date_trunc('hour', timestamp)"
    sums: list[Counter[str]] = []
    with store.engine.connect() as connection:
        # SQLite's view does not show more than the newest segments.
        tables = [f"audit_logs_{part.number}" for part in store.segments()] if sqlite else ["audit_logs"]
        for column in ("event_type", "status", "user_id", "ip_address", hour):
            counted: Counter[str] = Counter()
            for table in tables:
                query = f"SELECT {column}, count(*) FROM {table} GROUP BY 1"
                counted.update({name: n for name, n in connection.execute(text(query)) if name is not None})
            sums.append(counted)
    types, statuses, users, addresses, _ = sums
    return dict(types), dict(statuses), _top(users), _top(addresses)


def _top(counted: Counter[str], most: int = 10) -> list[tuple[str, int]]:
    return sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:most]


def bulk(url: str, size: int) -> Ways:
    """Everything out, and verification, as the commands do it, against the engine's own way of reading the same rows."""
    return {
        **_baselines(url, size),
        **{
            f"export {form}": partial(command, url, size, "export", "--format", form.lower(), "--out", os.devnull)
            for form in ("CSV", "JSONL")
        },
        "verify": lambda: command(url, size, "verify", allowed=(0, 2)),
    }


def bulk_here(url: str, size: int) -> Ways:
    """The same in this process: in a small log, a command would mostly be measured starting."""

    def exported() -> None:
        for _ in pieces(url, Export(Filter(), size, size, "csv"), workers=1):
            pass

    return {
        **_baselines(url, size),
        "export CSV": lambda: rows_a_second(size, exported),
        "verify": lambda: rows_a_second(size, lambda: verify(Request(url=url, now=time.time(), workers=1))),
    }


def _baselines(url: str, size: int) -> Ways:
    name, engine_way = ("scan", _scan) if url.startswith("sqlite") else ("COPY to CSV", _copy)
    return {
        name: lambda: rows_a_second(size, lambda: engine_way(url)),
        "read every row": lambda: rows_a_second(size, lambda: _read(url)),
    }


def command(url: str, size: int, *arguments: str, allowed: Sequence[int] = (0,)) -> Mapping[str, float]:
    """An ``indelible`` command over so many rows: rows a second, and the memory of its largest process."""
    program = [sys.executable, "-c", "from indelible.cli import main; main()", "--database-url", url, *arguments]
    with tempfile.TemporaryDirectory() as data:
        done = subprocess.run(
            [sys.executable, "-m", "bench.peak", *program],
            cwd=ROOT, env={**os.environ, "INDELIBLE_DATA_DIR": data}, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode not in allowed:
        raise RuntimeError(f"indelible {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-500:]}")
    told: dict[str, float] = json.loads(done.stdout)
    return {"rows_per_s": size / told["seconds"], "peak_mib": told["peak_mib"]}


def _scan(url: str) -> None:
    with closing(sqlite3.connect(str(urls.parse(url).database))) as connection:
        numbers = connection.execute("SELECT number FROM audit_segments ORDER BY number").fetchall()
        for (number,) in numbers:
            cursor = connection.execute(f"SELECT * FROM audit_logs_{number} ORDER BY seq")
            while cursor.fetchmany(4096):
                pass


def _copy(url: str) -> None:
    # Not "COPY audit_logs": the order of the log is part of an export.
    query = "COPY (SELECT * FROM audit_logs ORDER BY seq) TO STDOUT (FORMAT CSV)"
    with psycopg.connect(url) as connection, connection.cursor() as cursor, cursor.copy(query) as copy:
        for _ in copy:
            pass


def _read(url: str) -> None:
    with open_raw(url) as raw:
        for _ in raw.rows(0, raw.size()):
            pass

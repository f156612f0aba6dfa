"""Bars 5 and 6: appending, against the engine's own bulk insert of the same rows into the same segment.

* ``sealed``: ``Store.append`` as it is: lock, numbering, hashing, rows, tree, head;
* ``raw``: COPY or ``executemany`` of ready rows, the values made beforehand, a commit for each batch; no tree, no head;
* ``raw, in turns`` (several hosts): the same, each batch behind a lock, as any log must whose numbers have no holes;
* ``encoded`` (PostgreSQL): COPY of blocks that are binary already: what the server takes, whoever asks.

With several hosts each is a process, and the clock runs from the first one's start to the last one's end.
"""

from __future__ import annotations

import itertools
import multiprocessing
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, Final
from uuid import uuid4

import psycopg

from bench.databases import opened
from bench.experiment import Context, Experiment, Way, Ways
from indelible import synthetic
from indelible.events import AuditEvent
from indelible.stores import urls

BATCH: Final = 1_000
_POSTGRES_EPOCH_US: Final = 946_684_800_000_000
#: How a column goes into binary COPY as cheaply as it can, and how it is read back that way.
_AS: Final = {
    "timestamp with time zone": ("int8", f"(extract(epoch FROM {{}}) * 1000000)::bigint - {_POSTGRES_EPOCH_US}"),
    "json": ("text", "{}::text"),
    "bigint": ("int8", "{}"),
    "integer": ("int4", "{}"),
    "smallint": ("int2", "{}"),
}

#: Called when everything is ready and the clock is about to start.
Ready = Callable[[], object]
#: When something began and ended, by a clock that all processes share.
Span = tuple[float, float]


def _at_once() -> None:
    """Nobody to wait for."""


def made(count: int, seed: int = 1) -> list[AuditEvent]:
    """The events to append."""
    return list(itertools.islice(synthetic.events(seed), count))


def append(url: str, given: Sequence[AuditEvent], batch: int, ready: Ready = _at_once) -> Span:
    """When appending began and ended, in a log that has its first segment."""
    writer = uuid4()
    with opened(url) as store:
        store.append(writer, 0, given[:1])
        ready()
        began = time.perf_counter()
        for at in range(1, len(given), batch):
            store.append(writer, at, given[at : at + batch])
        return began, time.perf_counter()


def sqlite_rows(url: str) -> list[Any]:
    """The rows of the first segment but the first, ready for another one."""
    with closing(sqlite3.connect(str(urls.parse(url).database))) as connection:
        return connection.execute("SELECT * FROM audit_logs_0 WHERE seq > 0 ORDER BY seq").fetchall()


def sqlite_raw(url: str, rows: Sequence[Any], batch: int, *, pause: float = 0) -> Span:
    """``executemany`` as the store's own connection would do it; ``pause`` seconds behind each batch."""
    with closing(sqlite3.connect(str(urls.parse(url).database), isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        # Without OR ROLLBACK, SQLite journals every page twice because of the guards.
        insert = f"INSERT OR ROLLBACK INTO audit_logs_0 VALUES ({', '.join('?' * len(rows[0]))})"
        began = time.perf_counter()
        for at in range(0, len(rows), batch):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(insert, rows[at : at + batch])
            connection.execute("COMMIT")
            if pause:
                time.sleep(pause)
        return began, time.perf_counter()


def _columns(connection: psycopg.Connection[Any]) -> list[tuple[str, str, str]]:
    """Name, type in COPY and how to read it, of every column."""
    found = connection.execute(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = 'audit_logs'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
    ).fetchall()
    return [(f'"{name}"', *_AS.get(kind, (kind, "{}"))) for name, kind in found]


def postgres_rows(url: str) -> list[Any]:
    """The rows but the first as values that COPY writes most cheaply."""
    with psycopg.connect(url) as connection:
        read = ", ".join(how.format(name) for name, _, how in _columns(connection))
        return connection.execute(f"SELECT {read} FROM audit_logs WHERE seq > 0 ORDER BY seq").fetchall()


def postgres_blocks(url: str, batch: int = BATCH) -> list[bytes]:
    """The same rows as binary COPY has them, a block for each batch."""
    with psycopg.connect(url, autocommit=True) as connection:
        (last,) = connection.execute("SELECT max(seq) FROM audit_logs").fetchone() or (0,)
        blocks = []
        for at in range(1, last + 1, batch):
            query = f"COPY (SELECT * FROM audit_logs WHERE seq >= {at} AND seq < {at + batch} ORDER BY seq)"
            with connection.cursor() as cursor, cursor.copy(f"{query} TO STDOUT (FORMAT BINARY)") as copy:
                blocks.append(b"".join(bytes(part) for part in copy))
        return blocks


def postgres_raw(
    url: str, rows: Sequence[Any], batch: int, ready: Ready = _at_once, *, in_turns: bool = False, pause: float = 0
) -> Span:
    """COPY of ready values, row by row, ``pause`` seconds behind each batch. ``in_turns``: one batch at a time of all."""
    with psycopg.connect(url, autocommit=True) as connection:
        columns = _columns(connection)
        types = [kind for _, kind, _ in columns]
        into = f"COPY audit_logs ({', '.join(name for name, _, _ in columns)}) FROM STDIN (FORMAT BINARY)"
        ready()
        began = time.perf_counter()
        for at in range(0, len(rows), batch):
            with connection.transaction(), connection.cursor() as cursor:
                if in_turns:
                    cursor.execute("SELECT pg_advisory_xact_lock(1)")
                with cursor.copy(into) as copy:
                    copy.set_types(types)
                    for row in rows[at : at + batch]:
                        copy.write_row(row)
            if pause:
                time.sleep(pause)
        return began, time.perf_counter()


def postgres_encoded(url: str, blocks: Sequence[bytes]) -> Span:
    """COPY of ready bytes, one block for each commit."""
    into = "COPY audit_logs FROM STDIN (FORMAT BINARY)"
    with psycopg.connect(url, autocommit=True) as connection:
        began = time.perf_counter()
        for block in blocks:
            with connection.transaction(), connection.cursor() as cursor, cursor.copy(into) as copy:
                copy.write(block)
        return began, time.perf_counter()


def raw_rows(context: Context, engine: str, count: int) -> list[Any]:
    """So many rows for ``sqlite_raw`` or ``postgres_raw`` into a log with a first segment."""
    model = context.databases.fresh(engine)
    append(model, made(count + 1), BATCH)
    return sqlite_rows(model) if engine == "sqlite" else postgres_rows(model)


@contextmanager
def inserting(
    context: Context, engine: str, rows: Sequence[Any], batch: int, *, pause: float = 0, logs: int = 1
) -> Iterator[None]:
    """A process that stores these rows the bare way, a batch and a pause in turn, into so many logs, one by one."""
    insert = sqlite_raw if engine == "sqlite" else postgres_raw
    fresh = [_with_segment(context, engine) for _ in range(logs)]

    def work() -> None:
        for url in fresh:
            insert(url, rows, batch, pause=pause)

    process = multiprocessing.get_context("fork").Process(target=work, daemon=True)
    process.start()
    try:
        yield
        if not process.is_alive():
            raise RuntimeError("there were not rows enough to insert, or they were not taken")
    finally:
        process.kill()
        process.join()


def _with_segment(context: Context, engine: str) -> str:
    """A log whose first segment is there, with one row in it that no other seed makes."""
    url = context.databases.fresh(engine)
    with opened(url) as store:
        store.append(uuid4(), 0, made(1, seed=-1))
    return url


@contextmanager
def one_writer(context: Context, engine: str) -> Iterator[Ways]:
    """The ways for batches of 1,000, and of 10 and 100 unless it has to be quick."""
    counts = {BATCH: context.pick(40_000, 12_000)} | ({} if context.quick else {100: 8_000, 10: 2_000})
    read, insert = (sqlite_rows, sqlite_raw) if engine == "sqlite" else (postgres_rows, postgres_raw)

    def raw(rows: Sequence[Any], batch: int) -> Mapping[str, float]:
        return _rate(len(rows), insert(_with_segment(context, engine), rows, batch))

    def sealed(given: Sequence[AuditEvent], batch: int) -> Mapping[str, float]:
        return _rate(len(given) - 1, append(context.databases.fresh(engine), given, batch))

    def encoded(blocks: Sequence[bytes], rows: int) -> Mapping[str, float]:
        return _rate(rows, postgres_encoded(_with_segment(context, engine), blocks))

    ways: dict[str, Way] = {}
    for batch, count in counts.items():
        given, model = made(count + 1), context.databases.fresh(engine)
        append(model, given, BATCH)
        ways[f"raw, batch {batch}"] = partial(raw, read(model), batch)
        ways[f"sealed, batch {batch}"] = partial(sealed, given, batch)
        if engine == "postgresql" and batch == BATCH:
            ways[f"encoded, batch {batch}"] = partial(encoded, postgres_blocks(model), count)
    yield ways


@contextmanager
def hosts(context: Context, count: int) -> Iterator[Ways]:
    """So many processes that append to one log at once, and as many that COPY into one segment at once."""
    each = context.pick(20_000, 6_000)
    rows = raw_rows(context, "postgresql", count * each)
    parts = [rows[number * each : (number + 1) * each] for number in range(count)]
    given = [made(each + 1, seed) for seed in range(count)]

    def raw(*, in_turns: bool = False) -> Mapping[str, float]:
        url = _with_segment(context, "postgresql")
        tasks = [partial(postgres_raw, url, part, BATCH, in_turns=in_turns) for part in parts]
        return _rate(len(rows), _together(tasks))

    def sealed() -> Mapping[str, float]:
        url = _with_segment(context, "postgresql")
        return _rate(len(rows), _together([partial(append, url, mine, BATCH) for mine in given]))

    yield {"raw": raw, "raw, in turns": partial(raw, in_turns=True), "sealed": sealed}


def _rate(rows: int, span: Span) -> dict[str, float]:
    return {"rows_per_s": rows / (span[1] - span[0])}


def _together(tasks: Sequence[Callable[[Ready], Span]]) -> Span:
    """Each task in a process of its own, begun together once each is connected: from the first start to the last end."""
    forked = multiprocessing.get_context("fork")
    barrier, told = forked.Barrier(len(tasks)), forked.SimpleQueue()

    def work(task: Callable[[Ready], Span]) -> None:
        told.put(task(lambda: barrier.wait(120)))

    processes = [forked.Process(target=work, args=(task,)) for task in tasks]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise RuntimeError("one of the hosts failed")
    spans = [told.get() for _ in tasks]
    return min(began for began, _ in spans), max(ended for _, ended in spans)


EXPERIMENTS: Final = {
    "ingest-sqlite": Experiment(("6",), partial(one_writer, engine="sqlite")),
    "ingest-postgresql": Experiment(("5",), partial(one_writer, engine="postgresql")),
    "ingest-2-hosts": Experiment(("5",), partial(hosts, count=2)),
    "ingest-4-hosts": Experiment(("5",), partial(hosts, count=4), when="full"),
}

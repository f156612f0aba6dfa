"""Readers and writers at once: pages and statistics under full ingest, ingest under a full export, and who waits for whom.

``slow`` counts what took longer than 100 ms in a sample. On PostgreSQL ``lock_waits`` counts the waits for a lock beyond
100 ms that the server itself reports (``log_lock_waits``, ``deadlock_timeout``); on SQLite readers take no lock that a
writer needs (WAL), so there is no such counter, and ``slow`` says all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Final

import psycopg

from bench import asking
from bench.databases import ENGINES, opened
from bench.experiment import Context, Experiment, Ways
from bench.figures import quantile
from bench.large import grow
from indelible.cli.bench import load, roll_up, writer_of
from indelible.queries import Filter, Query
from indelible.stores.base import SegmentedStore

#: What counts as a wait, in ms.
LIMIT: Final = 100


@contextmanager
def background(url: str, *arguments: str, again: bool = False) -> Iterator[None]:
    """An ``indelible`` command beside what is measured, over and over if it ends; stopped on leaving."""
    program = [sys.executable, "-c", "from indelible.cli import main; main()", "--database-url", url, *arguments]
    loop = ["sh", "-c", 'while "$@"; do :; done', "sh", *program] if again else program
    with tempfile.TemporaryDirectory() as data:
        environment = {**os.environ, "INDELIBLE_DATA_DIR": data}
        process = subprocess.Popen(
            loop, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        # Until the interpreter is up and the command at work.
        time.sleep(1.5)
        try:
            if process.poll() is not None:
                raise RuntimeError(f"indelible {' '.join(arguments)} ended with {process.returncode}")
            yield
        finally:
            os.killpg(process.pid, 15)
            process.wait(30)


def repeated(call: Callable[[], object], seconds: float) -> Mapping[str, float]:
    """Calls for so many seconds: p50 and p99 in ms, and how many took longer than a wait may."""
    times: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        times.append(asking.timed(call)["ms"])
    return {
        "p50_ms": quantile(times, 0.5),
        "p99_ms": quantile(times, 0.99),
        "most_ms": max(times),
        "slow": sum(each > LIMIT for each in times),
    }


def appending(store: SegmentedStore, seconds: float) -> Mapping[str, float]:
    """Appends for so many seconds."""
    times: list[float] = []
    rows = 0
    until = time.perf_counter() + seconds
    for done in load(store, 1 << 40, seed=2):
        times.append(done.seconds * 1000)
        rows += done.rows
        if time.perf_counter() > until:
            break
    return {
        "rows_per_s": rows / sum(times) * 1000,
        "p99_ms": quantile(times, 0.99),
        "most_ms": max(times),
        "slow": sum(each > LIMIT for each in times),
    }


class LockWaits:
    """How many waits for a lock beyond the limit the server has reported, for one database."""

    def __init__(self, url: str) -> None:
        self._url = url
        with psycopg.connect(url, autocommit=True) as connection:
            for name, value in (("log_lock_waits", "on"), ("deadlock_timeout", f"{LIMIT}ms")):
                connection.execute(f"ALTER DATABASE \"{connection.info.dbname}\" SET {name} = '{value}'")

    def count(self) -> int:
        """Over the life of the server; the log lies in its data directory, where only the server may read it."""
        with psycopg.connect(self._url) as connection:
            row = connection.execute(
                "SELECT array_length(regexp_split_to_array(pg_read_file(current_setting('data_directory') || '/log'),"
                " 'still waiting for'), 1) - 1"
            ).fetchone()
            return 0 if row is None else int(row[0])


@contextmanager
def together(context: Context, engine: str) -> Iterator[Ways]:
    """A log of some segments, asked and loaded at once."""
    url = context.databases.fresh(engine)
    seconds = context.pick(8, 2)
    with opened(url) as store:
        grow(store, context.pick(524_288, 65_536))
        roll_up(store)
    # After the settings of the database have changed, so that every session has them.
    waits = LockWaits(url) if engine == "postgresql" else None
    with opened(url) as store:
        newest = Query(filter=Filter(event_type=("data_modify",)), page_size=asking.PAGE_SIZE)
        asked: dict[str, Callable[[], object]] = {
            "pages": lambda: store.page(newest),
            "statistics": lambda: store.stats(Filter()),
        }

        def alone(call: Callable[[], object]) -> Mapping[str, float]:
            # In a service the follower does it all the time; the loads of earlier samples have not.
            roll_up(store)
            return repeated(call, seconds)

        def counted(sample: Callable[[], Mapping[str, float]]) -> Mapping[str, float]:
            if waits is None:
                return sample()
            before = waits.count()
            return {**sample(), "lock_waits": waits.count() - before}

        def under_ingest(call: Callable[[], object]) -> Mapping[str, float]:
            roll_up(store)
            rows = store.position(writer_of(1)) + 10_000_000
            with background(url, "bench", "load", "--rows", str(rows)):
                return repeated(call, seconds)

        def under_export() -> Mapping[str, float]:
            with background(url, "export", "--out", os.devnull, again=True):
                return appending(store, seconds)

        yield {
            **{f"{name}, alone": partial(alone, call) for name, call in asked.items()},
            **{
                f"{name}, under full ingest": partial(counted, partial(under_ingest, call))
                for name, call in asked.items()
            },
            "ingest, alone": partial(appending, store, seconds),
            "ingest, under a full export": partial(counted, under_export),
        }


EXPERIMENTS: Final = {
    f"together-{each}": Experiment(("together",), partial(together, engine=each), rounds=3, when="full")
    for each in ENGINES
}

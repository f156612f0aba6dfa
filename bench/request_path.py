"""Bars 1, 2, 3 and 7: what auditing does to an application's requests, in real uvicorn processes on the loopback.

``requests-*``: so many requests as fast as eight connections get answers. ``cpu_us`` is the CPU time of the server's
process and its drainer's for each request, until the last event is stored; ``loop_us``, ``drainer_us`` and so on that of its
threads. ``rps`` counts answers. ``stored-*``: the same in turns so long that the last batch, which waits for company, does
not weigh on ``stored_rps``, which takes the time until the last event is in the database; ``lost`` counts the events of a
peer that never came. ``latency-*`` and ``catching-up-*``: requests by the clock, at a quarter of what the bare application
can.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Final

from bench.apps import LEAST, READY
from bench.databases import ENGINES
from bench.experiment import Context, Experiment, Ways
from bench.ingest import BATCH, inserting, raw_rows
from bench.serving import Served, backlog, draining, served
from indelible.directory import oldest_waiting
from indelible.stores import urls

#: The bare application while a process stores as many rows as it answers requests, in the engine's bare way.
INSERTS: Final = "bare, beside bare inserts"
#: The audited one, whose journal nobody reads, while a process stores rows the bare way as fast as they are taken.
FLOOD: Final = "audited, beside bare inserts at full speed"
#: Seconds between two batches of such rows, as between two of a writer process.
_PAUSE: Final = 0.2
#: Rows for a log, and how many logs: more than an engine takes while a sample is measured.
_ROWS: Final = 60_000
_LOGS: Final = 10
#: Nobody listens there.
_NOWHERE: Final = "postgresql://postgres@127.0.0.1:9/nowhere"
_DRESSES: Final = ("bare", "ASGI", "BaseHTTPMiddleware", LEAST, READY, "middleware alone", "indelible")
_QUICK: Final = ("bare", "ASGI", "BaseHTTPMiddleware", "indelible")
PEERS: Final = ("bh-fastapi-audit", "auditlog-fastapi")
#: Behind a dress: its drainer is a process of its own.
APART: Final = ", writer process"


@contextmanager
def _served(context: Context, engine: str, dresses: Iterable[str]) -> Iterator[Mapping[str, Served]]:
    """Every dress, and ours with a writer process as well, served at once."""
    with ExitStack() as stack:

        def serve(dress: str, *, process: bool = False) -> Served:
            data = context.folder / f"{engine}-{dress}-{process}".replace(" ", "-")
            one = stack.enter_context(served(dress, context.databases.fresh(engine), data, process=process))
            one.load(200)
            one.settle()
            return one

        apart = () if context.quick else (READY, "indelible")
        yield {name: serve(name) for name in dresses} | {name + APART: serve(name, process=True) for name in apart}


@contextmanager
def requests(context: Context, engine: str) -> Iterator[Ways]:
    """Every dress loaded in turn."""
    count = context.pick(750, 200)
    with _served(context, engine, _QUICK if context.quick else (*_DRESSES, *PEERS)) as there:
        yield {name: partial(_loaded, one, count // 2 if name in PEERS else count) for name, one in there.items()}


@contextmanager
def stored(context: Context, engine: str) -> Iterator[Ways]:
    """Ours and the peers' loaded in turn."""
    count = context.pick(6_000, 1_500)
    with _served(context, engine, (READY, "indelible", *PEERS)) as there:
        yield {name: partial(_until_stored, one, count // 4 if name in PEERS else count) for name, one in there.items()}


def _loaded(one: Served, count: int) -> Mapping[str, float]:
    cpu = one.cpu()
    told = one.load(count)
    _, lost = one.settle()
    used = one.cpu()
    spent = {name: (used[name] - cpu[name]) / count * 1e6 for name in used}
    return {
        "cpu_us": spent.pop("all"),
        "rps": count / told["seconds"],
        **({"lost": lost} if one.dress in PEERS else {}),
        **{f"{name}_us": value for name, value in spent.items()},
    }


def _until_stored(one: Served, count: int) -> Mapping[str, float]:
    began = time.perf_counter()
    told = one.load(count)
    # What the client needs besides is not the server's time.
    besides = time.perf_counter() - began - told["seconds"]
    until, lost = one.settle()
    return {"stored_rps": (count - lost) / (until - began - besides), "lost": lost}


class _Steady:
    """Dresses served side by side, each asked at a quarter of the rate that the bare application can, one by one."""

    def __init__(self, context: Context, experiment: str, stack: ExitStack) -> None:
        self._context, self._experiment, self._stack = context, experiment, stack
        self.bare = self.serve("bare", "", "bare")
        self.bare.load(1000)
        self.rate = round(2000 / self.bare.load(2000)["seconds"] / 4)

    def serve(self, name: str, url: str, dress: str = "indelible", *, process: bool = False) -> Served:
        """One dress, whose drainer, if it is a process, is started when it is wanted."""
        data = self._context.folder / f"{self._experiment}-{name}"
        return self._stack.enter_context(served(dress, url, data, process=process, writer=False))

    def __call__(self, one: Served) -> dict[str, float]:
        """A sample."""
        told = one.load(self.rate * self._context.pick(6, 2), rate=self.rate)
        return {name: told[name] for name in ("p50_ms", "p99_ms", "p999_ms")}


@contextmanager
def latency(context: Context, engine: str) -> Iterator[Ways]:
    """The bare application alone and beside bare inserts, the audited one in calm and without its database."""
    with ExitStack() as stack:
        steady = _Steady(context, f"latency-{engine}", stack)
        least = steady.serve("least", "", LEAST)
        thread = steady.serve("thread", context.databases.fresh(engine))
        apart = steady.serve("apart", context.databases.fresh(engine), process=True)
        stopped = steady.serve("stopped", context.databases.fresh("sqlite") if engine == "sqlite" else _NOWHERE)
        for one in (least, thread, apart, stopped):
            one.load(200)
        rows = raw_rows(context, engine, _ROWS)

        def beside_inserts() -> Mapping[str, float]:
            with inserting(context, engine, rows, round(steady.rate * _PAUSE), pause=_PAUSE):
                return steady(steady.bare)

        def elsewhere() -> Mapping[str, float]:
            with draining(apart.url, apart.data):
                return _settled(apart, steady(apart))

        def without_database() -> Mapping[str, float]:
            if engine == "postgresql":
                return steady(stopped)
            with closing(sqlite3.connect(str(urls.parse(stopped.url).database), isolation_level=None)) as holder:
                holder.execute("BEGIN IMMEDIATE")
                sample = steady(stopped)
                holder.execute("ROLLBACK")
            return _settled(stopped, sample)

        yield {
            "bare": lambda: steady(steady.bare),
            INSERTS: beside_inserts,
            LEAST: lambda: steady(least),
            "thread": lambda: _settled(thread, steady(thread)),
            "writer process": elsewhere,
            "database stopped": without_database,
        }


@contextmanager
def catching_up(context: Context, engine: str) -> Iterator[Ways]:
    """The same load while the disk and the processors are full: apart from the others, which would feel it long after."""
    with ExitStack() as stack:
        steady = _Steady(context, f"catching-up-{engine}", stack)
        behind, unread = (
            steady.serve(name, context.databases.fresh(engine), process=True) for name in ("behind", "unread")
        )
        for one in (behind, unread):
            one.load(200)
        rows = raw_rows(context, engine, _ROWS)

        def beside_a_flood() -> Mapping[str, float]:
            with inserting(context, engine, rows, BATCH, logs=_LOGS):
                return steady(unread)

        def beside_its_writer() -> Mapping[str, float]:
            # More than the writer can store meanwhile; what it leaves is there for the next round.
            missing = context.pick(250_000, 60_000) - oldest_waiting(behind.data).events
            if missing > 0:
                backlog(behind.url, behind.data, missing)
                os.sync()  # in life it is hours old, and long on the disk
            with draining(behind.url, behind.data):
                told = steady(behind)
            return {**told, "left": oldest_waiting(behind.data).events}

        yield {
            "bare": lambda: steady(steady.bare),
            "audited, undisturbed": lambda: steady(unread),
            FLOOD: beside_a_flood,
            "catching up": beside_its_writer,
        }


def _settled(one: Served, sample: Mapping[str, float]) -> Mapping[str, float]:
    one.settle()
    return sample


EXPERIMENTS: Final = {
    **{f"requests-{each}": Experiment(("1", "2", "7"), partial(requests, engine=each), turns=8) for each in ENGINES},
    **{f"stored-{each}": Experiment(("7",), partial(stored, engine=each), when="full") for each in ENGINES},
    **{f"latency-{each}": Experiment(("3",), partial(latency, engine=each), when="full") for each in ENGINES},
    **{f"catching-up-{each}": Experiment(("3",), partial(catching_up, engine=each), when="full") for each in ENGINES},
}

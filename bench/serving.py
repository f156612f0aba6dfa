"""The application in one of its dresses as a real uvicorn process, loaded from another, its CPU time read."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Final

import psycopg

from backend.demo.serving import Server
from bench.apps import READY, SECRET, THREADS, WAY
from bench.machine import ROOT, cpu_seconds, thread_seconds
from indelible.directory import drainer_status, oldest_waiting
from indelible.stores import urls

#: Fewer events than this wait in the journal for the flush interval and not for the store.
_BATCH: Final = 10
#: Seconds without any progress after which an event counts as lost; longer than every interval and time-out involved.
_PATIENCE: Final = 12.0
#: The dresses whose events a journal of ours holds.
_OURS: Final = frozenset({"indelible", READY})
#: Where the peers keep their rows.
_TABLES: Final = {"bh-fastapi-audit": "bh_audit_events", "auditlog-fastapi": "audit_logs"}


class Served:
    """One dress, served; ``data`` is its data directory and ``url`` its database."""

    def __init__(
        self,
        dress: str,
        url: str,
        data: Path,
        server: Server,
        client: subprocess.Popen[str],
        writer: subprocess.Popen[bytes] | None,
    ) -> None:
        self.dress = dress
        self.url = url
        self.data = data
        self._server = server
        self._client = client
        self._writer = writer
        self._sent = 0

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU so far: of the ``loop``'s thread, of each thread of ours by its name, of a writer, of ``all``."""
        used = {"all": cpu_seconds(self._server.pid)}
        if self._writer is not None:
            used["writer"] = cpu_seconds(self._writer.pid)
            used["all"] += used["writer"]
        note = self.data.with_suffix(".threads")
        names: dict[str, str] = json.loads(note.read_text()) if note.exists() else {}
        for thread, seconds in thread_seconds(self._server.pid).items():
            if thread == self._server.pid:
                used["loop"] = seconds
            elif (name := names.get(str(thread), "")).startswith("indelible-"):
                used[name.removeprefix("indelible-")] = seconds
        return used

    def load(self, requests: int, *, rate: float | None = None) -> dict[str, float]:
        """Requests from the client's process; what it says of them. RuntimeError if any failed."""
        assert self._client.stdin is not None
        assert self._client.stdout is not None
        asked = {"requests": requests, "rate": rate, "connections": 8 if rate is None else 64}
        with suppress(BrokenPipeError):  # told below
            print(json.dumps(asked), file=self._client.stdin, flush=True)
        if not (line := self._client.stdout.readline()):
            raise RuntimeError(f"the client of {self.dress} has given up; what it said is above")
        told: dict[str, float] = json.loads(line)
        if told["failed"]:
            raise RuntimeError(f"{told['failed']} of {requests} requests failed for {self.dress}")
        self._sent += requests
        return told

    def settle(self) -> tuple[float, int]:
        """Wait until what was sent is stored, but for what waits for the flush interval.

        Returns when the last of it was, by ``time.perf_counter``, and how many events never will be: none has arrived
        for some seconds. A log of ours that loses one is a RuntimeError.
        """
        left, since = self._waiting(), time.perf_counter()
        while left >= (_BATCH if self.dress in _OURS else 1):
            time.sleep(0.01)
            before, left = left, self._waiting()
            if left != before:
                since = time.perf_counter()
            elif time.perf_counter() - since > _PATIENCE:
                if self.dress in _OURS:
                    raise RuntimeError(
                        f"{left:,} events are not stored, and nothing has happened for {_PATIENCE:.0f} s"
                    )
                self._sent -= left
                return since, left
        return since, 0

    def _waiting(self) -> int:
        if self.dress in _OURS:
            return oldest_waiting(self.data).events
        if self.dress in _TABLES:
            return self._sent - _rows(self.url, _TABLES[self.dress])
        return 0


def _rows(url: str, table: str) -> int:
    query = f"SELECT count(*) FROM {table}"
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(str(urls.parse(url).database), timeout=30)) as connection:
            return int(connection.execute(query).fetchone()[0])
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()
        return 0 if row is None else int(row[0])


def _environment(url: str, data: Path, *, process: bool) -> dict[str, str]:
    return {
        "INDELIBLE_DATABASE_URL": url,
        "INDELIBLE_DATA_DIR": str(data),
        "INDELIBLE_JWT_SECRET": SECRET,
        "INDELIBLE_AUTO_MIGRATE": "true",
        "INDELIBLE_SERVICE_NAME": "fog-compute",
        "INDELIBLE_WRITER": "process" if process else "thread",
    }


@contextmanager
def served(dress: str, url: str, data: Path, *, process: bool = False, writer: bool = True) -> Iterator[Served]:
    """One dress while it is entered. With ``process`` the drainer is one, started here unless ``writer`` is false."""
    environment = _environment(url, data, process=process)
    theirs = url
    if dress in _TABLES:
        driver = (
            {True: "aiosqlite", False: "asyncpg"}
            if dress == "auditlog-fastapi"
            else {True: "pysqlite", False: "psycopg"}
        )
        theirs = _with_driver(url, driver[url.startswith("sqlite")])
    environment |= {WAY: dress, "BENCH_URL": theirs, THREADS: str(data.with_suffix(".threads"))}
    with (
        Server("bench.apps:create", env=environment, options=("--factory", "--no-access-log")) as server,
        draining(url, data) if process and writer else nullcontext() as drainer,
        _client(server.port) as client,
    ):
        yield Served(dress, url, data, server, client, drainer)


@contextmanager
def _client(port: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "bench.load", str(port)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process


@contextmanager
def draining(url: str, data: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``indelible writer``, from the moment it has the directory."""
    command = [sys.executable, "-c", "from indelible.cli import main; main()", "writer"]
    environment = {**_inherited(), **_environment(url, data, process=True)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _until(lambda: drainer_status(data) is not None, "the writer did not start")
        yield process
    finally:
        process.terminate()
        process.wait(60)


def backlog(url: str, data: Path, events: int) -> bytes:
    """Leave so many events in the journal of a process that has ended; return what it said of its memory."""
    command = [sys.executable, "-m", "bench.backlog", str(events)]
    environment = {**_inherited(), **_environment(url, data, process=True)}
    return subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=300, stdout=subprocess.PIPE).stdout


def _inherited() -> Mapping[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("INDELIBLE_")}


def _until(done: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + 30
    while not done():
        if time.monotonic() > deadline:
            raise RuntimeError(otherwise)
        time.sleep(0.01)


def _with_driver(url: str, driver: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}+{driver}://{rest}"

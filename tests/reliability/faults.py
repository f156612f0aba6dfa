"""Stores and files that fail where they are told to, before or after the work is done."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal

import psycopg

from indelible.errors import StoreUnavailable
from indelible.events import AuditEvent
from indelible.journal.reading import JournalReader
from indelible.journal.writing import Journal
from indelible.stores.postgres import PostgresStore
from indelible.stores.sqlite import SqliteStore
from indelible.testing import MemoryStore

Step = Literal["append", "fsync", "begin", "copy", "commit", "ack"]


class Fuse:
    """Blows at one step: the ``after + 1``-th time it is passed, and ``times`` times in all."""

    def __init__(self, step: Step, *, persisted: bool, after: int = 0, times: int = 1) -> None:
        self.step, self.persisted = step, persisted
        self._after, self._left = after, times
        self._lock = threading.Lock()
        self.blown = 0

    def around(self, step: Step, error: Exception, work: Callable[[], Any]) -> Any:
        """Do ``work``; where the fuse blows, raise ``error`` instead of it, or after it."""
        if not self._blows(step):
            return work()
        if self.persisted:
            work()
        raise error

    def _blows(self, step: Step) -> bool:
        with self._lock:
            if step != self.step:
                return False
            self._after -= 1
            if self._after >= 0 or self._left <= 0:
                return False
            self._left -= 1
            self.blown += 1
            return True


class FaultySqlite(SqliteStore):
    """SQLite behind a connection with a fuse."""

    fuse: Fuse | None = None

    def _connected(self) -> Any:
        connection = super()._connected()
        return connection if self.fuse is None else _SqliteConnection(connection, self.fuse)


class _SqliteConnection:
    def __init__(self, connection: sqlite3.Connection, fuse: Fuse) -> None:
        self._connection, self._fuse = connection, fuse

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: str, *more: Any) -> Any:
        return self._pass(_sqlite_step(sql), lambda: self._connection.execute(sql, *more))

    def _pass(self, step: Step | None, work: Callable[[], Any]) -> Any:
        return work() if step is None else self._fuse.around(step, sqlite3.OperationalError("disk I/O error"), work)


def _sqlite_step(sql: str) -> Step | None:
    if sql.startswith("BEGIN"):
        return "begin"
    if sql.startswith("INSERT") and "INTO audit_logs_" in sql:
        return "copy"
    return "commit" if sql.startswith("COMMIT") else None


class FaultyPostgres(PostgresStore):
    """PostgreSQL behind a connection with a fuse. What blows takes the connection with it, but for the beginning."""

    fuse: Fuse | None = None

    def _connected(self) -> Any:
        connection = super()._connected()
        return connection if self.fuse is None else _PostgresConnection(connection, self.fuse)


class _PostgresConnection:
    def __init__(self, connection: psycopg.Connection[Any], fuse: Fuse) -> None:
        self._connection, self._fuse = connection, fuse

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: Any, *more: Any) -> Any:
        step: Step | None = "begin" if "pg_advisory" in str(sql) else None
        return self._pass(step, lambda: self._connection.execute(sql, *more))

    def cursor(self) -> Any:
        return _PostgresCursor(self._connection.cursor(), self)

    def _pass(self, step: Step | None, work: Callable[[], Any]) -> Any:
        if step is None:
            return work()
        try:
            return self._fuse.around(step, psycopg.OperationalError("server closed the connection unexpectedly"), work)
        except psycopg.OperationalError:
            if step != "begin":
                self._connection.close()
            raise


class _PostgresCursor:
    def __init__(self, cursor: psycopg.Cursor[Any], connection: _PostgresConnection) -> None:
        self._cursor, self._owner = cursor, connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def __enter__(self) -> _PostgresCursor:
        return self

    def __exit__(self, *_: object) -> None:
        self._cursor.close()

    def copy(self, sql: str) -> Any:
        return _Copy(self._cursor.copy(sql), self._owner)

    def execute(self, sql: str, *more: Any) -> Any:
        step: Step | None = "commit" if sql == "COMMIT" else None
        return self._owner._pass(step, lambda: self._cursor.execute(sql, *more))


class _Copy:
    def __init__(self, copy: Any, owner: _PostgresConnection) -> None:
        self._copy, self._owner = copy, owner

    def __enter__(self) -> Any:
        return self._copy.__enter__()

    def __exit__(self, *told: Any) -> Any:
        return self._owner._pass("copy", lambda: self._copy.__exit__(*told))


class FaultyMemory(MemoryStore):
    """A store in memory that blocks for as long as ``blocked`` is cleared, and counts how many wait."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.free.set()
        self.asked = threading.Event()

    def append(self, writer_id: Any, first: int, events: Sequence[AuditEvent], *, after: int | None = None) -> int:
        """See ports.Store."""
        self.asked.set()
        if not self.free.wait(60):
            raise StoreUnavailable("blocked for a minute")
        return super().append(writer_id, first, events, after=after)


def blow_files(patch: Any, fuse: Fuse) -> None:
    """Put the fuse into the journal's files: append, fsync and the drainer's mark."""
    fdatasync = os.fdatasync

    def sync(fd: int) -> None:
        fuse.around("fsync", OSError(5, "Input/output error"), lambda: fdatasync(fd))

    def mark(reader: JournalReader, count: int, **told: Any) -> None:
        def work() -> None:
            marked(reader, count, **told)

        if count > reader.stored:
            fuse.around("ack", OSError(5, "Input/output error"), work)
        else:
            work()

    marked = JournalReader.mark_stored
    appended = Journal.append

    def append(journal: Journal, payload: bytes, **told: Any) -> int:
        if not isinstance(journal._file.map, _Map):
            journal._tail.stop()
            journal._file.map = _Map(journal._file.map, fuse)  # type: ignore[assignment]
            journal._aim(journal._file, journal._tail.offset, journal._tail.number)
        return appended(journal, payload, **told)

    patch.setattr(os, "fdatasync", sync)
    patch.setattr(JournalReader, "mark_stored", mark)
    patch.setattr(Journal, "append", append)


class _Map:
    """A data file's map, or what stands in for it, with a fuse."""

    def __init__(self, real: Any, fuse: Fuse) -> None:
        self._real, self._fuse = real, fuse

    def __setitem__(self, place: slice, data: bytes) -> None:
        self._fuse.around("append", OSError(5, "Input/output error"), lambda: self._real.__setitem__(place, data))

    def close(self) -> None:
        self._real.close()

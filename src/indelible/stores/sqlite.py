"""The log in one SQLite file: no server, several processes."""

from __future__ import annotations

import sqlite3
from itertools import chain
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import Connection, Engine, create_engine, event, text

from indelible.errors import SchemaOutOfDate, StoreUnavailable
from indelible.integrity.edge import RightEdge
from indelible.integrity.tiles import Tile
from indelible.native import native
from indelible.ports import Finding
from indelible.stores import sqlite_functions, sqlite_schema
from indelible.stores.base import Prepare, SegmentedStore
from indelible.stores.batch import Batch, Offer, Part, edge_at, plan
from indelible.stores.faults import UPGRADE_HINT
from indelible.stores.guards import sqlite_closed_guard
from indelible.stores.schema import COLUMNS
from indelible.stores.wal import use_wal

#: Seconds to wait for another writer's transaction, which takes milliseconds, and tenths of a second in a thread beside an
#: event loop that never rests.
BUSY_TIMEOUT: Final = 10.0
#: Rows in one statement, at the most. Beside a busy event loop each statement waits for the interpreter when it is done: row
#: by row, a thread would fall behind for ever.
_TOGETHER: Final = 50
_PLACES: Final = f"({', '.join('?' * len(COLUMNS))})"
#: NULL to SQLite, as every number that is none. For None, and for bytes but not a bytearray, Python's driver first looks for
#: adapters, attributes and their absence, which costs as much as the rest of binding a row.
_NULL: Final = float("nan")


class SqliteStore(SegmentedStore):
    """ports.Store over a SQLite file in WAL mode, ``synchronous=FULL``: what ``append`` returned survives power loss.

    Segments are the tables ``audit_logs_<n>``; the next one is made in the transaction whose rows need it.
    """

    def __init__(self, url: str, *, segment_rows: int = 65_536, prepare: Prepare | None = None) -> None:
        super().__init__(url, segment_rows=segment_rows, prepare=prepare)
        self._path = Path(str(self._address.database))
        self._writer: sqlite3.Connection | None = None

    def open(self) -> None:
        """As ``SegmentedStore.open``. The file is made only if ``prepare`` was given."""
        if self._prepare is None and not self._path.exists():
            raise SchemaOutOfDate(f"there is no audit log at {self._path}", hint=UPGRADE_HINT)
        if not self._path.parent.is_dir():
            raise StoreUnavailable(f"the folder {self._path.parent} does not exist", hint="make it")
        super().open()

    def _reading_engine(self) -> Engine:
        engine = self._preparing_engine()

        @event.listens_for(engine, "connect")
        def read_only(connection: sqlite3.Connection, _: object) -> None:
            connection.execute("PRAGMA query_only = ON")
            sqlite_functions.register(connection)

        return engine

    def _preparing_engine(self) -> Engine:
        # hide_parameters: a traceback must not hold what is in the log.
        return create_engine(
            self._address, connect_args={"timeout": BUSY_TIMEOUT}, pool_size=4, max_overflow=4, hide_parameters=True
        )

    def _lock_file(self) -> Path:
        return self._path.with_name(f"{self._path.name}-publisher")

    def _connected(self) -> sqlite3.Connection:
        if self._engine is None:
            raise StoreUnavailable("the store is not open", hint="call open() first")
        if self._writer is None:
            # mode=rw: a file that was deleted must not come back empty.
            self._writer = sqlite3.connect(
                f"{self._path.as_uri()}?mode=rw",
                uri=True,
                timeout=BUSY_TIMEOUT,
                isolation_level=None,
                check_same_thread=False,
            )
            use_wal(self._writer)
            self._writer.execute("PRAGMA synchronous = FULL")
            self._writer.execute("PRAGMA journal_size_limit = 67108864")
        return self._writer

    def _discard_writer(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()

    def _append(self, offered: Offer) -> tuple[int, RightEdge]:
        writer = self._connected()
        try:
            head = _begin(writer)
            self._met(head[0])
            if self._is_far(head[0]):
                # What is stored does not change: it is read without the lock, which every other writer would wait for.
                writer.execute("ROLLBACK")
                self._edge = self._edge_at(writer, head)
                head = _begin(writer)
            last = _row(
                writer,
                "SELECT writer_seq, size FROM audit_heads WHERE writer_id = ? ORDER BY size DESC LIMIT 1",
                (str(offered.writer_id),),
            )
            edge = self._edge_at(writer, head)
            batch = plan(
                offered,
                edge=edge,
                position=0 if last is None else last[0] + 1,
                last_id=lambda: None if last is None else _id_at(writer, last[1] - 1),
            )
            if batch is not None:
                self._write(writer, batch)
            # Crash before here ⇒ none of it happened; after ⇒ all of it, and the replay finds the writer's position.
            writer.execute("COMMIT")
        except BaseException:
            self._abandon(writer)
            raise
        return (edge.size, edge) if batch is None else (batch.end, batch.edge)

    def _edge_at(self, writer: sqlite3.Connection, head: tuple[int, bytes | None]) -> RightEdge:
        return edge_at(
            *head,
            self._edge,
            read_tile=lambda tile: _tile(writer, tile),
            read_leaf_hashes=lambda first, end: _leaf_hashes(writer, first, end),
        )

    def _abandon(self, writer: sqlite3.Connection) -> None:
        try:
            if writer.in_transaction:
                writer.execute("ROLLBACK")
        except sqlite3.Error:
            # Closing rolls back as well, and the error that brought us here is the one to report.
            self._discard_writer()

    def _write(self, writer: sqlite3.Connection, batch: Batch) -> None:
        size = batch.first
        number, start, end = self._newest_segment(writer)
        width = len(COLUMNS)
        for part in batch.parts():
            values, taken = _values(part), 0
            while taken < len(part):
                if size == end:
                    number, start, end = self._make_segment(
                        writer, number + 1, end, end + (end - start or self._segment_rows)
                    )
                some = min(_TOGETHER, end - size, len(part) - taken)
                # OR ROLLBACK as in the insert guards: nothing in the statement may end in ABORT, which would halve the rate.
                writer.execute(
                    f"INSERT OR ROLLBACK INTO audit_logs_{number} VALUES {', '.join([_PLACES] * some)}",
                    values[taken * width : (taken + some) * width],
                )
                taken += some
                size += some
                if size == end:
                    self._close_segment(writer, number)
        writer.executemany(
            "INSERT INTO audit_tiles (level, number, hashes) VALUES (?, ?, ?)",
            [(tile.level, tile.index, hashes) for tile, hashes in batch.tiles],
        )
        head = batch.head
        writer.execute(
            "INSERT INTO audit_heads (size, root, writer_id, writer_seq) VALUES (?, ?, ?, ?)",
            (head.size, head.root, str(head.writer_id), head.writer_seq),
        )

    def _newest_segment(self, writer: sqlite3.Connection) -> tuple[int, int, int]:
        found = writer.execute(
            "SELECT number, first_seq, end_seq FROM audit_segments ORDER BY number DESC LIMIT 1"
        ).fetchone()
        return found or (-1, 0, 0)

    def _make_segment(self, writer: sqlite3.Connection, number: int, first: int, end: int) -> tuple[int, int, int]:
        for statement in sqlite_schema.segment(number, first, end).values():
            writer.execute(statement)
        writer.execute("INSERT INTO audit_segments (number, first_seq, end_seq) VALUES (?, ?, ?)", (number, first, end))
        numbers = [n for (n,) in writer.execute("SELECT number FROM audit_segments")]
        writer.execute("DROP VIEW IF EXISTS audit_logs")
        writer.execute(sqlite_schema.view(numbers)["audit_logs"])
        return number, first, end

    def _close_segment(self, writer: sqlite3.Connection, number: int) -> None:
        writer.execute(
            f"INSERT INTO audit_segment_spans SELECT {number}, min(timestamp), max(timestamp) FROM audit_logs_{number}"
        )
        for statement in sqlite_closed_guard(number).values():
            writer.execute(statement)

    def _check(self, connection: Connection) -> list[Finding]:
        stored = {r.name: r.sql for r in connection.execute(text("SELECT name, sql FROM sqlite_master"))}
        if not {"audit_segments", "audit_segment_spans"} <= stored.keys():
            # Without them nothing says which segments there should be.
            return sqlite_schema.compare(stored, [])
        return sqlite_schema.compare(stored, self._segments(connection))


def _values(part: Part) -> list[Any]:
    """The values of its rows, one row behind the other."""
    if (given := part.compiled) is not None:
        values: list[Any] | None = native.bound(*given, _NULL)
        if values is not None:
            return values
    rows = part.rows(epoch=0, ids=msgspec.to_builtins, blob=bytearray)
    return [_NULL if value is None else value for value in chain.from_iterable(rows)]


def _begin(writer: sqlite3.Connection) -> tuple[int, bytes | None]:
    """Take the log's lock, one writer at a time in the whole file; return size and root of the newest head."""
    writer.execute("BEGIN IMMEDIATE")
    return _row(writer, "SELECT size, root FROM audit_heads ORDER BY size DESC LIMIT 1") or (0, None)


def _row(connection: sqlite3.Connection, query: str, parameters: tuple[Any, ...] = ()) -> Any:
    return connection.execute(query, parameters).fetchone()


def _tile(connection: sqlite3.Connection, tile: Tile) -> bytes:
    found = _row(connection, "SELECT hashes FROM audit_tiles WHERE level = ? AND number = ?", (tile.level, tile.index))
    return b"" if found is None else found[0]


def _id_at(connection: sqlite3.Connection, seq: int) -> UUID | None:
    part = _row(connection, "SELECT number FROM audit_segments WHERE first_seq <= ? AND end_seq > ?", (seq, seq))
    found = None if part is None else _row(connection, f"SELECT id FROM audit_logs_{part[0]} WHERE seq = ?", (seq,))
    return None if found is None else UUID(found[0])


def _leaf_hashes(connection: sqlite3.Connection, first: int, end: int) -> list[bytes | None]:
    numbers = connection.execute(
        "SELECT number FROM audit_segments WHERE first_seq < ? AND end_seq > ? ORDER BY number", (end, first)
    ).fetchall()
    return [
        leaf_hash
        for (number,) in numbers
        for (leaf_hash,) in connection.execute(
            f"SELECT leaf_hash FROM audit_logs_{number} WHERE seq >= ? AND seq < ? ORDER BY seq", (first, end)
        )
    ]

"""The log in PostgreSQL: a table partitioned by position, for production."""

from __future__ import annotations

import logging
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BigInteger, Connection, Engine, LargeBinary, create_engine, event, text

from indelible.errors import ConfigurationError, StoreUnavailable
from indelible.integrity.edge import RightEdge
from indelible.integrity.tiles import Tile
from indelible.native import native
from indelible.ports import Finding
from indelible.stores import postgres_schema
from indelible.stores.base import Prepare, SegmentedStore
from indelible.stores.batch import Batch, Offer, Part, edge_at, plan
from indelible.stores.schema import COLUMNS, AuditLog, Id, Moment
from indelible.stores.versions import is_there

try:
    import psycopg

    from indelible.stores import pgtypes
    from indelible.stores.pgconnection import PatientConnection, WritingConnection
    from indelible.stores.pgcopy import copied, copy_in
except ImportError as error:
    raise ConfigurationError("PostgreSQL needs psycopg 3", hint="pip install 'indelible[postgres]'") from error

_log = logging.getLogger("indelible.stores.postgres")

#: Keep-alives find a peer that vanished within about half a minute; libpq's names, seconds (the last: milliseconds).
_CONNECT: Final = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
#: Part of each transaction rather than of the session, so that they hold behind a transaction pooler as well. A client that
#: stalls while it holds the lock is thrown out after idle_in_transaction_session_timeout, before the others' lock_timeout.
#: The client's encoding is what a COPY is read in, whatever the URL, the environment or the database's own say.
_SETTINGS: Final = (
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;"
    " SET LOCAL client_encoding = 'UTF8'; SET LOCAL synchronous_commit = on; SET LOCAL timezone = 'UTC';"
    " SET LOCAL lock_timeout = '10s';"
    " SET LOCAL statement_timeout = '15s'; SET LOCAL idle_in_transaction_session_timeout = '5s'"
)
_BEGIN: Final = (
    f"{_SETTINGS}; {postgres_schema.LOCK};"
    " SELECT size, root FROM audit_heads ORDER BY size DESC LIMIT 1;"
    " SELECT writer_seq, size FROM audit_heads WHERE writer_id = '{writer}' ORDER BY size DESC LIMIT 1;"
    " SELECT first_seq, end_seq FROM audit_segments ORDER BY number DESC LIMIT 1"
)
_COPY: Final = "COPY audit_logs (" + ", ".join(f'"{c}"' for c in COLUMNS) + ") FROM STDIN (FORMAT BINARY)"
_LOG: Final = AuditLog.__table__
#: Where a segment begins and ends.
_Span = tuple[int, int]
#: ``writer_seq`` and size of the writer's newest head, None for an unknown writer.
_Last = tuple[int, int] | None
#: Size and root of the newest head.
_Head = tuple[int, bytes | None]


class PostgresStore(SegmentedStore):
    """ports.Store over PostgreSQL 14 or later, with psycopg 3.

    Segments are partitions of ``audit_logs``, made by the function ``audit_advance``: the application's role needs
    INSERT, SELECT and EXECUTE on it, nothing more.
    """

    def __init__(self, url: str, *, segment_rows: int = 262_144, prepare: Prepare | None = None) -> None:
        super().__init__(url, segment_rows=segment_rows, prepare=prepare)
        self._writer: WritingConnection | None = None

    def _reading_engine(self) -> Engine:
        # Each statement is its own transaction: readers hold no snapshot.
        engine = self._make_engine(isolation_level="AUTOCOMMIT")

        @event.listens_for(engine, "connect")
        def reading(connection: Any, _: object) -> None:
            pgtypes.register(connection)
            was, connection.autocommit = connection.autocommit, True
            connection.execute("SET timezone = 'UTC'; SET datestyle = 'ISO'; SET default_transaction_read_only = on")
            connection.autocommit = was

        return engine

    def _preparing_engine(self) -> Engine:
        return self._make_engine()

    def _make_engine(self, **options: Any) -> Engine:
        # The URL's own settings win over ours.
        arguments = {key: value for key, value in _CONNECT.items() if key not in self._address.query}
        engine = create_engine(
            self._address,
            connect_args=arguments,
            pool_size=4,
            max_overflow=4,
            pool_timeout=10,
            pool_pre_ping=True,
            hide_parameters=True,  # a traceback must not hold what is in the log
            **options,
        )

        @event.listens_for(engine, "do_connect")
        def connect(_: object, __: object, positional: Any, keywords: Any) -> PatientConnection:
            return PatientConnection.connect(*positional, **keywords)

        return engine

    def _lock_file(self) -> None:
        return None

    def _discard_writer(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()

    def _append(self, offered: Offer) -> tuple[int, RightEdge]:
        try:
            writer, head, last, newest = self._begin(offered.writer_id)
            self._met(head[0])
            if self._is_far(head[0]):
                # What is stored does not change: it is read without the lock, which every other writer would wait for.
                writer.execute("ROLLBACK")
                self._edge = self._edge_at(writer, head)
                writer, head, last, newest = self._begin(offered.writer_id)
            edge = self._edge_at(writer, head)
            batch = plan(
                offered,
                edge=edge,
                position=0 if last is None else last[0] + 1,
                last_id=lambda: None if last is None else _id_at(writer, last[1] - 1),
            )
            if batch is None:
                writer.execute("ROLLBACK")
                return edge.size, edge
            self._write(writer, batch, newest)
        except BaseException:
            self._abandon()
            raise
        self._make_ahead(writer, batch.end, newest)
        return batch.end, batch.edge

    def _connected(self) -> WritingConnection:
        if self._engine is None:
            raise StoreUnavailable("the store is not open", hint="call open() first")
        if self._writer is None:
            arguments, keywords = self._engine.dialect.create_connect_args(self._address)
            # No prepared statements: they do not outlive a transaction behind a pooler, and COPY has none.
            self._writer = WritingConnection.connect(
                *arguments, **{**_CONNECT, **keywords}, autocommit=True, prepare_threshold=None
            )
        return self._writer

    def _abandon(self) -> None:
        if self._writer is not None:
            try:
                self._writer.execute("ROLLBACK")
            except psycopg.Error:
                # Closing rolls back as well, and the error that brought us here is the one to report.
                self._discard_writer()

    def _begin(self, writer_id: UUID) -> tuple[WritingConnection, _Head, _Last, _Span]:
        """Take the log's lock; return the connection, the newest head, the writer's last, the newest segment."""
        statements = _BEGIN.format(writer=writer_id)
        reused = self._writer is not None
        try:
            results = self._connected().execute(statements)
        except psycopg.OperationalError:
            if not reused or self._writer is None or not self._writer.closed:
                raise
            # The server closed it while it was idle, before anything was begun.
            self._discard_writer()
            results = self._connected().execute(statements)
        answers = []
        while True:
            if results.description is not None:
                answers.append(results.fetchone())
            if not results.nextset():
                break
        _, head, last, newest = answers
        return self._connected(), head or (0, None), last, newest or (0, 0)

    def _edge_at(self, writer: WritingConnection, head: _Head) -> RightEdge:
        return edge_at(
            *head,
            self._edge,
            read_tile=lambda tile: _tile(writer, tile),
            read_leaf_hashes=lambda first, end: _leaf_hashes(writer, first, end),
        )

    def _write(self, writer: WritingConnection, batch: Batch, newest: _Span) -> None:
        start, reach = newest
        if batch.end > reach:
            self._advance(writer, batch.end)
        # While the server puts one part into its indexes, the next one is hashed here.
        copy_in(writer, _COPY, ((len(part), _copied(writer, part)) for part in batch.parts()))
        with writer.cursor() as cursor:
            if batch.tiles:
                cursor.executemany(
                    "INSERT INTO audit_tiles (level, number, hashes) VALUES (%s, %s, %s)",
                    [(tile.level, tile.index, hashes) for tile, hashes in batch.tiles],
                )
            head = batch.head
            cursor.execute(
                "INSERT INTO audit_heads (size, root, writer_id, writer_seq) VALUES (%s, %s, %s, %s)",
                (head.size, head.root, head.writer_id, head.writer_seq),
            )
            if batch.end >= reach or batch.first < start <= batch.end:
                self._advance(writer, batch.end)
            # Crash before here ⇒ none of it happened; after ⇒ all of it, and the replay finds the writer's position.
            cursor.execute("COMMIT")

    def _advance(self, writer: WritingConnection, need: int) -> None:
        """Make the segments that ``need`` rows take, and record the spans of those that are full."""
        writer.execute("SELECT audit_advance(%s, %s)", (need, self._segment_rows))

    def _make_ahead(self, writer: WritingConnection, size: int, newest: _Span) -> None:
        """Make the next segment when three quarters of the newest are full. The append is done: a failure waits."""
        start, reach = newest
        if size >= reach or 4 * (size - start) < 3 * (reach - start):
            return
        try:
            writer.execute(_SETTINGS)
            self._advance(writer, reach + 1)
            writer.execute("COMMIT")
        except psycopg.Error as error:
            _log.warning("the next segment could not be made ahead of need: %s", type(error).__name__)
            self._abandon()

    def _check(self, connection: Connection) -> list[Finding]:
        schema = connection.scalar(text("SELECT current_schema()"))
        known = self._segments(connection) if is_there(connection, "audit_segment_spans") else []
        return postgres_schema.compare(connection, str(schema), known)


def _copied(writer: WritingConnection, part: Part) -> bytes:
    """Its rows as a binary COPY takes them."""
    if (given := part.compiled) is not None:
        rows: bytes | None = native.copied(*given, pgtypes.POSTGRES_EPOCH)
        if rows is not None:
            return rows
    return copied(writer, _COPY_TYPES, part.rows(epoch=pgtypes.POSTGRES_EPOCH, ids=list))


def _tile(writer: WritingConnection, tile: Tile) -> bytes:
    found = writer.execute(
        "SELECT hashes FROM audit_tiles WHERE level = %s AND number = %s", (tile.level, tile.index)
    ).fetchone()
    return b"" if found is None else found[0]


def _id_at(writer: WritingConnection, seq: int) -> UUID | None:
    found = writer.execute("SELECT id FROM audit_logs WHERE seq = %s", (seq,)).fetchone()
    return None if found is None else found[0]


def _leaf_hashes(writer: WritingConnection, first: int, end: int) -> list[bytes | None]:
    query = "SELECT leaf_hash FROM audit_logs WHERE seq >= %s AND seq < %s ORDER BY seq"
    return [leaf_hash for (leaf_hash,) in writer.execute(query, (first, end))]


def _copy_type(name: str) -> str:
    """How a column goes into binary COPY, which carries bytes and no types.

    ``timestamptz`` is an int8 of µs and ``json`` is its text: so both arrive exactly as they are in the event.
    """
    kind = _LOG.c[name].type
    if isinstance(kind, (Moment, BigInteger)):
        return "int8"
    if isinstance(kind, Id):
        return "uuid"
    return "bytea" if isinstance(kind, LargeBinary) else "text"


_COPY_TYPES: Final = [_copy_type(name) for name in COLUMNS]

"""What both engines do alike: open, close, and answer from the tables beside the log."""

from __future__ import annotations

import os
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from sqlalchemy import URL, Connection, Engine, event, select

from indelible.errors import ForeignTable, SchemaOutOfDate, StoreUnavailable
from indelible.events import AuditEvent
from indelible.exports import Columns
from indelible.integrity.edge import RightEdge
from indelible.integrity.tiles import Tile
from indelible.ports import Finding, Head, Segment, StoredCheckpoint
from indelible.queries import Filter
from indelible.rendering import FIELDS
from indelible.stores import publishing, rolling, tree, urls
from indelible.stores.batch import Offer, check_events, check_segment_rows, offer
from indelible.stores.faults import translated
from indelible.stores.raw import open_raw
from indelible.stores.schema import heads, segment_spans, segment_table, segments
from indelible.stores.sql import SqlReader
from indelible.stores.versions import check_version

#: Rows of others that are read under the log's lock, to grow the tree behind them: some 50 ms. More are read before it.
NEAR: Final = 16_384
_inherited: list[object] = []

Prepare = Callable[[Engine], None]


class SegmentedStore(SqlReader):
    """A log in segments: one connection that writes, a small pool that reads, and nothing shared with the host.

    ``segment_rows`` counts only for the log's first segment: later ones take over its size, so that all writers agree.
    ``prepare`` makes or upgrades the tables when ``open`` finds them missing or old; without it that is SchemaOutOfDate.
    """

    # What makes two logs of the same events differ; replaced where they must not.
    _random = staticmethod(os.urandom)
    _now = staticmethod(time.time_ns)
    # Whether the next batch is hashed before the lock: among others, so that they wait the less; alone, part by part as it
    # is written, on PostgreSQL while the server writes.
    _hashes_ahead = False

    def __init__(self, url: str, *, segment_rows: int, prepare: Prepare | None) -> None:
        self._address: URL = urls.parse(url)
        self._segment_rows = check_segment_rows(segment_rows)
        self._prepare = prepare
        self._lock = threading.RLock()
        self._engine: Engine | None = None
        self._deriving: Engine | None = None
        self._edge = RightEdge()
        self._writer: Any = None

    @property
    def url(self) -> str:
        """The database's address without its password."""
        return urls.shown(self._address)

    @property
    def engine(self) -> Engine:
        """The read pool. Raises StoreUnavailable while the store is closed."""
        if self._engine is None:
            raise StoreUnavailable("the store is not open", hint="call open() first")
        return self._engine

    def open(self) -> None:
        """Connect and check the schema version, making the schema if ``prepare`` was given.

        Opening an open store does nothing. Raises SchemaOutOfDate, ForeignTable or StoreUnavailable.
        """
        with self._lock:
            if self._engine is not None:
                return
            engine = self._reading_engine()
            try:
                with translated():
                    self._check_schema(engine)
            except BaseException:
                engine.dispose()
                raise
            self._engine = engine

    def close(self) -> None:
        """Give every connection back. Closing twice does nothing."""
        with self._lock:
            self._discard_writer()
            for engine in (self._engine, self._deriving):
                if engine is not None:
                    engine.dispose()
            self._engine = self._deriving = None

    def abandon(self) -> None:
        """Forget every connection without touching it: they belong to the process this one was forked from."""
        # Kept for ever: a destructor would say goodbye to the server, or check-point the file, on the parent's behalf.
        _inherited.append((self._engine, self._deriving, self._writer))
        self._lock = threading.RLock()
        self._engine = self._deriving = self._writer = None

    def append(self, writer_id: UUID, first: int, events: Sequence[AuditEvent], *, after: int | None = None) -> int:
        """Store one writer's events in one transaction; return the log's size. ``ports.Store.append`` has the promises.

        At most 65,536 events. A connection that fails is thrown away, and the next append opens another: whether a
        lost commit happened is never guessed, because each append reads the writer's position anew.
        """
        check_events(events)
        # Before the lock: how long an event waited for other writers must not show as its time of recording.
        recorded_at = self._now() // 1000
        offered = offer(
            writer_id,
            first,
            events,
            after=after,
            recorded_at=recorded_at,
            random=self._random,
            ahead=self._hashes_ahead,
        )
        with self._lock, translated():
            size, self._edge = self._append(offered)
            return size

    def _met(self, size: int) -> None:
        """The log's lock is ours, and the log has ``size`` rows: whether others have written since we did."""
        self._hashes_ahead = size != self._edge.size

    def _is_far(self, size: int) -> bool:
        """Whether so much has been stored by others that to read it would keep them from the lock for too long."""
        return size - self._edge.size > NEAR

    def position(self, writer_id: UUID) -> int:
        """How many numbers of this writer are used up: its next ``writer_seq``. 0 for an unknown writer."""
        newest = select(heads.c.writer_seq).where(heads.c.writer_id == writer_id).order_by(heads.c.size.desc()).limit(1)
        with translated(), self.engine.connect() as connection:
            last = connection.scalar(newest)
        return 0 if last is None else int(last) + 1

    def last_event(self, writer_id: UUID) -> tuple[int, UUID] | None:
        """The number and the id of this writer's newest stored event, or None for an unknown writer."""
        newest = select(heads).where(heads.c.writer_id == writer_id).order_by(heads.c.size.desc()).limit(1)
        with translated(), self.engine.connect() as connection:
            head = connection.execute(newest).first()
            if head is None:
                return None
            for part in self._segments(connection):
                if part.first < head.size <= part.end:
                    row = segment_table(part.number)
                    found = connection.scalar(select(row.c.id).where(row.c.seq == head.size - 1))
                    return None if found is None else (head.writer_seq, found)
        return None

    def head(self) -> Head | None:
        """The newest head, or None for an empty log."""
        with translated(), self.engine.connect() as connection:
            row = connection.execute(select(heads).order_by(heads.c.size.desc()).limit(1)).first()
        return None if row is None else Head(row.size, row.root, row.writer_id, row.writer_seq)

    def leaf_hashes(self, first: int, end: int) -> list[bytes | None]:
        """The leaf hashes of the rows ``first`` to ``end - 1`` that are there, in order; None where a row has none."""
        with translated(), self.engine.connect() as connection:
            return tree.leaf_hashes(connection, self._segments(connection), first, end)

    def full_tile(self, tile: Tile) -> bytes:
        """A full tile of level 1 or above as it is stored; empty if it is not."""
        with translated(), self.engine.connect() as connection:
            return tree.full_tile(connection, tile)

    def checkpoints(self, *, first: int = 0) -> Iterator[StoredCheckpoint]:
        """The published checkpoints of size ``first`` and above, smallest first."""
        return publishing.every(self.engine, first)

    def newest_checkpoint(self) -> StoredCheckpoint | None:
        """The published checkpoint of the largest size, or None."""
        with translated(), self.engine.connect() as connection:
            return publishing.newest(connection)

    def newest_checkpoints(self, limit: int) -> Sequence[StoredCheckpoint]:
        """The published checkpoints of the largest sizes, largest first, ``limit`` of them at the most."""
        with translated(), self.engine.connect() as connection:
            return publishing.several(connection, limit)

    def columns(self, filter: Filter, *, first: int = 0, end: int | None = None) -> Iterator[Columns]:
        """As ``scan``, column by column in the order of ``rendering.FIELDS``, on a connection of its own."""
        end = self._size() if end is None else end
        with open_raw(self._address) as raw:
            yield from raw.matching(filter, FIELDS, first=first, end=end)

    def lease(self) -> publishing.Lease | None:
        """Become the one who publishes, or None while somebody else is. Raises StoreUnavailable."""
        if self._engine is None:
            raise StoreUnavailable("the store is not open", hint="call open() first")
        return publishing.Lease.take(self._preparing_engine(), self._lock_file())

    def roll_up(self, most: int) -> tuple[int, bool]:
        """Make at most ``most`` rollups that are due; return up to which row they reach, and whether more are due."""
        # In turns with ``append``: a process that stores with one thread and counts with another needs two processors, and
        # the answers of the host's event loop wait for one of them.
        with self._lock:
            if self._engine is None:
                raise StoreUnavailable("the store is not open", hint="call open() first")
            self._deriving = self._deriving or self._deriving_engine()
            walk = self._walk(Filter())
            assert walk is not None
            return rolling.roll_up(self._deriving, walk, self._size(), most)

    def segments(self) -> Sequence[Segment]:
        """Every segment, oldest first."""
        with translated(), self.engine.connect() as connection:
            return self._segments(connection)

    def check(self) -> Sequence[Finding]:
        """Compare tables, indexes, guards, segments and grants with what they must be; empty when all is well."""
        with translated(), self.engine.connect() as connection:
            try:
                check_version(connection)
            except (SchemaOutOfDate, ForeignTable) as error:
                return [Finding("version", "indelible_version", str(error))]
            return self._check(connection)

    def _segments(self, connection: Connection) -> list[Segment]:
        spans = segment_spans.c
        rows = connection.execute(
            select(segments, spans.min_timestamp, spans.max_timestamp)
            .join_from(segments, segment_spans, segments.c.number == spans.number, isouter=True)
            .order_by(segments.c.number)
        )
        return [
            Segment(r.number, r.first_seq, r.end_seq, r.min_timestamp, r.max_timestamp, r.min_timestamp is not None)
            for r in rows
        ]

    def _check_schema(self, engine: Engine) -> None:
        try:
            with engine.connect() as connection:
                check_version(connection)
        except SchemaOutOfDate:
            if self._prepare is None:
                raise
            preparing = self._preparing_engine()
            try:
                self._prepare(preparing)
            finally:
                preparing.dispose()
            with engine.connect() as connection:
                check_version(connection)

    @abstractmethod
    def _reading_engine(self) -> Engine: ...

    @abstractmethod
    def _preparing_engine(self) -> Engine: ...

    def _deriving_engine(self) -> Engine:
        """For what can be made again: its transactions do not wait for the disk."""
        engine = self._preparing_engine()
        lazy = "SET synchronous_commit = off" if engine.dialect.name == "postgresql" else "PRAGMA synchronous = NORMAL"

        @event.listens_for(engine, "connect")
        def relax(connection: Any, _: object) -> None:
            connection.execute(lazy)

        return engine

    @abstractmethod
    def _lock_file(self) -> Path | None:
        """The file whose lock makes one publisher of many; None where the database has locks for that."""

    @abstractmethod
    def _discard_writer(self) -> None: ...

    @abstractmethod
    def _append(self, offered: Offer) -> tuple[int, RightEdge]:
        """Store the offer; return the log's size and its right edge then. Starts from ``self._edge`` if it is good."""

    @abstractmethod
    def _check(self, connection: Connection) -> list[Finding]: ...

"""The seams: what the service and the readers need of a store, and what a store must keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from indelible.events import AuditEvent, StoredEvent
from indelible.exports import Columns
from indelible.integrity.tiles import Tile
from indelible.metrics import Recorder
from indelible.queries import FACETS_CAP, Count, Cursor, Facets, Filter, Query, Stats


@dataclass(frozen=True, slots=True)
class Head:
    """One state of the log: ``size`` rows, numbered 0 to size - 1, the last of them ``writer_seq`` of ``writer_id``."""

    size: int
    root: bytes | None
    writer_id: UUID
    writer_seq: int


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows ``first`` up to, not including, ``end``. The time span (µs, inclusive) is known once the segment is closed."""

    number: int
    first: int
    end: int
    min_timestamp: int | None
    max_timestamp: int | None
    closed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of rows. ``next_cursor`` is None on the last page; ``complete`` is false if the time budget ran out."""

    rows: Sequence[StoredEvent]
    next_cursor: Cursor | None
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """Something missing or wrong in the schema: ``kind`` is table, index, guard, segment, grant or version."""

    kind: str
    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A checkpoint that was published: the size it is about, when (Unix µs), and the signed note."""

    size: int
    published_at: int
    note: bytes


class PublisherLease(Protocol):
    """The right to publish the log's checkpoints, which one process has at a time. It goes with the process."""

    def newest(self) -> StoredCheckpoint | None:
        """The checkpoint of the largest size, or None. MUST raise StoreUnavailable when the lease may be lost."""
        ...

    def insert(self, checkpoint: StoredCheckpoint) -> None:
        """Add a checkpoint of a size that has none. MUST NOT return before it is durable."""
        ...

    def close(self) -> None:
        """Let somebody else publish. Closing twice does nothing."""
        ...

    def abandon(self) -> None:
        """Forget the lease without touching it: it belongs to the process this one was forked from."""
        ...


class Store(Protocol):
    """Where events end up. One conformance suite holds every engine to this.

    Every method may raise StoreUnavailable; driver exceptions MUST NOT leak. All methods MUST be safe to call from
    several threads at once; ``append`` is called by one thread of one process per data directory, but by several
    processes, on several hosts, at the same time.
    """

    @property
    def url(self) -> str:
        """The database's address without its password."""
        ...

    def open(self) -> None:
        """Connect and check the schema version. MUST raise SchemaOutOfDate or ForeignTable rather than guess.

        Opening an open store does nothing. A store closed may be opened again.
        """
        ...

    def close(self) -> None:
        """Give every connection back. Closing twice does nothing."""
        ...

    def abandon(self) -> None:
        """Forget every connection without touching it: they belong to the process this one was forked from."""
        ...

    def append(self, writer_id: UUID, first: int, events: Sequence[AuditEvent], *, after: int | None = None) -> int:
        """Store one writer's events ``first``, ``first + 1``, ... in one transaction; return the log's size after it.

        MUST drop those the writer's newest head shows to be stored already, so that a replay is harmless.
        MUST number the rest densely, in order, from the log's size, and insert the head in the same transaction.
        MUST NOT return before the transaction is durable. MUST NOT update or delete any row.
        ``after`` (default: ``first``) is the writer's position that the caller relies on; where ``first`` lies beyond it,
        the caller MUST have explained the numbers between with an ``audit.gap``.
        Raises OutOfSequence when the writer's position is below ``after``; WriterCloned when what is stored already
        under these numbers are other events.
        Raises RowRefused when the database refuses a value (trying again would fail again), and whatever taking an event
        from ``events`` raises; nothing is stored then.
        """
        ...

    def position(self, writer_id: UUID) -> int:
        """How many numbers of this writer are used up: its next ``writer_seq``. 0 for an unknown writer."""
        ...

    def last_event(self, writer_id: UUID) -> tuple[int, UUID] | None:
        """The number and the id of this writer's newest stored event, or None for an unknown writer."""
        ...

    def head(self) -> Head | None:
        """The newest head, or None for an empty log."""
        ...

    def leaf_hashes(self, first: int, end: int) -> list[bytes | None]:
        """The leaf hashes of the rows ``first`` to ``end - 1`` that are there, in order; None where a row has none."""
        ...

    def full_tile(self, tile: Tile) -> bytes:
        """A full tile of level 1 or above as it is stored; empty if it is not."""
        ...

    def checkpoints(self, *, first: int = 0) -> Iterator[StoredCheckpoint]:
        """The published checkpoints of size ``first`` and above, smallest first. Holds nothing open between slices."""
        ...

    def newest_checkpoint(self) -> StoredCheckpoint | None:
        """The published checkpoint of the largest size, or None."""
        ...

    def newest_checkpoints(self, limit: int) -> Sequence[StoredCheckpoint]:
        """The published checkpoints of the largest sizes, largest first, ``limit`` of them at the most."""
        ...

    def lease(self) -> PublisherLease | None:
        """Become the one who publishes, or None while somebody else is."""
        ...

    def segments(self) -> Sequence[Segment]:
        """Every segment, oldest first."""
        ...

    def get(self, event_id: UUID) -> StoredEvent | None:
        """One event by its id, or None."""
        ...

    def page(self, query: Query, *, budget: float | None = None) -> Page:
        """One page. With ``budget`` (seconds), a filter that ``searches`` and takes longer gives what it has, incomplete."""
        ...

    def count(self, filter: Filter, *, cap: int | None) -> Count:
        """How many events match, counted up to ``cap`` (None: all of them). A count of everything is the log's size."""
        ...

    def facets(self, filter: Filter, *, cap: int = FACETS_CAP, budget: float | None = None) -> Facets:
        """The values of each of ``queries.FACETS`` among the newest events that match, ``cap`` at most.

        Newest is from the newest segment back, and within a segment by time. With ``budget`` (seconds), what takes longer
        is what has been counted so far, not exact.
        """
        ...

    def scan(self, filter: Filter, *, first: int = 0, end: int | None = None) -> Iterator[Sequence[StoredEvent]]:
        """Matching rows with first <= seq < end (default: the size now), in order of ``seq``, in bounded slices.

        MUST hold no snapshot or cursor open between slices.
        """
        ...

    def columns(self, filter: Filter, *, first: int = 0, end: int | None = None) -> Iterator[Columns]:
        """As ``scan``, for exports of millions: column by column in the order of ``rendering.FIELDS``.

        Times are Unix µs, ids and JSON the text that is stored. What a forged row holds is given as it is.
        """
        ...

    def stats(self, filter: Filter, *, top: int = 10) -> Stats:
        """Breakdowns over the events that match."""
        ...

    def roll_up(self, most: int) -> tuple[int, bool]:
        """Make at most ``most`` rollups that are due; return up to which row they reach, and whether more are due.

        Rollups make ``stats`` fast and change nothing about its answer. Any number of processes may call it at once.
        """
        ...

    def check(self) -> Sequence[Finding]:
        """Compare tables, indexes, guards, segments and grants with what they must be; empty when all is well."""
        ...


@dataclass(frozen=True, slots=True)
class Host:
    """What a follower may use of the service that runs it.

    ``record`` takes the fields of an event, reserved types too, and raises NotAccepted. ``recorder`` counts.
    """

    record: Callable[..., UUID]
    recorder: Recorder


class Follower(Protocol):
    """Does something about everything the log has stored, in order of ``seq``, beside the service.

    One thread of the process that drains the data directory calls it; ``abandon`` may come from another. A follower
    MUST keep its cursor in a durable place and MUST be repeatable: after a crash it does its last work again. It MUST
    NOT raise for what may pass (a database or a network that is away), and nothing it does may hold up an append.
    """

    @property
    def name(self) -> str:
        """What it is called in messages."""
        ...

    @property
    def cursor(self) -> int:
        """Rows with a smaller ``seq`` are done with, as far as this process knows."""
        ...

    def step(self, host: Host, *, closing: bool = False) -> float:
        """Do what is due; return after how many seconds to be called again.

        With ``closing`` it is the last call before the service stops: everything is stored that will be, and nothing
        can be recorded any more.
        """
        ...

    def close(self) -> None:
        """Let go of locks and connections. A follower that was closed may be stepped again."""
        ...

    def abandon(self) -> None:
        """Forget locks and connections without touching them, in a forked child."""
        ...

"""For tests of hosts, and of this library: capture events, or keep a log in memory."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, Final, cast
from uuid import UUID

import msgspec

from indelible import runtime
from indelible.errors import OutOfSequence, StoreUnavailable, WriterCloned
from indelible.events import AuditEvent, StoredEvent, decode_event
from indelible.exports import Columns
from indelible.integrity.tiles import Tile
from indelible.ports import Finding, Head, Page, Segment, StoredCheckpoint
from indelible.queries import FACETS, FACETS_CAP, Count, Cursor, Facets, Filter, Query, Stats, bucket_width
from indelible.queries.addresses import network, within
from indelible.rendering import FIELDS
from indelible.service import AuditService
from indelible.settings import Settings, load

__all__ = ["CapturedEvents", "MemoryStore", "capture_events"]


class CapturedEvents(list[AuditEvent]):
    """The events logged so far, oldest first, exactly as they would have been stored."""

    def of_type(self, event_type: str) -> list[AuditEvent]:
        """Those of one event type."""
        return [event for event in self if event.event_type == event_type]

    def only(self) -> AuditEvent:
        """The one event there is; AssertionError if there is none or more than one."""
        assert len(self) == 1, f"expected one event, got {[e.event_type for e in self]}"
        return self[0]


class _CapturingService(AuditService):
    """Takes events like the real one and puts them into a list: no journal, no threads, no store."""

    def __init__(self, events: CapturedEvents, settings: Settings) -> None:
        super().__init__(MemoryStore(), settings)
        self._captured = events

    def _keep(self, payload: bytes, at: int | None, must: bool = False) -> tuple[int, None]:
        self._captured.append(decode_event(payload))
        return -1, None

    def open(self) -> None:
        """Nothing to open."""

    def close(self, timeout: float = 0.0) -> None:
        """Nothing to close."""


@contextmanager
def capture_events(**settings: object) -> Iterator[CapturedEvents]:
    """While it is entered, every event of this process goes into the list it gives, and nowhere else.

    Takes the settings that ``configure`` takes, for example ``jwt_secret``. The service that was there comes back after.

    >>> with capture_events() as events:
    ...     client.post("/api/auth/login", json=credentials)
    >>> assert events.only().event_type == "login"
    """
    events = CapturedEvents()
    before = runtime.swap(_CapturingService(events, load(**settings)))
    try:
        yield events
    finally:
        runtime.swap(before)


class MemoryStore:
    """A ``ports.Store`` in memory: the same promises for as long as the process lives, without a database.

    ``down = True`` makes every method raise StoreUnavailable, as an unreachable database does.
    """

    url: Final = "memory:"

    def __init__(self) -> None:
        self.rows: list[StoredEvent] = []
        self.down = False
        self._heads: dict[UUID, Head] = {}
        self._last: Head | None = None
        self._lock = threading.Lock()

    def _reachable(self) -> None:
        if self.down:
            raise StoreUnavailable("the store was told to be down")

    def open(self) -> None:
        """See ports.Store."""
        self._reachable()

    def close(self) -> None:
        """See ports.Store."""

    def abandon(self) -> None:
        """See ports.Store."""

    def append(self, writer_id: UUID, first: int, events: Sequence[AuditEvent], *, after: int | None = None) -> int:
        """See ports.Store."""
        self._reachable()
        with self._lock:
            known = self._position(writer_id)
            if known < (first if after is None else after):
                raise OutOfSequence("the store holds fewer events of this writer than it had confirmed")
            last = self._last_event(writer_id)
            if last is not None and 0 <= last[0] - first < len(events) and events[last[0] - first].id != last[1]:
                raise WriterCloned("another event is stored under this number")
            # Taken before one of them is stored: to take an event may raise.
            taken = [(first + offset, event) for offset, event in enumerate(events) if first + offset >= known]
            for number, event in taken:
                self.rows.append(self._row(event, writer_id, number))
            if events and first + len(events) > known:
                head = Head(len(self.rows), None, writer_id, first + len(events) - 1)
                self._heads[writer_id] = self._last = head
            return len(self.rows)

    def forget(self, writer_id: UUID, position: int) -> None:
        """Play a database restored from a backup that holds only ``position`` events of the writer."""
        with self._lock:
            self.rows = [row for row in self.rows if row.writer_id != writer_id or row.writer_seq < position]
            mine = [row for row in self.rows if row.writer_id == writer_id]
            self._heads.pop(writer_id, None)
            if mine:
                self._heads[writer_id] = Head(len(self.rows), None, writer_id, mine[-1].writer_seq)

    def _row(self, event: AuditEvent, writer_id: UUID, writer_seq: int) -> StoredEvent:
        return StoredEvent(
            seq=len(self.rows),
            recorded_at=event.timestamp,
            writer_id=writer_id,
            writer_seq=writer_seq,
            **msgspec.structs.asdict(event),
        )

    def _position(self, writer_id: UUID) -> int:
        head = self._heads.get(writer_id)
        return 0 if head is None else head.writer_seq + 1

    def position(self, writer_id: UUID) -> int:
        """See ports.Store."""
        self._reachable()
        return self._position(writer_id)

    def last_event(self, writer_id: UUID) -> tuple[int, UUID] | None:
        """See ports.Store."""
        self._reachable()
        return self._last_event(writer_id)

    def _last_event(self, writer_id: UUID) -> tuple[int, UUID] | None:
        head = self._heads.get(writer_id)
        return None if head is None else (head.writer_seq, self.rows[head.size - 1].id)

    def head(self) -> Head | None:
        """See ports.Store."""
        self._reachable()
        return self._last

    def leaf_hashes(self, first: int, end: int) -> list[bytes | None]:
        """See ports.Store; none, for its rows are not sealed."""
        self._reachable()
        return [None for _ in self.rows[first:end]]

    def full_tile(self, tile: Tile) -> bytes:
        """See ports.Store; there is none."""
        self._reachable()
        return b""

    def checkpoints(self, *, first: int = 0) -> Iterator[StoredCheckpoint]:
        """See ports.Store; none, for its rows are not sealed."""
        self._reachable()
        return iter(())

    def newest_checkpoint(self) -> StoredCheckpoint | None:
        """See ports.Store; none, for its rows are not sealed."""
        self._reachable()
        return None

    def newest_checkpoints(self, limit: int) -> Sequence[StoredCheckpoint]:
        """See ports.Store; none, for its rows are not sealed."""
        self._reachable()
        return []

    def lease(self) -> None:
        """See ports.Store; nothing can be published."""
        self._reachable()

    def segments(self) -> Sequence[Segment]:
        """See ports.Store; one open segment."""
        return [Segment(0, 0, 2**62, None, None, closed=False)]

    def get(self, event_id: UUID) -> StoredEvent | None:
        """See ports.Store."""
        self._reachable()
        return next((row for row in self.rows if row.id == event_id), None)

    def page(self, query: Query, *, budget: float | None = None) -> Page:
        """See ports.Store."""
        self._reachable()
        rows = sorted(
            (row for row in self.rows if _matches(row, query.filter)),
            key=lambda row: _sort_key(_sort_value(row, query), row.seq),
            reverse=query.descending,
        )
        # Absent values come last in either direction.
        rows.sort(key=lambda row: _sort_value(row, query) is None)
        start = (query.page - 1) * query.page_size
        if query.cursor is not None:
            start = next((i for i, row in enumerate(rows) if _behind(row, query, query.cursor)), len(rows))
        page = rows[start : start + query.page_size]
        more = start + query.page_size < len(rows)
        return Page(rows=page, next_cursor=Cursor(_sort_value(page[-1], query), page[-1].seq) if more else None)

    def count(self, filter: Filter, *, cap: int | None) -> Count:
        """See ports.Store."""
        self._reachable()
        value = sum(_matches(row, filter) for row in self.rows)
        return Count(value, exact=True) if cap is None or value <= cap else Count(cap, exact=False)

    def facets(self, filter: Filter, *, cap: int = FACETS_CAP, budget: float | None = None) -> Facets:
        """See ports.Store."""
        self._reachable()
        rows = sorted((row for row in self.rows if _matches(row, filter)), key=lambda row: (-row.timestamp, -row.seq))
        counts = {name: dict(_top((getattr(row, name) for row in rows[:cap]), cap)) for name in FACETS}
        return Facets(counts, len(rows[:cap]), exact=len(rows) <= cap)

    def scan(self, filter: Filter, *, first: int = 0, end: int | None = None) -> Iterator[Sequence[StoredEvent]]:
        """See ports.Store."""
        self._reachable()
        matching = [row for row in self.rows[first : len(self.rows) if end is None else end] if _matches(row, filter)]
        for start in range(0, len(matching), 1000):
            yield matching[start : start + 1000]

    def columns(self, filter: Filter, *, first: int = 0, end: int | None = None) -> Iterator[Columns]:
        """See ports.Store."""
        for rows in self.scan(filter, first=first, end=end):
            yield [
                [str(value) if isinstance(value, UUID) else value for value in map(attrgetter(name), rows)]
                for name in FIELDS
            ]

    def stats(self, filter: Filter, *, top: int = 10) -> Stats:
        """See ports.Store."""
        self._reachable()
        rows = [row for row in self.rows if _matches(row, filter)]
        times = [row.timestamp for row in rows]
        width = bucket_width(
            min(times, default=0) if filter.start is None else filter.start,
            max(times, default=0) if filter.end is None else filter.end,
        )
        outcomes = {at // width * width: Counter[str]() for at in times}
        for row in rows:
            outcomes[row.timestamp // width * width][row.status] += 1
        buckets = sorted(outcomes.items())
        return Stats(
            total_events=len(rows),
            event_type_breakdown=Counter(row.event_type for row in rows),
            status_breakdown=Counter(row.status for row in rows),
            top_users=_top((row.user_id for row in rows), top),
            top_ips=_top((row.ip_address for row in rows), top),
            top_resource_types=_top((row.resource_type for row in rows), top),
            events_over_time=tuple((start, outcomes.total()) for start, outcomes in buckets),
            outcomes_over_time=tuple(buckets),
            bucket=width,
        )

    def roll_up(self, most: int) -> tuple[int, bool]:
        """See ports.Store; nothing is due, for its rows are few."""
        self._reachable()
        return len(self.rows), False

    def check(self) -> Sequence[Finding]:
        """See ports.Store."""
        return []


def _matches(row: StoredEvent, wanted: Filter) -> bool:
    def among(value: str | None, values: tuple[str, ...]) -> bool:
        return not values or value in values

    def equal(value: str | None, other: str | None) -> bool:
        return other is None or value == other

    addresses = [value for value in wanted.ip_address if network(value) is None]
    networks = [found for value in wanted.ip_address if (found := network(value)) is not None]
    text = "\n".join(t for t in (row.request_path, row.resource_id, row.user_agent) if t is not None)
    return (
        among(row.event_type, wanted.event_type)
        and among(row.user_id, wanted.user_id)
        and among(row.status, wanted.status)
        and (not wanted.ip_address or row.ip_address in addresses or within(row.ip_address, networks))
        and among(row.action, wanted.action)
        and equal(row.resource_type, wanted.resource_type)
        and equal(row.resource_id, wanted.resource_id)
        and equal(row.correlation_id, wanted.correlation_id)
        and (wanted.start is None or row.timestamp >= wanted.start)
        and (wanted.end is None or row.timestamp <= wanted.end)
        and (wanted.q is None or wanted.q.lower() in text.lower())
    )


def _sort_value(row: StoredEvent, query: Query) -> int | str | None:
    return cast("int | str | None", getattr(row, query.sort_by))


def _sort_key(value: int | str | None, seq: int) -> tuple[Any, ...]:
    return (value is not None, value if value is not None else 0, seq)


def _behind(row: StoredEvent, query: Query, cursor: Cursor) -> bool:
    value = _sort_value(row, query)
    if (value is None) != (cursor.value is None):
        return value is None
    mine, other = _sort_key(value, row.seq), _sort_key(cursor.value, cursor.seq)
    return mine < other if query.descending else mine > other


def _top(values: Iterator[str | None], most: int) -> tuple[tuple[str, int], ...]:
    counts = Counter(value for value in values if value is not None)
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most])

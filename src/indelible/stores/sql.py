"""The read side of both engines: every question is put to the segments themselves, newest or oldest first.

Rows never change and ``seq`` is dense, so a question is many short statements, each in a transaction of its own: no
snapshot is held between them, and rows that arrive meanwhile neither move nor repeat what a cursor has passed.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import groupby
from math import inf
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Engine, text

from indelible.errors import InvalidQuery
from indelible.events import StoredEvent
from indelible.ports import Head, Page, Segment
from indelible.queries import (
    FACETS,
    FACETS_CAP,
    SORT_FIELDS,
    Count,
    Cursor,
    Facets,
    Filter,
    Query,
    Stats,
    bucket_width,
    check_cursor,
)
from indelible.rollups import NOTHING, as_stats, merged
from indelible.stores import rolling, tallies
from indelible.stores.faults import translated
from indelible.stores.syntax import POSTGRESQL, SQLITE, Syntax, Where, searching, stored_event, where
from indelible.stores.walks import Found, Key, Walk, next_width, pruned, union

#: Rows in one slice of ``scan``.
SLICE_ROWS: Final = 1_000
#: How long a capped count of a search for text or networks may take, in seconds; then it is what has been counted so far.
COUNT_BUDGET: Final = 2.0
#: Keys held at once while a numbered page skips those before it.
_HOP: Final = 10_000
#: Segments in one statement that fetches rows: with all their columns, longer ones are slower to prepare than to repeat.
_ROW_ARMS: Final = 8


class SqlReader(ABC):
    """``ports.Store``'s reading methods over the tables ``audit_logs_<n>``; the engines' stores inherit it."""

    @property
    @abstractmethod
    def engine(self) -> Engine:
        """Where to read. Raises StoreUnavailable while the store is closed."""

    @abstractmethod
    def head(self) -> Head | None:
        """The newest head, or None for an empty log."""

    @abstractmethod
    def segments(self) -> Sequence[Segment]:
        """Every segment, oldest first."""

    def get(self, event_id: UUID) -> StoredEvent | None:
        """One event by its id, or None."""
        syntax = self._syntax
        # A UUIDv7 begins with its time in milliseconds: the segments around it come first, then the newest.
        near = (event_id.int >> 80) * 1000
        ordered = sorted(self.segments(), key=attrgetter("number"), reverse=True)
        ordered.sort(key=lambda s: s.closed and not (s.min_timestamp or 0) - 1000 <= near <= (s.max_timestamp or 0))
        walk = Walk(self._execute, syntax, ordered, Where(("id = :id",), {"id": syntax.id(event_id)}))
        for chunk in walk.chunks(ordered):
            arms = [f"SELECT {s.number} AS n, seq FROM audit_logs_{s.number}{walk.where.sql()}" for s in chunk]  # noqa: S608
            for number, seq in self._execute(union(arms), walk.where.params):
                return next(iter(self._rows([Key(None, seq, number)])), None)
        return None

    def page(self, query: Query, *, budget: float | None = None) -> Page:
        """One page. With ``budget`` (seconds), a search for text or networks that takes longer returns what it has.

        It says that it is incomplete then, and in order of time it can be continued at ``next_cursor``. Raises
        InvalidQuery for an unknown sort field, a page number or size below 1 and a cursor that no row of this order can
        have.
        """
        if query.sort_by not in SORT_FIELDS:
            raise InvalidQuery(f"unknown sort field {query.sort_by!r}", parameter="sort_by")
        if query.page < 1 or query.page_size < 1:
            raise InvalidQuery("pages and their sizes begin at 1", parameter="page")
        if query.cursor is not None:
            check_cursor(query.cursor, sort_by=query.sort_by)
        searched = query.filter.searches and query.sort_by == "timestamp"
        walk = self._walk(query.filter, search=not searched)
        if walk is None:
            return Page(rows=(), next_cursor=None)
        walk = replace(walk, column=query.sort_by, descending=query.descending)
        if query.filter.searches and budget is not None:
            walk = replace(walk, expired=_timer(budget))
        offset = 0 if query.cursor else (query.page - 1) * query.page_size
        if searched:
            need = offset + query.page_size + 1
            found = walk.search(searching(query.filter, walk.syntax), need, query.cursor)
        else:
            found, offset = self._numbered(walk, query, offset)
        return self._page(found, offset, query.page_size)

    def count(self, filter: Filter, *, cap: int | None) -> Count:
        """How many events match, counted up to ``cap`` (None: all of them). A count of everything is the log's size.

        A capped count of a search for text or networks stops after ``COUNT_BUDGET`` too, and is then not exact.
        """
        if filter == Filter():
            return Count(self._size(), exact=True)
        walk = self._walk(filter)
        if walk is None:
            return Count(0, exact=True)
        if filter.searches and cap is not None:
            walk = replace(walk, expired=_timer(COUNT_BUDGET))
        return tallies.count(replace(walk, segments=self._spanned(walk)), cap)

    def facets(self, filter: Filter, *, cap: int = FACETS_CAP, budget: float | None = None) -> Facets:
        """The values of ``FACETS`` among the newest ``cap`` events that match, at most; ``ports.Store.facets`` says which.

        However small the budget, something is looked at: a segment, or a slice of it where the filter searches.
        """
        walk = self._walk(filter, search=False)
        if walk is None:
            return Facets({name: {} for name in FACETS}, 0, exact=True)
        if budget is not None:
            walk = replace(walk, expired=_timer(budget))
        return tallies.facets(walk, cap, searching(filter, walk.syntax) if filter.searches else None)

    def scan(self, filter: Filter, *, first: int = 0, end: int | None = None) -> Iterator[Sequence[StoredEvent]]:
        """Matching rows with first <= seq < end (default: the size now), in order of ``seq``, about 1,000 at a time."""
        end = self._size() if end is None else end
        walk = self._walk(filter)
        if walk is None:
            return
        clause = walk.where.sql("seq >= :at", "seq < :until")
        width = SLICE_ROWS
        for segment in walk.segments:
            at, until = max(first, segment.first), min(end, segment.end)
            select = f"SELECT {walk.syntax.columns} FROM audit_logs_{segment.number}{clause} ORDER BY seq"  # noqa: S608
            while at < until:
                reach = min(at + width, until)
                if rows := self._execute(select, {**walk.where.params, "at": at, "until": reach}):
                    yield [stored_event(row) for row in rows]
                width = next_width(width, reach - at, len(rows), SLICE_ROWS)
                at = reach

    def stats(self, filter: Filter, *, top: int = 10) -> Stats:
        """Breakdowns over the events that match and were stored when it began; at most ``top`` of those that are many.

        Where nothing but time is asked for, rollups answer for the blocks that lie in it, and rows for the rest.
        """
        walk = self._walk(filter)
        if walk is None:
            return NOTHING
        walk = replace(walk, segments=self._spanned(walk))
        times, size = tallies.time_range(walk.segments, filter), max((s.end for s in walk.segments), default=0)
        grain = bucket_width(*times)
        if walk.span is None:
            gathered = rolling.Gathered(rows=[(0, size)])
        else:
            with translated(), self.engine.connect() as connection:
                gathered = rolling.gather(connection, *walk.span, size, grain)
        live = (tallies.tally(walk, first, end, times=times) for first, end in gathered.rows)
        whole = merged((*gathered.rollups, *(part for part in live if part is not None)), grain)
        return NOTHING if whole is None else as_stats(whole, top=top)

    def _numbered(self, walk: Walk, query: Query, offset: int) -> tuple[Found, int]:
        """The keys of a page, and how many of them come before it."""
        cursor = query.cursor
        if offset > _HOP and walk.column == "timestamp":
            place = replace(walk, segments=self._spanned(walk)).seek(offset)
            if place is None:
                return Found(()), 0
            cursor, offset = place
        while offset > _HOP:
            skipped = walk.keys(_HOP, cursor).keys
            if len(skipped) < _HOP:
                return Found(()), 0
            cursor = Cursor(skipped[-1].value, skipped[-1].seq)
            offset -= _HOP
        return walk.keys(offset + query.page_size + 1, cursor), offset

    def _page(self, found: Found, offset: int, size: int) -> Page:
        keys = found.keys[offset : offset + size]
        rows = self._rows(keys)
        if len(found.keys) > offset + size:
            return Page(rows=rows, next_cursor=Cursor(keys[-1].value, keys[-1].seq))
        # A frontier does not say how many rows a numbered page still had to skip.
        reached = len(found.keys) >= offset
        return Page(rows=rows, next_cursor=found.frontier if reached else None, complete=found.complete)

    def _rows(self, keys: Sequence[Key]) -> Sequence[StoredEvent]:
        """The rows of these keys, in the same order."""
        syntax = self._syntax
        wanted = {
            number: [key.seq for key in group]
            for number, group in groupby(sorted(keys, key=attrgetter("segment")), key=attrgetter("segment"))
        }
        rows: dict[int, StoredEvent] = {}
        numbers = list(wanted)
        for at in range(0, len(numbers), _ROW_ARMS):
            chunk = numbers[at : at + _ROW_ARMS]
            arms = [
                f"SELECT {syntax.columns} FROM audit_logs_{n} WHERE {syntax.among.format(seqs=f':seqs_{n}')}"  # noqa: S608
                for n in chunk
            ]
            found = self._execute(union(arms), {f"seqs_{n}": syntax.seqs(wanted[n]) for n in chunk})
            rows |= {event.seq: event for event in map(stored_event, found)}
        return [rows[key.seq] for key in keys if key.seq in rows]

    def _walk(self, filter: Filter, *, search: bool = True) -> Walk | None:
        """The segments and conditions of a filter, oldest segment first; None when no row can match."""
        conditions = where(filter, self._syntax, search=search)
        if conditions is None:
            return None
        start, end = filter.start, filter.end
        ranged = filter == Filter(start=start, end=end)
        return Walk(
            self._execute,
            self._syntax,
            pruned(self.segments(), start, end),
            conditions,
            span=(-inf if start is None else start, inf if end is None else end) if ranged else None,
        )

    def _spanned(self, walk: Walk) -> Sequence[Segment]:
        """The walk's segments with the ends and time spans that their rows have now; empty ones are left out."""
        size = self._size()
        known = [s for s in walk.segments if s.first < size]
        arms = [
            f"SELECT {s.number} AS n, (SELECT min(timestamp) FROM audit_logs_{s.number}) AS a,"  # noqa: S608
            f" (SELECT max(timestamp) FROM audit_logs_{s.number}) AS z"
            for s in known
            if s.min_timestamp is None
        ]
        spans = {row[0]: row for row in self._execute(union(arms), {})} if arms else {}
        return [
            replace(s, end=min(s.end, size), min_timestamp=spans[s.number][1], max_timestamp=spans[s.number][2])
            if s.number in spans
            else s
            for s in known
        ]

    def _size(self) -> int:
        head = self.head()
        return 0 if head is None else head.size

    @property
    def _syntax(self) -> Syntax:
        return POSTGRESQL if self.engine.dialect.name == "postgresql" else SQLITE

    def _execute(self, statement: str, params: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        with translated(), self.engine.connect() as connection:
            return connection.execute(_parsed(statement), params).all()


# Finding the parameters in a statement over many segments takes longer than running it; the same few come again and again.
_parsed = lru_cache(maxsize=512)(text)


def _timer(budget: float) -> Callable[[], bool]:
    deadline = time.monotonic() + budget
    return lambda: time.monotonic() >= deadline

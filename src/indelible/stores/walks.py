"""In which order a page reads segments, and when it may stop: keys only, the rows come afterwards.

A key is (sort value, seq). Segments are read in chunks of 1, 2, 4, ... per statement, so that the newest page costs one
segment and a rare value in hundreds of them a handful of round trips. Each statement gives at most ``need`` keys per
segment, and a segment is left out as soon as no row of it can reach into the page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from operator import attrgetter, ge, gt, le, lt
from typing import Any, Final, NamedTuple

from indelible.ports import Segment
from indelible.queries import MAX_SEQ, NULLABLE_SORT_FIELDS, Cursor
from indelible.stores.syntax import Search, Syntax, Where, as_micros

#: A statement's text and parameters in, its rows out, in a transaction of its own.
Execute = Callable[[str, Mapping[str, Any]], Sequence[Sequence[Any]]]

#: How many rows a search looks at between two looks at the clock.
SLICE: Final = 8_192
#: Matches of a segment that are fetched through an index, in no order. Where there are more, a page of them is not far.
FEW: Final = 1_024
#: SQLite takes 32,766 parameters in a statement, and every arm repeats those of the filter.
_MAX_PARAMS: Final = 30_000
_COMPARE: Final[Mapping[str, Callable[[Any, Any], bool]]] = {"<": lt, "<=": le, ">": gt, ">=": ge}


#: Positions that one statement of a scan covers, at the most.
_WIDEST: Final = 16_384


def next_width(width: int, looked: int, found: int, wanted: int) -> int:
    """How many positions a scan covers next, so that about ``wanted`` match, as ``found`` of the last ``looked`` did.

    A range of positions, never a LIMIT: over rows that nobody has analysed yet, PostgreSQL would sort all that are left for
    each slice. It grows twofold at the most, in case what follows is denser.
    """
    return min(wanted * looked // max(1, found), 2 * width, _WIDEST)


class Key(NamedTuple):
    """The place of one row in an order, and the segment it is in."""

    value: Any
    seq: int
    segment: int


class Found(NamedTuple):
    """The first keys in order. When the time ran out, everything before ``frontier`` has been looked at, if known."""

    keys: Sequence[Key]
    complete: bool = True
    frontier: Cursor | None = None


def pruned(segments: Sequence[Segment], start: int | None, end: int | None) -> list[Segment]:
    """The segments that may hold rows from ``start`` to ``end`` (µs, inclusive); an unknown span may hold any."""
    return [
        s
        for s in segments
        if (start is None or s.max_timestamp is None or s.max_timestamp >= start)
        and (end is None or s.min_timestamp is None or s.min_timestamp <= end)
    ]


@dataclass(frozen=True, slots=True)
class Walk:
    """One way through the log: these segments, these conditions, this order.

    ``expired`` says that the time for a search is up. ``span`` is set when the only condition is a time range:
    then a segment whose own span lies in it is counted without a look at its rows.
    """

    execute: Execute
    syntax: Syntax
    segments: Sequence[Segment]
    where: Where
    column: str = "timestamp"
    descending: bool = True
    expired: Callable[[], bool] = bool
    span: tuple[float, float] | None = None

    def keys(self, need: int, cursor: Cursor | None) -> Found:
        """The first ``need`` keys after ``cursor``."""
        if self.column == "timestamp":
            return Found(self._by_time(need, cursor))
        valued: Found = Found([])
        if cursor is None or cursor.value is not None:
            valued = self._by_text(need, cursor)
            cursor = None
        if len(valued.keys) == need or not valued.complete or self.column not in NULLABLE_SORT_FIELDS:
            return valued
        rest = self._without_value(need - len(valued.keys), cursor)
        return Found([*valued.keys, *rest.keys], rest.complete)

    def search(self, wanted: Search, need: int, cursor: Cursor | None) -> Found:
        """The first ``need`` keys in order of time among the rows that match what no index answers.

        Each segment is looked through in slices of ``SLICE`` rows, always the one that has got least far, until the time
        is up: then the answer is what lies before the place that every segment has reached. Where an index leads to ``FEW``
        matches of a segment at most, they are all there is to look at.
        """
        waiting = [(self._bound(s, cursor), s, cursor) for s in self.segments if self._reaches(s, cursor)]
        found: list[Key] = []
        begun = False
        while waiting:
            waiting.sort(key=lambda run: run[0], reverse=self.descending)
            bound, segment, after = waiting[0]
            if len(found) == need and self._precedes(found[-1].value, bound):
                break
            if begun and self.expired() and (frontier := self._frontier(bound, cursor)):
                return Found([key for key in found if self._precedes(key.value, bound)], False, frontier)
            few = self._few(segment, wanted, after) if wanted.leading.conditions and after is cursor else None
            last, matches = (None, few) if few is not None else self._slice(segment, wanted.matching, need, after)
            begun = True
            found = self._merged(found, matches, need)
            if last is None:
                waiting.pop(0)
            else:
                waiting[0] = (last.value, segment, Cursor(last.value, last.seq))
        return Found(found)

    def seek(self, offset: int) -> tuple[Cursor, int] | None:
        """A place before row ``offset`` in order of time, and how many rows to skip from there; None past the end.

        Every span must be known. Segments are counted, not read, and what two spans have in common is counted apart: in
        a log without conditions, nothing else is looked at.
        """
        ordered = sorted(self.segments, key=lambda s: self._bound(s), reverse=self.descending)
        passed = 0
        for at, (segment, count) in enumerate(zip(ordered, self.counts(ordered), strict=True)):
            if passed + count <= offset:
                passed += count
                continue
            # Whatever precedes this segment's bound is in the segments passed; what they hold beyond it is not yet due.
            bound = int(self._bound(segment))
            cut = Cursor(bound, MAX_SEQ if self.descending else -1)
            operator = "<=" if self.descending else ">="
            late = Where((f"timestamp {operator} :cut",), {"cut": self.syntax.time(bound)})
            overlapping = [s for s in ordered[:at] if not self._precedes(self._last(s), bound)]
            ahead = sum(replace(self, where=self.where & late, span=None).counts(overlapping))
            return cut, offset - passed + ahead
        return None

    def counts(self, segments: Sequence[Segment]) -> Iterator[int]:
        """How many rows of each segment match; their ends must be those of their rows."""
        for chunk in self.chunks(segments):
            arms = {
                s.number: f"SELECT {s.number} AS n, count(*) AS c FROM audit_logs_{s.number}{self.where.sql()}"  # noqa: S608
                for s in chunk
                if not self.covers(s)
            }
            counted = {row[0]: row[1] for row in self._union(list(arms.values()), {})}
            yield from (counted[s.number] if s.number in arms else s.end - s.first for s in chunk)

    def covers(self, segment: Segment) -> bool:
        """Whether every row of the segment is known to match."""
        if self.span is None or segment.min_timestamp is None or segment.max_timestamp is None:
            return False
        return self.span[0] <= segment.min_timestamp and segment.max_timestamp <= self.span[1]

    def _by_time(self, need: int, cursor: Cursor | None) -> list[Key]:
        waiting = sorted(
            (s for s in self.segments if self._reaches(s, cursor)),
            key=lambda s: self._bound(s),
            reverse=self.descending,
        )
        found: list[Key] = []
        width = 1
        while waiting:
            worst = found[-1] if len(found) == need else None
            if worst is not None:
                waiting = [s for s in waiting if not self._precedes(worst.value, self._bound(s))]
            chunk, waiting = waiting[:width], waiting[width:]
            found = self._merged(found, self._read(chunk, need, cursor, worst), need)
            width = min(2 * width, self._arms)
        return found

    def _by_text(self, need: int, cursor: Cursor | None) -> Found:
        ordered = self._by_seq()
        if cursor is not None:
            # Rows of the cursor's own value come next, and they are in the segments beyond it: with the page filled
            # from those, the others need no more than a look into an index.
            seq = cursor.seq
            ordered.sort(key=lambda s: self._lies_ahead(s, seq))
        found: list[Key] = []
        for chunk in self.chunks(ordered):
            if self.expired():
                return Found(found, False)
            worst = found[-1] if len(found) == need else None
            found = self._merged(found, self._read(chunk, need, cursor, worst), need)
        return Found(found)

    def _without_value(self, need: int, cursor: Cursor | None) -> Found:
        found: list[Key] = []
        ordered = [s for s in self._by_seq() if cursor is None or not self._lies_ahead(s, cursor.seq)]
        conditions = [f"{self.column} IS NULL"]
        if cursor is not None:
            conditions.append(f"seq {'<' if self.descending else '>'} :cursor_seq")
        for chunk in self.chunks(ordered):
            if len(found) >= need:
                break
            if self.expired():
                return Found(found, False)
            arms = [self._arm(s, conditions, order=("seq",)) for s in chunk]
            params = {"need": need, "cursor_seq": cursor.seq} if cursor else {"need": need}
            keys = (Key(None, seq, number) for number, _, seq in self._union(arms, params))
            found += sorted(keys, key=attrgetter("seq"), reverse=self.descending)
        return Found(found[:need])

    def _read(self, chunk: Sequence[Segment], need: int, cursor: Cursor | None, worst: Key | None) -> list[Key]:
        """At most ``need`` keys of each segment, after ``cursor`` and before ``worst``."""
        params: dict[str, Any] = {"need": need}
        if cursor is not None:
            params |= {"cursor": self._bind(cursor.value), "cursor_seq": cursor.seq}
        if worst is not None:
            params |= {"worst": self._bind(worst.value), "worst_seq": worst.seq}
        arms = []
        for segment in chunk:
            conditions = [] if cursor or worst or self.column == "timestamp" else [f"{self.column} IS NOT NULL"]
            if cursor is not None:
                conditions += self._beyond(segment, "cursor", cursor, self.descending)
            if worst is not None:
                conditions += self._beyond(segment, "worst", worst, not self.descending)
            arms.append(self._arm(segment, conditions))
        return [Key(as_micros(value), seq, number) for number, value, seq in self._union(arms, params)]

    def _beyond(self, segment: Segment, name: str, at: Cursor | Key, descending: bool) -> list[str]:
        """Conditions for the rows of ``segment`` beyond ``at``, as simple as the segment's numbers allow."""
        strict, loose = ("<", "<=") if descending else (">", ">=")
        only_loose = segment.end <= at.seq if descending else segment.first > at.seq
        only_strict = segment.first >= at.seq if descending else segment.end <= at.seq + 1
        operator = strict if only_strict else loose
        conditions = [f"{self.column} {operator} :{name}"]
        if not only_loose and not only_strict:
            conditions.append(f"({self.column} {strict} :{name} OR seq {strict} :{name}_seq)")
        if self.column == "status" and not _COMPARE[operator]("success", at.value):
            # The index on status leaves success out; SQLite uses it only where its own condition is repeated.
            conditions.append("status <> 'success'")
        return conditions

    def _slice(
        self, segment: Segment, matching: Where, need: int, after: Cursor | None
    ) -> tuple[Key | None, Sequence[Key]]:
        """The matches in the next slice, and where it ended: None when the segment has been looked through."""
        conditions = [] if after is None else self._beyond(segment, "cursor", after, self.descending)
        params: dict[str, Any] = {"need": need, "skip": SLICE - 1}
        if after is not None:
            params |= {"cursor": self._bind(after.value), "cursor_seq": after.seq}
        arm = self._arm(segment, conditions, limit="1 OFFSET :skip")
        last = [Key(as_micros(value), seq, number) for number, value, seq in self._union([arm], params)]
        if last:
            # Up to and including the last row: what is not beyond it.
            up_to = Key(last[0].value, last[0].seq + (-1 if self.descending else 1), segment.number)
            conditions += self._beyond(segment, "worst", up_to, not self.descending)
            params |= {"worst": self._bind(up_to.value), "worst_seq": up_to.seq}
        arm = self._arm(segment, [*conditions, *matching.conditions])
        rows = self._union([arm], {**params, **matching.params})
        matches = [Key(as_micros(value), seq, number) for number, value, seq in rows]
        return (matches[-1] if len(matches) == need else last[0] if last else None), matches

    def _few(self, segment: Segment, wanted: Search, after: Cursor | None) -> Sequence[Key] | None:
        """Every match of the segment after ``after``, through the index; None if there are more than ``FEW``."""
        conditions = [] if after is None else self._beyond(segment, "cursor", after, self.descending)
        matching = wanted.matching & wanted.leading
        params: dict[str, Any] = {"most": FEW + 1}
        if after is not None:
            params |= {"cursor": self._bind(after.value), "cursor_seq": after.seq}
        # In no order: an order would lead the engine to the other index.
        arm = (
            f"SELECT {segment.number} AS n, {self.column} AS v, seq FROM audit_logs_{segment.number}"  # noqa: S608
            f"{self.where.sql(*conditions, *matching.conditions)} LIMIT :most"
        )
        rows = self._union([arm], {**params, **matching.params})
        return [Key(as_micros(value), seq, number) for number, value, seq in rows] if len(rows) <= FEW else None

    def _arm(
        self, segment: Segment, conditions: Sequence[str], *, order: Sequence[str] = (), limit: str = ":need"
    ) -> str:
        way = " DESC" if self.descending else ""
        by = ", ".join(f"{column}{way}" for column in (order or (self.column, "seq")))
        return (
            f"SELECT {segment.number} AS n, {self.column} AS v, seq FROM audit_logs_{segment.number}"  # noqa: S608
            f"{self.where.sql(*conditions)} ORDER BY {by} LIMIT {limit}"
        )

    def _union(self, arms: Sequence[str], params: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        return self.execute(union(arms), {**self.where.params, **params}) if arms else ()

    def _merged(self, found: Sequence[Key], more: Sequence[Key], need: int) -> list[Key]:
        return sorted([*found, *more], key=attrgetter("value", "seq"), reverse=self.descending)[:need]

    def _by_seq(self) -> list[Segment]:
        return sorted(self.segments, key=attrgetter("first"), reverse=self.descending)

    def _lies_ahead(self, segment: Segment, seq: int) -> bool:
        """Whether the segment's rows of the same value come before ``seq``."""
        return segment.first >= seq if self.descending else segment.end <= seq + 1

    def _reaches(self, segment: Segment, cursor: Cursor | None) -> bool:
        return cursor is None or not self._precedes(self._last(segment), cursor.value)

    def _precedes(self, value: Any, other: Any) -> bool:
        return bool(value > other if self.descending else value < other)

    def _bound(self, segment: Segment, cursor: Cursor | None = None) -> float:
        """The first time in order that a row of the segment can have."""
        if self.descending:
            bound = inf if segment.max_timestamp is None else segment.max_timestamp
        else:
            bound = -inf if segment.min_timestamp is None else segment.min_timestamp
        if cursor is None or not isinstance(cursor.value, int):
            return bound
        return min(bound, cursor.value) if self.descending else max(bound, cursor.value)

    def _last(self, segment: Segment) -> float:
        """The last time in order that a row of the segment can have."""
        if self.descending:
            return -inf if segment.min_timestamp is None else segment.min_timestamp
        return inf if segment.max_timestamp is None else segment.max_timestamp

    def _frontier(self, bound: float, cursor: Cursor | None) -> Cursor | None:
        """Where the next request goes on from ``bound``; None if that is no further than where this one began."""
        if abs(bound) == inf:
            return None
        frontier = Cursor(int(bound) if self.descending else int(bound) - 1, MAX_SEQ)
        return frontier if cursor is None or self._precedes(cursor.value, frontier.value) else None

    def _bind(self, value: Any) -> Any:
        return self.syntax.time(value) if self.column == "timestamp" else value

    @property
    def _arms(self) -> int:
        return max(1, min(self.syntax.arms, _MAX_PARAMS // (len(self.where.params) + 8)))

    def chunks(self, segments: Sequence[Segment]) -> Iterator[Sequence[Segment]]:
        """Slices of 1, 2, 4, ... segments, up to as many as one statement may read."""
        at, width = 0, 1
        while at < len(segments):
            yield segments[at : at + width]
            at, width = at + width, min(2 * width, self._arms)


def union(arms: Sequence[str]) -> str:
    """One statement of several that each have an order and a limit of their own."""
    return " UNION ALL ".join(f"SELECT * FROM ({arm}) AS a{i}" for i, arm in enumerate(arms))  # noqa: S608

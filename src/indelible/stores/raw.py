"""Rows as they stand in the database, for verification and exports: fast, one connection, nothing in them is believed.

The reading side of ``sql`` gives events; it may raise for a value that no writer would have stored. This one gives the
columns as plain values, whatever somebody has put there.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from types import TracebackType
from typing import Any, ClassVar, Final, Self

from sqlalchemy import URL

from indelible.errors import ConfigurationError
from indelible.integrity.leaf import ROW, Columns
from indelible.integrity.ranges import HeadRow
from indelible.queries import Filter
from indelible.stores import urls
from indelible.stores.faults import translated
from indelible.stores.schema import COLUMNS
from indelible.stores.syntax import Syntax
from indelible.stores.syntax import where as conditions
from indelible.stores.walks import next_width

#: Rows in one piece: few enough for what is made of them to stay in the processor's caches.
SLICE_ROWS: Final = 512
#: Strays that are named of each table.
STRAYS: Final = 10
_TIMES: Final = frozenset({"recorded_at", "timestamp"})
#: By their place, written as ``?``, or by name, as ``:name``.
Parameters = Sequence[Any] | Mapping[str, Any]
_SEGMENT: Final = re.compile(r"audit_logs_(0|[1-9][0-9]{0,17})")


@dataclass(frozen=True, slots=True)
class Part:
    """A segment: its table's number, and the rows that belong there."""

    number: int
    first: int
    end: int


class RawReader(ABC):
    """One connection that reads; a context manager. Every method may raise StoreError."""

    #: Whether the database itself sees to it that a column of text holds text.
    typed: ClassVar[bool]
    #: SQL for the smaller of two values, and how conditions are written.
    _least: ClassVar[str]
    _syntax: ClassVar[Syntax]
    #: Columns that are to come as their text.
    _as_text: ClassVar[frozenset[str]] = frozenset()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def parts(self) -> list[Part]:
        """The segments that the log says it has, oldest first."""
        return [
            Part(*row) for row in self._all("SELECT number, first_seq, end_seq FROM audit_segments ORDER BY number")
        ]

    def rows(self, first: int, end: int) -> Iterator[tuple[int, Columns]]:
        """The rows first <= seq < end by segment, in order, up to 512 positions at a time: (segment, columns of ROW).

        A segment whose table is gone has none.
        """
        present = self._tables()
        for part in self.parts():
            if part.number not in present:
                continue
            for at in range(max(first, part.first), min(end, part.end), SLICE_ROWS):
                until = min(at + SLICE_ROWS, end, part.end)
                found = self._all(
                    f"SELECT {self._select(ROW)} FROM audit_logs_{part.number} WHERE seq >= ? AND seq < ? ORDER BY seq",
                    (at, until),
                )
                if found:
                    yield part.number, self._columnwise(ROW, found)

    def matching(self, wanted: Filter, names: Sequence[str], *, first: int, end: int) -> Iterator[Columns]:
        """These columns, ``seq`` among them, of the rows first <= seq < end that match, in order, some hundred at a time."""
        where = conditions(wanted, self._syntax)
        if where is None:
            return
        # In the order of the table: to find a column, SQLite goes through all before it.
        stored = [name for name in COLUMNS if name in names]
        order = [stored.index(name) for name in names]
        clause = where.sql("seq >= :at", "seq < :until")
        width = SLICE_ROWS
        for part in self._reaching(wanted):
            at, until = max(first, part.first), min(end, part.end)
            query = f"SELECT {self._select(stored)} FROM audit_logs_{part.number}{clause} ORDER BY seq"
            while at < until:
                reach = min(at + width, until)
                rows = self._all(query, {**where.params, "at": at, "until": reach})
                if rows:
                    columns = self._columnwise(stored, rows)
                    yield [columns[place] for place in order]
                width = next_width(width, reach - at, len(rows), SLICE_ROWS)
                at = reach

    def heads(self, first: int, end: int) -> list[HeadRow]:
        """The heads with first < size <= end, smallest first."""
        query = "SELECT size, root, writer_id, writer_seq FROM audit_heads WHERE size > ? AND size <= ? ORDER BY size"
        return [
            HeadRow(size, root, str(writer), number) for size, root, writer, number in self._all(query, (first, end))
        ]

    def size(self) -> int:
        """The size of the newest head, 0 without one."""
        return int(self._all("SELECT coalesce(max(size), 0) FROM audit_heads")[0][0])

    def last_row(self) -> int:
        """The position of the last row of any segment, -1 for an empty log."""
        present = self._tables()
        for part in reversed(self.parts()):
            if part.number in present:
                last = self._all(f"SELECT max(seq) FROM audit_logs_{part.number}")[0][0]
                if last is not None:
                    return int(last)
        return -1

    def tile(self, level: int, number: int) -> bytes | None:
        """A stored tile, None where there is none."""
        found = self._all("SELECT hashes FROM audit_tiles WHERE level = ? AND number = ?", (level, number))
        return found[0][0] if found else None

    def tiles(self) -> tuple[int, list[tuple[int, int]]]:
        """The log's size, and (level, number) of every stored tile, as of one moment."""
        found = self._all("SELECT level, number, (SELECT coalesce(max(size), 0) FROM audit_heads) FROM audit_tiles")
        return (found[0][2] if found else 0), [(level, number) for level, number, _ in found]

    def checkpoints(self, first: int, end: int) -> list[tuple[int, bytes]]:
        """The published checkpoints with first < size <= end, smallest first: (size, signed note)."""
        query = "SELECT size, note FROM audit_checkpoints WHERE size > ? AND size <= ? ORDER BY size"
        return [(size, note.encode(errors="surrogateescape")) for size, note in self._all(query, (first, end))]

    def spans(self) -> dict[int, tuple[int, int]]:
        """The recorded time spans of segments, by number (µs)."""
        query = "SELECT number, min_timestamp, max_timestamp FROM audit_segment_spans"
        found = self._all(query)
        numbers, low, high = zip(*found, strict=True) if found else ((), (), ())
        return dict(zip(numbers, zip(self._all_micros(low), self._all_micros(high), strict=True), strict=True))

    def strays(self) -> list[tuple[int, str]]:
        """Rows that belong to no segment, or lie behind the newest head: (seq, table), a few of each table."""
        # The tables first: each is made together with its entry in audit_segments.
        numbered, others = self._tables(), self._other_tables()
        known = {part.number: part for part in self.parts()}
        found: list[tuple[int, str]] = []
        for table in (*others, *(f"audit_logs_{number}" for number in sorted(numbered - known.keys()))):
            found += [(seq, table) for (seq,) in self._all(f"SELECT seq FROM {table} LIMIT {STRAYS}")]
        newest = "(SELECT coalesce(max(size), 0) FROM audit_heads)"
        for number in sorted(numbered & known.keys()):
            part, table = known[number], f"audit_logs_{number}"
            below = f"SELECT seq FROM {table} WHERE seq < ?"
            above = f"SELECT seq FROM {table} WHERE seq >= {self._least}(?, {newest})"
            query = f"SELECT seq FROM ({below} UNION ALL {above}) AS s ORDER BY seq LIMIT {STRAYS}"
            found += [(seq, table) for (seq,) in self._all(query, (part.first, part.end))]
        return found

    @abstractmethod
    def close(self) -> None:
        """Give the connection back. Closing twice does nothing."""

    @abstractmethod
    def _fetch(self, query: str, parameters: Parameters) -> list[Any]: ...

    def _select(self, names: Sequence[str]) -> str:
        return ", ".join(f'"{name}"::text' if name in self._as_text else f'"{name}"' for name in names)

    def _columnwise(self, names: Sequence[str], rows: Sequence[Any]) -> list[Sequence[Any]]:
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
        for at, name in enumerate(names):
            if name in _TIMES:
                columns[at] = self._all_micros(columns[at])
        return columns

    def _reaching(self, wanted: Filter) -> list[Part]:
        """The segments that may hold rows of these times."""
        spans = {} if wanted.start is None and wanted.end is None else self.spans()
        low, high = -inf if wanted.start is None else wanted.start, inf if wanted.end is None else wanted.end
        everything = (-inf, inf)
        return [
            part
            for part in self.parts()
            if low <= spans.get(part.number, everything)[1] and spans.get(part.number, everything)[0] <= high
        ]

    @abstractmethod
    def _all_micros(self, times: Sequence[Any]) -> Sequence[Any]:
        """Times as the driver gives them in Unix µs."""

    @abstractmethod
    def _names(self) -> list[str]:
        """The names of all tables that begin with ``audit_logs_``."""

    @abstractmethod
    def _other_tables(self) -> list[str]:
        """Tables, quoted, that are part of the log for the database but are not named as segments are."""

    def _tables(self) -> set[int]:
        return {int(match[1]) for match in map(_SEGMENT.fullmatch, self._names()) if match is not None}

    def _all(self, query: str, parameters: Parameters = ()) -> list[Any]:
        with translated():
            return self._fetch(query, parameters)


def open_raw(url: str | URL) -> RawReader:
    """A reader of the log at this address. Raises ConfigurationError, StoreUnavailable, SchemaOutOfDate."""
    parsed = urls.parse(url) if isinstance(url, str) else url
    with translated():
        if parsed.get_backend_name() == "sqlite":
            from indelible.stores.raw_sqlite import SqliteRaw

            return SqliteRaw(str(parsed.database))
        try:
            from indelible.stores.raw_postgres import PostgresRaw
        except ImportError as error:
            raise ConfigurationError("PostgreSQL needs psycopg 3", hint="pip install 'indelible[postgres]'") from error
        return PostgresRaw(parsed)

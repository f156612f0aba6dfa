"""The values of a question and of its answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal

from indelible.events import micros
from indelible.queries.addresses import network

SortField = Literal["timestamp", "event_type", "user_id", "ip_address", "status"]
SORT_FIELDS: Final[tuple[str, ...]] = ("timestamp", "event_type", "user_id", "ip_address", "status")
DEFAULT_PAGE_SIZE: Final = 50
MAX_PAGE_SIZE: Final = 1000
#: Sort fields in which a row may have no value.
NULLABLE_SORT_FIELDS: Final[frozenset[str]] = frozenset({"user_id", "ip_address"})
#: Totals that would need a scan are counted up to here and then flagged as not exact.
COUNT_CAP: Final = 10_000
#: The years 1 to 9999 in Unix microseconds: the times that have an RFC 3339 form.
EARLIEST: Final = micros(datetime.min.replace(tzinfo=UTC))
LATEST: Final = micros(datetime.max.replace(tzinfo=UTC))
#: The greatest ``seq`` that both engines can hold.
MAX_SEQ: Final = 2**63 - 1


_UNSTORABLE: Final = re.compile("[\\0\\ud800-\\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which events. Every condition must hold; within a tuple any value may match; empty means no condition.

    ``start`` and ``end`` are inclusive bounds on ``timestamp``, Unix time in microseconds. ``q`` is a text searched,
    without regard to ASCII case, in path, resource id and user agent. An ``ip_address`` may be a network
    (``10.0.0.0/8``, ``2001:db8::/32``): it matches every address in it.
    """

    event_type: tuple[str, ...] = ()
    user_id: tuple[str, ...] = ()
    status: tuple[str, ...] = ()
    ip_address: tuple[str, ...] = ()
    action: tuple[str, ...] = ()
    resource_type: str | None = None
    resource_id: str | None = None
    correlation_id: str | None = None
    start: int | None = None
    end: int | None = None
    q: str | None = None

    @property
    def searches(self) -> bool:
        """Whether some condition has no index that leads to its rows: they are looked for, within a time budget."""
        return bool(self.q) or any(network(value) is not None for value in self.ip_address)


@dataclass(frozen=True, slots=True)
class Cursor:
    """The place after one row in one order: the sort field's value (None sorts last either way) and ``seq``."""

    value: int | str | None
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One page of the log. ``cursor`` continues after a row; otherwise ``page`` (from 1) counts from the start."""

    filter: Filter = field(default_factory=Filter)
    sort_by: str = "timestamp"
    descending: bool = True
    page: int = 1
    page_size: int = DEFAULT_PAGE_SIZE
    cursor: Cursor | None = None


@dataclass(frozen=True, slots=True)
class Count:
    """How many; when ``exact`` is false there are at least so many."""

    value: int
    exact: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What happened in a time range. Times are Unix microseconds.

    ``events_over_time`` holds (bucket start, count) for consecutive buckets of ``bucket`` microseconds (see
    ``bucket_width``), oldest first, empty ones between the first and the last event included, as a chart needs them;
    ``outcomes_over_time`` holds the same buckets with counts by outcome. Tops are sorted by count, ties by name; events
    without a user, address or type of resource are not among them.
    """

    total_events: int
    event_type_breakdown: Mapping[str, int]
    status_breakdown: Mapping[str, int]
    top_users: tuple[tuple[str, int], ...]
    top_ips: tuple[tuple[str, int], ...]
    top_resource_types: tuple[tuple[str, int], ...]
    events_over_time: tuple[tuple[int, int], ...]
    outcomes_over_time: tuple[tuple[int, Mapping[str, int]], ...]
    bucket: int


#: The fields whose values ``Facets`` counts.
FACETS: Final[tuple[str, ...]] = ("event_type", "status", "user_id", "ip_address", "resource_type", "action")
#: How many events are looked at for them unless somebody asks for more.
FACETS_CAP: Final = 5_000


@dataclass(frozen=True, slots=True)
class Facets:
    """The values of each of ``FACETS`` among ``rows`` matching events, with their counts, the greatest first, ties by name.

    Absent values are not counted. When ``exact`` is false, more events match than were counted.
    """

    counts: Mapping[str, Mapping[str, int]]
    rows: int
    exact: bool


def storable(text: str) -> bool:
    """Whether the log can hold ``text``: what is stored has neither NUL nor lone surrogates, which drivers refuse."""
    return _UNSTORABLE.search(text) is None

"""A user or a resource: everything by it or about it in the order of time, and the hours at which that happens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fastapi import Response

from indelible.errors import InvalidQuery
from indelible.events import StoredEvent, moment
from indelible.ports import Store
from indelible.queries import Cursor, Filter, Query, decode_cursor, encode_cursor
from indelible.web.dashboard.asking import explore
from indelible.web.dashboard.site import link, render, trouble
from indelible.web.reading import Reading

#: Events on a page.
ROWS: Final = 50
#: The usual hours are those of the newest so many events.
SAMPLE: Final = 1_000
DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_PARAMETERS: Final = ("user", "type", "id", "cursor")


@dataclass(frozen=True, slots=True)
class Subject:
    """Somebody, by id, or something, by type and id; ``filters`` are the events by it and those about it."""

    name: str
    kind: str
    filters: Sequence[Filter]
    params: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Told:
    rows: Sequence[StoredEvent]
    cursor: Cursor | None
    hours: Sequence[Sequence[int]]
    sampled: int


async def page(reading: Reading) -> Response:
    """The page of one subject, newest events first."""
    try:
        subject, cursor = _parse(reading.request.query_params.multi_items())
    except InvalidQuery as error:
        return trouble(reading.request, 422, str(error))
    more = cursor is not None and "hx-request" in reading.request.headers
    told = await reading.ask(_load, reading.store, subject, cursor, more=more)
    asked: dict[str, object] = {**subject.params}
    if cursor is not None:
        asked["after_seq"] = cursor.seq
    reading.record("audit.read", "timeline", filters=asked, rows=len(told.rows))
    following = told.cursor and encode_cursor(told.cursor, sort_by="timestamp", descending=True)
    return render(
        reading.request,
        "timeline.html" if more else "subject.html",
        here="explorer",
        subject=subject,
        rows=told.rows,
        hours=told.hours,
        most=max((max(day) for day in told.hours), default=0),
        days=DAYS,
        sampled=told.sampled,
        next=following and link("subject", **subject.params, cursor=following),
        explorer=explore(subject.filters[0]),
    )


def _parse(params: list[tuple[str, str]]) -> tuple[Subject, Cursor | None]:
    given: dict[str, str] = {}
    for name, value in params:
        if name not in _PARAMETERS or name in given or not value:
            raise InvalidQuery(f"unknown, repeated or empty parameter {name[:64]!r}", parameter=name[:64])
        given[name] = value
    text = given.pop("cursor", None)
    cursor = None if text is None else decode_cursor(text, sort_by="timestamp", descending=True)
    if set(given) == {"user"}:
        user = given["user"]
        by, about = Filter(user_id=(user,)), Filter(resource_type="user", resource_id=user)
        return Subject(user, "user", (by, about), given), cursor
    if set(given) == {"type"} or set(given) == {"type", "id"}:
        kind, name = given["type"], given.get("id", "")
        return Subject(name, kind, (Filter(resource_type=kind, resource_id=name or None),), given), cursor
    raise InvalidQuery("say a user, or a resource's type and id", parameter="user")


def _load(store: Store, subject: Subject, cursor: Cursor | None, *, more: bool) -> _Told:
    size = ROWS + 1 if more else SAMPLE
    found: dict[int, StoredEvent] = {}
    for wanted in subject.filters:
        found |= {row.seq: row for row in store.page(Query(filter=wanted, page_size=size, cursor=cursor)).rows}
    rows = sorted(found.values(), key=lambda row: (row.timestamp, row.seq), reverse=True)
    shown, last = rows[:ROWS], rows[ROWS - 1] if len(rows) > ROWS else None
    return _Told(
        shown, None if last is None else Cursor(last.timestamp, last.seq), _hours(rows[:SAMPLE]), min(len(rows), SAMPLE)
    )


def _hours(rows: Sequence[StoredEvent]) -> list[list[int]]:
    """How many of the events fell into each hour (UTC) of each day of the week, Monday first."""
    counts: Counter[tuple[int, int]] = Counter()
    for row in rows:
        try:
            at = moment(row.timestamp)
        except OverflowError:
            continue  # a forged row
        counts[at.weekday(), at.hour] += 1
    return [[counts[day, hour] for hour in range(24)] for day in range(7)]

"""The overview: how much happened and how it ended, who and what stands out, and how the log itself is."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from fastapi import Response

from indelible.errors import InvalidQuery
from indelible.queries import REPEATABLE, Filter, Stats, filter_as_params, filter_as_search
from indelible.service import AuditService
from indelible.web.dashboard import words
from indelible.web.dashboard.asking import explore, look, narrowed, range_of
from indelible.web.dashboard.site import link, render, trouble
from indelible.web.dashboard.standing import Standing, standing
from indelible.web.reading import Reading

#: In the order the chart stacks them.
OUTCOMES: Final = ("success", "failure", "denied")
#: Lines in a list of the busiest.
TOP: Final = 6
#: Spans that one click gives, as the search writes them.
SPANS: Final = (("1h", "Hour"), ("24h", "Day"), ("7d", "Week"), ("30d", "Month"), ("", "All"))


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of a list of the busiest: a name, how often, and where the explorer shows those events."""

    name: str
    count: int
    href: str


@dataclass(frozen=True, slots=True)
class Bucket:
    """A span of the chart: when it starts and ends (µs, inclusive), and how many events ended how."""

    start: int
    end: int
    success: int
    failure: int
    denied: int
    href: str


async def page(reading: Reading) -> Response:
    """The overview of a range of time."""
    try:
        view = look(reading.request.query_params.multi_items(), words.utc_now())
        wanted = _range(view.filter)
    except InvalidQuery as error:
        return trouble(reading.request, 422, str(error))
    stats, now = await reading.ask(_load, reading.service, wanted)
    reading.record("audit.read", "overview", filters=filter_as_params(wanted), rows=stats.total_events)

    def those(name: str) -> Callable[[str], str]:
        """The explorer's address for a value of this field, in the same range."""
        return lambda value: explore(narrowed(wanted, name, (value,) if name in REPEATABLE else value))

    return render(
        reading.request,
        "overview.html",
        here="overview",
        range=wanted,
        range_q=view.range,
        spans=[(text, name, link("", q=f"since:{text}" if text else None)) for text, name in SPANS],
        chosen=view.range.removeprefix("since:"),
        total=stats.total_events,
        outcomes=[(status, stats.status_breakdown.get(status, 0), those("status")(status)) for status in OUTCOMES],
        buckets=[*_buckets(stats, wanted)],
        everything=explore(wanted),
        users=[*_bars(stats.top_users, those("user_id"))],
        addresses=[*_bars(stats.top_ips, those("ip_address"))],
        resources=[*_bars(stats.top_resource_types, those("resource_type"))],
        kinds=[*_bars(stats.event_type_breakdown.items(), those("event_type"))],
        standing=now,
    )


def _range(filter: Filter) -> Filter:
    wanted = range_of(filter)
    if wanted != filter:
        raise InvalidQuery("the overview is about a range of time alone", parameter="q", hint="ask the explorer")
    return wanted


def _load(service: AuditService, wanted: Filter) -> tuple[Stats, Standing]:
    return service.store.stats(wanted, top=TOP), standing(service)


def _bars(counts: Iterable[tuple[str, int]], address: Callable[[str], str]) -> Iterator[Bar]:
    for name, count in heapq.nsmallest(TOP, counts, key=lambda each: (-each[1], each[0])):
        yield Bar(name, count, address(name))


def _buckets(stats: Stats, wanted: Filter) -> Iterator[Bucket]:
    for start, counts in stats.outcomes_over_time:
        first, last = max(start, wanted.start or start), start + stats.bucket - 1
        last = last if wanted.end is None else min(last, wanted.end)
        href = link("", q=filter_as_search(Filter(start=first, end=last)))
        success, failure, denied = (counts.get(status, 0) for status in OUTCOMES)
        yield Bucket(start, last, success, failure, denied, href)

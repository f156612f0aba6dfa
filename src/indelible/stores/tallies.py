"""Counts and breakdowns, segment by segment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from indelible.ports import Segment
from indelible.queries import EARLIEST, FACETS, LATEST, Count, Facets, Filter, bucket_width
from indelible.rollups import Rollup, clamped, greatest, merged
from indelible.stores.syntax import Search, as_micros
from indelible.stores.walks import Walk, union

#: One pass over the rows, whatever they are counted by: name of the count, up to two names, a time, how many.
_TALLY: Final = """
WITH matching AS MATERIALIZED (
    SELECT event_type, status, user_id, ip_address, resource_type, {bucket} AS bucket FROM audit_logs_{number}{where}
)
SELECT 0, event_type, status, CAST(NULL AS {time}), count(*) FROM matching GROUP BY event_type, status
UNION ALL SELECT 1, user_id, NULL, NULL, count(*) FROM matching WHERE user_id IS NOT NULL GROUP BY user_id
UNION ALL SELECT 2, ip_address, NULL, NULL, count(*) FROM matching WHERE ip_address IS NOT NULL GROUP BY ip_address
UNION ALL SELECT 3, resource_type, NULL, NULL, count(*) FROM matching WHERE resource_type IS NOT NULL GROUP BY resource_type
UNION ALL SELECT 4, status, NULL, bucket, count(*) FROM matching GROUP BY status, bucket
"""


def count(walk: Walk, cap: int | None) -> Count:
    """How many rows match. At most ``cap`` rows are looked up (None: any number); what needs no look is always counted.

    The segments' ends must be those of their rows.
    """
    free = sum(s.end - s.first for s in walk.segments if walk.covers(s))
    found = 0
    for chunk in walk.chunks([s for s in reversed(walk.segments) if not walk.covers(s)]):
        if walk.expired():
            return Count(free + found, exact=False)
        limit = "" if cap is None else " LIMIT :most"
        arms = [
            f"SELECT count(*) AS c FROM (SELECT 1 AS x FROM audit_logs_{s.number}{walk.where.sql()}{limit}) AS m"  # noqa: S608
            for s in chunk
        ]
        most = {} if cap is None else {"most": cap + 1 - found}
        found += sum(row[0] for row in walk.execute(union(arms), {**walk.where.params, **most}))
        if cap is not None and found > cap:
            return Count(free + cap, exact=False)
    return Count(free + found, exact=True)


def facets(walk: Walk, cap: int, wanted: Search | None) -> Facets:
    """The values among at most ``cap`` rows that match: from the newest segment back, within one in order of time."""
    counters: dict[str, Counter[str]] = {name: Counter() for name in FACETS}
    left, exact = cap, True
    for at, segment in enumerate(reversed(walk.segments)):
        if at and walk.expired():
            exact = False
            break
        rows, complete = _newest(walk, segment, left + 1, wanted)
        exact = complete and len(rows) <= left
        for name, values in zip(FACETS, zip(*rows[:left], strict=True), strict=False):
            counters[name].update(values)
        left -= min(len(rows), left)
        if not exact:
            break
    for counter in counters.values():
        del counter[None]
    return Facets(
        {name: dict(greatest(counter, len(counter))) for name, counter in counters.items()}, cap - left, exact
    )


def _newest(walk: Walk, segment: Segment, most: int, wanted: Search | None) -> tuple[Sequence[Sequence[Any]], bool]:
    """The values of the newest ``most`` matching rows of a segment, and whether there was time to look for all of them."""
    select, order = f"SELECT {', '.join(FACETS)} FROM audit_logs_{segment.number}", "ORDER BY timestamp DESC, seq DESC"  # noqa: S608
    if wanted is None:
        newest = f"{select}{walk.where.sql()} {order} LIMIT :most"
        return walk.execute(newest, {**walk.where.params, "most": most}), True
    found = replace(walk, segments=[segment]).search(wanted, most, None)
    among = f"{select} WHERE {walk.syntax.among.format(seqs=':seqs')} {order}"
    return walk.execute(among, {"seqs": walk.syntax.seqs([key.seq for key in found.keys])}), found.complete


def time_range(segments: Sequence[Segment], filter: Filter) -> tuple[int, int]:
    """The times between which matching rows can be; the spans of the segments must be known."""
    start = EARLIEST if filter.start is None else filter.start
    end = LATEST if filter.end is None else filter.end
    first = min((s.min_timestamp for s in segments if s.min_timestamp is not None), default=0)
    last = max((s.max_timestamp for s in segments if s.max_timestamp is not None), default=0)
    first = min(max(first, start, EARLIEST), LATEST)
    return first, max(first, min(last, end, LATEST))


def tally(walk: Walk, first: int, end: int, *, times: tuple[int, int] | None = None) -> Rollup | None:
    """The rollup of the matching rows with first <= seq < end; None for no rows at all.

    ``times`` (default: those of the rows) is the range of times that decides about the width of its buckets.
    """
    if times is None:
        times = _span(walk, first, end)
        if times is None:
            return None
    width = bucket_width(*times)
    return merged((_counted(walk, s, first, end, times, width) for s in _within(walk.segments, first, end)), width)


def _within(segments: Iterable[Segment], first: int, end: int) -> list[Segment]:
    return [s for s in segments if s.first < end and first < s.end]


def _bounds(segment: Segment, first: int, end: int) -> dict[str, int]:
    return {"from_seq": max(first, segment.first), "until": min(end, segment.end)}


def _span(walk: Walk, first: int, end: int) -> tuple[int, int] | None:
    found = [
        (clamped(as_micros(low)), clamped(as_micros(high)))
        for s in _within(walk.segments, first, end)
        for low, high in walk.execute(
            f"SELECT min(timestamp), max(timestamp) FROM audit_logs_{s.number}"  # noqa: S608
            " WHERE seq >= :from_seq AND seq < :until",
            _bounds(s, first, end),
        )
        if low is not None
    ]
    return (min(low for low, _ in found), max(high for _, high in found)) if found else None


def _counted(walk: Walk, segment: Segment, first: int, end: int, times: tuple[int, int], width: int) -> Rollup:
    bounds = _bounds(segment, first, end)
    # A condition that holds for the whole segment would lead the planner away from the indexes of the others.
    conditions = [
        condition
        for condition, needed in (
            ("seq >= :from_seq", bounds["from_seq"] > segment.first),
            ("seq < :until", bounds["until"] < segment.end or not segment.closed),
        )
        if needed
    ]
    rows = walk.execute(
        _TALLY.format(
            number=segment.number,
            bucket=walk.syntax.bucket,
            time=walk.syntax.time_type,
            where=walk.where.sql(*conditions),
        ),
        {**walk.where.params, **bounds, "width": walk.syntax.width(width)},
    )
    found = Rollup(times[0], times[1], width, {}, {}, {}, {}, {})
    named = (None, found.users, found.addresses, found.resource_types)
    for kind, name, outcome, start, n in rows:
        if kind == 0:
            found.kinds.setdefault(name, {})[outcome] = n
        elif kind == 4:
            # A row forged to stand outside the years that can be written down counts in the last bucket on its side.
            outcomes = found.times.setdefault(min(max(as_micros(start), times[0]), times[1]) // width, {})
            outcomes[name] = outcomes.get(name, 0) + n
        else:
            counts = named[kind]
            assert counts is not None
            counts[name] = n
    return found

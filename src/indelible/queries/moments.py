"""Times as people write them, and how a range of them is divided for a chart."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from indelible.errors import InvalidQuery
from indelible.events import micros
from indelible.queries.values import EARLIEST, LATEST

_DATE: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,6}))?)?"
    # a "+" that was not percent-encoded arrives as a space
    r"([Zz]|[+\- ][0-9]{2}(?::?[0-9]{2})?)?)?"
)
#: A day in microseconds.
DAY: Final = 86_400_000_000


def parse_moment(text: str, *, parameter: str, whole_day: bool = False) -> int:
    """Unix microseconds of an ISO 8601 date or date-time with up to six fraction digits; without a zone it is UTC.

    A date alone is its first microsecond, or with ``whole_day`` its last. Raises InvalidQuery naming ``parameter``.
    """
    match = _DATE.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        year, month, day, hour, minute, second, fraction, zone = match.groups()
        us = micros(
            datetime(
                int(year),
                int(month),
                int(day),
                int(hour or 0),
                int(minute or 0),
                int(second or 0),
                int((fraction or "0").ljust(6, "0")),
                tzinfo=_zone(zone),
            )
        )
    except ValueError:
        raise InvalidQuery(
            f"not a date: {text[:64]!r}", parameter=parameter, hint="write 2024-01-31 or 2024-01-31T12:00:00Z"
        ) from None
    return within_years(us + DAY - 1 if whole_day and hour is None else us)


#: Bucket widths that read well on a time axis, in microseconds: 1 s to 1 day.
_WIDTHS: Final = tuple(s * 1_000_000 for s in (1, 5, 15, 60, 300, 900, 3_600, 10_800, 43_200, 86_400))


def bucket_width(first: int, last: int) -> int:
    """How wide the buckets of a chart from ``first`` to ``last`` should be, all in microseconds.

    The narrowest of 1, 5, 15 s, 1, 5, 15 min, 1, 3, 12 h, 1 day, 4 days, 16 days, ... that needs no more than 200
    buckets: so there are between 40 and 200 of them, fewer only below 40 seconds. They start at multiples of the width.
    """
    for width in _WIDTHS:
        if last // width - first // width < 200:
            return width
    while last // width - first // width >= 200:
        width *= 4
    return width


def _zone(text: str | None) -> timezone:
    if text is None or text in "Zz":
        return UTC
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[-2:]) if len(text) > 3 else 0)
    return timezone(-offset if text[0] == "-" else offset)


def within_years(us: int) -> int:
    """``us`` or the nearest time that has an RFC 3339 form."""
    return min(max(us, EARLIEST), LATEST)

"""How values are written for people. Pure: the templates' filters."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from markupsafe import Markup

from indelible.events import moment
from indelible.rendering import time_text

_HIDDEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_MINUTE: Final = 60
_HOUR: Final = 3_600
_DAY: Final = 86_400


def number(value: int) -> str:
    """``12,345``."""
    return f"{value:,}"


def events(count: int) -> str:
    """``1 event``, ``12,345 events``."""
    return f"{count:,} {'event' if count == 1 else 'events'}"


def clock(us: int) -> str:
    """A time in UTC to the second, as a table shows it until the browser puts its own zone in."""
    try:
        return f"{moment(us):%Y-%m-%d %H:%M:%S} UTC"
    except OverflowError:
        return time_text(us)


def exact(us: int) -> str:
    """A time in UTC with its microseconds."""
    try:
        return f"{moment(us):%Y-%m-%d %H:%M:%S.%f} UTC"
    except OverflowError:
        return time_text(us)


def machine(us: int) -> str:
    """A time for the ``datetime`` attribute, in milliseconds as browsers read it; empty where it has no such form."""
    try:
        at = moment(us)
    except OverflowError:
        return ""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z") if at.year >= 1000 else ""


def since(seconds: float) -> str:
    """How long something is ago: ``just now``, ``42 s ago``, ``5 min ago``, ``3 h ago``, ``12 days ago``."""
    if seconds < 2:
        return "just now"
    return f"{length(seconds)} ago"


def length(seconds: float) -> str:
    """A span of time in its largest unit."""
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE:.0f} min"
    if seconds < 2 * _DAY:
        return f"{seconds // _HOUR:.0f} h"
    return f"{seconds // _DAY:.0f} days"


def duration(us: int) -> str:
    """How long a request took: ``850 µs``, ``12.4 ms``, ``3.02 s``."""
    if us < 1_000:
        return f"{us} µs"
    return f"{us / 1_000:.1f} ms" if us < 1_000_000 else f"{us / 1_000_000:.2f} s"


def size(count: int) -> str:
    """Bytes: ``980 B``, ``12.4 kB``."""
    return f"{count} B" if count < 1_000 else f"{count / 1_000:.1f} kB"


def share(part: int, whole: int) -> float:
    """The part of ``whole`` in percent, to a tenth; what is there at all gets at least a sliver."""
    return 0.0 if not part or not whole else max(1.0, round(100 * part / whole, 1))


def percent(part: int, whole: int) -> str:
    """The same for people: ``0 %``, ``< 0.1 %``, ``3.4 %``."""
    if not part or not whole:
        return "0 %"
    value = 100 * part / whole
    return "< 0.1 %" if value < 0.1 else f"{value:.1f} %" if value < 10 else f"{value:.0f} %"


def visible(value: object) -> object:
    """The value, with what a text holds and nobody would see, or would be misled by, written out: ``‹U+202E›``.

    These are control characters and those that turn the direction of what follows; line breaks and tabs stay, and the
    joiners that some scripts are written with. HTML that was escaped already is left alone.
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _HIDDEN.sub(lambda found: f"‹U+{ord(found[0]):04X}›", value)


def utc_now() -> int:
    """Unix time in microseconds: the moment a page is about."""
    return int(datetime.now(UTC).timestamp() * 1_000_000)

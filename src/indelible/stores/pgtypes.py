"""How PostgreSQL's values reach Python: JSON as its exact text, times as integer µs, whatever stands in the column."""

from __future__ import annotations

import re
from typing import Final

from psycopg import Connection
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format
from psycopg.types.string import TextLoader

#: What ``infinity`` and ``-infinity`` become: beyond every time that PostgreSQL can write down.
INFINITY: Final = 2**63 - 1
#: PostgreSQL counts µs from here (2000-01-01), Unix from 1970.
POSTGRES_EPOCH: Final = 946_684_800_000_000

_TIMESTAMP: Final = re.compile(
    rb"(\d{4,6})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?([+-])(\d\d)(?::(\d\d))?(?::(\d\d))?( BC)?\Z"
)


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the proleptic Gregorian calendar, for any year (0 is 1 BC)."""
    year -= month <= 2
    era, of_era = divmod(year, 400)
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


def micros_of(data: bytes) -> int:
    """Unix time in µs of a ``timestamptz`` in ISO text form, exact for every year, BC included.

    ``infinity`` and ``-infinity`` become INFINITY and -INFINITY.
    """
    match = _TIMESTAMP.match(data)
    if match is None:
        return -INFINITY if data.startswith(b"-") else INFINITY
    year, month, day, hour, minute, second = (int(part) for part in match.group(1, 2, 3, 4, 5, 6))
    fraction = int((match[7] or b"").ljust(6, b"0"))
    offset = int(match[9]) * 3600 + int(match[10] or 0) * 60 + int(match[11] or 0)
    seconds = _days(1 - year if match[12] else year, month, day) * 86_400 + hour * 3600 + minute * 60 + second
    return (seconds + (offset if match[8] == b"-" else -offset)) * 1_000_000 + fraction


class MicrosLoader(Loader):
    """``timestamptz`` as Unix time in µs: psycopg's own loader raises for infinity, BC and years beyond 9999."""

    format = Format.TEXT

    def load(self, data: Buffer) -> int:
        """Unix time in µs, or ±INFINITY."""
        return micros_of(bytes(data))


class MicrosBinaryLoader(Loader):
    """The same for the binary form: int64 µs since 2000."""

    format = Format.BINARY

    def load(self, data: Buffer) -> int:
        """Unix time in µs, or ±INFINITY."""
        us = int.from_bytes(bytes(data), "big", signed=True)
        if us == INFINITY:
            return INFINITY
        return -INFINITY if us == -(2**63) else us + POSTGRES_EPOCH


def register(connection: Connection[object]) -> None:
    """Make this connection return ``json`` as text and ``timestamptz`` as µs."""
    connection.adapters.register_loader("json", TextLoader)
    connection.adapters.register_loader("timestamptz", MicrosLoader)
    connection.adapters.register_loader("timestamptz", MicrosBinaryLoader)

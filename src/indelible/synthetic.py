"""Believable events from a seed, for measurements, tests and demonstrations.

Few people do most, each from a few addresses; few things are touched often; days have their working hours and weeks
their end. The same seed gives the same events, and event ``n`` does not depend on where one began: a log that was
begun can be continued.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Final
from uuid import UUID

from indelible.events import AuditEvent

__all__ = ["AGENTS", "START", "STEP", "events", "person"]

#: 2025-01-01T00:00:00Z in Unix µs: when event 0 happens.
START: Final = 1_735_689_600_000_000
#: µs between two events, on the average of a week: 20 million in a year.
STEP: Final = 1_576_800
#: How many people and things there are.
PEOPLE: Final = 5_000
THINGS: Final = 20_000

AGENTS: Final = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "fogctl/2.3.1 (linux; amd64)",
    "python-httpx/0.28.1",
)


@dataclass(frozen=True, slots=True)
class _Kind:
    """One sort of event, and how often it comes among 1,000."""

    weight: int
    event_type: str
    action: str
    method: str
    path: str
    status: str = "success"
    response: int = 200


_KINDS: Final = (
    _Kind(440, "data_access", "read", "GET", "/api/nodes/{}"),
    _Kind(90, "data_access", "read", "GET", "/api/jobs/{}"),
    _Kind(150, "data_modify", "update", "PATCH", "/api/nodes/{}"),
    _Kind(40, "data_modify", "update", "PUT", "/api/users/{}"),
    _Kind(110, "data_create", "create", "POST", "/api/jobs/{}", response=201),
    _Kind(30, "data_delete", "delete", "DELETE", "/api/jobs/{}", response=204),
    _Kind(55, "login", "login", "POST", "/api/auth/login"),
    _Kind(20, "logout", "logout", "POST", "/api/auth/logout", response=204),
    _Kind(20, "login_failed", "login", "POST", "/api/auth/login", "failure", 401),
    _Kind(3, "user_created", "create", "POST", "/api/auth/register", response=201),
    _Kind(15, "admin_action", "update", "PUT", "/api/admin/users/{}"),
    _Kind(9, "permission_denied", "read", "GET", "/api/admin/users/{}", "denied", 403),
    _Kind(12, "data_access", "read", "GET", "/api/nodes/{}", "failure", 404),
    _Kind(4, "data_modify", "update", "PATCH", "/api/nodes/{}", "failure", 422),
    _Kind(2, "api_request_error", "update", "PATCH", "/api/jobs/{}", "failure", 500),
)
_BY_WEIGHT: Final = tuple(accumulate(kind.weight for kind in _KINDS))
#: The n-th most active person or thing comes 1/n as often as the first (Zipf's law).
_BY_PERSON: Final = tuple(accumulate(1 / rank for rank in range(1, PEOPLE + 1)))
_BY_THING: Final = tuple(accumulate(1 / rank for rank in range(1, THINGS + 1)))
_BY_AGENT: Final = tuple(accumulate((50, 20, 12, 10, 5, 3)))

#: How busy each hour of a working day is; a day at the weekend has a fifth of it. START is a Wednesday.
_HOURS: Final = (2, 1, 1, 1, 1, 2, 4, 9, 18, 26, 28, 25, 18, 24, 27, 26, 23, 18, 11, 8, 7, 6, 5, 3)
_WEEK: Final = tuple(accumulate(hour * (1 if day in (3, 4) else 5) for day in range(7) for hour in _HOURS))
_HOUR_US: Final = 3_600_000_000
_WEEK_US: Final = 168 * _HOUR_US

#: Random numbers are drawn for so many events at a time: fast, and any event is at most one block away.
_BLOCK: Final = 1_000


def person(rank: int) -> str:
    """The id of the ``rank``-th most active person, from 0."""
    return str(UUID(int=(0x5EED << 112) | (4 << 76) | (2 << 62) | (rank * 0x9E3779B97F4A7C15 & (1 << 62) - 1)))


def events(seed: int, *, first: int = 0, begin: int = START, step: int = STEP) -> Iterator[AuditEvent]:
    """The events ``first``, ``first + 1``, ... of the log of that seed, without an end; about 600 bytes in a row.

    They begin at ``begin`` (Unix µs) and are ``step`` µs apart on the average of a week, none before the one before it.
    """
    block, skip = divmod(first, _BLOCK)
    even = _even(begin)
    while True:
        yield from _block(seed, block, skip, even, step)
        even += (_BLOCK - skip) * step
        block, skip = block + 1, 0


def _block(seed: int, block: int, skip: int, even: int, step: int) -> Iterator[AuditEvent]:
    chance = random.Random(f"{seed}/{block}")  # noqa: S311 - believable, not secret
    kinds = chance.choices(_KINDS, cum_weights=_BY_WEIGHT, k=_BLOCK)
    people = chance.choices(range(PEOPLE), cum_weights=_BY_PERSON, k=_BLOCK)
    things = chance.choices(range(THINGS), cum_weights=_BY_THING, k=_BLOCK)
    agents = chance.choices(AGENTS, cum_weights=_BY_AGENT, k=_BLOCK)
    bits, lasted = chance.getrandbits, chance.lognormvariate
    drawn = [(bits(62), bits(128), bits(2), int(lasted(8.3, 0.9))) for _ in range(_BLOCK)]
    for place in range(skip, _BLOCK):
        kind, who = kinds[place], people[place]
        identity, correlation, way, duration = drawn[place]
        at = _busy(even + (place - skip) * step)
        about = kind.path.endswith("{}")
        thing = str(who if "users" in kind.path else things[place])
        changed = kind.action == "update" and kind.status == "success"
        yield AuditEvent(
            id=UUID(int=(at // 1000 << 80) | (7 << 76) | (2 << 62) | identity),
            timestamp=at,
            event_type=kind.event_type,
            action=kind.action,
            status=kind.status,
            resource_type=kind.path.split("/")[-2].removesuffix("s") if about else None,
            request_method=kind.method,
            response_status=kind.response,
            duration_us=duration,
            source="fog-compute",
            # Whoever fails to log in is nobody yet.
            user_id=None if kind.event_type == "login_failed" else _PERSONS[who],
            ip_address=_address(who, way),
            user_agent=agents[place],
            correlation_id=f"{correlation:032x}",
            resource_id=thing if about else None,
            request_path=kind.path.format(thing) if about else kind.path,
            old_value='{"name":"edge","region":"north","replicas":2}' if changed else None,
            new_value='{"name":"edge","region":"south","replicas":3}' if changed else None,
            metadata=f'{{"route":"{kind.path.replace("{}", "{id}")}"}}',
            error="TimeoutError" if kind.response == 500 else None,
        )


_PERSONS: Final = tuple(map(person, range(PEOPLE)))


def _address(who: int, way: int) -> str:
    """One of a person's addresses: mostly the office's, which a hundred share, or one at home, or one on the way."""
    if way < 2:
        return f"198.51.100.{who % 50 + 1}"
    return f"10.{who >> 8}.{who & 255}.{way}"


def _busy(even: int) -> int:
    """Where the time ``even`` of a stream without nights and weekends (µs after START) falls in one that has them."""
    week, rest = divmod(even, _WEEK_US)
    share = rest * _WEEK[-1] / _WEEK_US
    hour = bisect_right(_WEEK, share)
    before = _WEEK[hour - 1] if hour else 0
    within = (share - before) / (_WEEK[hour] - before)
    return START + week * _WEEK_US + hour * _HOUR_US + int(within * _HOUR_US)


def _even(at: int) -> int:
    """The inverse of ``_busy``, to the microsecond or so."""
    week, rest = divmod(at - START, _WEEK_US)
    hour, within = divmod(rest, _HOUR_US)
    before = _WEEK[hour - 1] if hour else 0
    share = before + (_WEEK[hour] - before) * within / _HOUR_US
    return week * _WEEK_US + round(share * _WEEK_US / _WEEK[-1])
